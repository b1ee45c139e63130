"""Prints what a run would take before it starts: `rlcore plan`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands

if TYPE_CHECKING:
    from rlcore.plan.planner import Plan, Settings


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `plan` to the commands."""
    plan = commands.add_parser(
        "plan", parents=parents, help="memory, seconds and GPU-hours before a run; 1: no fit"
    )
    plan.add_argument(
        "--hardware",
        required=True,
        metavar="SPEC",
        help="h100-80g, h200-141g, a100-80g, a100-40g, l40s (and :GPUS or :GPUSxNODES), cpu, or a YAML file",
    )
    plan.add_argument(
        "--prompt-tokens", type=int, help="text tokens of a prompt (default: the task's own, else 100)"
    )
    plan.add_argument(
        "--audio-seconds", type=float, help="audio of a prompt (default: the task's own, else 6)"
    )
    plan.add_argument(
        "--completion-tokens", type=float, help="mean length of a completion (default: half of the maximum)"
    )
    plan.add_argument("--json", action="store_true", help="as JSON")
    plan.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the plan as text or JSON; returns 0 where the run fits, else 1."""
    from rlcore.config import load_config
    from rlcore.config.checks import check
    from rlcore.plan.hardware import load_hardware
    from rlcore.plan.planner import make_plan
    from rlcore.plan.prompts import measured_workload
    from rlcore.plan.sizes import sizes_of
    from rlcore.plan.workload import Workload

    given = {
        name: getattr(arguments, name)
        for name in ("prompt_tokens", "audio_seconds", "completion_tokens")
        if getattr(arguments, name) is not None
    }
    config = load_config(arguments.config, arguments.overrides)
    check(bool(config.rewards), "rewards", {}, "one at least, for instance rewards.format.target")
    sizes, hardware = sizes_of(config.model), load_hardware(arguments.hardware)
    assumed = {} if sizes.audio else {"audio_seconds": 0.0}
    workload = Workload(**(assumed | given))
    lengths = {name: given[name] for name in ("prompt_tokens", "audio_seconds") if name in given}
    source = "lengths of the prompts are those of --prompt-tokens and --audio-seconds"
    if len(lengths) < 2:
        workload, source = measured_workload(config, workload)
    if lengths:
        prepare_seconds = None if "audio_seconds" in lengths else workload.prepare_seconds
        workload = replace(workload, **lengths, longest_prompt=None, prepare_seconds=prepare_seconds)
    if len(lengths) == 1:
        source += f"; taken is --{next(iter(lengths)).replace('_', '-')}"
    plan = make_plan(config, sizes, hardware, workload)
    if arguments.json:
        print(json.dumps({**summary(plan), "prompts": source}, indent=2))
    else:
        print(describe(plan, source))
    return 0 if plan.fits else 1


def summary(plan: Plan) -> dict[str, object]:
    """Returns the plan as JSON-ready values."""
    phases = plan.phases
    return {
        "fits": plan.fits,
        "problems": list(plan.problems),
        "changes": [dict(change) for change in plan.changes],
        "hardware": plan.hardware.name,
        "num_gpus": len(plan.devices),
        "memory_gb": {
            role.name: {
                "each": role.num_bytes / 1e9,
                "count": role.count,
                **{part: value / 1e9 for part, value in role.parts.items()},
            }
            for role in plan.roles
        },
        "seconds": {
            name: getattr(phases, name)
            for name in ("prepare", "prefill", "decode", "score", "update", "weight_sync")
        },
        "step_seconds": plan.step_seconds,
        "staleness": plan.staleness,
        "tokens_per_second": plan.tokens_per_second,
        "gpu_hours": plan.gpu_hours,
        "best_split": None
        if plan.best is None
        else {name: getattr(plan.best, name) for name in plan.best.__slots__},
    }


def describe(plan: Plan, source: str) -> str:
    """Returns the plan as lines for a terminal. `source` says where the lengths of prompts come from."""
    config, batch, hardware = plan.config, plan.batch, plan.hardware
    unit = "core" if hardware.is_cpu else "GPU"
    lines = [
        f"{config.model.path} on {hardware.num_nodes} x {hardware.gpus_per_node} {hardware.name}",
        f"a step: {batch.num_prompts} prompts of {batch.prompt_length} tokens, each with {batch.num_samples} "
        f"completions of {batch.completion_length:.0f} tokens on average and at most {batch.max_completion}",
        source,
        "",
        f"memory of one {unit}, GB" if not hardware.is_cpu else "memory of one actor, GB",
    ]
    for role in plan.roles:
        parts = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in role.parts.items() if value)
        lines.append(f"  {role.count:>3} x {role.name:<20} {role.num_bytes / 1e9:6.1f}  ({parts})")
    shared = {tuple(d.roles): d.num_bytes for d in plan.devices if len(set(d.roles)) > 1}
    if not hardware.is_cpu:
        for names, num_bytes in shared.items():
            lines.append(f"        shared by {', '.join(names)}: {num_bytes / 1e9:.1f}")
    lines += [
        f"  an engine's cache holds {plan.rollout.cache_tokens:.0f} tokens and writes "
        f"{plan.rollout.num_seqs} sequences at once",
        "",
        "seconds of a step",
        *_phases(plan),
        "",
        *_verdict(plan),
    ]
    return "\n".join(lines)


def _phases(plan: Plan) -> list[str]:
    phases, num_steps = plan.phases, plan.config.train.num_steps
    rows = {
        "rollout: media on CPUs": phases.prepare,
        "rollout: prefill": phases.prefill,
        "rollout: decode": phases.decode,
        "scoring (beside it)": phases.score,
        "update": phases.update,
        "weight sync": phases.weight_sync,
        f"step (staleness {plan.staleness})": plan.step_seconds,
    }
    lines = [f"  {name:<22} {seconds:9.2f}" for name, seconds in rows.items()]
    lines.append(
        f"  {plan.tokens_per_second:.0f} completion tokens a second; {num_steps} steps take "
        f"{num_steps * plan.step_seconds / 3600:.1f} h, {plan.gpu_hours:.1f} GPU-hours"
    )
    return lines


def _verdict(plan: Plan) -> list[str]:
    lines = []
    best, config = plan.best, plan.config
    if best is not None:
        mine = (config.rollout.min_replicas, config.learner.num_ranks)
        same = mine == (best.rollout_replicas, best.learner_ranks)
        gain = plan.step_seconds / best.step_seconds
        settings = f"rollout.num_replicas={best.rollout_replicas} learner.num_ranks={best.learner_ranks}"
        if best.reference_replicas:
            settings += f" reference.num_replicas={best.reference_replicas}"
        if same or gain < 1.02:
            lines.append("split of the GPUs: the best, or within 2 % of it")
        else:
            lines.append(f"a better split of the GPUs ({best.step_seconds:.2f} s a step): {settings}")
    if plan.fits:
        return [*lines, "fits"]
    lines += ["does not fit:", *(f"  {problem}" for problem in plan.problems)]
    lines += [f"  would fit with: {_settings(change)}" for change in plan.changes]
    if not plan.changes:
        lines.append(
            "  no change of up to three settings makes it fit: change what the lines above name, or "
            "take more or larger hardware"
        )
    return lines


def _settings(change: Settings) -> str:
    return " ".join(f"{key}={str(value).lower()}" for key, value in change.items())
