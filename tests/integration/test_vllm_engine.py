"""vLLM in this process, with tiny checkpoints: its log-probabilities are the learner's, its weights can be
replaced in place, its answers are a function of the seed. One import of vLLM serves every engine here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import (
    ENGINE,
    PROMPTS,
    ToneTask,
    check_adapters,
    check_first_push,
    check_raw_audio,
    perturb,
    sender_of,
    transformers_greedy,
    weights,
    worst_difference,
)
from tiny_models import (
    AUDIO_PROMPT,
    TEXT_PROMPT,
    make_qwen2_5_omni,
    make_qwen2_audio,
    make_text,
)
from weight_pushes import drop, flip_a_byte, heal, push_to

from emotion_task.rewards import FormatReward, OutcomeReward
from rlcore.actors.rollout_worker import RolloutWorker
from rlcore.config import ModelConfig, RolloutConfig, TargetConfig, WeightSyncConfig
from rlcore.engines.head import multiply_in_float32
from rlcore.engines.logprobs import TokenGroup, completion_logprobs
from rlcore.engines.sampling import EngineRequest, Sampling, sampling_seed
from rlcore.engines.shared_gpu import cache_bytes
from rlcore.engines.vllm_engine import VLLMEngine
from rlcore.engines.vllm_plugin import WorkerExtension
from rlcore.engines.vllm_records import sampling_params, vllm_prompt
from rlcore.errors import ConfigError, DataError, MixedWeightsError, WeightSyncError
from rlcore.models.hf_model import (
    load_model,
    load_processor,
    media_token_ids,
    save_checkpoint,
)
from rlcore.models.media import MediaEncoder
from rlcore.types import Group, Prompt, RewardContext, RolloutJob
from rlcore.weight_sync import make_sender, vllm_receiver
from rlcore.weight_sync.direct import record

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine_process")]


@pytest.fixture(scope="module")
def audio_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_qwen2_audio(tmp_path_factory.mktemp("qwen2_audio")))


@pytest.fixture(scope="module")
def worker(audio_model: str) -> RolloutWorker:
    return RolloutWorker(
        ModelConfig(path=audio_model),
        RolloutConfig(samples_per_prompt=4, max_tokens=24, engine=ENGINE),
        TargetConfig(target="engine_cases:ToneTask"),
        seed=0,
    )


def test_rollout_logprobs_are_the_learners(worker: RolloutWorker, audio_model: str) -> None:
    assert cache_bytes(worker._loop.engine._llm) == 256 << 20
    groups = worker.generate(PROMPTS, step=0)
    assert [len(group.completions) for group in groups] == [4] * 5
    assert len({c.token_ids for group in groups for c in group.completions}) == 20
    assert worst_difference(load_model(audio_model), groups) <= 1e-4

    banned = set(media_token_ids(load_model(audio_model).config, load_processor(audio_model).tokenizer))
    assert not banned & {t for group in groups for c in group.completions for t in c.token_ids}


def test_two_recordings_in_one_prompt(worker: RolloutWorker, audio_model: str) -> None:
    two = AUDIO_PROMPT.replace("what", "<|audio_bos|><|AUDIO|><|audio_eos|>what")
    assert two.count("<|AUDIO|>") == 2
    prompt = Prompt(id="two", text=two, media={"tones": (1, 3)})
    groups = worker.generate([prompt], step=0)
    assert worst_difference(load_model(audio_model), groups) <= 1e-4

    # What was sampled is scored as the tokens that it was, whatever its text would be read as.
    (encoded,) = worker._encoder.encode([prompt])
    begun = [completion.token_ids for completion in groups[0].completions]
    requests = [EngineRequest(id="two", text=two, encoded=encoded, begun=ids) for ids in begun]
    scoring = Sampling(max_tokens=1, scores_prompt=True)
    answers = worker._loop.call(lambda engine: engine.generate(requests, scoring)).result()
    for completion, (answer,) in zip(groups[0].completions, answers, strict=True):
        got = answer.prompt_logprobs[-len(completion.token_ids) :]
        np.testing.assert_allclose(got, completion.logprobs, atol=1e-4)


def test_log_probabilities_are_the_policys_at_its_temperature(audio_model: str) -> None:
    """Before top-p and the bans, which take a hundredth of this model's probability."""
    rollout = RolloutConfig(samples_per_prompt=4, max_tokens=24, engine=ENGINE, temperature=0.5, top_p=0.8)
    task = TargetConfig(target="engine_cases:ToneTask")
    groups = RolloutWorker(ModelConfig(path=audio_model), rollout, task, seed=0).generate(PROMPTS[:2], step=0)
    model = load_model(audio_model)
    assert worst_difference(model, groups, temperature=0.5) <= 1e-4
    assert worst_difference(model, groups) > 0.1


