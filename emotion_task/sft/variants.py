"""Three versions of one utterance that differ in pitch, energy or rate alone, one after the other.

Pitch and rate are changed by librosa (phase vocoder), energy by a gain. An order is a recipe, drawn when the
examples are; its sound is made afterwards, in several processes, and what lies there is not made again.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from emotion_task.audio_window import trim_silence
from emotion_task.prompt import ORDER_LEVELS
from emotion_task.prosody.audio import load_audio
from rlcore.errors import MissingDependencyError
from rlcore.records.files import replaced

SAMPLE_RATE = 16000
PITCH_ST = 4.0
"""Semitones up and down."""
ENERGY_DB = 8.0
RATE = 1.35
"""Faster by this factor, and slower by it."""
PAUSE_S = 0.4
"""Between versions."""
_N_FFT = 512
"""32 ms: short enough for speech, where librosa's default is made for music."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One joined recording, by how it is made."""

    source: str
    """Path of the utterance."""
    target: str
    """Path of the joined recording."""
    attribute: str
    """A key of `ORDER_LEVELS`."""
    steps: tuple[int, int, int]
    """Of each version in its turn: -1, 0 or 1."""

    @property
    def levels(self) -> tuple[str, ...]:
        """The versions' levels by name, in their order."""
        return tuple(ORDER_LEVELS[self.attribute][step + 1] for step in self.steps)


def joined_seconds(duration_s: float) -> float:
    """Length of the longest joined recording of an utterance."""
    return duration_s * (1 + RATE + 1 / RATE) + 2 * PAUSE_S


def render(order: Order) -> np.ndarray:
    """float32 [N] at `SAMPLE_RATE`: the three versions with pauses between them."""
    speech = trim_silence(load_audio(order.source, SAMPLE_RATE), SAMPLE_RATE)
    pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), dtype=np.float32)
    first, second, third = (vary(speech, order.attribute, step) for step in order.steps)
    joined = np.concatenate([first, pause, second, pause, third])
    # All three alike: what differs must be what was changed.
    return (joined / max(1.0, float(np.abs(joined).max()))).astype(np.float32)


def vary(speech: np.ndarray, attribute: str, step: int) -> np.ndarray:
    """Speech [N] at `SAMPLE_RATE` with one attribute a step lower (-1), as it is (0) or a step higher (1).

    Raises:
        MissingDependencyError: pitch or rate are to change and librosa is not installed.
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
    """Writes the recordings that do not exist yet, and returns their number."""
    missing = {o.target: o for o in orders if not Path(o.target).is_file()}
    if not missing:
        return 0
    if num_workers == 1 or len(missing) < 2 * num_workers:
        for order in missing.values():
            _write(order)
    else:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            done = pool.map(_write, missing.values(), chunksize=8)
            for _ in tqdm(done, total=len(missing), desc="versions", unit="file"):
                pass
    return len(missing)


def _write(order: Order) -> None:
    target = Path(order.target)
    with replaced(target) as partial:
        soundfile.write(partial, render(order), SAMPLE_RATE, format="FLAC")
