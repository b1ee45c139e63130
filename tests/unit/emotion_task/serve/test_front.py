"""The front over HTTP, with everything real but the model: access, limits, and a sentence for whatever is
malformed."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from served import explain, front_app
from spoken import speech as voiced
from starlette.testclient import TestClient

from emotion_task.serve.ask import Ask

EXPLAIN, CHAT = "/v1/explain", "/v1/chat/completions"


def sound(waveform: np.ndarray, rate: int = 16000, form: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=form, subtype=subtype)
    return file.getvalue()


SPEECH = sound(voiced())


def chat(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": list(parts)}], **fields}


def spoken(recording: bytes = SPEECH) -> dict[str, Any]:
    data = base64.b64encode(recording).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(front_app(max_megabytes=2.0), base_url="http://localhost")


def reason(response: Any) -> str:
    message: str = response.json()["error"]["message"]
    assert message[0].isupper() or message.split(":")[0].split(".")[0].split("[")[0].islower()
    assert message.endswith((".", ".)")), message
    assert "Traceback" not in message and "/tmp" not in message
    return message


def test_a_recording_by_itself_and_in_a_form(client: TestClient) -> None:
    raw = client.post(f"{EXPLAIN}?gender=female", content=SPEECH).json()
    form = client.post(EXPLAIN, files={"file": SPEECH}, data={"gender": "female", "curves": "1"}).json()
    curves = form.pop("curves")
    assert raw == form
    assert (raw["model"], raw["label"], raw["levels"]["gender"]) == ("tiny", "sad", "female")
    verdicts = {claim["type"]: claim["verdict"] for claim in raw["claims"]}
    assert verdicts["gender"] == "right" and verdicts["speed_level"] == "unmeasured"
    assert raw["measured"]["f0_reliable"] and len(curves["peaks"]) == 800
    num_frames = int(raw["measured"]["duration_s"] / curves["frame_s"])
    assert len(curves["f0_hz"]) == len(curves["energy_db"]) == num_frames
    tracked = [hertz for hertz in curves["f0_hz"] if hertz is not None]
    assert np.median(tracked) == pytest.approx(raw["measured"]["f0_median_hz"], rel=0.02)


def test_a_chat_completion_as_openai_gives_it(client: TestClient) -> None:
    answer = client.post(CHAT, json=chat(spoken())).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"].endswith("<answer>sad</answer>")
    assert answer["usage"]["total_tokens"] == 130 and answer["explanation"]["label"] == "sad"
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"


def test_a_clients_own_question_and_sampling_reach_the_model() -> None:
    asks: list[Ask] = []

    async def remembered(ask: Ask) -> dict[str, Any]:
        asks.append(ask)
        return await explain(ask)

    client = TestClient(front_app(remembered, max_tokens=100), base_url="http://localhost")
    body = chat(spoken(), {"type": "text", "text": "Why?"}, temperature=0.7, max_tokens=400, seed=3)
    assert client.post(CHAT, json=body).status_code == 200
    assert client.post(CHAT, json=chat(spoken())).status_code == 200
    assert asks[0].messages == [
        {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "Why?"}]}
    ]
    assert asks[0].sampling == {"max_tokens": 100, "temperature": 0.7} and asks[0].seed == 3
    assert asks[1].messages is None and asks[1].sampling == {} and asks[1].recording == SPEECH


def silence(seconds: float, rate: int, channels: int, form: str) -> bytes:
    return sound(np.zeros((int(seconds * rate), channels)), rate, form)


def nan() -> bytes:
    return sound(np.where(np.arange(16000) == 500, np.nan, voiced()[:16000]), subtype="FLOAT")


@pytest.mark.parametrize(
    ("recording", "status", "says"),
    [
        (b"", 400, "empty"),
        (b"hello", 415, "not audio"),
        (b"\x1aE\xdf\xa3" + bytes(4000), 415, "not audio"),  # WebM, as browsers record by themselves
        (b"\x89PNG\r\n\x1a\n" + bytes(900), 415, "not audio"),
        (SPEECH[:44], 422, "empty|truncated"),
        (SPEECH[: len(SPEECH) // 2], 422, "truncated"),
        (sound(voiced(), form="FLAC")[:9000], 422, "truncated|lost|unreadable|holds"),
        (nan(), 422, "not finite"),
        (sound(np.zeros(16000)), 422, "silent"),
        (sound(voiced()[:1600]), 422, "too short"),
        (silence(31, 16000, 1, "FLAC"), 422, "too long"),
        (silence(3600, 8000, 1, "FLAC"), 422, "too long"),  # a hundred kilobytes that unpack to an hour
        (silence(1, 48000, 8, "FLAC"), 422, "silent"),
        (silence(1, 192000, 8, "FLAC"), 422, "8 channels of 192000 Hz"),
        (silence(1, 655350, 1, "FLAC"), 422, "655350 samples a second"),
        (sound(np.stack([voiced(), np.zeros_like(voiced())], 1)), 422, "channel"),
        (sound(voiced() * 20000, subtype="FLOAT"), 422, "scale"),
        (bytes(2_100_000), 413, "at most 2 MB"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_recordings_that_cannot_be_used(client: TestClient, recording: bytes, status: int, says: str) -> None:
    for response in (
        client.post(EXPLAIN, content=recording),
        client.post(EXPLAIN, files={"file": recording}),
        client.post(CHAT, json=chat(spoken(recording))),
    ):
        assert response.status_code == status, response.text
        assert re.search(says, reason(response))


def test_a_flac_that_does_not_tell_its_length_is_read_no_further_than_allowed(client: TestClient) -> None:
    flac = bytearray(silence(3600, 8000, 1, "FLAC"))
    flac[21] &= 0xF0  # STREAMINFO: 36 bits of the number of samples
    flac[22:26] = bytes(4)
    response = client.post(EXPLAIN, content=bytes(flac))
    assert response.status_code == 422 and "too long" in reason(response)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"messages": "\xff"}', "not JSON"),
        (b"[]", "JSON object"),
        (json.dumps({"model": "any"}), "messages"),
        (json.dumps({"messages": []}), "messages"),
        (json.dumps({"messages": ["hello"]}), r"messages\[0\]"),
        (json.dumps({"messages": [{"role": "robot", "content": "x"}]}), "role"),
        (json.dumps({"messages": [{"role": "user", "content": "no sound"}]}), "0 are there"),
        (json.dumps(chat(spoken(), spoken())), "2 are there"),
        (json.dumps(chat({"type": "image_url", "image_url": {"url": "x"}})), "input_audio is needed"),
        (json.dumps(chat({"type": "input_audio", "input_audio": {"data": "%%%"}})), "not base64"),
        (json.dumps(chat({"type": "input_audio", "input_audio": "x"})), "base64 is needed"),
        (json.dumps(chat(spoken(), {"type": "text", "text": "\ud800"})), "surrogate"),
        (json.dumps(chat(spoken(), {"type": "text", "text": "a" * 3000})), "at most 2000"),
        (json.dumps(chat(spoken(), temperature="hot")), "temperature"),
        (json.dumps(chat(spoken(), temperature=float("nan"))), "temperature"),
        (json.dumps(chat(spoken(), max_tokens=0)), "max_tokens"),
        (json.dumps(chat(spoken(), n=2)), "one answer"),
        (json.dumps(chat(spoken(), stream=True)), "stream"),
        (json.dumps(chat(spoken(), tools=[])), "tools"),
        (json.dumps(chat(spoken(), response_format={"type": "json_object"})), "response_format"),
        (json.dumps({"messages": [{"role": "assistant", "content": [spoken()]}]}), "last turn"),
    ],
)
def test_chats_that_cannot_be_read(client: TestClient, body: bytes | str, says: str) -> None:
    response = client.post(CHAT, content=body)
    assert response.status_code == 400, response.text
    assert re.search(says, reason(response))


def test_forms_that_cannot_be_read(client: TestClient) -> None:
    def posted(body: bytes, kind: str = "multipart/form-data; boundary=b") -> str:
        response = client.post(EXPLAIN, content=body, headers={"content-type": kind})
        assert response.status_code == 400, response.text
        return reason(response)

    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    assert "closing boundary" in posted(head + SPEECH)
    assert "no boundary" in posted(head, "multipart/form-data")
    assert "no part `file`" in posted(
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
    )
    assert "cannot be read" in posted(b"--b\r\nnonsense\r\n--b--\r\n")
    wrong = client.post(EXPLAIN, files={"file": SPEECH}, data={"gender": "robot"})
    assert wrong.status_code == 400 and "male or female" in reason(wrong)
    unknown = client.post(f"{EXPLAIN}?speed=fast", content=SPEECH)
    assert unknown.status_code == 400 and "no such field" in reason(unknown)


def test_other_addresses_and_methods(client: TestClient) -> None:
    assert client.get("/v2").status_code == 404
    assert client.get("/../../etc/passwd").status_code == 404
    assert client.get(EXPLAIN).status_code == 405
    assert client.delete("/health").status_code == 405


def test_with_a_token_nothing_is_told_to_others() -> None:
    client = TestClient(front_app(token="sesame"), base_url="http://example.org")
    for headers in (
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic sesame"},
        {"authorization": b"Bearer \xe9"},
    ):
        for path, post in ((EXPLAIN, True), (CHAT, True), ("/metrics", False), ("/v1/models", False)):
            response = client.request(
                "POST" if post else "GET", path, headers=headers, content=SPEECH if post else None
            )
            assert response.status_code == 401 and "Bearer TOKEN" in reason(response)
    right = {"authorization": "bearer sesame"}
    assert client.post(EXPLAIN, content=SPEECH, headers=right).status_code == 200
    assert client.get("/metrics", headers=right).status_code == 200
    assert client.get("/health").status_code == client.get("/").status_code == 200


def test_without_a_token_other_websites_get_nothing(client: TestClient) -> None:
    led_here = client.post(EXPLAIN, content=SPEECH, headers={"host": "evil.example:8000"})
    sent_here = client.post(EXPLAIN, content=SPEECH, headers={"origin": "https://evil.example"})
    assert led_here.status_code == sent_here.status_code == 403
    own = client.post(
        EXPLAIN, content=SPEECH, headers={"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}
    )
    assert own.status_code == 200


def test_more_requests_than_allowed_are_refused_and_slow_ones_given_up() -> None:
    async def scenario() -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def slow(ask: Ask) -> dict[str, Any]:
            begun.set()
            await may_end.wait()
            return await explain(ask)

        transport = httpx.ASGITransport(front_app(slow, max_requests=1, timeout_s=30.0))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.create_task(client.post(EXPLAIN, content=SPEECH))
            await begun.wait()
            second = await client.post(EXPLAIN, content=SPEECH)
            assert second.status_code == 429 and second.headers["retry-after"] == "1"
            may_end.set()
            assert (await first).status_code == 200
            assert (await client.post(EXPLAIN, content=SPEECH)).status_code == 200
        transport = httpx.ASGITransport(front_app(lambda ask: asyncio.sleep(60), timeout_s=0.05))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            late = await client.post(EXPLAIN, content=SPEECH)
            assert late.status_code == 504 and "0.05 s" in reason(late)

    asyncio.run(scenario())


def test_a_failure_is_a_number_in_the_log_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(ask: Ask) -> dict[str, Any]:
        raise RuntimeError("a secret of the house")

    client = TestClient(front_app(broken), base_url="http://localhost")
    response = client.post(EXPLAIN, content=SPEECH)
    assert response.status_code == 500 and "secret" not in response.text
    number = reason(response).split()[-1].rstrip(".")
    assert number in caplog.text and "a secret of the house" in caplog.text


def test_metrics_count_what_was_answered() -> None:
    client = TestClient(front_app(), base_url="http://localhost")
    client.post(EXPLAIN, content=SPEECH)
    client.post(EXPLAIN, content=b"hello")
    page = client.get("/metrics").text
    assert 'emotion_requests_total{path="/v1/explain",status="200"} 1.0' in page
    assert 'emotion_requests_total{path="/v1/explain",status="415"} 1.0' in page
    assert 'emotion_labels_total{label="sad"} 1.0' in page and "emotion_requests_waiting 0.0" in page
    assert "emotion_request_seconds_count 2.0" in page


def test_the_page_runs_nothing_but_its_own_scripts(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert "://" not in page.text and "style=" not in page.text and "onclick=" not in page.text
    script = client.get("/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert not any(word in script.text for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval("))
    assert client.head("/health").status_code == 200
