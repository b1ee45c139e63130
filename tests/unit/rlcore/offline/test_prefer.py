"""What preferences become before and between the steps of a job."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import TEXT_PROMPT, make_text
from transformers import AutoTokenizer

from rlcore.config import LearnerConfig, ModelConfig, TargetConfig, save_config
from rlcore.config.io import keys
from rlcore.config.offline import OfflineConfig, PreferConfig
from rlcore.errors import ConfigError, DataError
from rlcore.offline.prefer import CONFIG, prefer, ranked
from rlcore.offline.recipe import REFERENCE, PreferenceRecipe
from rlcore.records.files import read_rows, write_rows
from rlcore.rewards.verdict import Verdict
from rlcore.types import Prompt


def pair(id: str) -> Prompt:
    return Prompt(id=id, text="?", reference={"chosen": f"{id} good", "rejected": f"{id} bad"})


def labelled(id: str, label: bool) -> Prompt:
    return Prompt(id=id, text="?<think>\n", reference={"answer": f"<think>{id}", "label": label})


def test_each_loss_gets_the_examples_that_it_needs() -> None:
    pairs = ranked([pair("a"), pair("b")], PreferConfig())
    assert [row["answers"] for row in pairs] == [["a good", "a bad"], ["b good", "b bad"]]
    split = ranked([pair("a"), pair("b")], PreferConfig(loss="kto"))
    assert [(row["id"], row["desirable"], row["answers"]) for row in split] == [
        ("a", True, ["a good", "b good"]),
        ("a", False, ["a bad", "b bad"]),
        ("b", True, ["b good", "a good"]),
        ("b", False, ["b bad", "a bad"]),
    ]
    # The template has opened the tag, and the last is compared with the first.
    single = ranked([labelled("a", True), labelled("b", False)], PreferConfig(loss="kto"))
    assert [(row["desirable"], row["answers"]) for row in single] == [(True, ["a", "b"]), (False, ["b", "a"])]
    rewarded = ranked([labelled("a", True), pair("b")], PreferConfig(loss="pointwise"))
    assert [(row["desirable"], row["answers"]) for row in rewarded] == [
        (True, ["a"]),
        (True, ["b good"]),
        (False, ["b bad"]),
    ]
    with pytest.raises(DataError, match="row 'b' has a label, and loss: dpo needs chosen and rejected"):
        ranked([pair("a"), labelled("b", True)], PreferConfig())
    for lone in ([pair("a")], [labelled("a", True)], []):
        with pytest.raises(DataError, match="kto compares answers of several prompts"):
            ranked(lone, PreferConfig(loss="kto"))


class Engine:
    """Counts the tokens of answers, one rank of two that do the same."""

    world_size = 2

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank
        self.asked: list[list[str]] = []
        self.stepped: list[tuple[list[Any], Any]] = []

    def any_rank(self, flag: bool) -> bool:
        return flag

    def sum_over_ranks(self, values: Sequence[float]) -> np.ndarray:
        return np.array(values, dtype=np.float64)

    def answer_logprobs(self, groups: Sequence[Any], *, last: bool = False) -> list[np.ndarray]:
        self.asked.append([group.prompt_id for group in groups])
        return [np.array([-float(len(ids)) for ids in group.token_ids]) for group in groups]

    def step(self, groups: list[Any], objective: Any) -> dict[str, float]:
        self.stepped.append((groups, objective))
        return {"loss": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_text(tmp_path_factory.mktemp("model") / "text"))


def begun(folder: Path, model: str, engine: Engine, start: int = 0, **changes: Any) -> PreferenceRecipe:
    """The recipe of six examples, `e0` with the shortest answers, two of which are held out."""
    rows = [
        {
            "id": f"e{i}",
            "prompt": TEXT_PROMPT,
            "media": {},
            "answers": ["so angry" * (i + 1), "high"],
            "desirable": i % 2 == 0,
        }
        for i in range(6)
    ]
    write_rows(folder / "examples.jsonl", rows[:4])
    write_rows(folder / "validation.jsonl", rows[4:])
    learner = LearnerConfig(num_ranks=2, **changes.pop("learner", {}))
    config = PreferConfig(
        model=ModelConfig(path=model),
        task=TargetConfig(target="rlcore.tasks:Preferences", args={"train": "x", "model_path": model}),
        train=OfflineConfig(num_steps=5, batch_size=2, learner=learner),
        **changes,
    )
    recipe = PreferenceRecipe(config)
    recipe.begin(engine, folder, start)  # type: ignore[arg-type]
    return recipe


def ids(recipe: PreferenceRecipe) -> list[str]:
    return [group.prompt_id for groups in recipe.batches() for group in groups]


def test_every_epoch_takes_each_example_once_whoever_resumes(tmp_path: Path, model: str) -> None:
    first, second = (ids(begun(tmp_path, model, Engine(rank))) for rank in (0, 1))
    order = [name for both in zip(first, second, strict=True) for name in both]
    assert len(order) == 10
    assert sorted(order[:4]) == sorted(order[4:8]) == ["e0", "e1", "e2", "e3"]
    assert ids(begun(tmp_path, model, Engine(1), start=2)) == second[2:]
    others = ids(begun(tmp_path, model, Engine(0), seed=3)) + ids(begun(tmp_path, model, Engine(1), seed=3))
    assert others != first + second


def test_the_reference_is_computed_once_and_kept(tmp_path: Path, model: str) -> None:
    engines = [Engine(0), Engine(1)]
    recipe = begun(tmp_path, model, engines[0])
    assert engines[0].asked == [["e0"], ["e2"], ["e4"]]  # its share of each two
    kept = [row["logprobs"] for row in read_rows(tmp_path / REFERENCE)]
    assert [row[0] < 0 for row in kept] == [True, False] * 3  # the other rank's are 0 before the sum
    groups = next(iter(recipe.batches()))
    assert all(group.reference.tolist() == kept[int(group.prompt_id[1])] for group in groups)
    for start in (0, 1):
        again = Engine(1)
        begun(tmp_path, model, again, start=start)
        assert again.asked == []
    write_rows(tmp_path / REFERENCE, [{"logprobs": [0.0, 0.0]}])
    with pytest.raises(DataError, match=r"reference.jsonl: 1 lines for 6 examples; delete it"):
        begun(tmp_path, model, Engine(1), start=1)


def test_a_pair_that_is_too_long_is_an_error_or_dropped_whole(tmp_path: Path, model: str) -> None:
    size = len(begun(tmp_path, model, Engine(0))._validation[0].token_ids[0])
    (tmp_path / REFERENCE).unlink()
    limit = {"micro_batch_tokens": 30 + size // 2}
    with pytest.raises(DataError, match=r"row 'e\d' has \d+ tokens with its answers, .*micro_batch_tokens"):
        begun(tmp_path, model, Engine(0), learner=limit)
    engine = Engine(0)
    recipe = begun(tmp_path, model, engine, learner=limit | {"over_budget": "drop"})
    assert ["e4"] not in engine.asked and ["e0"] in engine.asked
    groups = [group for batch in recipe.batches() for group in batch]
    long = [group for group in groups if not recipe._fits(group)]
    short = [group for group in groups if recipe._fits(group)]
    if long and short:
        assert recipe.update(engine, [long[0], short[0]])["dropped_examples"] == 1  # type: ignore[arg-type]
        assert engine.stepped[0][1].num_examples == 1
    with pytest.raises(DataError, match=r"1 of 2 ranks have no example within"):
        recipe.update(engine, long[:1])  # type: ignore[arg-type]


def test_kto_trains_answers_against_a_point_of_reference(tmp_path: Path, model: str) -> None:
    engine = Engine(0)
    recipe = begun(tmp_path, model, engine, loss="kto")
    groups = [replace(group, reference=np.array([0.0, -9.0])) for group in next(iter(recipe.batches()))]
    metrics = recipe.update(engine, groups)  # type: ignore[arg-type]
    ((stepped, objective),) = engine.stepped
    assert [len(group.token_ids) for group in stepped] == [1]
    other = -float(len(groups[0].token_ids[1])) + 9.0
    assert metrics["kl"] == objective.kl == max(0.0, other) > 0
    assert math.isfinite(recipe.validate(engine)["validation_loss"])  # type: ignore[arg-type]


def test_a_reward_model_is_asked_after_each_answer(tmp_path: Path, model: str) -> None:
    engine = Engine(0)
    recipe = begun(tmp_path, model, engine, loss="bradley_terry", question="so high?")
    assert engine.asked == [] and not (tmp_path / REFERENCE).exists()
    (example,) = next(iter(recipe.batches()))
    tokenizer = AutoTokenizer.from_pretrained(model)
    read = [tokenizer.decode(ids) for ids in example.token_ids]
    asked = "<|im_end|>\n<|im_start|>user\nso high?<|im_end|>\n<|im_start|>assistant\n"
    assert [text.removesuffix(asked + end) for text, end in zip(read, "1010", strict=True)] == [
        *["so angry" * (int(example.prompt_id[1]) + 1)] * 2,
        *["high"] * 2,
    ]


def test_a_reward_of_a_folder_without_its_question_is_refused(model: str) -> None:
    with pytest.raises(DataError, match=r"verdict.json: no such file; args.model_path is a folder that"):
        Verdict(model)


def test_a_folder_that_holds_a_job_is_not_lost_by_chance(tmp_path: Path) -> None:
    config = PreferConfig(run_dir=str(tmp_path / "job"), model=ModelConfig(path="none"))
    with pytest.raises(ConfigError, match="holds no job to go on with"):
        prefer(config, resume=True)
    save_config(config, tmp_path / "job" / CONFIG)
    with pytest.raises(ConfigError, match=r"holds a job \(config.yaml\): --resume goes on .*, --overwrite"):
        prefer(config)
    changed = replace(config, train=replace(config.train, learner=LearnerConfig(lr=1.0)))
    with pytest.raises(ConfigError, match=r"train\.learner\.lr.*another value than the job in"):
        prefer(changed, resume=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "orpo"}, "loss: got 'orpo', must be"),
        ({"beta": 0.0}, "beta: got 0.0, must be above 0"),
        ({"label_smoothing": 0.5}, "label_smoothing: got 0.5, must be at least 0 and below 0.5"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing: got 0.1, must be 0 where loss is ipo"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PreferConfig(**settings)


def test_the_guide_names_every_key() -> None:
    guide = (Path(__file__).parents[4] / "docs" / "guides" / "preferences.md").read_text(encoding="utf-8")
    named = {key.split(".")[0] if not key.startswith("train.") else key for key in keys(PreferConfig)}
    named = {".".join(key.split(".")[:2]) for key in named} - {"train"}
    assert {key for key in named if f"`{key}`" not in guide} == set()
