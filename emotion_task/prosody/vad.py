"""Tells frames of speech by a trained detector, in place of the level alone.

A detector is any class with the method of `SpeechDetector`, named as `package.module:Class`. `SileroVad`
needs the package silero-vad (extra `vad`), which brings its model; nothing is downloaded.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from emotion_task.prosody.activity import FRAME_S
from rlcore.errors import ConfigError


class SpeechDetector(Protocol):
    """Finds speech in a recording. A detector is built once per process, without arguments."""

    def speech(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Returns which frames of 10 ms of the mono waveform [N] hold speech, bool [F]."""
        ...


def heard_speech(detector: SpeechDetector, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns what a detector hears, bool [F].

    Raises:
        ConfigError: it returns anything but a boolean for each frame of the waveform.
    """
    spoken = detector.speech(waveform, sample_rate)
    num_frames = len(waveform) // int(FRAME_S * sample_rate)
    if not isinstance(spoken, np.ndarray) or (spoken.dtype, spoken.shape) != (bool, (num_frames,)):
        got = f"{spoken.dtype} {spoken.shape}" if isinstance(spoken, np.ndarray) else repr(spoken)[:80]
        raise ConfigError(
            f"vad: {type(detector).__name__}.speech returned {got}; it returns an array of bool "
            f"({num_frames},), one for each 10 ms of {len(waveform)} samples"
        )
    return spoken


class SileroVad:
    """Hears speech with Silero VAD, a small recurrent network (github.com/snakers4/silero-vad, MIT)."""

    _RATE, _WINDOW_S, _LEAST = 16000, 0.032, 0.5

    def __init__(self) -> None:
        """Loads the model that lies in the package.

        Raises:
            ConfigError: silero-vad is not installed.
        """
        import torch

        threads = torch.get_num_threads()
        try:
            from silero_vad import load_silero_vad
        except ImportError as error:
            raise ConfigError(
                "vad: SileroVad needs silero-vad, which is not installed: pip install silero-vad, or "
                "pip install -e '.[vad]'"
            ) from error
        finally:
            torch.set_num_threads(threads)  # the package sets it to 1 for the whole process
        self._model = load_silero_vad()

    def speech(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        """Returns which frames of 10 ms hold speech, bool [F], of a waveform [N] at 16 kHz."""
        import torch

        assert sample_rate == self._RATE
        samples = torch.from_numpy(np.asarray(waveform, dtype=np.float32))
        with torch.no_grad():
            probability = self._model.audio_forward(samples[None], sample_rate)[0].numpy()
        middle = (np.arange(len(waveform) // int(FRAME_S * sample_rate)) + 0.5) * FRAME_S
        return probability[(middle / self._WINDOW_S).astype(int)] > self._LEAST
