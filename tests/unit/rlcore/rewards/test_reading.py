"""A run that could never read a perfect answer says so before it starts, and says what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import decoders, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emotion_task.models.tiny import AUDIO_TOKENS, CHAT_TEMPLATE, THINK_TOKENS, train_tokenizer
from emotion_task.records import Utterance, write_manifest
from emotion_task.task import EmotionTask
from rlcore.config import LearnerConfig, ModelConfig, RewardConfig, RolloutConfig, RunConfig
from rlcore.errors import ConfigError
from rlcore.rewards.reading import check_reading
from rlcore.run import evaluate, train

Change = Callable[[PreTrainedTokenizerFast], object]

RULES = {
    "format": RewardConfig(target="emotion_task.rewards:FormatReward"),
    "outcome": RewardConfig(target="emotion_task.rewards:OutcomeReward"),
    "tags": RewardConfig(target="rlcore.rewards.rules:TagFormat", args={"tags": ["think", "answer"]}),
    "match": RewardConfig(
        target="rlcore.rewards.rules:ExactMatch", args={"key": "emotion", "extract": "<answer>(.*?)</answer>"}
    ),
    "elsewhere": RewardConfig(target="installed_on_the_nodes_only:Reward"),
}


def turn(begins: str) -> Change:
    """Returns the change by which the chat template begins the assistant's turn."""
    end = "assistant\n{% endif %}"
    return lambda tokenizer: setattr(
        tokenizer, "chat_template", CHAT_TEMPLATE.replace(end, f"assistant\n{begins}{{% endif %}}")
    )


def inner(**parts: Any) -> Change:
    """Returns the change of parts of the tokenizer's backend."""
    return lambda tokenizer: [
        setattr(tokenizer.backend_tokenizer, name, part) for name, part in parts.items()
    ]


def special(*tokens: str) -> Change:
    return lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})


def strips(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHAT_TEMPLATE.replace("part['text'] }", "part['text'].split('</think>')[-1] }")


def run_config(
    folder: Path, change: Change, rollout: RolloutConfig, rewards: dict[str, RewardConfig]
) -> RunConfig:
    manifest, path = folder / "m.jsonl", folder / "model"
    rows = [(split, emotion) for split in ("train", "eval") for emotion in ("sad", "happy")]
    write_manifest(manifest, [Utterance(id=f"{s}-{e}", audio="a.wav", emotion=e, split=s) for s, e in rows])
    tokenizer = train_tokenizer(["the pitch is high"], 400, list(AUDIO_TOKENS.values()))
    change(tokenizer)
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(
        json.dumps({"model_type": "granite", "architectures": ["GraniteForCausalLM"]})
    )
    return RunConfig(
        run_dir=str(folder / "run"),
        model=ModelConfig(path=str(path)),
        rollout=rollout,
        rewards=rewards,
        learner=LearnerConfig(recompute_logprobs=bool(rollout.structured)),
    )


def check(config: RunConfig, folder: Path) -> None:
    task = EmotionTask(str(folder / "m.jsonl"), config.model.path)
    check_reading(config, task, task.prompts("train"))


@pytest.mark.parametrize(
    "change",
    [
        lambda tokenizer: None,
        turn("<think>\n"),
        turn("<think>"),
        special(*THINK_TOKENS),
        lambda tokenizer: (turn("<think>\n")(tokenizer), special(*THINK_TOKENS)(tokenizer)),
    ],
)
def test_what_can_be_read_is_let_through(change: Change, tmp_path: Path) -> None:
    check(run_config(tmp_path, change, RolloutConfig(stop=("</answer>",)), RULES), tmp_path)


def plain_words(tokenizer: PreTrainedTokenizerFast) -> None:
    """Turns without a special token: tags of the question are no part of the answer."""
    texts = "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}{{ m['content'] }}"
    texts += (
        "{% else %}{% for p in m['content'] %}{{ p['text'] if 'text' in p else '' }}{% endfor %}{% endif %}"
    )
    tokenizer.chat_template = f"{texts} {{% endfor %}}assistant: <think>"


@pytest.mark.parametrize("change", [plain_words, turn("Sure: "), turn("<reasons> <think>\n")])
def test_what_a_template_writes_before_the_answer_is_let_through(change: Change, tmp_path: Path) -> None:
    rollout = RolloutConfig(structured={"regex": r"(<think>)?[\s\S]+</think><answer>[a-z]+</answer>"})
    check(run_config(tmp_path, change, rollout, RULES), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            turn("<think>\n\n</think>\n\n"),
            r"chat template of .*model ends the prompt with '<think>.* no <think>",
        ),
        (turn("<think>\nOkay, "), r"chat template of .*model ends the prompt with '<think>\\nOkay, ', which"),
        (turn("<think>skip</think>"), r"ends the prompt with '<think>skip</think>', which .* no <think>"),
        (turn("<think>\n</think>\n<answer>"), r"ends the prompt with '<think>\\n</think>\\n<answer>', which"),
        (turn("<answer>"), r"ends the prompt with '<answer>', which .* no <think>"),
        (turn("</think>\n"), r"ends the prompt with '</think>\\n', which"),
        (turn("<Think>\n"), r"ends the prompt with '<Think>\\n', which .* no <think>"),
        (
            lambda tokenizer: (turn("<think>skip</think>")(tokenizer), special(*THINK_TOKENS)(tokenizer)),
            r"ends the prompt with '<think>skip</think>', which",
        ),
        (strips, r"chat template of .* loses a text of the system turn: of 'Listen\. Think inside <think>"),
        (
            lambda tokenizer: setattr(tokenizer, "chat_template", "{{ raise_exception('no system role') }}"),
            "refuses a conversation of system, user: no system role; change chat_template.jinja",
        ),
        (
            special("</think>"),
            r"would be read as '<think>[^<]*<answer>sad</answer>'",
        ),
        (lambda tokenizer: setattr(tokenizer, "eos_token", "</answer>"), "would be read as .*<answer>sad'"),
        (inner(decoder=decoders.WordPiece()), "tokenizer of .* loses part of what a model writes"),
        (
            inner(
                pre_tokenizer=pre_tokenizers.Sequence(
                    [
                        pre_tokenizers.Split(" ", "removed"),
                        pre_tokenizers.ByteLevel(add_prefix_space=False),
                    ]
                )
            ),
            "would be read as '<think>Thepitchishigh",
        ),
    ],
)
def test_a_mismatch_of_model_and_task_is_named(change: Change, message: str, tmp_path: Path) -> None:
    config = run_config(tmp_path, change, RolloutConfig(), RULES)
    with pytest.raises(ConfigError, match=message):
        check(config, tmp_path)


