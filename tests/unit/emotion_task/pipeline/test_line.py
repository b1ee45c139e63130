"""What is wrong with a line's later stages is said before its first is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emotion_task.config import PipelineConfig
from emotion_task.pipeline import recordings, teaching
from emotion_task.pipeline.early_checks import check_annotated, check_listed
from emotion_task.pipeline.line import Pipeline
from emotion_task.pipeline.results import Metrics, Result
from emotion_task.pipeline.stages import Stage, Stages
from emotion_task.prompt import emotion_messages
from emotion_task.records import Utterance, write_manifest
from emotion_task.sft.tasks import may_reveal
from emotion_task.task import EmotionTask
from rlcore.config import load_config
from rlcore.errors import ConfigError, DataError, RLCoreError

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).resolve().parents[4] / "emotion_task" / "configs"
EMOTION_TASK = "emotion_task.task:EmotionTask"


def pipeline(tmp_path: Path, name: str, *overrides: str) -> Pipeline:
    files = [str(CONFIGS / "quickstart.yaml"), str(CONFIGS / f"{name}.yaml")]
    if name in ("quickstart", "small"):
        del files[0]
    config = load_config(files, [f"run_dir={tmp_path}", *overrides], schema=PipelineConfig)
    return Pipeline(config)


def settings(tmp_path: Path, name: str, *overrides: str) -> dict[str, object]:
    return {stage.name: stage.settings for stage in pipeline(tmp_path, name, *overrides).line()}


def run_without_work(run_dir: Path, line: tuple[Stage[Result], ...]) -> None:
    """Leaves the stages finished, without a result."""
    stages = Stages(run_dir)
    for stage in line:
        stages.run(replace(stage, result=Metrics, work=lambda may_resume: Metrics(metrics={})))


@pytest.mark.parametrize("name", ["quickstart", "ravdess", "small", "two_stages", "three_nodes"])
def test_the_ready_lines_pass(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAVDESS_ROOT", "/data/ravdess")
    pipeline(tmp_path, name).check()


def test_a_base_model_that_is_not_there_is_refused_before_the_first_stage(tmp_path: Path) -> None:
    line = pipeline(tmp_path, "quickstart", f"base_model={tmp_path / 'gone'}")
    with pytest.raises(DataError, match=r"gone: no such model"):
        line.run()
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.weights.reasonin=0.5", r"unknown tasks \['reasonin'\]"),
        ("cold_start.weights.reasonin=0.5", r"unknown tasks \['reasonin'\]"),
        ("corpus.args.num_trian=10", r"does not take \['num_trian'\]; allowed are num_train"),
        ("corpus.name=ravdes", "corpus 'ravdes': not known; allowed are"),
        (
            "rl.rewards.outcome.target=emotion_task.rewards:Outcome",
            "rl.rewards.outcome.target: .* has no 'Outcome'",
        ),
        (f"rl.rewards.outcome.target={EMOTION_TASK}", "rl.rewards.outcome"),
        ("rl.rewards.outcome.args.weigth=1", "rl.rewards.outcome.args: .* 'weigth'"),
        ("rl.task.args.max_tran=3", "rl.task.args: .* 'max_tran'"),
        ("reward_model.graded=/no/such.jsonl", "/no/such.jsonl: no such file"),
        ("sft.text_data=/no/such.jsonl", "/no/such.jsonl: no such file"),
    ],
)
def test_mistakes_of_later_stages_are_found_first(tmp_path: Path, override: str, message: str) -> None:
    overrides = [override, *(["corpus.root=/data"] if "corpus.name" in override else [])]
    with pytest.raises(RLCoreError, match=message):
        pipeline(tmp_path, "quickstart", *overrides).check()


@pytest.mark.parametrize(
    ("override", "run_again"),
    [
        ("corpus.num_workers=8", []),
        ("sft.train.checkpoint_every=50", []),
        ("sft.train.learner.num_ranks=1", []),
        ("sft.train.learner.micro_batch_tokens=600", []),
        ("sft.full_label_steps=20", ["full_label_sft"]),
        ("rl.model.media_cache=cache", []),
        ("rl.rollout.timeout_s=9000", []),
        ("rl.rollout.num_replicas=2", []),
        ("egemaps=true", ["reference"]),
        ("perception=100", ["perception"]),
        ("rl.learner.lr=1", ["rl", "full_label_sft"]),
        ("sft.fact_rate=0.5", ["sft", "cold_start", "perception", "reward_model", "rl", "full_label_sft"]),
    ],
)
def test_a_change_costs_the_stages_that_it_changes(
    tmp_path: Path, override: str, run_again: list[str]
) -> None:
    line = pipeline(tmp_path, "quickstart").line()
    run_without_work(tmp_path, line)
    found = Stages(tmp_path).finished(pipeline(tmp_path, "quickstart", override).line())
    assert [stage.name for stage in line if stage.name not in found] == run_again


@pytest.mark.parametrize(
    ("edited", "run_again"),
    [
        ("list/manifest.jsonl", ["corpus"]),
        ("calls/a.wav", ["annotate"]),
        ("base/weights/model.safetensors", ["base_model"]),
        ("texts.jsonl", ["sft"]),
        ("graded.jsonl", ["reward_model"]),
        ("judge/config.json", ["rl"]),
        ("words.txt", ["rl"]),
        ("base/.cache/x", []),
        ("calls/not_listed.wav", []),
        ("list/b.wav", []),
        ("list/readme.txt", []),
    ],
)
def test_a_file_that_was_edited_costs_the_stages_that_read_it(
    tmp_path: Path, edited: str, run_again: list[str]
) -> None:
    files = ("list/manifest.jsonl", "list/readme.txt", "list/b.wav", "calls/a.wav", "calls/not_listed.wav")
    more = ("base/config.json", "base/weights/model.safetensors", "base/.cache/x", "texts.jsonl")
    for name in (*files, *more, "graded.jsonl", "judge/config.json", "words.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    run_dir = tmp_path / "run"
    sound = Utterance(id="a", audio=str(tmp_path / "calls" / "a.wav"))
    write_manifest(run_dir / "corpus" / "manifest.jsonl", [sound])

    def line() -> tuple[Stage[Result], ...]:
        own = {
            "corpus.root": "list",
            "base_model": "base",
            "sft.text_data": "texts.jsonl",
            "reward_model.graded": "graded.jsonl",
            "rl.rewards.reasoning.args.model_path": "judge",
            "rl.rewards.outcome.args.words": "words.txt",
        }
        overrides = [f"{key}={tmp_path / name}" for key, name in own.items()]
        return pipeline(
            tmp_path, "quickstart", *overrides, "corpus.name=manifest", f"run_dir={run_dir}"
        ).line()

    run_without_work(run_dir, line())
    (tmp_path / edited).write_text("{}\n{}\n")
    found = Stages(run_dir).finished(line())
    names = [stage.name for stage in line()]
    due = names[names.index(run_again[0]) :] if run_again else []
    if run_again in (["base_model"], ["sft"], ["reward_model"], ["rl"]):
        due = [name for name in due if name != "perception" or run_again[0] in ("base_model", "sft")]
    assert [name for name in names if name not in found] == due
    said: list[str] = []
    stages = Stages(run_dir, said.append)
    for stage in line():
        stages.run(replace(stage, result=Metrics, work=lambda may_resume: Metrics(metrics={})))
    told = [text for text in said if "changed since" in text]
    assert [text.split(": ")[1] for text in told] == [f"running {name} again" for name in run_again]
    if run_again == ["corpus"]:
        assert told[0].startswith(f"{tmp_path / edited} (corpus.root) changed since corpus read it")


def test_of_a_corpus_in_its_owners_layout_names_and_lists_count(tmp_path: Path) -> None:
    root = tmp_path / "ravdess"
    (root / "cut").mkdir(parents=True)
    for name in ("a.wav", "list.csv", "cut/b.wav"):
        (root / name).write_text("x")

    def line() -> tuple[Stage[Result], ...]:
        own = ("corpus.name=expresso", f"corpus.root={root}", f"corpus.args.cut_to={root / 'cut'}")
        return pipeline(tmp_path, "quickstart", *own, f"run_dir={root / 'run'}").line()

    def is_finished() -> bool:
        return "corpus" in Stages(root / "run").finished(line())

    run_without_work(root / "run", line())
    (root / "a.wav").write_text("longer")  # who measures it looks at it
    (root / "cut" / "c.wav").write_text("x")  # the reader's own
    (root / "run" / "summary.json").write_text("x")
    assert is_finished()
    (root / "new.wav").write_text("x")
    assert not is_finished()
    (root / "new.wav").unlink()
    assert is_finished()
    (root / "list.csv").write_text("longer")
    assert not is_finished()


def test_more_steps_extend_the_finished_policy(tmp_path: Path) -> None:
    """And another rate trains one anew."""

    def asked(*overrides: str) -> dict[str, bool]:
        found: dict[str, bool] = {}

        def work(name: str) -> Callable[[bool], Metrics]:
            return lambda may_resume: found.update({name: may_resume}) or Metrics(metrics={})

        stages = Stages(tmp_path)
        for stage in pipeline(tmp_path, "quickstart", *overrides).line():
            stages.run(replace(stage, result=Metrics, work=work(stage.name)))
        return found

    assert not any(asked().values())
    assert asked("rl.train.num_steps=500") == {"rl": True, "full_label_sft": False}
    assert asked("rl.train.num_steps=500", "rl.learner.lr=1") == {"rl": False, "full_label_sft": False}


def test_another_value_of_the_environment_costs_no_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(value: str) -> tuple[Stage[Result], ...]:
        monkeypatch.setenv("PLACE", value)
        names = ("corpus.root", "base_model", "sft.text_data", "rl.rewards.outcome.args.key")
        return pipeline(tmp_path, "quickstart", *(f"{name}=${{oc.env:PLACE}}" for name in names)).line()

    run_without_work(tmp_path, line("here"))
    assert len(Stages(tmp_path).finished(line("there"))) == len(line("there"))


def test_when_checkpoints_are_written_counts_where_the_best_is_kept(tmp_path: Path) -> None:
    rare, often = (
        settings(tmp_path, "two_stages", override)
        for override in ("sft.train.checkpoint_every=200", "sft.train.checkpoint_every=20")
    )
    assert rare["sft"] != often["sft"] and rare["reward_model"] == often["reward_model"]


def test_what_alignment_is_made_of_counts_for_it(tmp_path: Path) -> None:
    """Captions may quote; facts are left out of SFT's traces alone."""
    plain, quoting, leaving_out = (
        settings(tmp_path, "quickstart", *override)
        for override in ([], ["sft.quote_rate=0.5"], ["sft.fact_rate=0.5"])
    )
    assert plain["alignment"] == leaving_out["alignment"] != quoting["alignment"]
    assert plain["sft"] != leaving_out["sft"]


