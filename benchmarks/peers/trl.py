"""Compares rlcore's loop with TRL's GRPOTrainer: same model, prompts, completion lengths, reward and updates.

    python -m benchmarks.peers.trl --python TRL_PYTHON --workload text-forced --workload text-ragged \
        [--no-trials] [--steps N] [--rounds N] [--quick] [--json FILE] [--gate]

TRL_PYTHON is a Python of another environment, which has TRL (`pip install trl`).

The work (`rlcore.bench.workloads`) is 16 prompts of 128 tokens per step, 8 completions each of 64 tokens
(`text-forced`) or of lognormal lengths from 16 to 512 (`text-ragged`). The reward is the share of even
tokens. A step has one AdamW step on the batch of 128 completions, token-mean GRPO loss, no KL, float32.
Sample k of a prompt at a step has the same length on both sides: a logits processor (vLLM's, and
transformers' `generate`) forbids the stop token before that length, and every other token at that length.

Each side gets the machine to itself, and its best settings, found by trial in this run. TRL tries one or two
torch threads, two sizes of micro-batch, `generate` or continuous batching (its vLLM modes need CUDA); rlcore
tries several layouts of actors of one thread each. The headline is rlcore with `train.staleness: 0`, so that
both train on what the current weights wrote; rollouts that run one step ahead are listed beside it. Then the
sides take turns, each run in fresh processes. Samples per second are end to end over the steps after the
first two (start-up is left out), medians over the runs. Goals: 1.3 times TRL on forced lengths, 1.8 on ragged
ones.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.report import argument_parser, finish
from rlcore.bench.measure import WARM_UP, measure
from rlcore.bench.workloads import PROMPT_TOKENS, WORKLOADS, Workload
from rlcore.config import ClusterConfig, RunConfig
from rlcore.config.targets import build_target
from rlcore.loop.prompts import PromptStream
from rlcore.records.timeline import busy_seconds

GOALS = {"text-forced": 1.3, "text-ragged": 1.8}
TRL_SIDE = Path(__file__).with_name("trl_side.py")
DEADLINE_S = 900
TRIAL_STEPS, TRIAL_S = 1, 75.0
"""Counted steps of a setting on trial, and seconds after which a setting that is not done is out, with rate
0."""


@dataclass(frozen=True, slots=True)
class TRLSettings:
    """Holds one setting of TRL."""

    threads: int
    micro_batch: int
    """Number of completions in one forward pass of the update."""
    continuous: bool = False
    """True where transformers' continuous batching generates, instead of `generate`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Holds one layout of rlcore's actors, of one thread each."""

    engines: int
    learner_ranks: int
    staleness: int


Run = Callable[[Any, int], "Result"]
"""Function that runs one side with one of its settings for this many steps."""

TRL_CHOICES = [
    *(TRLSettings(threads, rows) for threads in (2, 1) for rows in (128, 32)),
    TRLSettings(2, 128, continuous=True),
]
TURNS = [Layout(2, 2, 0), Layout(1, 1, 0)]
AHEAD = [Layout(2, 1, 1), Layout(1, 1, 1), Layout(2, 2, 1)]
"""Layouts that run one step ahead; the one that was best on two cores stands first."""


@dataclass(frozen=True, slots=True)
class Result:
    """Holds the figures of one run of one side."""

    samples_per_second: float
    rollout_s: float
    """Median seconds per step of generating; with staleness, of rlcore waiting for the rollout."""
    rest_s: float
    """Median seconds of the rest of a step."""
    load: float
    """The machine's load average at the end of the run."""


