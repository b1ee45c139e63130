"""Measures how long a push of weights takes, against a plain copy of the same bytes.

    python -m benchmarks.weight_sync [--quick] [--json FILE] [--gate]

The learner's end runs in this process, a real vLLM engine in another, as in a run. A push is timed from its
announcement to the engine's return, everything included: packing, checksums at both ends, messages, loading
into the running model, resetting its caches. Before every push the same tensors are copied plainly: torch's
`copy_`, tensor by tensor, by one thread, into memory of this process that every earlier copy has written
(mapped and warm). The figures are medians over the pushes, also of each push's own ratio to its copy.
Processor time is user and system time of both processes, learner and engine; on cores that others use,
processor time says more than wall time.

With adapters (rank 64 on the attention of a model of Qwen2.5-0.5B's layers) three pushes of the same weights
are compared: of all of them, of what adapters change, and of the adapters alone.

Goals: 250 MB through shared memory take at most 1.5 times the plain copy; from 1 MB to 1 GB the milliseconds
per megabyte differ by at most a factor of two; the engine holds, bit for bit, what was sent; what adapters
change is a third of the weights at most.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.report import finish, parse_arguments
from rlcore.config import WeightSyncConfig
from rlcore.engines.vllm_engine import VLLMEngine, engine_env
from rlcore.weight_sync import make_sender

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM

    from rlcore.engines.weights import Weight

BACKENDS = ("shared_memory", "gloo")
SIZES = {
    "1 MB": (128, 1),
    "4 MB": (192, 2),
    "16 MB": (256, 6),
    "64 MB": (512, 6),
    "250 MB": (1024, 6),
    "1 GB": (2048, 6),
}
"""Hidden size and number of layers of a plain Qwen2 in float32, by the size of its weights."""
ADAPTED = (896, 24)
"""The same of the model whose adapters are pushed."""
WAYS = ("all", "changed", "adapters")
"""What is pushed of a model with adapters, or "all" of one without."""
MAX_RATIO = 1.5
MAX_SPREAD = 2.0
PROBE = "model.layers.0.self_attn.o_proj.weight"


def make_model(folder: Path, hidden_size: int, num_layers: int) -> Qwen2ForCausalLM:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from rlcore.models.hf_model import save_checkpoint

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


def serve_engine(folder: str, backend: str, connection: Connection) -> None:
    """Runs the engine's process: takes part in every push that `connection` announces, and answers with its
    CPU seconds. After None, the answer is one tensor that the engine holds."""
    engine = VLLMEngine(folder, engine_args={"max_model_len": 256}, weight_backend=backend)
    connection.send("ready")
    while (push := connection.recv()) is not None:
        start = time.process_time()
        engine.apply_weights(push)
        connection.send(time.process_time() - start)
    (held,) = engine._llm.apply_model(lambda model: model.state_dict()[PROBE].clone())
    connection.send(held.numpy())


@contextmanager
def engine_process(folder: str, backend: str) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_engine, args=(folder, backend, theirs), daemon=True)
    process.start()
    try:
        assert receive(ours, 180) == "ready"
        yield ours
    finally:
        process.terminate()
        process.join(20)


def receive(connection: Connection, timeout_s: float) -> Any:
    if not connection.poll(timeout_s):
        raise TimeoutError(f"the engine's process gave no answer within {timeout_s:g} s")
    return connection.recv()


def weights_of(model: Qwen2ForCausalLM, way: str) -> list[Weight]:
    from rlcore.engines.weights import adapter_weights, changed_weights, rollout_weights

    return list({"all": rollout_weights, "changed": changed_weights, "adapters": adapter_weights}[way](model))


def measure(
    shape: tuple[int, int], backend: str, num_pushes: int, *, way: str = "all", adapters: bool = False
) -> dict[str, Any]:
    """Measures pushes of one size and returns medians over those after the first; `ratio` is the median of
    each push's own ratio."""
    from rlcore.config import LoRAConfig
    from rlcore.engines.trainable import add_lora

    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder), *shape)
        if adapters:
            add_lora(model, LoRAConfig(rank=64, alpha=128), ())
        weights = weights_of(model, way)
        copies = [torch.zeros(weight.shape) for weight in weights]
        sender = make_sender(
            WeightSyncConfig(backend=backend),
            [(weight.hub_name, weight.shape) for weight in weights],
            dtype="float32",
        )
        assert sender is not None
        pushes = []
        with engine_process(folder, backend) as connection:
            for version in range(1, num_pushes + 2):
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.requires_grad:
                            parameter.mul_(1.01).add_(1e-4)
                tensors = [weight.tensor() for weight in weights]
                copy = Timing()
                for target, tensor in zip(copies, tensors, strict=True):
                    target.copy_(tensor)
                copy.stop()
                del tensors
                timing = Timing()
                push = sender.announce(version, [0])
                connection.send(push)
                report = sender.push(push, ((weight.hub_name, weight.tensor()) for weight in weights))
                engine_cpu = receive(connection, 60)
                timing.stop()
                pushes.append((copy, timing, engine_cpu))
            connection.send(None)
            held = receive(connection, 60)
            (probe,) = (w.tensor() for w in weights_of(model, "all") if w.hub_name == PROBE)
            difference = float(np.abs(held - probe.numpy()).max())
        sender.close()
    megabytes = report.num_bytes / 2**20
    first, *rest = pushes

    def median(value: Callable[[Timing, Timing, float], float]) -> float:
        return statistics.median(value(*push) for push in rest)

    return {
        "backend": backend,
        "pushed": f"{way}, with adapters" if adapters else way,
        "mb": megabytes,
        "buckets": report.num_buckets,
        "copy_ms": 1000 * median(lambda copy, push, engine: copy.wall),
        "push_ms": 1000 * median(lambda copy, push, engine: push.wall),
        "best_push_ms": 1000 * min(push.wall for _, push, _ in rest),
        "first_ms": 1000 * first[1].wall,
        "ratio": median(lambda copy, push, engine: push.wall / copy.wall),
        "ms_per_mb": 1000 * median(lambda copy, push, engine: push.wall) / megabytes,
        "copy_cpu_ms": 1000 * median(lambda copy, push, engine: copy.cpu),
        "learner_cpu_ms": 1000 * median(lambda copy, push, engine: push.cpu),
        "engine_cpu_ms": 1000 * median(lambda copy, push, engine: engine),
        "cpu_ratio": median(lambda copy, push, engine: (push.cpu + engine) / copy.cpu),
        "exact": int(difference == 0),
        "difference": difference,
        "load": os.getloadavg()[0],
    }


