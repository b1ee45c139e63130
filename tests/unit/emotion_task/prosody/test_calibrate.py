from __future__ import annotations

from collections import Counter

import pytest

from emotion_task.prosody.calibrate import Calibration, apply_calibration, calibrate
from emotion_task.records import Utterance
from rlcore.errors import DataError


def utterance(
    index: int, *, pitch: float | None, level: float = -20.0, gender: str | None = "male", **fields
):
    measured = {"level_dbfs": level, "articulation_rate": 4.0 + index / 100, "syllables_from": "text"}
    if pitch is not None:
        measured["f0_median_hz"] = pitch
    return Utterance(id=str(index), audio="x.wav", gender=gender, measured=measured, **fields)


MEN = [utterance(i, pitch=100.0 + i, level=-40.0 + i) for i in range(30)]
WOMEN = [utterance(30 + i, pitch=200.0 + i, gender="female", level=-10.0 + i) for i in range(30)]


def test_tertiles_give_equal_thirds_within_each_gender():
    calibration = calibrate(MEN + WOMEN)
    for group in (MEN, WOMEN):
        levels = Counter(apply_calibration(calibration, one).pitch_level for one in group)
        assert levels == {"low": 10, "normal": 10, "high": 10}
    levels = [apply_calibration(calibration, one).energy_level for one in MEN + WOMEN]
    assert levels == ["low"] * 20 + ["normal"] * 20 + ["high"] * 20
    speeds = [apply_calibration(calibration, one).speed_level for one in MEN + WOMEN]
    assert (speeds[0], speeds[30], speeds[59]) == ("slow", "normal", "fast")


def test_a_level_is_the_same_order_as_its_value():
    calibration = calibrate(MEN)
    assert calibration.cuts["pitch"]["manifest/male"].low == pytest.approx(100 + 29 / 3)
    assert apply_calibration(calibration, utterance(0, pitch=90.0)).pitch_level == "low"
    assert apply_calibration(calibration, utterance(0, pitch=500.0)).pitch_level == "high"


def test_unvoiced_has_no_pitch_level_but_the_others():
    whispered = apply_calibration(calibrate(MEN), utterance(0, pitch=None, level=-40.0))
    assert whispered.pitch_level is None
    assert whispered.energy_level == "low"
    assert whispered.speed_level == "slow"


def test_too_few_samples_warn_and_give_null():
    calibration = calibrate(MEN + WOMEN[:5])
    assert any("female" in warning and "5" in warning for warning in calibration.warnings)
    assert apply_calibration(calibration, WOMEN[0]).pitch_level is None
    assert apply_calibration(calibration, WOMEN[0]).energy_level is not None


def test_unknown_gender_has_no_pitch_level_and_other_corpora_are_groups_of_their_own():
    nobody = [utterance(60 + i, pitch=110.0 + 5 * i, gender=None) for i in range(40)]
    calibration = calibrate(MEN + nobody)
    assert set(calibration.cuts["pitch"]) == {"manifest/male"}
    assert any("pitch: no levels for 40 utterances" in warning for warning in calibration.warnings)
    assert {apply_calibration(calibration, one).pitch_level for one in nobody} == {None}
    assert apply_calibration(calibration, utterance(0, pitch=110.0, gender=None)).pitch_level is None
    assert apply_calibration(calibration, utterance(0, pitch=110.0, dataset="other")).energy_level is None


def test_survives_its_file(tmp_path):
    calibration = calibrate(MEN + WOMEN[:3], (25.0, 75.0))
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration


def test_bad_files_and_percentiles_are_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json"):
        Calibration.load(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"percentiles": [1, 2]}')
    with pytest.raises(DataError, match=r"broken.json.*cuts"):
        Calibration.load(tmp_path / "broken.json")
    with pytest.raises(DataError, match="percentiles"):
        calibrate(MEN, (70.0, 30.0))


def normalised(peak_db, level_db, count=40):
    rows = []
    for i in range(count):
        one = utterance(i, pitch=100.0 + i, level=level_db(i))
        one.measured["peak"] = 10 ** (peak_db(i) / 20)
        rows.append(one)
    return rows


@pytest.mark.parametrize(
    ("peak_db", "level_db", "shared"),
    [
        (lambda i: -1 + 0.01 * (i % 2), lambda i: -24 + i / 5, "one peak"),
        (
            lambda i: -0.3 * (i % 2) if i % 20 else -9.0,
            lambda i: -24 + i / 5,
            "one peak",
        ),  # coded; two odd ones
        (lambda i: -12 + i / 5, lambda i: -23 + 0.02 * i, "one loudness"),
        (lambda i: -12 + i / 5, lambda i: -24 + i / 5, None),  # as recorded
        (lambda i: min(0, -4 + i / 5), lambda i: -24 + i / 5, None),  # half of them at full scale
    ],
)
def test_recordings_brought_to_one_peak_or_loudness_get_no_energy_level(peak_db, level_db, shared):
    rows = normalised(peak_db, level_db)
    calibration = calibrate(rows)
    levels = {apply_calibration(calibration, one).energy_level for one in rows}
    assert levels == ({None} if shared else {"low", "normal", "high"})
    told = [w for w in calibration.warnings if w.startswith("energy of manifest: no levels")]
    assert len(told) == (shared is not None) and all(shared in warning for warning in told)
    assert {apply_calibration(calibration, one).pitch_level for one in rows} == {"low", "normal", "high"}


def test_another_corpus_beside_a_normalised_one_keeps_its_energy_levels():
    flat = [one for one in normalised(lambda i: -1.0, lambda i: -24 + i / 5)]
    calibration = calibrate(
        [*flat, *(utterance(i, pitch=None, level=-30.0 + i, dataset="b") for i in range(30))]
    )
    assert set(calibration.cuts["energy"]) == {"b"}
