"""The controller's decisions, with actors that answer at once."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from rlcore.actors.crew import Actors
from rlcore.algorithms.advantage import ADVANTAGES, group_advantages
from rlcore.config import (
    AlgorithmConfig,
    LearnerConfig,
    PTRConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    TrainConfig,
)
from rlcore.errors import ConfigError, DataError, LogprobError
from rlcore.loop.controller import Controller
from rlcore.loop.mixing import closed_for_good
from rlcore.loop.scored import ScoredGroup, group_arrays
from rlcore.types import Completion, FinishedJob, Group, Prompt, RewardContext, Score, TrainBatch

K = 4
ANSWER = Completion(token_ids=(1, 2), logprobs=(-1.0, -1.0), text="", finish_reason="stop", policy_version=1)
SCORES = {"outcome": [[1, 0, 0, 0], [1, 1, 1, 1]], "reasoning": [[0.2, 0.8, 0.8, 0.8], [0.5, 0.6, 0.7, 0.8]]}
TAU = math.exp(0.2 - 0.8)


class FakeActors:
    """Records calls; `result` is what every one of them gives."""

    size, num_restarts = 1, 0
    name = "fake"

    def __init__(self, result=None):
        self.calls: list[str] = []
        self.contexts: list[RewardContext] = []
        self._result = result

    def call(self, method: str, *arguments, timeout_s: float):
        self.calls.append(method)
        return self._result(method, *arguments)

    def call_one(self, rank: int, method: str, *arguments, timeout_s: float):
        return self.call(method, *arguments, timeout_s=timeout_s)[rank]

    def call_async(self, method: str, *arguments):
        result = self.call(method, *arguments, timeout_s=0)
        return SimpleNamespace(
            done=lambda: True, when_done=lambda callback: callback(), result=lambda timeout_s: result
        )

    def call_each_async(self, method: str, arguments):
        """As one actor that has all parts."""
        groups = tuple(group for (part,) in arguments for group in part.groups)
        return self.call_async(method, replace(arguments[0][0], groups=groups))

    def call_shards(self, method: str, groups, *, timeout_s: float):
        self.calls.append(method)
        # As many as asked for: a prompt that replaces another is answered as the first.
        return self._result[: len(groups)]

    def score(self, groups, context):
        """As a reward's pool."""
        self.contexts.append(context)
        return self._result[: len(groups)]


class FakePool:
    """Finishes every job at once, with `answers`."""

    stale, standing, num_restarts = (), (0,), 0

    def __init__(self, answers=(ANSWER,) * K):
        self._jobs, self._answers = [], answers

    def submit(self, jobs):
        self._jobs += jobs

    def wake(self):
        pass

    def poll(self, timeout_s: float):
        jobs, self._jobs = self._jobs, []
        groups = [Group(prompt=j.prompt, prompt_token_ids=(1,), completions=self._answers) for j in jobs]
        return [FinishedJob(id=j.id, group=g, num_encoded=1) for j, g in zip(jobs, groups, strict=True)]

    def cancel(self, job_ids):
        """Nothing is under way between two polls."""

    def update_weights(self, push, ranks, *, timeout_s: float):
        return ranks


def learning(**update: float) -> FakeActors:
    """A learner, whose answer to a batch is `update`, and the batch."""

    def learn(method: str, *arguments):
        found = {"loss": 0.5, "current_fraction": 0.0, "logprob_max_diff": 0.0, "batch": arguments[0]}
        return [found | update] if method == "update" else [None]

    return FakeActors(learn)


