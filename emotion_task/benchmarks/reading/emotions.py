"""A corpus of emotional speech as a benchmark: what is the emotion of the speaker?

The readers are those of `emotion_task.corpora`, so IEMOCAP, MELD, RAVDESS and SAVEE, on which EmotionThinker
(arXiv 2601.15668) is measured, are read in their owners' layouts. `manifest` is a list of `emotion annotate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from emotion_task.benchmarks.reading.questions import Benchmark, Question, Questions, checked
from emotion_task.corpora import load_corpus
from emotion_task.labels import labels_among
from emotion_task.records import Utterance, read_manifest


def emotion_benchmark(corpus: str) -> Benchmark:
    """Returns the benchmark of a corpus of `emotion_task.corpora`."""
    return Benchmark(load=partial(_load, corpus), asks_emotion=True)


def _load(corpus: str, path: Path, split: str) -> Questions:
    if corpus == "manifest":
        utterances = read_manifest(path / "manifest.jsonl" if path.is_dir() else path)
    else:
        utterances = load_corpus(corpus, path)
    layout = "Expected are recordings with an emotion" + (
        f" in the split {split!r}; --split all asks about all." if split != "all" else "."
    )
    return checked(emotion_questions(utterances, split), corpus, path, layout)


def emotion_questions(utterances: Sequence[Utterance], split: str) -> Questions:
    """Returns the questions about the labelled utterances of a split; `all` takes those of every split.

    The choices are the emotions of the whole corpus, as in training (`emotion_task.task.EmotionTask`).
    """
    labels = tuple(labels_among(u.emotion for u in utterances))
    left_out: Counter[str] = Counter()
    kept = []
    for utterance in utterances:
        if split not in ("all", utterance.split):
            continue
        if utterance.emotion is None:
            left_out["no emotion"] += 1
        elif not Path(utterance.audio).is_file():
            left_out["no recording"] += 1
        else:
            kept.append(_question(utterance, labels))
    return Questions(questions=tuple(kept), left_out=dict(left_out))


def _question(utterance: Utterance, labels: tuple[str, ...]) -> Question:
    # Neutral words, such as the sentence that all speakers of a corpus say, contradict no voice.
    words = utterance.text_emotion if utterance.text_emotion != "neutral" else None
    return Question(
        id=utterance.id,
        audio=utterance.audio,
        choices=labels,
        answer=utterance.emotion,
        groups={"dataset": utterance.dataset},
        words=words,
    )
