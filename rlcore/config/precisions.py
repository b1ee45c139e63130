"""Says in which dtypes each role of a run computes."""

from __future__ import annotations

from rlcore.config import RunConfig


def precisions(config: RunConfig) -> dict[str, str]:
    """Returns a description of each role's dtypes, by the role's name: of the weights that a forward pass
    reads, of the products of its layers, and of the head's."""
    model, learner, rollout = config.model, config.learner, config.rollout_dtype
    own = _line(learner.weight_dtype, learner.compute_dtype, model.head_dtype)
    said = {"rollout": _line(rollout, rollout, model.head_dtype), "learner": own}
    if learner.weight_dtype == "bfloat16":
        said["learner"] += ", master weights float32"
    if config.algorithm.kl_coef > 0:
        said["reference"] = own if config.reference.num_replicas else f"{own} (the learner, without adapters)"
    has_float32 = learner.compute_dtype == "float32" or model.head_dtype == "float32"
    for name, section in (("learner", learner), ("reference", config.reference)):
        if name in said and has_float32 and section.num_gpus > 0:
            said[name] += "; float32 products in TF32"
    return said


def _line(weights: str, products: str, head: str) -> str:
    return f"weights {weights}, products {products}, head {products if head == 'auto' else head}"
