"""Runs training from files as a Ray Train job: examples in, a Hugging Face folder out.

    examples.jsonl -> workers (one DeepSpeed rank each) -> checkpoints every n steps, then model/
    validation.jsonl ---------^     `-> metrics.jsonl, a line per step (the progress bar reads it)

With validation examples, the loss on them is measured at every checkpoint, and the model is that of the
checkpoint with the lowest loss; without them, the model is that of the last checkpoint. A model is written
once its checkpoint is safe; a job that dies in between writes it when it goes on.

What is learnt, and by which loss, is the job's `Recipe`. Examples are trained on in their order, so a job
that is resumed at step n sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from rlcore.config import ModelConfig
from rlcore.config.offline import OfflineConfig
from rlcore.errors import CheckpointError, DataError, NonFiniteError, RLCoreError, StoppedError, StorageError
from rlcore.records.checkpoint import DamagedCheckpointError, numbered, read_marker, write_marker
from rlcore.records.checkpoint import warn_without_digests as warn_without
from rlcore.records.files import JsonObject, append_rows, keep_rows, last_row, num_bytes_of, why
from rlcore.records.progress import Progress
from rlcore.records.signals import StopFlag
from rlcore.records.witness import witnessed

if TYPE_CHECKING:
    from ray.train import Result
    from ray.train.torch import TorchTrainer

    from rlcore.engines.deepspeed_engine import DeepSpeedEngine

log = logging.getLogger(__name__)

EXAMPLES = "examples.jsonl"
VALIDATION = "validation.jsonl"
METRICS = "metrics.jsonl"
SKIPPED = "skipped.jsonl"
MODEL = "model"
STATE = "step.json"
"""The job's part of a checkpoint."""
VALIDATION_LOSS = "validation_loss"
"""Metric: the loss of the validation examples; of supervised ones in nats per token."""
STOP = "stop"
"""File in the job's folder that exists while the job is asked to write a checkpoint and end."""


class Recipe(Protocol):
    """A recipe says what a job learns and by which loss. Every rank has its own copy, and calls `begin`
    first; all methods are collective."""

    @property
    def model(self) -> ModelConfig:
        """The checkpoint to start from, and what of it is trained."""
        ...

    @property
    def config(self) -> OfflineConfig:
        """Length, ranks and checkpoints of the job."""
        ...

    def begin(self, engine: DeepSpeedEngine, folder: Path, start: int) -> None:
        """Reads this rank's examples in the job's folder, before the first step after `start`."""
        ...

    def batches(self) -> Iterator[Sequence[Any]]:
        """Yields this rank's groups of each step after `start`, as `update` takes them."""
        ...

    def update(self, engine: DeepSpeedEngine, groups: Sequence[Any]) -> dict[str, float]:
        """Makes one optimizer step, and returns metrics of all ranks, `loss` and `num_tokens` among them."""
        ...

    def validate(self, engine: DeepSpeedEngine) -> dict[str, float]:
        """Returns metrics of the validation examples, `VALIDATION_LOSS` among them; none without any."""
        ...


class _Work(TypedDict):
    """Holds what a worker is told."""

    recipe: Recipe
    folder: str
    seed: int


def run_job(recipe: Recipe, folder: str | Path, *, seed: int, name: str) -> Path:
    """Trains by `recipe` and returns the folder of the new model, `folder/model`.

    A job whose checkpoints already lie under `folder` goes on from the last one. SIGINT and SIGTERM end the
    job after the step at hand, with a checkpoint.

    Args:
        seed: seed of the engine.
        name: name of the job, for the progress bar and errors.

    Raises:
        DataError: No validation loss was a number.
        ConfigError, CheckpointError: The model could not be saved at the end; found before the first step.
        StoppedError: The job was stopped by a signal.
    """
    folder = Path(folder).resolve()
    work: _Work = {"recipe": recipe, "folder": str(folder), "seed": seed}
    _fit(_trainer(work, folder), folder, name, recipe.config.num_steps)
    model = folder / MODEL
    if not model.is_dir():
        raise DataError(f"{folder / METRICS}: {name} has no step whose {VALIDATION_LOSS} is a number")
    return model


