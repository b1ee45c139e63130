"""Reserving a run's CPUs and GPUs before anything starts: all of it within a deadline, or a clear error.

Ray keeps an infeasible placement group pending for ever and says nothing; here the wait ends, and the error
says what was asked, role by role, and what the cluster has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rlcore.errors import PlacementError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The resources of one actor."""

    role: str
    """For instance `learner`; several bundles may share it."""
    guest: str = ""
    """A second role whose actor lives in the same bundle."""
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()
    """Name and amount of each custom resource."""

    @property
    def resources(self) -> dict[str, float]:
        """What Ray is asked for; what is zero is left out, as Ray wants it."""
        asked = {"CPU": float(self.num_cpus), "GPU": float(self.num_gpus), **dict(self.custom)}
        return {name: amount for name, amount in asked.items() if amount > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Resources that are held until `release`."""

    group: PlacementGroup
    bundles: tuple[Bundle, ...]

    def indices(self, role: str) -> list[int]:
        """Bundle indices of a role, in the order they were asked for."""
        return [index for index, bundle in enumerate(self.bundles) if role in (bundle.role, bundle.guest)]

    def release(self) -> None:
        """Gives the resources back; Ray kills the actors that still hold them."""
        remove_placement_group(self.group)


def reserve(bundles: Sequence[Bundle], *, timeout_s: float, strategy: str = "PACK") -> Reservation:
    """Holds all bundles at once.

    `strategy` is Ray's: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD. Raises ValueError where a bundle asks for
    nothing, and PlacementError where the cluster cannot give them within `timeout_s`.
    """
    empty = sorted({bundle.role for bundle in bundles if not bundle.resources})
    if empty:
        raise ValueError(f"bundles of {empty} ask for nothing: set num_cpus or num_gpus above 0")
    group = placement_group([bundle.resources for bundle in bundles], strategy=strategy)
    if not group.wait(timeout_s):
        remove_placement_group(group)
        raise PlacementError(
            f"the cluster could not place the run within {timeout_s:g} s ({strategy}).\n"
            f"asked: {_describe_asked(bundles)}\n{_describe_cluster()}\n"
            "Lower num_cpus, num_gpus or the replicas of a role, end what else holds resources, or add nodes"
        )
    return Reservation(group=group, bundles=tuple(bundles))


def _describe_asked(bundles: Sequence[Bundle]) -> str:
    counts: dict[Bundle, int] = {}
    for bundle in bundles:
        counts[bundle] = counts.get(bundle, 0) + 1
    roles = [
        f"{count} x {' with '.join(filter(None, (bundle.role, bundle.guest)))} ({_amounts(bundle.resources)})"
        for bundle, count in counts.items()
    ]
    names = {name: None for bundle in bundles for name in ("CPU", "GPU", *bundle.resources)}
    total = {name: sum(b.resources.get(name, 0.0) for b in bundles) for name in names}
    return f"{', '.join(roles)}; together {_amounts(total)}"


def _describe_cluster() -> str:
    # Ray's public calls give availability of the whole cluster only; by node it is here.
    from ray._private.state import available_resources_per_node

    available: dict[str, dict[str, Any]] = available_resources_per_node()
    nodes = [
        f"  node {node['NodeManagerAddress']}: {_amounts(node['Resources'])}; "
        f"free {_amounts(available.get(node['NodeID'], {}))}"
        for node in ray.nodes()
        if node["Alive"]
    ]
    return "\n".join([f"cluster: {_amounts(ray.cluster_resources())} on {len(nodes)} node(s)", *nodes])


def _amounts(resources: dict[str, float]) -> str:
    # Ray lists memory, object store, node addresses and the shares of placement groups (`CPU_group_0_1f...`)
    # among the resources: no one asked for those.
    hidden = ("CPU", "GPU", "memory", "object_store_memory")
    custom = sorted(n for n in resources if n not in hidden and "_group_" not in n)
    names = ["CPU", "GPU", *(name for name in custom if not name.startswith("node:"))]
    return ", ".join(f"{resources.get(name, 0.0):g} {name}" for name in names)
