"""Bundles on two real nodes: ranks that share one, and nodes by kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from rlcore.actors.group import ActorGroup
from rlcore.actors.placement import Bundle, reserve
from rlcore.errors import PlacementError

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Where:
    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[str]]:
    """Two nodes of two CPUs, the second with a GPU's kind."""
    cluster = Cluster()
    try:
        made = [
            cluster.add_node(num_cpus=2, include_dashboard=False),
            cluster.add_node(num_cpus=2, resources={"accelerator_type:H100": 1}),
        ]
        ray.init(address=cluster.address, logging_level="WARNING")
        yield [node.node_id for node in made]
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_ranks_that_belong_together_share_a_node(nodes: list[str]) -> None:
    kind = (("accelerator_type:H100", 0.001),)
    engine = Bundle(role="rollout", num_cpus=1)
    ranks = [Bundle(role="learner", num_cpus=1, custom=kind, together=0)] * 2
    reservation = reserve([engine, *ranks], timeout_s=20)
    learner = ActorGroup("learner", Where, [{}, {}], num_cpus=1, reservation=reservation)
    rollout = ActorGroup("rollout", Where, [{}], num_cpus=1, reservation=reservation)
    try:
        assert learner.call("node", timeout_s=30) == [nodes[1]] * 2
        assert rollout.call("node", timeout_s=30) == [nodes[0]]
    finally:
        learner.shutdown()
        rollout.shutdown()
        reservation.release()


def test_three_cpus_on_two_nodes_are_none_on_one(nodes: list[str]) -> None:
    ranks = [Bundle(role="learner", num_cpus=1)] * 3
    reserve(ranks, timeout_s=20).release()
    together = [Bundle(role="learner", num_cpus=1, together=0)] * 3
    with pytest.raises(PlacementError, match=r"STRICT_PACK(.|\n)*3 x learner .* on one node"):
        reserve([Bundle(role="rollout", num_cpus=1), *together], timeout_s=1)
    reserve(ranks, timeout_s=20).release()  # nothing stayed reserved
