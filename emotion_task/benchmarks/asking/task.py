"""Benchmarks as a task for rlcore: prompts, recordings and metrics of their questions.

`emotion evaluate` asks through it, and `rlcore evaluate` takes it as any other task:

    task:
      target: emotion_task.benchmarks.asking.task:BenchmarkTask
      args: {sets: [{benchmark: mmau, data: /data/MMAU}], model_path: "${model.path}", style: plain}
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.signal import resample_poly

from emotion_task.audio_window import FeatureExtractor, trim_silence
from emotion_task.benchmarks import find_benchmark
from emotion_task.benchmarks.asking.styles import can_be_right, find_style, question_messages, read_answer
from emotion_task.benchmarks.reading.questions import Benchmark, Question, Questions
from emotion_task.corpora.reading.decode import decode_containers
from emotion_task.corpora.reading.listing import CONTAINERS
from emotion_task.evaluation.scores import Graded, estimates
from emotion_task.records import Utterance
from rlcore.config.checks import check
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import format_prompt
from rlcore.types import Group, Prompt, Score

SPLITS = ("eval", "all")
"""Splits of a corpus that can be asked about: what its reader holds out, or everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """A set is one benchmark's questions, as they are asked."""

    name: str
    benchmark: Benchmark
    data: Path
    questions: tuple[Question, ...]
    """Those that are asked."""
    over_limit: tuple[Question, ...]
    """Those that could be asked, and are not with this limit."""
    left_out: Mapping[str, int]
    """Number of rows that are not asked, by reason."""


