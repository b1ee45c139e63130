"""Holds what the scripts for GPU machines share (openrlhf.sh, verl.sh): the workload's files, and the figure.

    python -m benchmarks.peers.gpu prepare WORKLOAD FOLDER
    python -m benchmarks.peers.gpu report MARKS [--samples 128]

`prepare` writes prompts (prompts.jsonl, prompts.parquet) and the table of completion lengths (lengths.json)
of a workload of `rlcore bench`; `report` reads the marks that gpu_reward.py left and prints samples per
second over the steps after the first two.

These scripts have not been run yet: they need GPUs, and were written without one.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from rlcore.bench.measure import WARM_UP
from rlcore.bench.workloads import PROMPTS_PER_STEP, SAMPLES_PER_PROMPT, WORKLOADS, WordTask
from rlcore.records.files import write_rows


def prepare(workload: str, folder: Path) -> None:
    import pandas

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lengths.json").write_text(json.dumps(WORKLOADS[workload].lengths), encoding="utf-8")
    texts = [prompt.text for prompt in WordTask().prompts("train")]
    write_rows(folder / "prompts.jsonl", ({"prompt": text, "label": ""} for text in texts))
    rows = [
        {
            "data_source": workload,
            "prompt": [{"role": "user", "content": text}],
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index},
        }
        for index, text in enumerate(texts)
    ]
    pandas.DataFrame(rows).to_parquet(folder / "prompts.parquet")


def samples_per_second(marks: Sequence[tuple[float, int]], samples: int) -> float:
    """Returns the samples per second over steps of `samples` completions.

    Here, a step ends when its last completion is scored: between two such moments lie an update and a
    rollout.

    Args:
        marks: epoch seconds, and the number of completions that were scored then.
        samples: number of completions in a step.

    Raises:
        SystemExit: There are too few steps.
    """
    ends, count = list[float](), 0
    for moment, number in sorted(marks):
        count += number
        while count >= samples * (len(ends) + 1):
            ends.append(moment)
    counted = ends[WARM_UP - 1 :]
    if len(counted) < 2:
        raise SystemExit(f"{len(ends)} steps were scored; at least {WARM_UP + 1} are needed")
    steps = [after - before for before, after in itertools.pairwise(counted)]
    return samples * len(steps) / sum(steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    prepared = commands.add_parser("prepare")
    prepared.add_argument("workload", choices=[name for name in WORKLOADS if name.startswith("text")])
    prepared.add_argument("folder", type=Path)
    reported = commands.add_parser("report")
    reported.add_argument("marks", type=Path)
    reported.add_argument("--samples", type=int, default=PROMPTS_PER_STEP * SAMPLES_PER_PROMPT)
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        return prepare(arguments.workload, arguments.folder)
    lines = arguments.marks.read_text(encoding="utf-8").splitlines()
    marks = [(float(moment), int(count)) for moment, count in map(str.split, lines)]
    print(f"{samples_per_second(marks, arguments.samples):.2f} samples/s")


if __name__ == "__main__":
    main()
