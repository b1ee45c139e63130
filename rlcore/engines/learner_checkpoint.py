"""The learner's part of a checkpoint: one format for every number of ranks and every ZeRO stage. This module
knows parameters, Adam's state and counters; not how they are trained.

    engine.json                   what was saved, under which layout, digests of the files; written last
    state-00000.safetensors ...   per trained parameter: NAME/weight, NAME/exp_avg, NAME/exp_avg_sq, float32

Parameters are gathered one by one into files of about a gigabyte, which belong to the ranks in turn. A rank
writes its file while the next ones are gathered, and holds two at most. Frozen parameters are those of
`model.path`: a fingerprint of them is kept in their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.distributed as dist
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rlcore.engines.collectives import failing_together
from rlcore.engines.zero import MOMENTS, AdamState
from rlcore.errors import CheckpointError
from rlcore.models.names import full_shape
from rlcore.records.checkpoint import (
    DIGESTS,
    DamagedCheckpointError,
    check_digest,
    file_digest,
    read_json,
)
from rlcore.records.files import num_bytes_of, room, sync, write_json

HEADER = "engine.json"
FORMAT = 2
FILE_BYTES = 1 << 30

Parameters = Mapping[str, torch.nn.Parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counters that say how far a learner has come since the start of its run."""

    num_calls: int
    """Batches that the learner was given."""
    num_updates: int
    """Optimizer steps that were made."""
    num_skipped: int
    """Optimizer steps that were not made, as loss or gradient was not finite."""
    num_skipped_in_a_row: int
    """Skipped steps since the last one that was made."""


class _Row(TypedDict):
    """The entry of one parameter in `engine.json`."""

    shape: list[int]
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """`engine.json`."""

    progress: Progress
    facts: Mapping[str, object]
    """Facts by name, as `save` was given them."""
    parameters: Mapping[str, _Row]
    """Entries by the parameter's name, in the model's order."""
    digests: Mapping[str, str] | None
    """Digests by file; None where an earlier version wrote the checkpoint."""


def save(
    folder: Path, parameters: Parameters, state: AdamState, progress: Progress, facts: Mapping[str, object]
) -> None:
    """Writes the trained `parameters` with Adam's state; `facts` of model and layout are JSON, for `load`.

    Collective. `engine.json` comes when every rank is done and its files are on the disk.

    Raises:
        CheckpointError: a rank cannot write its files; on every rank.
    """
    num_bytes = sum(map(_num_bytes, parameters.values())) * (
        1 + (len(MOMENTS) if progress.num_updates > 0 else 0)
    )
    with failing_together(), _writing(folder, num_bytes):
        folder.mkdir(parents=True, exist_ok=True)
    files = _files(parameters)
    with ThreadPoolExecutor(1) as writer:
        writings: dict[str, Future[str]] = {}
        for index, (file, names) in enumerate(files.items()):
            is_mine = index % dist.get_world_size() == dist.get_rank()
            tensors: dict[str, torch.Tensor] = {}
            for name in names:
                full = state.read(parameters[name], with_moments=progress.num_updates > 0)
                if is_mine:
                    tensors |= {f"{name}/{kind}": t.cpu().contiguous() for kind, t in full.items()}
            if is_mine:
                wait(list(writings.values())[-1:])
                writings[file] = writer.submit(_write, tensors, folder / file)
    with failing_together(), _writing(folder, num_bytes):
        own = {file: writing.result() for file, writing in writings.items()}
    digests: list[dict[str, str]] = [{}] * dist.get_world_size()
    dist.all_gather_object(digests, own)
    with failing_together(), _writing(folder, num_bytes):
        if dist.get_rank() == 0:
            rows: dict[str, _Row] = {
                name: {"shape": list(full_shape(parameters[name])), "file": file}
                for file, names in files.items()
                for name in names
            }
            by_file = {file: digest for each in digests for file, digest in each.items()}
            header = {"format": FORMAT, **asdict(progress), **facts, DIGESTS: by_file, "parameters": rows}
            write_json(folder / HEADER, header, durable=True)


def load(folder: Path, parameters: Parameters, state: AdamState, expected: Mapping[str, object]) -> Progress:
    """Puts what `save` wrote into these parameters and this state, and returns the progress. Collective.

    `expected` are facts of the header that must be the same, by name. Each file is read through by one rank
    before any parameter is written.

    Raises:
        DamagedCheckpointError: the checkpoint is incomplete or damaged.
        CheckpointError: the checkpoint is another model's. In either case weights and state are as they were,
            on every rank.
    """
    with failing_together():
        header = _read_header(folder / HEADER)
        _compare(folder, header, expected, parameters)
        num_updates = header.progress.num_updates
        kinds = ("weight", *(MOMENTS if num_updates > 0 else ()))
        files = _by_file(header.parameters)
        if foreign := sorted(file for file in files if Path(file).name != file):
            raise DamagedCheckpointError(
                f"{folder / HEADER}: names a file outside of its folder, {foreign[0]!r}; use an older one"
            )
        if missing := sorted(file for file in files if not (folder / file).is_file()):
            raise DamagedCheckpointError(f"{folder / missing[0]}: missing; use an older checkpoint")
        for file in list(files)[dist.get_rank() :: dist.get_world_size()]:
            if header.digests is not None:
                check_digest(folder / file, header.digests.get(file, ""))
            _check_tensors(folder / file, {n: header.parameters[n]["shape"] for n in files[file]}, kinds)
    state.prepare(num_updates)
    for file, names in files.items():
        with safe_open(folder / file, framework="pt") as tensors:
            for name in names:
                full = {kind: tensors.get_tensor(f"{name}/{kind}") for kind in kinds}
                state.write(parameters[name], full)
    state.finish()
    return header.progress


