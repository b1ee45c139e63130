"""The page of a run in a real browser: `make test-page`. Skipped without Chromium or playwright."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_run import EMOTIONS, HOSTILE, answer, make_run, sample, step_row

from rlcore.records.files import append_rows, read_rows
from rlcore.report.page import write_page
from rlcore.report.run_data import Run
from rlcore.report.server import Watch, serve

pytestmark = pytest.mark.page
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `page`)")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
VIEWS = ("overview", "curves", "samples", "timeline", "system")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=[*FLAGS.split(), "--disable-sync"]
        )
        yield browser
        browser.close()


class Page:
    """A page of the browser that notes all that it should not do."""

    def __init__(self, browser: Any, width: int = 1280, theme: str = "light"):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.faults: list[str] = []
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.faults.append(m.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.note(request.url))

    def note(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:", "http://127.0.0.1:")) or "/x.png" in url:
            self.faults.append(f"asked for {url}")

    def open(self, address: str, view: str = "overview") -> None:
        self.page.goto("about:blank")
        self.page.goto(f"{address}#{view}")
        self.page.wait_for_selector(f"body[data-ready={view.split('?')[0]}]")

    def until(self, expression: str) -> None:
        """Waits for JavaScript to be true. Playwright's own way evaluates text, which the page forbids."""
        deadline = time.monotonic() + 30
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(50)

    def texts(self, selector: str) -> list[str]:
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def count(self) -> int:
        """How many samples pass the filters, as the page says."""
        return int(self.page.locator(".count").inner_text().split(" of ")[0].replace(",", ""))

    def choose(self, name: str, value: str) -> int:
        field = self.page.locator(f"[data-filter={name}]")
        field.select_option(value) if field.evaluate("e => e.tagName") == "SELECT" else field.fill(value)
        return self.count()


def written(folder: Path, *others: Path, num_sounds: int = 0, max_samples: int = 20_000) -> str:
    path = folder / "report.html"
    write_page(
        path, [Run(each, max_samples=max_samples) for each in (folder, *others)], num_sounds=num_sounds
    )
    return path.as_uri()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hostile = (*HOSTILE, f"<think>\U0001f600! The pitch is high.</think><answer>{EMOTIONS[5 % 3]}</answer>")
    return make_run(tmp_path_factory.mktemp("line") / "rl", num_steps=120, texts=hostile)


@pytest.fixture(scope="module")
def address(run: Path) -> str:
    return written(run, num_sounds=3)


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (400, "dark")])
def test_every_view_is_drawn_without_an_error(browser: Any, address: str, width: int, theme: str) -> None:
    page = Page(browser, width, theme)
    for view in VIEWS:
        page.open(address, view)
        assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    page.open(address, "curves")
    page.page.mouse.wheel(0, 4000)
    page.page.wait_for_timeout(300)
    assert page.page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.faults == []


def test_the_headline_has_n_and_an_interval(browser: Any, address: str) -> None:
    page = Page(browser)
    page.open(address)
    assert page.texts(".big")[0].endswith("]") and "n = 30" in page.texts(".headline")[0]
    assert "gain" in page.texts(".before")[0] and page.texts(".pill") == ["✓ finished"]
    assert {"Recall by emotion", "Confusion, step 120"} <= set(page.texts(".figure h2"))
    assert page.page.locator(".chart[data-metric='ptr/gate'] canvas").count() == 1


def test_hostile_answers_are_shown_as_they_are(browser: Any, address: str) -> None:
    page = Page(browser)
    for number, text in enumerate(HOSTILE):
        page.open(address, f"samples?at=eval/120/eval-{number:04d}/0")
        page.page.wait_for_selector(".detail h2")
        page.page.locator(".detail summary").click()
        assert page.page.locator(".detail pre").last.evaluate("e => e.textContent") == text
    assert page.page.evaluate("window.hacked") is None
    assert page.page.locator("main img, main script, main style, main a[href^='javascript']").count() == 0
    assert page.faults == []


def test_claims_are_marked_where_they_stand(browser: Any, address: str) -> None:
    page = Page(browser)
    page.open(address, "samples?at=eval/120/eval-0005/0")
    page.page.wait_for_selector("mark.claim")
    assert page.texts("mark.claim.right") == ["The pitch is high"]  # an emoji before it moves nothing
    page.open(address, "samples?at=eval/120/eval-0010/0")
    page.page.wait_for_selector("mark.claim")
    assert page.texts("mark.claim.unmeasured") == ["the voice is loud"]
    assert page.page.locator(".speech-wave .speech-pitch").count() == 1


def test_a_recording_plays(browser: Any, address: str) -> None:
    page = Page(browser)
    page.open(address, "samples?at=eval/120/eval-0010/0")
    page.until("document.querySelector('.detail audio')?.duration > 0.4")
    assert page.faults == []


def test_filters_agree_with_the_rows(browser: Any, run: Path, address: str) -> None:
    rows = list(read_rows(run / "samples.jsonl"))
    right = [row for row in rows if row["scores"]["outcome"]["value"] == 1]
    page = Page(browser)
    page.open(address, "samples")
    assert page.count() == len(rows)
    assert page.choose("right", "right") == len(right)
    assert page.choose("split", "train") == sum(row["split"] == "train" for row in right)
    of_step = [row for row in right if row["split"] == "train" and row["step"] == 7]
    assert page.choose("step", "7") == len(of_step)
    assert page.choose("group", of_step[0]["prompt"]) == sum(
        r["prompt"] == of_step[0]["prompt"] for r in of_step
    )
    page.page.locator("button[type=reset]").click()
    page.until("!location.hash.includes('step')")
    page.page.wait_for_selector("body[data-ready=samples] .row")
    page.choose("by", "reward")
    assert page.choose("min", "1") == sum(row.get("reward", 0) >= 1 for row in rows)
    assert page.choose("q", "LOUD") == sum(
        row.get("reward", 0) >= 1 and "loud" in row["text"] for row in rows
    )
    assert page.choose("q", "no such words") == 0
    assert page.faults == []


