from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from tiny_models import make_qwen2_audio
from transformers import Qwen2AudioConfig, Qwen2Config

from rlcore.errors import ConfigError, DataError
from rlcore.models.families import CAUSAL_LM, QWEN2_5_OMNI, QWEN2_AUDIO, family_of
from rlcore.models.hf_model import (
    audio_token_id,
    load_config,
    load_model,
    load_processor,
    media_token_ids,
)
from rlcore.models.names import checkpoint_name, is_language_name, is_media_parameter
from rlcore.rewards.classifier import SequenceClassifier

Qwen2AudioForConditionalGeneration = type("Qwen2AudioForConditionalGeneration", (), {})
Qwen2_5OmniThinkerForConditionalGeneration = type("Qwen2_5OmniThinkerForConditionalGeneration", (), {})
LlamaForCausalLM = type("LlamaForCausalLM", (), {})


@pytest.mark.parametrize(
    ("cls", "name", "hub_name", "is_media"),
    [
        (
            Qwen2AudioForConditionalGeneration,
            "model.language_model.layers.1.mlp.up_proj.weight",
            "language_model.model.layers.1.mlp.up_proj.weight",
            False,
        ),
        (Qwen2AudioForConditionalGeneration, "lm_head.weight", "language_model.lm_head.weight", False),
        (Qwen2AudioForConditionalGeneration, "model.audio_tower.conv1.bias", "audio_tower.conv1.bias", True),
        (
            Qwen2AudioForConditionalGeneration,
            "model.multi_modal_projector.linear.weight",
            "multi_modal_projector.linear.weight",
            True,
        ),
        (Qwen2_5OmniThinkerForConditionalGeneration, "model.norm.weight", "thinker.model.norm.weight", False),
        (Qwen2_5OmniThinkerForConditionalGeneration, "lm_head.weight", "thinker.lm_head.weight", False),
        (
            Qwen2_5OmniThinkerForConditionalGeneration,
            "audio_tower.proj.bias",
            "thinker.audio_tower.proj.bias",
            True,
        ),
        (LlamaForCausalLM, "model.norm.weight", "model.norm.weight", False),
    ],
)
def test_parameter_names(cls: type, name: str, hub_name: str, is_media: bool) -> None:
    model = cls()
    assert checkpoint_name(model, name) == hub_name
    assert is_media_parameter(model, name) is is_media
    config = Qwen2Config(architectures=[cls.__name__])
    assert is_language_name(config, hub_name) is not is_media


def test_talker_weights_of_a_whole_omni_checkpoint_are_not_the_policy() -> None:
    config = Qwen2Config(architectures=["Qwen2_5OmniModel"])
    assert not is_language_name(config, "talker.model.norm.weight")


def test_families() -> None:
    assert family_of(Qwen2AudioConfig(architectures=["Qwen2AudioForConditionalGeneration"])) is QWEN2_AUDIO
    assert family_of(Qwen2Config(architectures=["Qwen2_5OmniModel"])) is QWEN2_5_OMNI
    assert family_of(Qwen2Config(architectures=["MistralForCausalLM"])) is CAUSAL_LM
    with pytest.raises(ConfigError, match="'BertForMaskedLM' is not supported"):
        family_of(Qwen2Config(architectures=["BertForMaskedLM"]))


def test_media_tokens_are_found_by_name_and_by_config() -> None:
    added = {"<|AUDIO|>": 3, "<|audio_bos|>": 4, "<|vision_eos|>": 9, "<|im_end|>": 2}
    tokenizer = SimpleNamespace(get_added_vocab=lambda: added)
    config = Qwen2AudioConfig(audio_token_index=7)
    assert audio_token_id(config) == 7
    assert media_token_ids(config, tokenizer) == [3, 4, 7, 9]
    assert audio_token_id(Qwen2Config()) is None


HUB_IDS = ["runs/nope", "nowhere/nope", "nope"]


@pytest.mark.parametrize("path", [*HUB_IDS, "./runs/nope", "runs/nope/model", "/runs/nope", "~/nope"])
def test_a_folder_that_is_not_there_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    asked: list[str] = []

    def nobody(self: HfApi, repo: str, timeout: float) -> None:
        asked.append(repo)
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(HfApi, "model_info", nobody)
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("asked the hub")
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    once = [path] if path in HUB_IDS else []
    for load in (load_config, load_model, load_processor, SequenceClassifier):
        asked.clear()
        with pytest.raises(DataError, match=f"^{path}: no such model"):
            load(path)
        assert asked == once


def test_weights_go_to_their_device_at_once(tmp_path: Path) -> None:
    model = load_model(str(make_qwen2_audio(tmp_path)), dtype="bfloat16", device="meta")
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


def test_missing_and_broken_models_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such model. A model is a folder"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not a checkpoint"):
        load_model(str(tmp_path))
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"model.dtype: got 'int4'"):
        load_model(str(tmp_path), dtype="int4")
    with pytest.raises(DataError, match="not a checkpoint"):
        load_model(str(tmp_path))
