"""The ready task for a file of rows: questions with or without recordings, images and videos, and their
right answers."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import islice
from os.path import abspath
from pathlib import Path
from typing import Any

import numpy as np

from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import format_prompt
from rlcore.records.files import write_rows
from rlcore.records.progress import Progress
from rlcore.tasks.columns import Columns, Question, plain
from rlcore.tasks.conversation import Turn, texts_of
from rlcore.tasks.means import reward_means
from rlcore.tasks.media import NAMES, ModelMedia
from rlcore.tasks.sources import has_split, read_source
from rlcore.types import Group, Prompt, Score

log = logging.getLogger(__name__)

_SHOWN = 10
"""Bad rows that an error lists; it counts all."""


class Rows:
    """The task (`rlcore.task.Task`) asks what the rows of a file or of a data set say.

    Args:
        train: file (.jsonl, .json, .csv, .parquet), or folder of a data set as the Hugging Face hub has it.
        model_path: checkpoint folder or hub id whose processor formats prompts and reads their media.
        eval: the held-out rows, in a file or folder as `train`. Where it is null, they are the split `test`
            of the folder `train`; without one, `eval_fraction` of the training rows.
        columns: column by role (`rlcore.tasks.columns.ROLES`), where they differ.
        template: text of the question, with names of columns in curly brackets; by default the column
            `prompt`, and below it the choices.
        system: system turn of every conversation that has none.
        answer_template: form of a whole right answer, with `{answer}` in it; given one, a run tries its
            rewards on such answers before it starts.
        metric: name of the reward whose mean over the held-out rows is the `score`; by default the first.
        eval_fraction: share of the training rows that is held out, chosen by a hash of their ids.
        split_by: column whose equal values stay in one split (a speaker), in the place of the id.
        seed: another seed holds out other rows.
        audio_root: folder that holds recordings and pictures, by default that of the file. What rows hold
            themselves is written there, below `audio/` and `image/`.
        max_seconds: longer recordings and videos are cut to this. By default a recording that is longer than
            the model's window is a bad row.
        max_pixels: larger images and frames are made smaller, to this many pixels.
        quarantine: file that bad rows are written to, each with its reason. By default they are an error.
    """

    def __init__(
        self,
        train: str,
        model_path: str,
        eval: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        template: str | None = None,
        system: str | None = None,
        answer_template: str | None = None,
        metric: str | None = None,
        eval_fraction: float = 0.1,
        split_by: str | None = None,
        seed: int = 0,
        audio_root: str | None = None,
        max_seconds: float | None = None,
        max_pixels: int | None = None,
        quarantine: str | None = None,
    ):
        if not 0 < eval_fraction < 1:
            raise ConfigError(f"task.args.eval_fraction: got {eval_fraction}, must be above 0 and below 1")
        if answer_template is not None and "{answer}" not in answer_template:
            raise ConfigError(
                f"task.args.answer_template: got {answer_template!r}, must have {{answer}} in it"
            )
        if max_seconds is not None and max_seconds <= 0:
            raise ConfigError(f"task.args.max_seconds: got {max_seconds}, must be above 0")
        if max_pixels is not None and max_pixels < 1:
            raise ConfigError(f"task.args.max_pixels: got {max_pixels}, must be 1 or more")
        self.model_path = model_path
        self._train, self._eval = train, eval
        self._columns = Columns(columns, template, system)
        self._answer_template, self._metric = answer_template, metric
        self._eval_fraction, self._split_by, self._seed = eval_fraction, split_by, seed
        self._audio_root, self._quarantine = audio_root, quarantine
        self._media = ModelMedia(model_path, max_seconds, max_pixels)

    @property
    def processor(self) -> Any:
        """The processor of `model_path`, loaded at first use."""
        return self._media.processor

    def prompts(self, split: str) -> list[Prompt]:
        """Returns the prompts of `train` or `eval`.

        Raises:
            DataError: a source is missing or has no good row, an id stands there twice, or a row is bad and
                no `quarantine` is given. The message names file and line.
            ConfigError: a named column is in no row, or the split is unknown.
        """
        if split not in self._splits:
            raise ConfigError(f"split: got {split!r}; allowed are {sorted(self._splits)}")
        return self._splits[split]

    def perfect_answer(self, prompt: Prompt) -> str | None:
        """Returns the right answer in the form of `answer_template`; None where one of them is not given."""
        if self._answer_template is None or prompt.reference.get("answer") is None:
            return None
        return self._answer_template.replace("{answer}", _first_answer(prompt))

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        """Reads the media as the processor takes them: `audio` [T] float32 each, `sampling_rate` in Hz,
        `images` uint8 [height, width, 3] each and `videos` uint8 [num_frames, height, width, 3] each."""
        return self._media.load(prompt)

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Returns `score`, the mean of the metric's reward; the mean of every reward and of its parts;
        `unscored`, the answers that the metric's reward could not judge; and the mean number of `tokens`."""
        metric = next(iter(scores)) if self._metric is None else self._metric
        if metric not in scores:
            raise ConfigError(f"task.args.metric: got {metric!r}, must be a reward: {sorted(scores)}")
        means = {key: value for name in scores for key, value in reward_means(name, scores[name]).items()}
        score = means.get(f"reward/{metric}")
        return {
            **({} if score is None else {"score": score}),
            **means,
            "unscored": float(sum(score.error is not None for score in scores[metric])),
            "tokens": float(np.mean([group.completions[0].num_sampled for group in groups])),
        }

    @cached_property
    def _splits(self) -> dict[str, list[Prompt]]:
        _ = self._media.placeholders, self._media.reserved  # a model that cannot be loaded is no row's fault
        bad: list[dict[str, Any]] = []
        train = self._read(self._train, "train", bad)
        held_out = self._eval
        if held_out is None and has_split(self._train, "eval"):
            held_out = self._train
        rest = self._read(held_out, "eval", bad) if held_out is not None else None
        self._columns.check_met()
        self._put_aside(bad)
        for source, questions in ((self._train, train), (held_out, rest)):
            if questions is not None and not questions:
                told = "".join(f"\n  {row['where']}: {row['reason']}" for row in bad[:_SHOWN])
                raise DataError(f"{source}: no good row in it{told}")
        if rest is None:
            train, rest = self._held_out(train)
        return {"train": list(train.values()), "eval": list(rest.values())}

    def _read(self, source: str, split: str, bad: list[dict[str, Any]]) -> dict[str, Prompt]:
        """Returns the prompts of a source by their ids; bad rows are added to `bad`."""
        prompts: dict[str, Prompt] = {}
        places: dict[str, str] = {}
        rows = read_source(source, split)
        for row in Progress(rows, desc=f"reading {source}", unit="row", delay=5, disable=None, leave=False):
            try:
                root = Path(self._audio_root).expanduser() if self._audio_root else row.root
                question = self._columns.read(row, Path(abspath(root)))
                prompt = self._prompt(question)
            except DataError as error:
                bad.append({"where": row.where, "reason": str(error), "row": plain(row.values)})
                continue
            if prompt.id in prompts:
                raise DataError(
                    f"{row.where}: the id {prompt.id!r} stands at {places[prompt.id]} already; ids are "
                    "unique in a split (task.args.columns.id names their column, null takes the line)"
                )
            prompts[prompt.id], places[prompt.id] = prompt, row.where
        return prompts

    def _prompt(self, question: Question) -> Prompt:
        for kind, places in question.media.items():
            for place in places:
                self._media.check(kind, place)
        for text in texts_of(question.messages):
            if found := [token for token in self._media.reserved if token in text]:
                raise DataError(f"its text holds {found[0]!r}, which the model reads as media")
        text = self._formatted(question.messages)
        for kind, placeholder in self._media.placeholders.items():
            num_media = len(question.media.get(kind, ()))
            count = text.count(placeholder) if placeholder else 0
            if count != num_media:
                raise DataError(
                    f"it has {num_media} media of the kind {kind}, and the chat template of "
                    f"{self.model_path} made {count} places for them: change chat_template.jinja beside the "
                    "model"
                )
        media = {NAMES[kind]: list(places) for kind, places in question.media.items()}
        return Prompt(id=question.id, text=text, media=media, reference=question.reference)

    def _formatted(self, messages: Sequence[Turn]) -> str:
        try:
            return format_prompt(self.processor, messages)
        except ConfigError as error:
            if getattr(self.processor, "chat_template", None) is None:
                raise
            raise DataError(str(error)) from error  # of this row's texts

    def _held_out(self, prompts: Mapping[str, Prompt]) -> tuple[dict[str, Prompt], dict[str, Prompt]]:
        """Splits off the ids (or values of `split_by`) of the lowest hashes until they are the share, and one
        at least. The order of the rows does not count."""
        key = {id: self._split_key(prompt) for id, prompt in prompts.items()}
        sizes = Counter(key.values())
        chosen: set[str] = set()
        num_rows = 0
        for each in sorted(sizes, key=lambda each: _rank(each, self._seed)):
            if chosen and num_rows >= round(self._eval_fraction * len(prompts)):
                break
            chosen.add(each)
            num_rows += sizes[each]
        train = {id: prompt for id, prompt in prompts.items() if key[id] not in chosen}
        if not train:
            raise DataError(
                f"{self._train}: nothing to train on is left of {len(prompts)} rows (task.args.eval_fraction "
                f"{self._eval_fraction:g}); name the held-out rows by task.args.eval, or bring more rows"
            )
        return train, {id: prompt for id, prompt in prompts.items() if key[id] in chosen}

    def _split_key(self, prompt: Prompt) -> str:
        if self._split_by is None:
            return prompt.id
        if self._split_by not in prompt.reference:
            raise DataError(
                f"{self._train}: row {prompt.id!r} has no column {self._split_by!r} (task.args.split_by); it "
                f"has {sorted(prompt.reference)}"
            )
        return str(prompt.reference[self._split_by])

    def _put_aside(self, bad: Sequence[Mapping[str, Any]]) -> None:
        if not bad:
            if self._quarantine is not None:
                Path(self._quarantine).unlink(missing_ok=True)  # of an earlier reading
            return
        told = "".join(f"\n  {row['where']}: {row['reason']}" for row in islice(bad, _SHOWN))
        more = f"\n  ... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        if self._quarantine is None:
            raise DataError(
                f"{len(bad)} bad rows; mend them, or set task.args.quarantine to a file that they are put "
                f"aside to{told}{more}"
            )
        write_rows(self._quarantine, bad)
        log.warning("%d bad rows are left out, all in %s%s%s", len(bad), self._quarantine, told, more)


def _rank(key: str, seed: int) -> bytes:
    """Orders keys by nothing that they tell."""
    return hashlib.sha256(f"{seed}:{key}".encode("utf-8", "surrogatepass")).digest()


def _first_answer(prompt: Prompt) -> str:
    answer = prompt.reference["answer"]
    return str(answer[0] if isinstance(answer, list) and answer else answer)
