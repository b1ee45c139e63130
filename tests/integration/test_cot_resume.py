"""Generation of traces in a process of its own: killed in the middle, and against a real vLLM server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from local_service import service

from emotion_task.cli import main
from emotion_task.records import Utterance, read_manifest, write_manifest

pytestmark = pytest.mark.integration

WORDS = "I told you not to touch it"
THINK = f'This voice is loud. "{WORDS}" is what is said. All of it speaks of anger.'
TRACE = f"<think>{THINK}</think><answer>angry</answer>"


def utterances(count: int) -> list[Utterance]:
    return [
        Utterance(
            id=f"u{i:02d}",
            audio=f"/corpus/u{i:02d}.wav",
            text=f"{WORDS}, number {i}",
            emotion="angry",
            energy_level="high",
        )
        for i in range(count)
    ]


def command(manifest: Path, out: Path, url: str) -> list[str]:
    settings = ["model=writer", f"base_url={url}/v1", "concurrency=3", "attempts=1", "min_words=5"]
    return ["cot", str(manifest), "--out", str(out), *settings]


def test_after_sigkill_nothing_is_paid_for_twice(tmp_path):
    """Two processes are killed in the midst of requests, a third finishes: no key is seen twice."""
    seen: Counter[str] = Counter()
    enough, go_on = threading.Event(), threading.Event()
    lock = threading.Lock()
    go_on.set()

    def answer(path, headers, body):
        with lock:
            seen[body["messages"][1]["content"]] += 1
            if len(seen) in (20, 40) and seen.total() == len(seen):
                go_on.clear()
                enough.set()
        go_on.wait(60)  # so that requests are under way when the process is killed
        usage = {"prompt_tokens": 300, "completion_tokens": 100}
        return 200, {}, json.dumps({"choices": [{"message": {"content": TRACE}}], "usage": usage})

    manifest, out = tmp_path / "annotated.jsonl", tmp_path / "cot"
    write_manifest(manifest, utterances(60))
    with service(answer) as url:
        for _ in range(2):
            enough.clear()
            process = subprocess.Popen(
                [sys.executable, "-m", "emotion_task.cli", *command(manifest, out, url)],
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            assert enough.wait(120)
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
            go_on.set()
        assert 40 <= len(seen) <= 45
        assert main(command(manifest, out, url)) == 0
    assert max(seen.values()) == 1 and len(seen) >= 54
    kept = read_manifest(out / "manifest.jsonl")
    # What was under way at a kill is lost, one to three requests each time, and nothing else.
    assert 54 <= len(kept) <= 58 and all(u.trace == TRACE for u in kept)