def controller(
    ptr: PTRConfig | None = None,
    scores=SCORES,
    num_ranks: int = 2,
    learner=None,
    train=None,
    actors=None,
    max_tokens: int = 1,
    **algorithm,
) -> Controller:
    config = RunConfig(
        rewards={
            "outcome": RewardConfig(weight=1.0, on_error="mask"),
            "reasoning": RewardConfig(weight=0.5, on_error="mask"),
        },
        algorithm=AlgorithmConfig(
            ptr=ptr or PTRConfig(outcome="outcome", reasoning="reasoning"), **{"kl_coef": 0.0} | algorithm
        ),
        rollout=RolloutConfig(max_tokens=max_tokens),  # within every budget here; completions are given
        learner=LearnerConfig(num_ranks=num_ranks, **(learner or {})),
        train=TrainConfig(num_steps=20, prompts_per_step=2, **(train or {})),
    )
    prompts = [Prompt(id=str(i), text="") for i in range(2)]
    rewards = {name: FakeActors(made(rows)) for name, rows in scores.items()}
    all_actors = {"rollout": FakePool(), "rewards": rewards, "learner": learning(), "reference": None}
    made_controller = Controller(config, prompts, Actors(**all_actors | (actors or {})))
    made_controller.weights.version = 1
    return made_controller


def made(rows) -> list[list[Score]]:
    def score(v) -> Score:
        return v if isinstance(v, Score) else Score(0.0, error="no") if v is None else Score(v)

    return [[score(v) for v in row] for row in rows]


def scored(scores=SCORES) -> list[ScoredGroup]:
    """Two groups as scoring gives them; None is a failed score, to be masked."""
    group = Group(prompt=Prompt(id="0", text=""), prompt_token_ids=(1,), completions=(ANSWER,) * K)
    rows = {name: made(rows) for name, rows in scores.items()}
    return [
        ScoredGroup(
            group=group,
            scores={name: of_name[g] for name, of_name in rows.items()},
            values={
                name: np.array([np.nan if score.error else score.value for score in of_name[g]])
                for name, of_name in rows.items()
            },
            arrays=group_arrays(group, None),
        )
        for g in range(2)
    ]


def mix(chosen: Controller) -> tuple[np.ndarray, float]:
    """One step's mix, after which the schedule moves on."""
    mixed = chosen.mixer.mix(scored(), chosen.step)
    assert chosen.mixer.mix(scored(), chosen.step).factor == mixed.factor  # asking changes nothing
    chosen.mixer.advance(scored(), chosen.step)
    return mixed.rewards, mixed.factor


def expected(factor: float, tau: float = TAU) -> np.ndarray:
    outcome, reasoning = np.array(SCORES["outcome"]), np.array(SCORES["reasoning"])
    return outcome + 0.5 * factor * np.array([[tau], [1.0]]) * reasoning


def ptr(**settings) -> PTRConfig:
    return PTRConfig(outcome="outcome", reasoning="reasoning", **settings)


def test_the_variants_of_the_paper_are_settings_of_one_mix():
    rewards, factor = mix(controller(ptr(schedule="constant")))
    assert factor == 1.0
    np.testing.assert_allclose(rewards, expected(1.0))
    np.testing.assert_allclose(mix(controller(ptr(schedule="constant", trust=False)))[0], expected(1.0, 1.0))
    np.testing.assert_allclose(mix(controller(PTRConfig()))[0], expected(1.0, 1.0))


def test_the_gate_keeps_reasoning_out_until_the_outcome_is_stable_and_resumes():
    gated = controller(ptr(threshold=0.5, window=3))  # the outcome's mean is 0.625
    results = [mix(gated) for _ in range(3)]
    assert [factor for _, factor in results] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(results[0][0], expected(0.0))
    resumed = controller(ptr(threshold=0.5, window=3))
    resumed.load_state_dict(gated.state_dict())
    rewards, factor = mix(resumed)
    assert factor == 1.0
    np.testing.assert_allclose(rewards, expected(1.0))


def test_annealing_fades_over_the_run_or_over_its_own_time():
    fading = controller(ptr(schedule="anneal"))
    assert mix(fading)[1] == 1.0
    fading.step = 5
    rewards, factor = mix(fading)
    assert factor == pytest.approx(math.exp(-5 / 20))
    np.testing.assert_allclose(rewards, expected(math.exp(-5 / 20)))
    faster = controller(ptr(schedule="anneal", anneal_steps=2.5))
    faster.step = 5
    assert mix(faster)[1] == pytest.approx(math.exp(-2))


