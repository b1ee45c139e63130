"""One BOS, wherever a text is read, for the kinds of tokenizer that there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import AUDIO_PROMPT, make_qwen2_audio, tone
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from emotion_task.parsing import Parsed, parse_response
from emotion_task.rewards.ptr import FormatReward, OutcomeReward
from emotion_task.sft.encode import ExampleEncoder
from rlcore.actors.rollout_worker import _finished
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
from rlcore.models.media import EncodedPrompt, MediaEncoder
from rlcore.models.tokens import answer_text, left_to_write, opened_tag, tokens_of, until_stop
from rlcore.rewards.classifier import SequenceClassifier
from rlcore.rewards.generative import GenerativeRewardModel, special_tokens
from rlcore.rewards.rules import TagFormat
from rlcore.rewards.steps import last_tokens
from rlcore.types import Completion, Prompt, RewardContext, RolloutJob, Score

MESSAGES = [{"role": "user", "content": "hi"}]


def tokenizer(
    bos: str | None, turn: str, *, adds_bos: bool, adds_eos: bool = False
) -> PreTrainedTokenizerFast:
    """Returns a tokenizer whose BOS is token 0 and EOS token 1. Its chat template is `turn`."""
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate([bos or "-", "</s>", "?", "hi"])}, "?"))
    inner.pre_tokenizer = Split(" ", "removed")
    if adds_bos:
        ends = [("</s>", 1)] if adds_eos else []
        inner.post_processor = TemplateProcessing(
            single=f"{bos} $A" + " </s>" * adds_eos, special_tokens=[(bos, 0), *ends]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token="</s>", unk_token="?")
    made.chat_template = turn
    return made


LLAMA = ("<|begin_of_text|>", "{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% endfor %} ?")
GEMMA = ("<bos>", "{{ bos_token }}{% for m in messages %}{{ m['content'] }} ?{% endfor %} ?")
MISTRAL = ("<s>", "{{ bos_token }}{% for m in messages %}? {{ m['content'] }}{% endfor %} ?")
QWEN = (None, "{% for m in messages %} {{ m['content'] }}{% endfor %} ?")
NO_TEMPLATE_BOS = ("<s>", QWEN[1])


@pytest.mark.parametrize(
    ("kind", "adds", "num_bos"),
    [
        (LLAMA, {"adds_bos": True}, 1),
        (LLAMA, {"adds_bos": False}, 1),
        (GEMMA, {"adds_bos": True}, 1),
        (MISTRAL, {"adds_bos": True}, 1),
        (MISTRAL, {"adds_bos": True, "adds_eos": True}, 1),
        (NO_TEMPLATE_BOS, {"adds_bos": True}, 1),  # the tokenizer alone has it
        (NO_TEMPLATE_BOS, {"adds_bos": False}, 0),
        (QWEN, {"adds_bos": False}, 0),
    ],
)
def test_a_text_has_one_bos_whoever_writes_it(
    kind: tuple[str | None, str], adds: dict[str, bool], num_bos: int
) -> None:
    made = tokenizer(*kind, **adds)
    text = made.apply_chat_template(MESSAGES, tokenize=False)
    tokens = tokens_of(made, text)
    assert tokens.count(0) == num_bos and tokens[:num_bos] == [0] * num_bos
    if "bos_token" in kind[1]:
        assert tokens == made.apply_chat_template(MESSAGES)["input_ids"]  # transformers' own reading
    assert tokens.count(3) == 1 and 1 not in tokens


@pytest.mark.parametrize("media", ["embeds", "raw"])
def test_rollout_and_fine_tuning_read_the_same_prompt(tmp_path: Path, media: str) -> None:
    base = str(make_qwen2_audio(tmp_path / "base"))
    processor = load_processor(base)
    bos = "<|im_start|>"  # which begins the prompt
    inner = processor.tokenizer.backend_tokenizer
    bos_id = processor.tokenizer.convert_tokens_to_ids(bos)
    inner.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bos_id)])
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    path = tmp_path / "with_bos"
    save_checkpoint(load_model(base), path, processor=processor)
    assert load_processor(str(path)).tokenizer(AUDIO_PROMPT)["input_ids"][:2] == [bos_id, bos_id]

    wav = str(tmp_path / "tone.wav")
    soundfile.write(wav, tone(1), 16000)
    encoder = MediaEncoder(
        str(path), lambda prompt: {"audio": [tone(1)], "sampling_rate": 16000}, media=media
    )
    for text, audio in ((AUDIO_PROMPT, wav), ("hi", None)):
        prompt = Prompt(id="p", text=text, media={"tone": 1} if audio else {})
        tokens = encoder.encode([prompt])[0].prompt_token_ids
        assert tokens[0] == bos_id and tokens[1] != bos_id
        encoded = ExampleEncoder(str(path), cache_bytes=1 << 20).encode_options(audio, text, [("hi", True)])
        np.testing.assert_array_equal(encoded.prompt_token_ids, tokens)
        assert encoded.token_ids[0][0] != bos_id


def test_reward_models_read_a_text_by_the_same_rule() -> None:
    made = tokenizer(*MISTRAL, adds_bos=True)
    judge = object.__new__(GenerativeRewardModel)
    judge._tokenizer, judge._placeholder_id = made, None
    assert judge._tokenise("<s> ? hi ?", ()) == (0, 2, 3, 2)
    assert judge._tokenise("? hi ?", ()) == (0, 2, 3, 2)
    classifier = object.__new__(SequenceClassifier)
    classifier._tokenizer, classifier._max_tokens, classifier._micro_batch_size = made, 9, 9
    read: list[list[int]] = []
    classifier._forward = lambda rows: [read.append(row) or Score(0.0) for row in rows]  # type: ignore
    classifier._read(["<s> ? hi ?", "hi"])
    assert read == [[0, 3], [0, 2, 3, 2]]


TAGS = ("<think>", "</think>", "<answer>", "</answer>")
ANSWER = "<think>The pitch is high.</think><answer>angry</answer>"


def tagged(*special: str, **roles: str) -> PreTrainedTokenizerFast:
    """Returns a byte-level tokenizer with these special tokens."""
    inner = Tokenizer(BPE({byte: i for i, byte in enumerate(sorted(ByteLevel.alphabet()))}, []))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False)
    inner.decoder = ByteLevelDecoder()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **roles)
    made.add_tokens(list(special), special_tokens=True)
    return made


@pytest.mark.parametrize(
    ("special", "roles", "tail"),
    [
        ((), {"eos_token": "<|im_end|>"}, "<|im_end|>"),
        (TAGS, {"eos_token": "<|im_end|>"}, "<|im_end|>"),
        ((*TAGS, "<start_of_turn>", "<end_of_turn>"), {"eos_token": "<eos>"}, "<end_of_turn><eos>"),
        (TAGS, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, "</s><pad><pad>"),
    ],
)
def test_tags_are_text_and_control_tokens_are_not(
    special: tuple[str, ...], roles: dict[str, str], tail: str
) -> None:
    made = tagged(*special, **roles)
    ids = made(ANSWER + tail)["input_ids"]
    assert answer_text(made, ids) == ANSWER
    assert answer_text(made, ids[-1:]) == ""
    # A judge with such a tokenizer sees them too, and no control token.
    control = special_tokens(made)
    assert control.isdisjoint(TAGS) and roles["eos_token"] in control
    text = answer_text(made, ids)
    assert parse_response(text) == Parsed("The pitch is high.", "angry")
    ends = [text.index(".") + 1, len(text)]  # of a reward that judges steps
    stop, last = last_tokens(ids, ends, made)
    assert answer_text(made, ids[: stop + 1]) == "<think>The pitch is high."
    assert last + 1 == len(made(ANSWER)["input_ids"])


def test_a_text_ends_at_the_first_stop() -> None:
    assert until_stop(f"{ANSWER} and so on\n", ["\n", "</answer>"]) == ANSWER
    assert until_stop(ANSWER, []) == until_stop(ANSWER, ["###"]) == ANSWER


OPENED = "<|im_start|>assistant\n<think>\n"


@pytest.mark.parametrize(
    ("prompt", "written", "read"),
    [
        (OPENED, "High.</think><answer>angry</answer>", "<think>\nHigh.</think><answer>angry</answer>"),
        (OPENED, ANSWER, ANSWER),  # by a model that opens it again
        (OPENED, "High and", "High and"),  # cut before its end
        (OPENED, "<answer>angry</answer>", "<answer>angry</answer>"),
        ("<|im_start|>assistant\n", ANSWER, ANSWER),
        ("<think>\n\n</think>\n\n", ANSWER, ANSWER),  # a template that leaves no room for it
        ("<|im_start|>assistant\n", "High.</think><answer>a</answer>", "High.</think><answer>a</answer>"),
        ("<user>hi<assistant>", "hello", "hello"),
    ],
)
def test_an_answer_begins_with_the_tag_that_the_template_opened(prompt: str, written: str, read: str) -> None:
    assert opened_tag(prompt, written) + written == read
    completion = Completion(
        token_ids=(1,), logprobs=(0.0,), text=written, finish_reason="stop", policy_version=0
    )
    job = RolloutJob(id=0, prompt=Prompt(id="p", text=prompt, reference={"emotion": "angry"}), draw=0)
    encoded = EncodedPrompt(prompt_token_ids=(1,), media_inputs={}, media={})
    group = _finished(job, encoded, 0, (completion,)).group
    assert group is not None and group.completions[0].text == read
    is_whole = read.startswith("<think>")
    rewards = (FormatReward(), OutcomeReward(), TagFormat(["think", "answer"]))
    assert [reward.score(group, RewardContext())[0].value for reward in rewards] == [is_whole] * 3


def test_fine_tuning_writes_what_the_rollout_reads() -> None:
    for prompt in (OPENED, "<|im_start|>assistant\n", "<user>hi<assistant>"):
        written = left_to_write(prompt, ANSWER)
        read = opened_tag(prompt, written) + written
        assert parse_response(read) == Parsed("The pitch is high.", "angry")
        assert (prompt + written).count("<think>") == 1
    assert left_to_write(OPENED, "angry") == "angry"
