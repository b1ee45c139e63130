"""EMOVO (Costantini et al., 2014, LREC; six actors, Italian) in its owner's layout.

root/f1/dis-f1-b1.wav      emotion (the Italian word's first letters), speaker, sentence
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from emotion_task.corpora import Corpus
from emotion_task.corpora.reading.listing import HeldOut, Listing
from emotion_task.records import Utterance

LABELS = {
    "dis": "disgust",
    "gio": "happy",
    "neu": "neutral",
    "pau": "fear",
    "rab": "angry",
    "sor": "surprise",
    "tri": "sad",
}
SENTENCES = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato ed è inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
}
LAYOUT = "Expected is EMOVO as its owners ship it: f1/dis-f1-b1.wav and so on (speakers f1 to f3, m1 to m3)."
_NAME = re.compile(r"(?P<label>[a-z]{3})-(?P<speaker>[fm]\d)-(?P<sentence>[a-z]\d)")


def load_emovo(root: str | Path, *, eval_speakers: Iterable[str] | None = None) -> list[Utterance]:
    """Lists the recordings, with the Italian sentences that were read.

    Args:
        eval_speakers: speakers held out; by default f3 and m3.

    Raises:
        DataError: no such folder, or nothing of EMOVO in it.
    """
    held_out = HeldOut(eval_speakers, ("f3", "m3"))
    listing = Listing("emovo", Path(root), LAYOUT, LABELS, language="it", held_out=held_out)
    for match, path, emotion in listing.recordings(_NAME):
        listing.add(
            path.stem,
            path,
            emotion=emotion,
            speaker=match["speaker"],
            split=held_out.split(match["speaker"]),
            text=SENTENCES.get(match["sentence"]),
            text_emotion="neutral",
            gender="female" if match["speaker"].startswith("f") else "male",
        )
    return listing.done()


CORPUS = Corpus(load=load_emovo)
