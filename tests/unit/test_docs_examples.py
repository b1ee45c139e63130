"""The examples of docs/: Python that compiles, YAML that loads, and targets that take their arguments. An
example that is a whole file names it in its first line (`# sums.yaml`)."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import benchmark_layouts as layouts
import numpy as np
import pytest
import torch
import yaml
from generate.__main__ import PAGES as PAGES_WRITTEN
from generate.site import on_page_markdown

from emotion_task.benchmarks import find_benchmark
from emotion_task.config import PipelineConfig
from emotion_task.pipeline.line import Pipeline
from rlcore import cli
from rlcore.actors.environment_worker import EnvironmentWorker
from rlcore.algorithms.advantage import ADVANTAGES, group_advantages
from rlcore.algorithms.aggregation import AGGREGATIONS, BatchTotals
from rlcore.algorithms.importance import CORRECTIONS
from rlcore.algorithms.kl import KL_ESTIMATORS
from rlcore.algorithms.loss import LossInputs, policy_loss
from rlcore.algorithms.schedule import LR_SCHEDULES
from rlcore.algorithms.surrogate import SURROGATES
from rlcore.bench.suite import OWN_KEYS
from rlcore.config import RunConfig, load_config
from rlcore.config.resuming import ACCEPTED, FREE, NEVER, RECORDED, rules
from rlcore.config.targets import build_target, check_target
from rlcore.environments import Episode
from rlcore.rewards.loading import build_reward, check_reward
from rlcore.types import Completion, Group, Prompt, RewardContext

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / "emotion_task" / "configs"
PAGES = sorted([*PROJECT.glob("docs/**/*.md"), PROJECT / "README.md", PROJECT / "cluster" / "README.md"])


def blocks(page: str | Path, language: str) -> list[str]:
    text = (PROJECT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def written(page: str, name: str, folder: Path) -> Path:
    """The example that is the file `name`, written into `folder`."""
    (text,) = (block for block in blocks(page, r"\w+") if block.startswith(f"# {name}\n"))
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [url for url in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in url]
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link}"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page}: {link}"


@pytest.mark.parametrize("name", PAGES_WRITTEN)
def test_a_page_is_what_make_pages_writes(name: str) -> None:
    page = (PROJECT / "docs" / "reference" / name).read_text(encoding="utf-8")
    assert page == PAGES_WRITTEN[name]()


def test_the_page_of_keys_has_every_key_and_its_meaning() -> None:
    rows = table_rows("docs/reference/keys.md", "## Of a run", "## Of preferences")
    assert {row[0].strip("`").replace("NAME", "*") for row in rows} == set(rules(RunConfig))
    assert all(meaning for _, _, _, meaning, _ in rows)
    by_key = {row[0].strip("`"): row[1:] for row in rows}
    assert by_key["learner.lr"] == ["`float`", "`1.0e-06`", "Highest learning rate.", "accepted"]
    assert by_key["model.path"][:2] == ["`str`", "must be given"] and by_key["seed"][3] == "no"
    lines = (PROJECT / "docs/reference/keys.md").read_text(encoding="utf-8").splitlines()
    assert "The keys of `learner`, with other defaults: `lr`: `1.0e-05`; `lr_schedule`: `cosine`." in lines


def test_keys_beside_those_of_other_frameworks_are_ours() -> None:
    rows = table_rows("docs/reference/other_frameworks.md", "## Model", "## What differs")
    ours = {name.split(": ")[0] for row in rows for name in re.findall(r"`([^`]+)`", row[1])}
    known = {key.replace("*", "NAME") for key in rules(RunConfig)} | set(ADVANTAGES)
    assert {key for key in ours if key not in known} == {
        "--resume",
        "task.args.columns",
        "rollout.engine.tensor_parallel_size",
        "rollout.engine.gpu_memory_utilization",
    }


def table_rows(page: str, begin: str, end: str) -> list[list[str]]:
    """The cells of all tables between two headings."""
    text = (PROJECT / page).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if row[0] not in ("key", "idea")]


def test_the_benchmark_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("docs/guides/evaluation.md", "doors.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    layouts.sound(tmp_path / "sounds" / "1.wav")
    row = {"id": 1, "sound": "sounds/1.wav", "question": "Which door?", "choices": ["oak", "steel"]}
    layouts.as_lines(tmp_path / "doors.jsonl", [row | {"answer": "B", "material": "metal"}])
    (question,) = find_benchmark("doors:BENCHMARK").load(tmp_path, "eval").questions
    assert (question.id, question.answer, question.groups) == ("1", "steel", {"material": "metal"})


def test_the_index_of_the_docs_names_every_page() -> None:
    index = (PROJECT / "docs" / "README.md").read_text(encoding="utf-8")
    shelves = ("tutorials", "guides", "reference", "explanation", "notebook")
    pages = [page for shelf in shelves for page in (PROJECT / "docs" / shelf).glob("*.md")]
    assert len(pages) >= 19
    assert [p.name for p in pages if f"({p.parent.name}/{p.name})" not in index] == []


def test_the_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("docs/tutorials/tasks.md", "sums.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sums = load_config([written("docs/tutorials/tasks.md", "sums.yaml", tmp_path)])
    check_target(sums.task.target, sums.task.args, where="task")
    task = build_target(sums.task.target, sums.task.args, where="task")
    task.tokenizer = SimpleNamespace(apply_chat_template=lambda messages, **_: messages[0]["content"])
    train, held_out = task.prompts("train"), task.prompts("eval")
    assert len(train) + len(held_out) == 1600 and len(held_out) == 146
    assert not {prompt.id for prompt in train} & {prompt.id for prompt in held_out}
    assert len(train) >= sums.train.prompts_per_step
    assert train[0].text == "What is 1 + 2? Answer with the number alone."
    assert train[0].reference == {"sum": 3}

    def group(text: str) -> Group:
        answer = Completion(
            token_ids=(1, 2), logprobs=(0.0, 0.0), text=text, finish_reason="stop", policy_version=0
        )
        return Group(prompt=train[0], prompt_token_ids=(1,), completions=(answer,))

    groups = [group(text) for text in ("3", "1 + 2 = 3.", "33", "", "3 or 4")]
    reward = build_reward(sums.rewards["right"], where="rewards.right")
    scores = [score for row in reward.score_batch(groups, RewardContext()) for score in row]
    assert [score.value for score in scores] == [1, 1, 0, 0, 0]
    assert task.evaluate(groups, {"right": scores}) == {"accuracy": 0.4, "tokens": 2}


def test_the_tool_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "docs/tutorials/tools.md"
    files = [
        written("docs/tutorials/tasks.md", "sums.yaml", tmp_path),
        written(page, "abacus.yaml", tmp_path),
    ]
    written(page, "abacus.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(files).rollout
    assert (config.max_tokens, config.num_cpus) == (64, 0.9)
    worker = EnvironmentWorker(config.environment)
    assert worker.ready() == ("</tool>",)
    lines = (PROJECT / page).read_text(encoding="utf-8").splitlines()
    shown = [(call, line) for line in lines for call in re.findall(r"`(<tool>.*?</tool>)`", line)]
    assert len(shown) == 6
    for call, line in shown:
        (reply,) = worker.step([Episode(prompt=Prompt(id="p", text=""), turns=(call,), observations=())])
        assert reply.error is None and f"`{reply.text}`" in line


def test_the_estimator_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("docs/reference/algorithms.md", "my_choices.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    path = written("docs/reference/algorithms.md", "my_choices.yaml", tmp_path)
    algorithm = load_config([path], ["model.path=m", "task.target=a:B"]).algorithm
    rewards = np.array([[1.0, 2.0, 6.0, 9.0], [0.0, 5.0, 1.0, np.nan], [np.nan] * 4])
    got = group_advantages(rewards, np.isfinite(rewards), estimator=algorithm.advantage_estimator)
    np.testing.assert_array_equal(got, [[-3, -2, 2, 5], [-1, 4, 0, 0], [0] * 4])
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, float("nan")]], requires_grad=True)
    inputs = LossInputs(
        logprobs=logprobs,
        behaviour_logprobs=logprobs.detach() - 3,
        advantages=torch.tensor([3.0, -1.0]),
        mask=torch.tensor([[True, True], [True, False]]),
    )
    totals = BatchTotals(num_tokens=4, num_sequences=2, max_tokens=2)
    result = policy_loss(inputs, totals, algorithm.loss_settings)
    result.loss.backward()
    assert (result.loss.item(), result.clipped_sum.item()) == ((3 + 6 - 0.5) / 4, 0)
    assert logprobs.grad is not None and logprobs.grad.tolist() == [[-0.75, -0.75], [0.25, 0.0]]


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("advantage", ADVANTAGES),
        ("loss", SURROGATES),
        ("loss_aggregation", AGGREGATIONS),
        ("correction", CORRECTIONS),
        ("kl_estimator", KL_ESTIMATORS),
        ("learner.lr_schedule", LR_SCHEDULES),
    ],
)
def test_every_choice_has_its_row(key: str, choices: Mapping[str, object]) -> None:
    text = (PROJECT / "docs" / "reference" / "algorithms.md").read_text(encoding="utf-8")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    assert re.findall(rf"`{re.escape(key)}: (\w+)`", rows) == list(choices)


def test_rewards_of_the_pages_load(tmp_path: Path) -> None:
    names = set()
    for number, block in enumerate(blocks("docs/guides/rewards.md", "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(block, encoding="utf-8")
        config = load_config([path], ["model.path=m", "task.target=a:B"])
        for name, reward in config.rewards.items():
            if reward.target.startswith("rlcore."):
                check_reward(reward, where=f"rewards.{name}")
                names.add(name)
    assert {"judge", "answer"} <= names


def test_ones_own_recordings_over_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [CONFIGS / "quickstart.yaml", written("docs/guides/data.md", "my_calls.yaml", tmp_path)]
    config = load_config(files, [], PipelineConfig)
    Pipeline(config).check()
    assert {name for name, value in config.corpus.args.items() if value is not None} == {"audio_root"}


def test_what_the_plan_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(PROJECT)
    command = blocks("docs/guides/plan.md", "bash")[0].replace("\\\n", " ")
    assert cli.main(shlex.split(command)[1:]) == 0
    printed = f"```\n{capsys.readouterr().out}```\n"
    assert printed in (PROJECT / "docs" / "guides" / "plan.md").read_text(encoding="utf-8")


def test_a_large_model_on_ones_own_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config([written("docs/guides/plan.md", "my_sft.yaml", tmp_path)], [], PipelineConfig)
    Pipeline(config).check()
    assert config.sft.train.learner.lr == config.reward_model.train.learner.lr == 1e-5
    assert config.reward_model.train.learner.num_gpus == 1
    monkeypatch.chdir(PROJECT)
    (commands,) = (block for block in blocks("docs/guides/plan.md", "bash") if "rlcore train" in block)
    words = shlex.split(commands.partition("rlcore train")[2].replace("\\\n", " "))
    arguments = cli.parse(cli.build_parser(), ["train", *words])
    run = load_config(arguments.config, arguments.overrides)
    made = Path(config.run_dir)
    assert Path(run.model.path) == Path(run.task.args["model_path"]) == made / "sft" / "model"
    assert Path(run.task.args["manifest"]) == made / "annotated" / "manifest.jsonl"
    assert Path(run.rewards["reasoning"].args["model_path"]) == made / "reward_model" / "model"


def test_the_small_models_line_on_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAVDESS_ROOT", str(tmp_path))
    small = yaml.safe_load((CONFIGS / "small.yaml").read_text(encoding="utf-8"))
    del small["alignment"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(small), encoding="utf-8")
    files = [tmp_path / "mine.yaml", written("docs/guides/small_model.md", "four_gpus.yaml", tmp_path)]
    config = load_config(files, [], PipelineConfig)
    Pipeline(config).check()
    rl = config.rl
    learners = (config.sft.train.learner, config.reward_model.train.learner, rl.learner)
    assert all(learner.num_gpus == 1 for learner in learners)
    assert rl.reference.num_replicas == 0
    learners_gpus = rl.learner.num_ranks * rl.learner.num_gpus
    assert rl.rollout.num_gpus + learners_gpus + rl.rewards["reasoning"].num_gpus == 4


def test_the_benchmarks_file_for_gpus_leaves_the_workload_alone(tmp_path: Path) -> None:
    path = written("docs/reference/benchmarks.md", "gpus.yaml", tmp_path)
    assert load_config([path], ["task.target=a:B"]).learner.num_gpus > 0
    layer = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in OWN_KEYS:
        section, _, name = key.partition(".")
        assert section not in layer or (name and name not in layer[section])


def test_a_configuration_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written("docs/reference/configuration.md", "my.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    (program,) = blocks("docs/reference/configuration.md", "python")
    (tmp_path / "own_config.py").write_text(program, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = importlib.import_module("own_config").config
    assert (config.num_speakers, config.rl.task.target) == (6, "my_task:MyTask")


def test_what_a_resumed_run_may_change() -> None:
    """The table has every key once, under the rule that its field has."""
    text = (PROJECT / "docs" / "guides" / "runs.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| section | freely | with `--accept-changes` | never |")
    named: dict[str, str] = {}
    for row in re.findall(r"^\| (\S+) \| (.*)\|$", table.partition("\n\n")[0], re.MULTILINE):
        section, columns = row[0].strip("`()"), row[1].split("|")
        prefix = "" if section == "top" else section.replace("NAME", "*") + "."
        for rule, column in zip((FREE, ACCEPTED, NEVER), columns, strict=True):
            for name, note in re.findall(r"`(\w+)`( \(recorded\))?", column):
                assert named.setdefault(f"{prefix}{name}", RECORDED if note else rule), name
    whole = {key for key in named if dataclasses.is_dataclass(get_type_hints(RunConfig).get(key))}
    assert whole == {"cluster", "weight_sync"}
    expected = rules(RunConfig)
    assert {named[key.split(".")[0]] for key in expected if key.split(".")[0] in whole} == {FREE}
    single = {key: rule for key, rule in expected.items() if key.split(".")[0] not in whole}
    assert {key: rule for key, rule in named.items() if key not in whole} == single


@pytest.mark.parametrize(
    ("link", "shown", "with_url"),
    [
        ("[a](../tutorials/tasks.md#x)", "[a](../tutorials/tasks.md#x)", None),
        (
            "[setup](../../setup.cfg)",
            "setup (`setup.cfg`)",
            "[setup](https://host/me/rlcore/blob/main/setup.cfg)",
        ),
        ("[`rlcore/run.py`](../../rlcore/run.py)", "`rlcore/run.py`", None),
        ("[paper](https://arxiv.org/abs/1)", "[paper](https://arxiv.org/abs/1)", None),
        ("![picture](../../x.png)", "![picture](../../x.png)", None),
    ],
)
def test_links_out_of_the_docs_name_files_of_the_repository(
    link: str, shown: str, with_url: str | None
) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guides/runs.md"))
    for url, expected in ((None, shown), ("https://host/me/rlcore/", with_url)):
        if expected:
            assert on_page_markdown(link, page=page, config=SimpleNamespace(repo_url=url)) == expected