def test_what_a_fit_may_see_counts_for_the_alignment(tmp_path: Path) -> None:
    def alignment(*overrides: str) -> object:
        return settings(tmp_path, "quickstart", *overrides)["alignment"]

    changes = ("sft.label_fraction=0.3", "sft.without_speakers=[a]")
    assert all(alignment(change) == alignment() for change in changes)
    assert all(
        alignment(change, "alignment.fit=true") != alignment("alignment.fit=true") for change in changes
    )


def test_a_fit_sees_the_emotions_that_sft_may_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = [
        Utterance(id=f"u{i}", audio=f"/{i}.wav", emotion="sad", speaker="ab"[i % 2], split="train")
        for i in range(40)
    ]
    (tmp_path / "annotated").mkdir()
    write_manifest(tmp_path / "annotated" / "manifest.jsonl", spoken)
    seen: dict[str, str | None] = {}

    def fit_projector(_: str, utterances: list[Utterance], *__: object, **___: object) -> dict[str, Any]:
        seen.update((utterance.id, utterance.emotion) for utterance in utterances)
        return {"strength": 1.0, "recall": {"emotion": 0.5}}

    monkeypatch.setattr("emotion_task.sft.projector.fit_projector", fit_projector)
    line = pipeline(tmp_path, "quickstart", "sft.label_fraction=0.5", "sft.without_speakers=[b]")
    fitted = teaching.fit(line.work, "base")
    assert fitted.model == str(tmp_path / "projector" / "model") and fitted.fit["recall"]["emotion"] == 0.5
    # Every voice is heard; an emotion is told where SFT hears the speaker and may see the label.
    assert list(seen) == [utterance.id for utterance in spoken]
    told = {id for id, emotion in seen.items() if emotion is not None}
    assert told == {u.id for u in spoken if u.speaker == "a" and may_reveal(u, 0.5, seed=line.config.seed)}
    assert 3 < len(told) < 17


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, "split 'train' and an emotion"),
        ({"emotion": "sad"}, "split 'train' and an emotion"),
        ({"split": "eval", "emotion": "sad"}, "split 'train' and an emotion"),
        ({"split": "train"}, "split 'train' and an emotion"),
        ({"split": "train", "emotion": "sad"}, "split 'eval' and an emotion"),
    ],
)
def test_a_list_without_both_splits_is_told_before_a_recording_is_measured(
    tmp_path: Path, columns: dict[str, str], told: str
) -> None:
    listed = tmp_path / "calls.jsonl"
    write_manifest(listed, [Utterance(id=str(i), audio=f"{i}.wav", **columns) for i in range(3)])
    own = ("corpus.name=manifest", f"corpus.root={listed}", "corpus.args={num_train: null, num_eval: null}")
    work = pipeline(tmp_path, "quickstart", *own).work
    recordings.corpus(work)
    with pytest.raises(
        DataError, match=rf"calls\.jsonl: none of 3 utterances has the {told}; fill .*`split`"
    ):
        recordings.annotate(work)
    assert not work.annotated.parent.exists()


