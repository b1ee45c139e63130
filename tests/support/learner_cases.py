"""Holds what the learner's tests share: batches of unequal work, plain torch to compare with, an open rank.

Plain means the usual way: a padded row per sample, each with its raw audio, through the model's own forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlcore.actors.group import ActorGroup
from rlcore.actors.learner_worker import LearnerWorker, start_learner
from rlcore.actors.reference_worker import ReferenceWorker
from rlcore.config import AlgorithmConfig, LearnerConfig, ModelConfig, RolloutConfig, RunConfig, TrainConfig
from rlcore.engines import head, weights
from rlcore.loop.batch import rank_batches
from rlcore.models.hf_model import audio_token_id, embed_media, load_model
from rlcore.types import Completion, Group, Prompt, TrainBatch, TrainGroup

LEARNER = LearnerConfig(
    num_ranks=2,
    num_cpus=0.5,
    lr=3e-4,
    lr_schedule="linear",
    warmup_steps=2,
    weight_decay=0.01,
    max_grad_norm=0.5,
    micro_batch_tokens=44,
    timeout_s=60,
)
LENGTHS = ((3, 20, 7), (11, 2, 2, 9), (30,), (5, 5), (14, 1, 8))
"""Completion lengths of the groups of a batch."""


class Probe(LearnerWorker):
    """Extends a learner rank, so that it can be built anew in its process, and looked into."""

    def configure(self, config: RunConfig) -> None:
        if hasattr(self, "_engine"):
            self.close()
            self._engine.close()
        self._config = config
        # Some ten tokens at a time, so that ranks differ in the number of chunks.
        head.LOGITS_PER_CHUNK = 6000

    def update(self, batch: TrainBatch) -> dict[str, float]:
        """Updates on this rank's part of the whole batch; the controller would send each rank its part."""
        return super().update(*rank_batches(batch, self._config.learner)[self.rank])

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the weights that rollouts get, by hub name: of the language model and of media modules that
        are trained, with adapters merged."""
        from rlcore.engines import zero

        engine = self._engine
        whole = list(weights.rollout_weights(engine.model.module))
        gathered = zero.gathered(whole, zero_stage=engine._config.zero_stage)
        return {weight.hub_name: tensor.cpu().numpy().copy() for weight, tensor in gathered}

    def masters(self) -> dict[str, np.ndarray]:
        """Returns the trained parameters as the optimizer knows them, by in-memory name."""
        engine = self._engine
        whole = {n: engine._adam.read(p, with_moments=False) for n, p in engine.model.trained.items()}
        return {name: tensors["weight"].cpu().numpy().copy() for name, tensors in whole.items()}

    def dtypes(self) -> dict[str, set[str]]:
        """Returns the dtypes of the parameters that are trained, and of what the optimizer updates."""
        trained, owners = self._engine.model.trained.values(), self._engine._adam._owners()
        return {
            "trained": {str(getattr(p, "ds_tensor", p).dtype) for p in trained},
            "optimizer": {str(owner.dtype) for owner in owners},
        }

    def logprobs(self, groups: Sequence[TrainGroup]) -> list[np.ndarray]:
        """Returns the log-probabilities of the engine's own forward, with adapters beside their layers. Every
        rank gets the same groups."""
        with torch.no_grad():
            return self._engine._score(groups).rows()

    def supervised_loss(self, groups: Sequence[TrainGroup]) -> float:
        """Returns the engine's supervised loss. Every rank gets the same groups."""
        return self._engine.supervised_loss(groups)

    def update_with_nan_gradient(self, batch: TrainBatch) -> dict[str, float]:
        """Updates with one gradient of rank 1 made NaN on its way back, though the loss is finite."""
        parameter = list(self._engine.model.trained.values())[-1]
        hook = parameter.register_hook(lambda grad: grad * (torch.nan if self.rank == 1 else 1.0))
        try:
            return self.update(batch)
        finally:
            hook.remove()

    def load_in_parts(self, model_path: str) -> tuple[int, int]:
        """Returns how many numbers this rank holds after loading a model for ZeRO-3, and how many the model
        has."""
        from rlcore.engines import zero

        config = zero.deepspeed_config(replace(LEARNER, zero_stage=3), hidden_size=128)
        with zero.partitioned_loading(config):
            parameters = list(load_model(model_path).parameters())
        held = sum(p.numel() + p.ds_tensor.numel() for p in parameters)
        return held, sum(p.ds_numel for p in parameters)

    def frozen_bytes(self) -> dict[str, int]:
        """Returns the bytes that this rank holds of weights that are not trained, by dtype."""
        held: dict[str, int] = {}
        for parameter in self._engine.model.module.parameters():
            if not parameter.requires_grad:
                part = getattr(parameter, "ds_tensor", parameter)
                held[str(part.dtype)] = held.get(str(part.dtype), 0) + part.numel() * part.element_size()
        return held

    def keep_wide(self, is_wide: bool) -> None:
        """Sets whether the next engine holds frozen weights in float32."""
        from rlcore.engines import zero

        if not hasattr(zero, "own_narrow_frozen"):
            zero.own_narrow_frozen = zero.narrow_frozen
        zero.narrow_frozen = (lambda layers: None) if is_wide else zero.own_narrow_frozen

    def trained(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of this rank's parts of trained parameters, by in-memory name."""
        return {name: tuple(p.shape) for name, p in self._engine.model.trained.items()}


def make_features(seed: int, index: int, num_audio: int) -> dict[str, np.ndarray]:
    """Makes mel features that the tower of `make_qwen2_audio` turns into `num_audio` embeddings."""
    features = np.random.default_rng((seed, index)).normal(size=(1, 128, 150)).astype(np.float32)
    # A convolution and a pooling halve the frames, one after the other.
    mask = (np.arange(150) < 4 * num_audio).astype(np.int64)[None]
    return {"input_features": features, "feature_attention_mask": mask}


def make_groups(model, seed: int) -> list[Group]:
    """Makes groups of unequal sizes, with the tower's embeddings; the last group has no audio."""
    rng = np.random.default_rng(seed)
    placeholder = audio_token_id(model.config)
    groups = []
    for index, lengths in enumerate(LENGTHS):
        has_audio = placeholder is not None and index < len(LENGTHS) - 1
        num_audio = int(rng.integers(3, 9)) if has_audio else 0
        text = rng.integers(20, 300, size=6)
        media = {}
        if num_audio:
            features = {n: torch.from_numpy(a) for n, a in make_features(seed, index, num_audio).items()}
            with torch.no_grad():
                media = {"audio_embeds": embed_media(model, features)[0].numpy()}
            assert media["audio_embeds"].shape[0] == num_audio
        completions = tuple(
            Completion(
                token_ids=tuple(rng.integers(20, 300, size=length).tolist()),
                logprobs=(),
                text="",
                finish_reason="stop",
                policy_version=0,
            )
            for length in lengths
        )
        groups.append(
            Group(
                prompt=Prompt(id=f"{seed}/{index}", text=""),
                prompt_token_ids=(*text[:3].tolist(), *[placeholder] * num_audio, *text[3:].tolist()),
                completions=completions,
                media_inputs=media,
            )
        )
    return groups


def with_raw_audio(batch: TrainBatch) -> TrainBatch:
    """Returns the batch with mel features in place of the tower's embeddings."""
    return replace(batch, groups=tuple(replace(g, media_inputs=_features_of(g)) for g in batch.groups))


def with_own_audio(group: Group) -> Group:
    """Returns a group of `make_groups` with mel features in place of the tower's embeddings."""
    seed, index = map(int, group.prompt.id.split("/"))
    num_audio = len(group.media_inputs.get("audio_embeds", ()))
    return replace(group, media_inputs=make_features(seed, index, num_audio) if num_audio else {})


def _features_of(group: TrainGroup) -> dict[str, np.ndarray]:
    if not group.media_inputs:
        return {}
    seed, index = map(int, group.prompt_id.split("/"))
    return make_features(seed, index, len(group.media_inputs["audio_embeds"]))


def make_batch(model, reference: ReferenceWorker, seed: int) -> TrainBatch:
    """Makes a batch whose rollout logprobs are off by up to 0.3, so that some tokens are clipped, and whose
    reference logprobs are off by up to 0.5."""
    rng = np.random.default_rng(seed)
    groups = []
    sources = make_groups(model, seed)
    for group, logprobs in zip(sources, reference.logprobs(sources), strict=True):
        groups.append(
            TrainGroup(
                prompt_token_ids=np.array(group.prompt_token_ids),
                media_inputs=group.media_inputs,
                token_ids=tuple(np.array(completion.token_ids) for completion in group.completions),
                rollout_logprobs=tuple(
                    row + rng.uniform(-0.3, 0.3, row.shape).astype(np.float32) for row in logprobs
                ),
                reference_logprobs=tuple(
                    row + rng.uniform(-0.5, 0.5, row.shape).astype(np.float32) for row in logprobs
                ),
                advantages=rng.normal(size=len(logprobs)).astype(np.float32),
                prompt_id=group.prompt.id,
            )
        )
    lengths = [len(tokens) for group in groups for tokens in group.token_ids]
    return TrainBatch(
        groups=tuple(groups), num_sequences=len(lengths), num_tokens=sum(lengths), policy_version=0
    )


def plain_distributions(model, group: TrainGroup) -> list[torch.Tensor]:
    """Returns log-probabilities of the whole vocabulary, [K] of [T, V]: one padded row per sample, each with
    its own copy of the audio, and logits of every position."""
    rows = [np.concatenate([group.prompt_token_ids, tokens]) for tokens in group.token_ids]
    input_ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for k, row in enumerate(rows):
        input_ids[k, : len(row)], mask[k, : len(row)] = torch.from_numpy(row), 1
    features = {
        n: torch.from_numpy(a).repeat_interleave(len(rows), 0) for n, a in _features_of(group).items()
    }
    logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False, **features).logits
    start = len(group.prompt_token_ids) - 1
    return [
        logits[k, start : start + len(tokens)].log_softmax(-1) for k, tokens in enumerate(group.token_ids)
    ]


