"""The card of a trained model: README.md in its folder, as the hub reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import yaml

from rlcore.config import RunConfig
from rlcore.config.io import plain
from rlcore.records.markdown import table_row


def model_card(config: RunConfig, summary: Mapping[str, Any]) -> str:
    """Returns the card of a run's policy: a YAML header as the hub reads it, then Markdown.

    A folder of this machine is never named, so that the card can be shared as it is: a base model or a file
    in the settings is told by its last part alone.

    Args:
        summary: of the run, as `rlcore.run.train` returns it.
    """
    base = config.model.path
    is_hub_id = base.count("/") == 1 and not os.path.exists(base)
    header = {
        "library_name": "transformers",
        **({"base_model": base} if is_hub_id else {}),
        "tags": ["rlcore", "reinforcement-learning", config.algorithm.advantage],
    }
    run = os.path.basename(config.run_dir.rstrip("/"))
    steps, prompts = summary["steps"], config.train.prompts_per_step
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {run}",
        f"{base if is_hub_id else os.path.basename(base.rstrip('/'))}, trained by reinforcement learning "
        f"with rlcore: {steps} steps of {prompts} prompts with {config.rollout.samples_per_prompt} answers "
        f"each, seed {config.seed}.",
        "## Held-out prompts",
        _metrics(summary.get("before", {}), summary.get("after", {})),
        "## Rewards",
        _table(
            ("reward", "class", "weight"),
            [(name, reward.target, f"{reward.weight:g}") for name, reward in config.rewards.items()],
        ),
        "## Settings",
        f"```yaml\n{_settings(config)}```",
        "## Versions",
        _table(("package", "version"), summary.get("versions", {}).items()),
        "## Licences and data",
        "The licence of the base model holds for this model too. Say here what it was trained on, under "
        "which terms, and what it must not be used for.",
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The metrics that were measured at the end, beside those of the start; one a row."""
    rows = [
        (name, _number(before.get(name)), _number(value))
        for name, value in after.items()
        if isinstance(value, Real)
    ]
    return _table(("metric", "before", "after"), rows) if rows else "None were measured."


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, Real) else "-"


def _settings(config: RunConfig) -> str:
    """What a reader needs to do the same: algorithm, optimizer, sampling."""
    rollout, learner = config.rollout, config.learner
    chosen = {
        "algorithm": plain(config.algorithm),
        "learner": {
            "lr": learner.lr,
            "lr_schedule": learner.lr_schedule,
            "warmup_steps": learner.warmup_steps,
            "betas": list(learner.betas),
            "weight_decay": learner.weight_decay,
            "max_grad_norm": learner.max_grad_norm,
            "lora": plain(learner.lora),
        },
        "rollout": {
            "temperature": rollout.temperature,
            "top_p": rollout.top_p,
            "max_tokens": rollout.max_tokens,
        },
        "train": {"staleness": config.train.staleness},
    }
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True)


def _table(heads: tuple[str, ...], rows: Any) -> str:
    return "\n".join(map(table_row, [heads, ["---"] * len(heads), *rows]))