def test_a_speaker_who_is_not_listed_is_told_before_a_recording_is_measured(tmp_path: Path) -> None:
    work = pipeline(tmp_path, "quickstart", "sft.without_speakers=[c]").work
    spoken = [
        Utterance(id=split + "-" + by, audio="a.wav", emotion="sad", speaker=by, split=split)
        for split, by in (("train", "a"), ("eval", "c"))
    ]
    write_manifest(work.listed, spoken)
    with pytest.raises(ConfigError, match=r"sft.without_speakers: .*\['c'\]; speakers are \['a'\]"):
        recordings.annotate(work)
    assert not work.annotated.parent.exists()


OWN = ["agreement", "mild sarcasm"]


def own_labels(tmp_path: Path, *overrides: str, emotions: object = OWN) -> Pipeline:
    """A line over a list with labels of its own, which one setting names."""
    listed = tmp_path / "calls.jsonl"
    rows = [(emotion, split) for emotion in (*OWN, "agreement") for split in ("train", "eval")]
    write_manifest(
        listed,
        [Utterance(id=str(i), audio=f"{i}.wav", emotion=e, split=s) for i, (e, s) in enumerate(rows)],
    )
    args = f"corpus.args={{num_train: null, num_eval: null, emotions: {emotions}}}"
    own = ("corpus.name=manifest", f"corpus.root={listed}", args, *overrides)
    return pipeline(tmp_path, "quickstart", *own)