def test_a_group_without_signal_is_dropped_and_counted():
    rules = ptr(schedule="progressive", threshold=0.99)  # outcome alone: the second group is all right
    kept, dropped = (
        controller(rules).train_step(),
        controller(rules, drop_groups_without_signal=True).train_step(),
    )
    assert (kept.metrics["batch/sequences"], kept.metrics["batch/tokens"]) == (8, 16)
    assert (dropped.metrics["batch/sequences"], dropped.metrics["batch/tokens"]) == (4, 8)
    assert (kept.metrics["batch/groups_dropped"], dropped.metrics["batch/groups_dropped"]) == (0, 1)
    assert kept.metrics["groups_without_signal"] == dropped.metrics["groups_without_signal"] == 0.5
    np.testing.assert_array_equal(kept.advantages.samples, dropped.advantages.samples)
    batch: TrainBatch = dropped.metrics["batch"]
    # Halved, so that both ranks have a part; the totals are the whole batch's.
    assert [(group.prompt_id, len(group.token_ids)) for group in batch.groups] == [("0", 2), ("0", 2)]
    assert (batch.num_sequences, batch.num_tokens) == (4, 8)


def test_steps_that_a_reward_judges_reach_the_batch():
    """All answers of the second group are right: only what a step of one and of another is worth differs."""
    judged = [Score(1.0, token_values={1: 0.75}), Score(1.0, token_values={0: 0.25}), 1.0, 1.0]
    scores = {"outcome": [SCORES["outcome"][0], judged], "reasoning": SCORES["reasoning"]}
    result = controller(ptr(threshold=0.99), scores, drop_groups_without_signal=True).train_step()
    assert result.metrics["groups_without_signal"] == 0
    assert result.metrics["reward/outcome/token_values"] == pytest.approx(1 / 8)
    first, second = result.metrics["batch"].groups
    assert not np.concatenate(first.token_advantages).any() and not second.advantages.any()
    rows = np.array([row.tolist() for row in second.token_advantages])
    np.testing.assert_allclose(rows, [[1, 1], [-1, 0], [0, 0], [0, 0]], rtol=1e-3)


@pytest.mark.parametrize("estimator", ["grpo", "gdpo"])
def test_advantages_that_a_reward_gives_its_tokens_are_taken_as_they_are(estimator: str):
    """The outcome's advantages are as without the teacher, whose own value is no part of any sum."""
    taught = [Score(-9.0, token_advantages=(-0.5, 0.25)), Score(7.0, token_advantages=(0.0, 1.0)), 0.0, 0.0]
    scores = {"outcome": SCORES["outcome"], "reasoning": [taught, [1.0] * K]}
    settings = {"advantage": estimator, "drop_groups_without_signal": True}
    result = controller(ptr(schedule="constant", trust=False), scores, **settings).train_step()
    alone = controller(ptr(schedule="progressive", threshold=0.99), scores, **settings).train_step()
    np.testing.assert_array_equal(result.advantages.samples, alone.advantages.samples)
    assert result.metrics["reward/mean"] == alone.metrics["reward/mean"]
    assert result.metrics["reward/reasoning"] == pytest.approx((-9 + 7 + 4) / 8)
    rows = np.array([row for group in result.metrics["batch"].groups for row in group.token_advantages])
    np.testing.assert_allclose(rows, 0.5 * np.array([[-0.5, 0.25], [0, 1], [0, 0], [0, 0]]))
    # Of the second group all outcomes are equal, and no token is told anything.
    assert result.metrics["groups_without_signal"] == 0.5


