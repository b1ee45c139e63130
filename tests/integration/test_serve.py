"""`emotion serve` as a user starts it: the guide's examples, a replica that is killed, and a clean end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import soundfile
from serving import emotion_serve
from spoken import speech
from tiny_models import make_qwen2_audio, make_text, teach

from emotion_task.cli import main
from emotion_task.labels import LABELS_FILE
from emotion_task.prompt import emotion_messages
from rlcore.models.chat_template import format_prompt
from rlcore.models.hf_model import load_processor

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "serve.md"
LABELS = ("happy", "sad", "angry")


def example(language: str, contains: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if contains in block)
    return found


def ran(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "NO_PROXY": "*"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def replicas_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [
        p
        for p in psutil.Process(process.pid).children(recursive=True)
        if "explainer" in p.name() + p.cmdline()[0]
    ]


def test_the_guides_examples_a_killed_replica_and_a_clean_end(tmp_path: Path) -> None:
    model = make_qwen2_audio(tmp_path / "model")
    prompt = format_prompt(load_processor(str(model)), emotion_messages(LABELS))
    said = "the speaker has a high pitch and fast speech"
    teach(model, prompt, {i: f"<think>{said}</think><answer>sad</answer>" for i in range(2)})
    (model / LABELS_FILE).write_text(json.dumps(LABELS), encoding="utf-8")
    soundfile.write(tmp_path / "call.wav", speech(num_syllables=9), 16000)
    log = tmp_path / "serve.log"
    with emotion_serve(str(model), log, "max_requests=40", "timeout_s=240") as (address, process):

        def of_guide(text: str) -> str:
            return text.replace("http://127.0.0.1:8000", address)

        lines = ran(["bash", "-c", of_guide(example("bash", "?gender=female"))], tmp_path)
        first, second = map(json.loads, lines.replace("}{", "}\n{").splitlines())
        assert first["label"] == second["label"] == "sad" and first["levels"]["gender"] == "female"
        assert first["probabilities"]["sad"] > 0.9 and second["measured"]["syllables_from"] == "text"
        chat = json.loads(ran(["bash", "-c", of_guide(example("bash", "input_audio"))], tmp_path))
        assert chat["choices"][0]["message"]["content"] == first["answer"]
        printed = ran([sys.executable, "-c", of_guide(example("python", "import httpx"))], tmp_path)
        assert printed.startswith("sad {'happy'") and "pitch_level high unmeasured high pitch" in printed
        pytest.importorskip("openai")
        printed = ran([sys.executable, "-c", of_guide(example("python", "import OpenAI"))], tmp_path)
        assert printed.endswith("</answer>\nsad\n")

        recording = (tmp_path / "call.wav").read_bytes()
        client = httpx.Client(base_url=address, timeout=280, trust_env=False)
        with ThreadPoolExecutor(16) as pool:
            asked = [pool.submit(client.post, "/v1/explain", content=recording) for _ in range(16)]
            (replica,) = replicas_of(process)
            replica.kill()
            assert {answer.result().status_code for answer in asked} == {200}
        deadline = time.monotonic() + 120
        while client.get("/health").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert client.post("/v1/explain", content=b"hello").status_code == 415
        assert 'path="/v1/explain",status="200"} 19.0' in client.get("/metrics").text

        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert log.read_text(encoding="utf-8").splitlines()[-1] == "ended"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("host=0.0.0.0", "EMOTION_SERVE_TOKEN"),
        ("port=0", "1 to 65535"),
        ("porto=1", "did you mean port"),
        ("host=no.such.host.invalid token_env=PATH", "cannot be listened on"),
        ("labels=[Sad]", "small letters"),
    ],
)
def test_settings_that_cannot_be_served_are_told_at_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    says: str,
) -> None:
    monkeypatch.delenv("EMOTION_SERVE_TOKEN", raising=False)
    model = str(make_qwen2_audio(tmp_path / "model"))
    assert main(["serve", model, *setting.split()]) == 2
    assert says in capsys.readouterr().err


def test_a_model_for_text_alone_cannot_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(make_text(tmp_path / "text"))]) == 2
    assert "hears nothing" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "nowhere")]) == 2
