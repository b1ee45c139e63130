"""Computes the seconds of a step's phases by the roofline model (Williams et al. 2009,
doi:10.1145/1498765.1498785).

A phase takes its work over the lower rate that arithmetic and memory allow, times the share of this rate
that is reached (`Efficiency`).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlcore.config import RunConfig
from rlcore.plan.hardware import Efficiency, Hardware
from rlcore.plan.memory import BYTES, trained_parameters
from rlcore.plan.sizes import ModelSizes
from rlcore.plan.workload import AUDIO_FRAMES_PER_S, Batch

RENDER_S = 0.002
"""Seconds of one CPU core in which a prompt with its features becomes vLLM's
(benchmarks/results/preprocessing.json)."""
PUSH_OVERHEAD_S = 1.0
"""Seconds of a push to engines on GPUs beside the bytes: vLLM puts every layer on the meta device and back,
and loads hundreds of tensors, a device synchronisation each. An assumption."""
NETWORK_PUSH_GB_S = 4.0
"""GB per second of a push between nodes, at most, whatever the links: tensors are gathered, packed and loaded
one after the other. An assumption: with the overhead 7B take 5 seconds, as frameworks report (4 to 6)."""
PAGEABLE_GB_S = 5.0
"""GB per second of copies to a GPU from pages that are not pinned, as those of a mapped checkpoint. An
assumption; 3 to 10 are usual."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine, as far as its speed depends on it."""

    sizes: ModelSizes
    hardware: Hardware
    efficiency: Efficiency
    dtype: str
    tensor_parallel: int
    max_num_seqs: int
    """Number of sequences that are written at once."""

    def step_seconds(self, num_active: np.ndarray, num_cached: np.ndarray) -> np.ndarray:
        """Computes the seconds of decoding steps with this many sequences and tokens in the cache, [N] each.

        A step reads weights and cache once, and makes 2 floating-point operations per weight and sequence.
        """
        size, gpus = BYTES[self.dtype], self.tensor_parallel
        weights = self.sizes.decoder + (self.sizes.head or self.sizes.embedding)
        read = size * (weights + num_cached * self.sizes.kv_values_per_token)
        memory_s = read / (gpus * self.efficiency.decode * self.hardware.bandwidth_gb_s * 1e9)
        peak = gpus * self.hardware.tflops(self.dtype) * 1e12
        compute_s = 2.0 * weights * num_active / (self.efficiency.prefill * peak)
        return np.maximum(memory_s, compute_s) + self.efficiency.decode_step_s

    def prefill_seconds(self, num_prompts: float, prompt_length: float, audio_seconds: float) -> float:
        """Computes the seconds to read prompts, each once: its samples share the cache.

        Audio goes through the tower where this engine has one; elsewhere `audio_seconds` is 0.
        """
        flops = forward_flops(self.sizes, num_prompts * prompt_length, prompt_length)
        flops += 2.0 * self.sizes.audio * num_prompts * audio_seconds * AUDIO_FRAMES_PER_S
        peak = self.tensor_parallel * self.hardware.tflops(self.dtype) * 1e12
        return flops / (self.efficiency.prefill * peak)

    def decode_seconds(self, lengths: Sequence[int], prompt_length: int) -> float:
        """Computes the seconds to write completions of these lengths, `max_num_seqs` at a time.

        The next starts where one ends. The last ones are written by few at a time, at the price of reading
        all the weights.
        """
        starts = _starts(lengths, self.max_num_seqs)
        ends = starts + np.asarray(lengths)
        num_steps = int(ends.max())
        change = np.zeros(num_steps + 1)
        np.add.at(change, starts, 1)
        np.add.at(change, ends, -1)
        active = change.cumsum()[:num_steps]
        # Tokens written by the active ones: the steps since their starts.
        since = np.zeros(num_steps + 1)
        np.add.at(since, starts, starts)
        np.add.at(since, ends, -starts)
        written = active * np.arange(num_steps) - since.cumsum()[:num_steps]
        return float(self.step_seconds(active, written + active * prompt_length).sum())


def _starts(lengths: Sequence[int], slots: int) -> np.ndarray:
    """The step at which each sequence begins, in order, with `slots` of them at once."""
    if len(lengths) <= slots:
        return np.zeros(len(lengths), dtype=np.int64)
    free = [0] * slots
    starts = []
    for length in lengths:
        start = heapq.heappop(free)
        starts.append(start)
        heapq.heappush(free, start + int(length))
    return np.asarray(starts, dtype=np.int64)


def forward_flops(sizes: ModelSizes, tokens: float, context: float) -> float:
    """Counts the floating-point operations of the decoder's layers: 2 per token and parameter that it passes,
    and attention's two products over half the context."""
    return tokens * (2.0 * sizes.active + 2.0 * sizes.num_layers * sizes.attention * context)