def test_a_teacher_alone_is_a_signal_and_a_failed_answer_is_left_out():
    told = [Score(-1.0, token_advantages=(-1.0, -1.0)), Score(0.0, error="gone"), 0.0, 0.0]
    scores = {"outcome": SCORES["outcome"], "reasoning": [[0.0] * K, told]}
    settings = {"drop_groups_without_signal": True}
    config = ptr(schedule="constant", trust=False)
    result = controller(config, scores, **settings).train_step()
    assert result.metrics["groups_without_signal"] == 0
    assert result.advantages.keep.tolist() == [[True] * 4, [True, False, True, True]]
    assert result.advantages.tokens[1][1].tolist() == [0, 0]


def test_clip_cov_takes_the_advantage_of_likely_tokens_of_good_answers():
    """Log-probabilities -1 and -3, of mean -2: the likely token of the one right answer stands out."""
    answer = replace(ANSWER, logprobs=(-1.0, -3.0))
    scores = SCORES | {"outcome": [[1, 0, 0, 0], [1, 1, 1, 1]]}
    settings = {"clip_cov": 1.0, "clip_cov_bounds": (1.0, 5.0), "drop_groups_without_signal": True}
    actors = {"rollout": FakePool((answer,) * K)}
    result = controller(ptr(threshold=0.99), scores, actors=actors, **settings).train_step()
    assert result.metrics["batch/cov_clipped"] == 1 / 8
    halves = result.metrics["batch"].groups
    rows = [a + t for group in halves for a, t in zip(group.advantages, group.token_advantages, strict=True)]
    right, wrong = math.sqrt(3), -1 / math.sqrt(3)
    np.testing.assert_allclose(rows, [[0.0, right], *[[wrong, wrong]] * 3], rtol=1e-3)
    assert rows[0][0] == 0.0
    assert "batch/cov_clipped" not in controller(ptr(threshold=0.99), scores).train_step().metrics


def test_kl_cov_marks_the_tokens_of_the_highest_covariance():
    actors = {"rollout": FakePool((replace(ANSWER, logprobs=(-1.0, -3.0)),) * K)}
    settings = {"kl_cov": 0.25, "drop_groups_without_signal": True}
    result = controller(ptr(threshold=0.99), actors=actors, **settings).train_step()
    assert result.metrics["batch/cov_held_back"] == 2 / 8
    rows = [row.tolist() for group in result.metrics["batch"].groups for row in group.held_back]
    # Of the right answer the likely token; of the wrong ones the unlikely, of which the first is taken.
    assert rows == [[True, False], [False, True], [False, False], [False, False]]
    assert all(not group.token_advantages for group in result.metrics["batch"].groups)


@pytest.mark.parametrize("drop", [False, True])
def test_gdpo_weighs_trust_into_the_normalised_reasoning(drop: bool):
    """Outcome and reasoning point apart in the first group; in the second only the reasoning differs."""
    settings = {"advantage": "gdpo", "std_eps": 1e-6, "drop_groups_without_signal": drop}
    result = controller(ptr(schedule="constant"), **settings).train_step()
    outcome, reasoning = np.array(SCORES["outcome"], float), np.array(SCORES["reasoning"])
    normalised = (reasoning - reasoning.mean(1, keepdims=True)) / reasoning.std(1, keepdims=True)
    total = 0.5 * np.array([[TAU], [1.0]]) * normalised
    total[0] += (outcome[0] - outcome[0].mean()) / outcome[0].std()
    np.testing.assert_allclose(result.advantages.samples, total / total.std(), rtol=1e-4)
    sent = np.concatenate([group.advantages for group in result.metrics["batch"].groups])
    np.testing.assert_allclose(sent, (total / total.std()).ravel(), rtol=1e-4)
    # While the gate is closed, the reasoning is no term.
    closed = controller(ptr(threshold=0.99), **settings).train_step()
    assert closed.metrics["groups_without_signal"] == 0.5 and not closed.advantages.samples[1].any()


