"""Encodes the batches of one rank, in the job's order: in the rank itself, or by Ray Data ahead of the rank.

    examples -> blocks -> Ray Data actors with an encoder each, wherever CPUs are free -> the rank's batches

Ray Data's own sharding hands a block to whichever rank asks first. Here each rank runs a pipeline over its
own rows, in order, so that step n has the same examples in every run, resumed or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice

import numpy as np
import ray
from safetensors.numpy import load, save

from emotion_task.config import SupervisedConfig
from emotion_task.sft.encode import EncodedExample, ExampleEncoder
from emotion_task.sft.examples import Example

BLOCK = 16
"""Number of examples that an actor encodes at a time."""
_MEDIA = "media/"


def encoder_of(model_path: str, config: SupervisedConfig) -> ExampleEncoder:
    return ExampleEncoder(
        model_path,
        freeze=config.freeze,
        cache_bytes=config.feature_cache_mb << 20,
        cache_folder=config.media_cache,
    )


def encoded_batches(
    steps: Sequence[Sequence[Example]], model_path: str, config: SupervisedConfig
) -> Iterator[list[EncodedExample]]:
    """Yields one list of encoded examples per step.

    Args:
        steps: the rank's examples of each step to come.
        model_path: the checkpoint whose processor encodes.
        config: `ingest_cpus` of the configuration decides where encoding runs; 0 means in this process.
    """
    if config.ingest_cpus == 0:
        encoder = encoder_of(model_path, config)
        yield from ([encoder.encode(example) for example in step] for step in steps)
        return
    encoded = _streamed([example for step in steps for example in step], model_path, config)
    yield from (list(islice(encoded, len(step))) for step in steps)


def _streamed(
    examples: Sequence[Example], model_path: str, config: SupervisedConfig
) -> Iterator[EncodedExample]:
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    rows = [{"example": json.dumps(asdict(example))} for example in examples]
    num_actors = max(1, int(config.ingest_cpus))
    encoded = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // BLOCK)).map_batches(
        _Encode,
        fn_constructor_args=(model_path, config),
        batch_size=None,
        batch_format="numpy",
        num_cpus=config.ingest_cpus / num_actors,
        compute=ray.data.ActorPoolStrategy(size=num_actors),
    )
    for batch in encoded.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
        yield from map(unpack, batch["encoded"])


class _Encode:
    """Encodes batches in an actor of Ray Data."""

    def __init__(self, model_path: str, config: SupervisedConfig):
        self._encoder = encoder_of(model_path, config)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        examples = [Example(**json.loads(str(row))) for row in batch["example"]]
        return {"encoded": np.array([pack(self._encoder.encode(e)) for e in examples], dtype=object)}


def pack(example: EncodedExample) -> bytes:
    """Packs an encoded example of one completion into a safetensors blob: Ray Data's columns hold no ragged
    tensors."""
    arrays: Mapping[str, np.ndarray] = {_MEDIA + name: array for name, array in example.media_inputs.items()}
    own = {"prompt": example.prompt_token_ids, "target": example.token_ids[0]}
    if example.token_weights:
        own["weights"] = example.token_weights[0]
    own["id"] = np.frombuffer(example.prompt_id.encode(), dtype=np.uint8)
    return save({name: np.ascontiguousarray(array) for name, array in {**arrays, **own}.items()})


def unpack(blob: bytes) -> EncodedExample:
    """Restores the encoded example that `pack` packed."""
    arrays = load(bytes(blob))
    return EncodedExample(
        prompt_id=arrays["id"].tobytes().decode(),
        prompt_token_ids=arrays["prompt"],
        token_ids=(arrays["target"],),
        token_weights=(arrays["weights"],) if "weights" in arrays else (),
        media_inputs={n.removeprefix(_MEDIA): a for n, a in arrays.items() if n.startswith(_MEDIA)},
    )
