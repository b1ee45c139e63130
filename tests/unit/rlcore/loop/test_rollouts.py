"""The pipeline, with a pool whose prompts finish when the test says so."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlcore.actors.group import PendingCall
from rlcore.config import RewardConfig, RolloutConfig, RunConfig, TrainConfig
from rlcore.errors import DataError, DeadlineError, RewardError
from rlcore.loop.rollouts import RolloutPipeline
from rlcore.loop.scored import ScoredGroup, group_arrays
from rlcore.loop.scoring import num_scorers
from rlcore.records.timeline import Clock, Recorder
from rlcore.types import Completion, FinishedJob, Group, Prompt

ANSWER = Completion(token_ids=(1,), logprobs=(0.0,), text="", finish_reason="stop", policy_version=0)
SCORERS = ThreadPoolExecutor(8)


class ScriptedPool:
    """Finishes, at each poll, the jobs that `next_finished` chooses of those that are unfinished."""

    def __init__(self, next_finished):
        self.stale: tuple[int, ...] = ()
        self.restored: list[tuple[int, ...]] = []
        self.unfinished: dict[int, Prompt] = {}
        self.submitted: list[list[int]] = []
        self.draws: dict[int, int] = {}
        self.cancelled: list[int] = []
        self.refused: set[int] = set()
        self.failed: set[int] = set()
        self._next_finished = next_finished

    def submit(self, jobs):
        self.submitted.append([job.id for job in jobs])
        self.unfinished |= {job.id: job.prompt for job in jobs}
        self.draws |= {job.id: job.draw for job in jobs}

    def wake(self):
        """Polls never wait."""

    def poll(self, timeout_s):
        done = self._next_finished(list(self.unfinished))
        prompts = {i: self.unfinished.pop(i) for i in done}
        groups = {
            i: Group(prompt=p, prompt_token_ids=(1,), completions=(ANSWER,)) for i, p in prompts.items()
        }
        return [
            FinishedJob(
                id=i,
                group=None if i in self.refused | self.failed else groups[i],
                num_encoded=1,
                failure="error" if i in self.failed else None,
            )
            for i in done
        ]

    def cancel(self, job_ids):
        for i in job_ids:
            self.cancelled.append(i)
            self.unfinished.pop(i, None)

    def describe(self):
        return "rollout[0] is ready"

    def restore(self, step):
        """As the controller, which brings weights to those that are stale."""
        self.restored.append(self.stale)
        self.stale = ()


def pipeline(
    next_finished,
    *,
    counts=lambda scored, step: True,
    before_score=lambda names: None,
    timeout_s=60.0,
    pool_class=ScriptedPool,
    **train,
):
    config = RunConfig(
        rollout=RolloutConfig(timeout_s=timeout_s),
        train=TrainConfig(num_steps=4, prompts_per_step=4, **{"groups_per_score": 2} | train),
    )
    scored: list[tuple[int, tuple[str, ...]]] = []
    lock = threading.Lock()

    def score(groups, step):
        names = tuple(group.prompt.id for group in groups)
        before_score(names)
        with lock:
            scored.append((step, names))
        return [
            ScoredGroup(group=group, scores={}, values={}, arrays=group_arrays(group, None))
            for group in groups
        ]

    pool = pool_class(next_finished)
    prompts = [Prompt(id=str(i), text="") for i in range(40)]
    made = RolloutPipeline(
        config,
        prompts,
        pool,
        score=lambda groups, step: SCORERS.submit(score, groups, step),
        counts=counts,
        restore=pool.restore,
    )
    return made, pool, scored


def ids(made, positions):
    return tuple(str(made._stream.index(position)) for position in positions)


def take(made, step):
    made.open(step)
    return made.take(step, Clock(Recorder(), step + 1))


def last_first(unfinished):
    return unfinished[-1:]


@pytest.mark.parametrize("next_finished", [last_first, lambda u: u[:1], lambda u: u])
def test_what_is_scored_together_does_not_depend_on_what_finishes_when(next_finished):
    made, pool, scored = pipeline(next_finished)
    for step in range(2):
        groups = take(made, step).groups
        assert tuple(s.group.prompt.id for s in groups) == ids(made, range(4 * step, 4 * step + 4))
    assert pool.submitted == [[0, 1, 2, 3], [4, 5, 6, 7]]  # a step's prompts start together
    assert pool.draws == {i: i for i in range(8)}  # whichever step they come in
    assert sorted(scored) == sorted(
        (step, ids(made, (first, first + 1))) for step in (0, 1) for first in (4 * step, 4 * step + 2)
    )
    assert made.num_encoded == 8 and not made.is_busy


def test_the_next_rollout_goes_on_while_the_learner_works():
    made, pool, _ = pipeline(lambda u: u[:1], staleness=1)
    take(made, 0)
    assert pool.submitted == [[0, 1, 2, 3, 4, 5, 6, 7]]
    # The learner is waited for only once nothing is left to do meanwhile.
    learner = SimpleNamespace(
        done=lambda: False, when_done=lambda callback: None, result=lambda timeout_s: "updated"
    )
    assert made.wait(learner, timeout_s=60) == "updated"
    assert not pool.unfinished and made.buffer.pending(1) == 0  # finished and scored meanwhile
    take(made, 1)
    assert pool.submitted[1] == [8, 9, 10, 11]
    made.stop()
    assert set(pool.cancelled) <= {8, 9, 10, 11} and not made.is_busy
    assert made.buffer.state_dict() == {"next_position": 12, "open_rounds": {"2": [8, 9, 10, 11]}}


def test_a_score_that_fails_during_an_update_ends_the_run_after_it():
    """The learner's step is whole, and counted, before anyone hears of the failure."""

    def fails(names):
        if names == ids(made, (4, 5)):
            raise RewardError("rewards.even: failed")

    may_finish = set(range(4))
    made, _, _ = pipeline(lambda u: [i for i in u if i in may_finish], staleness=1, before_score=fails)
    take(made, 0)
    may_finish |= {4, 5, 6, 7}
    looks = itertools.count()

    def is_done():
        failed = made._chunks[1][0].scores
        return failed is not None and failed.done() and next(looks) > 3

    learner = SimpleNamespace(
        done=is_done, when_done=lambda callback: None, result=lambda timeout_s: timeout_s
    )
    assert made.wait(learner, timeout_s=60) > 0  # not at its deadline
    with pytest.raises(RewardError, match="even: failed"):
        take(made, 1)


