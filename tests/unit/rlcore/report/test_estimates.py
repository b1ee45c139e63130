from __future__ import annotations

import pytest
from made_run import sample

from rlcore.report.estimates import gain, headline, interval, values_behind


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert interval([1.0] * 373 + [0.0] * 227) == pytest.approx((0.5822, 0.6596), abs=1e-4)
    low, high = interval([1.0] * 20)
    assert low == pytest.approx(0.8389, abs=1e-4) and high == 1


def test_the_interval_of_a_mean_holds_it_and_narrows_with_more_answers() -> None:
    few, many = interval([0.2, 0.4, 0.9, 0.5] * 5), interval([0.2, 0.4, 0.9, 0.5] * 500)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]


def test_a_gain_is_paired_over_the_prompts_of_both() -> None:
    before = {f"p{i}": float(i % 2) for i in range(100)} | {"only before": 1.0}
    found = gain(
        before, {prompt: value + 0.25 for prompt, value in before.items() if prompt != "only before"}
    )
    assert found == {"value": 0.25, "low": 0.25, "high": 0.25, "n": 100}
    assert gain(before, {"p1": 1.0}) is None


def test_single_values_are_those_of_the_reward_whose_mean_is_the_metric() -> None:
    rows = [sample(0, p, split="eval") for p in range(9)]
    mean = sum(row["scores"]["outcome"]["value"] for row in rows) / 9
    values = values_behind(rows, mean)
    assert values is not None and sum(values.values()) == pytest.approx(9 * mean)
    assert values_behind(rows, 0.123) is None


def test_the_headline_has_n_and_interval_before_and_after() -> None:
    answers = {step: [sample(step, p, split="eval") for p in range(60)] for step in (0, 4)}
    means = {s: sum(r["scores"]["outcome"]["value"] for r in rows) / 60 for s, rows in answers.items()}
    rows = [{"step": step, "eval/accuracy": mean, "eval/other": 0.1} for step, mean in means.items()]
    found, values = headline(rows, answers)
    assert found is not None and (found["metric"], found["n"], found["step"]) == ("accuracy", 60, 4)
    assert found["low"] < means[4] < found["high"] and found["before"]["value"] == means[0]
    assert found["gain"]["value"] == pytest.approx(means[4] - means[0]) and len(values) == 60


def test_a_headline_that_is_no_mean_of_scores_has_no_interval() -> None:
    rows = [{"step": 0, "eval/f1": 0.321}]
    found, values = headline(rows, {0: [sample(0, p, split="eval") for p in range(5)]})
    assert found is not None and (found["value"], found["low"], found["n"]) == (0.321, None, 5) and not values
    assert headline([{"step": 1, "kl": 0.0}], {}) == (None, {})