@pytest.mark.parametrize(("estimator", "worth"), [("dr_grpo", 0.5), ("grpo", 0.5 / (0.5 + 0.3))])
def test_later_steps_count_less_by_the_discount(estimator: str, worth: float):
    judged = [Score(1.0, token_values={0: 1.0, 1: 1.0}), Score(1.0, token_values={0: 0.0, 1: 0.0}), 1.0, 1.0]
    scores = {"outcome": [SCORES["outcome"][0], judged], "reasoning": SCORES["reasoning"]}
    settings = {"advantage": estimator, "std_eps": 0.3, "step_discount": 0.25}
    _, group = controller(ptr(threshold=0.99), scores, **settings).train_step().metrics["batch"].groups
    np.testing.assert_allclose(group.token_advantages[0], [worth + 0.25 * worth, worth], rtol=1e-5)


@pytest.mark.parametrize("estimator", ["dr_grpo", "grpo"])
def test_what_the_settings_take_off_the_rewards_is_in_the_advantages(estimator: str):
    """The outcome of the second group is the same for all: only their KL tells its answers apart, which is
    in the advantages but no signal."""
    kl = np.array([[0.0, 0.5, 1.0, 1.5], [2.0, 0.0, 0.0, 0.0]])
    reference = [[np.array([-1.0, -1.0 - nats], np.float32) for nats in of_group] for of_group in kl]
    settings = {"kl_coef": 0.5, "kl_in": "reward", "kl_estimator": "k1", "std_eps": 0.3}

    def step(**more):
        actors = {"reference": FakeActors(reference)}
        return controller(
            ptr(threshold=0.99), actors=actors, advantage=estimator, **settings, **more
        ).train_step()

    result, dropping = step(), step(drop_groups_without_signal=True)
    shaped = group_advantages(
        np.array(SCORES["outcome"]) - 0.5 * kl, estimator=ADVANTAGES[estimator], eps=0.3
    )
    np.testing.assert_allclose(result.advantages.samples, shaped, rtol=1e-5)
    sent = [group.advantages for group in result.metrics["batch"].groups]
    np.testing.assert_allclose(sent, shaped, rtol=1e-5)
    assert result.metrics["groups_without_signal"] == dropping.metrics["groups_without_signal"] == 0.5
    sent = np.concatenate([group.advantages for group in dropping.metrics["batch"].groups])
    np.testing.assert_allclose(sent, shaped[0], rtol=1e-5)


def test_answers_that_were_cut_are_left_out_where_the_settings_say_so():
    cut = replace(ANSWER, finish_reason="length")
    for mask_truncated, num_sequences in ((True, 6), (False, 8)):
        pool = FakePool((cut, ANSWER, ANSWER, ANSWER))
        chosen = controller(actors={"rollout": pool}, mask_truncated=mask_truncated)
        assert chosen.train_step().metrics["batch"].num_sequences == num_sequences


def test_a_failed_reward_leaves_its_completion_out_and_is_counted():
    scores = {"outcome": [[1, None, 0, 0], [None] * 4], "reasoning": SCORES["reasoning"]}
    result = controller(ptr(threshold=0.99), scores).train_step()
    assert result.metrics["reward/masked"] == result.metrics["reward_errors/outcome"] == 5
    assert result.metrics["batch/sequences"] == 3
    assert result.metrics["batch/groups_dropped"] == 0  # it had nothing to drop
    samples = result.advantages.samples
    assert np.isfinite(samples).all() and samples[0, 1] == 0
    np.testing.assert_allclose(samples[0, 0], math.sqrt(2), rtol=1e-3)


