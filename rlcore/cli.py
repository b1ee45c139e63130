"""`rlcore`: train and evaluate from a configuration, try rewards, and look at the machine.

Every command ends with exit code 0; 1 when the work failed; 2 when a configuration or a file of the user's
is wrong; 130 when interrupted. Errors made for users are one line; `--debug` shows where they came from.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlcore.errors import ConfigError, DataError, RLCoreError, StoppedError

if TYPE_CHECKING:
    from rlcore.config import RewardConfig

EPILOG = """\
examples:
  rlcore train --config my_run.yaml train.num_steps=50
  rlcore train --config base.yaml --config my_cluster.yaml rollout.num_replicas=4 --resume
  rlcore reward check my_rewards.brevity:Brevity args.limit=80
  rlcore reward score my_rewards.brevity:Brevity --samples runs/mine/samples.jsonl
  rlcore timeline runs/mine
  rlcore plan --config my_run.yaml --hardware h100-80g:8
  rlcore bench --json today.json
  rlcore bench compare before.json today.json --threshold 0.1
  rlcore submit --config my_run.yaml --config my_cluster.yaml --run-id tuesday
  rlcore doctor
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit code."""
    arguments = parse(build_parser(), argv)
    return run_command(lambda: arguments.run(arguments), program="rlcore", debug=arguments.debug)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses as usual, but `overrides` may stand before, between and after the options."""
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(arguments, "overrides")]
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlcore",
        description="Reinforcement learning for speech language models on Ray, vLLM and DeepSpeed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="FILE",
        help="YAML file; may be given several times, later files win",
    )
    config.add_argument(
        "overrides", nargs="*", metavar="key=value", help="single settings, for instance learner.lr=1e-5"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", parents=[config, common], help="train a policy with rewards")
    train.add_argument("--resume", action="store_true", help="go on from run_dir's last checkpoint")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate",
        parents=[config, common],
        help="greedy answers on the held-out prompts, with their metrics",
    )
    evaluate.set_defaults(run=_evaluate)

    _add_submit_command(commands, [config, common])
    _add_reward_commands(commands, common)
    timeline = commands.add_parser(
        "timeline", parents=[common], help="write a run's trace for Perfetto, and say who was busy with what"
    )
    timeline.add_argument("folder", metavar="RUN", help="folder of a run")
    timeline.set_defaults(run=_timeline)
    _add_plan_command(commands, [config, common])
    _add_bench_commands(commands, common)

    doctor = commands.add_parser("doctor", parents=[common], help="what is wrong here, and what to do")
    doctor.set_defaults(run=_doctor)

    version = commands.add_parser("version", parents=[common], help="versions installed and tested")
    version.set_defaults(run=_version)
    return parser


def _add_submit_command(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    submit = commands.add_parser(
        "submit", parents=parents, help="train as a job of the Ray cluster that cluster.job names"
    )
    submit.add_argument("--run-id", metavar="ID", help="name of the run: the last part of its run_dir")
    submit.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    submit.add_argument("--no-wait", action="store_true", help="end once the job is accepted")
    submit.add_argument("--check", action="store_true", help="only look for what would go wrong")
    submit.set_defaults(run=_submit)


def _add_plan_command(commands: Any, parents: list[argparse.ArgumentParser]) -> None:
    plan = commands.add_parser(
        "plan", parents=parents, help="memory, seconds and GPU-hours before a run; 1: no fit"
    )
    plan.add_argument(
        "--hardware",
        required=True,
        metavar="SPEC",
        help="h100-80g, h200-141g, a100-80g, a100-40g, l40s (and :GPUS or :GPUSxNODES), cpu, or a YAML file",
    )
    plan.add_argument("--prompt-tokens", type=int, help="text tokens of a prompt (default 100)")
    plan.add_argument("--audio-seconds", type=float, help="audio of a prompt (default 6)")
    plan.add_argument(
        "--completion-tokens", type=float, help="mean length of a completion (default: half of the maximum)"
    )
    plan.add_argument("--json", action="store_true", help="as JSON")
    plan.set_defaults(run=_plan)


def _add_bench_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    bench = commands.add_parser(
        "bench", parents=[common], help="speed, memory and share of the ceilings on fixed workloads"
    )
    bench.add_argument("--workload", action="append", default=[], metavar="NAME", help="default: all of them")
    bench.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML laid over the workload's settings"
    )
    bench.add_argument("--steps", type=int, default=8, metavar="N", help="counted ones (default 8)")
    bench.add_argument("--json", metavar="FILE", help="write the results there")
    bench.set_defaults(run=_bench)
    kinds = bench.add_subparsers(metavar="COMMAND")
    compare = kinds.add_parser("compare", parents=[common], help="two results; 1 where one measure is worse")
    compare.add_argument("before", metavar="BEFORE.json")
    compare.add_argument("after", metavar="AFTER.json")
    compare.add_argument(
        "--threshold", type=float, default=0.1, metavar="SHARE", help="how much worse counts (default 0.1)"
    )
    compare.set_defaults(run=_bench_compare)


def _add_reward_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    reward = commands.add_parser("reward", help="try a reward without a run")
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

    check = kinds.add_parser("check", parents=[target, common], help="what it does with groups; 1 where bad")
    check.add_argument("--samples", metavar="FILE", help="recorded groups: a run's samples.jsonl")
    check.add_argument("--limit", type=int, default=32, help="groups to take of them (default 32)")
    check.add_argument(
        "--reference",
        default="{}",
        metavar="YAML",
        help="reference of made-up prompts, where there are no samples, for instance '{label: sad}'",
    )
    check.set_defaults(run=_reward_check)

    score = kinds.add_parser("score", parents=[target, common], help="scores a finished run")
    score.add_argument("--samples", metavar="FILE", required=True, help="the run's samples.jsonl")
    score.add_argument("--out", metavar="FILE", help="write the scores there, a JSON line each")
    score.set_defaults(run=_reward_score)


