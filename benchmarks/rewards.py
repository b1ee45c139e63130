"""Measures what the reward actors cost: a trivial reward through two replicas, against a direct function
call.

    python -m benchmarks.rewards [--quick] [--json FILE] [--gate]

Goal: 1000 groups of 8 completions of 64 tokens, 32 groups per call, take at most 1 ms per group more than the
direct call.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from benchmarks.report import finish, parse_arguments
from rlcore.actors.reward_pool import open_pool
from rlcore.actors.session import ray_session
from rlcore.config import ClusterConfig, RewardConfig
from rlcore.types import Completion, Group, Prompt, RewardContext

MS_A_GROUP = 1.0
NUM_TOKENS = 64
BATCH_SIZES = (1, 8, 32, 128)


def num_words(completion: Completion) -> float:
    return float(len(completion.text.split()))


def make_groups(num_groups: int) -> list[Group]:
    """Makes groups with the embeddings of 10 s of audio, which the learner needs and rewards do not get."""
    rng = np.random.default_rng(0)
    embeds = np.zeros((250, 256), np.float32)
    return [
        Group(
            prompt=Prompt(id=f"p{i}", text="?", reference={"label": "sad"}),
            prompt_token_ids=tuple(range(300)),
            completions=tuple(make_completion(rng) for _ in range(8)),
            media_inputs={"audio_embeds": embeds},
        )
        for i in range(num_groups)
    ]


def make_completion(rng: np.random.Generator) -> Completion:
    """Makes a completion that shares no object with another: pickle would write a shared object only once."""
    tokens = rng.integers(0, 150_000, NUM_TOKENS).tolist()
    return Completion(
        token_ids=tuple(tokens),
        logprobs=tuple((-rng.random(NUM_TOKENS)).tolist()),
        text=" ".join(map(str, tokens)),
        finish_reason="stop",
        policy_version=0,
    )


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    groups = make_groups(100 if arguments.quick else 1000)
    began = time.perf_counter()
    direct = [[num_words(completion) for completion in group.completions] for group in groups]
    direct_ms = 1000 * (time.perf_counter() - began)
    rows = []
    with ray_session(ClusterConfig(num_cpus=2)):
        for size in BATCH_SIZES:
            config = RewardConfig(target="benchmarks.rewards:num_words", replicas=2, batch_size=size)
            with open_pool("words", config, placement_timeout_s=30, startup_timeout_s=120) as pool:
                milliseconds = []
                for _ in range(4):  # the first warms up
                    began = time.perf_counter()
                    scores = pool.score(groups, RewardContext())
                    milliseconds.append(1000 * (time.perf_counter() - began))
            assert [[score.value for score in row] for row in scores] == direct
            total_ms = statistics.median(milliseconds[1:])
            overhead = (total_ms - direct_ms) / len(groups)
            rows.append(
                {
                    "batch_size": size,
                    "groups": len(groups),
                    "direct_ms": direct_ms,
                    "total_ms": total_ms,
                    "overhead_ms_a_group": overhead,
                }
            )
    (headline,) = (row for row in rows if row["batch_size"] == 32)
    reached = headline["overhead_ms_a_group"] <= MS_A_GROUP
    goals = {f"at most {MS_A_GROUP:g} ms a group at batch 32": reached}
    finish("rewards", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