def _trainer(work: _Work, folder: Path) -> TorchTrainer:
    """Returns the Ray Train job, not yet started."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from rlcore.models.engine_environment import growing_blocks_env
    from rlcore.models.host_memory import heap_env

    # Train polls its workers at this interval; the default makes every report wait for a second or two.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    config, model_path = work["recipe"].config, work["recipe"].model.path
    learner = config.learner
    return TorchTrainer(
        _train_worker,
        train_loop_config=work,
        torch_config=TorchConfig(backend="nccl" if learner.num_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(config.min_ranks, learner.num_ranks) if config.min_ranks else learner.num_ranks,
            use_gpu=learner.num_gpus > 0,
            resources_per_worker={"CPU": learner.num_cpus}
            | ({"GPU": learner.num_gpus} if learner.num_gpus else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(folder),
            worker_runtime_env={
                "env_vars": growing_blocks_env() if learner.num_gpus else heap_env(model_path)
            },
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


def _fit(trainer: TorchTrainer, folder: Path, name: str, num_steps: int) -> None:
    """Runs the job to its end. Meanwhile this thread draws a bar from the file that the first worker writes,
    wherever that worker runs, and passes a signal on to the workers."""
    import ray.train

    from rlcore.actors.session import local_processes

    stop_file = folder / STOP
    stop_file.unlink(missing_ok=True)
    fitting: Future[Result] = Future()

    def fit() -> None:
        try:
            fitting.set_result(trainer.fit())
        except BaseException as error:
            fitting.set_exception(error)

    with (
        witnessed("The same command goes on from the last checkpoint") as witness,
        StopFlag() as stop,
        witness.watch(local_processes(), stop),
        Progress(total=num_steps, desc=name, unit="step") as bar,
    ):
        # In a thread, Train installs no handler of its own for SIGINT, which would drop the work at once.
        threading.Thread(target=fit, daemon=True).start()
        while not wait([fitting], timeout=0.5).done:
            _advance(bar, folder / METRICS)
            if stop:
                stop_file.touch()
        _advance(bar, folder / METRICS)
    stop_file.unlink(missing_ok=True)
    try:
        result = fitting.result()
        if result.error is not None:
            raise result.error
    except ray.train.WorkerGroupError as error:
        # What a worker says of its own failure is clearer than Train's collection of tracebacks.
        told = [each for each in error.worker_failures.values() if isinstance(each, RLCoreError)]
        if told and isinstance(told[0], StorageError):
            raise StorageError(f"{told[0]}. The same command goes on from the last checkpoint") from error
        if told:
            raise told[0] from error
        raise
    if stop and bar.n < num_steps:
        raise StoppedError(
            f"stopped by {stop.reason} after {name} step {bar.n}, with a checkpoint; the same command goes "
            "on from there"
        )


def _advance(bar: Progress, metrics: Path) -> None:
    row = last_row(metrics)
    if row is not None:
        # Of a step that was skipped, the loss may be no number.
        bar.set_postfix(loss="-" if row["loss"] is None else f"{row['loss']:.3f}", refresh=False)
        bar.update(row["step"] - bar.n)


def _train_worker(job: _Work) -> None:
    """Runs one rank. Ray Train has set the process group's environment."""
    import torch

    from rlcore.engines.deepspeed_engine import DeepSpeedEngine

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    recipe, folder = job["recipe"], Path(job["folder"])
    engine = DeepSpeedEngine(
        recipe.model.path,
        recipe.model,
        recipe.config.learner,
        num_steps=recipe.config.num_steps,
        seed=job["seed"],
        skipped_log=folder / SKIPPED,
    )
    engine.model.prepare_export(folder / MODEL)
    start, lowest, is_model = _resume(engine)
    if is_model:
        engine.model.export(folder / MODEL)  # the job may have died before this checkpoint's was written
    elif start == 0 and engine.rank == 0:
        shutil.rmtree(folder / MODEL, ignore_errors=True)
    recipe.begin(engine, folder, start)
    if engine.rank == 0:
        for name in (METRICS, SKIPPED):
            keep_rows(folder / name, lambda row: row["step"] <= start)
    _train(engine, recipe, folder, start, lowest)