def test_samples_are_a_function_of_seed_step_prompt_and_sample(worker: RolloutWorker) -> None:
    def sampled(prompts: Sequence[Prompt], step: int) -> dict[str, list[tuple[int, ...]]]:
        return {
            g.prompt.id: [c.token_ids for c in g.completions] for g in worker.generate(prompts, step=step)
        }

    first, other_step = sampled(PROMPTS, 3), sampled(PROMPTS, 4)
    assert sampled(PROMPTS[::-1], 3) == first
    assert sampled(PROMPTS[2:3], 3) == {"p2": first["p2"]}
    assert all(first[prompt_id] != other_step[prompt_id] for prompt_id in first)
    assert sampling_seed(0, 3, "p1") == 2532703768435312907


def test_answers_have_the_form_that_the_configuration_asks_for(audio_model: str) -> None:
    def sampled(**settings: Any) -> list[Any]:
        rollout = RolloutConfig(samples_per_prompt=4, max_tokens=24, engine=ENGINE, **settings)
        worker = RolloutWorker(
            ModelConfig(path=audio_model), rollout, TargetConfig(target="engine_cases:ToneTask"), seed=0
        )
        return [c for group in worker.generate(PROMPTS[:2], step=0) for c in group.completions]

    free = sampled()
    vocabulary = load_processor(audio_model).tokenizer.get_vocab()
    written = {index: token for token, index in vocabulary.items()}
    favourite, _ = Counter(token for c in free for token in c.token_ids).most_common(1)[0]
    answers = sampled(banned_tokens=(written[favourite],), structured={"regex": "(high|low) pitch( [a-f])+"})
    assert favourite not in {token for c in answers for token in c.token_ids}
    assert len({c.text for c in answers}) > 1
    for answer in answers:
        assert re.match(r"(high|low) pitch( [a-f])*", answer.text), answer.text
    letter = next(c for c in free[0].text if c.isalpha())
    ended = sampled(stop=(letter,))
    assert [c.text[: c.text.find(letter) + 1] for c in free if letter in c.text] == [
        c.text for c in ended if letter in c.text
    ]
    assert ended[0].finish_reason == "stop"
    with pytest.raises(ConfigError, match=r"rollout.banned_tokens: '<none>' is no token"):
        sampled(banned_tokens=("<none>",))


def test_the_loop_gives_the_tokens_of_vllms_own_batch_generation(worker: RolloutWorker) -> None:
    groups = worker.generate(PROMPTS, step=5)
    encoded = worker._encoder.encode(PROMPTS)

    def generate(engine: VLLMEngine) -> list[Any]:
        jobs = [RolloutJob(id=i, prompt=prompt, draw=5) for i, prompt in enumerate(PROMPTS)]
        requests = [worker._request(job, inputs) for job, inputs in zip(jobs, encoded, strict=True)]
        sampling = worker._sampling(jobs[0])
        return engine._llm.generate(
            [
                vllm_prompt(r, engine._family, embeds=engine._embeds, audio_id=engine._audio_id)
                for r in requests
            ],
            [sampling_params(sampling, seed=r.seed, banned=engine._banned) for r in requests],
            use_tqdm=False,
        )

    for group, output in zip(groups, worker._loop.call(generate).result(), strict=True):
        assert [c.token_ids for c in group.completions] == [tuple(s.token_ids) for s in output.outputs]