def plain_logprobs(model, group: TrainGroup) -> list[torch.Tensor]:
    """Returns the log-probabilities of the group's tokens, [K] of [T]."""
    return [
        distribution.gather(-1, torch.from_numpy(tokens)[:, None])[:, 0]
        for distribution, tokens in zip(plain_distributions(model, group), group.token_ids, strict=True)
    ]


def plain_loss(model, batch: TrainBatch, algorithm: AlgorithmConfig) -> torch.Tensor:
    """Returns the loss of the whole batch, written out sample by sample."""
    total = torch.zeros(())
    for group in batch.groups:
        for k, logprobs in enumerate(plain_logprobs(model, group)):
            ratio = (logprobs - torch.tensor(group.rollout_logprobs[k])).exp()
            advantage = float(group.advantages[k])
            low, high = 1 - algorithm.clip_low, 1 + algorithm.clip_high
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
            log_r = torch.tensor(group.reference_logprobs[k]) - logprobs
            of_policy = ratio.detach().clamp(max=algorithm.correction_high)
            total = total + (-surrogate + algorithm.kl_coef * of_policy * (log_r.exp() - 1 - log_r)).sum()
    return total / batch.num_tokens


def plain_updates(model_path: str, factors: Sequence[float]) -> tuple[list, list, list]:
    """Runs updates in plain torch, one for each factor on the learning rate. Returns the batches, metrics
    (`loss`, `grad_norm`, `lr`), and the weights by hub name, of each update."""
    torch.set_num_threads(1)
    algorithm = AlgorithmConfig()
    model = load_model(model_path)
    reference = ReferenceWorker(ModelConfig(path=model_path), micro_batch_tokens=64)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("audio_tower" not in name and "multi_modal_projector" not in name)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=LEARNER.lr, betas=LEARNER.betas, weight_decay=LEARNER.weight_decay
    )
    batches, metrics, weights = [], [], []
    for step, factor in enumerate(factors):
        batches.append(make_batch(model, reference, seed=step))
        loss = plain_loss(model, batches[-1], algorithm)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, LEARNER.max_grad_norm)
        optimizer.param_groups[0]["lr"] = LEARNER.lr * factor
        optimizer.step()
        metrics.append({"loss": loss.item(), "grad_norm": norm.item(), "lr": LEARNER.lr * factor})
        weights.append(language_weights(model))
    return batches, metrics, weights


def language_weights(model) -> dict[str, np.ndarray]:
    """Returns the language model's tensors by hub name, as a checkpoint has them."""
    parts = weights.in_parts(model, weights.model_weights(model, media=False))
    return {part.hub_name: part.tensor().numpy().copy() for part in parts}


def start(
    learner: ActorGroup,
    model_path: str,
    run_dir: str | Path = "runs/run",
    sections: Mapping[str, object] | None = None,
    media: str = "embeds",
    freeze: tuple[str, ...] = ModelConfig.freeze,
    **settings: Any,
) -> None:
    """Builds the group's engines anew, with these settings of the learner and other sections."""
    config = RunConfig(
        run_dir=str(run_dir),
        model=ModelConfig(path=model_path, media=media, freeze=freeze),
        learner=replace(LEARNER, num_ranks=learner.size, **settings),
        **{
            "rollout": RolloutConfig(max_tokens=40),
            "train": TrainConfig(num_steps=10),
            **(sections or {}),
        },
    )
    learner.call("configure", config, timeout_s=60)
    start_learner(learner, timeout_s=60)


def worst(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    assert list(one) == list(other)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
