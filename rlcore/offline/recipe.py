"""The recipe of preferences (`rlcore.offline.job.Recipe`): examples to groups, with what the reference says
of them, and a step on `PreferenceObjective`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from rlcore.algorithms.batching import num_packed_tokens, take_samples
from rlcore.algorithms.preference import kto_kl
from rlcore.config import ModelConfig
from rlcore.config.offline import OfflineConfig, PreferConfig
from rlcore.config.targets import build_target
from rlcore.errors import DataError
from rlcore.offline.job import EXAMPLES, VALIDATION, VALIDATION_LOSS
from rlcore.records.files import read_rows, write_rows
from rlcore.rewards.generative import score_token_ids
from rlcore.rewards.verdict import VERDICTS, asked_after
from rlcore.types import Prompt

if TYPE_CHECKING:
    from rlcore.engines.deepspeed_engine import DeepSpeedEngine
    from rlcore.engines.preferences import PreferenceGroup, PreferenceObjective
    from rlcore.models.media import MediaEncoder

REFERENCE = "reference.jsonl"
"""Log-probability of each answer by the reference, a line per example: those to train on, then the others."""


class Ranked(TypedDict):
    """A ranked example is one line of the job's files."""

    id: str
    prompt: str
    media: Mapping[str, Any]
    answers: Sequence[str]
    """The chosen and the rejected answer; for KTO the labelled one, and one to another prompt."""
    desirable: bool | None


