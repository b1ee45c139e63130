"""MELD (Poria et al., 2019, ACL; scenes of "Friends") in its owner's layout.

    root/train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv
    root/train_splits/dia0_utt0.mp4, dev_splits_complete/..., output_repeated_splits_test/...

The lists and folders may lie deeper (train/train_splits). A .wav or .flac beside a clip takes its place.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import Listing, audio_files
from emotion_task.corpora.reading.tables import owners_text, require_columns
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.inputs.tables import csv_rows

LABELS = {
    "neutral": "neutral",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "surprise": "surprise",
    "fear": "fear",
    "disgust": "disgust",
}
LAYOUT = (
    "Expected is MELD.Raw as its owners ship it, with the inner train, dev and test archives unpacked: "
    "train_sent_emo.csv beside train_splits/dia0_utt0.mp4, and so on."
)
_PARTS = {
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", None),
    "test": ("output_repeated_splits_test", "eval"),
}
"""Part to the folder of its clips and our split. The development part has none: it is for choosing."""
_GENDERS = {
    **dict.fromkeys(("Chandler", "Joey", "Ross"), "male"),
    **dict.fromkeys(("Monica", "Phoebe", "Rachel"), "female"),
}
_SEVERAL = re.compile(r"^(all|both|everyone)$| and |[/&,]", re.IGNORECASE)
_COLUMNS = {"Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"}
_CP1252 = {code: bytes([code]).decode("cp1252") for code in (0x85, *range(0x91, 0x98))}
"""Quotation marks and dashes that the lists hold as control characters."""


def load_meld(root: str | Path) -> list[Utterance]:
    """Lists the utterances of one speaker. The official parts share speakers and no dialogue.

    Raises:
        DataError: no such folder, a part's list without its clips, or a list without its columns,
            no proper CSV or no text.
    """
    listing = Listing("meld", Path(root), LAYOUT, LABELS)
    for part, (folder, split) in _PARTS.items():
        for path in sorted(listing.root.rglob(f"{part}_sent_emo.csv"))[:1]:
            clips = audio_files(clip for at in listing.root.rglob(folder) for clip in at.iterdir())
            if not clips:
                raise DataError(f"{path}: no clips in a folder {folder} below {listing.root}. {LAYOUT}")
            _read_part(listing, path, part, split, clips)
    return listing.done()


def _read_part(listing: Listing, path: Path, part: str, split: str | None, clips: dict[str, Path]) -> None:
    with io.StringIO(owners_text(path), newline="") as lines:
        for _, row in csv_rows(path, lines, require_columns(path, _COLUMNS)):
            stem = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            if _SEVERAL.search(row["Speaker"]):
                listing.leave_out("several speakers at once")
            elif stem not in clips:
                listing.leave_out("listed without a clip")
            elif (emotion := listing.emotion(row["Emotion"])) is not None:
                listing.add(
                    f"{part}-{stem}",
                    clips[stem],
                    emotion=emotion,
                    speaker=row["Speaker"],
                    split=split,
                    text=row["Utterance"].translate(_CP1252).strip(),
                    gender=_GENDERS.get(row["Speaker"]),
                )


CORPUS = Corpus(load=load_meld)
