"""Computes the bytes of a learner rank, and of a model that only computes forward passes.

The learner's states are those that DeepSpeed 0.19 keeps over weights in float32 or bfloat16. Under autocast
frozen linear layers are in bfloat16 where the checkpoint is. Activations are those that autograd saves of a
Qwen2 decoder with packed groups (docs/guides/plan.md). `benchmarks.plan_memory` holds the sums against
measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlcore.config import LearnerConfig, ModelConfig
from rlcore.plan.hardware import Hardware
from rlcore.plan.sizes import ModelSizes

LOGITS_PER_CHUNK = 16 * 1024 * 1024
LOGITS_PER_CHUNK_ON_GPU = 4 * LOGITS_PER_CHUNK
"""As `rlcore.engines.head`, which needs torch to say it."""
REDUCE_BUCKET = 500_000_000
"""DeepSpeed's `reduce_bucket_size`, in values."""
LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed's `stage3_max_live_parameters`."""
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """The shape of the largest forward pass is `num_groups` prompts and `num_rows` completions, of which the
    longest pad the others inside attention."""

    num_groups: float
    num_rows: float
    prompt: float
    """Tokens of a prompt."""
    completion: float
    """Mean tokens of a completion."""
    longest: float
    """Tokens that each completion takes inside attention."""

    @property
    def tokens(self) -> float:
        return self.num_groups * self.prompt + self.num_rows * self.completion


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerMemory:
    """A learner rank takes these bytes on its device, and in its node's main memory."""

    weights: float
    """The model's weights, as far as they stay on the device; with float32 master copies."""
    gradients: float
    """Gradients that stay between two micro-batches."""
    optimizer: float
    """Adam's two moments."""
    media: float
    """Frozen towers."""
    buffers: float
    """DeepSpeed's reduction buckets and ZeRO-3's gathered parameters."""
    activations: float
    logits: float
    """Logits of a chunk and their gradient, and the head's own."""
    step: float
    """Extra bytes during the optimizer's step."""
    reduction: float
    """Extra bytes during the last reduction of gradients."""
    host: float
    """Bytes in main memory."""

    @property
    def states(self) -> float:
        """Bytes that stay between two updates."""
        return self.weights + self.optimizer + self.media + self.buffers + self.gradients

    @property
    def peak(self) -> float:
        """Bytes when most is taken: as the backward pass begins, in the gradients' reduction or in the
        optimizer's step."""
        return self.states + max(self.activations + self.logits, self.reduction, self.step)


def learner_memory(
    sizes: ModelSizes,
    model: ModelConfig,
    learner: LearnerConfig,
    micro_batch: MicroBatch,
    hardware: Hardware,
    *,
    num_micro_batches: int,
) -> LearnerMemory:
    """Computes the memory of one of `learner.num_ranks` ranks."""
    stage, ranks = learner.zero_stage, learner.num_ranks
    trained = trained_parameters(sizes, learner)
    frozen = sizes.language - trained if learner.lora.rank == 0 else sizes.language
    share = trained / ranks if stage else trained
    gathered = 0.0
    size = BYTES[learner.weight_dtype]
    weights = size * (trained + frozen) - 2.0 * narrow_parameters(sizes, learner)
    whole = weights * min(1.0, LIVE_PARAMETERS / (trained + frozen))
    media = float(size * sizes.media) if model.media == "raw" else 0.0
    if stage == 3:
        weights, media = weights / ranks, media / ranks
        gathered = whole * (ranks > 1)
    master = 4 * share if stage else 0.0
    optimizer = 8 * share
    # Below stage 2 gradients are whole; stage 2 has its part only once a micro-batch is done.
    gradients = 4 * (share if stage >= 2 else trained)
    early = gradients if stage == 3 or num_micro_batches > 1 else 0.0
    bucket = float(size * min(trained, REDUCE_BUCKET))
    if not hardware.is_cpu and stage:
        bucket = 2.0 * size * REDUCE_BUCKET  # two, so that communication may overlap; allocated whole
    activations = activation_bytes(sizes, learner, micro_batch)
    host = float(size * sizes.media) if model.media == "embeds" else 0.0
    # torch's AdamW makes two tensors as large as what it updates: the rank's flat part, or a parameter. Its
    # fused kernel on GPUs makes none.
    step = 8 * share if stage else 8.0 * max(sizes.embedding, sizes.layer) * (not learner.lora.rank)
    if not hardware.is_cpu and learner.offload_optimizer == "none":
        step = 0.0
    step += gradients - early if stage != 1 else 4 * share
    if stage == 3:
        step += 4 * share
    if learner.offload_optimizer == "cpu":
        host, master, optimizer, step = host + master + optimizer + step, 0.0, 0.0, 0.0
    if learner.offload_parameters == "cpu":
        host, weights, media = host + weights + media, 0.0, 0.0
        gathered = whole
    # Stages 1 and 2 make their buckets when a backward pass begins; main memory is taken when it is written.
    stays = stage == 3 or (stage > 0 and not hardware.is_cpu)
    buffers = gathered + (bucket if stays else 0.0)
    reduction = (gradients - early if stage < 2 else 0.0) + (0.0 if stays else bucket)
    if hardware.is_cpu:
        reduction += bucket if stage else 0.0  # gloo reduces a copy
    return LearnerMemory(
        weights=weights + master,
        gradients=early,
        optimizer=optimizer,
        media=media,
        buffers=buffers,
        activations=activations,
        logits=_logit_bytes(sizes, learner, micro_batch, hardware),
        step=step,
        reduction=reduction,
        host=host,
    )


