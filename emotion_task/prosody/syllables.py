"""Counts syllables: of a transcript, by rule (English) or by its phonemes (other languages, where eSpeak NG
is installed), or of a recording by its energy peaks."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.signal import find_peaks

from emotion_task.prosody.phonemes import transcribe

_WORD = re.compile(r"[a-z']+")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT_ENDING = re.compile(r"(?:[^laeiouy]|[aeiouy]l)e$|[^aeiouytd]ed$|[^aeiouycgszx]es$")
_SILENT_INSIDE = re.compile(r"(?<=[aeiouy])([^aeiouy]*[^laeiouy])e(?=(?:ly|ful|less|ness|ment)$)")
"""A silent e inside a word: lov(e)ly, mov(e)ment; not: element, cement."""
_HIATUS = re.compile(r"i(?:a|o(?!n)|um)|eo(?!us)|ua(?!r)|(?<=[aeiouy])ing$|(?<=[dsz])n't$")
"""Spellings with one syllable more than runs of vowels: go-ing, did-n't."""
_IRREGULAR = {"people": 2, "business": 2, "idea": 3, "ideas": 3, "create": 2, "creates": 2, "react": 2}
_NUCLEUS_PROMINENCE_DB = 2.0
_IPA_VOWELS = frozenset("aeiouyøœæɐɑɒɔəɘɚɛɜɝɞɤɨɪɯɵɶʉʊʌʏᵻ")  # noqa: RUF001
_SYLLABIC = "\u0329"


def count_syllables(text: str | None, language: str = "en") -> int | None:
    """Counts the syllables of a sentence from its spelling alone.

    English goes by rule (within one for most words), other languages by the vowels of eSpeak NG's phonemes.
    The count is None where there is no text, and for English text with digits or with letters that the rule
    does not know. For other languages, the count is None without eSpeak NG or where eSpeak NG does not speak
    them. Punctuation of any kind is passed over.
    """
    if not text or not any(character.isalpha() for character in text):
        return None
    text = unicodedata.normalize("NFC", text)
    if language.partition("-")[0] != "en":
        phonemes = transcribe(text, language)
        return count_vowels(phonemes) or None if phonemes is not None else None
    lowered = text.lower().replace("\u2019", "'")
    if any(c.isdigit() or (c.isalpha() and not c.isascii()) for c in lowered):
        return None
    return sum(_syllables_of(word) for word in _WORD.findall(lowered)) or None


def count_vowels(phonemes: str) -> int:
    """Counts the syllables of a transcription in IPA: runs of vowels (a diphthong is one) and syllabic
    consonants.

    Stress marks and spaces part syllables, lengths and other diacritics do not.
    """
    count, inside = 0, False
    for character in unicodedata.normalize("NFD", phonemes):
        if character == _SYLLABIC:
            count += 1
        elif character in _IPA_VOWELS:
            count, inside = count + (not inside), True
        elif unicodedata.category(character) != "Mn" and character not in "\u02d0\u02d1\u0361":
            inside = False
    return count


def _syllables_of(word: str) -> int:
    word = word.strip("'")
    if not word:
        return 0
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    word = re.sub(r"^some(?=.)", "som", re.sub(r"^every", "evry", word))  # silent inside compounds
    word = _SILENT_INSIDE.sub(r"\1", word)
    count = len(_VOWELS.findall(word))
    if count > 1 and _SILENT_ENDING.search(word):
        count -= 1
    return max(1, count + len(_HIATUS.findall(word)))


def count_nuclei(frame_db: np.ndarray, active: np.ndarray, voiced: np.ndarray | None) -> int:
    """Counts syllable nuclei: energy peaks with a dip of 2 dB on either side, voiced where voicing is known
    (de Jong and Wempe, 2009, Behavior Research Methods 41, 385-390).

    Args:
        frame_db: [F] level of each 10 ms frame, in dB.
        active: bool [F], which frames are speech.
        voiced: bool [F], which frames are voiced, or None where that is not known.
    """
    peaks, _ = find_peaks(uniform_filter1d(frame_db, 5), prominence=_NUCLEUS_PROMINENCE_DB, distance=6)
    kept = active[peaks] if voiced is None else active[peaks] & voiced[peaks]
    return int(kept.sum())
