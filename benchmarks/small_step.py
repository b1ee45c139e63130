"""Measures the seconds of each phase of a reinforcement learning step of the small model.

Cached audio is compared with uncached audio, and adapters with all weights of the language model.

    python -m benchmarks.small_step [--model FOLDER] [--quick] [--json FILE] [--gate]

`--model` is what `emotion small-model` has built (default: runs/small-model). Every variant is a run of the
real loop under the `rl` section of configs/small.yaml, K = 8, with the small model itself as the reward
model, on noise as long as RAVDESS's recordings. No recording is used twice: its audio is encoded in its step,
or found in the folder that `model.media_cache` names. Answers are cut at the length of a trace. Rewards and
reference work beside the rollout, so the phases do not add up to the step. The old log-probabilities are
the update's own first pass. Peak memory is that of all of the run's processes together, with shared pages
counted once.

Goal: 30 steps of 16 prompts in 90 minutes of two idle cores, so 180 s per step, within 12 GB.
"""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import soundfile

from benchmarks.report import argument_parser, finish
from emotion_task.config import PipelineConfig
from emotion_task.records import Utterance, write_manifest
from rlcore.config import LoRAConfig, RunConfig, load_config
from rlcore.config.targets import build_target
from rlcore.records.timeline import busy_seconds, read_spans, within
from rlcore.records.tracking import read_metrics

CONFIG = Path(__file__).resolve().parent.parent / "emotion_task" / "configs" / "small.yaml"
AUDIO_SECONDS = 3.7
ANSWER_TOKENS = 45
WARM_UP = 1
"""Number of first steps that are not counted."""
GOAL_S, GOAL_GB = 180.0, 12.0
VARIANTS = {
    "adapters, uncached audio": (True, False),
    "adapters, cached audio": (True, True),
    "all weights, cached audio": (False, True),
}
"""Variants by name: whether adapters are trained, and whether the audio is cached."""
EMOTIONS = ("neutral", "happy", "sad", "angry", "disgust", "surprise", "fear", "calm")


class PeakMemory:
    """Tracks the most memory that this process and all below it hold at once, in bytes, looked at every
    second."""

    def __init__(self) -> None:
        self.num_bytes, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(1.0):
            held = 0
            for process in [own, *own.children(recursive=True)]:
                with suppress(psutil.Error):
                    held += process.memory_full_info().pss
            self.num_bytes = max(self.num_bytes, held)

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self.num_bytes


def write_noise(folder: Path, num_train: int) -> Path:
    """Writes recordings of noise, `num_train` to train on and one held out, and returns their manifest."""
    utterances = []
    for number in range(num_train + 1):
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(16000 * AUDIO_SECONDS))
        path = folder / f"{number}.wav"
        soundfile.write(path, noise.clip(-1, 1), 16000)
        utterances.append(
            Utterance(
                id=str(number),
                audio=str(path),
                text="noise",
                emotion=EMOTIONS[number % len(EMOTIONS)],
                split="train" if number < num_train else "eval",
            )
        )
    manifest = folder / "manifest.jsonl"
    write_manifest(manifest, utterances)
    return manifest


def configured(model: str, manifest: Path, num_steps: int, num_prompts: int) -> RunConfig:
    """Returns the `rl` section of configs/small.yaml for training `model` on the manifest's recordings."""
    os.environ.setdefault("RAVDESS_ROOT", ".")  # the file names it; nothing of it is read here
    rl = load_config([str(CONFIG)], [f"base_model={model}"], PipelineConfig).rl
    judge, claims = rl.rewards["reasoning"], rl.rewards["faithfulness"]
    return replace(
        rl,
        model=replace(rl.model, path=model),
        task=replace(rl.task, args={"manifest": str(manifest), "model_path": model}),
        rewards={
            **rl.rewards,
            "reasoning": replace(judge, args={**judge.args, "model_path": model}),
            "faithfulness": replace(claims, args={**claims.args, "tokenizer": model}),
        },
        rollout=replace(rl.rollout, max_tokens=ANSWER_TOKENS),
        # The reward model from the first step on, so that every step is a whole one.
        algorithm=replace(rl.algorithm, ptr=replace(rl.algorithm.ptr, schedule="constant")),
        train=replace(
            rl.train,
            num_steps=num_steps,
            prompts_per_step=num_prompts,
            eval_every=0,
            checkpoint_every=0,
            rolling_every=0,
        ),
    )


