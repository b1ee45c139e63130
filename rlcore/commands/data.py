"""Shows what a task's rows become, before a run: `rlcore data check`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlcore.commands.shared import Commands, config_options

if TYPE_CHECKING:
    from rlcore.config import RunConfig
    from rlcore.task import Task
    from rlcore.types import Prompt

_NUM_TRIED = 64
"""Prompts whose media are read and whose tokens are counted, evenly spread."""


def add_parser(commands: Commands, parents: Sequence[argparse.ArgumentParser]) -> None:
    """Adds `data`, with its command `check`, to the commands."""
    data = commands.add_parser("data", parents=[], help="look at a run's prompts without a run")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    check = kinds.add_parser(
        "check",
        parents=[config_options(), *parents],
        help="the first prompts as the model reads them, their tokens, and what rewards give to right "
        "answers; 1 where a right answer gets nothing, or a prompt does not fit",
        description="Shows what the rows of a run's task become, before a run: the first prompts as the "
        "model reads them with their references, the tokens of a sample of prompts (media included) and "
        "whether the longest leaves room for an answer, and what each reward by rule gives to right answers. "
        "Bad rows are named with their file and line. Exits with 1 where a right answer gets nothing, or a "
        "prompt does not fit.",
    )
    check.add_argument("--limit", type=int, default=2, help="prompts to show (default: 2)")
    check.set_defaults(run=run_check)


def run_check(arguments: argparse.Namespace) -> int:
    """Prints what the task's prompts are; returns 1 where a run could not learn from them, else 0."""
    from rlcore.config import load_config
    from rlcore.config.targets import build_target
    from rlcore.rewards.loading import check_rewards

    config = load_config(arguments.config, arguments.overrides)
    check_rewards(config.rewards)
    task: Task = build_target(config.task.target, config.task.args, where="task")
    train, held_out = task.prompts("train"), task.prompts("eval")
    print(f"{len(train)} prompts to train on, {len(held_out)} held out")
    for prompt in train[: max(0, arguments.limit)]:
        _show(config, task, prompt)
    fits = _count_tokens(config, task, train)
    return 0 if _try_answers(config, task, [*train, *held_out]) and fits else 1


def _show(config: RunConfig, task: Task, prompt: Prompt) -> None:
    from rlcore.rewards.reading import answered, rules_of
    from rlcore.types import RewardContext

    print(f"\n{prompt.id}")
    print("  | " + prompt.text.replace("\n", "\n  | "))
    for name, value in {**prompt.media, **prompt.reference}.items():
        print(f"  {name}: {value}")
    if (answer := _right_answer(task, prompt)) is not None:
        print(f"  a right answer: {answer!r}")
        for name, reward in rules_of(config.rewards):
            (score,) = reward.score(answered([prompt], [answer])[0], RewardContext())
            print(f"  {name} gives it {score.value:g}" if score.error is None else f"  {name}: {score.error}")


def _right_answer(task: Task, prompt: Prompt) -> str | None:
    """Returns what the task calls a perfect answer; else the bare answer of the reference."""
    from rlcore.task import KnowsAnswers

    perfect = task.perfect_answer(prompt) if isinstance(task, KnowsAnswers) else None
    answer = prompt.reference.get("answer")
    if perfect is not None or answer is None:
        return perfect
    return str(answer[0] if isinstance(answer, list) and answer else answer)


def _count_tokens(config: RunConfig, task: Task, prompts: Sequence[Prompt]) -> bool:
    """Prints the lengths of prompts, media included; tells whether the longest leaves room for an answer."""
    from rlcore.models.media import MediaEncoder

    count = min(_NUM_TRIED, len(prompts))
    tried = [prompts[i * len(prompts) // count] for i in range(count)]
    encoder = MediaEncoder(config.model.path, task.load_media, media="raw", cache_bytes=0, sees=False)
    lengths = [len(each.prompt_token_ids) for each in encoder.encode(tried)]
    longest, context = max(lengths), config.rollout.engine.get("max_model_len")
    print(
        f"\ntokens of a prompt: {sum(lengths) / count:.0f} on average, {longest} at most, of {count} counted"
    )
    if context is None or longest + config.rollout.max_tokens <= context:
        return True
    print(
        f"  prompt {tried[lengths.index(longest)].id} and an answer of rollout.max_tokens "
        f"({config.rollout.max_tokens}) do not fit into rollout.engine.max_model_len ({context})"
    )
    return False


def _try_answers(config: RunConfig, task: Task, prompts: Sequence[Prompt]) -> bool:
    """Prints how many right answers get something from each reward by rule; tells whether all do."""
    from rlcore.rewards.reading import answered, rules_of
    from rlcore.types import RewardContext

    found = [(prompt, _right_answer(task, prompt)) for prompt in prompts]
    known = [(prompt, answer) for prompt, answer in found if answer is not None]
    print(f"right answers: known of {len(known)} of {len(prompts)} prompts")
    all_paid, by_rule = True, dict(rules_of(config.rewards))
    for name in config.rewards:
        if name not in by_rule:
            print(f"  {name}: not tried, it is no reward by rule; `rlcore reward check` tries it")
        elif known:
            groups = answered([prompt for prompt, _ in known], [answer for _, answer in known])
            scores = [scores[0] for scores in by_rule[name].score_batch(groups, RewardContext())]
            unpaid = [i for i, score in enumerate(scores) if score.error is not None or score.value <= 0]
            print(f"  {name}: gives more than 0 to {len(known) - len(unpaid)} of {len(known)}")
            if unpaid:
                all_paid = False
                (prompt, answer), score = known[unpaid[0]], scores[unpaid[0]]
                reason = score.error if score.error is not None else f"got {score.value:g}"
                print(f"    the first of the others: {answer!r} of prompt {prompt.id}: {reason}")
    if not all_paid:
        print("  a reward that reads a form needs answers of that form: task.args.answer_template")
    return all_paid