def test_a_step_with_nothing_to_learn_from_changes_nothing():
    scores = {"outcome": [[None] * 4, [1, None, None, None]], "reasoning": SCORES["reasoning"]}
    idle = controller(ptr(threshold=0.99), scores)
    result = idle.train_step()
    assert (result.metrics["update_skipped"], result.metrics["policy_version"]) == (1.0, 1.0)
    assert idle.actors.learner.calls == []
    busy = controller(ptr(threshold=0.99), scores, num_ranks=1)
    assert busy.train_step().metrics["update_skipped"] == 0.0
    assert busy.actors.learner.calls == ["update", "announce_push", "push_weights"]


def test_samples_over_the_learners_budget_end_the_run_or_are_left_out_and_counted():
    """Every row has a prompt of one token and two completion tokens."""
    with pytest.raises(DataError, match=r"8 samples exceed learner.micro_batch_tokens \(2\): prompt 0 "):
        controller(learner={"micro_batch_tokens": 2}).train_step()
    idle = controller(learner={"micro_batch_tokens": 2, "over_budget": "drop"})
    metrics = idle.train_step().metrics
    assert (metrics["update_skipped"], metrics["dropped_samples"]) == (1.0, 8.0)
    assert idle.actors.learner.calls == []
    fitting = controller(learner={"micro_batch_tokens": 3}).train_step().metrics
    assert (fitting["update_skipped"], fitting["dropped_samples"]) == (0.0, 0.0)


def test_samples_over_the_budget_leave_before_the_advantages():
    """Only the right answer is too long: the others must not be trained down for it."""
    long = replace(ANSWER, token_ids=(1, 2, 3), logprobs=(-1.0,) * 3)
    learner = {"micro_batch_tokens": 3, "over_budget": "drop"}
    chosen = controller(
        ptr(threshold=0.99),
        {"outcome": [[1, 0, 0, 0]] * 2, "reasoning": SCORES["reasoning"]},
        learner=learner,
        actors={"rollout": FakePool((long, ANSWER, ANSWER, ANSWER))},
        advantage="grpo",
    )
    result = chosen.train_step()
    assert result.metrics["dropped_samples"] == 2
    assert result.advantages.samples.tolist() == [[0, 0, 0, 0]] * 2
    assert result.metrics["batch/sequences"] == 6 and result.metrics["groups_without_signal"] == 1.0


def test_the_gate_does_not_move_where_every_outcome_failed():
    gated = controller(ptr(window=3, threshold=0.0))
    for _ in range(3):
        gated.mixer.advance(scored({"outcome": [[None] * 4] * 2, "reasoning": SCORES["reasoning"]}), 0)
    assert gated.mixer.schedule.factor(0) == 0.0


@pytest.mark.parametrize(
    ("settings", "num_steps", "is_told"),
    [({}, 30, True), ({}, 31, False), ({"window": 8}, 8, True), ({"schedule": "constant"}, 8, False)],
)
def test_a_gate_that_no_step_can_open_is_told(settings, num_steps, is_told):
    config = controller(ptr(**settings)).config
    config = replace(config, train=replace(config.train, num_steps=num_steps))
    assert ("the gate cannot open" in (closed_for_good(config) or "")) == is_told


def test_the_factor_of_a_step_is_settled_by_its_first_group():
    """With staleness, groups of the next step come in while the gate opens: they are not looked at by one
    factor and trained on by another."""
    gated = controller(ptr(threshold=0.5, window=3), drop_groups_without_signal=True)
    for step in range(2):
        gated.mixer.advance(scored(), step)
    gated.mixer.counts(scored()[0], 3)
    gated.mixer.advance(scored(), 2)
    assert gated.mixer.schedule.factor(3) == 1.0
    assert gated.mixer.mix(scored(), 3).factor == 0.0
    gated.mixer.advance(scored(), 3)
    assert gated.mixer.mix(scored(), 4).factor == 1.0