@pytest.mark.parametrize(
    ("rollout", "rewards", "message"),
    [
        ({"banned_tokens": ("<answer>",)}, RULES, r"rollout.banned_tokens: \['<answer>'\] are never sampled"),
        ({"max_tokens": 3}, RULES, r"rollout.max_tokens: got 3, and .* '<think>.*</answer>' has \d+ tokens"),
        ({"structured": {"choice": ["sad", "happy"]}}, RULES, r"rollout.structured: got {'choice': \['sad'"),
        ({"structured": {"regex": "<answer>[a-z]+</answer>"}}, RULES, "rollout.structured: got {'regex'"),
        ({"structured": {"json": {"type": "object"}}}, RULES, "rollout.structured: got {'json'"),
        (
            {"stop": ("</think>",)},
            RULES,
            r"rewards.format: .* and 0 to '<think>[^<]*</think>', which .* rollout.stop",
        ),
        (
            {},
            {"tags": RewardConfig(target="rlcore.rewards.rules:TagFormat", args={"tags": ["answer"]})},
            "rewards.tags: gives 0 to perfect answers of the task, such as '<think>",
        ),
        (
            {},
            {"form": RewardConfig(target="rlcore.rewards.rules:RegexFormat", args={"pattern": "angry|sad"})},
            "rewards.form: gives 0 to perfect answers",
        ),
    ],
)
def test_a_mismatch_of_settings_is_named(
    rollout: dict[str, Any], rewards: dict[str, RewardConfig], message: str, tmp_path: Path
) -> None:
    config = run_config(tmp_path, lambda tokenizer: None, RolloutConfig(**rollout), rewards)
    with pytest.raises(ConfigError, match=message):
        check(config, tmp_path)


@pytest.mark.parametrize("start", [train, evaluate])
def test_a_run_says_so_before_anything_starts(
    start: Callable[[RunConfig], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(tmp_path, special("</think>"), RolloutConfig(), RULES)
    task = EmotionTask(str(tmp_path / "m.jsonl"), config.model.path)
    monkeypatch.setattr("rlcore.run._task", lambda config: task)
    monkeypatch.setattr("rlcore.run.ray_session", lambda cluster: pytest.fail("the cluster was asked"))
    with pytest.raises(ConfigError, match="loses part of what a model writes"):
        start(config)


@pytest.mark.parametrize("start", [train, evaluate])
def test_a_misspelt_reward_is_told_before_anything_starts(
    start: Callable[[RunConfig], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = {"form": RewardConfig(target="emotion_task.rewards:FormatRewrd")}
    monkeypatch.setattr("rlcore.run.ray_session", lambda cluster: pytest.fail("the cluster was asked"))
    with pytest.raises(ConfigError, match=r"rewards\.form\.target: .* has no 'FormatRewrd'"):
        start(RunConfig(run_dir=str(tmp_path / "run"), rewards=rewards))


def test_a_task_that_knows_no_answer_is_passed_over() -> None:
    check_reading(RunConfig(), object(), [])
