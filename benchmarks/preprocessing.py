"""Measures what a recording costs the CPU before a model hears it, with the real window of Qwen2.5-Omni.

    python -m benchmarks.preprocessing [--quick] [--json FILE] [--gate]

Qwen2.5-Omni's processor pads every recording to 300 seconds, 30,000 frames. In one run, recording by
recording in turn, four ways are timed on one core: the processor as it is, rlcore's call of it
(`rlcore.models.hf_model.processed`), a prompt made ready for vLLM from the waveform, and from those features
(`VLLMEngine.render`). A rollout without rlcore's ways pays the first and the third, the third on the engine's
thread; with them it pays the second and the fourth, both beside the engine's thread. The model is tiny, which
changes none of the four. Figures are medians over the recordings; the ratio is that of the two sums.

Goals: a recording of six seconds costs less than a tenth; the features are the same, bit for bit.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import finish, parse_arguments
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from rlcore.engines.sampling import EngineRequest
from rlcore.engines.vllm_engine import VLLMEngine, engine_env
from rlcore.models.hf_model import load_config, load_processor, processed
from rlcore.models.media import MediaEncoder
from rlcore.types import Prompt

SECONDS = (2.0, 6.0, 20.0)
RATE = 16000
TEXT = "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>what?<|im_end|>\n<|im_start|>assistant\n"
MIN_RATIO = 10.0


def recording(index: int, seconds: float) -> dict[str, Any]:
    rng = np.random.default_rng(index)
    waveform = (0.1 * rng.standard_normal(int(RATE * seconds))).astype(np.float32)
    return {"audio": [waveform], "sampling_rate": RATE}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, 1000 * (time.perf_counter() - start)


def measure(path: str, engine: VLLMEngine, seconds: float, count: int) -> dict[str, Any]:
    config, processor = load_config(path), load_processor(path)
    encoder = MediaEncoder(path, lambda prompt: recording(prompt.media["index"], seconds), media="raw")
    times: dict[str, list[float]] = {
        name: [] for name in ("processor", "processed", "vllm_waveform", "vllm_features", "again")
    }
    is_same = True
    for index in range(count + 1):  # the first also warms up
        prompt, media = Prompt(id=str(index), text=TEXT, media={"index": index}), recording(index, seconds)
        own, processor_ms = timed(lambda media=media: processor(text=TEXT, return_tensors="np", **media))
        (ours, _), processed_ms = timed(lambda media=media: processed(config, processor, media))
        num_frames = ours["input_features"].shape[-1]
        is_same &= np.array_equal(own["input_features"][..., :num_frames], ours["input_features"])
        is_same &= num_frames == int(own["feature_attention_mask"].sum())
        (encoded,) = encoder.encode([prompt])
        request = EngineRequest(id=prompt.id, text=TEXT, encoded=encoded)
        of_waveform = replace(request, encoded=replace(encoded, media=media))
        _, waveform_ms = timed(lambda request=of_waveform: engine.render(request))
        _, features_ms = timed(lambda request=request: engine.render(request))
        _, again_ms = timed(lambda prompt=prompt: encoder.encode([prompt]))
        if index:
            row = (processor_ms, processed_ms, waveform_ms, features_ms, again_ms)
            for name, value in zip(times, row, strict=True):
                times[name].append(value)
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    before = medians["processor_ms"] + medians["vllm_waveform_ms"]
    after = medians["processed_ms"] + medians["vllm_features_ms"]
    return {
        "audio_s": seconds,
        **medians,
        "before_ms": before,
        "after_ms": after,
        "ratio": before / after,
        "same": int(is_same),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    arguments = parse_arguments(__doc__ or "")
    os.environ.update(engine_env(cpu=True))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(build_tiny_model(Path(folder), [TEXT] * 5, TinyModelConfig(architecture="qwen2_5_omni")))
        assert load_processor(path).feature_extractor.n_samples == 300 * RATE
        engine = VLLMEngine(path, media="raw", engine_args={"max_model_len": 1024})
        rows = [measure(path, engine, seconds, 4 if arguments.quick else 24) for seconds in SECONDS]
    main_row = rows[SECONDS.index(6.0)]
    goals = {
        "the features are the same, bit for bit": all(row["same"] for row in rows),
        f"6 s of audio cost at most 1/{MIN_RATIO:g} of before": main_row["ratio"] >= MIN_RATIO,
    }
    keys = ("before_ms", "after_ms", "ratio", "again_ms", "same", "load")
    finish("preprocessing", rows, {key: main_row[key] for key in keys}, goals, arguments)


if __name__ == "__main__":
    main()