def test_who_waits_for_the_learner_goes_on_as_it_answers_and_restores_no_engine_meanwhile():
    may_finish = {0, 1, 2, 3}
    made, pool, _ = pipeline(lambda u: [i for i in u if i in may_finish], staleness=1)
    take(made, 0)
    may_finish.add(4)
    pool.stale = (0,)
    learner = SimpleNamespace(
        done=lambda: 4 not in pool.unfinished,
        when_done=lambda callback: None,
        result=lambda timeout_s: timeout_s,
    )
    assert made.wait(learner, timeout_s=10) > 0  # not at its deadline
    assert set(pool.unfinished) == {5, 6, 7}
    assert pool.restored == []  # the learner's weights are half an update's
    may_finish |= {5, 6, 7}
    take(made, 1)
    assert pool.restored == [(0,)]


class WaitingPool(ScriptedPool):
    """Whose polls end only with a finished job, or when they are woken."""

    def __init__(self, next_finished):
        super().__init__(next_finished)
        self._woken = threading.Event()

    def wake(self):
        self._woken.set()

    def poll(self, timeout_s):
        finished = super().poll(timeout_s)
        if not finished:
            assert self._woken.wait(60)
            self._woken.clear()
        return finished


def test_scores_and_the_learner_end_a_wait_for_the_pool():
    made, pool, _ = pipeline(
        lambda u: [i for i in u if i < 4],
        pool_class=WaitingPool,
        before_score=lambda names: time.sleep(0.01),
        staleness=1,
    )
    take(made, 0)
    learner = Future[str]()
    call = PendingCall("learner", "update", [learner], [0], lambda answers: answers[0])
    timer = threading.Timer(0.01, learner.set_result, ["updated"])
    timer.start()
    assert made.wait(call, timeout_s=60) == "updated"
    assert set(pool.unfinished) == {4, 5, 6, 7}
    timer.join(60)


def test_the_time_in_which_this_process_was_stopped_is_no_wait_for_the_pool(monkeypatch):
    now, polls = [0.0], []

    def stopped_in_every_second_poll(unfinished):
        polls.append(now[0])
        now[0] += 1000.0 if len(polls) % 2 else 0.2
        return unfinished[:1] if is_working and len(polls) % 4 == 0 else []

    monkeypatch.setattr("rlcore.loop.rollouts.time", SimpleNamespace(monotonic=lambda: now[0]))
    made, _, _ = pipeline(stopped_in_every_second_poll, timeout_s=12.0)
    is_working = True
    assert len(made.generate([Prompt(id="a", text=""), Prompt(id="b", text="")], step=0)) == 2
    is_working = False
    with pytest.raises(DeadlineError, match=r"no prompt was finished within 12 s \(rollout.timeout_s\)"):
        made.generate([Prompt(id="c", text="")], step=0)


