"""The command line `rlcore`: assembles the commands of `rlcore.commands` and turns errors into exit codes.

Every command ends with exit code 0; 1 when the work failed; 2 when a configuration or a file of the user's
is wrong; 130 when interrupted. Errors made for users are one line; `--debug` shows where they came from.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from rlcore.commands import (
    bench,
    config,
    data,
    doctor,
    evaluate,
    plan,
    prefer,
    report,
    reward,
    runs,
    submit,
    timeline,
    train,
    version,
    watch,
)
from rlcore.commands.shared import config_options, debug_option, lasting_output
from rlcore.errors import ConfigError, DataError, RLCoreError, StoppedError, message_of

EPILOG = """\
examples:
  rlcore train --config my_run.yaml train.num_steps=50
  rlcore train --config base.yaml --config my_cluster.yaml rollout.num_replicas=4 --resume
  rlcore config show --config my_run.yaml --set
  rlcore prefer --config my_pairs.yaml train.num_steps=100
  rlcore data check --config my_run.yaml
  rlcore reward check my_rewards.brevity:Brevity args.limit=80
  rlcore reward score my_rewards.brevity:Brevity --samples runs/mine/samples.jsonl
  rlcore runs
  rlcore watch runs/mine
  rlcore report runs/mine runs/other --out both.html
  rlcore timeline runs/mine
  rlcore plan --config my_run.yaml --hardware h100-80g:8
  rlcore bench --json today.json
  rlcore bench compare before.json today.json --threshold 0.1
  rlcore submit --config my_run.yaml --config my_cluster.yaml --run-id tuesday
  rlcore doctor
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (default: the process's arguments) names, and returns the exit code."""
    arguments = parse(build_parser(), argv)
    return run_command(lambda: arguments.run(arguments), program="rlcore", debug=arguments.debug)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of `rlcore` with all commands, in the order in which its help lists them."""
    parser = argparse.ArgumentParser(
        prog="rlcore",
        description="Reinforcement learning for speech language models on Ray, vLLM and DeepSpeed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_completion(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    plain = [debug_option()]
    configured = [config_options(), *plain]
    train.add_parser(commands, configured)
    prefer.add_parser(commands, configured)
    evaluate.add_parser(commands, configured)
    submit.add_parser(commands, configured)
    config.add_parser(commands, configured)
    data.add_parser(commands, plain)
    reward.add_parser(commands, plain)
    runs.add_parser(commands, plain)
    watch.add_parser(commands, plain)
    report.add_parser(commands, plain)
    timeline.add_parser(commands, plain)
    plan.add_parser(commands, configured)
    bench.add_parser(commands, plain)
    doctor.add_parser(commands, plain)
    version.add_parser(commands, plain)
    return parser


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Adds `--print-completion SHELL`, whose output a shell reads to complete commands and options."""
    import shtab

    shtab.add_argument_to(
        parser,
        "--print-completion",
        help="print what completes commands and options in a shell that reads it: "
        'eval "$(%(prog)s --print-completion bash)"',
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses as usual, but `overrides` may stand before, between and after the options."""
    arguments, rest = parser.parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or not hasattr(arguments, "overrides")]
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def run_command(command: Callable[[], int], *, program: str, debug: bool) -> int:
    """Runs a command, turning errors made for users into one line on stderr and an exit code.

    Anything else is a defect and keeps its traceback. A reader of the output who goes away ends nothing. The
    working directory is put on the import path, as Ray does in its workers, so that classes named in the
    configuration may lie there.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    with lasting_output():
        return _run(command, program, debug)


def _run(command: Callable[[], int], program: str, debug: bool) -> int:
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


if __name__ == "__main__":
    sys.exit(main())
