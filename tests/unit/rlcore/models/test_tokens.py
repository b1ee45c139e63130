"""One BOS, wherever a text is read, for the kinds of tokenizer that there are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import soundfile
from tiny_models import make_qwen2_audio, tone
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from emotion_task.parsing import Parsed, parse_response
from emotion_task.prompt import emotion_messages
from emotion_task.rewards.ptr import FormatReward, OutcomeReward
from emotion_task.sft.encode import ExampleEncoder
from emotion_task.sft.examples import format_examples
from emotion_task.sft.tasks import SFTExample
from rlcore.actors.rollout_worker import _finished
from rlcore.models.hf_model import load_processor
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


TURNS = (
    "{% for m in messages %}{{ turn }}{{ m['role'] }}\n{% for part in m['content'] %}"
    "{% if part['type'] == 'audio' %}<|AUDIO|>{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}"
    "{{ end }}{% endfor %}{{ turn }}assistant\n{{ opens }}"
)


def template(kind: str, *, opens: str) -> str:
    """Returns the chat template of a kind of model, which opens the assistant's turn with `opens`."""
    start, turn, end = {
        "Qwen": ("", "<|im_start|>", "<|im_end|>\n"),
        "Llama": ("<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"),
        "Gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>\n"),
        "Mistral": ("<s>", "[INST]", "[/INST]"),
        "GLM": ("[gMASK]<sop>", "<|", "|>"),
    }[kind]
    values = {"turn": turn, "end": end, "opens": opens}
    return start + "".join(f"{{% set {k} = {json.dumps(v)} %}}" for k, v in values.items()) + TURNS


PREFIXES = {
    "Qwen": (),
    "Llama": ("<|begin_of_text|>",),
    "Gemma": ("<bos>",),
    "Mistral": ("<s>",),
    "GLM": ("[gMASK]", "<sop>"),
}
"""Tokens that each kind of tokenizer writes before a text, and its chat template as well."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_qwen2_audio(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("kind", PREFIXES)
def test_rollout_and_fine_tuning_read_the_same_prompt(base: Path, tmp_path: Path, kind: str) -> None:
    prefix, processor, path = PREFIXES[kind], load_processor(str(base)), str(tmp_path / kind)
    inner = processor.tokenizer.backend_tokenizer
    inner.add_special_tokens(list(prefix))
    ids = [inner.token_to_id(token) for token in prefix]
    if prefix:
        inner.post_processor = TemplateProcessing(
            single=" ".join([*prefix, "$A"]), special_tokens=list(zip(prefix, ids, strict=True))
        )
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=prefix[0] if len(prefix) == 1 else None,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    shutil.copytree(base, path)
    processor.save_pretrained(path)
    wav = str(tmp_path / "tone.wav")
    soundfile.write(wav, tone(1), 16000)
    question = SFTExample(id="q", task="trace", audio=wav, messages=emotion_messages(["sad"]), target=ANSWER)
    supervised = ExampleEncoder(path, cache_bytes=1 << 20)
    encoders = [
        MediaEncoder(path, lambda prompt: {"audio": [tone(1)], "sampling_rate": 16000}, media=media)
        for media in ("embeds", "raw")
    ]
    for opens in ("", "<think>\n"):
        processor.chat_template = template(kind, opens=opens)
        (example,) = format_examples(processor, [question])
        for text, audio in ((example.prompt, wav), ("hi", None)):
            encoded = supervised.encode_options(audio, text, [("hi", True)])
            assert encoded.token_ids[0][0] not in ids
            tokens = encoded.prompt_token_ids.tolist()
            assert tokens[: len(ids)] == ids and all(tokens.count(token) == 1 for token in ids)
            prompt = Prompt(id="p", text=text, media={"tone": 1} if audio else {})
            for encoder in encoders:
                assert list(encoder.encode([prompt])[0].prompt_token_ids) == tokens

        # What fine-tuning teaches is what the rollout reads as perfect; the tag is opened once.
        taught = supervised.encode(example)
        written = processor.tokenizer.decode([*taught.prompt_token_ids, *taught.token_ids[0]])
        assert written.endswith(f"assistant\n{ANSWER.replace('<think>', opens or '<think>')}<|im_end|>")
        read = answer_text(processor.tokenizer, taught.token_ids[0].tolist())
        assert parse_response(opened_tag(example.prompt, read) + read) == Parsed(
            "The pitch is high.", "angry"
        )


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


def test_a_prefix_that_is_no_bos_is_written_once() -> None:
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(["[gMASK]", "<sop>", "?", "hi"])}, "?"))
    inner.pre_tokenizer = Split(" ", "removed")
    inner.add_special_tokens(["[gMASK]", "<sop>"])
    inner.post_processor = TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", 0), ("<sop>", 1)]
    )
    glm = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")
    assert tokens_of(glm, "hi") == tokens_of(glm, "[gMASK]<sop> hi") == [0, 1, 3]
    assert tokens_of(glm, "[gMASK] hi") == [0, 1, 0, 3]  # half of it is text


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
