"""Benchmarks as a task: prompts of several sets, what a model hears, and the figures of its answers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import benchmark_layouts as layouts
import numpy as np
import pytest
import soundfile
from tiny_models import make_qwen2_audio

from emotion_task.audio_window import model_waveform
from emotion_task.benchmarks.asking.answers import Answer, _ask, _keep, _keys, answers_file
from emotion_task.benchmarks.asking.evaluate import _run_config, _short
from emotion_task.benchmarks.asking.report import as_markdown, set_report
from emotion_task.benchmarks.asking.task import BenchmarkTask, heard_waveform
from emotion_task.benchmarks.reading.questions import Benchmark, Question, Questions
from emotion_task.cli import main
from emotion_task.records import Utterance, write_manifest
from rlcore.config import RunConfig
from rlcore.errors import ConfigError, DataError, StoppedError
from rlcore.records.files import read_rows, write_rows
from rlcore.records.signals import StopFlag
from rlcore.types import Completion, Group, Prompt


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_qwen2_audio(tmp_path_factory.mktemp("qwen2_audio")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    layouts.make_mmau(root / "mmau")
    for stem in ("KL_a01", "KL_n02", "DC_sa02"):
        layouts.sound(root / "savee" / f"{stem}.wav", seconds=4.0 if stem == "KL_a01" else 0.5)
    return root


def task(model: str, data: Path, **arguments) -> BenchmarkTask:
    sets = [
        {"benchmark": "savee", "data": str(data / "savee")},
        {"benchmark": "mmau", "data": str(data / "mmau")},
    ]
    return BenchmarkTask(arguments.pop("sets", sets), model, **arguments)


def answer(text: str) -> Answer:
    return Answer(text=text, num_prompt_tokens=20, num_tokens=4, seconds=0.5, was_cut=False)


def test_prompts_of_several_sets(model: str, data: Path) -> None:
    built = task(model, data)
    prompts = built.prompts("eval")
    assert [prompt.id for prompt in prompts] == [
        "savee/savee-KL-a01",
        "savee/savee-KL-n02",
        "mmau/3fe64f3d",
        "mmau/72fb5481",
    ]
    assert prompts[0].text.count("<|AUDIO|>") == 1 and "neutral, sad, angry." in prompts[0].text
    assert "A. Man\nB. Woman" in prompts[2].text
    assert [prompt.media["trim"] for prompt in prompts] == [True, True, False, False]
    assert not any(p.media["trim"] for p in task(model, data, style="plain").prompts("eval"))
    with pytest.raises(ConfigError, match="a benchmark has the split eval alone"):
        built.prompts("train")
    two = task(model, data, sets=[{"benchmark": "mmau", "data": str(data / "mmau")}] * 2)
    assert [each.name for each in two.sets] == ["mmau-1", "mmau-2"]


def test_a_limit_chooses_by_id_and_a_larger_one_keeps_the_choice(model: str, data: Path) -> None:
    one = {prompt.id for prompt in task(model, data, limit=1).prompts("eval")}
    assert len(one) == 2 and one < {prompt.id for prompt in task(model, data, limit=2).prompts("eval")}
    with pytest.raises(ConfigError, match="limit: got 0"):
        task(model, data, limit=0)
    with pytest.raises(ConfigError, match="split: got 'test'"):
        task(model, data, sets=[{"benchmark": "savee", "data": str(data), "split": "test"}]).prompts("eval")


def test_scenes_are_heard_whole_and_mixed(model: str, data: Path, tmp_path: Path) -> None:
    built = task(model, data)
    media = built.load_media(built.prompts("eval")[2])
    samples, rate = soundfile.read(layouts.MMAU[0]["audio_id"].replace("./", f"{data}/mmau/"))
    assert samples.shape[1] == 2 and media["sampling_rate"] == rate == 16000
    np.testing.assert_allclose(media["audio"][0], samples.mean(axis=1), atol=1e-4)

    extractor = SimpleNamespace(sampling_rate=16000, chunk_length=3)
    soundfile.write(tmp_path / "long.wav", np.concatenate([np.zeros(8000), np.full(192000, 0.1)]), 48000)
    heard = heard_waveform(tmp_path / "long.wav", extractor, trim=False)
    assert len(heard) == 3 * 16000 and abs(heard[:2000]).max() < 1e-6  # its silence is not cut, its end is
    with pytest.raises(DataError, match=r"none\.wav: unreadable audio"):
        heard_waveform(tmp_path / "none.wav", extractor, trim=False)


def test_speech_is_heard_as_in_training(tmp_path: Path) -> None:
    extractor = SimpleNamespace(sampling_rate=16000, chunk_length=3)
    noise = 0.1 * np.random.default_rng(0).standard_normal(48000)
    soundfile.write(tmp_path / "a.wav", np.concatenate([np.zeros(24000), noise, np.zeros(24000)]), 48000)
    heard = heard_waveform(tmp_path / "a.wav", extractor, trim=True)
    np.testing.assert_allclose(heard, model_waveform(tmp_path / "a.wav", extractor), atol=1e-6)
    assert 16000 <= len(heard) < 18000
    untrimmed = SimpleNamespace(sampling_rate=16000, chunk_length=3, trim_silence=False)
    assert len(heard_waveform(tmp_path / "a.wav", untrimmed, trim=True)) == 32000


class OneBadRecording:
    """Refuses every batch that has the prompt `bad`, as an engine's worker does."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def generate(self, prompts, *, greedy=False, should_stop=lambda: False):
        self.asked.append([prompt.id for prompt in prompts])
        if "bad" in self.asked[-1]:
            raise DataError("bad.wav: unreadable audio")
        return (
            None if should_stop() else [Group(prompt=p, prompt_token_ids=(), completions=()) for p in prompts]
        )


