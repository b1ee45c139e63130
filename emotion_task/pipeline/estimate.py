"""Estimates how long the line will take on this machine, before it starts.

A stage is arithmetic: 2 operations a weight and token forward, as many again for every further pass
(`rlcore.plan.phases`), over what a matrix product reaches on this machine in a second of measuring, whatever
else runs on it. The share of that peak that training reaches, and what annotation takes, were measured with
the small model and on RAVDESS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from emotion_task.config import PipelineConfig, SupervisedConfig
from emotion_task.corpora import find_corpus, load_corpus
from emotion_task.pipeline.settings import corpus_args
from rlcore.plan.hardware import Hardware
from rlcore.plan.phases import forward_flops, head_flops
from rlcore.plan.sizes import ModelSizes

EFFICIENCY = 0.28
"""Share of the peak of bfloat16 matrix products that is reached: 300 tokens per second of one core,
forward and backward through adapters, where products reach 450 GFLOP/s. vLLM writes at the same share (462
tokens a second, 32 at a time) and reads prompts at twice that."""
ANNOTATION_S = 0.07
"""CPU seconds to measure a recording of 3 to 4 s."""
EGEMAPS_S = 0.1
"""CPU seconds to take the eGeMAPS functionals of a recording."""
PROMPT_TOKENS, TARGET_TOKENS, JUDGE_TOKENS = 60, 45, 110
"""Lengths of a question, of a trace, and of what a grading question adds to them, in SmolLM2's tokens."""
SMALLEST = 20_000_000
"""Parameters of a language model below which arithmetic says nothing."""
AUDIO_TOKENS = 92
"""Length of a recording of 3.7 s, in tokens."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A run's work, from which its time is estimated."""

    config: PipelineConfig
    sizes: ModelSizes
    hardware: Hardware
    num_recordings: int
    num_eval: int

    @property
    def num_cores(self) -> int:
        """Cores that the run may use."""
        return min(os.cpu_count() or 1, int(self.config.rl.cluster.num_cpus or 1_000_000))

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each stage on all cores; stages that take seconds are left out."""
        config = self.config
        result = {"annotate": self.num_recordings * ANNOTATION_S / self.num_cores}
        if config.egemaps:
            result["reference"] = self.num_recordings * EGEMAPS_S
        if config.alignment.fit:
            # The tower alone, in one process.
            num_train = self.num_recordings - self.num_eval
            result["alignment"] = self._tower(num_train) * self.num_cores / self._rate("float32")
        for name, train, is_used in (
            ("alignment", config.alignment.train, bool(config.alignment.weights)),
            ("sft", config.sft.train, True),
            ("cold_start", config.cold_start.train, bool(config.cold_start.weights)),
            ("reward_model", config.reward_model.train, True),
        ):
            if is_used:
                extra = JUDGE_TOKENS if name == "reward_model" else 0
                result[name] = result.get(name, 0.0) + self._supervised(train, extra)
        result["rl"] = self._rl()
        return result

    def _supervised(self, train: SupervisedConfig, extra: int) -> float:
        num_examples = train.num_steps * train.batch_size
        context = PROMPT_TOKENS + AUDIO_TOKENS + extra + TARGET_TOKENS
        passes = 2 if train.learner.lora.rank or "language_model" in train.freeze else 3
        flops = passes * forward_flops(self.sizes, num_examples * context, context)
        flops += 3 * head_flops(self.sizes, num_examples * TARGET_TOKENS)
        flops += self._tower(min(num_examples, self.num_recordings))
        return flops / self._rate(train.learner.compute_dtype)

    def _tower(self, num_recordings: int) -> float:
        """Operations of the tower, forward alone: two positions an embedding."""
        return 2.0 * self.sizes.audio * 2 * AUDIO_TOKENS * num_recordings

    def _rl(self) -> float:
        rl, sizes = self.config.rl, self.sizes
        prompts, samples = rl.train.prompts_per_step, rl.rollout.samples_per_prompt
        prompt, answers = PROMPT_TOKENS + AUDIO_TOKENS, prompts * samples * TARGET_TOKENS
        packed = prompts * prompt + answers
        dtype = rl.rollout_dtype
        rollout = forward_flops(sizes, packed, prompt) + head_flops(sizes, answers)
        passes = 2 if rl.learner.lora.rank else 3
        update = passes * rollout * rl.learner.updates_per_batch
        reference = rollout if rl.algorithm.kl_coef else 0.0
        graded = "reasoning" in rl.rewards
        judge = forward_flops(sizes, prompts * samples * (JUDGE_TOKENS + TARGET_TOKENS), prompt) * graded
        step = (rollout + judge) / self._rate(dtype)
        step += (reference + update) / self._rate(rl.learner.compute_dtype)
        num_evaluations = 2 + (rl.train.num_steps // rl.train.eval_every if rl.train.eval_every else 0)
        asked = self.num_eval if rl.train.max_eval_prompts is None else rl.train.max_eval_prompts
        tokens = asked * (prompt + (2 + graded) * TARGET_TOKENS)
        evaluation = forward_flops(sizes, tokens, prompt) / self._rate(dtype)
        return rl.train.num_steps * step + num_evaluations * evaluation

    def _rate(self, dtype: str) -> float:
        """Returns the operations per second on all cores."""
        peak = self.hardware.tflops("bfloat16" if dtype == "bfloat16" else "float32") * 1e12
        return self.num_cores * EFFICIENCY * peak


def describe(work: Work, finished: Mapping[str, float]) -> str:
    """Describes the estimate in lines for the terminal; `finished` stages are shown with what they took."""
    seconds = work.seconds()
    lines = [
        f"{work.num_cores} cores, each {1000 * work.hardware.bf16_tflops:.0f} GFLOP/s in bfloat16 just now; "
        f"{work.num_recordings} recordings. Estimated:"
    ]
    for name, value in seconds.items():
        note = f"   finished, took {minutes(finished[name])}" if name in finished else ""
        lines.append(f"  {name:<14}{minutes(value):>8}{note}")
    left = sum(value for name, value in seconds.items() if name not in finished)
    lines.append(f"  {'to do':<14}{minutes(left):>8}   (an interrupted run goes on with the same command)")
    return "\n".join(lines)


def minutes(seconds: float) -> str:
    """Writes seconds as `40 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(config: PipelineConfig) -> Work | None:
    """Estimates the work of a run from a given base model on CPUs; None on GPUs (`rlcore plan` knows those),
    and for models so small that their time is overhead, not arithmetic.

    Raises:
        DataError: no corpus, or no base model.
    """
    if config.base_model is None or config.rl.learner.num_gpus or config.rl.rollout.num_gpus:
        return None
    from rlcore.config import ModelConfig
    from rlcore.plan.hardware import this_machine
    from rlcore.plan.sizes import sizes_of

    sizes = sizes_of(ModelConfig(path=config.base_model))
    if sizes.language < SMALLEST:
        return None
    args = corpus_args(config.corpus)
    if find_corpus(config.corpus.name).make is not None:
        num_train, num_eval = int(args.get("num_train", 0)), int(args.get("num_eval", 0))
    else:
        splits = [u.split for u in load_corpus(config.corpus.name, str(config.corpus.root), **args)]
        num_train, num_eval = splits.count("train"), splits.count("eval")
    return Work(
        config=config,
        sizes=sizes,
        hardware=this_machine(),
        num_recordings=num_train + num_eval,
        num_eval=num_eval,
    )