def test_pushed_weights_are_used_at_once_and_damage_changes_nothing(
    worker: RolloutWorker, audio_model: str
) -> None:
    model = load_model(audio_model)
    sender = sender_of(model, media=False)
    before = worker.generate(PROMPTS, step=0, greedy=True)
    first_version = worker.ready()

    perturb(model, 1, media=False)
    pushed = push_to(sender, first_version + 1, weights(model, media=False), [worker.update_weights])
    assert pushed == [worker.ready()] == [first_version + 1]
    after = worker.generate(PROMPTS, step=0, greedy=True)
    for prompt, old, new in zip(PROMPTS, before, after, strict=True):
        (answer,) = new.completions
        assert answer.token_ids == transformers_greedy(model, audio_model, prompt, 24)
        assert answer.token_ids != old.completions[0].token_ids
        assert answer.policy_version == first_version + 1
    assert worst_difference(model, after) <= 1e-4

    flip_a_byte(sender, bucket=0)
    with pytest.raises(WeightSyncError, match="checksum"):
        push_to(sender, first_version + 2, weights(model, media=False), [worker.update_weights])
    assert worker.ready() == first_version + 1
    assert worker.generate(PROMPTS, step=0, greedy=True) == after
    heal(sender)
    held = rf"rollout\[0\] is stale: it holds version {first_version + 1} .* version {first_version + 2} was"
    with pytest.raises(WeightSyncError, match=held):
        worker.generate(PROMPTS, step=0, policy_version=first_version + 2)
    sender.close()


def test_a_push_that_ends_midway_is_named_and_healed_by_the_next(
    worker: RolloutWorker, audio_model: str
) -> None:
    model, version = load_model(audio_model), worker.ready() + 1
    sender = sender_of(model, media=False, bucket_mb=0.25)
    perturb(model, 4, media=False)
    drop(sender, bucket=2)
    with pytest.raises(MixedWeightsError, match=r"bucket 2 \(language_model.* was dropped: bucket 3 came"):
        push_to(sender, version, weights(model, media=False), [worker.update_weights])
    heal(sender)
    with pytest.raises(WeightSyncError, match=r"rollout\[0\] cannot generate since a push failed midway"):
        worker.generate(PROMPTS, step=0)
    flip_a_byte(sender, bucket=3)  # as one that comes after others were loaded
    with pytest.raises(MixedWeightsError, match=r"bucket 3 \(.*\) arrived with checksum"):
        push_to(sender, version, weights(model, media=False), [worker.update_weights])
    heal(sender)
    assert push_to(sender, version, weights(model, media=False), [worker.update_weights]) == [version]
    assert worst_difference(model, worker.generate(PROMPTS, step=0)) <= 1e-4
    sender.close()


def test_a_push_that_does_not_fit_is_refused(audio_model: str) -> None:
    engine = VLLMEngine(audio_model, engine_args=ENGINE)
    model = load_model(audio_model)
    full = weights(model, media=False)
    for tensors, message in (
        (
            full[1:],
            "1 parameters of the language model are missing, among them language_model.model.embed_to",
        ),
        (
            [*full, ("language_model.model.extra", torch.zeros(2))],
            "the engine has no language_model.model.extra",
        ),
        ([(full[0][0], full[0][1][:7]), *full[1:]], r"embed_tokens.weight has shape \(7, 128\)"),
    ):
        shapes = [(name, tuple(tensor.shape)) for name, tensor in tensors]
        sender = make_sender(WeightSyncConfig(timeout_s=60), shapes, dtype="float32")
        with pytest.raises(WeightSyncError, match=message):
            push_to(sender, 1, tensors, [engine.apply_weights])
        sender.close()
    assert engine.policy_version == 0
    check_first_push(engine, model)


