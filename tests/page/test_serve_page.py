"""The service's page in Chromium, with a microphone that plays a file. All is real but the model's words."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from served import ANSWER, explain, front_app, listening
from spoken import speech

from emotion_task.serve.ask import Ask

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.page, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")]

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
SPITEFUL = (
    "<think>The pitch is low <img src=x onerror=alert(1)> 🙂. The voice is loud.</think><answer>sad</answer>"
)


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "call.wav"
    soundfile.write(path, speech(num_syllables=12), 16000)
    return path


@pytest.fixture(scope="module")
def browser(call: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            headless=True,
            args=[*FLAGS, f"--use-file-for-fake-audio-capture={call}"],
            viewport={"width": 1180, "height": 1000},
        )
        context.set_default_timeout(60_000)
        yield context
        context.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of the browser that must not say anything in its console."""
    page, said = browser.new_page(), []
    page.on(
        "console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.said = said
    yield page
    page.close()


def test_a_recording_from_the_microphone_is_explained_over_its_waveform(page: Any) -> None:
    with listening(front_app()) as address:
        page.goto(address)
        page.get_by_text("tiny, ready").wait_for()
        page.get_by_label("Voice").select_option("female")
        page.get_by_role("button", name="Record", exact=True).click()
        page.locator("#live-wave path").wait_for()
        page.locator("#live-time", has_text=re.compile(r"^[2-9]\.")).wait_for()
        page.get_by_role("button", name="Stop").click()
        page.locator("#wave .pitch").wait_for()

        assert page.locator("#label").inner_text() == "sad"
        rows = page.locator("#odds tr").all_inner_texts()
        assert [re.split(r"\s+", row)[0] for row in rows] == ["sad", "neutral", "fear", "happy"]
        assert rows[0].endswith("91 %")
        assert page.locator("#reasoning").inner_text() == re.sub("</?think>|<answer>.*", "", ANSWER)
        verdicts = page.eval_on_selector_all("mark", "all => all.map(m => [m.textContent, m.className])")
        assert ["woman", "right"] in verdicts and ["slow", "unmeasured"] in verdicts
        assert {"right", "wrong", "unmeasured"} >= {verdict for _, verdict in verdicts}
        # The curves lie over the waveform, from its beginning to its end.
        wave, pitch = (page.locator(f"#wave .{name}").bounding_box() for name in ("samples", "pitch"))
        assert wave["x"] <= pitch["x"] and pitch["x"] + pitch["width"] <= wave["x"] + wave["width"] + 1
        assert pitch["width"] > 0.5 * wave["width"] and pitch["height"] > 5
        assert page.locator("#wave .energy").bounding_box()["width"] > 0.95 * wave["width"]
        page.get_by_role("button", name="Play").click()
        page.get_by_role("button", name="Pause").wait_for()
        assert page.said == []


def test_a_file_and_the_next_one_by_keyboard_and_on_a_narrow_screen(
    page: Any, call: Path, tmp_path: Path
) -> None:
    async def by_length(ask: Ask) -> dict[str, Any]:
        return await explain(ask, SPITEFUL if len(ask.recording) < call.stat().st_size else ANSWER)

    soundfile.write(tmp_path / "short <b>.flac", speech(num_syllables=8), 16000)
    with listening(front_app(by_length)) as address:
        page.goto(address)
        page.set_viewport_size({"width": 390, "height": 800})
        page.locator("#file").set_input_files(call)
        page.get_by_text("call.wav").wait_for()
        page.locator("#file").set_input_files(tmp_path / "short <b>.flac")
        page.get_by_text("short <b>.flac").wait_for()
        # What a model writes is text.
        assert page.locator("img").count() == 0
        assert "<img src=x onerror=alert(1)> 🙂" in page.locator("#reasoning").inner_text()
        assert page.locator("mark").all_inner_texts() == ["pitch is low", "loud"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("mark").first.focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "loud"
        assert page.said == []


def test_what_is_refused_is_told_and_a_token_is_asked_for(page: Any, call: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (tmp_path / "note.wav").write_text("not a sound", encoding="utf-8")
    with listening(front_app(token="sesame")) as address:
        page.goto(address)
        page.locator("#file").set_input_files(call)
        page.get_by_text("Enter the token").wait_for()
        page.get_by_label("Token").fill("wrong")
        page.get_by_label("Token").press("Enter")
        page.get_by_text("not the service's").wait_for()
        page.get_by_label("Token").fill("sesame")
        page.get_by_label("Token").press("Enter")
        page.locator("#wave .pitch").wait_for()
        for name, says in (("silent.wav", "silent"), ("note.wav", "not audio")):
            page.locator("#file").set_input_files(tmp_path / name)
            page.get_by_role("alert").get_by_text(says).wait_for()
        # The browser tells of each refused request in its console, and of nothing else.
        assert all("Failed to load resource" in text for text in page.said)
    page.locator("#file").set_input_files(call)
    page.get_by_text("The service does not answer.").wait_for()