def test_one_setting_names_the_labels_of_every_stage(tmp_path: Path) -> None:
    line = own_labels(tmp_path)
    line.check()
    assert line.config.labels == line.config.rl.task.args["labels"] == OWN
    assert line.work.labels() == OWN  # of SFT, the judge, the tokenizer and the files beside the models
    recordings.corpus(line.work)
    check_listed(line.work)
    line.work.annotated.parent.mkdir()
    line.work.listed.rename(line.work.annotated)
    task = EmotionTask(**line.config.rl.task.args)
    assert task.labels == OWN and len(task.utterances("eval")) == 3
    assert "agreement, mild sarcasm" in str(emotion_messages(line.work.labels()))
    ready = pipeline(tmp_path, "quickstart").config
    assert ready.labels is None and "labels" not in ready.rl.task.args

    before, after = settings(tmp_path, "quickstart"), {s.name: s.settings for s in line.line()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"corpus", "annotate", "reference", "base_model", "rl"}


def test_some_of_the_labels_are_the_options_of_every_stage(tmp_path: Path) -> None:
    line = own_labels(tmp_path, "rl.task.args.labels=[agreement]")
    line.check()
    recordings.corpus(line.work)
    line.work.annotated.parent.mkdir()
    line.work.listed.rename(line.work.annotated)
    assert line.work.labels() == ["agreement"]
    assert [u.emotion for u in line.work.split("train")] == ["agreement", None, "agreement"]


