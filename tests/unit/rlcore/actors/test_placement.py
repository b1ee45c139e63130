from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlcore.actors.placement import (
    Bundle,
    Reservation,
    _describe_asked,
    check_fits,
    reserve,
    run_bundles,
    start_order,
)
from rlcore.config import (
    AlgorithmConfig,
    ClusterConfig,
    LearnerConfig,
    ModelConfig,
    RolloutConfig,
    RunConfig,
    TargetConfig,
    load_config,
)
from rlcore.errors import PlacementError

BUNDLES = (
    Bundle(role="rollout", num_cpus=1),
    Bundle(role="learner", num_cpus=1, num_gpus=0.5),
    Bundle(role="learner", num_cpus=1, num_gpus=0.5),
)


def test_a_role_finds_its_bundles_in_order():
    reservation = Reservation(groups={None: "all"}, bundles=BUNDLES)
    assert reservation.places("rollout") == [("all", 0)]
    assert reservation.places("learner") == [("all", 1), ("all", 2)]
    assert reservation.places("reward") == []


def test_a_guest_shares_its_hosts_bundle():
    shared = Bundle(role="learner", guest="rollout", num_cpus=2, num_gpus=1)
    reservation = Reservation(groups={None: "all"}, bundles=(shared, shared))
    assert reservation.places("learner") == reservation.places("rollout") == [("all", 0), ("all", 1)]
    assert _describe_asked([shared]) == "1 x learner with rollout (2 CPU, 1 GPU); together 2 CPU, 1 GPU"


def test_ray_is_asked_for_nothing_that_is_zero():
    assert [bundle.resources for bundle in BUNDLES[:2]] == [{"CPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}]


def test_what_was_asked_is_said_by_role():
    expected = "1 x rollout (1 CPU, 0 GPU), 2 x learner (1 CPU, 0.5 GPU); together 3 CPU, 1 GPU"
    assert _describe_asked(BUNDLES) == expected


def test_a_bundle_of_nothing_is_refused_before_ray_is_asked():
    with pytest.raises(ValueError, match="judge"):
        reserve([Bundle(role="judge")], timeout_s=1)


def pair(number: int | None) -> list[Bundle]:
    return [Bundle(role="learner", num_cpus=1, num_gpus=1, together=number)] * 2


def test_bundles_of_one_node_have_a_group_of_their_own():
    groups = {0: "first", 1: "second", None: "rest"}
    bundles = (Bundle(role="rollout", num_gpus=1), *pair(0), *pair(1))
    reservation = Reservation(groups=groups, bundles=bundles)
    assert reservation.places("rollout") == [("rest", 0)]
    assert reservation.places("learner") == [("first", 0), ("first", 1), ("second", 0), ("second", 1)]


def test_ranks_share_nodes_and_gpus_are_asked_for_by_kind():
    config = RunConfig(
        model=ModelConfig(path="m"),
        task=TargetConfig(target="a.b:C"),
        rollout=RolloutConfig(num_gpus=1, num_replicas=2, resources={"accelerator_type:L40S": 0.001}),
        learner=LearnerConfig(
            num_gpus=1, num_ranks=4, ranks_per_node=2, resources={"accelerator_type:H100": 0.001}
        ),
        algorithm=AlgorithmConfig(kl_coef=0),
    )
    bundles = run_bundles(config)
    assert [(bundle.role, bundle.together) for bundle in bundles] == [
        *[("rollout", None)] * 2,
        *[("learner", 0)] * 2,
        *[("learner", 1)] * 2,
    ]
    assert bundles[0].resources == {"CPU": 1.0, "GPU": 1.0, "accelerator_type:L40S": 0.001}
    h100 = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0}
    l40s = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:L40S": 1.0}
    check_fits(bundles, [h100, h100, l40s])
    with pytest.raises(PlacementError, match="6 GPU asked, 4 there") as error:
        check_fits(bundles, [h100, h100])
    assert "accelerator_type:L40S asked, 0 there" in str(error.value)

    rollout = replace(config.rollout, num_gpus=0.4, num_replicas=4, resources={"rack": 1})
    learner = replace(config.learner, num_gpus=0.6, resources={"rack": 2})
    both = replace(config, rollout=rollout, learner=learner, cluster=ClusterConfig(colocate=True))
    assert run_bundles(both)[0].resources == {"CPU": 2.0, "GPU": 1.0, "rack": 3}


PROJECT = Path(__file__).resolve().parents[4]
OMNI = PROJECT / "emotion_task" / "configs" / "omni"
RULES = ["reward:format", "reward:outcome", "reward:reasoning"]
COLOCATED = ["cluster.colocate=true", "weight_sync.backend=ipc", "rollout={num_replicas: 5, num_gpus: 0.5}"]


@pytest.mark.parametrize(
    ("name", "overrides", "order"),
    [
        # One GPU: its two engines (one after the other, by themselves), then the learner.
        ("7b_1gpu", [], [["rollout", *RULES], ["learner"]]),
        # Judge and reference share one; rollout and learner have theirs.
        ("7b_8gpu", [], [["rollout", "learner", *RULES], ["reference"]]),
        ("7b_64gpu", [], [["rollout", "learner", *RULES], ["reference"]]),
        ("7b_8gpu", ["rewards.reasoning.num_gpus=1"], [["rollout", "learner", "reference", *RULES]]),
        ("30b_8gpu", [], [["rollout", "learner", *RULES]]),
        # Each engine is a guest in its rank's bundle.
        ("7b_8gpu", [*COLOCATED, "learner.num_gpus=0.5"], [["rollout", *RULES], ["reference"], ["learner"]]),
    ],
)
def test_what_may_share_an_engines_gpu_starts_after_it(
    name: str, overrides: list[str], order: list[list[str]]
) -> None:
    config = load_config([OMNI / "base.yaml", OMNI / f"{name}.yaml"], overrides)
    started = start_order(run_bundles(config))
    assert [set(roles) for roles in started] == [set(roles) for roles in order]


def test_without_gpus_all_start_at_once() -> None:
    shared = Bundle(role="learner", guest="rollout", num_cpus=2)
    assert start_order([shared, Bundle(role="reference", num_cpus=1)]) == [
        ["learner", "rollout", "reference"]
    ]


def test_nodes_too_small_each_are_refused_though_enough_together():
    node = {"CPU": 4.0, "GPU": 1.0}
    check_fits(pair(None), [node, node])
    with pytest.raises(PlacementError, match=r"no node has 2 CPU, 2 GPU, for 2 x learner .* on one node"):
        check_fits(pair(0), [node, node])
    with pytest.raises(PlacementError, match="no node has 8 CPU, 0 GPU, for 1 x rollout"):
        check_fits([Bundle(role="rollout", num_cpus=8)], [node, node])