def test_the_tower_runs_once_an_audio_whatever_the_text(audio_model: str) -> None:
    encoder = MediaEncoder(audio_model, ToneTask().load_media)
    texts = [AUDIO_PROMPT, AUDIO_PROMPT.replace("emotion", "pitch")]
    prompts = [Prompt(id="x", text=text, media={"tone": 1}) for text in texts]
    encoded = encoder.encode(prompts) + encoder.encode(prompts)
    assert (encoder.num_hits, encoder.num_misses) == (3, 1)
    processor = load_processor(audio_model)
    for text, got in zip(texts * 2, encoded, strict=True):
        expected = processor(text=text, return_tensors="pt", **ToneTask().load_media(prompts[0]))
        assert list(got.prompt_token_ids) == expected["input_ids"][0].tolist()
        assert got.media_inputs["audio_embeds"] is encoded[0].media_inputs["audio_embeds"]
    with pytest.raises(DataError, match=r"prompt x: 2 <\|AUDIO\|> in its text, 1 audio"):
        encoder.encode([Prompt(id="x", text=AUDIO_PROMPT * 2, media={"tone": 1})])


def test_a_build_for_gpus_that_sees_none_is_told_by_name(
    audio_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm import platforms
    from vllm.platforms.interface import UnspecifiedPlatform

    monkeypatch.setattr(platforms, "_current_platform", UnspecifiedPlatform())
    with pytest.raises(ConfigError, match=r"vLLM finds no device to run on: .* `rlcore doctor` says why"):
        VLLMEngine(audio_model)


def test_score_tokens_and_bad_arguments(audio_model: str) -> None:
    with pytest.raises(
        ConfigError, match=r"rollout.engine.max_modle_len: .* mean rollout.engine.max_model_len"
    ):
        VLLMEngine(audio_model, engine_args={"max_modle_len": 9})
    with pytest.raises(ConfigError, match=r"rollout.engine.dtype: .* set model.dtype instead"):
        VLLMEngine(audio_model, engine_args={"dtype": "float32"})

    worker = WorkerExtension()
    worker.model_runner = SimpleNamespace(get_model=lambda: torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"rollout.temperature: got 0.5, must be 1"):
        worker.divide_logits(0.5)

    engine = VLLMEngine(audio_model, engine_args={"max_model_len": 64})
    encoder = MediaEncoder(audio_model, ToneTask().load_media)

    def complete(text: str, sampling: Sampling) -> Any:
        (encoded,) = encoder.encode([Prompt(id="q", text=text)])
        return engine.generate([EngineRequest(id="q", text=text, encoded=encoded)], sampling)[0][0]

    scores = (40, 41, 42)
    answer = complete(TEXT_PROMPT, Sampling(max_tokens=2, allowed_token_ids=scores, logprob_token_ids=scores))
    assert set(answer.token_ids) <= set(scores)
    assert [set(scores) <= set(top) for top in answer.top_logprobs] == [True, True]
    assert answer.logprobs == tuple(t[i] for t, i in zip(answer.top_logprobs, answer.token_ids, strict=True))
    model, ids = load_model(audio_model), load_processor(audio_model).tokenizer(TEXT_PROMPT)["input_ids"]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    expected = expected.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    for _ in range(2):  # the second time the prompt's prefix is in the cache
        answer = complete(TEXT_PROMPT, Sampling(max_tokens=1, scores_prompt=True))
        np.testing.assert_allclose(answer.prompt_logprobs, expected, atol=1e-3)
    with pytest.raises(ConfigError, match=r"rollout.engine.max_model_len: prompt q has \d+ tokens"):
        complete(TEXT_PROMPT * 5, Sampling())


def test_tied_weights_are_pushed_once_and_reach_the_output_layer(tmp_path: Path) -> None:
    path = str(make_text(tmp_path / "text"))
    model = load_model(path)
    engine = VLLMEngine(path, engine_args=ENGINE)
    check_first_push(engine, model)
    perturb(model, 2, media=False)
    sender = sender_of(model, media=False)
    assert "lm_head.weight" not in dict(weights(model, media=False))
    push_to(sender, 1, weights(model, media=False), [engine.apply_weights])
    prompt = Prompt(id="t", text=TEXT_PROMPT)
    (encoded,) = MediaEncoder(path, ToneTask().load_media).encode([prompt])
    request = EngineRequest(id="t", text=TEXT_PROMPT, encoded=encoded)
    (answer,) = engine.generate([request], Sampling(max_tokens=24, temperature=0.0))[0]
    assert answer.token_ids == transformers_greedy(model, path, prompt, 24)
    sender.close()

    save_checkpoint(model, tmp_path / "saved", processor=load_processor(path))
    saved = load_model(str(tmp_path / "saved")).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_adapters_alone_make_the_weights_that_they_were_trained_for(tmp_path: Path) -> None:
    check_adapters(str(make_text(tmp_path)))


def test_what_is_being_written_goes_on_under_new_weights(
    worker: RolloutWorker, audio_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token's log-probability is that of the one policy that sampled it: nothing of the old is kept."""
    first = worker.ready()
    models = {version: load_model(audio_model) for version in (first, first + 1, first + 2)}
    sender = sender_of(models[first], media=False)
    for i, model in enumerate(models.values()):
        perturb(model, 10 + i, media=False)
    push_to(sender, first, weights(models[first], media=False), [worker.update_weights])
    monkeypatch.setattr(worker, "_rollout", replace(worker._rollout, max_tokens=160))
    jobs = [RolloutJob(id=i, prompt=prompt, draw=0) for i, prompt in enumerate(PROMPTS)]
    engine = worker._loop.engine
    worker.submit(jobs)
    groups: dict[int, Group] = {}

    def collect(timeout_s: float) -> None:
        """Raises what ended the engine, if anything did."""
        groups.update({job.id: job.group for job in worker.collect(timeout_s).finished})

    for version in (first + 1, first + 2):
        # Between two steps of the engine, wherever it is by now.
        stepped = engine.stats.generate_seconds
        while engine.num_unfinished and engine.stats.generate_seconds == stepped:
            collect(0.001)
        pushed = push_to(sender, version, weights(models[version], media=False), [worker.update_weights])
        assert pushed == [version]
    worker.cancel([4])
    while len(groups) < 4:
        collect(5.0)
    assert worker.stats()["num_unfinished"] == 0

    spanned = [c for group in groups.values() for c in group.completions if c.version_spans]
    assert spanned, "no weights arrived while something was written"
    for version, model in models.items():
        with torch.no_grad():
            rows = completion_logprobs(model, [TokenGroup.of(groups[i]) for i in range(4)]).rows()
        completions = [c for i in range(4) for c in groups[i].completions]
        for row, completion in zip(rows, completions, strict=True):
            mine = completion.token_versions == version
            assert len(mine) == len(completion.token_ids)
            np.testing.assert_allclose(np.array(completion.logprobs)[mine], row[mine], atol=1e-4)
    sender.close()


def test_a_prompt_over_the_context_is_an_error_or_left_out_by_setting(
    worker: RolloutWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Prompt(id="long", text=TEXT_PROMPT * 40)
    with pytest.raises(ConfigError, match=r"prompt long has \d+ tokens, the engine takes 256 .*over_context"):
        worker.generate([PROMPTS[0], long], step=0)
    monkeypatch.setattr(worker, "_rollout", replace(worker._rollout, over_context="drop"))
    assert [group.prompt.id for group in worker.generate([PROMPTS[0], long], step=0)] == ["p0"]


@pytest.mark.parametrize("make", [make_text, make_qwen2_audio])
def test_later_pushes_are_plain_copies_and_equal_what_the_loader_does(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Any] = []

    def watched(*arguments: Any) -> Any:
        recorded.append(record(*arguments))
        return recorded[-1]

    monkeypatch.setattr(vllm_receiver, "record", watched)
    path = str(make(tmp_path))
    model, engine = load_model(path), VLLMEngine(path, engine_args=ENGINE)
    sender = sender_of(model, media=False)
    for version in (1, 2, 3):
        perturb(model, version, media=False)
        push_to(sender, version, weights(model, media=False), [engine.apply_weights])
    (copies,) = recorded  # the loader ran once
    assert copies is not None
    sender.close()

    def held(inner: Any) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in inner.state_dict().items()}

    (copied,) = engine._llm.apply_model(held)
    engine._llm.apply_model(lambda inner: inner.load_weights(iter(weights(model, media=False))) and None)
    (loaded,) = engine._llm.apply_model(held)
    assert all(torch.equal(tensor, copied[name]) for name, tensor in loaded.items())


def test_qwen2_5_omni_takes_raw_audio_and_a_trained_tower(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="needs torchvision (python -m rlcore.engines.torchvision_shim)")
    check_raw_audio(str(make_qwen2_5_omni(tmp_path)))


def test_engine_and_learner_keep_float32_logits_of_bfloat16_models(tmp_path: Path) -> None:
    plain, path = make_text(tmp_path), str(tmp_path / "steep")
    model = load_model(plain)
    model.get_output_embeddings().weight.data.mul_(4)  # far apart, where bfloat16 is coarse
    save_checkpoint(model.to(torch.bfloat16), path, processor=load_processor(plain))
    engine = VLLMEngine(path, dtype="bfloat16", head_dtype="float32", engine_args=ENGINE)
    prompt = Prompt(id="t", text=TEXT_PROMPT)
    (encoded,) = MediaEncoder(path, ToneTask().load_media).encode([prompt])
    request = EngineRequest(id="t", text=TEXT_PROMPT, encoded=encoded)
    (answer,) = engine.generate([request], Sampling(max_tokens=100))[0]
    group = TokenGroup(
        prompt_token_ids=np.array(encoded.prompt_token_ids), token_ids=(np.array(answer.token_ids),)
    )
    learner, distances = load_model(path, dtype="bfloat16"), []
    for _ in range(2):
        with torch.no_grad():
            (row,) = completion_logprobs(learner, [group]).rows()
        distances.append(np.abs(row - np.array(answer.logprobs)).mean())
        multiply_in_float32(learner.get_output_embeddings())
    # What is left is the hidden states' own rounding.
    assert distances[1] < 0.8 * distances[0]
    (dtype,) = engine._llm.apply_model(lambda inner: inner.logits_processor.head_dtype)
    assert dtype == torch.float32


def test_an_answer_whose_think_tag_the_prompt_opens_is_read_whole(tmp_path: Path) -> None:
    """Forced to a perfect rest of the answer, the engine gives what the rewards read as perfect."""
    rest = "high.</think><answer>sad</answer>"
    worker = RolloutWorker(
        ModelConfig(path=str(make_text(tmp_path))),
        RolloutConfig(samples_per_prompt=2, max_tokens=64, engine=ENGINE, structured={"choice": [rest]}),
        TargetConfig(target="engine_cases:ToneTask"),
        seed=0,
    )
    for opens, expected in (("<think>\n", 1.0), ("", 0.0)):
        prompt = Prompt(id="t", text=f"{TEXT_PROMPT}{opens}", reference={"emotion": "sad"})
        (group,) = worker.generate([prompt], step=0)
        for reward in (FormatReward(), OutcomeReward()):
            scores = reward.score(group, RewardContext(step=0, num_steps=1))
            assert [score.value for score in scores] == [expected] * 2, group.completions[0].text
