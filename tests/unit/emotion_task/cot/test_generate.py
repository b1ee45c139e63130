"""Generation against a real HTTP server that writes good and bad traces, and counts what it is paid for."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_service import service

from emotion_task.cli import EPILOG, main
from emotion_task.cot.generate import CotConfig, EndpointError, generate
from emotion_task.cot.ledger import Budget, Ledger
from emotion_task.records import Utterance, choose, read_manifest, write_manifest
from rlcore.config import load_config
from rlcore.errors import ConfigError, DataError

pytestmark = pytest.mark.slow

WORDS = "I told you not to touch it"
THINK = (
    f'This voice is loud, and the pitch is high. "{WORDS}" is what is said, and there is no please in '
    "it, nor any thought of a reply. Somebody was asked before and did not listen. There is no fun in it "
    "and no worry, only a wall going up between two people who know each other. All of it speaks of anger."
)
GOOD = f"<think>{THINK}</think><answer>angry</answer>"
DATA_MD = Path(__file__).resolve().parents[4] / "docs" / "guides" / "data.md"
PRICE = {"input": 10.0, "output": 100.0}
COST = (300 * 10 + 100 * 100) / 1e6


def utterances(count: int) -> list[Utterance]:
    return [
        Utterance(
            id=f"u{i:03d}",
            audio=f"/corpus/a/u{i:03d}.wav",
            text=WORDS,
            emotion="angry",
            pitch_level="high",
            energy_level="high",
            speaker=f"s{i % 2}",
            dataset="mine",
            language="en",
            split="train" if i % 2 else "eval",
            measured={"duration_s": 3.6},
        )
        for i in range(count)
    ]


def reply(text: str | None = GOOD) -> tuple[int, dict[str, str], str]:
    usage = {"prompt_tokens": 300, "completion_tokens": 100}
    return 200, {}, json.dumps({"choices": [{"message": {"content": text}}], "usage": usage})


class Endpoint:
    """Answers with `texts` by attempt (the seed of the request), and counts."""

    def __init__(self, *texts: str):
        self.texts = texts or (GOOD,)
        self.bodies: list[Any] = []

    def __call__(self, path: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], str]:
        self.bodies.append(body)
        return reply(self.texts[body.get("seed", 0)])


def config(url: str, **settings: Any) -> CotConfig:
    return CotConfig(
        **{"model": "writer", "base_url": f"{url}/v1", "concurrency": 4, "retries": 0, **settings}
    )


def run(url: str, out: Path, count: int, **settings: Any):
    return generate(utterances(count), out, config(url, **settings), progress=False)


def test_traces_checks_and_files(tmp_path):
    endpoint = Endpoint(GOOD.replace("pitch is high", "pitch is low"), GOOD)
    with service(endpoint) as url:
        report = run(url, tmp_path, 3, price=PRICE)
        assert (report.num_accepted, report.num_requests, report.left_out) == (3, 6, {})
        assert report.cost_usd == pytest.approx(6 * COST)
        again = run(url, tmp_path, 3, price=PRICE)
    assert again.num_requests == 0 and len(endpoint.bodies) == 6
    assert again.cost_usd == pytest.approx(6 * COST)
    assert [u.trace for u in read_manifest(tmp_path / "manifest.jsonl")] == [GOOD] * 3
    rejected = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["attempt"]) for row in rejected] == [("u000", 0), ("u001", 0), ("u002", 0)]
    assert rejected[0]["reasons"] == ["contradiction: pitch_level said 'low', measured 'high'"]
    assert "pitch is low" in rejected[0]["text"]
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert statistics["rejected_traces"] == {"contradiction": 3}
    assert statistics["by_split"] == {"eval": 2, "train": 1} and statistics["hours"] == 0.003
    assert statistics["words"]["p50"] == len(THINK.split()) and statistics["completion_tokens"] == 600
    assert statistics["faithfulness"]["faithfulness/precision"] == 1.0
    body = endpoint.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("writer", 0.9, 600)


def test_no_trace_is_better_than_a_bad_one(tmp_path):
    endpoint = Endpoint("I cannot do that.", f"<think>Anger. {THINK}</think><answer>angry</answer>")
    with service(endpoint) as url:
        report = run(url, tmp_path, 2, extra={"max_tokens": None, "top_p": 0.5})
        # Without a seed two attempts are the same request, and still two.
        assert run(url, tmp_path / "b", 1, extra={"seed": None}).left_out == {"schema": 1}
        assert len(endpoint.bodies) == 4 + 2
    assert (report.num_accepted, report.left_out) == (0, {"opening": 2})
    assert "max_tokens" not in endpoint.bodies[0] and endpoint.bodies[0]["top_p"] == 0.5
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 4


def test_what_a_model_thinks_by_itself_is_no_part_of_its_trace(tmp_path):
    own = "<think>\nThe prose stands between <think> and </think>.\n</think>\n\n"
    with service(Endpoint(own + GOOD)) as url:
        assert run(url, tmp_path, 1).num_accepted == 1
    (kept,) = read_manifest(tmp_path / "manifest.jsonl")
    assert kept.trace == GOOD
    # Nothing else is taken away.
    texts = own + THINK, own + own + GOOD, f"Here it is: {GOOD}", own + GOOD + GOOD
    with service(Endpoint(*texts)) as url:
        report = run(url, tmp_path / "none", 1, attempts=len(texts))
    assert (report.num_requests, report.left_out) == (len(texts), {"schema": 1})


@pytest.mark.parametrize("text", [EPILOG, DATA_MD.read_text(encoding="utf-8")], ids=["help", "docs"])
def test_the_documented_command_tells_qwen3_not_to_think(text):
    (command,) = re.findall(r"emotion cot (.*Qwen3.*)", text.replace("\\\n", " "))
    overrides = [word for word in shlex.split(command) if "=" in word]
    config = load_config([], overrides, schema=CotConfig)
    assert config.extra == {"chat_template_kwargs": {"enable_thinking": False}}


def test_half_a_surrogate_pair_does_not_lose_an_answer(tmp_path):
    with service(Endpoint(f"{GOOD} \ud83d", GOOD)) as url:
        assert run(url, tmp_path, 2).num_accepted == 2
        assert run(url, tmp_path, 2).num_requests == 0
    rejected = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in rejected] == [f"{GOOD} \ufffd"] * 2


def test_other_checks_cost_nothing_and_another_model_does(tmp_path):
    endpoint = Endpoint()
    with service(endpoint) as url:
        assert run(url, tmp_path, 2, attempts=1).num_accepted == 2
        # The prompt names the bounds of length, so they are part of what was asked.
        assert run(url, tmp_path, 2, attempts=1, concurrency=1, timeout_s=5).num_requests == 0
        assert run(url, tmp_path, 2, attempts=1, model="other").num_requests == 2
        assert run(url, tmp_path, 3, attempts=1).num_requests == 1


def test_a_run_over_fewer_utterances_loses_no_finished_trace(tmp_path, capsys):
    """`--limit 5` in a finished folder, for a look, costs nothing that was paid for."""
    bad = "I cannot do that."
    with service(lambda path, headers, body: reply(bad if "u007" in str(body) else GOOD)) as url:
        whole = [replace(u, text=f"{WORDS} u007") if u.id == "u007" else u for u in utterances(10)]
        write_manifest(tmp_path / "in.jsonl", whole)
        files = [tmp_path / "out" / name for name in ("manifest.jsonl", "rejected.jsonl", "statistics.json")]

        def command(*more: str) -> int:
            words = f"cot {tmp_path}/in.jsonl --out {tmp_path}/out retries=0 base_url={url}/v1 concurrency=2"
            return main([*words.split(), *(["model=m"] if "model" not in str(more) else []), *more])

        assert command() == 0
        rows = [sorted(path.read_text().splitlines()) for path in files]
        assert len(rows[0]) == 9 and len(rows[1]) == 2
        capsys.readouterr()
        assert command("--limit", "3") == 0
        told = capsys.readouterr().out
        assert "9 traces for 10 utterances, 0 requests" in told and "are an earlier run's" in told
        assert [sorted(path.read_text().splitlines()) for path in files] == rows
        assert "warning" not in told
        # Kept, and told: what was written for a label that has been corrected since.
        corrected = [replace(u, emotion="sad") if u.id in ("u000", "u004") else u for u in whole]
        write_manifest(tmp_path / "in.jsonl", corrected)
        assert {"u000", "u004"}.isdisjoint(u.id for u in choose(whole, 3))
        assert command("--limit", "3", "attempts=1") == 0
        told = capsys.readouterr().out
        assert "warning: 2 of them were written for another emotion" in told
        assert "has now: u000, u004; a run over all of it writes them anew" in told
        # Nor does another list, or an endpoint that refuses another model.
        write_manifest(tmp_path / "in.jsonl", [replace(whole[0], id="new")])
        assert command() == 0
        assert "10 traces for 11 utterances, 1 requests" in capsys.readouterr().out
    write_manifest(tmp_path / "in.jsonl", whole[:3])
    with service(lambda *_: (400, {}, "no such model")) as url:
        assert command("model=other") == 1
    assert "none of 3 requests got an answer" in capsys.readouterr().err
    kept = {u.id: u.trace for u in read_manifest(files[0])}
    assert len(kept) == 10 and set(kept.values()) == {GOOD}


def test_an_earlier_trace_stays_where_a_new_one_fails_and_it_still_passes(tmp_path):
    with service(Endpoint(GOOD, "no")) as url:
        run(url, tmp_path, 2, attempts=1)
        report = run(url, tmp_path, 2, attempts=1, seed=1)  # answers "no"
        assert (report.num_accepted, report.num_kept, report.left_out) == (2, 2, {})
        longer = len(THINK.split()) + 1
        report = run(url, tmp_path, 2, attempts=1, min_words=longer)
        assert (report.num_accepted, report.left_out) == (0, {"length": 2})
        # A template's trace is none of an earlier run's.
        write_manifest(tmp_path / "manifest.jsonl", [replace(u, trace=f"{GOOD} ") for u in utterances(2)])
        assert run(url, tmp_path, 2, attempts=1, min_words=longer).num_accepted == 0
        assert run(url, tmp_path, 2, attempts=1).num_accepted == 2


def test_the_budget_is_never_passed(tmp_path):
    endpoint = Endpoint()
    with service(endpoint) as url:
        # Reserved: 600 output tokens at least; spent: 100. The cap holds for what is reserved.
        report = run(url, tmp_path, 20, price=PRICE, max_usd=0.2)
        assert 0 < report.num_accepted < 20 and report.cost_usd <= 0.2
        assert report.left_out == {"budget": 20 - report.num_accepted}
        assert len(endpoint.bodies) == report.num_accepted
        more = run(url, tmp_path, 20, price=PRICE, max_usd=5.0)
    assert more.num_accepted == 20 and len(endpoint.bodies) == 20
    with pytest.raises(ConfigError, match=r"max_usd.*without `price`"):
        CotConfig(model="m", max_usd=1.0)


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 400}},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
        {"usage": {"prompt_tokens": 1e300, "completion_tokens": 100}},
    ],
)
def test_tokens_that_nobody_counts_are_not_free(tmp_path, usage):
    answer = json.dumps({"choices": [{"message": {"content": GOOD}}], **usage})
    asked = []
    with service(lambda *_: (asked.append(1), (200, {}, answer))[1]) as url:
        # Set aside for each: 0.06 for 600 output tokens, and the bytes of its prompt; all of it counts.
        report = run(url, tmp_path, 20, price=PRICE, max_usd=0.30)
        assert len(asked) == report.num_accepted == report.num_uncounted == 4
        assert 4 * 0.06 < report.cost_usd <= 0.30 and report.left_out == {"budget": 16}
        again = run(url, tmp_path, 20, price=PRICE, max_usd=0.30)
    assert (again.num_requests, again.cost_usd) == (0, pytest.approx(report.cost_usd))
    statistics = json.loads((tmp_path / "statistics.json").read_text())
    assert (statistics["completion_tokens"], statistics["num_uncounted"]) == (0, 4)


def test_several_answers_to_one_request_are_set_aside_for(tmp_path):
    endpoint = Endpoint()
    with service(endpoint) as url:
        assert run(url, tmp_path, 1, price=PRICE, max_usd=0.30, extra={"n": 5}).left_out == {"budget": 1}
    assert endpoint.bodies == []


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"max_usd": 1.0, "price": {"input": 1.0}}, "null without `price` of input and output"),
        ({"max_usd": float("nan"), "price": PRICE}, "0 or more"),
        ({"max_usd": 1.0, "price": PRICE, "extra": {"max_tokens": None}}, "max_completion_tokens"),
    ],
)
def test_a_cap_that_cannot_bind_is_refused(settings, allowed):
    with pytest.raises(ConfigError, match=f"max_usd: got .*, must be .*{allowed}"):
        CotConfig(model="m", **settings)
    CotConfig(model="m", max_usd=1, price=PRICE, extra={"max_tokens": None, "max_completion_tokens": 9})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("timeout_s", value) for value in (0.0, -1.0, float("nan"), float("inf"), 1e30)),
        *(("temperature", value) for value in (-0.1, float("nan"), float("inf"))),
        *(("requests_per_minute", value) for value in (0.0, float("nan"))),
        ("retries", -1),
        *(("extra.max_tokens", value) for value in ("abc", 1.5, 0, -1, True, [1])),
        ("extra.max_completion_tokens", "abc"),
        *(("extra.n", value) for value in ("two", 0, float("nan"))),
        ("extra.stream", True),
    ],
)
def test_no_setting_that_cannot_be_sent_loses_a_request(tmp_path, key, value):
    name, _, field = key.partition(".")
    with pytest.raises(ConfigError, match=rf"{re.escape(key)}: got "):
        generate(
            utterances(1),
            tmp_path,
            config("http://localhost:9", **{name: {field: value} if field else value}),
            progress=False,
        )
    assert not (tmp_path / "requests.jsonl").exists() or not (tmp_path / "requests.jsonl").read_text()


@pytest.mark.parametrize("value", [{"top_p": float("nan")}, {"a": [float("inf")]}, {"a": {1, 2}}])
def test_what_is_no_json_is_not_sent(value):
    with pytest.raises(ConfigError, match=r"extra: got .*, must be JSON"):
        CotConfig(model="m", extra=value)
    CotConfig(model="m", extra={"n": None, "max_tokens": 5, "stop": ["a"], "stream": False})


def test_refusals_are_asked_for_again_and_lost_answers_are_not(tmp_path):
    state = {"mode": "refuse"}
    asked: Counter[str] = Counter()

    def answer(path, headers, body):
        asked[state["mode"]] += 1
        return {"refuse": (400, {}, "no"), "empty": reply(None), "good": reply()}[state["mode"]]

    with service(answer) as url:
        assert run(url, tmp_path, 2).left_out == {"refused": 2}
        state["mode"] = "empty"  # an answer without text was paid for all the same
        assert run(url, tmp_path, 2).left_out == {"lost": 2}
        state["mode"] = "good"
        again = run(url, tmp_path, 2)
        assert again.left_out == {"lost": 2}
        ((reason, count),) = again.lost.items()
        assert count == 2 and reason.startswith("ValueError: the endpoint answered no text")
        report = run(url, tmp_path, 2, ask_lost=True)
    assert report.num_accepted == 2 and asked == {"refuse": 2, "empty": 2, "good": 2} and report.lost == {}


@pytest.mark.parametrize("broken", ['{"choices": [{"mess', "<html>busy</html>", ""])
def test_an_answer_that_is_no_json_is_called_that(tmp_path, capsys, broken):
    """Not a time-out and not a kill, of which another answer here is lost."""
    write_manifest(tmp_path / "in.jsonl", utterances(3))
    ledger = Ledger(tmp_path / "out" / "requests.jsonl")
    ledger.write("gone", "asked", id="another", at_most_usd=0.0)
    ledger.close()
    answers = [reply(), (200, {}, broken), (200, {}, broken)]
    with service(lambda *_: answers.pop(0)) as url:
        words = f"cot {tmp_path}/in.jsonl --out {tmp_path}/out model=m concurrency=1 base_url={url}/v1"
        assert main(words.split()) == 0
    said = capsys.readouterr().out
    shown = broken or "(nothing)"
    assert "2 lost" in said and "timed out" not in said
    assert re.search(
        rf"lost: 2 ValueError: \S+ answered no JSON \(.*\): {re.escape(shown)}; 1 under way", said
    )
    assert "1 under way when an earlier run was killed. ask_lost=true asks again" in said


@pytest.mark.parametrize(
    "error",
    [
        *(httpx.ConnectTimeout, httpx.InvalidURL, httpx.LocalProtocolError, httpx.PoolTimeout),
        *(httpx.ProxyError, httpx.UnsupportedProtocol),
    ],
)
def test_what_was_never_sent_is_refused_and_costs_nothing(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error("not sent")

    # Enough for two requests: nothing may stay set aside for the first two.
    settings = {"price": PRICE, "max_usd": 0.2}
    with service(Endpoint()) as url:
        with monkeypatch.context() as patch:
            patch.setattr(httpx.Client, "stream", fail)
            assert run(url, tmp_path, 2, **settings).left_out == {"refused": 2}
        assert run(url, tmp_path, 2, **settings).num_accepted == 2


@pytest.mark.parametrize("status", [408, 504])
def test_a_time_out_on_the_way_may_have_been_paid_for(tmp_path, status):
    asked = []
    with service(lambda *_: (asked.append(1), (status, {}, ""))[1]) as url:
        assert run(url, tmp_path, 2, retries=3, price=PRICE).left_out == {"lost": 2}
        assert run(url, tmp_path, 2, retries=3, price=PRICE).left_out == {"lost": 2}
    assert len(asked) == 2
    ledger = Ledger(tmp_path / "requests.jsonl")
    assert len(ledger.open) == 2 and ledger.spent() > 2 * 600 * PRICE["output"] / 1e6
    ledger.close()


def test_an_address_has_a_scheme():
    for address in ("localhost:8000/v1", "api.openai.com/v1", "ftp://localhost/v1", "http:///v1"):
        with pytest.raises(ConfigError, match=r"base_url: got .*, must be .* http://localhost:8000/v1"):
            CotConfig(model="m", base_url=address)


def test_a_lost_answer_does_not_show_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("COT_KEY", "sk-s3cret")
    with (
        service(lambda path, headers, body: (200, {}, json.dumps(headers["authorization"]))) as url,
        pytest.raises(EndpointError, match=r"ValueError: .* no completion: .*Bearer \[secret\]") as error,
    ):
        run(url, tmp_path, 100, api_key_env="COT_KEY")
    assert "s3cret" not in str(error.value) + (tmp_path / "requests.jsonl").read_text()


def test_it_gives_up_where_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("COT_KEY", "sk-s3cret")
    with (
        service(lambda path, headers, body: (401, {}, f"bad key {headers['authorization']}")) as url,
        pytest.raises(EndpointError, match=r"9 requests in a row got no answer; the last: .*401.*\[secret\]"),
    ):
        run(url, tmp_path, 100, api_key_env="COT_KEY")
    assert "s3cret" not in (tmp_path / "requests.jsonl").read_text()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        generate(utterances(1), tmp_path, CotConfig(model="m"), progress=False)


def test_a_command_that_got_no_answer_at_all_fails_and_says_why(tmp_path, capsys):
    write_manifest(tmp_path / "in.jsonl", utterances(3))
    answers = [(400, {}, "no such model"), (400, {}, "no such model"), reply()]

    def command(url: str, count: int) -> int:
        words = f"cot {tmp_path}/in.jsonl --out {tmp_path}/{count} --limit {count} model=m concurrency=1"
        return main([*words.split(), "retries=0", "attempts=1", f"base_url={url}/v1"])

    with service(lambda *_: answers.pop(0)) as url:
        assert command(url, 1) == 1
        assert re.search("none of 1 requests got an answer; .* 400: no such model", capsys.readouterr().err)
        assert command(url, 2) == 0  # one of two
    assert "1 refused" in capsys.readouterr().out


def test_the_ledger_after_a_kill(tmp_path):
    path = tmp_path / "requests.jsonl"
    ledger = Ledger(path)
    with pytest.raises(DataError, match="another run writes it"):
        Ledger(path)
    ledger.write("a", "asked", id="1", at_most_usd=0.5)
    ledger.write("a", "answered", id="1", text="\u00e9\u2028x", cost_usd=0.1)
    ledger.write("b", "asked", id="2", at_most_usd=0.5)
    ledger.write("c", "asked", id="3", at_most_usd=0.5)
    ledger.write("c", "refused", reason="no")
    ledger.close()
    with path.open("a") as file:
        file.write('{"key": "b", "event": "answe')
    found = Ledger(path)
    assert found.answers["a"]["text"] == "\u00e9\u2028x" and list(found.open) == ["b"]
    assert found.spent() == pytest.approx(0.6)
    found.write("b", "asked", id="2", at_most_usd=0.5)
    found.write("b", "answered", id="2", text="later", cost_usd=0.2)
    found.close()
    again = Ledger(path)
    assert again.answers["b"]["text"] == "later" and not again.open
    assert again.spent() == pytest.approx(0.1 + 0.5 + 0.2)
    again.close()
    path.write_text('{"key": "a"}\n')
    with pytest.raises(DataError, match=r"requests.jsonl:1: not a line of a ledger"):
        Ledger(path)


def test_budget():
    budget = Budget(1.0, 0.4)
    assert budget.reserve(0.3) and budget.reserve(0.3) and not budget.reserve(0.1)
    budget.settle(0.3, 0.1)
    assert budget.reserve(0.2) and not budget.reserve(0.01)
    assert Budget(None, 100.0).reserve(1e9)


def test_ids_must_be_one_each(tmp_path):
    with pytest.raises(DataError, match="1 ids more than once: u000"):
        generate(utterances(1) * 2, tmp_path, CotConfig(model="m"), progress=False)
