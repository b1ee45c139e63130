"""What claims support is a probability: it sums to 1, knows no order, and grows with what speaks for it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emotion_task.claims.support import TABLE_FILE, ClaimTable, learn_table, prosodic
from emotion_task.facts import PROSODY, VALUES
from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError

LABELS = ("sad", "angry", "sarcasm", "agreement")
values = {name: st.one_of(st.none(), st.sampled_from(VALUES[name])) for name in PROSODY}
claims = st.fixed_dictionaries({}, optional={name: st.sampled_from(VALUES[name]) for name in PROSODY})


@st.composite
def tables(draw: st.DrawFn) -> ClaimTable:
    rows = draw(st.lists(st.fixed_dictionaries({"emotion": st.sampled_from(LABELS), **values}), max_size=30))
    rows += [{"emotion": label, "energy_level": draw(values["energy_level"]) or "low"} for label in LABELS]
    utterances = [Utterance(id=str(i), audio="a.wav", **row) for i, row in enumerate(rows)]
    return learn_table(utterances, LABELS, smoothing=draw(st.floats(0.01, 5)))


recordings = st.lists(
    st.fixed_dictionaries({"emotion": st.sampled_from(LABELS), "energy_level": st.just("low"), **values}),
    min_size=1,
    max_size=20,
)


@given(recordings, claims, st.sampled_from(LABELS))
def test_claims_support_what_they_make_more_likely(
    rows: list[dict[str, str]], said: dict[str, str], emotion: str
) -> None:
    """By counting in whole numbers, with one added to each count: P(e | c) K > 1."""
    rows = [{**row, "energy_level": row["energy_level"] or "low"} for row in rows]
    rows += [{"emotion": emotion, "energy_level": "high"}]
    table = learn_table(Utterance(id=str(i), audio="a.wav", **row) for i, row in enumerate(rows))
    likely = dict.fromkeys(table.labels, Fraction(1))
    for label in likely:
        for name, value in said.items():
            measured = [r[name] for r in rows if r["emotion"] == label and r.get(name) is not None]
            likely[label] *= Fraction(measured.count(value) + 1, len(measured) + len(VALUES[name]))
    exact = likely[emotion] / sum(likely.values())
    assert table.posterior(said)[emotion] == pytest.approx(float(exact))
    assert table.supports(said, emotion) == (exact * len(likely) > 1)


@given(tables(), claims, st.sampled_from(LABELS))
def test_claims_are_bent_no_further_than_needed(
    table: ClaimTable, said: dict[str, str], emotion: str
) -> None:
    bent = table.bend({**said, "gender": "male"}, emotion)
    assert bent.keys() == {*said, "gender"} and bent["gender"] == "male"
    if table.supports(said, emotion):
        assert bent == {**said, "gender": "male"}
    changed = [name for name in PROSODY if name in said and bent[name] != said[name]]
    for name in changed:
        row = {value: table.odds[name, value] for value in VALUES[name]}
        typical = {value: r[LABELS.index(emotion)] ** 2 / sum(r) for value, r in row.items()}
        assert typical[bent[name]] == max(typical.values())
    if changed:  # without the last change, nothing was supported yet
        assert not table.supports({**bent, changed[-1]: said[changed[-1]]}, emotion)


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


def test_a_table_lies_beside_a_model(tmp_path: Path) -> None:
    rows = [("sarcasm", "low"), ("agreement", "high")]
    table = learn_table(
        [
            Utterance(id=emotion, audio="a.wav", emotion=emotion, energy_level=level)
            for emotion, level in rows
        ],
        ["sarcasm", "agreement"],
    )
    assert ClaimTable.read(tmp_path) is None and ClaimTable.read("owner/model") is None
    table.write(tmp_path)
    assert ClaimTable.read(tmp_path) == table
    written = (tmp_path / TABLE_FILE).read_text(encoding="utf-8")
    bad_files = (
        written.replace('"agreement"', ""),
        written.replace("agreement", "sarcasm"),  # one label twice
        written.replace('"agreement"', "7"),
        written.replace("0.25", "0"),
        written.replace("0.25", "1.5"),
        written.replace("0.25", "NaN"),
        written.replace("0.25", '"0.25"'),
        *("[]", "{}", "", "{"),
    )
    for bad in bad_files:
        (tmp_path / TABLE_FILE).write_text(bad, encoding="utf-8")
        with pytest.raises(DataError, match=f"{TABLE_FILE}: not a table of claims .* train the reward model"):
            ClaimTable.read(tmp_path)


def test_what_supports_an_emotion() -> None:
    levels = {"sad": ("low", "slow"), "angry": ("high", "fast"), "happy": ("high", "normal")}
    table = learn_table(
        Utterance(id=emotion, audio="a.wav", emotion=emotion, energy_level=energy, speed_level=rate)
        for emotion, (energy, rate) in levels.items()
    )
    assert table.supports({"energy_level": "low"}, "sad")
    assert not table.supports({"energy_level": "low"}, "angry")
    for nothing in ({}, {"gender": "male"}, {"energy_level": "contradictory"}):
        assert not table.supports(nothing, "sad")
    facts = {"energy_level": "high", "speed_level": "fast", "gender": "male"}
    assert table.bend(facts, "angry") == facts
    assert table.bend(facts, "sad") == {**facts, "energy_level": "low"}
    assert table.bend({"gender": "male"}, "sad") == {"gender": "male"}
