"""Supervised fine-tuning as a Ray Train job: examples in, a Hugging Face folder out.

    examples.jsonl -> workers (one DeepSpeed rank each) -> checkpoints every n steps -> model/
                                    `-> metrics.jsonl, a line a step (the progress bar reads it)

Serves prosody SFT and the reward model alike. The examples are trained on in their order, `batch_size` a
step, so a job that is resumed at step n sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from emotion_task.config import SupervisedConfig
from emotion_task.sft.examples import Example, read_examples, write_examples
from rlcore.config import ModelConfig
from rlcore.errors import DataError, NonFiniteError, StoppedError
from rlcore.signals import StopFlag

METRICS = "metrics.jsonl"
SKIPPED = "skipped.jsonl"
STOP = "stop"
"""Exists while the job is asked to write a checkpoint and end."""


def run_supervised(
    examples: Sequence[Example],
    model_path: str,
    folder: str | Path,
    config: SupervisedConfig,
    *,
    seed: int,
    name: str,
) -> Path:
    """Fine-tunes `model_path` on `examples` and returns the folder of the new model, `folder/model`.

    A job whose checkpoints lie under `folder` already goes on from the last one. SIGINT and SIGTERM end it
    after the step at hand, with a checkpoint.

    Raises:
        DataError: fewer examples than `num_steps * batch_size`.
        StoppedError: it was stopped by a signal.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    folder = Path(folder).resolve()
    if Path(model_path).is_dir():
        model_path = str(Path(model_path).resolve())  # Train's workers run in folders of their own
    needed = config.num_steps * config.batch_size
    if len(examples) < needed:
        raise DataError(
            f"{folder}: {name} needs {needed} examples (num_steps * batch_size), got {len(examples)}"
        )
    write_examples(folder / "examples.jsonl", examples[:needed])
    # Train polls its workers at this interval; the default makes every report wait for a second or two.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    learner = config.learner
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={
            "name": name,
            "model_path": str(model_path),
            "examples": str(folder / "examples.jsonl"),
            "config": config,
            "seed": seed,
        },
        torch_config=TorchConfig(backend="nccl" if learner.num_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=learner.num_ranks,
            use_gpu=learner.num_gpus > 0,
            resources_per_worker={"CPU": learner.num_cpus}
            | ({"GPU": learner.num_gpus} if learner.num_gpus else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    result = _fit(trainer, folder, name, config.num_steps)
    model = folder / "model"
    with result.checkpoint.as_directory() as checkpoint:
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(Path(checkpoint) / "model", model)
    return model


def _fit(trainer: Any, folder: Path, name: str, num_steps: int) -> Any:
    """The finished job's result. Beside it this thread draws a bar from the file that the first worker
    writes, wherever that one runs, and passes a signal on to the workers."""
    stop_file = folder / STOP
    stop_file.unlink(missing_ok=True)
    fitting: Future[Any] = Future()

    def fit() -> None:
        try:
            fitting.set_result(trainer.fit())
        except BaseException as error:
            fitting.set_exception(error)

    with StopFlag() as stop, tqdm(total=num_steps, desc=name, unit="step") as bar:
        # In a thread, Train installs no handler of its own for SIGINT, which would drop the work at once.
        threading.Thread(target=fit, daemon=True).start()
        while not wait([fitting], timeout=0.5).done:
            _advance(bar, folder / METRICS)
            if stop:
                stop_file.touch()
        _advance(bar, folder / METRICS)
    stop_file.unlink(missing_ok=True)
    result = fitting.result()
    if result.error is not None:
        raise result.error
    if stop and bar.n < num_steps:
        raise StoppedError(
            f"stopped by {stop.reason} after {name} step {bar.n}, with a checkpoint; the same command goes "
            "on from there"
        )
    return result


def _advance(bar: Any, metrics: Path) -> None:
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    if lines and lines[-1].endswith("}"):
        row = json.loads(lines[-1])
        bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        bar.update(row["step"] - bar.n)


def _train_worker(job: dict[str, Any]) -> None:
    """One rank. Ray Train has set the process group's environment."""
    import ray.train
    import torch

    from emotion_task.sft.encode import ExampleEncoder
    from rlcore.engines.deepspeed_engine import DeepSpeedEngine

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    config: SupervisedConfig = job["config"]
    num_steps, batch_size = config.num_steps, config.batch_size
    context = ray.train.get_context()
    rank, num_ranks = context.get_world_rank(), context.get_world_size()
    engine = DeepSpeedEngine(
        job["model_path"],
        ModelConfig(path=job["model_path"], freeze=config.freeze, media="raw"),
        config.learner,
        num_steps=num_steps,
        seed=job["seed"],
        skipped_log=Path(job["examples"]).with_name(SKIPPED),
    )
    start = _resume(engine)
    encoder = ExampleEncoder(
        job["model_path"],
        freeze=config.freeze,
        cache_bytes=config.feature_cache_mb << 20,
        cache_folder=config.media_cache,
    )
    examples = read_examples(job["examples"])
    metrics_file = Path(job["examples"]).with_name(METRICS)
    if rank == 0:
        for name in (METRICS, SKIPPED):
            _keep_rows(metrics_file.with_name(name), start)
    began = time.perf_counter()
    for step in range(start, num_steps):
        rows = examples[step * batch_size : (step + 1) * batch_size]
        groups = [encoder.encode(example) for example in rows[rank::num_ranks]]
        try:
            metrics = engine.supervised_update(groups)
        except NonFiniteError:
            if step > start and step % config.checkpoint_every:
                _report(engine, {"step": step}, step)
            raise
        done = step + 1
        seconds = time.perf_counter() - began
        metrics |= {"step": done, "examples_per_second": (done - start) * batch_size / seconds}
        if rank == 0:
            with metrics_file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(metrics) + "\n")
        is_stopped = engine.any_rank(metrics_file.with_name(STOP).exists()) and done < num_steps
        if is_stopped or (done % config.checkpoint_every == 0 and done < num_steps):
            _report(engine, metrics, done)
        if is_stopped:
            return
    _report(engine, {"step": num_steps}, num_steps, with_model=True)


def _keep_rows(path: Path, last_step: int) -> None:
    """Drops the rows of steps that will be run again."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= last_step]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _resume(engine: Any) -> int:
    """The step to go on from: that of the job's last checkpoint, or 0."""
    import ray.train

    from rlcore.checkpoint import read_json

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        engine.load(folder)
        return int(read_json(Path(folder) / "step.json")["step"])


def _report(engine: Any, metrics: dict[str, float], step: int, *, with_model: bool = False) -> None:
    """Hands a checkpoint of all ranks to Ray Train: the engine's state, and at the end the exported model."""
    import ray.train

    from rlcore.checkpoint import write_json

    # Ranks write files of their own, which Train puts together.
    with tempfile.TemporaryDirectory() as folder:
        engine.save(folder)
        if with_model:
            engine.export(Path(folder) / "model")
        if engine.rank == 0:
            write_json(Path(folder) / "step.json", {"step": step})
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report(metrics, checkpoint=checkpoint, checkpoint_dir_name=f"step_{step:06d}")
