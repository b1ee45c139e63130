"""Buffer, dispatcher, engines and versions through any order of events: none may pass the staleness bound,
lose a group or use one twice, or give work to an engine with old weights."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rlcore.actors.dispatch import READY, STALE, STARTING, Dispatcher
from rlcore.loop.rounds import GroupBuffer, Ticket

NUM_STEPS = 6


@dataclass
class FakeEngine:
    """Writes with the weights that it holds; a job begun under old weights goes on under new ones."""

    version: int
    started_at: dict[int, int]
    """Job to the version that wrote its first token."""


class TrainingStates(RuleBasedStateMachine):
    @initialize(
        per_step=st.integers(1, 4),
        staleness=st.integers(0, 3),
        oversample=st.sampled_from([0.0, 0.5, 1.0]),
        max_replaced=st.integers(0, 5),
        num_replicas=st.integers(1, 3),
    )
    def begin(self, per_step, staleness, oversample, max_replaced, num_replicas):
        self.settings = {"staleness": staleness, "oversample": oversample, "max_replaced": max_replaced}
        self.per_step, self.staleness = per_step, staleness
        self.buffer: GroupBuffer[tuple[int, int]] = GroupBuffer(per_step, **self.settings)
        self.dispatcher = Dispatcher(num_replicas)
        self.engines = {rank: FakeEngine(0, {}) for rank in range(num_replicas)}
        for rank in self.engines:
            self.dispatcher.started(rank, 0)
        self.tickets: dict[int, Ticket] = {}
        self.step = self.version = 0
        self.used: list[int] = []
        self.dropped = self.without_signal = 0
        self.cancelled: list[int] = []
        self.trained_steps: list[int] = []

    # ---- what the pipeline does

    def send(self, tickets):
        self.tickets |= {ticket.position: ticket for ticket in tickets}
        self.dispatcher.add(ticket.position for ticket in tickets)
        self.assign()

    def assign(self):
        for rank, jobs in self.dispatcher.assign().items():
            for job in jobs:
                self.engines[rank].started_at[job] = self.engines[rank].version

    def push(self, ranks):
        for rank in ranks:
            self.engines[rank].version = self.version
        self.dispatcher.updated(self.version, ranks)
        self.assign()

    def come_in(self, rank, job, has_signal):
        group = (job, self.engines[rank].started_at.pop(job))
        if not self.dispatcher.finish(rank, job):
            return
        changes = self.buffer.add(self.tickets.pop(job), group, counts=has_signal)
        for rank, jobs in self.dispatcher.cancel(t.position for t in changes.cancelled).items():
            for cancelled in jobs:
                assert cancelled in self.engines[rank].started_at
        self.cancelled += [ticket.position for ticket in changes.cancelled]
        for ticket in changes.cancelled:
            del self.tickets[ticket.position]
        self.send(changes.new)

    def running(self):
        return [(rank, job) for rank in sorted(self.engines) for job in sorted(self.engines[rank].started_at)]

    # ---- events

    @rule()
    def wait_for_the_next_step(self):
        self.send(self.buffer.open(self.step, NUM_STEPS))

    @precondition(lambda self: self.running())
    @rule(data=st.data(), has_signal=st.booleans())
    def a_group_is_finished(self, data, has_signal):
        self.come_in(*data.draw(st.sampled_from(self.running())), has_signal)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def a_prompt_is_over_the_context(self, data):
        rank, job = data.draw(st.sampled_from(self.running()))
        del self.engines[rank].started_at[job]
        if self.dispatcher.finish(rank, job):
            self.buffer.drop(self.tickets.pop(job))
            self.dropped += 1

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def an_engine_is_lost(self, data):
        rank = data.draw(st.sampled_from(sorted(self.engines)))
        del self.engines[rank]
        self.dispatcher.lost(rank)
        self.assign()

    @precondition(lambda self: self.dispatcher.ranks(STARTING))
    @rule(data=st.data())
    def an_engine_stands_again(self, data):
        rank = data.draw(st.sampled_from(self.dispatcher.ranks(STARTING)))
        self.engines[rank] = FakeEngine(0, {})  # with the weights of model.path
        self.dispatcher.started(rank, 0)
        self.assign()

    @rule(data=st.data())
    def many_groups_are_finished(self, data):
        """So that runs come far enough for weights to differ."""
        self.wait_for_the_next_step()
        for _ in range(data.draw(st.integers(1, 8))):
            if self.running():
                self.come_in(*self.running()[0], True)
        if self.buffer.is_ready(self.step):
            self.a_step_is_trained(data)

    @rule()
    def stale_engines_are_restored(self):
        self.push(self.dispatcher.ranks(STALE))

    @precondition(lambda self: self.buffer.is_ready(self.step))
    @rule(data=st.data())
    def the_next_step_is_trained(self, data):
        self.a_step_is_trained(data)

    def a_step_is_trained(self, data):
        round_ = self.buffer.take(self.step)
        for position, started_at in round_.groups:
            assert 0 <= self.version - started_at <= self.staleness
            self.used.append(position)
        self.trained_steps.append(round_.step)
        self.step += 1
        if data.draw(st.booleans()):  # else there was nothing to train on
            self.version += 1
            standing = self.dispatcher.ranks(READY, STALE)
            dies = data.draw(st.sets(st.sampled_from(standing))) if standing else set()
            for rank in dies:
                del self.engines[rank]
                self.dispatcher.lost(rank)
            self.push([rank for rank in standing if rank not in dies])

    @rule()
    def the_run_is_resumed(self):
        """From a checkpoint between two steps: what was in flight is generated again, by new engines."""
        state = self.buffer.state_dict()
        self.buffer = GroupBuffer(self.per_step, **self.settings)
        self.buffer.load_state_dict(state, step=self.step)
        self.dispatcher = Dispatcher(len(self.engines) + len(self.dispatcher.ranks(STARTING)))
        self.engines = {
            rank: FakeEngine(self.version, {}) for rank in range(len(self.dispatcher.ranks(STARTING)))
        }
        self.dispatcher.version = self.version
        for rank in self.engines:
            self.dispatcher.started(rank, self.version)
        self.tickets = {}

    # ---- what must hold

    @invariant()
    def no_group_is_used_twice_or_after_it_was_cancelled(self):
        assert len(set(self.used)) == len(self.used)
        assert self.trained_steps == list(range(self.step))

    @invariant()
    def every_ticket_is_somewhere(self):
        for step in range(self.step, NUM_STEPS):
            of_step = [ticket for ticket in self.tickets.values() if ticket.step == step]
            assert self.buffer.pending(step) == len(of_step)
        assert self.dispatcher.num_unfinished == len(self.tickets)

    @invariant()
    def only_engines_with_the_current_weights_are_given_work(self):
        for rank in self.dispatcher.ranks(READY):
            assert self.engines[rank].version == self.version
        if self.dispatcher.ranks(READY):
            assert not self.dispatcher.waiting

    @invariant()
    def no_more_is_under_way_than_the_bound_allows(self):
        assert {ticket.step for ticket in self.tickets.values()} <= set(
            range(self.step, self.step + self.staleness + 1)
        )

    def teardown(self):
        """From wherever it is, the run comes to its end."""
        if not hasattr(self, "buffer"):
            return
        for rank in self.dispatcher.ranks(STARTING):
            self.engines[rank] = FakeEngine(0, {})
            self.dispatcher.started(rank, 0)
        self.stale_engines_are_restored()
        for _ in range(NUM_STEPS * 100):
            if self.step >= NUM_STEPS:
                break
            self.wait_for_the_next_step()
            if self.buffer.is_ready(self.step):
                for position, started_at in self.buffer.take(self.step).groups:
                    assert self.version - started_at <= self.staleness
                    self.used.append(position)
                self.trained_steps.append(self.step)
                self.step, self.version = self.step + 1, self.version + 1
                self.push(sorted(self.engines))
            elif self.running():
                self.come_in(*self.running()[0], True)
        assert self.step == NUM_STEPS
        self.no_group_is_used_twice_or_after_it_was_cancelled()


TestTrainingStates = TrainingStates.TestCase
TestTrainingStates.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_round_counts_what_became_of_its_prompts():
    buffer: GroupBuffer[str] = GroupBuffer(2, oversample=0.5, max_replaced=1)
    first, second, third = buffer.open(0, 1)
    assert buffer.add(first, "no", counts=False).new == ()  # two others are under way
    assert buffer.add(second, "no", counts=False).new == (Ticket(0, 3),)
    buffer.drop(third)
    assert not buffer.is_ready(0)
    buffer.add(Ticket(0, 3), "yes")
    assert buffer.is_ready(0)
    taken = buffer.take(0)
    assert taken.groups == ("no", "no", "yes")
    assert (taken.num_replaced, taken.num_cancelled, taken.num_dropped) == (1, 0, 1)
    with pytest.raises(AssertionError):
        buffer.take(0)


def test_the_first_to_finish_make_the_round_and_the_others_are_cancelled():
    buffer: GroupBuffer[int] = GroupBuffer(2, oversample=1.0)
    tickets = buffer.open(0, 3)
    assert len(tickets) == 4
    buffer.add(tickets[3], 3)
    assert buffer.add(tickets[1], 1).cancelled == (tickets[0], tickets[2])
    assert buffer.add(tickets[0], 0).cancelled == ()  # too late: thrown away
    assert buffer.take(0).groups == (1, 3)


def test_a_resumed_run_may_be_less_stale_and_take_more_prompts_per_step():
    """Every prompt is still used once, and those of rounds that were open come first."""
    before: GroupBuffer[int] = GroupBuffer(2, staleness=2)
    assert [ticket.position for ticket in before.open(0, 9)] == [0, 1, 2, 3, 4, 5]
    resumed: GroupBuffer[int] = GroupBuffer(3, staleness=0)
    resumed.load_state_dict(before.state_dict(), step=0)
    used = []
    for step in range(4):
        for ticket in resumed.open(step, 9):
            assert resumed.add(ticket, ticket.position).new == ()
        used.append(resumed.take(step).groups)
    assert used == [(0, 1, 6), (2, 3, 7), (4, 5, 8), (9, 10, 11)]


def test_jobs_are_dealt_in_turn_to_idle_replicas_and_by_load_to_busy_ones():
    dispatcher = Dispatcher(2)
    dispatcher.add(range(3))
    assert dispatcher.assign() == {}
    dispatcher.started(0, 0), dispatcher.started(1, 0)
    assert dispatcher.assign() == {0: [0, 2], 1: [1]}
    assert dispatcher.finish(1, 1) and not dispatcher.finish(1, 2)
    dispatcher.add([3, 4])
    assert dispatcher.assign() == {1: [3, 4]}
    assert dispatcher.lost(1) == [3, 4]
    assert dispatcher.assign() == {0: [3, 4]}
    dispatcher.started(1, 0)
    dispatcher.updated(1, [0])
    assert dispatcher.ranks(STALE) == [1]
    dispatcher.add([5])
    assert dispatcher.assign() == {0: [5]}
