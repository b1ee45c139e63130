from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_run import HOSTILE, make_run

from rlcore import cli
from rlcore.report.charts import charts_of
from rlcore.report.page import STATIC, in_script, sound_paths, write_page
from rlcore.report.run_data import Run


class Elements(HTMLParser):
    """Start tags and the text of scripts, as a browser would find them."""

    def __init__(self, text: str):
        super().__init__()
        self._open = ""
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts.append((self.tags[-1][1], data))


def page(folder: Path, **options: int) -> tuple[str, Elements]:
    write_page(folder / "report.html", [Run(folder, max_samples=1000)], **options)
    text = (folder / "report.html").read_text()
    return text, Elements(text)


def blob(elements: Elements, name: str) -> object:
    (packed,) = [data for attributes, data in elements.scripts if attributes.get("id") == name]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_the_page_asks_for_nothing_and_runs_no_script_but_its_own(tmp_path: Path) -> None:
    _, elements = page(make_run(tmp_path / "rl"))
    assert not [a for tag, a in elements.tags if tag != "link" and ("src" in a or "href" in a)]
    (policy,) = [a["content"] for tag, a in elements.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    programs = [data for attributes, data in elements.scripts if "type" not in attributes]
    for program in programs:
        digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert len(programs) > 10 and "uPlot" in programs[0]
    assert not re.search(
        r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", "".join(programs[1:])
    )


def test_hostile_answers_are_data_and_never_markup(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl", texts=HOSTILE)
    config = folder / "config.yaml"
    config.write_text(config.read_text() + f"evil: {json.dumps(HOSTILE[0])}\n")
    calm, _ = page(make_run(tmp_path / "calm"))
    text, elements = page(folder)
    assert [tag for tag, _ in elements.tags] == [tag for tag, _ in Elements(calm).tags]
    assert not any(mark in text for mark in ("<script>window", "onerror=", "<img", "<svg onload"))
    columns = blob(elements, "0/samples")
    assert set(HOSTILE) <= set(columns["text"])  # type: ignore[index]
    (head,) = [data for attributes, data in elements.scripts if attributes.get("id") == "head"]
    assert json.loads(head)["runs"][0]["config"]["evil"] == HOSTILE[0]


@pytest.mark.parametrize("text", [*HOSTILE, "<!--<script>", "\ud800"])
def test_json_in_a_script_element_ends_no_element(text: str) -> None:
    packed = in_script({"text": text})
    assert not re.search(r"[<>&\u2028\u2029]", packed)
    assert json.loads(packed) == {"text": text}


def test_head_and_figures_of_the_run(tmp_path: Path) -> None:
    head = Run(make_run(tmp_path / "rl"), max_samples=100).head()
    assert head["headline"]["metric"] == "accuracy" and head["headline"]["n"] == 30
    assert [figure["title"] for figure in head["figures"]][:1] == ["Recall by emotion"]
    assert head["outcome"] == "outcome" and head["alarms"] == [] and head["num_samples"] == 30 + 30 + 12 * 8


def test_a_task_that_cannot_be_loaded_leaves_a_page_without_its_figures(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("emotion_task.task:EmotionTask", "gone.away:Task"))
    head = Run(folder, max_samples=100).head()
    assert head["figures"] == [] and head["headline"]["n"] == 30
    assert "gone.away" in head["alarms"][0]["text"]
    page(folder)


def test_a_folder_with_metrics_alone_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n')
    _, elements = page(tmp_path)
    assert blob(elements, "0/metrics")["values"] == {"loss": [2.5, None]}  # type: ignore[index]
    assert blob(elements, "0/timeline")["spans"] == []  # type: ignore[index]


def test_charts_are_in_sections_and_none_is_lost() -> None:
    names = [
        "step",
        "time",
        "zeta",
        "eval/accuracy",
        "reward/outcome",
        "reward/outcome/part",
        "ptr/gate",
        "kl",
    ]
    charts = charts_of(names)
    assert [chart["metric"] for chart in charts] == [
        *("eval/accuracy", "reward/outcome", "ptr/gate", "kl", "reward/outcome/part", "zeta")
    ]
    assert {chart["metric"]: chart["kind"] for chart in charts}["ptr/gate"] == "step"
    assert charts[1]["title"] == "outcome" and charts[-1]["section"] == "More"


def test_recordings_become_part_of_the_page_when_asked(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "rl")
    _, elements = page(folder, num_sounds=1)
    sounds = blob(elements, "0/sounds")
    assert list(sounds) == [str(folder / "a.wav")]  # type: ignore[call-overload]
    data = sounds[str(folder / "a.wav")]  # type: ignore[index]
    assert base64.b64decode(data.split(",")[1]) == (folder / "a.wav").read_bytes()


def test_only_sound_is_played() -> None:
    assert sound_paths({"audio": ["/a.wav", "/etc/passwd", 3]}) == ["/a.wav"]
    assert sound_paths({"audio": "/b.FLAC"}) == ["/b.FLAC"] and sound_paths({}) == []


def test_the_charting_library_comes_with_its_licence() -> None:
    assert "MIT License" in (STATIC / "uplot" / "LICENSE").read_text()


def test_the_command_writes_one_file_for_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_run(tmp_path / "a" / "rl"), make_run(tmp_path / "b" / "rl", num_steps=9)
    out = tmp_path / "both.html"
    assert cli.main(["report", str(first), str(second), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    elements = Elements(out.read_text())
    (head,) = [data for attributes, data in elements.scripts if attributes.get("id") == "head"]
    assert [run["name"] for run in json.loads(head)["runs"]] == ["a/rl", "b/rl"]
    assert json.loads(head)["gain"]["n"] == 30
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
