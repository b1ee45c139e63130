from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emotion_task.claims.support import learn_table
from emotion_task.cli import main
from emotion_task.facts import VALUES
from emotion_task.parsing import format_response
from emotion_task.records import Utterance, write_manifest
from emotion_task.reward_model.error_rates import (
    claim_errors,
    measure_errors,
    measured_rates,
    read_rates,
)
from emotion_task.reward_model.faults import CONTENT_FAULTS, FORM_FAULTS
from rlcore.errors import DataError

ANGRY = Utterance(
    id="a",
    audio="a.wav",
    split="train",
    text="Wait outside",
    text_emotion="sad",
    emotion="angry",
    gender="male",
    pitch_level="low",
    energy_level="high",
    speed_level="fast",
    intonation="falling",
)
SAD = replace(ANGRY, id="b", emotion="sad", energy_level="low", speed_level="slow")
HAPPY = replace(ANGRY, id="c", emotion="happy", pitch_level="high", speed_level="normal")
TABLE = learn_table([ANGRY, SAD, HAPPY])
GOOD = "A man speaks. The pitch is low and the energy is high. The rate is fast. The melody falls."


def said(think: str, answer: str = "angry") -> str:
    return format_response(think, answer)


def test_claims_are_sorted_by_what_is_wrong_with_them() -> None:
    response = said("A woman speaks. The pitch is normal. The energy is high or low. The melody rises.")
    assert claim_errors(response, ANGRY) == {
        "pitch_level": "one_step",
        "energy_level": "hedged",
        "speed_level": "missing",
        "intonation": "opposite",
        "gender": "opposite",
    }
    assert set(claim_errors(said(GOOD), ANGRY).values()) == {"right"}
    assert claim_errors(said(GOOD), Utterance(id="x", audio="x.wav")) == {}


@pytest.mark.parametrize(
    ("response", "found"),
    [
        (said(f"{GOOD} So angry."), set()),
        (said(f"{GOOD} So sad.", "sad"), {"text_only"}),
        (said(f"{GOOD} So happy.", "happy"), {"wrong_emotion", "wrong_emotion_right_claims"}),
        (said("The energy is low. The rate is slow. So sad.", "sad"), {"bent_claims"}),
        (said("The pitch is high. So happy.", "happy"), {"bent_claims"}),
        (said("The pitch is high. So fear.", "fear"), {"broken_schema"}),  # no label of the table
        (said("The energy is low. The rate is slow. So angry."), {"unsupported_emotion"}),
        (said(f"{GOOD} So sad.", "angry"), {"contradiction"}),
        (said(GOOD), {"unnamed_emotion"}),
        (said("So angry."), {"nothing_claimed", "unsupported_emotion"}),
        (said(f"So angry. {GOOD}"), {"early_label"}),
        (said(f"{GOOD} A man speaks. So angry."), {"repeated_sentence"}),
        (said(f'{GOOD} The words are "come in". So angry.'), {"wrong_quotation"}),
        (said(f'{GOOD} The words are "wait outside". So angry.'), set()),
        (said(f"{GOOD} Somebody laughs in the background. So angry."), {"invented_detail"}),
        (
            said(f"{GOOD} {'And on it goes for long. ' * 12} So angry."),
            {"long_prose", "invented_detail", "repeated_sentence"},
        ),
        (f"{GOOD} So angry.", {"broken_schema"}),
    ],
)
def test_each_error_of_an_answer_is_found(response: str, found: set[str]) -> None:
    rates = measure_errors([(ANGRY, response)], TABLE)
    shares = {**rates.emotion, **rates.form, **rates.beside}
    assert {name for name, share in shares.items() if share} == found


def test_rates_are_shares_of_the_answers() -> None:
    answers = [said(f"{GOOD} So angry."), said("The pitch is normal. So angry.")]
    rates = measure_errors([(ANGRY, answer) for answer in answers], TABLE)
    assert rates.num_answers == 2
    assert rates.claims["pitch_level"] == {"one_step": 0.5, "opposite": 0, "hedged": 0, "missing": 0}
    assert rates.claims["intonation"] == {"one_step": 0, "opposite": 0, "hedged": 0, "missing": 0.5}
    with pytest.raises(DataError, match="no answers"):
        measure_errors([], TABLE)


def test_the_measured_rates_name_faults_that_exist() -> None:
    rates = measured_rates()
    assert rates.num_answers > 10_000 and set(rates.claims) == set(VALUES)
    faults = {fault.__name__ for fault in (*CONTENT_FAULTS, *FORM_FAULTS)}
    assert {*rates.emotion, *rates.form} <= faults
    # The quickstart's policy mishears intonation most.
    assert rates.claims["intonation"]["one_step"] == max(row["one_step"] for row in rates.claims.values())


def test_the_command_writes_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path / "manifest.jsonl", [ANGRY, SAD, HAPPY])
    row = {"step": 1, "split": "train", "sample": 0, "media": {}, "reference": {}, "policy_version": 0}
    row |= {"tokens": 3, "finish_reason": "stop", "scores": {}}
    answers = [{"prompt": name, "text": said(f"{GOOD} So angry.")} for name in ("a", "b", "gone")]
    samples, out = tmp_path / "samples.jsonl", tmp_path / "rates.json"
    samples.write_text("".join(json.dumps(row | answer) + "\n" for answer in answers), encoding="utf-8")
    arguments = ["policy-errors", str(samples), "--manifest", str(tmp_path / "manifest.jsonl")]
    assert main([*arguments, "--out", str(out)]) == 0
    assert "| energy | 0.0 | 50.0 | 0.0 | 0.0 |" in capsys.readouterr().out
    rates = read_rates(out)
    assert rates.num_answers == 2 and rates.claims["energy_level"]["opposite"] == 0.5
    for bad in (json.loads(out.read_text()) | {"form": {}}, {"num_answers": 1}, []):
        out.write_text(json.dumps(bad), encoding="utf-8")
        with pytest.raises(DataError, match="not a file of `emotion policy-errors`"):
            read_rates(out)
    assert main([*arguments, "--step", "1"]) == 0
    for others, named in (
        (["--split", "eval"], "(split 'eval')"),
        (["--step", "0"], "(split 'train', step 0)"),
    ):
        assert main([*arguments, *others]) != 0
        assert f"no answer {named}" in capsys.readouterr().err
