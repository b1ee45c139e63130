"""Transcribes a sentence into phonemes, in the hundred languages that eSpeak NG knows (extra `synth`)."""

from __future__ import annotations

import ctypes
import functools
import importlib.util

from emotion_task.corpora.synthesis.espeak import Espeak

_UTF8, _IPA = 1, 0x02


class _Transcriber(Espeak):
    def transcribe(self, text: str, language: str) -> str | None:
        library = self._library
        if library.espeak_SetVoiceByName(language.lower().encode()) != 0:
            return None
        convert = library.espeak_TextToPhonemes
        convert.restype = ctypes.c_char_p
        convert.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
        # The library advances the pointer clause by clause, and sets it to null at the end.
        rest, clauses = ctypes.c_char_p(text.encode()), []
        while rest.value is not None:
            clauses.append((convert(ctypes.byref(rest), _UTF8, _IPA) or b"").decode())
        return " ".join(clauses)


@functools.lru_cache(maxsize=4096)
def transcribe(text: str, language: str) -> str | None:
    """Returns a sentence in IPA, or None where eSpeak NG is not installed or does not speak the language.

    Args:
        language: ISO 639-1, with or without a region (`de`, `en-us`).
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        return None
    with _Transcriber.fresh(0) as library:
        return library.transcribe(text, language)  # type: ignore[attr-defined]
