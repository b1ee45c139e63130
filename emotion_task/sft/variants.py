"""Joins three versions of one utterance that differ in pitch, energy or rate alone.

Pitch and rate are changed by librosa (phase vocoder), energy by a gain. An order is a recipe that is drawn
together with the examples. Its sound is made afterwards, in several processes; a recording that exists is not
made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile

from emotion_task.audio_window import trim_silence
from emotion_task.prompt import ORDER_LEVELS
from emotion_task.prosody.audio import load_audio
from rlcore.errors import MissingDependencyError
from rlcore.records.files import replaced
from rlcore.records.progress import Progress

SAMPLE_RATE = 16000
PITCH_ST = 4.0
"""Semitones by which the pitch is raised and lowered."""
ENERGY_DB = 8.0
"""Decibels by which the level is raised and lowered."""
RATE = 1.35
"""Factor by which the speech is made faster and slower."""
PAUSE_S = 0.4
"""Pause between versions, in seconds."""
_N_FFT = 512
"""Window of the vocoder, 32 ms: short enough for speech, where librosa's default is made for music."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Describes how one joined recording is made."""

    source: str
    """Path of the utterance's recording."""
    target: str
    """Path of the joined recording."""
    attribute: str
    """A key of `ORDER_LEVELS`."""
    steps: tuple[int, int, int]
    """Step of each version in its turn: -1 (lower), 0 (as it is) or 1 (higher)."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Returns the names of the versions' levels, in the order of the versions."""
        return tuple(ORDER_LEVELS[self.attribute][step + 1] for step in self.steps)


def joined_seconds(duration_s: float) -> float:
    """Returns the length in seconds of the longest joined recording that an utterance of `duration_s`
    gives."""
    return duration_s * (1 + RATE + 1 / RATE) + 2 * PAUSE_S


def render(order: Order) -> np.ndarray:
    """Returns the three versions with pauses between them, float32 [N] at `SAMPLE_RATE`."""
    speech = trim_silence(load_audio(order.source, SAMPLE_RATE), SAMPLE_RATE)
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), dtype=np.float32)
    first, second, third = (vary(speech, order.attribute, step) for step in order.steps)
    joined = np.concatenate([first, pause, second, pause, third])
    # All three versions are scaled alike: they must differ in nothing but what was changed.
    return (joined / max(1.0, float(np.abs(joined).max()))).astype(np.float32)


def vary(speech: np.ndarray, attribute: str, step: int) -> np.ndarray:
    """Returns speech [N] at `SAMPLE_RATE` with one attribute a step lower (-1), as it is (0) or a step higher
    (1).

    Raises:
        MissingDependencyError: `attribute` is pitch or rate, and librosa is not installed.
    """
    if attribute == "energy":
        return speech * np.float32(10 ** (step * ENERGY_DB / 20))
    try:
        from librosa.effects import pitch_shift, time_stretch
    except ImportError as error:
        raise MissingDependencyError(
            "the task `order` changes pitch and rate with librosa: pip install -e '.[variants]' in "
            "the project's folder, or give sft.weights.order the value 0"
        ) from error
    # All versions go through the vocoder, so that its traces do not tell which one was changed.
    if attribute == "pitch":
        return pitch_shift(speech, sr=SAMPLE_RATE, n_steps=step * PITCH_ST, n_fft=_N_FFT)
    return time_stretch(speech, rate=RATE**step, n_fft=_N_FFT)


def render_all(orders: Iterable[Order], *, num_workers: int = 1) -> int:
    """Writes the joined recordings that do not exist yet, and returns their number.

    Args:
        num_workers: number of processes.
    """
    missing = {o.target: o for o in orders if not Path(o.target).is_file()}
    if not missing:
        return 0
    if num_workers == 1 or len(missing) < 2 * num_workers:
        for order in missing.values():
            _write(order)
    else:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            done = pool.map(_write, missing.values(), chunksize=8)
            for _ in Progress(done, total=len(missing), desc="versions", unit="file"):
                pass
    return len(missing)


def _write(order: Order) -> None:
    target = Path(order.target)
    with replaced(target) as partial:
        soundfile.write(partial, render(order), SAMPLE_RATE, format="FLAC")
