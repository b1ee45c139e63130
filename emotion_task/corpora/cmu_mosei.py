"""CMU-MOSEI (Bagher Zadeh et al., 2018, ACL; monologues of YouTube) in its owner's layout.

    root/Labels/5000_batch_raw.csv ...             three annotators' answers for each clip
    root/Transcript/Segmented/Combined/VIDEO.txt   VIDEO___CLIP___start___end___words
    root/Videos/Segmented/Combined/VIDEO_CLIP.mp4

A .wav or .flac of a clip's name, wherever it lies below the root, takes the clip's place.
"""

from __future__ import annotations

import csv
import logging
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import Listing, audio_files
from emotion_task.corpora.reading.splits import split_by_speaker
from emotion_task.corpora.reading.tables import owners_text, require_columns
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.inputs.tables import csv_rows
from rlcore.records.files import open_text

log = logging.getLogger(__name__)

LABELS = {
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprise",
}
DROPPED = {"several": "emotions with the same intensity"}
LAYOUT = (
    "Expected is CMU-MOSEI's raw data as its owners ship it: Labels/*.csv, "
    "Transcript/Segmented/Combined/*.txt and Videos/Segmented/Combined/VIDEO_CLIP.mp4 (or .wav)."
)
_EMOTIONS = tuple(label for label in LABELS if label != "neutral")
_ANSWERS = (*_EMOTIONS, "sentiment")
_COLUMNS = {"Input.VIDEO_ID", "Input.CLIP", *(f"Answer.{name}" for name in _ANSWERS)}
_FRACTIONS = (0.8, 0.2)

Answers = dict[tuple[str, str], dict[str, list[float]]]
"""What the annotators answered, by video and clip, and by question."""


def load_cmu_mosei(root: str | Path) -> list[Utterance]:
    """Lists the clips by the emotion of the highest mean intensity (0 to 3); neutral where all are 0.

    `extra` holds the mean intensities and the mean sentiment (-3 to 3). The owner names no speakers: a video
    counts as one, and a fifth of the videos is `eval`.

    Raises:
        DataError: no such folder, no labels, labels that are no proper CSV, or no clip that has labels.
    """
    listing = Listing("cmu_mosei", Path(root), LAYOUT, LABELS, DROPPED)
    answers = _answers(listing.root / "Labels")
    texts = _transcripts(listing.root / "Transcript" / "Segmented" / "Combined")
    clips = audio_files(listing.root.rglob("*"))
    for (video, clip), told in sorted(answers.items()):
        stem = f"{video}_{clip}"
        means = {name: fmean(values) for name, values in told.items()}
        if stem not in clips:
            listing.leave_out("listed without a clip")
        elif (emotion := listing.emotion(_strongest(means))) is not None:
            listing.add(
                stem,
                clips[stem],
                emotion=emotion,
                speaker=video,
                split=None,
                text=texts.get((video, clip)),
                extra=means,
            )
    if len({u.speaker for u in listing.utterances}) > 1:
        listing.utterances = split_by_speaker(listing.utterances, _FRACTIONS)
    return listing.done()


def _strongest(means: dict[str, float]) -> str:
    highest = max(means[name] for name in _EMOTIONS)
    if highest == 0:
        return "neutral"
    strongest = [name for name in _EMOTIONS if means[name] == highest]
    return strongest[0] if len(strongest) == 1 else "several"


def _answers(folder: Path) -> Answers:
    """Reads the lists that hold answers. A row that leaves a question open is unfinished and left out."""
    answers: Answers = defaultdict(lambda: {name: [] for name in _ANSWERS})
    for path in sorted(folder.glob("*.csv")):
        with open_text(path, newline="") as lines:
            header = next(csv.reader([lines.readline()]), [])
            if not set(header) >= _COLUMNS:
                log.info("%s: left out: it has no column %s", path, min(_COLUMNS - set(header)))
                continue
            lines.seek(0)
            for _, row in csv_rows(path, lines, require_columns(path, _COLUMNS)):
                try:
                    given = {name: float(row[f"Answer.{name}"]) for name in _ANSWERS}
                except ValueError:
                    continue
                if not all(map(math.isfinite, given.values())):
                    continue
                for name, value in given.items():
                    answers[row["Input.VIDEO_ID"], row["Input.CLIP"]][name].append(value)
    if not answers:
        raise DataError(f"{folder}: no list of answers in it. {LAYOUT}")
    return answers


def _transcripts(folder: Path) -> dict[tuple[str, str], str]:
    lines = (line for path in sorted(folder.glob("*.txt")) for line in owners_text(path).splitlines())
    rows = (line.split("___", maxsplit=4) for line in lines)
    return {(row[0], row[1]): row[4].strip() for row in rows if len(row) == 5}


CORPUS = Corpus(load=load_cmu_mosei)
