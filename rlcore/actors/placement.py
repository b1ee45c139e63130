"""Reserving a run's CPUs and GPUs before anything starts: all of it within a deadline, or a clear error.

Ray keeps an infeasible placement group pending for ever and says nothing; here the wait ends, and the error
says what was asked, role by role, and what the cluster has.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from rlcore.config import RewardConfig, RunConfig
from rlcore.errors import PlacementError

_ADVICE = "Lower num_cpus, num_gpus or the replicas of a role, end what else holds resources, or add nodes"
_ROUNDING = 1e-6
_MAX_LISTED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The resources of one actor."""

    role: str
    """Role of the actor, for instance `learner`; several bundles may share a role."""
    guest: str = ""
    """A second role whose actor lives in the same bundle."""
    num_cpus: float = 0.0
    num_gpus: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()
    """Name and amount of each custom resource."""
    together: int | None = None
    """Bundles with the same number get one node."""

    @property
    def resources(self) -> dict[str, float]:
        """Amounts to ask Ray for, by name; zeros are left out, as Ray expects."""
        asked = {"CPU": float(self.num_cpus), "GPU": float(self.num_gpus), **dict(self.custom)}
        return {name: amount for name, amount in asked.items() if amount > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Resources that are held until `release`."""

    groups: Mapping[int | None, PlacementGroup]
    """Ray's placement groups, by `Bundle.together`."""
    bundles: tuple[Bundle, ...]
    """All reserved bundles, in the order they were asked for."""

    def places(self, role: str) -> list[tuple[PlacementGroup, int]]:
        """Returns the placement group and the index in that group of a role's bundles, in the order they were
        asked for."""
        found, counts = [], dict.fromkeys(self.groups, 0)
        for bundle in self.bundles:
            if role in (bundle.role, bundle.guest):
                found.append((self.groups[bundle.together], counts[bundle.together]))
            counts[bundle.together] += 1
        return found

    def release(self) -> None:
        """Gives the resources back; Ray kills the actors that still hold them."""
        for group in self.groups.values():
            remove_placement_group(group)


def run_bundles(config: RunConfig, *, with_learner: bool = True) -> list[Bundle]:
    """Returns the resources that a run asks of the cluster, actor by actor."""
    rollout, learner, reference = config.rollout, config.learner, config.reference
    custom = tuple(rollout.resources.items())
    engine = Bundle(role="rollout", num_cpus=rollout.num_cpus, num_gpus=rollout.num_gpus, custom=custom)
    own = Bundle(
        role="learner",
        num_cpus=learner.num_cpus,
        num_gpus=learner.num_gpus,
        custom=tuple(learner.resources.items()),
    )
    if with_learner and config.cluster.colocate:
        own = replace(
            own,
            guest="rollout",
            num_cpus=own.num_cpus + engine.num_cpus,
            num_gpus=own.num_gpus + engine.num_gpus,
            custom=tuple((Counter(learner.resources) + Counter(rollout.resources)).items()),
        )
        bundles = []
    else:
        bundles = [engine] * rollout.min_replicas
    if with_learner:
        size = learner.ranks_per_node
        bundles += [
            replace(own, together=None if size is None else rank // size) for rank in range(learner.num_ranks)
        ]
    if with_learner and config.algorithm.kl_coef > 0:
        custom = tuple(reference.resources.items())
        one = Bundle(
            role="reference", num_cpus=reference.num_cpus, num_gpus=reference.num_gpus, custom=custom
        )
        bundles += [one] * reference.num_replicas
    for name, reward in config.rewards.items():
        bundles += reward_bundles(name, reward)
    return bundles


def reward_bundles(name: str, config: RewardConfig) -> list[Bundle]:
    """Returns the resources that a reward's replicas ask for."""
    custom = tuple(config.resources.items())
    role = f"reward:{name}"
    bundle = Bundle(role=role, num_cpus=config.num_cpus, num_gpus=config.num_gpus, custom=custom)
    return [bundle] * config.replicas


def start_order(bundles: Sequence[Bundle]) -> list[list[str]]:
    """Returns all roles in lists, one after another; those of one list start at the same time.

    vLLM charges an engine with what others take of its GPU while it starts. So the reference and, after it,
    the learner come last where one of their actors may be on an engine's GPU: in its bundle, or with a part
    of a GPU each. (Engines among themselves wait for each other: `rlcore.engines.shared_gpu`.)
    """
    roles = list(dict.fromkeys(role for b in bundles for role in (b.role, b.guest) if role))
    engines = [role for role in roles if role not in ("learner", "reference")]
    partly = {role for b in bundles if 0 < b.num_gpus < 1 for role in (b.role, b.guest)}
    hosts = {b.role for b in bundles if b.guest and b.num_gpus > 0}
    has_parts = any(role in partly for role in engines)
    last = [
        role
        for role in ("reference", "learner")
        if role in roles and (role in hosts or (role in partly and has_parts))
    ]
    order = [[role for role in roles if role not in last]]
    return order + [[role] for role in last]


def reserve(bundles: Sequence[Bundle], *, timeout_s: float, strategy: str = "PACK") -> Reservation:
    """Holds all bundles, or none. Those that must share a node come first, while nodes are still empty.

    Args:
        strategy: Ray's, for the other bundles: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD.

    Raises:
        ValueError: a bundle asks for nothing.
        PlacementError: the cluster cannot give the bundles within `timeout_s`.
    """
    empty = sorted({bundle.role for bundle in bundles if not bundle.resources})
    if empty:
        raise ValueError(f"bundles of {empty} ask for nothing: set num_cpus or num_gpus above 0")
    deadline = time.monotonic() + timeout_s
    groups: dict[int | None, PlacementGroup] = {}
    for number, members in _by_node(bundles).items():
        how = strategy if number is None else "STRICT_PACK"
        groups[number] = placement_group([bundle.resources for bundle in members], strategy=how)
        if not groups[number].wait(max(0.0, deadline - time.monotonic())):
            for group in groups.values():
                remove_placement_group(group)
            raise PlacementError(
                f"the cluster could not place the run within {timeout_s:g} s ({how}).\n"
                f"asked: {_describe_asked(bundles)}\n{describe_cluster()}\n{_ADVICE}"
            )
    return Reservation(groups=groups, bundles=tuple(bundles))


def check_fits(bundles: Sequence[Bundle], nodes: Sequence[Mapping[str, float]]) -> None:
    """Checks that nodes of these resources, by name, could hold all bundles if nothing else ran on them.
    Bundles that pass may still not pack: `reserve` finds out.

    Raises:
        PlacementError: a resource is short in all, or no node is large enough for what must lie on one.
    """
    short = []
    for name, amount in _total(bundles).items():
        there = sum(node.get(name, 0.0) for node in nodes)
        if amount > there + _ROUNDING:
            short.append(f"{amount:g} {name} asked, {there:g} there")
    by_node = _by_node(bundles)
    alone = [[bundle] for bundle in by_node.pop(None, [])]
    for members in [*by_node.values(), *alone]:
        asked = _total(members)
        if not any(all(node.get(n, 0.0) + _ROUNDING >= x for n, x in asked.items()) for node in nodes):
            short.append(f"no node has {_amounts(asked)}, for {_describe_roles(members)}")
    if short:
        listed = "\n".join(f"  node: {_amounts(node)}" for node in nodes[:_MAX_LISTED])
        raise PlacementError(
            f"the cluster cannot hold the run: {'; '.join(dict.fromkeys(short))}.\n"
            f"asked: {_describe_asked(bundles)}\ncluster: {len(nodes)} node(s)\n{listed}\n{_ADVICE}"
        )


def _by_node(bundles: Sequence[Bundle]) -> dict[int | None, list[Bundle]]:
    """Returns bundles by `together`, those without last."""
    numbers = sorted({bundle.together for bundle in bundles} - {None}, key=lambda n: n or 0)
    groups = {number: [bundle for bundle in bundles if bundle.together == number] for number in numbers}
    free = [bundle for bundle in bundles if bundle.together is None]
    return groups | ({None: free} if free else {})


def _total(bundles: Sequence[Bundle]) -> dict[str, float]:
    names = dict.fromkeys(name for bundle in bundles for name in bundle.resources)
    return {name: sum(bundle.resources.get(name, 0.0) for bundle in bundles) for name in names}


def _describe_asked(bundles: Sequence[Bundle]) -> str:
    return f"{_describe_roles(bundles)}; together {_amounts(_total(bundles))}"


def _describe_roles(bundles: Sequence[Bundle]) -> str:
    counts: dict[Bundle, int] = {}
    for bundle in bundles:
        counts[bundle] = counts.get(bundle, 0) + 1
    return ", ".join(
        f"{count} x {' with '.join(filter(None, (bundle.role, bundle.guest)))} ({_amounts(bundle.resources)})"
        + ("" if bundle.together is None else " on one node")
        for bundle, count in counts.items()
    )


def describe_cluster() -> str:
    """Returns what the cluster has, in all and on each node, for errors."""
    # Ray's public calls give availability of the whole cluster only; by node it is here.
    from ray._private.state import available_resources_per_node

    available: dict[str, dict[str, float]] = available_resources_per_node()
    nodes = [
        f"  node {node['NodeManagerAddress']}: {_amounts(node['Resources'])}; "
        f"free {_amounts(available.get(node['NodeID'], {}))}"
        for node in ray.nodes()
        if node["Alive"]
    ]
    return "\n".join([f"cluster: {_amounts(ray.cluster_resources())} on {len(nodes)} node(s)", *nodes])


def _amounts(resources: Mapping[str, float]) -> str:
    # Ray lists memory, object store, node addresses and the shares of placement groups (`CPU_group_0_1f...`)
    # among the resources: no one asked for those.
    hidden = ("CPU", "GPU", "memory", "object_store_memory")
    custom = sorted(n for n in resources if n not in hidden and "_group_" not in n)
    names = ["CPU", "GPU", *(name for name in custom if not name.startswith("node:"))]
    return ", ".join(f"{resources.get(name, 0.0):g} {name}" for name in names)
