"""The synthesiser espeak-ng through ctypes: text to a waveform with word times. One instance a process.

The library keeps state between utterances (flutter phase, noise generator), which would make a
corpus depend on how work was shared out. `Espeak.fresh()` unloads it, so each utterance starts from
the same state; loading costs half a millisecond.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from rlcore.errors import MissingDependencyError

_AUDIO_OUTPUT_SYNCHRONOUS = 2  # RETRIEVAL (1) polls with 20 ms sleeps and is ten times slower
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_WORD_EVENT = 1
_UTF8 = 1


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech as espeak-ng said it."""

    waveform: np.ndarray
    """Samples, float64 [N] in -1..1."""
    sample_rate: int
    word_starts: tuple[float, ...]
    """Seconds from the start of each spoken unit; the library joins some words ("in the") into one."""
    word_offsets: tuple[int, ...]
    """Character of the text at which each unit begins."""


def require_synthesis() -> None:
    """Checks that the packages of the extra `synth` are installed.

    Raises:
        MissingDependencyError: one is not.
    """
    for module, package in (("espeakng_loader", "espeakng-loader"), ("parselmouth", "praat-parselmouth")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(
                f"the synthetic corpus needs {package}, which is not installed: pip install -e '.[synth]' in "
                "the project's folder"
            )


class Espeak:
    """One loaded espeak-ng library."""

    def __init__(self) -> None:
        require_synthesis()
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.sample_rate: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0
        )
        if self.sample_rate <= 0:
            raise MissingDependencyError(
                f"espeak-ng did not start ({self.sample_rate}); reinstall it: pip install --force-reinstall "
                "espeakng-loader"
            )
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self._chunks: list[np.ndarray] = []
        self._words: list[tuple[int, int]] = []
        self._callback = _CALLBACK(self._receive)  # kept: ctypes does not hold a reference
        self._library.espeak_SetSynthCallback(self._callback)

    @classmethod
    @contextmanager
    def fresh(cls, seed: int) -> Iterator[Espeak]:
        """Gives a library in its initial state, its noise generator (libc's rand) seeded."""
        espeak = cls()
        ctypes.CDLL(None).srand(seed & 0x7FFFFFFF)
        try:
            yield espeak
        finally:
            espeak.close()

    def close(self) -> None:
        """Ends the library and unloads it, which resets the state that it keeps."""
        import _ctypes

        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)

    def speak(self, text: str, voice: str, words_per_minute: int) -> Speech:
        """Says `text` in monotone, so that a melody can be laid over it.

        Args:
            text: one sentence.
            voice: espeak-ng name with variant, for instance `en-us+m3`.
            words_per_minute: 80 to 450.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((_RATE, words_per_minute), (_VOLUME, 100), (_PITCH, 50), (_RANGE, 0)):
            self._library.espeak_SetParameter(parameter, int(value), 0)
        self._chunks, self._words = [], []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None)
        samples = np.concatenate(self._chunks) if self._chunks else np.zeros(0, np.int16)
        return Speech(
            waveform=samples.astype(np.float64) / 32768,
            sample_rate=self.sample_rate,
            word_starts=tuple(sample / self.sample_rate for sample, _ in self._words),
            word_offsets=tuple(position - 1 for _, position in self._words),
        )

    def _receive(self, samples, count: int, events) -> int:  # type: ignore[no-untyped-def]
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != 0:
            if events[index].type == _WORD_EVENT:
                self._words.append((events[index].sample, events[index].text_position))
            index += 1
        return 0