def fill_cache(config: RunConfig, folder: Path) -> None:
    """Writes every recording's embeddings into `folder`, as an earlier run would have left them."""
    from rlcore.models.media import MediaEncoder

    task = build_target(config.task.target, config.task.args, where="task")
    encoder = MediaEncoder(config.model.path, task.load_media, cache_folder=str(folder))
    encoder.encode([*task.prompts("train"), *task.prompts("eval")])


def measure(name: str, config: RunConfig, folder: Path) -> dict[str, float | str]:
    """Runs one variant and returns its mean seconds per step and of each phase, after the warm-up."""
    from rlcore.run import train

    with_adapters, is_cached = VARIANTS[name]
    run_dir = folder / name.replace(", ", "_").replace(" ", "_")
    config = replace(
        config,
        run_dir=str(run_dir),
        model=replace(config.model, media_cache=str(folder / "media") if is_cached else None),
    )
    if not with_adapters:  # with adapters, the learner is its own reference
        config = replace(
            config,
            learner=replace(config.learner, lora=LoRAConfig()),
            reference=replace(config.reference, num_replicas=1, num_cpus=0.05, micro_batch_tokens=640),
        )
    memory = PeakMemory()
    try:
        train(config)
    finally:
        peak = memory.stop()
    counted = [row for row in read_metrics(run_dir) if "seconds/update" in row][WARM_UP:]
    spans = read_spans(run_dir)
    of_steps = [s for s in spans if s.actor == "controller" and s.step in {r["step"] for r in counted}]
    start, end = min(span.start for span in of_steps), max(span.end for span in of_steps)
    busy = busy_seconds(within(spans, start, end))

    def phase(actor: str, phase: str) -> float:
        return sum(of.get(phase, 0.0) for who, of in busy.items() if who.startswith(actor)) / len(counted)

    return {
        "variant": name,
        "step_s": (end - start) / len(counted),
        "encode_s": phase("rollout", "encode"),
        "generate_s": phase("rollout", "generate"),
        "reward_s": phase("reward:reasoning", "score"),
        "reference_s": phase("reference", "logprobs") + phase("learner", "reference_logprobs"),
        "update_s": phase("learner", "update"),
        "push_s": phase("learner", "push_weights"),
        "tokens": float(np.mean([row["batch/tokens"] for row in counted])),
        "logprob_max_diff": max(row["logprob_max_diff"] for row in counted),
        "peak_GB": peak / 1e9,
    }


def main() -> None:
    parser = argument_parser(__doc__ or "")
    parser.add_argument("--model", default="runs/small-model", help="folder (default: runs/small-model)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from rlcore.run import ray_session

    num_steps, num_prompts = (2, 4) if arguments.quick else (4, 16)
    model = str(Path(arguments.model).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_noise(folder, num_steps * num_prompts)
        config = configured(model, manifest, num_steps, num_prompts)
        fill_cache(config, folder / "media")
        with ray_session(config.cluster):
            rows = [measure(variant, config, folder) for variant in VARIANTS]
    by_name = {row["variant"]: row for row in rows}
    main_row = by_name["adapters, cached audio"]
    step_s, peak_gb = float(main_row["step_s"]), max(float(row["peak_GB"]) for row in rows)
    headline = {
        "step_s": step_s,
        "uncached_step_s": by_name["adapters, uncached audio"]["step_s"],
        "all_weights_step_s": by_name["all weights, cached audio"]["step_s"],
        "peak_GB": peak_gb,
        "prompts": num_prompts,
    }
    goals = {f"at most {GOAL_GB:g} GB": peak_gb <= GOAL_GB}
    if not arguments.quick:
        goals[f"a step in {GOAL_S:g} s"] = step_s <= GOAL_S
    finish("small_step", rows, headline, goals, arguments)


if __name__ == "__main__":
    main()