def run_trl(
    spec: dict[str, Any], settings: TRLSettings, python: str, folder: Path, *, timeout_s: float
) -> Result:
    path = folder / "spec.json"
    path.write_text(json.dumps(spec | asdict(settings)), encoding="utf-8")
    done = subprocess.run(
        [python, "-I", str(TRL_SIDE), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": str(settings.threads), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"TRL's side failed:\n{done.stderr[-4000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    # The first step's mark is the first that TRL gives: it is warm-up, as are WARM_UP - 1 more.
    steps, generated = answer["step_seconds"][WARM_UP - 1 :], answer["generate_seconds"][WARM_UP - 1 :]
    return Result(
        samples_per_second=len(spec["lengths"][0]) * len(steps) / sum(steps),
        rollout_s=statistics.median(generated),
        rest_s=statistics.median(step - part for step, part in zip(steps, generated, strict=True)),
        load=answer["load"],
    )


def run_rlcore(config: RunConfig, layout: Layout, num_steps: int) -> Result:
    config = replace(
        config,
        rollout=replace(config.rollout, num_replicas=layout.engines, num_cpus=0.5),
        learner=replace(config.learner, num_ranks=layout.learner_ranks, num_cpus=0.4),
        train=replace(config.train, staleness=layout.staleness),
    )
    measured = measure(config, num_steps=num_steps)
    step = statistics.median(measured.step_seconds)
    for actor, phases in busy_seconds(measured.spans).items():
        seconds = {phase: round(total / num_steps, 3) for phase, total in phases.items()}
        print(f"    {actor}, seconds a step: {seconds}", flush=True)
    return Result(
        samples_per_second=measured.samples_per_second,
        rollout_s=measured.phases["rollout"],
        rest_s=step - measured.phases["rollout"],
        load=os.getloadavg()[0],
    )


def make_spec(workload: Workload, config: RunConfig, num_steps: int) -> dict[str, Any]:
    """Returns what TRL has to do: the prompts in the order in which rlcore draws them, and each sample's
    length."""
    from rlcore.engines.sampling import sampling_seed

    prompts = build_target(config.task.target, config.task.args, where="task").prompts("train")
    per_step, num_samples = config.train.prompts_per_step, config.rollout.samples_per_prompt
    stream = PromptStream(len(prompts), per_step, config.seed)
    steps = [[prompts[i] for i in stream.indices(step)] for step in range(WARM_UP + num_steps)]
    table = workload.lengths
    lengths = []
    for step, chosen in enumerate(steps):
        first = step * config.train.prompts_per_step
        seeds = [sampling_seed(config.seed, at, prompt.id) for at, prompt in enumerate(chosen, first)]
        lengths.append([table[(seed + k) % len(table)] for seed in seeds for k in range(num_samples)])
    return {
        "model": config.model.path,
        "prompts": [prompt.text for chosen in steps for prompt in chosen],
        "prompt_tokens": PROMPT_TOKENS,
        "samples_per_prompt": num_samples,
        "max_tokens": config.rollout.max_tokens,
        "lengths": lengths,
        "lr": config.learner.lr,
    }


def row_of(
    workload: Workload, side: str, settings: TRLSettings | Layout, results: Sequence[Result]
) -> dict[str, Any]:
    rates = [result.samples_per_second for result in results]

    def median(name: str) -> float:
        return statistics.median(getattr(result, name) for result in results)

    return {
        "workload": workload.name,
        "side": side,
        "samples_per_second": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "rollout_s": median("rollout_s"),
        "rest_s": median("rest_s"),
        "load": median("load"),
        "runs": len(results),
        "settings": " ".join(f"{key}={value}" for key, value in asdict(settings).items()),
    }


def compare(
    workload: Workload, arguments: argparse.Namespace, num_steps: int, num_rounds: int
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Runs both sides and returns rows, and the ratios to TRL of rlcore taking turns and running ahead."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = workload.config(folder)
        specs = {count: make_spec(workload, config, count) for count in {TRIAL_STEPS, num_steps}}

        def trl(settings: TRLSettings, count: int) -> Result:
            is_trial = count == TRIAL_STEPS
            try:
                limit = TRIAL_S if is_trial else DEADLINE_S
                return run_trl(specs[count], settings, arguments.python, folder, timeout_s=limit)
            except subprocess.TimeoutExpired:
                if not is_trial:
                    raise
                return Result(0.0, TRIAL_S, 0.0, os.getloadavg()[0])  # too slow to be the best

        def ours(layout: Layout, count: int) -> Result:
            return run_rlcore(config, layout, count)

        rows, best = list[dict[str, Any]](), dict[str, tuple[TRLSettings | Layout, Run]]()
        sides: tuple[tuple[str, Sequence[TRLSettings | Layout], Run], ...]
        sides = (("TRL", TRL_CHOICES, trl), ("rlcore", TURNS, ours), ("rlcore, one ahead", AHEAD, ours))
        for side, choices, side_run in sides:
            run: Run = side_run
            if arguments.no_trials:
                best[side] = choices[0], run
                continue
            trials = [row_of(workload, f"{side}, trial", c, [run(c, TRIAL_STEPS)]) for c in choices]
            rates = [row["samples_per_second"] for row in trials]
            best[side] = choices[rates.index(max(rates))], run
            rows += trials
            print(f"{workload.name}: {side}: {rates} -> {best[side][0]}", flush=True)
        results: dict[str, list[Result]] = {side: [] for side in best}
        for _ in range(num_rounds):
            for side, (choice, measure_side) in best.items():
                results[side].append(measure_side(choice, num_steps))
                print(f"  {side}: {results[side][-1]}", flush=True)
    measured = [row_of(workload, side, choice, results[side]) for side, (choice, _) in best.items()]
    base, turns, ahead = (float(row["samples_per_second"]) for row in measured)
    return [*rows, *measured], {"turns": turns / base, "ahead": ahead / base}


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--python", required=True, help="a Python that has TRL")
    parser.add_argument("--workload", action="append", choices=list(GOALS), help="default: both")
    parser.add_argument("--steps", type=int, default=6, help="counted ones of a run")
    parser.add_argument("--no-trials", action="store_true", help="the first setting of each side")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rlcore.actors.session import ray_session

    num_steps, num_rounds = (2, 1) if arguments.quick else (arguments.steps, arguments.rounds)
    rows, headline, goals = [], dict[str, float](), dict[str, bool]()
    with ray_session(ClusterConfig(num_cpus=2)):
        for name in arguments.workload or GOALS:
            more, ratios = compare(WORKLOADS[name], arguments, num_steps, num_rounds)
            rows += more
            headline |= {f"{name}_{layout}": ratio for layout, ratio in ratios.items()}
            goals[f"{name}: at least {GOALS[name]} times TRL"] = ratios["turns"] >= GOALS[name]
    finish("peers_trl", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