def trained_parameters(sizes: ModelSizes, learner: LearnerConfig) -> int:
    """Returns the number of trained parameters: the adapters where there are any, else the language model.

    `model.freeze` of parts of the language model is not looked at.
    """
    return sizes.lora(learner.lora) if learner.lora.rank else sizes.language


def narrow_parameters(sizes: ModelSizes, learner: LearnerConfig) -> int:
    """Returns the number of frozen weights in bfloat16 (`rlcore.engines.zero.narrow_frozen`)."""
    return sizes.linear if learner.lora.rank and learner.own_precision == "autocast" else 0


def activation_bytes(sizes: ModelSizes, learner: LearnerConfig, batch: MicroBatch) -> float:
    """Computes the bytes saved when the backward pass begins: of all layers, or of their inputs and one
    layer."""
    layer = layer_activation_bytes(sizes, learner, batch)
    tokens, size = batch.tokens, BYTES[learner.weight_dtype]
    if learner.activation_checkpointing:
        kept = sizes.num_layers * size * tokens * sizes.hidden + layer
    else:
        kept = sizes.num_layers * layer
    if learner.own_precision == "autocast":
        # Weights rounded to bfloat16, of which some are at hand.
        num_layers = 1 if learner.activation_checkpointing else sizes.num_layers
        narrow = narrow_parameters(sizes, learner)
        head = sizes.head or sizes.embedding
        of_layers = num_layers * (sizes.layer - max(0, narrow - sizes.head) / sizes.num_layers)
        kept += 2.0 * (of_layers + (0 if narrow and sizes.head else head))
    # Input embeddings, the final norm's three tensors, what the head reads.
    rest = 4 * tokens * sizes.hidden * 4 + 4 * batch.num_rows * batch.completion * sizes.hidden
    return kept + rest


def layer_activation_bytes(sizes: ModelSizes, learner: LearnerConfig, batch: MicroBatch) -> float:
    """Computes the bytes saved of one decoder layer.

    Saved are norms (input, normed, scaled), inputs of the projections, the MLP's gate, its activation, up and
    their product. Inside attention these are padded queries, outputs, and keys and values of the prompt
    beside each of its completions, repeated to the query heads.
    """
    h, a, i = sizes.hidden, sizes.attention, sizes.intermediate
    low, size = BYTES[learner.compute_dtype], BYTES[learner.weight_dtype]
    targets = set(learner.lora.target_modules) if learner.lora.rank else None
    if targets is None:
        norms = 2 * h * (4 + size + low)
        linear = low * (a + 4 * i)
    else:
        # A frozen projection needs no input of its own for the gradient, only its adapter does.
        feeds = [
            (h, {"q_proj", "k_proj", "v_proj"}),
            (a, {"o_proj"}),
            (h, {"gate_proj", "up_proj"}),
            (i, {"down_proj"}),
        ]
        norms = 2 * h * 4
        linear = sum(low * width for width, names in feeds if names & targets)
        # Of gate, its activation, and up; what an adapter was added to is float32 (`AdaptedLinear`).
        for name, count in (("gate_proj", 2), ("up_proj", 1)):
            linear += count * i * (4 if name in targets else low)
    context = batch.prompt + batch.longest
    padded = batch.num_groups * 4 * batch.prompt + batch.num_rows * (2 * batch.longest + 2 * context)
    mask = batch.num_rows * batch.longest * context
    return batch.tokens * (norms + linear) + low * (padded * a + mask)


def _logit_bytes(sizes: ModelSizes, learner: LearnerConfig, batch: MicroBatch, hardware: Hardware) -> float:
    num_logits = min(batch.num_rows * batch.completion * sizes.vocab, _largest_chunk(sizes, hardware))
    each = 12 if learner.compute_dtype == "bfloat16" else 8
    # Added up in float32, for a parameter of its own dtype.
    head_gradient = 0 if learner.lora.rank else (4 + BYTES[learner.weight_dtype]) * sizes.vocab * sizes.hidden
    return each * num_logits + head_gradient


def _largest_chunk(sizes: ModelSizes, hardware: Hardware) -> int:
    return max(LOGITS_PER_CHUNK if hardware.is_cpu else LOGITS_PER_CHUNK_ON_GPU, sizes.vocab)


def forward_memory(
    sizes: ModelSizes, model: ModelConfig, learner: LearnerConfig, tokens: float, hardware: Hardware
) -> float:
    """Computes the bytes of the reference, which is in the learner's precision: weights, one layer, one chunk
    of logits."""
    low, size = BYTES[learner.compute_dtype], BYTES[learner.weight_dtype]
    parameters = sizes.language + (sizes.media if model.media == "raw" else 0)
    # What is multiplied is rounded once, whatever the checkpoint.
    multiplied = sizes.language - sizes.embedding
    weights = size * parameters - (size - low) * multiplied
    layer = low * tokens * (4 * sizes.hidden + 4 * sizes.attention + 3 * sizes.intermediate)
    return weights + layer + 3 * 4 * _largest_chunk(sizes, hardware)