def test_rollout_and_learner_that_disagree_raise_the_alarm(caplog: pytest.LogCaptureFixture):
    chosen = controller()
    for action in ("warn", "abort"):
        limits = replace(chosen.config.train, max_logprob_diff=0.01, on_logprob_diff=action)
        chosen.config = replace(chosen.config, train=limits)
        chosen.check_logprobs({"logprob_max_diff": 0.01})
        chosen.check_logprobs({"update_skipped": 1.0})
        assert not caplog.records
        if action == "warn":
            chosen.check_logprobs({"logprob_max_diff": 0.02})
            assert "step 1: rollout and learner differ by 0.02" in caplog.text
            caplog.clear()
    with pytest.raises(LogprobError, match=r"train\.max_logprob_diff is 0\.01"):
        chosen.check_logprobs({"logprob_max_diff": 0.02})


def test_a_step_raises_the_alarm_itself_and_only_where_there_was_something_to_compare():
    limits = {"max_logprob_diff": 0.01, "on_logprob_diff": "abort"}
    nothing = controller(train=limits, actors={"learner": learning(logprob_max_diff=0.5)})
    assert "logprob_max_diff" not in nothing.train_step().metrics
    compared = controller(
        train=limits, actors={"learner": learning(logprob_max_diff=0.5, current_fraction=0.1)}
    )
    with pytest.raises(LogprobError, match=r"step 1: .* differ by 0\.5"):
        compared.train_step()


def test_a_group_without_signal_is_replaced_and_a_step_finds_enough():
    """Every second group has no signal, whatever prompt it is of."""
    rules = ptr(schedule="progressive", threshold=0.99)
    chosen = controller(rules, train={"max_replaced": 4}, drop_groups_without_signal=True)
    result = chosen.train_step()
    assert result.metrics["rollout/replaced_prompts"] == 1
    assert len(result.groups) == 3 and result.metrics["batch/sequences"] == 8
    assert chosen.rollouts.buffer.state_dict() == {"next_position": 3, "open_rounds": {}}


def test_after_a_step_back_versions_are_not_given_twice():
    """What engines were given by the learner that was lost is another policy than what comes now."""
    made = controller(ptr(threshold=0.99))
    start = made.state_dict()
    made.train_step()
    made.step, version = 1, made.weights.version
    assert version > start["policy_version"]
    made.load_state_dict(start)
    assert (made.step, made.weights.version) == (0, version)
    made.load_state_dict(start | {"policy_version": 40})
    assert made.weights.version == 40


def test_rewards_are_told_the_step_that_they_score_and_the_last_steps_figures():
    chosen, resumed = controller(ptr(threshold=0.99)), controller(ptr(threshold=0.99))
    groups = chosen.train_step().groups
    chosen.step = 1
    resumed.load_state_dict(chosen.state_dict())
    assert (resumed.step, resumed.weights.version) == (1, 2)
    chosen.scoring.score_groups(groups, step=2)  # of a round that runs ahead
    resumed.scoring.score_groups(groups, step=2)
    told = [c.actors.rewards["outcome"].contexts for c in (chosen, resumed)]
    first, ahead = told[0]
    assert (first.step, first.num_steps, first.statistics) == (0, 20, {})
    assert (ahead.step, ahead.num_steps, ahead.statistics["reward/outcome"]) == (2, 20, 0.625)
    assert told[1] == [ahead]


def signal_of_a_step(outcome, answers=(ANSWER,) * K, *, max_tokens=4, **algorithm) -> dict[str, float]:
    """Metrics of a step in which every group has these outcomes and answers, and three may be replaced."""
    scores = {"outcome": [outcome] * 2, "reasoning": SCORES["reasoning"]}
    chosen = controller(
        ptr(threshold=2.0),  # outcome alone
        scores,
        actors={"rollout": FakePool(answers)},
        train={"max_replaced": 3},
        drop_groups_without_signal=True,
        max_tokens=max_tokens,
        **algorithm,
    )
    return chosen.train_step().metrics


def of_lengths(*lengths: int, max_tokens: int = 4) -> tuple[Completion, ...]:
    return tuple(
        replace(
            ANSWER,
            token_ids=tuple(range(length)),
            logprobs=(-1.0,) * length,
            finish_reason="length" if length == max_tokens else "stop",
        )
        for length in lengths
    )


