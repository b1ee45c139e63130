"""What a teacher's log-probabilities are to the policy's tokens, and which teachers are none."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tiny_models import make_text
from transformers import AutoTokenizer

from rlcore.config import load_config
from rlcore.errors import ConfigError
from rlcore.rewards.loading import check_rewards
from rlcore.rewards.teacher import Teacher, check_same_tokens, score_of, token_advantages
from rlcore.types import Completion, Observation


def test_an_advantage_is_what_the_teacher_finds_likelier_than_the_policy() -> None:
    prompt_logprobs = (-9.0, -8.0, -0.25, -3.0, -1.5)  # the last three are the answer's
    found = token_advantages(prompt_logprobs, (-1.0, -0.5, -1.5))
    np.testing.assert_array_equal(found, [0.75, -2.5, 0.0])
    assert token_advantages(prompt_logprobs, ()).shape == (0,)


def test_the_mean_advantage_of_samples_is_minus_the_reverse_kl() -> None:
    """Exactly, where every token is weighed by the probability with which the policy samples it."""
    rng = np.random.default_rng(0)
    policy, teacher = (np.log(rng.dirichlet(np.ones(7))) for _ in range(2))
    mean = np.exp(policy) @ token_advantages(teacher, policy)
    assert mean == pytest.approx(-np.sum(np.exp(policy) * (policy - teacher)), abs=1e-12)
    assert mean < 0 and not token_advantages(policy, policy).any()


def test_what_an_environment_wrote_is_nobodys_choice() -> None:
    observed = Observation(first=1, num_tokens=2, offset=0, text="7")
    completion = Completion(
        token_ids=(5, 6, 7, 8),
        logprobs=(-1.0, 0.0, 0.0, -2.0),
        text="",
        finish_reason="stop",
        policy_version=0,
        observations=(observed,),
    )
    score = score_of(completion, (-9.0, -0.5, -30.0, -40.0, -1.0))
    assert (score.value, score.token_advantages) == (0.75, (0.5, 0.0, 0.0, 1.0))


def test_a_teacher_of_other_tokens_is_refused_by_name(tmp_path: Path) -> None:
    folder = str(make_text(tmp_path / "policy"))
    policy, larger = (AutoTokenizer.from_pretrained(folder) for _ in range(2))
    larger.add_tokens(["<more>"])
    check_same_tokens(larger, policy, "larger", "policy")
    with pytest.raises(ConfigError, match=r"of the policy's tokens 1 differ, the first is '<more>' \(\d+\)"):
        check_same_tokens(policy, larger, "policy", "larger")
    make_text(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    path.write_text(re.sub(r'"(\w)": 40,', '"0": 40,', path.read_text().replace('"0": ', '"x": ')))
    with pytest.raises(ConfigError, match=r"args.model_path: .*other has another tokenizer than the policy"):
        Teacher(str(tmp_path / "other"), folder)


def test_a_configuration_hands_the_task_to_the_teacher(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        """
model: {path: student}
task: {target: "rlcore.tasks:Rows", args: {train: rows.jsonl, model_path: "${model.path}", metric: null}}
rewards:
  teacher:
    target: "rlcore.rewards.teacher:Teacher"
    args: {model_path: big, policy_path: "${model.path}", task: "${task.target}", task_args: "${task.args}"}
"""
    )
    config = load_config([tmp_path / "run.yaml"])
    check_rewards(config.rewards)
    args = config.rewards["teacher"].args
    assert (args["task"], args["policy_path"]) == ("rlcore.tasks:Rows", "student")
    assert args["task_args"] == config.task.args
