"""Each family of speech models, with a tiny checkpoint of its real architecture: vLLM and the learner compute
the same, before and after pushes. Qwen2-Audio and the Omni thinkers are tested whole in other modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_cases import ENGINE, ToneTask, perturb, sender_of, transformers_greedy, weights, worst_difference
from tiny_models import TEXT_PROMPT, audio_prompt, make_family
from transformers import PreTrainedModel
from weight_pushes import push_to

from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import LearnerConfig, LoRAConfig, ModelConfig, RolloutConfig, TargetConfig
from rlcore.engines.sampling import EngineRequest
from rlcore.engines.trainable import choose_trained
from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.engines.vllm_records import vllm_prompt
from rlcore.engines.weights import model_weights
from rlcore.models.checkpoint_names import checkpoint_shapes
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
from rlcore.models.names import checkpoint_parameters, is_media_parameter
from rlcore.types import Group, Prompt

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine_process")]

LONG = 12
"""Number of a tone of 5.4 seconds, which fills more than a window of the towers that have one."""


@pytest.mark.parametrize(
    ("architecture", "media", "window"),
    [
        pytest.param("audio_flamingo3", "embeds", 3),
        pytest.param("glm_asr", "embeds", 3, marks=pytest.mark.families),
        pytest.param("qwen3_asr", "raw", 3, marks=pytest.mark.families),
        pytest.param("qwen2_audio", "raw", 30, marks=pytest.mark.families),
        pytest.param("audio_flamingo3", "raw", 30, marks=pytest.mark.families),
        pytest.param("glm_asr", "raw", 30, marks=pytest.mark.families),
    ],
)
def test_engine_and_learner_agree_on_a_family(
    architecture: str, media: str, window: int, tmp_path: Path
) -> None:
    path = str(make_family(tmp_path / "base", architecture, window=window))
    worker = RolloutWorker(
        ModelConfig(path=path, media=media),
        RolloutConfig(samples_per_prompt=2, max_tokens=12, engine=ENGINE),
        TargetConfig(target="engine_cases:ToneTask"),
        seed=0,
    )
    text = audio_prompt(path)
    prompts = [Prompt(id=f"p{tone}", text=text, media={"tone": tone}) for tone in (1, 3, LONG)]
    prompts.append(Prompt(id="text", text=TEXT_PROMPT))
    model = load_model(path)

    groups = worker.generate(prompts, step=0)
    assert worst_difference(model, groups) <= 1e-4
    check_prompt_logprobs(worker, model, path, groups[1])
    for prompt in (prompts[0], prompts[2]):
        ((greedy,),) = ([*g.completions] for g in worker.generate([prompt], step=0, greedy=True))
        assert greedy.token_ids == transformers_greedy(model, path, prompt, 12)

    trains_tower = media == "raw"
    sender = sender_of(model, media=trains_tower)
    perturb(model, 1, media=trains_tower)
    assert worst_difference(model, groups) > 1e-2
    push_to(sender, 1, weights(model, media=trains_tower), [worker.update_weights])
    assert worst_difference(model, worker.generate(prompts, step=1)) <= 1e-4

    # Adapters, on the layers that the defaults name, are merged into what is pushed and exported.
    config = ModelConfig(path=path, media=media)
    choose_trained(model, config, LearnerConfig(lora=LoRAConfig(rank=4, alpha=16)))
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    assert trained and not any(is_media_parameter(model, name) for name, _ in trained)
    for seed, (_, parameter) in enumerate(trained):
        parameter.data.normal_(std=0.15, generator=torch.Generator().manual_seed(seed))
    push_to(sender, 2, weights(model, media=trains_tower), [worker.update_weights])
    sender.close()
    after = worker.generate(prompts, step=2)
    assert worst_difference(model, after) <= 1e-4

    state = {weight.name: weight.tensor() for weight in model_weights(model)}
    save_checkpoint(
        model, tmp_path / "trained", state_dict=model.state_dict() | state, processor=load_processor(path)
    )
    exported = load_model(str(tmp_path / "trained"))
    assert worst_difference(exported, after) <= 1e-4
    assert checkpoint_shapes(str(tmp_path / "trained")) == checkpoint_shapes(path)
    assert {hub for _, hub in checkpoint_parameters(exported)} <= checkpoint_shapes(path).keys()


def check_prompt_logprobs(worker: RolloutWorker, model: PreTrainedModel, path: str, group: Group) -> None:
    """Compares vLLM's log-probabilities of the prompt's own tokens with those of the model's own forward from
    the waveform."""
    from vllm import SamplingParams

    (encoded,) = worker._encoder.encode([group.prompt])
    request = EngineRequest(id="p", text=group.prompt.text, encoded=encoded)

    def asked(engine: VLLMEngine) -> list[float]:
        prompt = vllm_prompt(request, engine._family, embeds=engine._embeds, audio_id=engine._audio_id)
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
        (output,) = engine._llm.generate([prompt], params, use_tqdm=False)
        ids = output.prompt_token_ids
        return [each[token].logprob for each, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)]

    inputs = load_processor(path)(
        text=group.prompt.text, return_tensors="pt", **ToneTask().load_media(group.prompt)
    )
    ids = inputs["input_ids"]
    assert tuple(ids[0].tolist()) == group.prompt_token_ids
    with torch.no_grad():
        logprobs = model(**inputs).logits[0, :-1].float().log_softmax(-1)
    own = logprobs.gather(-1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(worker._loop.call(asked).result(), own.numpy(), rtol=0, atol=1e-4)