def test_groups_without_signal_are_replaced_by_the_prompts_that_come_next():
    made, pool, _ = pipeline(last_first, counts=lambda s, step: s.group.prompt.id not in bad, max_replaced=9)
    bad = set(ids(made, [0, 3, 4]))
    round_ = take(made, 0)
    assert tuple(s.group.prompt.id for s in round_.groups) == ids(made, range(7))
    assert round_.num_replaced == 3
    assert pool.submitted == [[0, 1, 2, 3], [4], [5], [6]]
    assert pool.draws[5] == 5  # a function of its place alone
    take(made, 1)
    assert pool.submitted[4][0] == 7  # none is left out


def test_groups_are_replaced_in_the_order_of_their_prompts_whichever_are_scored_first():
    late = threading.Event()

    def second_chunk_first(names):
        if names == ids(made, [0, 1]):
            assert late.wait(10)
        if names == ids(made, [2, 3]):
            threading.Timer(0.2, late.set).start()

    made, pool, _ = pipeline(
        last_first,
        counts=lambda s, step: s.group.prompt.id not in bad,
        before_score=second_chunk_first,
        max_replaced=9,
    )
    bad = set(ids(made, [0, 2, 3]))
    take(made, 0)
    assert pool.submitted == [[0, 1, 2, 3], [4], [5, 6]]


def test_of_oversampled_prompts_the_last_to_finish_are_cancelled():
    made, pool, scored = pipeline(lambda u: u[-1:] if len(u) > 2 else [], oversample=0.5)
    round_ = take(made, 0)
    assert pool.submitted == [[0, 1, 2, 3, 4, 5]]
    assert len(round_.groups) == 4 and round_.num_cancelled == 2
    assert tuple(s.group.prompt.id for s in round_.groups) == ids(made, [2, 3, 4, 5])
    assert all(len(names) == 1 for _, names in scored)


def test_after_a_step_back_the_same_prompts_come_again_and_late_answers_count_for_nothing():
    made, pool, _ = pipeline(lambda u: [i for i in u if i in wanted], staleness=1)
    wanted = set(range(4))
    before = made.buffer.state_dict()
    take(made, 0)
    state = made.buffer.state_dict()
    assert set(pool.unfinished) == {4, 5, 6, 7}  # round 1, which is open beside round 0
    made.open(1)
    assert set(pool.unfinished) == set(range(4, 12))
    made.load_state_dict(state, step=1)
    assert sorted(pool.cancelled) == list(range(4, 12)) and not made.is_busy
    made.open(1)
    # Of the same places in the stream, under ids that were never given before.
    assert pool.submitted[-1] == list(range(12 + 4, 12 + 12))
    assert [pool.draws[i] for i in pool.submitted[-1]] == list(range(4, 12))
    wanted = set(pool.submitted[-1])
    assert tuple(s.group.prompt.id for s in made.take(1, Clock(Recorder(), 2)).groups) == ids(
        made, range(4, 8)
    )
    made.load_state_dict(before, step=0)
    wanted = set(range(100))
    assert tuple(s.group.prompt.id for s in take(made, 0).groups) == ids(made, range(4))


def test_prompts_that_do_not_fit_leave_the_step_smaller_until_nothing_is_left():
    made, pool, _ = pipeline(lambda u: u)
    pool.refused = {1, 2, 4, 5, 6, 7}
    round_ = take(made, 0)
    assert [s.group.prompt.id for s in round_.groups] == list(ids(made, [0, 3]))
    assert round_.num_dropped == 2
    with pytest.raises(DataError, match="step 2: all 4 prompts are over the engine's context"):
        take(made, 1)


def test_prompts_that_the_engine_gave_up_are_counted_by_themselves_and_named(caplog):
    made, pool, _ = pipeline(lambda u: u)
    pool.refused, pool.failed = {1, 6, 7}, {2, 3, 4, 5, -1}
    round_ = take(made, 0)
    assert [s.group.prompt.id for s in round_.groups] == list(ids(made, [0]))
    assert (round_.num_dropped, round_.num_failed) == (1, 2)
    name = ids(made, [2])[0]
    assert f"step 1: prompt {name} is left out: the engine ended its generation by 'error'" in caplog.text
    with pytest.raises(DataError, match="step 2: no prompt was answered: the engine gave up 2, 2 are over"):
        take(made, 1)
    prompts = [Prompt(id=name, text="") for name in "ab"]
    assert [g.prompt.id for g in made.generate(prompts, step=1, greedy=True)] == ["b"]
    assert "evaluation: prompt a is left out: the engine ended its generation by 'error'" in caplog.text
    pool.failed = {-3, -4}
    with pytest.raises(DataError, match="an evaluation: none of 2 prompts was answered"):
        made.generate(prompts, step=1, greedy=True)