def _train(engine: DeepSpeedEngine, recipe: Recipe, folder: Path, start: int, lowest: float) -> None:
    """Runs the steps after `start`, with a checkpoint where one is due, on a stop and at the end. `lowest` is
    the lowest validation loss so far."""
    size, num_steps, every = recipe.config.batch_size, recipe.config.num_steps, recipe.config.checkpoint_every
    began, num_tokens = time.perf_counter(), 0.0
    for step, groups in enumerate(recipe.batches(), start):
        try:
            metrics = recipe.update(engine, groups)
        except NonFiniteError:
            if step > start and step % every:
                _report(engine, {"step": step}, lowest, folder)
            raise
        done, seconds = step + 1, time.perf_counter() - began
        num_tokens += metrics["num_tokens"]
        metrics |= {
            "step": done,
            "examples_per_second": (done - start) * size / seconds,
            "tokens_per_second": num_tokens / seconds,
        }
        is_stopped = engine.any_rank((folder / STOP).exists()) and done < num_steps
        is_due = done % every == 0 or done == num_steps
        if is_due:
            metrics |= recipe.validate(engine)
        if engine.rank == 0:
            append_rows(folder / METRICS, [metrics])
        if is_due or is_stopped:
            lowest = _report(engine, metrics, lowest, folder, is_last=done == num_steps)
        if is_stopped:
            return


def _resume(engine: DeepSpeedEngine) -> tuple[int, float, bool]:
    """Loads the job's last checkpoint. Returns its step, the lowest validation loss so far, and whether the
    job's model is this checkpoint's; 0, infinity and False where there is none."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, math.inf, False
    newest = Path(checkpoint.path)  # the one before lies beside it, on storage that all ranks see
    found = [path for path in numbered(newest.parent) if path.name <= newest.name] or [newest]
    while True:
        folder = found.pop()
        try:
            state = _read_state(folder / STATE)
            engine.load(folder)
        except DamagedCheckpointError as error:
            if not found:
                raise
            log.warning("%s. The job goes on from %s", error, found[-1])
            continue
        if engine.rank == 0:
            warn_without(folder / STATE, state)
        best = state["lowest_validation_loss"]
        return state["step"], math.inf if best is None else float(best), state["is_model"]


def _read_state(path: Path) -> JsonObject:
    """Returns the job's part of a checkpoint.

    Raises DamagedCheckpointError where the checkpoint is not as it was saved.
    """
    state = read_marker(path)
    kinds = {"step": int, "is_model": bool, "lowest_validation_loss": float | None}
    if wrong := [name for name, kind in kinds.items() if not isinstance(state.get(name, ...), kind)]:
        raise DamagedCheckpointError(
            f"{path}: {wrong[0]} is {state.get(wrong[0])!r}; use an older checkpoint"
        )
    return state


def _report(
    engine: DeepSpeedEngine,
    metrics: Mapping[str, float],
    lowest: float,
    folder: Path,
    *,
    is_last: bool = False,
) -> float:
    """Hands a checkpoint of all ranks to Ray Train. Then, for the best checkpoint (without validation the
    last), exports the model: a failure there costs no training. Returns the lowest validation loss so far."""
    import ray.train

    step = int(metrics["step"])
    is_model = metrics[VALIDATION_LOSS] < lowest if VALIDATION_LOSS in metrics else is_last
    if is_model:
        lowest = metrics.get(VALIDATION_LOSS, lowest)
    # Ranks write files of their own, which Train puts together.
    with tempfile.TemporaryDirectory() as own:
        try:
            engine.save(own)
            if engine.rank == 0:
                known = lowest if math.isfinite(lowest) else None
                state = {"step": step, "lowest_validation_loss": known, "is_model": is_model}
                write_marker(Path(own) / STATE, state)
            checkpoint = ray.train.Checkpoint.from_directory(own)
            # Train copies it to the job's folder.
            ray.train.report(dict(metrics), checkpoint=checkpoint, checkpoint_dir_name=f"step_{step:06d}")
        except (CheckpointError, OSError) as error:
            reason = why(error, folder, num_bytes_of(Path(own))) if isinstance(error, OSError) else error
            raise StorageError(f"{folder}: the checkpoint of step {step} is not saved: {reason}") from error
    if is_model:
        engine.model.export(folder / MODEL)
    return lowest
