"""A small judge that was really trained, on vLLM: it tells good responses from bad ones, and no text talks it
into a score. What it would hear is not trained here: the recordings are tones."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import spearmanr
from tiny_models import tone

from emotion_task.claims.support import learn_table
from emotion_task.cot import TemplateWriter
from emotion_task.facts import VALUES
from emotion_task.labels import EMOTIONS
from emotion_task.models.tiny import TinyModelConfig, build_tiny_model
from emotion_task.pipeline.tokenizer_corpus import tokenizer_corpus
from emotion_task.records import Utterance
from emotion_task.reward_model.attacks import ATTACKS
from emotion_task.reward_model.calibration_report import attack_gains, attack_groups
from emotion_task.reward_model.data import graded_examples
from emotion_task.rewards import ReasoningReward
from emotion_task.sft.encode import ExampleEncoder
from emotion_task.sft.examples import format_examples
from rlcore.engines.logprobs import completion_logprobs
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
from rlcore.rewards.samples import completion_of
from rlcore.types import Group, Prompt, RewardContext

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.usefixtures("engine_process")]
NUM_STEPS, BATCH_SIZE = 340, 32


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    audio = tmp_path_factory.mktemp("audio") / "tone.wav"
    soundfile.write(audio, tone(0, 0.5), 16000)
    rng = random.Random(0)
    levels = {name: [value for value in values if value != "none"] for name, values in VALUES.items()}
    return [
        Utterance(
            id=str(number),
            audio=str(audio),
            emotion=rng.choice(EMOTIONS),
            **{name: rng.choice(values) for name, values in levels.items()},
        )
        for number in range(NUM_STEPS * BATCH_SIZE // 2 + 200)
    ]


@pytest.fixture(scope="module")
def judge(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on graded responses to all but the last 200 utterances."""
    folder = build_tiny_model(
        tmp_path_factory.mktemp("base"), tokenizer_corpus(), TinyModelConfig(encoder_layers=1)
    )
    model, processor = load_model(str(folder)), load_processor(str(folder))
    graded = graded_examples(
        utterances[:-200], TemplateWriter(), seed=0, table=learn_table(utterances), per_utterance=2
    )
    examples = format_examples(processor, islice(graded, NUM_STEPS * BATCH_SIZE))
    random.Random(0).shuffle(examples)
    encoder = ExampleEncoder(str(folder), freeze=("audio_tower",), cache_bytes=1 << 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=NUM_STEPS, pct_start=0.1
    )
    for step in range(NUM_STEPS):
        batch = examples[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
        scored = completion_logprobs(model, [encoder.encode(example) for example in batch])
        (-scored.logprobs.sum() / scored.mask.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    trained = tmp_path_factory.mktemp("judge")
    save_checkpoint(model, trained, processor=processor)
    return trained


def test_a_trained_judge_grades_form_and_cannot_be_talked_to(
    judge: Path, utterances: list[Utterance]
) -> None:
    reward = ReasoningReward(str(judge), engine={"max_model_len": 512})
    held_out = utterances[-200:]
    examples = list(
        graded_examples(held_out, TemplateWriter(), seed=1, table=learn_table(utterances), per_utterance=1)
    )
    groups = [
        Group(
            prompt=Prompt(id=example.id, text="", media={"audio": example.audio}),
            prompt_token_ids=(0,),
            completions=(completion_of(example.response),),
        )
        for example in examples
    ]
    scores = [row[0] for row in reward.score_batch(groups, RewardContext())]
    known = np.array([example.grades for example in examples])
    graded = np.array([list(score.parts.values()) for score in scores])
    ranks = {name: spearmanr(graded[:, j], known[:, j])[0] for j, name in enumerate(scores[0].parts)}
    assert min(ranks["completeness"], ranks["fluency"], ranks["structure"]) > 0.6, ranks

    attacked = attack_groups(held_out, learn_table(utterances), seed=0, num_recordings=2)
    under_attack = zip(attacked, reward.score_batch(attacked, RewardContext()), strict=True)
    gains = attack_gains(list(under_attack))
    assert {kind: found.num_attacks for kind, found in gains.items()} == {
        "good": 4 * len(ATTACKS),
        "bad": 4 * len(ATTACKS),
        "empty": 2 * len(ATTACKS),
    }
    # The rewards lie between 0.2 and 1; so short a training leaves a little noise about equal grades.
    assert max(found.largest_gain for found in gains.values()) < 0.03, gains
    assert max(gains["good"].mean_gain, gains["bad"].mean_gain) < -0.15, gains
    assert gains["empty"].largest_gain == 0, gains
