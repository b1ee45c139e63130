"""Speech emotion recognition with reasoning, as a task for rlcore: prompts from a manifest, media,
metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from emotion_task.audio_window import model_waveform
from emotion_task.claims.check import faithfulness_metrics
from emotion_task.evaluation.metrics import emotion_metrics, predicted_labels, prosody_metrics
from emotion_task.facts import reference_of
from emotion_task.labels import ALL_LABELS, check_labels, check_set, labels_among
from emotion_task.parsing import format_response, parse_response
from emotion_task.prompt import emotion_messages
from emotion_task.records import Utterance, by_speaker, choose, read_manifest
from emotion_task.report.panels import EmotionPanels
from rlcore.errors import ConfigError, DataError
from rlcore.models.chat_template import format_prompt
from rlcore.tasks.means import reward_means
from rlcore.types import Group, Prompt, Score


class EmotionTask:
    """The task (`rlcore.task.Task`) asks for the emotion; the reference is emotion and measured prosody.

    Args:
        manifest: JSONL of `emotion_task.records.Utterance`, with `split` and `emotion` filled.
        model_path: checkpoint folder or hub id whose processor formats prompts and sets the audio window.
        labels: the options of the question; by default those that the manifest uses, in the order of
            `ALL_LABELS`. It may name emotions of the manifest that are none of these.
        train_speakers: ask about these speakers of the training split alone.
        max_train, max_eval: take this many utterances of a split, chosen by a hash of their ids.
        max_seconds: cut audio to less than the processor's window, and videos likewise.
        video: show the model the frames of utterances that have a video.
        max_pixels: makes larger frames smaller, to this many pixels.
    """

    def __init__(
        self,
        manifest: str,
        model_path: str,
        labels: Sequence[str] | None = None,
        train_speakers: Sequence[str] | None = None,
        max_train: int | None = None,
        max_eval: int | None = None,
        max_seconds: float | None = None,
        video: bool = False,
        max_pixels: int | None = None,
    ):
        self.manifest = manifest
        self.model_path = model_path
        self.train_speakers = train_speakers
        self.max_seconds = max_seconds
        self.video, self.max_pixels = video, max_pixels
        self._limits = {"train": max_train, "eval": max_eval}
        self._utterances = [u for u in read_manifest(manifest) if u.emotion is not None]
        _check_ids(self._utterances, manifest)
        self.labels = _choose_labels(self._utterances, labels, manifest)

    @cached_property
    def processor(self) -> Any:
        """The processor of `model_path`, loaded at first use."""
        from rlcore.models.hf_model import load_processor

        return load_processor(self.model_path)

    @cached_property
    def prompt_text(self) -> str:
        """The chat-formatted question, the same for every utterance that is only heard."""
        return format_prompt(self.processor, emotion_messages(self.labels))

    @cached_property
    def video_prompt_text(self) -> str:
        """The chat-formatted question about an utterance that is seen, too."""
        return format_prompt(self.processor, emotion_messages(self.labels, video=True))

    @cached_property
    def _frame_rate(self) -> float:
        """Frames that the model sees in a second."""
        from rlcore.models.families import family_of
        from rlcore.models.hf_model import load_config
        from rlcore.models.media import no_vision

        config = load_config(self.model_path)
        if (vision := family_of(config).vision) is None:
            raise ConfigError(f"task.args.video: {no_vision(config)}")
        return vision.frame_rate

    @classmethod
    def panels(cls, args: Mapping[str, Any]) -> EmotionPanels:
        """Returns what the page of a run shows of emotions and claims (`rlcore.report.panels.HasPanels`)."""
        return EmotionPanels(args)

    def utterances(self, split: str) -> list[Utterance]:
        """Returns the utterances behind `prompts(split)`, in the same order."""
        if split not in self._limits:
            raise ConfigError(f"split: got {split!r}; allowed are {sorted(self._limits)}")
        rows = [u for u in self._utterances if u.split == split and u.emotion in self.labels]
        if split == "train" and self.train_speakers is not None:
            rows, _ = by_speaker(rows, self.train_speakers, "task.args.train_speakers")
        if not rows:
            raise DataError(
                f"{self.manifest}: no utterance with split {split!r} and an emotion of {self.labels}"
            )
        return choose(rows, self._limits[split])

    def prompts(self, split: str) -> list[Prompt]:
        """Returns a prompt for each of `utterances(split)`; raises as they do."""
        return [self._prompt(utterance) for utterance in self.utterances(split)]

    def _prompt(self, utterance: Utterance) -> Prompt:
        media, text = {"audio": utterance.audio}, self.prompt_text
        if self.video and self._frame_rate and utterance.video is not None:
            media, text = {"video": utterance.video, **media}, self.video_prompt_text
        return Prompt(id=utterance.id, text=text, media=media, reference=reference_of(utterance))

    def perfect_answer(self, prompt: Prompt) -> str:
        """Returns reasoning and the right emotion, as the schema has them (`rlcore.task.KnowsAnswers`)."""
        return format_response("The pitch is high.\nThe voice is loud.", str(prompt.reference["emotion"]))

    def load_media(self, prompt: Prompt) -> dict[str, Any]:
        """Reads the recording as the processor takes it: `audio` [T] float32, `sampling_rate` in Hz; and of a
        video `videos`, its frames."""
        extractor = self.processor.feature_extractor
        waveform = model_waveform(prompt.media["audio"], extractor, self.max_seconds)
        media = {"audio": [waveform], "sampling_rate": int(extractor.sampling_rate)}
        return media | self._frames(prompt.media["video"]) if "video" in prompt.media else media

    def _frames(self, video: str) -> dict[str, Any]:
        from rlcore.inputs.pictures import frames_of

        files = sorted(map(str, Path(video).iterdir())) if Path(video).is_dir() else video
        return {"videos": [frames_of(files, self._frame_rate, self.max_seconds, self.max_pixels)]}

    def evaluate(self, groups: Sequence[Group], scores: Mapping[str, Sequence[Score]]) -> dict[str, float]:
        """Returns `accuracy`, `unweighted_accuracy`, `macro_f1`, `format_rate`, `prosody_accuracy` and one
        accuracy per attribute, `claim_precision`, `faithfulness/...` (see `faithfulness_metrics`),
        `tokens`, and the mean of each reward and of its parts as
        `reward/<name>[/<part>]`."""
        responses = [group.completions[0].text for group in groups]
        references = [group.prompt.reference for group in groups]
        truth = [str(reference["emotion"]) for reference in references]
        metrics = emotion_metrics(truth, predicted_labels(responses, self.labels), self.labels)
        metrics["format_rate"] = float(np.mean([parse_response(text) is not None for text in responses]))
        metrics.update(prosody_metrics(responses, references))
        metrics.update(faithfulness_metrics(responses, references))
        metrics["tokens"] = float(np.mean([group.completions[0].num_sampled for group in groups]))
        for name, of_prompts in scores.items():
            metrics.update(reward_means(name, of_prompts))
        return metrics


def _check_ids(utterances: Sequence[Utterance], manifest: str) -> None:
    """Refuses two prompts of one id in a split: caches and seeds would take one for the other."""
    counts = Counter((u.split, u.id) for u in utterances if u.split is not None)
    if doubled := [id for (_, id), count in counts.items() if count > 1]:
        raise DataError(
            f"{manifest}: {len(doubled)} ids stand there twice in one split, the first {doubled[0]!r}; "
            "give each utterance an id of its own (`emotion annotate` puts the second one aside)"
        )


def _choose_labels(utterances: Sequence[Utterance], labels: Sequence[str] | None, manifest: str) -> list[str]:
    used = {str(u.emotion) for u in utterances}
    if labels is None:
        unknown = sorted(used - set(ALL_LABELS))
        if unknown:
            raise DataError(
                f"{manifest}: emotions {unknown} are not labels; allowed are {list(ALL_LABELS)}, and others "
                "that task.args.labels names"
            )
        labels = labels_among(used)
    else:
        check_set(labels, "task.args.labels")
        check_labels(labels, "task.args.labels", used)
    if not labels:
        raise DataError(f"{manifest}: no utterance has an emotion")
    return list(labels)