def head_flops(sizes: ModelSizes, tokens: float) -> float:
    """Counts the floating-point operations of the output head."""
    return 2.0 * sizes.vocab * sizes.hidden * tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """The phases of one step, in seconds."""

    prepare: float = 0.0
    """Reading and preparing the prompts' media on one core of each engine, and the tower that runs there."""
    prefill: float
    decode: float
    score: float
    """The slowest of rewards and reference, for the whole batch."""
    update: float
    weight_sync: float

    @property
    def rollout(self) -> float:
        return self.prepare + self.prefill + self.decode

    def step(self, staleness: int, chunks: float) -> float:
        """Computes the seconds per step, as `rlcore.loop.rollouts` orders the phases.

        Scoring runs beside the rollout but for the last of `chunks` parts. With staleness the next rollout
        runs beside update and weight sync.
        """
        material = max(self.rollout, self.score) + min(self.rollout, self.score) / max(chunks, 1.0)
        learn = self.update + self.weight_sync
        return material + learn if staleness == 0 else max(material, learn)


def prepare_seconds(
    config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware, efficiency: Efficiency
) -> float:
    """Computes the seconds in which each engine's actor reads its prompts' media and prepares them, one after
    the other; with `model.media: embeds` the frozen tower runs there too, in float32."""
    workload = batch.workload
    each = _read_seconds(batch, efficiency) + RENDER_S
    if config.model.media == "embeds":
        flops = 2.0 * sizes.audio * workload.audio_seconds * AUDIO_FRAMES_PER_S
        each += flops / (efficiency.forward * hardware.tflops("float32") * 1e12)
    return each * math.ceil(batch.num_prompts / config.rollout.min_replicas)


def _read_seconds(batch: Batch, efficiency: Efficiency) -> float:
    """The seconds of one core in which a prompt's media are read and made features."""
    measured = batch.workload.prepare_seconds
    return efficiency.prepare_s * batch.workload.audio_seconds if measured is None else measured


def reference_seconds(
    config: RunConfig, sizes: ModelSizes, batch: Batch, hardware: Hardware, efficiency: Efficiency
) -> float:
    """Computes the seconds of the reference's forward pass in a step; 0 without a KL."""
    if config.algorithm.kl_coef == 0:
        return 0.0
    flops = forward_flops(sizes, batch.packed_tokens, batch.prompt_length)
    flops += head_flops(sizes, batch.completion_tokens) + _tower_flops(config, sizes, batch)
    num_devices = config.reference.num_replicas or config.learner.num_ranks
    peak = hardware.tflops(config.learner.compute_dtype) * 1e12 * num_devices
    return flops / (efficiency.forward * peak)


def judge_seconds(
    sizes: ModelSizes, batch: Batch, hardware: Hardware, efficiency: Efficiency, replicas: int
) -> float:
    """Computes the seconds of a generative reward model that reads prompt, audio and completion, after a core
    has made the prompt's media ready once, and asked about each completion."""
    tokens = batch.num_sequences * (batch.prompt_length + batch.completion_length)
    flops = forward_flops(sizes, tokens, batch.prompt_length)
    flops += 2.0 * sizes.audio * batch.num_prompts * batch.workload.audio_seconds * AUDIO_FRAMES_PER_S
    seconds = flops / (efficiency.forward * hardware.tflops("bfloat16") * 1e12)
    ready = batch.num_prompts * _read_seconds(batch, efficiency) + batch.num_sequences * RENDER_S
    return (seconds + ready) / replicas


def update_flops(config: RunConfig, sizes: ModelSizes, batch: Batch) -> float:
    """Counts the floating-point operations of one pass over the batch on all ranks.

    There are 2 + 2 + 2 per parameter and token (forward, backward for inputs and for weights), and 2 more
    where activations are computed again.
    """
    learner = config.learner
    passes = (2 if learner.lora.rank else 3) + learner.activation_checkpointing
    flops = passes * forward_flops(sizes, batch.packed_tokens, batch.prompt_length)
    # The head's logits are computed again in the backward pass, chunk by chunk.
    flops += (passes + 1 - learner.activation_checkpointing) * head_flops(sizes, batch.completion_tokens)
    return flops + _tower_flops(config, sizes, batch)