def test_groups_that_differ_in_length_alone_are_replaced_and_dropped():
    """DAPO's recipe, four right answers: an over-long penalty tells them apart and is no signal."""
    metrics = signal_of_a_step([1] * 4, of_lengths(1, 2, 3, 4), overlong_buffer=3)
    assert (metrics["rollout/replaced_prompts"], metrics["batch/groups_dropped"]) == (3, 5)
    assert (metrics["groups_without_signal"], metrics["update_skipped"]) == (1.0, 1.0)
    kept = signal_of_a_step([1, 0, 1, 1], of_lengths(1, 2, 3, 4), overlong_buffer=3)
    assert (kept["rollout/replaced_prompts"], kept["batch/groups_dropped"]) == (0, 0)


def test_a_truncated_answer_gives_no_signal_where_it_is_left_out():
    """Only the answer that was cut is wrong: once it is masked, the others agree."""
    answers = of_lengths(4, 2, 3, 3)
    masked = signal_of_a_step([0, 1, 1, 1], answers, mask_truncated=True)
    assert (masked["rollout/replaced_prompts"], masked["batch/groups_dropped"]) == (3, 5)
    counted = signal_of_a_step([0, 1, 1, 1], answers)
    assert (counted["rollout/replaced_prompts"], counted["batch/groups_dropped"]) == (0, 0)


def test_rewards_that_are_equal_within_rounding_are_no_signal():
    metrics = signal_of_a_step([0.1 + 0.2, 0.3, 0.3, 0.3])
    assert (metrics["rollout/replaced_prompts"], metrics["batch/groups_dropped"]) == (3, 5)


def test_a_group_is_mixed_alike_wherever_it_is_asked_for():
    """Whether a group counts, and the mix that is trained on, agree; to ask moves nothing."""
    chosen = controller(ptr(threshold=0.5, window=3), drop_groups_without_signal=True)
    before = chosen.state_dict()
    counts = [chosen.mixer.counts(one, 0) for one in scored()]
    assert chosen.state_dict() == before
    assert counts == chosen.mixer.mix(scored(), 0).has_signal.tolist() == [True, False]


WARM_UP = """
class WarmUp:
    \"\"\"The reasoning reward fades in over `window` steps.\"\"\"

    def __init__(self, window):
        self.window = window

    def factor(self, step):
        return min(1.0, step / self.window)

    def observe(self, outcome_mean):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


def test_a_schedule_of_your_own_from_outside(tmp_path, monkeypatch):
    (tmp_path / "my_schedule.py").write_text(WARM_UP)
    monkeypatch.syspath_prepend(tmp_path)
    fading = controller(ptr(schedule="my_schedule:WarmUp", window=4))
    assert mix(fading)[1] == 0.0
    fading.step = 3
    rewards, factor = mix(fading)
    assert factor == 0.75
    np.testing.assert_allclose(rewards, expected(0.75))
    with pytest.raises(ConfigError, match=r"schedule: got 'aneal', must be one of progressive, anneal"):
        ptr(schedule="aneal")
    (tmp_path / "my_wrong.py").write_text(
        "class Asks:\n    def __init__(self, ramp): pass\n"
        "class Lacks:\n    def factor(self, step): return 1.0\n"
        "made = Lacks()\n"
    )
    with pytest.raises(ConfigError, match=r"my_wrong:Asks may ask for threshold, window, .*'ramp'"):
        controller(ptr(schedule="my_wrong:Asks"))
    with pytest.raises(ConfigError, match="my_wrong:Lacks lacks observe, state_dict, load_state_dict"):
        controller(ptr(schedule="my_wrong:Lacks"))
    with pytest.raises(ConfigError, match="my_wrong:made is no class, but of type Lacks"):
        ptr(schedule="my_wrong:made")
