"""Foreign weight files become tensors under transformers' names: every number where it belongs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion_task.models.small.ctranslate2 import ModelFile, read_model
from emotion_task.models.small.smollm2 import build_tokenizer, read_language_model
from emotion_task.models.small.whisper import audio_tower
from rlcore.errors import DataError, MissingDependencyError

_CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def ctranslate2_file(tensors: Mapping[str, np.ndarray], version: int = 6) -> bytes:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    parts = [struct.pack("<I", version), string("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, tensor in tensors.items():
        parts += [
            string(name),
            struct.pack("<B", tensor.ndim),
            struct.pack(f"<{tensor.ndim}I", *tensor.shape),
        ]
        parts += [struct.pack("<BI", _CODES[str(tensor.dtype)], tensor.nbytes), tensor.tobytes()]
    return b"".join(parts)


TENSORS = {
    "matrix": np.arange(6, dtype=np.float16).reshape(2, 3) / 4,
    "bytes": np.array([-128, 127], dtype=np.int8),
    "scalar": np.array(7, dtype=np.int32),
}


def test_ctranslate2_tensors_come_back_as_they_were_stored() -> None:
    model = read_model(ctranslate2_file(TENSORS), "model.bin")
    assert model.specification == "WhisperSpec"
    assert list(model.tensors) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert model.tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(model.tensors[name], tensor)


@pytest.mark.parametrize("missing", [1, 5, 20])
def test_a_cut_ctranslate2_file_is_refused(missing: int) -> None:
    with pytest.raises(DataError, match=r"model\.bin: ends after \d+ bytes.*missing"):
        read_model(ctranslate2_file(TENSORS)[:-missing], "model.bin")


def test_other_files_are_refused() -> None:
    with pytest.raises(DataError, match="format 4 to 6; it begins with 7"):
        read_model(ctranslate2_file(TENSORS, version=7), "model.bin")
    damaged = ctranslate2_file({"t": np.zeros(2, np.float32)}).replace(
        struct.pack("<BI", 0, 8), struct.pack("<BI", 9, 8)
    )
    with pytest.raises(DataError, match="tensor t has type 9"):
        read_model(damaged, "model.bin")


def whisper_file(num_layers: int, width: int = 4) -> ModelFile:
    rng = np.random.default_rng(0)
    shapes = {
        "position_encodings/encodings": (10, width),
        "conv1/weight": (width, 5, 3),
        "conv2/weight": (width, width, 3),
    }
    for name in ("conv1/bias", "conv2/bias", "layer_norm/gamma", "layer_norm/beta"):
        shapes[name] = (width,)
    for layer in range(num_layers):
        for norm in ("self_attention", "ffn"):
            for kind in ("gamma", "beta"):
                shapes[f"layer_{layer}/{norm}/layer_norm/{kind}"] = (width,)
        for name, rows, columns in (
            ("self_attention/linear_0", 3 * width, width),
            ("self_attention/linear_1", width, width),
            ("ffn/linear_0", 2 * width, width),
            ("ffn/linear_1", width, 2 * width),
        ):
            shapes[f"layer_{layer}/{name}/weight"] = (rows, columns)
            shapes[f"layer_{layer}/{name}/bias"] = (rows,)
    tensors = {f"encoder/{n}": rng.standard_normal(s).astype(np.float16) for n, s in shapes.items()}
    return ModelFile("WhisperSpec", tensors)


def test_the_tower_is_whispers_encoder_under_qwen2_audios_names() -> None:
    from transformers import Qwen2AudioEncoderConfig
    from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoder

    source = whisper_file(6)
    state = audio_tower(source, num_layers=6, num_positions=8)
    config = Qwen2AudioEncoderConfig(
        d_model=4, encoder_layers=6, encoder_attention_heads=2, encoder_ffn_dim=8, num_mel_bins=5
    )
    config.max_source_positions = 8
    Qwen2AudioEncoder(config).load_state_dict(state)  # strict: every name, every shape

    fused = source.tensors["encoder/layer_2/self_attention/linear_0/weight"].astype(np.float32)
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        expected = fused[4 * index : 4 * index + 4]
        np.testing.assert_array_equal(state[f"layers.2.self_attn.{name}.weight"].numpy(), expected)
    gamma = source.tensors["encoder/layer_norm/gamma"].astype(np.float32)
    np.testing.assert_array_equal(state["layer_norm.weight"].numpy(), gamma)


def test_a_shorter_tower_ends_with_a_plain_norm() -> None:
    state = audio_tower(whisper_file(6), num_layers=2, num_positions=8)
    assert {name.split(".")[1] for name in state if name.startswith("layers.")} == {"0", "1"}
    assert state["layer_norm.weight"].tolist() == [1.0] * 4
    assert state["layer_norm.bias"].tolist() == [0.0] * 4


def test_another_model_is_no_whisper() -> None:
    with pytest.raises(DataError, match="TransformerSpec"):
        audio_tower(ModelFile("TransformerSpec", {}), num_layers=1, num_positions=8)
    with pytest.raises(DataError, match="encoder/layer_2/"):
        audio_tower(whisper_file(2), num_layers=3, num_positions=8)


def test_without_gguf_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"\[small\]"):
        read_language_model(tmp_path / "any.gguf")


def llama_gguf(path: Path, pre: str = "smollm") -> dict[str, np.ndarray]:
    """A Llama of one layer: 8 wide, two heads, one of keys and values. Returns what was written."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(12)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(["<|endoftext|>", "<|im_end|>", "1", "2", "a", "b", "Ġ", "ab", "Ġab"])
    writer.add_token_types([3, 3, 1, 1, 1, 1, 1, 1, 1])
    writer.add_token_merges(["a b", "Ġ ab"])
    rng = np.random.default_rng(1)
    shapes = {
        "token_embd.weight": (9, 8),
        "output_norm.weight": (8,),
        "blk.0.attn_norm.weight": (8,),
        "blk.0.ffn_norm.weight": (8,),
        "blk.0.attn_q.weight": (8, 8),
        "blk.0.attn_k.weight": (4, 8),
        "blk.0.attn_v.weight": (4, 8),
        "blk.0.attn_output.weight": (8, 8),
        "blk.0.ffn_gate.weight": (12, 8),
        "blk.0.ffn_up.weight": (12, 8),
        "blk.0.ffn_down.weight": (8, 12),
    }
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_llama_becomes_qwen2_with_zero_biases(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2Model

    written = llama_gguf(tmp_path / "m.gguf")
    model = read_language_model(tmp_path / "m.gguf")
    Qwen2Model(Qwen2Config(**model.config, vocab_size=9)).load_state_dict(model.state)

    # Rows of a head in the file: 0, D/2, 1, D/2 + 1, ...; here its first half, then its second.
    query = written["blk.0.attn_q.weight"]
    expected = np.concatenate([query[0:4:2], query[1:4:2], query[4:8:2], query[5:8:2]])
    np.testing.assert_array_equal(model.state["layers.0.self_attn.q_proj.weight"].numpy(), expected)
    np.testing.assert_array_equal(
        model.state["layers.0.mlp.down_proj.weight"].numpy(), written["blk.0.ffn_down.weight"]
    )
    assert not any(torch.any(t) for name, t in model.state.items() if name.endswith(".bias"))
    assert model.config["rope_parameters"]["rope_theta"] == 1e5


def test_the_tokenizer_merges_words_and_keeps_digits_apart(tmp_path: Path) -> None:
    llama_gguf(tmp_path / "m.gguf")
    tokenizer = build_tokenizer(read_language_model(tmp_path / "m.gguf"))
    tokens = tokenizer.tokenize("ab ab12<|im_end|>")
    assert tokens == ["ab", "Ġab", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(tokenizer("ab ab12")["input_ids"]) == "ab ab12"
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    llama_gguf(tmp_path / "m.gguf", pre="llama-bpe")
    with pytest.raises(DataError, match="llama-bpe"):
        read_language_model(tmp_path / "m.gguf")
