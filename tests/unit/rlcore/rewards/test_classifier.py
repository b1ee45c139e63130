"""A small classifier of a real architecture: the reward is what transformers computes, one text at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from rlcore.errors import ConfigError, DataError
from rlcore.rewards.classifier import SequenceClassifier
from rlcore.types import Completion, Group, Prompt, RewardContext

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "the", "voice", "is", "calm", "loud", ":", "sad", "very", "a"]
TEXTS = ("calm", "the voice is very very loud", "a", "calm " * 40, "sad")


def save(folder: Path, labels: list[str]) -> str:
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=32)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def group(*texts: str) -> Group:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="the voice", reference={"label": "sad"})
    return Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)


def test_a_folder_without_weights_or_tokenizer_is_named(tmp_path: Path) -> None:
    folder = Path(save(tmp_path / "m", ["only"]))
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        DataError, match=rf"model_path: {folder} lacks what a classifier needs: .*safetensors"
    ):
        SequenceClassifier(str(folder))


def logits(folder: str, text: str) -> torch.Tensor:
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[0]


def test_one_output_is_a_scalar_and_padding_changes_nothing(tmp_path: Path) -> None:
    folder = save(tmp_path / "scalar", ["score"])
    template = "{prompt} is {response} : {label}"
    reward = SequenceClassifier(folder, template, micro_batch_size=3)
    first, second = reward.score_batch([group(*TEXTS), group("loud")], RewardContext())
    for text, score in zip((*TEXTS, "loud"), (*first, *second), strict=True):
        if len(text) > 100:
            assert score.error == "its text has 47 tokens; 1 to 32 are read"
        else:
            expected = logits(folder, f"the voice is {text} : sad").sigmoid().item()
            assert score.value == pytest.approx(expected, abs=1e-6)
    assert len({round(score.value, 6) for score in first}) > 3
    raw = SequenceClassifier(folder, "{response}", sigmoid=False).score(group("calm"), RewardContext())
    assert raw[0].value == pytest.approx(logits(folder, "calm").item(), abs=1e-5)


def test_several_outputs_are_probabilities_of_a_label(tmp_path: Path) -> None:
    folder = save(tmp_path / "classes", ["rude", "kind", "neither"])
    by_name = SequenceClassifier(folder, "{response}", label="kind").score(group("calm"), RewardContext())[0]
    by_index = SequenceClassifier(folder, "{response}", label=1).score(group("calm"), RewardContext())[0]
    expected = logits(folder, "calm").softmax(-1)
    assert by_name == by_index and by_name.value == pytest.approx(expected[1].item(), abs=1e-6)
    assert list(by_name.parts) == ["rude", "kind", "neither"]
    assert sum(by_name.parts.values()) == pytest.approx(1)
    with pytest.raises(ConfigError, match=r"label: got None, must be one of \['rude', 'kind', 'neither'\]"):
        SequenceClassifier(folder)


def test_a_null_entry_fails_its_own_group_alone(tmp_path: Path) -> None:
    reward = SequenceClassifier(save(tmp_path / "scalar", ["score"]), "{response} : {label}")
    null = replace(group("calm", "loud"), prompt=Prompt(id="q", text="", reference={"label": None}))
    first, second = reward.score_batch([null, group("calm")], RewardContext())
    assert [score.error for score in first] == ["template: it names 'label', prompt 'q' has []"] * 2
    expected = logits(str(tmp_path / "scalar"), "calm : sad").sigmoid().item()
    assert second[0].value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("pad", "padding"),
    [
        (None, {}),
        ("<eot>", {}),  # transformers reads the score before the end of turn then
        (None, {"pad_token_id": 1}),
    ],
)
def test_a_reward_model_without_a_pad_token(tmp_path: Path, pad: str | None, padding: dict[str, int]) -> None:
    words = ["<s>", "<eot>", "what", "is", "two", "four", "five", "the", "answer"]
    vocabulary = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="what"))
    vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary, bos_token="<s>", eos_token="<eot>", pad_token=pad
    )
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.5,
        num_labels=1,
        **{"pad_token_id": None, **padding},
    )
    model = LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    texts = "four <eot>", "the answer is five <eot>", "the the the the what"
    reward = SequenceClassifier(str(tmp_path), "{response}", sigmoid=False)
    scores = [score.value for score in reward.score(group(*texts), RewardContext())]
    model.config.pad_token_id = 1 if padding or pad else None
    with torch.no_grad():
        alone = [model(**tokenizer(text, return_tensors="pt")).logits.item() for text in texts]
    assert scores == pytest.approx(alone, abs=1e-5)