@contextmanager
def _writing(folder: Path, num_bytes: int) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        held = num_bytes_of(folder)
        raise CheckpointError(
            f"{folder}: the checkpoint cannot be written there: {error}; {room(folder, num_bytes, held)}"
        ) from error


def _write(tensors: dict[str, torch.Tensor], path: Path) -> str:
    """Writes the file, and returns its digest."""
    save_file(tensors, path)
    sync(path)
    return file_digest(path)


def _check_tensors(path: Path, shapes: Mapping[str, list[int]], kinds: Sequence[str]) -> None:
    """Raises DamagedCheckpointError where the file lacks a tensor, or has another length than its header
    says."""
    try:
        with safe_open(path, framework="pt") as tensors:  # compares the lengths
            found = set(tensors.keys())
            for name, shape in shapes.items():
                for kind in kinds:
                    key = f"{name}/{kind}"
                    if key not in found or tensors.get_slice(key).get_shape() != shape:
                        raise DamagedCheckpointError(
                            f"{path}: has no {key} of shape {shape}; use an older checkpoint"
                        )
    except SafetensorError as error:
        raise DamagedCheckpointError(f"{path}: damaged ({error}); use an older checkpoint") from error


def fingerprint(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Computes xxh3 of named tensors, hexadecimal: enough to tell models apart, no protection from
    forgery."""
    digest = xxhash.xxh3_64()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_header(path: Path) -> _Header:
    """Raises CheckpointError where the format is another version's, DamagedCheckpointError where entries are
    missing."""
    entries = read_json(path)
    if entries.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {entries.get('format')!r}, this version reads {FORMAT} alone; go on "
            "with the version that wrote it, or start anew"
        )
    try:
        progress = Progress(**{field.name: int(entries[field.name]) for field in fields(Progress)})
        rows = {name: _row(row) for name, row in entries["parameters"].items()}
        digests = None if DIGESTS not in entries else dict(entries[DIGESTS])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpointError(
            f"{path}: not what a learner wrote ({type(error).__name__}: {error}); use an older checkpoint"
        ) from error
    return _Header(progress=progress, facts=entries, parameters=rows, digests=digests)


def _row(row: Mapping[str, Any]) -> _Row:
    return {"shape": [int(size) for size in row["shape"]], "file": str(row["file"])}


def _compare(folder: Path, header: _Header, expected: Mapping[str, object], parameters: Parameters) -> None:
    """Raises CheckpointError with all that differs."""
    saved = {name: row["shape"] for name, row in header.parameters.items()}
    here = {name: list(full_shape(parameter)) for name, parameter in parameters.items()}
    different = []
    for what, one, other in (("it alone trains", saved, here), ("it does not train", here, saved)):
        if names := [name for name in one if name not in other]:
            different.append(f"{what} {len(names)} parameters, the first {names[0]}")
    shapes = [name for name in here if name in saved and saved[name] != here[name]]
    different += [f"{name} has shape {saved[name]}, not {here[name]}" for name in shapes[:3]]
    different += [
        f"{name} is {header.facts.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if header.facts.get(name) != value
    ]
    if different:
        raise CheckpointError(
            f"{folder}: written by another model than this run's: {'; '.join(different)}. Resume with the "
            "model.path, model.freeze and learner.lora of that run"
        )


def _files(parameters: Parameters) -> dict[str, list[str]]:
    """Returns each file's name and the parameters that it holds, in their order; the same on every rank."""
    files: list[list[str]] = [[]]
    size = 0
    for name, parameter in parameters.items():
        num_bytes = _num_bytes(parameter) * (1 + len(MOMENTS))
        if files[-1] and size + num_bytes > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(name)
        size += num_bytes
    return {f"state-{index:05d}.safetensors": names for index, names in enumerate(files)}


def _num_bytes(parameter: torch.nn.Parameter) -> int:
    """Returns the bytes of a trained parameter in the checkpoint: in float32, as the optimizer has it."""
    return 4 * math.prod(full_shape(parameter))


def _by_file(rows: Mapping[str, _Row]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = {}
    for name, row in rows.items():
        files.setdefault(row["file"], []).append(name)
    return files
