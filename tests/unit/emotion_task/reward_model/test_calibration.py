from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emotion_task.claims.support import learn_table
from emotion_task.records import Utterance
from emotion_task.reward_model.attacks import ATTACKS
from emotion_task.reward_model.calibration import (
    agreement,
    agreements,
    krippendorff_alpha,
    plot_reliability,
    reliability_curve,
)
from emotion_task.reward_model.calibration_report import (
    as_markdown,
    attack_gains,
    attack_groups,
    policy_examples,
)
from emotion_task.reward_model.grades import DIMENSIONS
from rlcore.errors import DataError
from rlcore.types import Score


def test_figures_of_known_predictions() -> None:
    known = np.array([1, 2, 3, 4, 5])
    perfect = agreement(known.astype(float), known)
    assert (perfect.mae, perfect.alpha, perfect.calibration_error) == (0, 1, 0)
    assert perfect.rank_correlation == pytest.approx(1)
    shy = agreement(3 + (known - 3) / 4, known)  # right order, too near the middle
    assert shy.rank_correlation == pytest.approx(1) and shy.mae == pytest.approx(0.9)
    assert shy.calibration_error == pytest.approx(0.9)
    assert 0 < shy.alpha < 1
    assert agreement(known[::-1].astype(float), known).rank_correlation == pytest.approx(-1)
    same = agreement(np.full(5, 3.0), known)
    assert same.rank_correlation == 0 and same.alpha < 0.2 and same.mae == pytest.approx(1.2)


def test_ordinal_alpha_by_counting_pairs() -> None:
    """The definition, value by value: how many ratings lie between two."""
    first, second = [1, 2, 2, 3, 5, 5, 4, 1], [1, 3, 2, 3, 4, 5, 5, 2]
    values = first + second
    counts = {v: values.count(v) for v in set(values)}

    def distance(a: int, b: int) -> float:
        low, high = sorted((a, b))
        return (sum(n for v, n in counts.items() if low <= v <= high) - (counts[a] + counts[b]) / 2) ** 2

    observed = sum(map(distance, first, second)) / len(first)
    pairs = [distance(a, b) for i, a in enumerate(values) for j, b in enumerate(values) if i != j]
    got = krippendorff_alpha(np.array(first), np.array(second), ordinal=True)
    assert got == pytest.approx(1 - observed / (sum(pairs) / len(pairs)), abs=1e-12)


def test_alpha_is_one_less_the_observed_over_the_expected_disagreement() -> None:
    """By hand for two raters of interval ratings, without missing ones."""
    rng = np.random.default_rng(0)
    known, predicted = rng.uniform(1, 5, 40).round(1), rng.uniform(1, 5, 40).round(1)
    ratings = np.concatenate([known, predicted])
    observed = np.mean((known - predicted) ** 2)
    pairs = (ratings[:, None] - ratings[None, :]) ** 2
    expected = pairs.sum() / (len(ratings) * (len(ratings) - 1))
    assert agreement(predicted, known, graded=False).alpha == pytest.approx(1 - observed / expected, abs=1e-6)


def test_a_reliability_curve_has_the_means_of_its_bins() -> None:
    predicted, known = np.array([1.0, 1.1, 4.9, 5.0]), np.array([1, 2, 5, 4])
    low, high = reliability_curve(predicted, known)
    assert (low.predicted, low.known, low.count) == (pytest.approx(1.05), 1.5, 2)
    assert (high.predicted, high.known, high.count) == (pytest.approx(4.95), 4.5, 2)


def test_attacks_join_good_bad_and_empty_responses() -> None:
    assert len(ATTACKS) >= 30
    utterances = [
        Utterance(id=str(i), audio=f"{i}.wav", emotion=("sad", "angry")[i % 2], pitch_level="low")
        for i in range(6)
    ]
    groups = attack_groups(utterances, learn_table(utterances), seed=0, num_recordings=2)
    assert [group.prompt.id.split("/")[0] for group in groups] == ["good", "bad", "empty"] * 2
    sizes = [len(group.completions) - 1 for group in groups[:3]]
    assert sizes == [2 * len(ATTACKS), 2 * len(ATTACKS), len(ATTACKS)]
    good, _, empty = groups[:3]
    assert good.completions[0].text.startswith("<think>") and empty.completions[0].text == ""
    scored = []
    for group in groups:
        plain = 0.9 if group is good else 0.2
        scores = [Score(plain) for _ in group.completions]
        scores[2] = Score(plain + 0.3)
        scores[3] = Score(0.0, error="too long")
        scored.append((group, scores))
    gains = attack_gains(scored)
    assert gains["good"].num_attacks == 4 * len(ATTACKS) and gains["good"].num_gaining == 2
    assert gains["good"].largest_gain == pytest.approx(0.3)
    assert gains["empty"].worst in {group.completions[2].text for group in groups}


def test_the_report_names_every_dimension_and_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    known = rng.integers(1, 6, (50, len(DIMENSIONS)))
    found = {"trained": agreements(known + 0.1, known), "untrained": agreements(known * 0 + 3.0, known)}
    assert found["trained"]["overall"].rank_correlation == pytest.approx(1.0)
    report = {"num_responses": {"made": 50}, "num_recordings": 25, "num_speakers": 4}
    text = as_markdown(report, {"made": found}, {})
    for name in (*(d.name for d in DIMENSIONS), "overall"):
        assert f"| {name} | trained | 1.000 | 0.10 |" in text and f"| {name} | untrained | 0.000 |" in text
    plot_reliability(found, tmp_path / "reliability.png")
    assert (tmp_path / "reliability.png").stat().st_size > 10_000


def test_a_policys_first_and_last_answers_are_graded_by_rules(tmp_path: Path) -> None:
    held_out = [Utterance(id="a", audio="a.wav", emotion="sad", pitch_level="low", energy_level="low")]
    think = "The pitch is low and the energy is high. This points to sad."
    rows = [
        {"step": step, "split": split, "prompt": prompt, "text": text}
        for step, split, prompt, text in (
            (0, "eval", "a", "early"),
            (5, "eval", "a", f"<think>{think}</think><answer>sad</answer>"),
            (5, "eval", "b", "unknown"),
            (6, "train", "a", "training"),
        )
    ]
    common = {"sample": 0, "media": {}, "reference": {}, "tokens": 3, "finish_reason": "stop"}
    path = tmp_path / "samples.jsonl"
    path.write_text(
        "".join(json.dumps(row | common | {"policy_version": 0, "scores": {}}) + "\n" for row in rows),
        encoding="utf-8",
    )
    usual = [replace(held_out[0], pitch_level=pitch) for pitch in ("low", "low", "high")]
    table = learn_table([*usual, Utterance(id="c", audio="c.wav", emotion="happy", pitch_level="high")])
    examples = policy_examples(path, held_out, table)
    (first,), (last,) = examples["policy_first"], examples["policy"]
    assert first.grades == (1, 1, 1, 4, 2)
    assert last.grades == (4, 5, 5, 5, 5) and last.audio == "a.wav"
    bent = policy_examples(path, [replace(held_out[0], emotion="happy")], table)["policy"]
    assert bent[0].grades == (4, 3, 5, 5, 5)
    with pytest.raises(DataError, match="no sample answers a prompt"):
        policy_examples(path, [], table)