def test_a_recording_that_cannot_be_decoded_costs_its_own_answer(caplog: pytest.LogCaptureFixture) -> None:
    prompts = [Prompt(id=id, text="") for id in ("a", "b", "bad", "c", "d")]
    controller, stop = OneBadRecording(), StopFlag()
    assert [group.prompt.id for group in _ask(controller, prompts, stop)] == ["a", "b", "c", "d"]
    assert controller.asked[1:] == [["a", "b"], ["bad", "c", "d"], ["bad"], ["c", "d"]]
    assert "bad: not answered: bad.wav: unreadable audio" in caplog.text
    stop.request("SIGTERM")
    with pytest.raises(StoppedError, match="stopped by SIGTERM; the same command goes on"):
        _ask(controller, prompts[:2], stop)


def test_recordings_that_cannot_be_read_or_answered_are_left_out(model: str, tmp_path: Path) -> None:
    layouts.sound(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_text("<html>")
    rows = [("good", "sad"), ("bad", "happy"), ("good", "calm")]
    write_manifest(
        tmp_path / "manifest.jsonl",
        [
            Utterance(
                id=f"{stem}-{emotion}", audio=str(tmp_path / f"{stem}.wav"), emotion=emotion, split="eval"
            )
            for stem, emotion in rows
        ],
    )
    layouts.as_json(tmp_path / "qa.json", layouts.DAILY_OMNI)
    (tmp_path / "Videos/bswbQtOPk6E").mkdir(parents=True)
    (tmp_path / "Videos/bswbQtOPk6E/bswbQtOPk6E_video.mp4").write_bytes(b"no video")
    videos = [{"benchmark": "daily_omni", "data": str(tmp_path)}]
    with pytest.raises(ConfigError, match=r"task\.args\.audio_folder: needed"):
        task(model, tmp_path, sets=videos).prompts("eval")
    sets = [{"benchmark": "manifest", "data": str(tmp_path)}]
    (found,) = task(model, tmp_path, sets=sets, style="emotionthinker").sets
    assert [question.id for question in found.questions] == ["good-sad"]
    assert found.left_out == {"unreadable recording": 1, "calm is no option of the prompt": 1}


def test_figures_of_several_models(model: str, data: Path) -> None:
    built = task(model, data)
    savee, mmau = built.sets
    models = {
        "first": {"savee-KL-a01": answer("<answer>angry</answer>"), "savee-KL-n02": answer("no idea")},
        "second": {"savee-KL-a01": answer("<answer>angry</answer>")},
    }
    report = set_report(dict.fromkeys(models, built), savee, models, seed=0)
    assert report["num_questions"] == report["num_graded"] == 2
    assert report["cut_by_window"] == {"first": 1, "second": 1}  # 4 s, of which the tiny model hears 3
    assert report["scores"]["first"]["accuracy"].value == 0.5 == report["scores"]["second"]["accuracy"].value
    assert report["gains"]["second"]["unweighted accuracy"].value == 0.0
    assert report["classes"] == ["angry", "neutral"]
    assert report["confusion"]["first"] == [[1, 0, 0], [0, 0, 1]]
    assert report["cost"]["second"]["unanswered"] == 1 and report["cost"]["first"]["unreadable"] == 0.5
    assert report["cost"]["first"]["answer tokens"] == 4.0
    text = as_markdown({"settings": {"style": "think", "max_tokens": 5}, "sets": {"savee": report}})
    assert "| accuracy | 2 | 50.0 [" in text and "| difference to first | n | second |" in text
    assert "| first | 2 | 0 | 20.0 | 4.0 | 0.500 | 0.0% | 50.0% |" in text

    assert "longer than the model's window: 1 (first), 1 (second)." in text

    nothing = set_report({"first": built}, mmau, {"first": {}}, seed=0)
    assert nothing["scores"]["first"]["accuracy"].value == 0.0  # a question without an answer is wrong


def kept(config: RunConfig, built: BenchmarkTask, out: Path) -> list[str]:
    """Ids of the answers of savee that the next evaluation would take over."""
    savee = built.sets[0]
    keys = _keys(config, built, savee)
    path = answers_file(out, built.model_path, savee)
    if not path.exists():
        write_rows(path, [{"id": question.id, "key": keys[question.id]} for question in savee.questions])
    _keep(path, keys)
    return [row["id"] for row in read_rows(path)]


def with_rollout(config: RunConfig, **changes: object) -> RunConfig:
    return replace(config, rollout=replace(config.rollout, **changes))


def test_an_answer_is_kept_while_all_that_it_depends_on_is_the_same(
    model: str, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "model"
    shutil.copytree(model, own)
    config = _run_config("think", [], [f"model.path={own}"])
    built = task(str(own), data)
    both = ["savee-KL-a01", "savee-KL-n02"]
    assert kept(config, built, tmp_path / "same") == both == kept(config, built, tmp_path / "same")
    # How much an engine does at once is no part of an answer, and a smaller limit costs none.
    often = with_rollout(config, engine={"gpu_memory_utilization": 0.5}, num_replicas=2)
    assert kept(often, built, tmp_path / "same") == both
    assert kept(config, task(str(own), data, limit=1), tmp_path / "same") == both
    # What changes it.
    for change in ({"engine": {"quantization": "fp8"}}, {"max_tokens": 9}, {"stop": ("x",)}):
        assert kept(config, built, tmp_path / str(change)) == both
        assert kept(with_rollout(config, **change), built, tmp_path / str(change)) == []
    assert kept(config, task(str(own), data, style="plain"), tmp_path / "same") == []

    # Another truth about one recording: its row would hold the old one.
    assert kept(config, built, tmp_path / "truth") == both
    savee = built.sets[0]
    angry, neutral = savee.questions
    built.sets[0] = replace(savee, questions=(replace(angry, answer="sad"), neutral))
    assert kept(config, built, tmp_path / "truth") == both[1:]
    # Another model under the same name.
    (own / "model.safetensors").write_bytes(b"trained on")
    assert kept(config, built, tmp_path / "truth") == []


def test_two_questions_of_one_id_are_refused(model: str, data: Path, tmp_path: Path) -> None:
    question = Question(id="q", audio=str(data / "savee/KL_a01.wav"), choices=("a", "b"), answer="a")
    own = Benchmark(load=lambda path, split: Questions(questions=(question, question)))
    built = task(model, data, sets=[{"benchmark": "own", "data": str(tmp_path)}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emotion_task.benchmarks.asking.task.find_benchmark", lambda name: own)
        with pytest.raises(DataError, match="1 ids are of several questions, the first 'q'"):
            built.prompts("eval")


@pytest.mark.parametrize("each", [{"benchmark": "mmau"}, {"data": "a", "benchmrk": "mmau"}, "mmau"])
def test_a_set_of_another_form_is_refused_by_its_key(model: str, data: Path, each: object) -> None:
    with pytest.raises(ConfigError, match=r"task.args.sets\[0\]: got .*, must be the keys `benchmark`"):
        task(model, data, sets=[each])


def test_rlcore_evaluates_it_as_any_task(model: str, data: Path) -> None:
    built = task(model, data)
    texts = ("<answer>angry</answer>", "<answer>sad</answer>", "A", "B. A woman")
    groups = [
        Group(
            prompt=prompt,
            prompt_token_ids=(1,),
            completions=(
                Completion(
                    token_ids=(2,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0
                ),
            ),
        )
        for prompt, text in zip(built.prompts("eval"), texts, strict=True)
    ]
    metrics = built.evaluate(groups, {})
    assert metrics["savee/accuracy"] == metrics["savee/unweighted accuracy"] == 0.5
    assert metrics["mmau/accuracy"] == 0.5 and metrics["mmau/task: sound"] == 1.0


def test_settings_of_engines(tmp_path: Path) -> None:
    assert _run_config("emotionthinker", [], []).rollout.max_tokens == 2048
    own = tmp_path / "cluster.yaml"
    own.write_text("rollout: {num_replicas: 4}\n")
    config = _run_config("plain", [str(own)], ["rollout.max_tokens=9"])
    assert (config.rollout.max_tokens, config.rollout.num_replicas) == (9, 4)
    with pytest.raises(ConfigError, match="rollouts"):
        _run_config("plain", [], ["rollouts.max_tokens=9"])
    # A run's own configuration is taken as it is, and none of its rewards is asked.
    own.write_text(
        "rewards: {outcome: {target: emotion_task.rewards:OutcomeReward}}\n"
        "algorithm: {ptr: {outcome: outcome}}\n"
    )
    assert _run_config("plain", [str(own)], []).rewards == {}
    models = ["/runs/a/rl/model", "/runs/b/rl/model", "Qwen/Qwen2.5-Omni-7B"]
    assert [_short(each, models) for each in models] == ["a/rl/model", "b/rl/model", "Qwen/Qwen2.5-Omni-7B"]


def test_the_command_names_what_is_wrong(
    model: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    mmau = ["--benchmark", "mmau", "--data", str(data / "mmau")]
    assert main(["evaluate", model, *mmau, "--benchmark", "mmar", *out]) == 2
    assert "--data: got 1 for 2 --benchmark" in capsys.readouterr().err
    assert main(["evaluate", model, "--compare", model, *mmau, *out]) == 2
    assert "each is named once" in capsys.readouterr().err
    assert main(["evaluate", model, "--benchmark", "mmar", "--data", str(data / "mmau"), *out]) == 2
    assert "no MMAR-meta.json or MMAR-meta.jsonl here. Expected is MMAR-meta.json" in capsys.readouterr().err
    assert main(["evaluate", model, *mmau, *out, "--style", "chat"]) == 2
    assert "style 'chat': not known" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