def test_evaluation_prompts_go_beside_those_of_the_training():
    made, _, _ = pipeline(lambda u: u[:1], staleness=1)
    take(made, 0)
    prompts = [Prompt(id=name, text="") for name in "ab"]
    assert [g.prompt.id for g in made.generate(prompts, step=1, greedy=True)] == ["a", "b"]
    assert len(take(made, 1).groups) == 4


def test_an_evaluation_that_is_given_up_leaves_nothing_behind():
    made, pool, _ = pipeline(lambda u: u[:1], staleness=1)
    take(made, 0)
    prompts = [Prompt(id=name, text="") for name in "abc"]
    is_first = iter([False, True])
    assert made.generate(prompts, step=1, greedy=True, should_stop=lambda: next(is_first)) is None
    assert -3 in pool.cancelled and not any(i < 0 for i in pool.unfinished)
    assert len(take(made, 1).groups) == 4
    assert [g.prompt.id for g in made.generate(prompts, step=2, greedy=True)] == ["a", "b", "c"]


def test_an_evaluation_prompt_over_the_context_is_left_out():
    made, pool, _ = pipeline(lambda u: u)
    pool.refused = {-2}
    prompts = [Prompt(id=name, text="") for name in "abc"]
    assert [g.prompt.id for g in made.generate(prompts, step=0, greedy=True)] == ["a", "c"]


def test_a_rollout_that_stands_still_ends_the_run_and_says_who_does_what():
    made, _, _ = pipeline(lambda u: [], timeout_s=0.05)
    with pytest.raises(DeadlineError, match=r"rollout of step 1: .* 0\.05 s .*rollout\[0\] is ready"):
        take(made, 0)


def test_the_deadline_is_for_the_next_prompt_and_not_for_all(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("rlcore.loop.rollouts.time", SimpleNamespace(monotonic=lambda: now[0]))

    def at_every_second_poll(unfinished):
        now[0] += 25.0
        return unfinished[:1] if now[0] % 50 else []

    made, _, _ = pipeline(at_every_second_poll, timeout_s=60.0)
    assert len(take(made, 0).groups) == 4  # after 175 s, of which never 60 without a prompt


@pytest.mark.parametrize(
    ("wide", "num_chunks", "racing"),
    [
        ({}, 2, 2),
        ({"replicas": 4}, 2, 5),
        ({"replicas": 8, "concurrency": 2}, 5, 17),  # sixteen calls of a group, four groups a chunk
        ({"replicas": 4, "batch_size": 8}, 9, 33),
        ({"concurrency": 1000}, 64, 64),
    ],
)
def test_as_many_chunks_are_scored_as_the_replicas_have_room_for(wide, num_chunks, racing):
    config = RunConfig(rewards={"narrow": RewardConfig(), "wide": RewardConfig(**wide)})
    assert num_scorers(config) == num_chunks
    # Each group is a chunk of its own.
    assert num_scorers(replace(config, train=TrainConfig(oversample=0.5))) == racing


def test_a_reward_that_fails_on_a_later_round_waits_for_the_update():
    """The update at hand is finished first; the round that needs the scores raises."""

    def fail_on_the_second(names):
        if set(names) & set(ids(made, [5])):
            raise RewardError("no score")

    made, _, _ = pipeline(lambda u: u, staleness=1, before_score=fail_on_the_second)
    take(made, 0)
    answers = iter([False] * 20)
    learner = SimpleNamespace(
        done=lambda: next(answers, True), when_done=lambda callback: None, result=lambda timeout_s: "updated"
    )
    assert made.wait(learner, timeout_s=60) == "updated"
    with pytest.raises(RewardError, match="no score"):
        take(made, 1)


def test_scores_that_no_step_needs_may_fail():
    """Two of six prompts are too many: what is being scored of them is not waited for, and ends nothing."""
    release = threading.Event()

    def slow_and_bad(names):
        if set(names) & set(ids(made, [4, 5])):
            assert release.wait(10)
            raise RewardError("no score")

    made, _, _ = pipeline(lambda u: u, oversample=0.5, before_score=slow_and_bad)
    assert len(take(made, 0).groups) == 4
    release.set()
    assert len(made.generate([Prompt(id="a", text="")], step=1, greedy=True)) == 1
    deadline = time.monotonic() + 10
    while made.is_busy and time.monotonic() < deadline:
        made._advance()
        time.sleep(0.01)
    assert not made.is_busy
