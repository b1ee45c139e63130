"""The command line `emotion`: assembles the commands of `emotion_task.commands`."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence

from emotion_task.commands import (
    ablation,
    annotate,
    claims,
    config,
    corpus,
    cot,
    evaluate,
    explain,
    export,
    line,
    perception,
    policy_errors,
    rationale,
    reward_report,
    serve,
    small_model,
    submit,
    tiny_model,
    traces,
)
from rlcore.cli import add_completion, parse, run_command
from rlcore.errors import MissingDependencyError

COMMANDS = (
    corpus,
    annotate,
    traces,
    cot,
    export,
    small_model,
    tiny_model,
    line,
    ablation,
    submit,
    reward_report,
    policy_errors,
    perception,
    rationale,
    evaluate,
    explain,
    serve,
    claims,
    config,
)
"""Modules of the commands, in the order in which the help lists them."""

EPILOG = """\
examples:
  emotion quickstart --config emotion_task/configs/quickstart.yaml
  emotion quickstart --config emotion_task/configs/quickstart.yaml seed=1 run_dir=runs/seed1
  emotion ablation --config emotion_task/configs/small.yaml --seeds 0,1,2
  emotion annotate my_calls.jsonl --out annotated/
  emotion cot annotated/manifest.jsonl --out cot/ model=Qwen/Qwen3-8B base_url=http://localhost:8000/v1 \\
    extra.chat_template_kwargs.enable_thinking=false
  emotion export cot/ --out EmotionCoT/
  emotion reward-report runs/quickstart/reward_model/model --untrained runs/quickstart/sft/model \\
    --manifest runs/quickstart/annotated/manifest.jsonl --out runs/quickstart/reward_model/calibration
  emotion perception --before runs/quickstart/base --model runs/quickstart/sft/model \\
    --manifest runs/quickstart/annotated/manifest.jsonl --form profile --out runs/quickstart/perception
  emotion rationale runs/quickstart/rl/model --manifest runs/quickstart/annotated/manifest.jsonl \\
    --limit 150 --out runs/quickstart/rationale
  emotion evaluate runs/quickstart/rl/model --compare runs/quickstart/sft/model \\
    --benchmark ravdess --data /data/ravdess --out runs/quickstart/ravdess
  emotion tiny-model runs/tiny --texts data/train.jsonl
  emotion explain call.wav --model runs/quickstart/rl/model
  emotion serve runs/quickstart/rl/model port=8080 replicas=2
"""

_EXTRA = {
    "datasets": "datasets",
    "pyarrow": "pyarrow",
    "rich": "rich",
    "sklearn": "scikit-learn",
    "soundfile": "soundfile",
}
"""Module to package: what emotion_task imports and rlcore does not ask for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (default: the process's arguments) names, and returns the exit code."""
    arguments = parse(build_parser(), argv)
    return run_command(lambda: _run(arguments), program="emotion", debug=arguments.debug)


def _run(arguments: argparse.Namespace) -> int:
    for module, package in _EXTRA.items():
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(
                f"`emotion` needs {package}, which is not installed: pip install -e '.[emotion]' in the "
                "project's folder"
            )
    return arguments.run(arguments)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of `emotion` with all commands."""
    parser = argparse.ArgumentParser(
        prog="emotion",
        description="Models that hear speech, reason aloud about prosody and name the emotion.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_completion(parser)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands, [common])
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