class Timing:
    """Measures wall and processor seconds of this process, from construction to `stop`."""

    def __init__(self) -> None:
        self.cpu, self.wall = -time.process_time(), -time.perf_counter()

    def stop(self) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    sizes = [size for size in SIZES if not arguments.quick or size in ("1 MB", "16 MB", "64 MB")]
    rows = [measure(SIZES[size], backend, num_pushes=9) for backend in BACKENDS for size in sizes]
    through_memory = [row for row in rows if row["backend"] == BACKENDS[0]]
    shape = SIZES["16 MB"] if arguments.quick else ADAPTED
    lora = [measure(shape, BACKENDS[0], num_pushes=5, way=way, adapters=True) for way in WAYS]
    main_row = through_memory[sizes.index("250 MB") if "250 MB" in sizes else -1]
    rows += lora
    # Factors are multiplied at the engine, in another order.
    goals = {
        "the engine holds what was sent": all(row["exact"] for row in rows[:-1]),
        "adapters alone make the same weights": lora[2]["difference"] < 1e-5,
        "what adapters change is a third at most": 3 * lora[1]["mb"] <= lora[0]["mb"],
    }
    if not arguments.quick:
        costs = [row["ms_per_mb"] for row in through_memory]
        goals[f"250 MB at most {MAX_RATIO} times a plain copy"] = main_row["ratio"] <= MAX_RATIO
        goals[f"cost a megabyte within a factor of {MAX_SPREAD:g}"] = max(costs) <= MAX_SPREAD * min(costs)
    keys = ("mb", "copy_ms", "push_ms", "best_push_ms", "ratio", "cpu_ratio", "ms_per_mb", "exact", "load")
    finish("weight_sync", rows, {key: main_row[key] for key in keys}, goals, arguments)


if __name__ == "__main__":
    main()
