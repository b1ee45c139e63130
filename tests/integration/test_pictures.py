"""Images and videos, beside sound and alone: vLLM and the learner compute the same from one pass of the
vision tower, before and after a push, and what is exported is the model of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_cases import perturb, sender_of, weights, worst_difference
from tiny_models import TEXT_PROMPT, make_qwen2_5_omni, make_qwen2_5_vl
from weight_pushes import push_to

from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import ModelConfig, RolloutConfig, TargetConfig
from rlcore.models.checkpoint_names import checkpoint_shapes
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
from rlcore.types import Prompt

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine_process")]

IMAGE, VIDEO = "<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>"
AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"


@pytest.mark.parametrize(
    ("make", "media", "sound"),
    [
        pytest.param(make_qwen2_5_omni, "raw", True, id="omni"),
        pytest.param(make_qwen2_5_vl, "embeds", False, id="vl", marks=pytest.mark.families),
    ],
)
def test_engine_and_learner_agree_on_pictures(
    make: Callable[[Path], Path], media: str, sound: bool, tmp_path: Path
) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    path = str(make(tmp_path / "base"))
    worker = RolloutWorker(
        ModelConfig(path=path, media=media),
        RolloutConfig(samples_per_prompt=2, max_tokens=12, engine={"max_model_len": 1024}),
        TargetConfig(target="engine_cases:PictureTask"),
        seed=0,
    )
    first, then = (AUDIO, {"tones": [1]}) if sound else ("", {})

    def asked(id: str, text: str, **pictures: object) -> Prompt:
        return Prompt(id=id, text=TEXT_PROMPT.replace("what", f"{text}what"), media={"seed": 1, **pictures})

    prompts = [
        asked(
            "all",
            f"{first}{VIDEO}{IMAGE}and{IMAGE}",
            **then,
            videos=[(7, 56, 84)],
            images=[(30, 90), (60, 60)],
        ),
        # Its last step in time has a larger position than its last row.
        asked("long", VIDEO, videos=[(10, 28, 28)]),
        asked("image", f"{IMAGE}{first}", **then, images=[(60, 90)]),
        Prompt(id="text", text=TEXT_PROMPT),
    ]
    model = load_model(path)

    groups = worker.generate(prompts, step=0)
    assert worst_difference(model, groups) <= 1e-4
    # Other pictures are another prompt.
    other = [Prompt(id=p.id, text=p.text, media={**p.media, "seed": 2}) for p in prompts[:1]]
    (elsewhere,) = worker.generate(other, step=0)
    assert elsewhere.completions[0].logprobs != groups[0].completions[0].logprobs

    trains_audio = media == "raw"
    sender = sender_of(model, media=trains_audio)
    perturb(model, 1, media=False)
    assert worst_difference(model, groups) > 1e-2
    push_to(sender, 1, weights(model, media=trains_audio), [worker.update_weights])
    sender.close()
    after = worker.generate(prompts, step=1)
    assert worst_difference(model, after) <= 1e-4

    save_checkpoint(model, tmp_path / "trained", processor=load_processor(path))
    assert worst_difference(load_model(str(tmp_path / "trained")), after) <= 1e-4
    assert checkpoint_shapes(str(tmp_path / "trained")) == checkpoint_shapes(path)
