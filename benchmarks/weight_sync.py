"""How long a push of weights takes: packing by the sender, checking and loading by a running vLLM engine.

    python -m benchmarks.weight_sync [--quick] [--json FILE] [--gate]

Goal: after the first push, at most 3 ms a megabyte for both together, and an engine that holds, bit for bit,
what was sent.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import finish, parse_arguments
from rlcore.engines.vllm_engine import VLLMEngine, engine_env

MS_PER_MB = 3.0
SIZES = {"8 MB": (256, 4), "64 MB": (512, 8), "257 MB": (1024, 8)}
"""Hidden size and layers of a plain Qwen2 in float32."""


def make_model(folder: Path, hidden_size: int, num_layers: int) -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from rlcore.engines.hf_model import save_checkpoint

    vocabulary = {f"t{i}": i for i in range(512)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=hidden_size,
        intermediate_size=hidden_size // 64 * 128,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=512,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = Qwen2ForCausalLM(config)
    save_checkpoint(
        model, folder, processor=PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="t1")
    )
    return model


def measure(name: str, hidden_size: int, num_layers: int, num_pushes: int) -> dict[str, Any]:
    """Medians over the pushes after the first."""
    import torch

    from rlcore.engines.hf_model import checkpoint_parameters
    from rlcore.weight_sync import make_sender

    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), hidden_size, num_layers)
        engine = VLLMEngine(folder, engine_args={"max_model_len": 256})
        names = list(checkpoint_parameters(model))
        state = model.state_dict()
        sender = make_sender(
            "shared_memory", [(hub, tuple(state[n].shape)) for n, hub in names], dtype="float32"
        )
        pack, apply = [], []
        for version in range(1, num_pushes + 2):
            for tensor in state.values():
                tensor.mul_(1.01)
            start = time.perf_counter()
            push = sender.push(version, ((hub, state[n]) for n, hub in names))
            packed = time.perf_counter()
            engine.apply_weights(push)
            pack.append(packed - start)
            apply.append(time.perf_counter() - packed)
        megabytes = sender.num_bytes / 2**20
        sender.close()
        loaded = engine._llm.apply_model(lambda m: m.state_dict()["model.embed_tokens.weight"].clone())[0]
        pack_ms, apply_ms = (1000 * statistics.median(seconds[1:]) for seconds in (pack, apply))
        return {
            "model": name,
            "mb": megabytes,
            "first_ms": 1000 * (pack[0] + apply[0]),
            "pack_ms": pack_ms,
            "apply_ms": apply_ms,
            "total_ms": pack_ms + apply_ms,
            "gb_per_s": megabytes / 1024 / ((pack_ms + apply_ms) / 1000),
            "exact": int(torch.equal(loaded, state["model.embed_tokens.weight"])),
        }


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    sizes = dict(list(SIZES.items())[: 2 if arguments.quick else None])
    rows = [measure(name, *size, num_pushes=5) for name, size in sizes.items()]
    last = rows[-1]
    goals = {
        f"at most {MS_PER_MB} ms a megabyte": last["total_ms"] <= MS_PER_MB * last["mb"],
        "the engine holds what was sent": all(row["exact"] for row in rows),
    }
    keys = ("mb", "pack_ms", "apply_ms", "total_ms", "gb_per_s", "exact")
    finish("weight_sync", rows, {key: last[key] for key in keys}, goals, arguments)


if __name__ == "__main__":
    main()
