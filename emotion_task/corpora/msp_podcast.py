"""MSP-Podcast (Lotfian and Busso, 2019, IEEE Trans. Affective Computing 10) in its owner's layout.

root/Labels/labels_consensus.csv      FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
root/Audios/MSP-PODCAST_0001_0008.wav
root/Transcripts/MSP-PODCAST_0001_0008.txt
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.corpora.reading.tables import require_columns, text_beside
from emotion_task.records import Utterance
from rlcore.errors import DataError
from rlcore.inputs.tables import csv_rows
from rlcore.records.files import open_text

LABELS = {
    "N": "neutral",
    "H": "happy",
    "S": "sad",
    "A": "angry",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "disgust",
}
DROPPED = {
    "O": "other",
    "X": "the annotators did not agree, or the label is hidden (Test3)",
}
LAYOUT = (
    "Expected is MSP-Podcast as its owners ship it: Labels/labels_consensus.csv, Audios/ (or Audio/) with "
    "MSP-PODCAST_0001_0008.wav, Transcripts/ with MSP-PODCAST_0001_0008.txt."
)
_COLUMNS = {"FileName", "EmoClass", "SpkrID", "Gender", "Split_Set"}
_DIMENSIONS = {"activation": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
_GENDERS = {"Male": "male", "Female": "female"}


def load_msp_podcast(root: str | Path, *, eval_sets: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the segments by the consensus labels. Train and the test sets share no speaker.

    `extra` holds the mean ratings, 1 to 7.

    Args:
        eval_sets: official sets that are tested on, by default Test1; those that are not, and Development,
            get no split.

    Raises:
        DataError: no such folder, no labels, or labels without their columns or no proper CSV.
        ConfigError: `eval_sets` is no list, or one of them is not there.
    """
    held_out = HeldOut(eval_sets, ("Test1",), "eval_sets")
    listing = Listing("msp_podcast", Path(root), LAYOUT, LABELS, DROPPED, held_out=held_out)
    path = listing.root / "Labels" / "labels_consensus.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file. {LAYOUT}")
    audio = next((listing.root / n for n in ("Audios", "Audio") if (listing.root / n).is_dir()), None)
    if audio is None:
        raise DataError(f"{listing.root}: no folder Audios or Audio. {LAYOUT}")
    with open_text(path, newline="") as lines:
        for _, row in csv_rows(path, lines, require_columns(path, _COLUMNS)):
            emotion = listing.emotion(row["EmoClass"])
            if emotion is None:
                continue
            split = held_out.split(row["Split_Set"])
            name = Path(row["FileName"]).name
            stem = Path(name).stem
            listing.add(
                stem,
                audio / name,
                emotion=emotion,
                speaker=None if row["SpkrID"] in ("", "Unknown") else row["SpkrID"],
                split=split if split == "eval" or row["Split_Set"] == "Train" else None,
                text=text_beside(listing.root / "Transcripts" / f"{stem}.txt"),
                gender=_GENDERS.get(row["Gender"]),
                extra={name: _rating(row.get(column)) for name, column in _DIMENSIONS.items()},
            )
    return listing.done()


def _rating(cell: str | None) -> float | None:
    try:
        return float(cell or "nan")
    except ValueError:
        return None


CORPUS = Corpus(load=load_msp_podcast)