def update_seconds(
    config: RunConfig,
    sizes: ModelSizes,
    batch: Batch,
    hardware: Hardware,
    efficiency: Efficiency,
    *,
    num_micro_batches: int,
) -> float:
    """Computes the seconds of a step's updates: gradients, their communication, the optimizer's step."""
    learner = config.learner
    flops = update_flops(config, sizes, batch)
    peak = hardware.tflops(learner.compute_dtype) * 1e12 * learner.num_ranks
    compute = flops / (efficiency.train * peak)
    communication = _communication_seconds(
        config, sizes, hardware, efficiency, num_micro_batches=num_micro_batches
    )
    # Communication runs beside the backward pass on GPUs (overlap_comm), not with gloo.
    gradients = compute + communication if hardware.is_cpu else max(compute, communication)
    share = trained_parameters(sizes, learner) / (learner.num_ranks if learner.zero_stage else 1)
    if learner.offload_optimizer == "cpu":
        # 7 reads and writes of a float32 value, by one process in main memory; gradients and weights travel.
        optimizer = 28 * share / 20e9 + 8 * share / (efficiency.link * hardware.host_link_gb_s * 1e9)
    else:
        optimizer = 28 * share / (efficiency.decode * hardware.bandwidth_gb_s * 1e9)
    seconds = learner.updates_per_batch * (gradients + learner.num_mini_batches * optimizer)
    if learner.recomputes_logprobs and learner.num_mini_batches > 1:
        # Forward alone, a third of a pass, on all mini-batches but the first.
        seconds += compute / 3 * (1 - 1 / learner.num_mini_batches)
    return seconds


def _communication_seconds(
    config: RunConfig,
    sizes: ModelSizes,
    hardware: Hardware,
    efficiency: Efficiency,
    *,
    num_micro_batches: int,
) -> float:
    """Ring collectives: each moves (N - 1) / N of its bytes past every rank (Rajbhandari et al. 2020,
    arXiv:1910.02054, 7). Stages 2 and 3 reduce at every micro-batch; stage 3 gathers the weights twice."""
    learner = config.learner
    trained = trained_parameters(sizes, learner)
    weights = sizes.language + (trained if learner.lora.rank else 0)
    size = BYTES[learner.weight_dtype]  # gradients travel as weights do
    ring = (learner.num_ranks - 1) / learner.num_ranks
    link = hardware.link_gb_s if learner.num_ranks <= hardware.gpus_per_node else hardware.network_gb_s
    rate = efficiency.link * link * 1e9
    reductions = num_micro_batches if learner.zero_stage >= 2 else 1
    moved = ring * size * trained * reductions
    if learner.zero_stage == 3:
        moved += ring * 2 * size * weights * num_micro_batches
    else:
        moved += ring * size * trained
    seconds = moved / rate
    if learner.offload_parameters == "cpu":
        gathered = 2 * size * weights / learner.num_ranks * num_micro_batches
        seconds += gathered / (efficiency.link * hardware.host_link_gb_s * 1e9)
    return seconds


def pushed_values(config: RunConfig, sizes: ModelSizes) -> tuple[int, int]:
    """Returns the number of values in one push and the bytes of each: the language model in the engines'
    dtype, or what adapters change of it; or adapters in float32."""
    if config.learner.lora.push == "adapters":
        return sizes.lora(config.learner.lora), BYTES["float32"]
    num_values = sizes.language if config.pushes_all else sizes.adapted(config.learner.lora)
    return num_values, BYTES[config.rollout_dtype]


def sync_seconds(config: RunConfig, sizes: ModelSizes, hardware: Hardware, efficiency: Efficiency) -> float:
    """Computes the seconds of one push, which all receivers take at the same time."""
    num_values, size = pushed_values(config, sizes)
    medium = config.weight_sync.medium
    if medium.gb_per_s is not None:
        rate = medium.gb_per_s
    elif medium.gpus == "shared":
        rate = efficiency.link * hardware.bandwidth_gb_s / 2
    else:
        rate = efficiency.link * hardware.link_gb_s
        if hardware.num_nodes > 1:
            rate = min(efficiency.link * hardware.network_gb_s, NETWORK_PUSH_GB_S)
    seconds = size * num_values / (rate * 1e9)
    if not hardware.is_cpu:
        seconds += PUSH_OVERHEAD_S
        if config.learner.lora.push == "adapters":
            # Engines on GPUs load what adapters change again from their checkpoint
            # (`rlcore.weight_sync.vllm_receiver`).
            loaded = BYTES[config.rollout_dtype] * sizes.adapted(config.learner.lora)
            seconds += loaded / (PAGEABLE_GB_S * 1e9)
    if config.learner.zero_stage == 3 and config.learner.num_ranks > 1:
        spans = config.learner.num_ranks > hardware.gpus_per_node
        link = hardware.network_gb_s if spans else hardware.link_gb_s
        seconds += BYTES[config.learner.weight_dtype] * num_values / (efficiency.link * link * 1e9)
    return seconds


def _tower_flops(config: RunConfig, sizes: ModelSizes, batch: Batch) -> float:
    """The frozen tower's forward pass, where each of the roles has its own (`model.media: raw`)."""
    if config.model.media != "raw":
        return 0.0
    return 2.0 * sizes.audio * batch.num_prompts * batch.workload.audio_seconds * AUDIO_FRAMES_PER_S