def test_keys(browser: Any, address: str) -> None:
    page = Page(browser)
    page.open(address)
    keys = page.page.keyboard
    keys.press("3")
    page.page.wait_for_selector("body[data-ready=samples] .row.chosen")
    first = page.page.evaluate("location.hash")
    keys.press("j")
    keys.press("ArrowDown")
    third = page.page.evaluate("location.hash")
    assert third != first and "eval-0002" in third
    keys.press("k")
    assert "eval-0001" in page.page.evaluate("location.hash")
    keys.press("/")
    keys.type("loud 2")  # a field takes the letters, and no view changes
    assert page.page.locator("[data-filter=q]").input_value() == "loud 2"
    keys.press("Escape")
    keys.press("?")
    assert page.page.locator("#keys").evaluate("e => e.open")
    keys.press("Escape")
    keys.press("t")
    assert page.page.evaluate("document.documentElement.dataset.theme") == "dark"
    for number, view in enumerate(VIEWS, 1):
        keys.press(str(number))
        page.page.wait_for_selector(f"body[data-ready={view}]")
    for _ in range(3):
        keys.press("Tab")
    assert page.page.evaluate("document.activeElement !== document.body")
    assert page.faults == []


def test_a_click_on_a_curve_shows_the_samples_of_that_step(browser: Any, address: str) -> None:
    page = Page(browser)
    page.open(address)
    over = page.page.locator(".chart[data-metric='reward/mean'] .u-over")
    over.hover()
    page.until("document.querySelector('.readout')?.textContent.includes('step')")
    over.click()
    page.page.wait_for_selector("body[data-ready=samples] .row")
    step = int(page.page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('step')"))
    assert 50 < step < 70 and page.count() == 8


def test_a_drag_zooms_all_curves_and_a_button_shows_all_again(browser: Any, address: str) -> None:
    page = Page(browser)
    page.open(address)
    box = page.page.locator(".chart[data-metric='reward/mean'] .u-over").bounding_box()
    assert box is not None
    page.page.mouse.move(box["x"] + 20, box["y"] + 40)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 120, box["y"] + 40, steps=5)
    page.page.mouse.up()
    page.page.locator(".reset").click()
    assert page.page.locator(".reset").is_hidden() and "samples" not in page.page.evaluate("location.hash")


def test_ten_thousand_samples_are_filtered_with_few_elements(browser: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", num_steps=100, prompts_per_step=12, group=8, num_eval=200)
    page = Page(browser)
    page.open(written(folder), "samples")
    assert page.count() == 100 * 12 * 8 + 2 * 200 == 10_000
    assert page.page.locator(".row").count() < 80
    page.page.locator(".list").evaluate("e => { e.scrollTop = e.scrollHeight; }")
    page.until("document.querySelector('.list').textContent.includes('step 100')")
    assert page.page.locator(".row").count() < 80
    seconds = page.page.evaluate(
        """async () => { const samples = await report.load(0, 'samples'), begin = performance.now();
        const filters = {q: 'the pitch', right: 'right', sort: 'reward:down'};
        for (let i = 0; i < 20; i++) report.filterSamples(samples, filters);
        return (performance.now() - begin) / 20000; }"""
    )
    print(f"one filter over 10,000 samples: {1000 * seconds:.1f} ms")
    assert page.faults == []


def test_two_runs_stand_side_by_side(browser: Any, run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "second")
    page = Page(browser)
    page.open(written(other, run))
    assert (
        page.page.locator(".run-card").count() == 2 and "paired over 30 prompts" in page.texts(".between")[0]
    )
    page.open((other / "report.html").as_uri(), "samples?run=1&at=eval/120/eval-0010/0")
    page.page.wait_for_selector(".other")
    assert "second" in page.texts(".other")[0]
    page.open((other / "report.html").as_uri(), "system")
    assert any("num_steps" in text for text in page.texts("section:first-of-type th"))
    assert page.faults == []


def test_the_page_of_a_run_without_samples(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n')
    page = Page(browser)
    address = written(tmp_path)
    for view in VIEWS:
        page.open(address, view)
    assert page.faults == []


def test_a_page_that_watches_follows_the_run(browser: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", num_steps=10)
    ready, told, stop = threading.Event(), [], threading.Event()

    async def work() -> None:
        def started(address: str) -> None:
            told.append(address)
            ready.set()

        task = asyncio.create_task(serve(Watch([folder], max_samples=1000), 0, started))
        await asyncio.to_thread(stop.wait)
        task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert ready.wait(30)
        page = Page(browser)
        page.open(told[0], "samples?at=eval/10/eval-0003/0")
        page.page.wait_for_selector("mark.claim")
        page.until("document.querySelector('.detail audio')?.duration > 0.4")
        page.open(told[0])
        assert page.texts(".live") == ["live"]
        append_rows(folder / "metrics.jsonl", [step_row(11)])
        append_rows(folder / "samples.jsonl", [sample(11, 3, text=answer("sad"))])
        page.until("document.querySelector('.progress p').textContent.includes('step 11')")
        assert page.faults == []
    finally:
        stop.set()
        thread.join(30)
