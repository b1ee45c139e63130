"""The families' registry, what it refuses, and each family's audio in packed rows against plain ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import audio_prompt, make_family, make_qwen2_5_vl, make_qwen2_audio, tone
from transformers import PreTrainedModel, Qwen2Config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from emotion_task.models.tiny import ARCHITECTURES
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.errors import ConfigError, DataError
from rlcore.models.families import CAUSAL_LM, OWN_FAMILIES, QWEN2_AUDIO, families, family_of
from rlcore.models.families.left_out import LEFT_OUT
from rlcore.models.hf_model import load_config, load_model, load_processor, save_checkpoint
from rlcore.models.media import MediaEncoder
from rlcore.models.names import checkpoint_name
from rlcore.plan.sizes import sizes_of_config
from rlcore.types import Prompt

PROJECT = Path(__file__).resolve().parents[4]


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    families.cache_clear()
    yield
    families.cache_clear()


def package(folder: Path, module: str, source: str, entry: str) -> None:
    """Installs a package as pip does: a module, and its metadata."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rlcore.families]\nown = {entry}\n")


def guides_example() -> str:
    guide = (PROJECT / "docs/guides/families.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"^```python\n(# acme_voice\.py\n.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    return source


def load_tone(prompt: Prompt) -> dict[str, object]:
    return {"audio": [tone(i, 0.6 + 0.4 * i) for i in prompt.media["tones"]], "sampling_rate": 16000}


def test_an_outside_package_adds_a_family_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_registry: None
) -> None:
    """The guide's file: found by its entry point, loaded, encoded, packed, saved under the hub's names."""
    torch.set_num_threads(1)
    path = make_qwen2_audio(tmp_path / "model")
    built_in = load_model(str(path))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(
        json.dumps({**config, "architectures": ["AcmeVoiceForConditionalGeneration"]})
    )
    with pytest.raises(ConfigError, match=r"'AcmeVoice\w+' .*is not supported; .*Qwen2-Audio"):
        load_model(str(path))
    families.cache_clear()

    package(tmp_path, "acme_voice", guides_example(), "acme_voice:FAMILY")
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model(str(path))
    assert type(model).__module__ == "acme_voice" and family_of(model).name == "Acme Voice"
    assert all(torch.equal(t, built_in.state_dict()[name]) for name, t in model.state_dict().items())

    # Recordings that fill the window, behind which the example's tower would hear silence.
    prompt = Prompt(id="a", text=audio_prompt(path), media={"tones": (6,)})
    rows = []
    for media in ("embeds", "raw"):
        (encoded,) = MediaEncoder(str(path), load_tone, media=media).encode([prompt])
        group = TokenGroup(
            prompt_token_ids=np.array(encoded.prompt_token_ids),
            token_ids=(np.arange(9, 14),),
            media_inputs=encoded.media_inputs,
        )
        with torch.no_grad():
            rows += [completion_logprobs(each, [group]).rows()[0] for each in (model, built_in)]
    for row in rows[1:]:
        np.testing.assert_allclose(row, rows[0], atol=1e-5)

    save_checkpoint(model, tmp_path / "again", processor=load_processor(str(path)))
    saved = json.loads((tmp_path / "again" / "config.json").read_text())
    assert saved["architectures"] == ["AcmeVoiceForConditionalGeneration"]
    again = load_model(str(tmp_path / "again"))
    assert type(again) is type(model)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("FAMILY = 3", "a int is no rlcore.models.families.Family"),
        ("import nothing_of_the_kind", "it does not load .*No module named 'nothing_of_the_kind'"),
        (
            "from dataclasses import replace\nfrom rlcore.models.families import QWEN2_AUDIO\n"
            "FAMILY = replace(QWEN2_AUDIO, name='Other')",
            "Qwen2AudioForConditionalGeneration has a family already, Qwen2-Audio",
        ),
    ],
)
def test_an_entry_point_that_is_no_family_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_registry: None, source: str, said: str
) -> None:
    name = f"broken_{abs(hash(source))}"
    package(tmp_path, name, source, f"{name}:FAMILY")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"entry point own = {name}:FAMILY of the group rlcore.families: {said}"
    ):
        family_of(Qwen2Config(architectures=["LlamaForCausalLM"]))


def of_text(**keys: object) -> dict[str, object]:
    return {**Qwen2Config(vocab_size=32, hidden_size=8).to_dict(), **keys}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        # Under a text model's type, so that transformers would load them as text.
        (
            of_text(architectures=["Phi4MMForCausalLM"], audio_processor={"name": "cascades"}),
            r"'Phi4MMForCausalLM' \(Phi-4-multimodal: its code lies in the checkpoint",
        ),
        (of_text(architectures=["MoonshotKimiaForCausalLM"]), r"\(Kimi-Audio: its code"),
        (of_text(architectures=["MiMoAudioForCausalLM"]), r"\(MiMo-Audio: neither vLLM nor transformers"),
        (
            of_text(architectures=["Qwen2ForCausalLM"], audio_channels=8),
            r"sees, audio_channels in its config",
        ),
        (
            of_text(architectures=["NewForCausalLM"], speech_vocab_size=7),
            r"'NewForCausalLM' \(it hears or sees, speech_vocab_size in its config.json, and is no text",
        ),
        (
            of_text(architectures=["NewForCausalLM"], vision_config={"depth": 2}),
            r"\(it hears or sees, vision_config in its config.json",
        ),
        (
            of_text(architectures=["NewSpeechForCausalLM"]),
            r"'NewSpeechForCausalLM' \(it hears or sees, by its name, and is no text model\)",
        ),
        # Types that transformers does not know, or only with code beside them.
        ({"architectures": ["MiniCPMO"], "model_type": "minicpmo"}, r"'MiniCPMO' \(MiniCPM-o: its code"),
        (
            {
                "architectures": ["StepAudio2ForCausalLM"],
                "model_type": "step_audio_2",
                "auto_map": {"AutoConfig": "configuration.StepConfig"},
            },
            r"\(Step-Audio 2: its code .*its model_type, and code that lies in a checkpoint is not run\)$",
        ),
        ({"architectures": ["LoudModel"], "model_type": "loud"}, "architecture 'LoudModel' is not supported"),
        # Native in transformers.
        (
            {"architectures": ["VoxtralForConditionalGeneration"], "model_type": "voxtral"},
            "Mistral's own token",
        ),
        (
            {"architectures": ["Gemma3nForConditionalGeneration"], "model_type": "gemma3n"},
            "capped after the head",
        ),
    ],
    ids=lambda value: value["architectures"][0] if isinstance(value, dict) else "",
)
def test_other_models_that_hear_or_see_are_refused_by_name(
    tmp_path: Path, keys: dict[str, object], said: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(ConfigError, match=said) as caught:
        load_model(str(tmp_path))
    for family in OWN_FAMILIES:
        assert family.name in str(caught.value)
    with pytest.raises(ConfigError, match=said):
        load_processor(str(tmp_path))


def test_a_checkpoint_that_transformers_would_read_as_another_is_refused(tmp_path: Path) -> None:
    """Qwen3-ASR as first published, of which transformers would take the defaults for the sizes."""
    keys = {"architectures": ["Qwen3ASRForConditionalGeneration"], "model_type": "qwen3_asr"}
    thinker = {"audio_config": {"d_model": 64}, "text_config": {"hidden_size": 64}}
    (tmp_path / "config.json").write_text(json.dumps({**keys, "thinker_config": thinker}))
    with pytest.raises(ConfigError, match=r"does not read \(thinker_config\); take .* ends in -hf"):
        load_model(str(tmp_path))


def test_text_models_are_text_models() -> None:
    """Every causal language model of transformers', by its name, but for those that say what they hear."""
    names = {name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() if name.endswith("ForCausalLM")}
    assert len(names) > 100
    refused = set()
    for name in names - LEFT_OUT.keys():
        try:
            assert family_of(Qwen2Config(architectures=[name])) is CAUSAL_LM
        except ConfigError:
            refused.add(name)
    assert refused == {"MiniMaxM3VLForCausalLM"}
    # A key without a value says nothing.
    assert family_of(Qwen2Config(architectures=["LlamaForCausalLM"], vision_config=None)) is CAUSAL_LM


@pytest.fixture(scope="module", params=ARCHITECTURES)
def path(request: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    if "omni" in request.param:
        pytest.importorskip("torchvision")
    return str(make_family(tmp_path_factory.mktemp(request.param), request.param))


def test_a_tiny_checkpoint_is_there_of_every_family(tmp_path: Path) -> None:
    made = {family_of(load_config(str(make_family(tmp_path / name, name)))).name for name in ARCHITECTURES}
    made.add(family_of(load_config(str(make_qwen2_5_vl(tmp_path / "vl")))).name)
    assert made == {family.name for family in OWN_FAMILIES} - {CAUSAL_LM.name}


def test_audio_in_packed_rows_gives_the_values_and_gradients_of_plain_ones(path: str) -> None:
    """Waveforms of unequal length, one longer than a window, through processor, tower and decoder: two
    prompts of several completions in one row, against the model's own forward of each, in float64."""
    model, text = load_model(path).double(), audio_prompt(path)
    model.set_experts_implementation("eager")  # torch's grouped products take no float64
    prompts = [Prompt(id=str(i), text=text, media={"tones": (i,)}) for i in (1, 12)]
    encoded = MediaEncoder(path, load_tone, media="raw").encode(prompts)
    rng = np.random.default_rng(0)
    completions = [[rng.integers(20, 60, size=size) for size in sizes] for sizes in ((5, 2), (4,))]
    weights = [[torch.from_numpy(rng.normal(size=len(c))) for c in group] for group in completions]

    plain, loss = [], torch.zeros((), dtype=torch.float64)
    for prompt, group, of_group in zip(prompts, completions, weights, strict=True):
        for tokens, weight in zip(group, of_group, strict=True):
            row = own_logprobs(model, path, prompt, tokens)
            loss = loss + (weight * row).sum()
            plain.append(row.detach())
    expected = gradients(model, loss)
    heard = [name for name in expected if "audio_tower" in name]
    assert len(heard) > 10 and any(bool(expected[name].abs().max() > 0) for name in heard)

    groups = [
        TokenGroup(
            prompt_token_ids=np.array(each.prompt_token_ids),
            token_ids=tuple(group),
            media_inputs=each.media_inputs,
        )
        for each, group in zip(encoded, completions, strict=True)
    ]
    packed = completion_logprobs(model, groups)
    for row, own in zip(packed.logprobs, plain, strict=True):
        torch.testing.assert_close(row[: len(own)].double(), own, rtol=0, atol=2e-6)
    flat = [weight for of_group in weights for weight in of_group]
    total = sum((w * row[: len(w)]).sum() for row, w in zip(packed.logprobs, flat, strict=True))
    got = gradients(model, total)
    assert got.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=2e-6 * largest)


def test_the_plan_counts_a_familys_towers_apart(path: str) -> None:
    sizes, model = sizes_of_config(load_config(path)), load_model(path)
    family, count = family_of(model), {name: p.numel() for name, p in model.named_parameters()}
    heard = tuple(f"{each}." for each in (family.audio_tower, family.projector) if each)
    assert sizes.audio == sum(n for name, n in count.items() if name.startswith(heard)) > 100_000
    others = tuple(f"{each}." for each in family.media_modules[len(heard) :])
    assert sizes.other_media == sum(n for name, n in count.items() if name.startswith(others))


def own_logprobs(model: PreTrainedModel, path: str, prompt: Prompt, tokens: np.ndarray) -> torch.Tensor:
    """Returns the log-probabilities [T] of a completion by the model's own forward, from the waveform."""
    inputs = load_processor(path)(text=prompt.text, return_tensors="pt", **load_tone(prompt))
    ids = torch.cat([inputs["input_ids"][0], torch.from_numpy(tokens)])[None]
    features = {
        name: value.double() if value.is_floating_point() else value
        for name, value in inputs.items()
        if name.startswith(("input_features", "feature_"))
    }
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **features).logits[0]
    predicting = logits[-len(tokens) - 1 : -1].log_softmax(-1)
    return predicting.gather(-1, torch.from_numpy(tokens)[:, None])[:, 0]


def gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    path = make_qwen2_audio(tmp_path)
    model = load_model(str(path))
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.1.mlp.up" not in name}
    save_file(
        {checkpoint_name(model, name): tensor for name, tensor in state.items()}, path / "model.safetensors"
    )
    with pytest.raises(
        DataError, match=r"1 weights of Qwen2Audio.*, the first model.language_model.layers.1.mlp"
    ):
        load_model(str(path))


def test_recordings_beyond_what_the_engine_takes_are_refused(tmp_path: Path) -> None:
    path = str(make_family(tmp_path, "audio_flamingo3"))
    prompt = Prompt(id="two", text=audio_prompt(path), media={"tones": (1, 2)})
    with pytest.raises(
        DataError, match="prompt two: 2 recordings, of which Audio Flamingo 3 takes 1 at most"
    ):
        MediaEncoder(path, load_tone).encode([prompt])


def test_the_page_of_families_has_them_all() -> None:
    page = (PROJECT / "docs/reference/families.md").read_text(encoding="utf-8")
    assert all(f"| {family.name} |" in page for family in OWN_FAMILIES)
    assert QWEN2_AUDIO.takes_audio_embeds and "| Qwen2-Audio | `Qwen2Audio" in page
