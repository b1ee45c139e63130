from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from made_run import make_run, sample, step_row

from rlcore.errors import DataError
from rlcore.records.files import append_rows
from rlcore.report.server import Watch

Ask = Callable[..., Awaitable[tuple[int, Any]]]


def served(folders: list[Path], talk: Callable[[Ask, str], Awaitable[None]]) -> None:
    async def run() -> None:
        watch = Watch(folders, max_samples=1000)
        async with TestClient(TestServer(watch.application(), host="127.0.0.1")) as client:

            async def ask(path: str, **headers: str) -> tuple[int, Any]:
                async with client.get(path, headers=headers) as answer:
                    is_json = answer.content_type == "application/json"
                    return answer.status, await (answer.json() if is_json else answer.read())

            await talk(ask, f"/{watch.token}")

    asyncio.run(run())


def test_who_does_not_know_the_token_is_told_nothing(tmp_path: Path) -> None:
    async def talk(ask: Ask, own: str) -> None:
        assert (await ask(f"{own}/"))[0] == 200
        for path in ("/", "/head", "/wrong/", "/wrong/head", "/0/samples", f"{own}x/head", "/../etc/passwd"):
            assert (await ask(path))[0] == 404, path

    served([make_run(tmp_path / "rl")], talk)


def test_a_page_of_another_host_is_refused(tmp_path: Path) -> None:
    async def talk(ask: Ask, own: str) -> None:
        assert (await ask(f"{own}/head", Host="evil.example:80"))[0] == 403
        assert (await ask(f"{own}/head", Host="localhost:8000"))[0] == 200

    served([make_run(tmp_path / "rl")], talk)


def test_the_page_grows_with_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", num_steps=4)

    async def talk(ask: Ask, own: str) -> None:
        _, page = await ask(f"{own}/")
        assert b'"live":true' in page
        _, head = await ask(f"{own}/head")
        assert head["runs"][0]["state"]["step"] == 4
        append_rows(folder / "metrics.jsonl", [step_row(5)])
        append_rows(folder / "samples.jsonl", [sample(5, 1, text="new")])
        _, head = await ask(f"{own}/head")
        assert head["runs"][0]["state"]["step"] == 5
        _, metrics = await ask(f"{own}/0/metrics")
        assert metrics["steps"][-1] == 5
        _, samples = await ask(f"{own}/0/samples")
        assert samples["text"][-1] == "new" and samples["num_all"] == len(samples["text"])
        assert (await ask(f"{own}/1/metrics"))[0] == 404

    served([folder], talk)


def test_details_and_sound_of_the_samples_that_the_page_has(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl")

    async def talk(ask: Ask, own: str) -> None:
        assert (await ask(f"{own}/0/detail?at=0"))[0] == 404  # the page has asked for no samples yet
        await ask(f"{own}/0/samples")
        _, detail = await ask(f"{own}/0/detail?at=0")
        assert {claim["verdict"] for claim in detail["sample"]["claims"]} == {"right", "unmeasured"}
        assert len(detail["prompt"]["outline"]["wave"]) == len(detail["prompt"]["outline"]["pitch"])
        status, sound = await ask(f"{own}/0/sound?at=0")
        assert status == 200 and sound == (folder / "a.wav").read_bytes()
        assert (await ask(f"{own}/0/sound?at=0", Range="bytes=0-3")) == (206, b"RIFF")
        for wrong in ("at=0&i=1", "at=-1", "at=99999", "at=x", "at=0&i=../x"):
            assert (await ask(f"{own}/0/sound?{wrong}"))[0] == 404, wrong

    served([folder], talk)


def test_no_file_is_served_but_sound(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", num_steps=1)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    append_rows(folder / "samples.jsonl", [sample(1, 7, audio=str(secret))])

    async def talk(ask: Ask, own: str) -> None:
        _, samples = await ask(f"{own}/0/samples")
        assert (await ask(f"{own}/0/sound?at={len(samples['text']) - 1}"))[0] == 404

    served([folder], talk)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no run"):
        Watch([tmp_path], max_samples=10)
