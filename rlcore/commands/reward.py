"""Tries a reward without a run: `rlcore reward check` and `rlcore reward score`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands
from rlcore.errors import ConfigError

if TYPE_CHECKING:
    from rlcore.config import RewardConfig
    from rlcore.types import Prompt


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `reward`, with its commands `check` and `score`, to the commands."""
    reward = commands.add_parser("reward", parents=[], help="try a reward without a run")
    kinds = reward.add_subparsers(required=True, metavar="COMMAND")
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument(
        "target", metavar="TARGET", help="module:Class, module:function, or the name of an entry point"
    )
    target.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of its section in `rewards`, for instance args.limit=80 timeout_s=5 num_gpus=1",
    )

    check = kinds.add_parser(
        "check", parents=[target, *parents], help="what it does with groups; 1 where bad"
    )
    source = check.add_mutually_exclusive_group()
    source.add_argument("--samples", metavar="FILE", help="recorded groups: a run's samples.jsonl")
    source.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="a run's configuration: made-up answers to its task's own prompts, with their media and "
        "references; may be given several times",
    )
    check.add_argument("--limit", type=int, help="groups to take (default: 32 of a run's, 6 of a task's)")
    check.add_argument(
        "--reference",
        default="{}",
        metavar="YAML",
        help="reference of made-up prompts, without --samples and --config, for instance '{label: sad}'",
    )
    check.set_defaults(run=run_check)

    score = kinds.add_parser("score", parents=[target, *parents], help="scores a finished run")
    score.add_argument("--samples", metavar="FILE", required=True, help="the run's samples.jsonl")
    score.add_argument("--out", metavar="FILE", help="write the scores there, a JSON line each")
    score.set_defaults(run=run_score)


def run_check(arguments: argparse.Namespace) -> int:
    """Prints what the reward does with groups; returns 1 where a finding is bad, else 0."""
    import yaml

    config = _reward_config(arguments)
    try:
        reference = yaml.safe_load(arguments.reference)
    except yaml.YAMLError as error:
        raise ConfigError(f"--reference: not readable as YAML: {error}") from error
    if not isinstance(reference, dict):
        raise ConfigError(f"--reference: got {arguments.reference!r}, must be like '{{label: sad}}'")
    if arguments.limit is not None and arguments.limit < 1:
        raise ConfigError(f"--limit: got {arguments.limit}, must be at least 1")
    from rlcore.rewards.samples import asked_groups, generated_groups, recorded_groups

    if arguments.samples:
        groups = recorded_groups(arguments.samples, limit=arguments.limit or 32)
    elif arguments.config:
        groups = asked_groups(_task_prompts(arguments.config), limit=arguments.limit or 6)
    else:
        groups = generated_groups(reference)
    from rlcore.commands.reward_trial import check  # imports Ray: only once the configuration stands

    return 0 if check(config, groups) else 1


def run_score(arguments: argparse.Namespace) -> int:
    """Prints a summary of the reward's scores of a finished run; returns 1 where one is missing, else 0."""
    config = _reward_config(arguments)
    from rlcore.commands.reward_trial import score  # imports Ray: only once the configuration stands

    return 0 if score(config, samples=arguments.samples, out=arguments.out) else 1


def _task_prompts(files: Sequence[str]) -> Sequence[Prompt]:
    from rlcore.config import load_config
    from rlcore.config.targets import build_target
    from rlcore.task import Task

    config = load_config(files)
    task: Task = build_target(config.task.target, config.task.args, where="task")
    return task.prompts("train")


def _reward_config(arguments: argparse.Namespace) -> RewardConfig:
    from rlcore.config import RewardConfig, load_config
    from rlcore.rewards.loading import check_reward, has_own_environment

    config = load_config([], [f"target={arguments.target}", *arguments.overrides], RewardConfig)
    if not has_own_environment(config):  # else its package may be there alone
        check_reward(config, where="reward")  # before Ray starts
    return config
