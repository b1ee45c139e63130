"""Means of a reward's scores, as tasks report them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlcore.types import Score


def reward_means(name: str, scores: Sequence[Score]) -> dict[str, float]:
    """Returns the mean of a reward, and of each of its parts, over the scores that could be made, as
    `reward/NAME` and `reward/NAME/PART`; nothing where none could."""
    good = [score for score in scores if score.error is None]
    if not good:
        return {}
    means = {f"reward/{name}": float(np.mean([score.value for score in good]))}
    for part in dict.fromkeys(part for score in good for part in score.parts):
        # A gate's reward is not asked of all.
        values = [score.parts[part] for score in good if part in score.parts]
        means[f"reward/{name}/{part}"] = float(np.mean(values))
    return means