class PreferenceRecipe:
    """Learns `PreferConfig.loss` from the examples in the job's folder. Every epoch has an order of its own,
    by seed and epoch."""

    def __init__(self, config: PreferConfig):
        self._config = config
        self._start = 0
        self._examples: list[Ranked] = []
        self._held_out: list[Ranked] = []
        self._reference = np.zeros((0, 2))  # of the examples, then of those held out
        self._rank, self._num_ranks = 0, 1

    @property
    def model(self) -> ModelConfig:
        """The checkpoint to start from, which is the reference."""
        return self._config.model

    @property
    def config(self) -> OfflineConfig:
        """Length, ranks and checkpoints of the job."""
        return self._config.train

    def begin(self, engine: DeepSpeedEngine, folder: Path, start: int) -> None:
        """Reads examples and reference. Before the first step of all, computes the reference.

        Raises:
            DataError: an example is longer than `learner.micro_batch_tokens`, and `learner.over_budget` is
                `error`.
        """
        self._rank, self._num_ranks, self._start = engine.rank, engine.world_size, start
        self._examples, self._held_out = (_read(folder / name) for name in (EXAMPLES, VALIDATION))
        examples = [*self._examples, *self._held_out]
        path = folder / REFERENCE
        if self._config.trains_reward:
            self._reference = np.zeros((len(examples), 2))
        elif start == 0 and not engine.any_rank(path.is_file()):
            self._reference = self._computed(engine, examples)
            if engine.rank == 0:
                write_rows(path, ({"logprobs": row} for row in self._reference.tolist()))
        else:
            self._reference = np.array([row["logprobs"] for row in read_rows(path)])
        if len(self._reference) != len(examples):
            raise DataError(f"{path}: {len(self._reference)} lines for {len(examples)} examples; delete it")

    def _computed(self, engine: DeepSpeedEngine, examples: Sequence[Ranked]) -> np.ndarray:
        """Returns the log-probability of each answer by the policy as it is, float64 [N, 2]. Ranks share the
        work; what is too long for a step is left at 0."""
        found, size = np.zeros((len(examples), 2)), self.config.batch_size
        for first in range(0, len(examples), size):
            own = range(first + self._rank, min(first + size, len(examples)), self._num_ranks)
            groups = self._groups([examples[i] for i in own], np.zeros((len(own), 2)))
            kept = [(i, g) for i, g in zip(own, groups, strict=True) if self._fits(g)]
            logprobs = engine.answer_logprobs([group for _, group in kept])
            for (i, _), row in zip(kept, logprobs, strict=True):
                found[i] = row
        return engine.sum_over_ranks(found.ravel().tolist()).reshape(found.shape)

    def batches(self) -> Iterator[list[PreferenceGroup]]:
        """Yields this rank's groups of each step."""
        size, number = self.config.batch_size, len(self._examples)
        for step in range(self._start, self.config.num_steps):
            places = range(step * size + self._rank, (step + 1) * size, self._num_ranks)
            own = [
                int(_order(number, self._config.seed, place // number)[place % number]) for place in places
            ]
            yield self._groups([self._examples[i] for i in own], self._reference[own])

    def update(self, engine: DeepSpeedEngine, groups: Sequence[PreferenceGroup]) -> dict[str, float]:
        """Makes one step. `margin` is that of the implicit rewards, `accuracy` the share of examples that the
        policy, against its reference, judges as they are labelled.

        Raises:
            DataError: a rank has no example within `learner.micro_batch_tokens`.
        """
        fitting = [group for group in groups if self._fits(group)]
        fed = sum(map(num_packed_tokens, fitting))
        counts = [len(fitting), len(groups) - len(fitting), not fitting, fed]
        total, dropped, num_idle, num_tokens = engine.sum_over_ranks(counts).tolist()
        if num_idle:
            raise DataError(
                f"{num_idle:.0f} of {self._num_ranks} ranks have no example within "
                f"train.learner.micro_batch_tokens ({self.config.learner.micro_batch_tokens}): raise it"
            )
        objective = self._objective(total, self._kl(engine, fitting))
        is_kto = self._config.loss == "kto"
        answers = [take_samples(group, [0]) for group in fitting] if is_kto else fitting
        metrics = engine.step(answers, objective)
        kl = {"kl": objective.kl} if is_kto else {}
        return metrics | kl | {"dropped_examples": dropped, "num_tokens": num_tokens}

    def validate(self, engine: DeepSpeedEngine) -> dict[str, float]:
        """Returns loss, accuracy and margin of the examples that are held out."""
        import torch

        from rlcore.engines.preferences import is_right

        groups = [group for group in self._validation if self._fits(group)]
        kl = self._kl(engine, groups)
        logprobs = engine.answer_logprobs(groups, last=self._config.trains_reward)
        sums = [0.0] * 3
        if groups:
            objective = self._objective(1.0, kl)
            losses, margins = objective.measure(torch.from_numpy(np.stack(logprobs)), groups)
            sums = [float(each.sum()) for each in (losses, is_right(margins), margins)]
        *sums, count = engine.sum_over_ranks([*sums, len(groups)]).tolist()
        names = (VALIDATION_LOSS, "validation_accuracy", "validation_margin")
        return {name: each / max(count, 1.0) for name, each in zip(names, sums, strict=True)}

    @cached_property
    def _validation(self) -> list[PreferenceGroup]:
        own = slice(self._rank, None, self._num_ranks)
        return self._groups(self._held_out[own], self._reference[len(self._examples) :][own])

    def _objective(self, num_examples: float, kl: float) -> PreferenceObjective:
        from rlcore.engines.preferences import PreferenceObjective

        return PreferenceObjective(config=self._config, num_examples=num_examples, kl=kl)

    def _kl(self, engine: DeepSpeedEngine, groups: Sequence[PreferenceGroup]) -> float:
        """Returns KTO's point of reference, of all ranks' answers to other prompts."""
        if self._config.loss != "kto":
            return 0.0
        others = [take_samples(group, [1]) for group in groups]
        logprobs = engine.answer_logprobs(others)
        ratios = [float(row[0] - o.reference[0]) for row, o in zip(logprobs, others, strict=True)]
        return kto_kl(*engine.sum_over_ranks([sum(ratios), len(ratios)]).tolist())

    def _fits(self, group: PreferenceGroup) -> bool:
        """Says whether a step has room for a group as a whole: a pair's answers need each other."""
        length, room = num_packed_tokens(group), self.config.learner.micro_batch_tokens
        if length > room and self.config.learner.over_budget == "error":
            raise DataError(
                f"row {group.prompt_id!r} has {length} tokens with its answers, and "
                f"train.learner.micro_batch_tokens is {room}: raise it, or set train.learner.over_budget=drop"
            )
        return length <= room

    @cached_property
    def _encoder(self) -> MediaEncoder:
        from rlcore.models.media import MediaEncoder

        model, task = self._config.model, self._config.task
        load_media = build_target(task.target, task.args, where="task").load_media
        return MediaEncoder(model.path, load_media, media=model.media, cache_folder=model.media_cache)

    @cached_property
    def _asking(self) -> str:
        return asked_after(self._encoder.processor, self._config.question)

    def _groups(self, examples: Sequence[Ranked], reference: np.ndarray) -> list[PreferenceGroup]:
        """Returns examples as groups; `reference` is [N, 2]."""
        from rlcore.engines.preferences import PreferenceGroup
        from rlcore.models.hf_model import tokenizer_of

        tokenizer = tokenizer_of(self._encoder.processor)

        def tokens(answer: str) -> list[np.ndarray]:
            told, ends = answer, [tokenizer.eos_token_id]
            if self._config.trains_reward:
                no, yes = score_token_ids(tokenizer, VERDICTS, length=1)
                told, ends = answer + self._asking, [yes, no]
            ids = tokenizer(told, add_special_tokens=False)["input_ids"]
            return [np.array([*ids, end], dtype=np.int64) for end in ends]

        asked = [Prompt(id=each["id"], text=each["prompt"], media=each["media"]) for each in examples]
        rows = zip(examples, self._encoder.encode(asked), reference, strict=True)
        return [
            PreferenceGroup(
                prompt_id=example["id"],
                prompt_token_ids=np.asarray(encoded.prompt_token_ids, dtype=np.int64),
                token_ids=tuple(row for answer in example["answers"] for row in tokens(answer)),
                media_inputs=encoded.media_inputs,
                reference=logprobs,
                desirable=example["desirable"] is not False,
            )
            for example, encoded, logprobs in rows
        ]


def _read(path: Path) -> list[Ranked]:
    return [Ranked(**row) for row in read_rows(path)]  # type: ignore[typeddict-item]


def _order(number: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(number)
