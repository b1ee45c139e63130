from __future__ import annotations

import math

import numpy as np
import pytest

from emotion_task.evaluation.bootstrap import MEAN, column_means, estimate, estimate_gain
from emotion_task.evaluation.intervals import estimates_table


def shares(num: int, *accuracies: float) -> np.ndarray:
    """Column c has exactly `accuracies[c] * num` ones."""
    return np.array([np.arange(num) < a * num for a in accuracies], dtype=float).T


def test_values_are_the_plain_means_and_gaps_do_not_count() -> None:
    scores = np.array([[1.0, 0.0], [0.0, np.nan], [1.0, np.nan], [1.0, 1.0]])
    found = estimate(scores, ["pitch", "rate"])
    assert (found["pitch"].value, found["rate"].value, found[MEAN].value) == (0.75, 0.5, 0.625)
    assert (found["pitch"].num, found["rate"].num, found[MEAN].num) == (4, 2, 4)
    np.testing.assert_allclose(column_means(scores), [0.75, 0.5, 0.625])


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    num, share = 400, 0.7
    found = estimate(shares(num, share), ["pitch"], num_resamples=4000)["pitch"]
    half = 1.96 * math.sqrt(share * (1 - share) / num)
    assert found.low == pytest.approx(share - half, abs=0.006)
    assert found.high == pytest.approx(share + half, abs=0.006)


def test_the_gain_is_paired() -> None:
    # Every utterance that was right stays right and 40 more become so: the gain is far surer than two shares
    # that were measured on different utterances would make it.
    before, after = shares(400, 0.5), shares(400, 0.6)
    gain = estimate_gain(before, after, ["pitch"], num_resamples=4000)["pitch"]
    half = 1.96 * math.sqrt(0.1 * 0.9 / 400)
    assert gain.value == pytest.approx(0.1)
    assert gain.low == pytest.approx(0.1 - half, abs=0.006)
    assert gain.high == pytest.approx(0.1 + half, abs=0.006)
    assert half < 0.5 * 1.96 * math.sqrt((0.25 + 0.24) / 400)


def test_a_seed_gives_one_answer_and_bad_tables_are_refused() -> None:
    scores = shares(30, 0.5, 0.8)
    assert estimate(scores, ["a", "b"], seed=3) == estimate(scores, ["a", "b"], seed=3)
    assert estimate(scores, ["a", "b"], seed=3) != estimate(scores, ["a", "b"], seed=4)
    with pytest.raises(ValueError, match="without a single score"):
        estimate(np.full((3, 1), np.nan), ["a"])
    with pytest.raises(ValueError, match="same gaps"):
        estimate_gain(scores, np.where(scores > 0, np.nan, scores), ["a", "b"])


def test_the_table_for_people() -> None:
    scores = np.ones((5, 1))
    lines = estimates_table(
        "attribute", {"model": estimate(scores, ["pitch"])}, floor={"pitch": {"chance": 1 / 3}}
    )
    assert lines[0] == "| attribute | n | chance | majority | model |"
    assert lines[2] == "| pitch | 5 | 33.3 | - | 100.0 [100.0, 100.0] |"
    assert lines[3] == "| mean | 5 | 33.3 | - | 100.0 [100.0, 100.0] |"
