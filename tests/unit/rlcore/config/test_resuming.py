"""Each key says itself what a resumed run may do with it."""

from __future__ import annotations

import pytest

from rlcore.config import RunConfig
from rlcore.config.resuming import ACCEPTED, FREE, NEVER, RECORDED, rule_of, rules


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("learner.num_ranks", FREE),
        ("weight_sync.backend", FREE),  # of a section that is free as a whole
        ("rewards.brevity.timeout_s", FREE),
        ("train.num_steps", RECORDED),
        ("learner.lr", ACCEPTED),
        ("train.staleness", ACCEPTED),
        ("algorithm.ptr.threshold", ACCEPTED),  # of a section within one
        ("algorithm.ptr.schedule", NEVER),
        ("rewards.brevity", ACCEPTED),  # added or taken away
        ("rewards.brevity.weight", ACCEPTED),
        ("rewards.brevity.args.limit.low", ACCEPTED),
        ("rollout.engine.max_model_len", ACCEPTED),
        ("learner.lora.rank", NEVER),
        ("model.path", NEVER),
        ("seed", NEVER),
        ("of_another_version", NEVER),
        ("learner.of_another_version", NEVER),
    ],
)
def test_a_key_has_its_own_rule_or_that_of_its_section(key: str, rule: str) -> None:
    assert rule_of(RunConfig, key) == rule


def test_every_key_has_one() -> None:
    found = rules(RunConfig)
    assert set(found.values()) == {FREE, RECORDED, ACCEPTED, NEVER}
    assert [key for key, rule in found.items() if rule == RECORDED] == ["train.num_steps"]
