"""One waveform out of the channels of a recording.

The mean of channels is their sound where all hold the same. Where they hold two people, or one is dead, or
one is wired the other way round, the mean is quieter than what was recorded. That loss is measured here, and
a recording that loses much is refused until somebody says which channel is meant.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlcore.errors import DataError

_BLOCK_S = 0.25
_MAX_LOSS_DB = 2.0
"""Decibels that the mean of channels may lie under the loudest one. Two voices of equal level lose 3, a dead
channel of two loses 6; microphones whose signals correlate by 0.3 or more lose less than 2."""
_MAX_LOSING_SHARE = 0.2
"""Share of the energy in blocks that lose more. In pauses the noise of two microphones loses 3 dB."""
_DEAD_DB = 40.0
_INVERTED = -0.5


def one_channel(samples: np.ndarray, sample_rate: int, channel: int | None, path: str | Path) -> np.ndarray:
    """Returns the channel that is named, or the mean of channels that hold the same sound.

    Args:
        samples: float [N, C].
        channel: number of the channel, from 1; None where all of them mean the recording.
        path: the file, for errors.

    Returns:
        float [N].

    Raises:
        DataError: There is no such channel, or none is named and the channels do not hold the same sound.
    """
    num_channels = samples.shape[1]
    if channel is not None:
        if not 1 <= channel <= num_channels:
            raise DataError(f"{path}: channels: the row means channel {channel}, the file has {num_channels}")
        return samples[:, channel - 1]
    if num_channels > 1 and (difference := _difference(samples, sample_rate)) is not None:
        raise DataError(
            f"{path}: channels: {difference}. Say in the manifest's column `channel` (1 to {num_channels}) "
            "which one the row means"
        )
    return samples.mean(axis=1)


def _difference(samples: np.ndarray, sample_rate: int) -> str | None:
    """Returns how the channels of [N, C] differ, or None where their mean is their sound."""
    centred = samples.astype(np.float64) - samples.mean(axis=0, dtype=np.float64)
    starts = np.arange(0, len(centred), max(1, int(_BLOCK_S * sample_rate)))
    energy = np.add.reduceat(np.square(centred), starts, axis=0)  # [blocks, C]
    loudest, mean = energy.max(axis=1), np.add.reduceat(np.square(centred.mean(axis=1)), starts)
    losing = loudest * 10 ** (-_MAX_LOSS_DB / 10) > mean
    if loudest[losing].sum() <= _MAX_LOSING_SHARE * loudest.sum():
        return None
    total = energy.sum(axis=0)
    strongest = int(total.argmax())
    dead = [n + 1 for n, each in enumerate(total) if each < total[strongest] * 10 ** (-_DEAD_DB / 10)]
    if dead:
        return f"channel {', '.join(map(str, dead))} of {len(total)} is dead"
    products = centred.T @ centred[:, strongest] / np.sqrt(total * total[strongest])
    inverted = [n + 1 for n, each in enumerate(products) if each < _INVERTED]
    if inverted:
        return f"channel {', '.join(map(str, inverted))} is channel {strongest + 1} inverted: they cancel out"
    levels = ", ".join(f"{10 * np.log10(each / len(centred)):.1f}" for each in total)
    return f"the {len(total)} channels hold different sound, such as two people (levels {levels} dBFS)"
