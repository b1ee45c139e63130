from __future__ import annotations

import numpy as np
import pytest

from emotion_task.evaluation.metrics import confusion, emotion_metrics, predicted_labels, prosody_metrics

LABELS = ("happy", "sad", "angry")


def test_answers_are_read_or_none() -> None:
    responses = ["<think>a</think><answer>Sadness</answer>", "sad", "<think>a</think><answer>calm</answer>"]
    assert predicted_labels(responses, LABELS) == ["sad", None, None]


def test_metrics_of_four_answers() -> None:
    truth = ["happy", "happy", "happy", "sad"]
    predicted = ["happy", "happy", None, "happy"]
    metrics = emotion_metrics(truth, predicted, LABELS)
    assert metrics["accuracy"] == 0.5
    assert metrics["unweighted_accuracy"] == pytest.approx((2 / 3 + 0) / 2)
    # happy: precision 2/3, recall 2/3; sad: 0. angry never occurs and counts for nothing.
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    np.testing.assert_array_equal(
        confusion(truth, predicted, LABELS), [[2, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    )


def test_a_missing_claim_is_wrong_and_an_unknown_field_does_not_count() -> None:
    responses = [
        "<think>The pitch is low and the energy is high.</think><answer>sad</answer>",
        "The pitch is low.",
        "<think>No pitch is heard. The energy is low.</think><answer>sad</answer>",
    ]
    references = [
        {"pitch_level": "low", "energy_level": "low", "speed_level": "fast"},
        {"pitch_level": "high", "intonation": "too_short"},
        {"pitch_level": "none", "energy_level": "low"},
    ]
    metrics = prosody_metrics(responses, references)
    assert metrics["pitch_accuracy"] == 0.5  # right, wrong; the whisper has no level
    assert metrics["energy_accuracy"] == 0.5
    assert metrics["speed_accuracy"] == 0.0
    assert "intonation_accuracy" not in metrics and "gender_accuracy" not in metrics
    assert metrics["prosody_accuracy"] == pytest.approx(1 / 3)
    assert metrics["claim_precision"] == pytest.approx(3 / 5)