def run_command(command: Callable[[], int], *, program: str, debug: bool) -> int:
    """Runs a command, turning errors made for users into one line on stderr and an exit code.

    Anything else is a defect and keeps its traceback. The working directory is put on the import path, as Ray
    does in its workers, so that classes named in the configuration may lie there.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return command()
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except RLCoreError as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, StoppedError):
            print(f"{program}: {error}", file=sys.stderr)
            return 130
        print(f"{program}: error: {message_of(error)}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, DataError)) else 1
    except OSError as error:
        if error.filename is None:
            raise
        # A path that cannot be read or written is the user's more often than ours.
        if debug:
            traceback.print_exc()
        print(f"{program}: error: {error.filename}: {error.strerror} (--debug shows where)", file=sys.stderr)
        return 2


def message_of(error: RLCoreError) -> str:
    """The error's own line. One that crossed Ray carries the remote traceback around its cause."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, RLCoreError) else error)


def print_metrics(title: str, metrics: Mapping[str, Any]) -> None:
    """A two-column listing; sections of nested mappings are dotted."""
    rows = dict(_flat(metrics))
    width = max(map(len, rows), default=0)
    print(title)
    for name, value in rows.items():
        print(f"  {name:<{width}}  {f'{value:.4g}' if isinstance(value, float) else value}")


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        rows += (
            _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
        )
    return rows


def _train(arguments: argparse.Namespace) -> int:
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from rlcore.run import train  # imports Ray: only once the configuration stands

    summary = train(config, resume=arguments.resume)
    if summary["stopped_by"] is not None:
        raise StoppedError(
            f"stopped by {summary['stopped_by']} after step {summary['steps']}; its checkpoint is in "
            f"{config.run_dir}. The same command with --resume goes on from there"
        )
    print_metrics(f"{config.run_dir}: finished", summary)
    return 0


def _submit(arguments: argparse.Namespace) -> int:
    from rlcore.submit.request import job_request

    run_id, resume = arguments.run_id, arguments.resume
    request = job_request(arguments.config, arguments.overrides, run_id=run_id, resume=resume)
    from rlcore.commands.submit import submit

    return submit(request, resume=resume, wait=not arguments.no_wait, check_only=arguments.check)


def _evaluate(arguments: argparse.Namespace) -> int:
    from rlcore.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from rlcore.run import evaluate

    print_metrics(f"{config.model.path}: held-out prompts", evaluate(config))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from rlcore.commands.plan import plan
    from rlcore.config import load_config
    from rlcore.plan.workload import Workload

    given = {
        name: getattr(arguments, name)
        for name in ("prompt_tokens", "audio_seconds", "completion_tokens")
        if getattr(arguments, name) is not None
    }
    config = load_config(arguments.config, arguments.overrides)
    fits = plan(config, hardware=arguments.hardware, workload=Workload(**given), as_json=arguments.json)
    return 0 if fits else 1


def _bench(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from rlcore.commands.bench import bench

    bench(
        workloads=arguments.workload,
        files=arguments.config,
        num_steps=arguments.steps,
        json_path=Path(arguments.json) if arguments.json else None,
    )
    return 0


def _bench_compare(arguments: argparse.Namespace) -> int:
    from rlcore.commands.bench import print_comparison

    return 0 if print_comparison(arguments.before, arguments.after, threshold=arguments.threshold) else 1


def _reward_check(arguments: argparse.Namespace) -> int:
    import yaml

    config = _reward_config(arguments)
    try:
        reference = yaml.safe_load(arguments.reference)
    except yaml.YAMLError as error:
        raise ConfigError(f"--reference: not readable as YAML: {error}") from error
    if not isinstance(reference, dict):
        raise ConfigError(f"--reference: got {arguments.reference!r}, must be like '{{label: sad}}'")
    from rlcore.commands.reward import check

    samples, limit = arguments.samples, arguments.limit
    return 0 if check(config, samples=samples, reference=reference, limit=limit) else 1


def _reward_score(arguments: argparse.Namespace) -> int:
    config = _reward_config(arguments)
    from rlcore.commands.reward import score

    return 0 if score(config, samples=arguments.samples, out=arguments.out) else 1


def _reward_config(arguments: argparse.Namespace) -> RewardConfig:
    from rlcore.config import RewardConfig, load_config

    return load_config([], [f"target={arguments.target}", *arguments.overrides], RewardConfig)


def _timeline(arguments: argparse.Namespace) -> int:
    from rlcore.records.timeline import busy_seconds, read_spans, write_trace

    path, spans = write_trace(arguments.folder), read_spans(arguments.folder)
    total = max(span.end for span in spans) - spans[0].start
    print(f"{path}: {len(spans)} spans over {total:.1f} s (open it in ui.perfetto.dev or chrome://tracing)")
    for actor, phases in busy_seconds(spans).items():
        for phase, seconds in phases.items():
            print(f"  {actor:<20} {phase:<16} {seconds:9.2f} s {seconds / total:6.1%}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from rlcore.commands.doctor import examine

    return examine()


def _version(arguments: argparse.Namespace) -> int:
    from rlcore.records.versions import TESTED, versions

    for package, version in versions().items():
        tested = f"   (tested with {TESTED[package]})" if package in TESTED else ""
        print(f"{package:<14}{version}{tested}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
