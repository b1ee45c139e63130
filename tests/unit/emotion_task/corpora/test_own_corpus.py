"""A corpus of the user's own is one file, outside the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emotion_task.config import PipelineConfig
from emotion_task.corpora import corpus_names, load_corpus
from emotion_task.pipeline.line import Pipeline
from emotion_task.records import read_manifest
from rlcore.config import load_config
from rlcore.errors import ConfigError

QUICKSTART = Path(__file__).resolve().parents[4] / "emotion_task" / "configs" / "quickstart.yaml"
CALLS = """
from emotion_task.corpora import Corpus
from emotion_task.records import Utterance


def load_calls(root, *, num_calls=2):
    return [Utterance(id=f"call-{i}", audio=f"{root}/{i}.wav", split="train") for i in range(num_calls)]


def make_calls(folder, *, seed, num_workers, num_calls=2):
    folder.mkdir(parents=True)
    (folder / "manifest.jsonl").write_text(f'{{"id": "{seed}-{num_calls}", "audio": "a.wav"}}\\n')
    return folder / "manifest.jsonl"


CORPUS = Corpus(load=load_calls)
MADE = Corpus(load=load_calls, make=make_calls)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "own_corpora"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "calls.py").write_text(CALLS)
    monkeypatch.syspath_prepend(tmp_path / "site")


def pipeline(tmp_path: Path, *overrides: str) -> Pipeline:
    own = [
        f"run_dir={tmp_path / 'run'}",
        "corpus.root=/calls",
        "corpus.args={num_train: null, num_eval: null}",
    ]
    return Pipeline(load_config([QUICKSTART], [*own, *overrides], PipelineConfig))


def test_it_is_loaded_by_its_target() -> None:
    assert [u.id for u in load_corpus("own_corpora.calls:CORPUS", "/calls", num_calls=3)] == [
        *("call-0", "call-1", "call-2"),
    ]
    with pytest.raises(ConfigError, match=r"it does not take \['calls'\]; allowed are num_calls"):
        load_corpus("own_corpora.calls:CORPUS", "/calls", calls=3)


def test_a_line_takes_it_as_its_corpus(tmp_path: Path) -> None:
    line = pipeline(tmp_path, "corpus.name=own_corpora.calls:CORPUS", "corpus.args.num_calls=4")
    line.check()
    listed = line.line()[0].work(False)
    assert [(u.id, u.audio) for u in read_manifest(listed.manifest)][3] == ("call-3", "/calls/3.wav")
    with pytest.raises(ConfigError, match=r"does not take \['calls'\]; allowed are num_calls"):
        pipeline(tmp_path, "corpus.name=own_corpora.calls:CORPUS", "corpus.args.calls=4").check()


def test_a_line_makes_it(tmp_path: Path) -> None:
    line = pipeline(tmp_path, "corpus.name=own_corpora.calls:MADE", "corpus.args.num_calls=4", "seed=7")
    line.check()
    assert [u.id for u in read_manifest(line.line()[0].work(False).manifest)] == ["7-4"]


def test_what_is_no_corpus_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'own_corpora.calls:Utterance': is no emotion_task.corpora.Corpus"
    ):
        load_corpus("own_corpora.calls:Utterance", "/calls")
    with pytest.raises(ConfigError, match=r"own_corpora.calls' has no 'Calls'"):
        load_corpus("own_corpora.calls:Calls", "/calls")
    with pytest.raises(ConfigError, match=rf"'reading': not known; allowed are {', '.join(corpus_names())}"):
        load_corpus("reading", "/calls")


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    (tmp_path / "documented_calls.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "calls").mkdir()
    for name in ("03_ang", "07_neu", "07_odd"):
        (tmp_path / "calls" / f"{name}.wav").touch()
    found = load_corpus("documented_calls:CORPUS", tmp_path)
    assert [(u.id, u.emotion, u.speaker, u.split) for u in found] == [
        ("calls-03_ang", "angry", "calls-03", "train"),
        ("calls-07_neu", "neutral", "calls-07", "eval"),
    ]