@pytest.mark.parametrize(
    ("emotions", "override", "message"),
    [
        (OWN, "rl.task.args.labels=[agreemnt]", r"rl.task.args.labels: \['agreemnt'\] are not of corpus"),
        ("Joy", "seed=0", r"corpus.args.emotions: got 'Joy'; it is a list of different labels"),
        ("[Joy]", "seed=0", r"corpus.args.emotions: \['Joy'\]: labels are words in small letters"),
        (
            [*OWN, "boredom"],
            "seed=0",
            r"corpus.args.emotions, .*: no recording of .* has the emotion \['boredom'\] and .*sarcasm",
        ),
        ("5", "seed=0", r"corpus.args.emotions: got 5; it is a list of different labels"),
        (OWN, "rl.task.args.labels=joy", r"rl.task.args.labels: got 'joy'; it is a list of different labels"),
        (OWN, "rl.task.args.labels=5", r"rl.task.args.labels: got 5; it is a list of different labels"),
    ],
)
def test_a_set_of_labels_that_does_not_fit_is_told_first(
    tmp_path: Path, emotions: object, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        line = own_labels(tmp_path, override, emotions=emotions)
        line.check()
        recordings.corpus(line.work)
        recordings.annotate(line.work)


def test_a_label_that_no_stage_could_learn_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    work = pipeline(tmp_path, "quickstart", "rl.task.args.labels=[sad,calm]").work
    spoken = [("sad", "train"), ("sad", "eval"), ("calm", "eval")]
    rows = [Utterance(id=f"{e}-{s}", audio="a.wav", emotion=e, split=s) for e, s in spoken]
    write_manifest(work.listed, rows)
    told = r"rl.task.args.labels: no recording of .* has the emotion \['calm'\] and the split 'train'"
    with pytest.raises(ConfigError, match=told):
        recordings.annotate(work)
    # Or they are listed, and could not be measured.
    measured = [replace(row, energy_level="low") for row in rows]
    work.annotated.parent.mkdir()
    for calm, error in ((None, r"rl.task.args.labels: .*\['calm'\].*quarantine.jsonl"), ("low", None)):
        last = Utterance(id="c", audio="a.wav", emotion="calm", split="train", energy_level=calm)
        write_manifest(work.annotated, [*measured, last])
        if error is None:
            check_annotated(work)
        else:
            with pytest.raises(ConfigError, match=error):
                check_annotated(work)


def test_labels_that_nobody_named_are_told_before_a_recording_is_measured(tmp_path: Path) -> None:
    work = pipeline(tmp_path, "quickstart").work
    rows = [Utterance(id=s, audio="a.wav", emotion="sarcasm", split=s) for s in ("train", "eval")]
    write_manifest(work.listed, rows)
    with pytest.raises(DataError, match=r"the emotions \['sarcasm'\] are none of .* corpus.args.emotions"):
        recordings.annotate(work)
    named = pipeline(tmp_path, "quickstart", "rl.task.args.labels=[sarcasm]")
    assert named.work.labels() == ["sarcasm"]
    check_listed(named.work)
