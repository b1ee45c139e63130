from __future__ import annotations

from dataclasses import replace

from rlcore.config import AlgorithmConfig, LearnerConfig, PTRConfig, RewardConfig, RunConfig, TrainConfig
from rlcore.loop.extension import consequences

CONFIG = RunConfig(train=TrainConfig(num_steps=8), learner=LearnerConfig(lr=0.5))
REWARDS = "rewards are told 8 steps from here on (context.num_steps), not 4"


def test_what_is_given_in_steps_stays() -> None:
    assert list(consequences(CONFIG, 4, 4)) == [REWARDS]
    fades = AlgorithmConfig(ptr=PTRConfig(schedule="anneal", anneal_steps=4, reasoning="a"))
    given = replace(CONFIG, algorithm=fades, rewards={"a": RewardConfig(target="a:A")})
    assert list(consequences(given, 4, 4)) == [REWARDS]
    warm = replace(CONFIG, learner=replace(CONFIG.learner, lr_schedule="linear", warmup_steps=6))
    assert list(consequences(warm, 4, 2)) == [REWARDS]


def test_what_is_a_share_of_the_run_is_said_with_both_values() -> None:
    linear = replace(CONFIG, learner=replace(CONFIG.learner, lr_schedule="linear", updates_per_batch=2))
    assert list(consequences(linear, 4, 4)) == [
        REWARDS,
        "learner.lr_schedule linear is over 8 steps from here on, not 4: the next learning rate is 0.25, and "
        "would have been 0",
    ]
    fades = AlgorithmConfig(ptr=PTRConfig(schedule="anneal", reasoning="a"))
    null = replace(CONFIG, algorithm=fades, rewards={"a": RewardConfig(target="a:A")})
    assert list(consequences(null, 4, 4)) == [
        REWARDS,
        "algorithm.ptr.anneal_steps is null and so 8 from here on, not 4: the reasoning reward's next factor "
        "is 0.607, and would have been 0.368; with algorithm.ptr.anneal_steps=4 it fades as before",
    ]


def test_the_window_of_a_gate_follows_the_run() -> None:
    gated = AlgorithmConfig(ptr=PTRConfig(outcome="a"))
    rewards = {"a": RewardConfig(target="a:A")}
    long = replace(CONFIG, train=TrainConfig(num_steps=3000), algorithm=gated, rewards=rewards)
    told = list(consequences(long, 1000, 500))
    assert [line.split(":")[0] for line in told[1:]] == [
        "algorithm.ptr.window is null and so 150 from here on, not 50"
    ]
    assert len(list(consequences(replace(long, train=TrainConfig(num_steps=600)), 1, 1))) == 1
