"""Builds a reward from its section of the configuration, and records which reward it was."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import yaml

from rlcore.config import RewardConfig, to_yaml
from rlcore.config.targets import build_target, check_target, load_target
from rlcore.errors import ConfigError
from rlcore.rewards.protocol import FunctionReward, Reward

ENTRY_POINTS = "rlcore.rewards"
"""The group in which an installed package names its rewards."""


def build_reward(config: RewardConfig, *, where: str) -> Reward:
    """Builds the reward that a section names.

    Args:
        where: config path of the section, for errors (`rewards.brevity`).

    Raises:
        ConfigError: the target does not import, is neither a Reward class nor a function, or refuses its
            arguments.
    """
    name = resolve_target(config.target, where=where)
    target = load_target(name, where=where)
    if inspect.isclass(target):
        reward = build_target(name, config.args, where=where)
        if not isinstance(reward, Reward):
            raise ConfigError(f"{where}.target: {name} is no subclass of rlcore.rewards.Reward")
        return reward
    if not callable(target):
        raise ConfigError(f"{where}.target: {name} is neither a Reward class nor a function")
    try:
        return FunctionReward(target, config.args, config.retries)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_reward(config: RewardConfig, *, where: str) -> None:
    """Finds what `build_reward` would refuse before a constructor is run: for long lines of work that come to
    their rewards late.

    Raises:
        ConfigError: `build_reward` would raise it.
    """
    name = resolve_target(config.target, where=where)
    if not inspect.isclass(load_target(name, where=where)):
        build_reward(config, where=where)
    elif not issubclass(check_target(name, config.args, where=where), Reward):
        raise ConfigError(f"{where}.target: {name} is no subclass of rlcore.rewards.Reward")
    for key, part in _parts(config.args, f"{where}.args"):
        check_reward(part, where=key)


def check_rewards(rewards: Mapping[str, RewardConfig]) -> None:
    """Checks a run's rewards before its actors start, as far as their code is on this machine. A package that
    only the nodes have, of their own or by `runtime_env`, is the actors' business.

    Raises:
        ConfigError: `build_reward` would raise it.
    """
    for name, config in rewards.items():
        if not has_own_environment(config) and _is_here(config.target):
            try:
                check_reward(config, where=f"rewards.{name}")
            except ConfigError as error:
                if not isinstance(error.__cause__, ImportError) or _names_a_module_here(error.__cause__):
                    raise


def has_own_environment(config: RewardConfig) -> bool:
    """Tells whether a reward's actors may have other code than this process."""
    return bool(set(config.runtime_env) - {"env_vars"})


def _is_here(target: str) -> bool:
    """Whether this machine has the package that a target names by its module, or by an entry point."""
    if ":" not in target:
        return any(point.name == target for point in metadata.entry_points(group=ENTRY_POINTS))
    package = target.partition(":")[0].partition(".")[0]
    return package in sys.modules or find_spec(package) is not None


def _names_a_module_here(error: ImportError) -> bool:
    """Whether what cannot be imported belongs to a package of this machine: it is misspelt, not absent."""
    return bool(error.name) and _is_here(f"{error.name}:")


def _parts(args: Mapping[str, object], where: str) -> Iterator[tuple[str, RewardConfig]]:
    """Yields the rewards that a reward is made of (`rlcore.rewards.combine`), with their config paths."""
    for name, value in args.items():
        if isinstance(value, Mapping):
            if isinstance(value.get("target"), str) and set(value) <= {"target", "args", "weight"}:
                section = {"target": value["target"], "args": value.get("args") or {}}
                yield f"{where}.{name}", RewardConfig(**section)
            else:
                yield from _parts(value, f"{where}.{name}")


def resolve_target(target: str, *, where: str) -> str:
    """Returns `module:attribute` as it is; else the `module:attribute` of the entry point of this name.

    Raises:
        ConfigError: no installed package has such an entry point, or several have.
    """
    if ":" in target:
        return target
    known = metadata.entry_points(group=ENTRY_POINTS)
    values = sorted({point.value for point in known if point.name == target})
    if len(values) == 1:
        return values[0]
    if values:
        raise ConfigError(
            f"{where}.target: several packages name a reward {target!r}: {values}; use one's path"
        )
    names = sorted({point.name for point in known})
    raise ConfigError(
        f"{where}.target: no installed package has an entry point {target!r} in the group {ENTRY_POINTS}; "
        f"there are {names}. Install the package, or write package.module:Class"
    )


def record_of(config: RewardConfig) -> dict[str, object]:
    """Records which reward this is: target, sha256 of its file, package and version, and args.

    Values of the environment are written as `${oc.env:NAME}`. The record is made where the reward's package
    is installed.
    """
    name = resolve_target(config.target, where="rewards")
    source = inspect.getsourcefile(inspect.unwrap(load_target(name, where="rewards")))
    package = _package_of(name)
    return {
        "target": name,
        "package": package,
        "version": metadata.version(package) if package else None,
        "sha256": hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else None,
        "args": yaml.safe_load(to_yaml(config))["args"],
    }


def _package_of(target: str) -> str | None:
    """The installed distribution that a target's module comes from; None for a working directory."""
    top = target.partition(":")[0].partition(".")[0]
    found = metadata.packages_distributions().get(top, [])
    return found[0] if found else None
