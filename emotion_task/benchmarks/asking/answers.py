"""Asks models and keeps their answers: a line of answers.jsonl for each, written at once.

An evaluation that is stopped or killed goes on where it was: an answer is kept where model, prompt, recording
and settings are still those that it was given to.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from emotion_task.benchmarks.asking.task import BenchmarkTask, QuestionSet
from emotion_task.benchmarks.reading.questions import Question
from rlcore.config import RunConfig
from rlcore.errors import DataError, StoppedError, message_of
from rlcore.loop.controller import Controller
from rlcore.records.files import JsonObject, RowAppender, keep_rows, read_rows
from rlcore.records.progress import Progress
from rlcore.records.signals import StopFlag
from rlcore.run import spawn
from rlcore.types import Group, Prompt

log = logging.getLogger(__name__)

_OF_MEMORY = ("gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs", "max_num_batched_tokens")
"""vLLM's arguments that say how much it does at once, which no answer depends on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer is one model's completion of one question's prompt, and what it cost."""

    text: str
    num_prompt_tokens: int
    """Tokens that the model read, those of the recording included."""
    num_tokens: int
    """Tokens that the model wrote."""
    seconds: float
    """An engine's time for it: that of the batch, by the batch's size."""
    was_cut: bool
    """Says that the limit of tokens ended it."""


class Asked(Protocol):
    """A controller, as far as an evaluation needs it."""

    def generate(
        self, prompts: Sequence[Prompt], *, greedy: bool = False, should_stop: Callable[[], bool] = ...
    ) -> list[Group] | None:
        """Returns groups as `rlcore.loop.controller.Controller.generate` does; raises as it does."""
        ...


def answers_file(out: Path, model: str, question_set: QuestionSet) -> Path:
    """Returns where the answers of a model to a set lie."""
    name = re.sub(r"\W+", "_", model).strip("_") + "-" + hashlib.sha256(model.encode()).hexdigest()[:6]
    return out / "answers" / name / f"{question_set.name}.jsonl"


def answered(
    config: RunConfig, task: BenchmarkTask, out: Path, *, at_once: int
) -> dict[str, dict[str, Answer]]:
    """Returns the model's answers by set and question; what `out` does not hold yet is asked now.

    A question whose recording cannot be decoded, or that the engine gives up, has no answer; the log says
    why, and the next call asks it again.

    Args:
        config: its `model.path` is asked, with `task` as its task; a Ray session is up.
        at_once: questions that engines get together. With 1, `Answer.seconds` is an answer's own latency.

    Raises:
        StoppedError: a signal asked for an end; what was answered is kept.
        DataError: none of the first questions was answered, so others would not be, either.
        ConfigError: a prompt is over the engine's context, unless `rollout.over_context` is `drop`.
    """
    model = config.model.path
    keys = {s.name: _keys(config, task, s) for s in task.sets}
    found: dict[str, dict[str, Answer]] = {}
    waiting: list[tuple[QuestionSet, Prompt]] = []
    for question_set in task.sets:
        path = answers_file(out, model, question_set)
        path.parent.mkdir(parents=True, exist_ok=True)
        _keep(path, keys[question_set.name])
        asked = {question.id for question in question_set.questions}
        found[question_set.name] = {row["id"]: _answer(row) for row in read_rows(path) if row["id"] in asked}
        waiting += [
            (question_set, task.prompt(question_set, question))
            for question in question_set.questions
            if question.id not in found[question_set.name]
        ]
    if not waiting:
        return found
    total = sum(len(s.questions) for s in task.sets)
    with (
        StopFlag() as stop,
        _engines(config, [prompt for _, prompt in waiting]) as controller,
        Progress(total=total, initial=total - len(waiting), desc=model, unit="question") as bar,
    ):
        for start in range(0, len(waiting), at_once):
            batch = waiting[start : start + at_once]
            began = time.perf_counter()
            groups = _ask(controller, [prompt for _, prompt in batch], stop)
            if not groups and not any(found.values()):
                raise DataError(f"{model}: none of the first {len(batch)} questions was answered; see above")
            seconds = (time.perf_counter() - began) * max(1, controller.num_replicas) / len(batch)
            for question_set, rows in _rows(batch, groups, keys, seconds):
                with RowAppender(answers_file(out, model, question_set)) as file:
                    file.write(*rows)
                found[question_set.name] |= {row["id"]: _answer(row) for row in rows}
            bar.update(len(batch))
    return found


