"""The workspace that all stages share: the configuration, the run's folder, and the annotated utterances in
it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from emotion_task.config import PipelineConfig
from emotion_task.explain import write_companions
from emotion_task.labels import labels_among
from emotion_task.pipeline.stages import Say
from emotion_task.records import Utterance, read_manifest


@dataclass(frozen=True, slots=True)
class Workspace:
    """A run's configuration and folder, from which every stage reads and into which it writes."""

    config: PipelineConfig
    run_dir: Path
    say: Say
    """Function that takes what a stage has to say while it works."""

    @property
    def listed(self) -> Path:
        """Path of the corpus' manifest."""
        return self.run_dir / "corpus" / "manifest.jsonl"

    @property
    def annotated(self) -> Path:
        """Path of the manifest of annotated utterances."""
        return self.run_dir / "annotated" / "manifest.jsonl"

    def split(self, name: str) -> list[Utterance]:
        """Returns the annotated utterances of the split `train` or `eval`, without the emotions that are no
        options of the question."""
        utterances = [utterance for utterance in read_manifest(self.annotated) if utterance.split == name]
        labels = self.config.labels
        if labels is None:
            return utterances
        return [u if u.emotion in labels else replace(u, emotion=None) for u in utterances]

    def labels(self) -> list[str]:
        """Returns the options of the emotion question: the same in every stage, as `EmotionTask` has them."""
        named = self.config.labels
        return named or labels_among(utterance.emotion for utterance in read_manifest(self.annotated))

    def add_companions(self, model: str | Path) -> None:
        """Puts cut points and options beside a trained model, for `emotion explain`."""
        write_companions(model, self.run_dir / "annotated" / "calibration.json", self.labels())
