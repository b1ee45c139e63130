"""What claims support is a probability: it sums to 1, knows no order, and grows with what speaks for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_task.claims.support import ClaimTable, learn_table, prosodic
from emotion_task.facts import PROSODY, VALUES
from emotion_task.records import Utterance
from rlcore.errors import ConfigError

LABELS = ("sad", "angry", "sarcasm", "agreement")
values = {name: st.one_of(st.none(), st.sampled_from(VALUES[name])) for name in PROSODY}
claims = st.fixed_dictionaries({}, optional={name: st.sampled_from(VALUES[name]) for name in PROSODY})


@st.composite
def tables(draw: st.DrawFn) -> ClaimTable:
    rows = draw(st.lists(st.fixed_dictionaries({"emotion": st.sampled_from(LABELS), **values}), max_size=30))
    rows += [{"emotion": label, "energy_level": draw(values["energy_level"]) or "low"} for label in LABELS]
    utterances = [Utterance(id=str(i), audio="a.wav", **row) for i, row in enumerate(rows)]
    return learn_table(utterances, LABELS, smoothing=draw(st.floats(0.01, 5)))


@given(tables(), claims)
def test_a_posterior_sums_to_one_and_knows_no_order(table: ClaimTable, said: dict[str, str]) -> None:
    found = table.posterior(said)
    assert sum(found.values()) == pytest.approx(1) and set(found) == set(LABELS)
    turned = dict(reversed(list(said.items())))
    assert table.posterior(turned) == pytest.approx(found)
    assert table.posterior({**said, "gender": "male"}) == pytest.approx(found)
    assert table.posterior({}) == pytest.approx(dict.fromkeys(LABELS, 0.25))


@given(tables(), claims, st.sampled_from(PROSODY), st.data())
def test_a_claim_that_speaks_for_an_emotion_never_lowers_it(
    table: ClaimTable, said: dict[str, str], name: str, data: st.DataObject
) -> None:
    value = data.draw(st.sampled_from(VALUES[name]))
    row = table.odds[name, value]
    best, worst = row.index(max(row)), row.index(min(row))
    rest = {other: each for other, each in said.items() if other != name}
    before, after = table.posterior(rest), table.posterior({**rest, name: value})
    assert after[LABELS[best]] >= before[LABELS[best]] - 1e-12
    assert after[LABELS[worst]] <= before[LABELS[worst]] + 1e-12


@given(tables(), claims, st.sampled_from(PROSODY))
def test_what_is_not_claimed_is_summed_out(table: ClaimTable, said: dict[str, str], name: str) -> None:
    """The posterior without a claim is the mean of those with each of its values, by how likely these are."""
    rest = {other: each for other, each in said.items() if other != name}
    without = table.posterior(rest)
    mean = dict.fromkeys(LABELS, 0.0)
    for value in VALUES[name]:
        likely = sum(without[label] * table.odds[name, value][k] for k, label in enumerate(LABELS))
        for label, odds in table.posterior({**rest, name: value}).items():
            mean[label] += likely * odds
    assert mean == pytest.approx(without)


def test_the_formula_on_six_recordings() -> None:
    rows = [("sad", "low")] * 3 + [("angry", "high")] * 2 + [("angry", None)]
    table = learn_table(
        Utterance(id=str(i), audio="a.wav", emotion=emotion, energy_level=level, speed_level="slow")
        for i, (emotion, level) in enumerate(rows)
    )
    assert table.labels == ("sad", "angry")
    assert table.odds["energy_level", "low"] == pytest.approx((4 / 6, 1 / 5))
    assert table.odds["energy_level", "normal"] == pytest.approx((1 / 6, 1 / 5))
    assert table.posterior({"energy_level": "low"})["sad"] == pytest.approx((4 / 6) / (4 / 6 + 1 / 5))
    assert table.posterior({"speed_level": "slow"})["sad"] == pytest.approx(0.5)
    assert table.best({"energy_level": "high"}) == "angry"
    assert prosodic({"energy_level": "contradictory", "gender": "male", "speed_level": "fast"}) == {
        "speed_level": "fast"
    }


def test_what_cannot_be_learned_is_told() -> None:
    known = Utterance(id="0", audio="a.wav", emotion="sad", energy_level="low")
    unmeasured = Utterance(id="1", audio="a.wav", emotion="sarcasm")
    with pytest.raises(ConfigError, match=r"labels: no training recording .* has the emotion \['sarcasm'\]"):
        learn_table([known, unmeasured], ["sad", "sarcasm"])
    with pytest.raises(ConfigError, match="annotate the corpus first"):
        learn_table([unmeasured])
    with pytest.raises(ConfigError, match=r"smoothing: got 0; allowed is any number above 0"):
        learn_table([known], smoothing=0)