def _ask(controller: Asked, prompts: Sequence[Prompt], stop: StopFlag) -> list[Group]:
    """Returns the groups of the prompts that can be answered. One that cannot has the others of its batch
    refused with it, so these are asked again in halves."""
    try:
        groups = controller.generate(prompts, greedy=True, should_stop=lambda: bool(stop))
    except DataError as error:
        if len(prompts) == 1:
            log.warning("%s: not answered: %s", prompts[0].id, message_of(error))
            return []
        middle = len(prompts) // 2
        return [*_ask(controller, prompts[:middle], stop), *_ask(controller, prompts[middle:], stop)]
    if groups is None:
        raise StoppedError(f"stopped by {stop.reason}; the same command goes on from here")
    return groups


@contextmanager
def _engines(config: RunConfig, prompts: Sequence[Prompt]) -> Iterator[Controller]:
    print(f"{config.model.path}: {len(prompts)} questions to ask; starting engines", file=sys.stderr)
    one = replace(config, train=replace(config.train, prompts_per_step=1))  # no step is ever trained
    with (
        spawn(one, with_learner=False) as actors,
        closing(Controller(one, prompts, actors)) as controller,
    ):
        yield controller


def _rows(
    batch: Sequence[tuple[QuestionSet, Prompt]],
    groups: Sequence[Group],
    keys: Mapping[str, Mapping[str, str]],
    seconds: float,
) -> Iterator[tuple[QuestionSet, list[JsonObject]]]:
    """Yields the rows of a batch's answers by set."""
    by_prompt = {group.prompt.id: group for group in groups}
    for question_set in {s.name: s for s, _ in batch}.values():
        rows: list[JsonObject] = []
        for own, prompt in batch:
            if own.name == question_set.name and (group := by_prompt.get(prompt.id)) is not None:
                completion, id = group.completions[0], prompt.id.removeprefix(f"{own.name}/")
                rows.append(
                    {
                        "id": id,
                        "answer": prompt.reference["answer"],
                        "text": completion.text,
                        "num_prompt_tokens": len(group.prompt_token_ids),
                        "num_tokens": len(completion.token_ids),
                        "seconds": round(seconds, 4),
                        "was_cut": completion.finish_reason == "length",
                        "key": keys[own.name][id],
                    }
                )
        yield question_set, rows


def _keep(path: Path, keys: Mapping[str, str]) -> None:
    """Drops the answers that were given to something else: another prompt, recording, model or setting."""
    keep_rows(path, lambda row: keys.get(row["id"]) == row["key"])


def _answer(row: JsonObject) -> Answer:
    names = ("text", "num_prompt_tokens", "num_tokens", "seconds", "was_cut")
    return Answer(**{name: row[name] for name in names})


def _keys(config: RunConfig, task: BenchmarkTask, question_set: QuestionSet) -> dict[str, str]:
    """Returns, by question, a digest of all that its row depends on; those over the limit have one, too, so
    that a smaller limit costs no answer."""
    rollout = config.rollout
    engine = sorted((name, value) for name, value in rollout.engine.items() if name not in _OF_MEMORY)
    settings = (rollout.max_tokens, rollout.stop, rollout.banned_tokens, dict(rollout.structured), engine)
    common = (_stamp(Path(config.model.path)), config.rollout_dtype, config.model.head_dtype, settings)
    questions = (*question_set.questions, *question_set.over_limit)
    return {
        question.id: hashlib.sha256(
            repr((common, _asked(task, question_set, question))).encode()
        ).hexdigest()[:16]
        for question in questions
    }


def _asked(task: BenchmarkTask, question_set: QuestionSet, question: Question) -> tuple[object, ...]:
    prompt = task.prompt(question_set, question)
    return prompt.text, prompt.media["trim"], _stamp(Path(prompt.media["audio"])), question.answer


def _stamp(path: Path) -> list[tuple[str, int, int]]:
    """Returns names, sizes and times of a file, or of a folder's files; a hub's name stands for itself."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    stamps = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return stamps or [(str(path), 0, 0)]