class BenchmarkTask:
    """The task (`rlcore.task.Task`) asks the questions of one or several benchmarks.

    Args:
        sets: each with `benchmark` (a name of `emotion_task.benchmarks`), `data` (its folder or list) and,
            for corpora, `split` (`eval` by default, or `all`).
        model_path: checkpoint whose processor formats prompts and sets the audio window.
        style: one of `emotion_task.benchmarks.asking.styles.STYLES`, or your own.
        limit: number of questions of each set, chosen by a hash of their ids; None for all.
        audio_folder: folder for the sound of videos, which is decoded once; a set with videos needs it.
    """

    def __init__(
        self,
        sets: Sequence[Mapping[str, Any]],
        model_path: str,
        style: str = "think",
        limit: int | None = None,
        audio_folder: str | None = None,
    ):
        self.model_path, self.style = model_path, find_style(style)
        check(bool(sets), "task.args.sets", list(sets), "one set or more")
        for index, each in enumerate(sets):
            fits = isinstance(each, Mapping) and {"benchmark", "data"} <= {*each} <= {
                "benchmark",
                "data",
                "split",
            }
            check(fits, f"task.args.sets[{index}]", each, "the keys `benchmark`, `data` and `split`")
        check(limit is None or limit >= 1, "limit", limit, "1 or more (leave it out for all)")
        self._specs, self._limit, self._audio_folder = [dict(each) for each in sets], limit, audio_folder

    @cached_property
    def processor(self) -> Any:
        """The processor of `model_path`, loaded at first use."""
        from rlcore.models.hf_model import load_processor

        return load_processor(self.model_path)

    @cached_property
    def sets(self) -> list[QuestionSet]:
        """The sets in their order, read at first use: the workers that only load sound never do."""
        names = _names([str(spec["benchmark"]) for spec in self._specs])
        return [self._load(name, **spec) for name, spec in zip(names, self._specs, strict=True)]

    def _load(self, name: str, *, benchmark: str, data: str, split: str = "eval") -> QuestionSet:
        check(split in SPLITS, "split", split, f"one of {', '.join(SPLITS)}")
        found = find_benchmark(benchmark)
        path = Path(data).expanduser()
        listed = found.load(path, split)
        asked, left_out = [], Counter(listed.left_out)
        for question in self._with_sound(listed, left_out):
            if can_be_right(self.style, found, question):
                asked.append(question)
            else:
                left_out[f"{question.answer} is no option of the prompt"] += 1
        if not asked:
            raise DataError(f"{path}: no question of {name} has an answer that the prompt offers: {left_out}")
        _check_ids(asked, path)
        chosen = _chosen(asked, self._limit)
        return QuestionSet(
            name=name,
            benchmark=found,
            data=path,
            questions=tuple(question for question in asked if question.id in chosen),
            over_limit=tuple(question for question in asked if question.id not in chosen),
            left_out=dict(left_out),
        )

    def _with_sound(self, listed: Questions, left_out: Counter[str]) -> Iterator[Question]:
        """Yields the questions with audio files in the place of videos; counts those without sound."""
        as_utterances = [Utterance(id=question.id, audio=question.audio) for question in listed.questions]
        if any(Path(u.audio).suffix.lower() in CONTAINERS for u in as_utterances):
            if self._audio_folder is None:
                raise ConfigError("task.args.audio_folder: needed, since there is sound in videos to decode")
            as_utterances = decode_containers(as_utterances, self._audio_folder)
        for question, utterance in zip(listed.questions, as_utterances, strict=True):
            try:
                soundfile.info(utterance.audio)
            except (OSError, soundfile.SoundFileError):
                left_out["unreadable recording"] += 1
            else:
                yield replace(question, audio=utterance.audio)

    def prompts(self, split: str) -> list[Prompt]:
        """Returns a prompt for each question of each set; `id` is SET/QUESTION.

        Raises:
            ConfigError: another split than `eval` is asked for: a benchmark is for measuring.
        """
        if split != "eval":
            raise ConfigError(f"split: got {split!r}; a benchmark has the split eval alone, to measure with")
        return [
            self.prompt(question_set, question)
            for question_set in self.sets
            for question in question_set.questions
        ]

    def prompt(self, question_set: QuestionSet, question: Question) -> Prompt:
        """Returns the prompt of one question."""
        messages = question_messages(self.style, question_set.benchmark, question)
        return Prompt(
            id=f"{question_set.name}/{question.id}",
            text=format_prompt(self.processor, messages),
            media={
                "audio": question.audio,
                "trim": question_set.benchmark.asks_emotion and self.style.trims_silence,
            },
            reference={"answer": question.answer},
        )

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        """Reads the recording as the processor takes it: `audio` [T] float32, `sampling_rate` in Hz."""
        extractor = self.processor.feature_extractor
        heard = heard_waveform(prompt.media["audio"], extractor, trim=prompt.media["trim"])
        return {"audio": [heard], "sampling_rate": int(extractor.sampling_rate)}

    def num_cut(self, question_set: QuestionSet) -> int:
        """Returns how many of a set's recordings are longer than the model's window, which cuts them."""
        window = getattr(self.processor.feature_extractor, "chunk_length", None)
        if window is None:
            return 0
        return sum(soundfile.info(question.audio).duration > window for question in question_set.questions)

    def graded(self, question_set: QuestionSet, texts: Mapping[str, str]) -> list[Graded]:
        """Returns the set's questions with what was answered, those without a known answer left out.

        Args:
            texts: completion by the question's id; a question without one counts as not answered.
        """
        rows = []
        for question in question_set.questions:
            if question.answer is not None:
                text = texts.get(question.id)
                said = text and read_answer(self.style, question_set.benchmark, question, text)
                rows.append(
                    Graded(
                        answer=question.answer,
                        said=said or None,
                        groups=question.groups,
                        words=question.words,
                    )
                )
        return rows

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Returns each set's figures as SET/NAME, `emotion_task.evaluation.scores.estimates` without the
        intervals."""
        texts = {group.prompt.id: group.completions[0].text for group in groups}
        metrics: dict[str, float] = {}
        for question_set in self.sets:
            own = {q.id: texts.get(f"{question_set.name}/{q.id}") for q in question_set.questions}
            rows = self.graded(question_set, {id: text for id, text in own.items() if text is not None})
            if rows:
                found = estimates(rows, are_classes=question_set.benchmark.asks_emotion, num_resamples=1)
                metrics |= {f"{question_set.name}/{name}": each.value for name, each in found.items()}
        return metrics


def heard_waveform(path: str | Path, extractor: FeatureExtractor, *, trim: bool) -> np.ndarray:
    """Reads a recording at the feature extractor's rate, its channels mixed.

    Of a recording that can be trained on this is `emotion_task.audio_window.model_waveform`. That refuses
    channels that differ, as those of music and scenes do.

    Args:
        trim: cuts silence off both ends, unless the extractor says `"trim_silence": false`.

    Returns:
        float32 [T], mono; the window's first samples where the recording is longer.

    Raises:
        DataError: a missing, unreadable or empty file.
    """
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path}: unreadable audio: {error}") from error
    if not len(samples):
        raise DataError(f"{path}: empty: the file holds no samples")
    wanted = int(extractor.sampling_rate)
    factor = gcd(rate, wanted)
    waveform = resample_poly(samples.mean(axis=1), wanted // factor, rate // factor)
    if trim and getattr(extractor, "trim_silence", True):
        waveform = trim_silence(waveform, wanted)
    window = getattr(extractor, "chunk_length", None)
    return np.ascontiguousarray(waveform[: int(window * wanted) if window else None], dtype=np.float32)


def _names(benchmarks: Sequence[str]) -> list[str]:
    """Returns a name for each set: its benchmark's, with a number where that occurs several times."""
    bare = [name.rpartition(":")[2] for name in benchmarks]
    counts = Counter(bare)

    def numbered() -> Iterator[str]:
        met: Counter[str] = Counter()
        for name in bare:
            met[name] += 1
            yield name if counts[name] == 1 else f"{name}-{met[name]}"

    return list(numbered())


def _check_ids(questions: Sequence[Question], path: Path) -> None:
    counts = Counter(question.id for question in questions)
    if doubled := [id for id, count in counts.items() if count > 1]:
        raise DataError(
            f"{path}: {len(doubled)} ids are of several questions, the first {doubled[0]!r}; the reader has "
            "to give each question an id of its own"
        )


def _chosen(questions: Sequence[Question], limit: int | None) -> set[str]:
    """Returns the ids of at most `limit` questions; a larger limit keeps what a smaller one chose."""
    ids = [question.id for question in questions]
    return set(sorted(ids, key=lambda id: hashlib.sha256(id.encode()).digest())[:limit])
