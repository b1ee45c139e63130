from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config

from emotion_task.claims.check import Tally, check_response, faithfulness_metrics, total
from emotion_task.rewards.faithfulness import FaithfulnessReward
from rlcore.errors import ConfigError, RLCoreError
from rlcore.types import Completion, Group, Prompt, RewardContext, Score

REFERENCE = {
    "text": "I never said that",
    "pitch_level": "low",
    "energy_level": "high",
    "speed_level": "fast",
    "intonation": None,
    "stressed_words": ["never"],
}
RIGHT = '<think>A low pitch, a loud voice, fast speech; stress on "never".</think><answer>angry</answer>'


def test_claims_are_counted_by_type() -> None:
    text = (
        'The pitch is high, the energy is normal, the intonation flat. He says "I always said that", '
        'stressing "never" and "you".'
    )
    tallies = check_response(text, REFERENCE)
    assert tallies["pitch_level"] == Tally(num_checked=1, num_facts=1, num_contradictions=1)
    assert tallies["energy_level"] == Tally(num_checked=1, num_facts=1)  # off by one step
    assert tallies["speed_level"] == Tally(num_facts=1)
    assert tallies["intonation"] == tallies["gender"] == Tally()  # not measured: neither right nor wrong
    assert tallies["stressed_words"] == Tally(num_right=1, num_checked=2, num_facts=1, num_contradictions=1)
    assert tallies["quoted_words"] == Tally(num_checked=1, num_contradictions=1)
    # Pooled: 1 right of 5 checked, 4 facts, 3 contradictions.
    assert total(tallies) == Tally(num_right=1, num_checked=5, num_facts=4, num_contradictions=3)


def test_a_right_quotation_counts_for_precision_alone() -> None:
    tally = total(check_response('The pitch is high. The words are "never said" and "you".', REFERENCE))
    assert (tally.num_right, tally.num_checked, tally.num_wrong) == (0, 3, 2)
    assert (tally.precision, tally.recall) == (pytest.approx(1 / 3), 0.0)


def test_saying_both_is_a_contradiction() -> None:
    tally = check_response("The pitch is low. The pitch is high.", REFERENCE)["pitch_level"]
    assert tally == Tally(num_checked=1, num_facts=1, num_contradictions=1)


def test_an_unspoken_word_is_wrong_even_where_no_stress_was_measured() -> None:
    reference = {"text": "I never said that", "stressed_words": None}
    tallies = check_response('The stress falls on "never" and "you".', reference)
    assert tallies["stressed_words"] == Tally(num_checked=1, num_contradictions=1)


def test_a_quotation_matches_the_transcript_by_words() -> None:
    for quote, right in (("never said", 1), ("NEVER, said!", 1), ("ever said", 0), ("said never", 0)):
        assert check_response(f'"{quote}" is heard.', REFERENCE)["quoted_words"].num_right == right
    assert check_response('"anything" is heard.', {"text": None})["quoted_words"] == Tally()


def test_metrics_pool_the_answers() -> None:
    references = [REFERENCE, {"pitch_level": "high"}]
    metrics = faithfulness_metrics([RIGHT, "The pitch is low. The energy is low."], references)
    assert metrics["faithfulness/precision"] == pytest.approx(4 / 5)
    assert metrics["faithfulness/recall"] == pytest.approx(4 / 5)
    assert metrics["faithfulness/contradictions"] == pytest.approx(1 / 5)
    assert metrics["faithfulness/pitch_level/precision"] == 0.5
    assert metrics["faithfulness/stressed_words/recall"] == 1.0
    assert "faithfulness/intonation/recall" not in metrics


def scores(*texts: str, **args: float) -> list:
    completions = tuple(
        Completion(token_ids=(1,), logprobs=(0.0,), text=text, finish_reason="stop", policy_version=0)
        for text in texts
    )
    prompt = Prompt(id="p", text="", reference=REFERENCE)
    group = Group(prompt=prompt, prompt_token_ids=(1,), completions=completions)
    return list(FaithfulnessReward(**args).score(group, RewardContext()))


def test_the_reward_orders_what_reasoning_says() -> None:
    right, silent, wrong, both = scores(
        RIGHT, "I hear anger.", "The pitch is high.", "The pitch is low. The pitch is high."
    )
    assert right.value == 1.0
    assert silent.value == 0.0
    assert wrong.value == both.value == -0.5 / 4
    assert right.parts == {"precision": 1.0, "recall": 1.0, "contradictions": 0.0}
    assert set(silent.parts) == set(right.parts)


def test_guessing_blindly_is_worth_nothing() -> None:
    guesses = scores(*(f"The pitch is {level}." for level in ("low", "normal", "high")))
    assert sum(score.value for score in guesses) == pytest.approx(0)


def test_quoting_more_earns_nothing_and_inventing_costs() -> None:
    plain, quoting, inventing = scores("A low pitch.", 'A low pitch. "I never"', 'A low pitch. "Not me"')
    assert plain.value == quoting.value == 1 / 4
    assert inventing.value == (1 - 0.5) / 4


@pytest.mark.parametrize(("wrong_cost", "lowest"), [(0.5, -1.0), (1.0, -1.0), (3.0, -3.0)])
def test_nothing_costs_more_than_one_or_the_cost_of_a_wrong_claim(wrong_cost: float, lowest: float) -> None:
    words = ("not", "you", "they", "her", "him", "we", "us", "me", "it", "she")
    invented = " ".join(f'"{word} {word}"' for word in words)  # 2.5 times as many as there are facts
    (score,) = scores(f"He says {invented}.", wrong_cost=wrong_cost)
    assert score.parts["contradictions"] == 10 and score.value == lowest


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer of bytes: a token is a character."""
    plain = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(folder)
    Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(folder)
    return folder


def by_sentence(tokenizer: str, *texts: str, **args: float) -> list[Score]:
    read = AutoTokenizer.from_pretrained(tokenizer)
    completions = []
    for text in texts:
        token_ids = tuple(read(text)["input_ids"])
        assert len(token_ids) == len(text)
        completions.append(
            Completion(
                token_ids=token_ids,
                logprobs=(0.0,) * len(token_ids),
                text=text,
                finish_reason="stop",
                policy_version=0,
            )
        )
    prompt = Prompt(id="p", text="", reference=REFERENCE)
    group = Group(prompt=prompt, prompt_token_ids=(1,), completions=tuple(completions))
    return FaithfulnessReward(tokenizer=tokenizer, **args).score(group, RewardContext())


def test_what_is_said_of_an_attribute_is_compared_with_the_groups_answers_for_it(tokenizer: str) -> None:
    first = "<think>The pitch is low. I wonder. The speech is slow. Energy is high</think><answer></answer>"
    second = "<think>The pitch is high. The energy is normal.</think>"
    third = "I hear anger."
    scored = by_sentence(tokenizer, first, second, third)
    assert [score.value for score in scored] == [0.0] * 3
    # Of four facts, right is worth 6/24, wrong -3/24 and silence 0: three answers' mean is 1/24 for pitch and
    # energy, -1/24 for the rate.
    ends = [first.index(words) + len(words) - 1 for words in ("is low.", "is slow.", "is high")]
    assert scored[0].token_values == pytest.approx(dict(zip(ends, (5 / 24, -2 / 24, 5 / 24), strict=True)))
    ends = [second.index(words) + len(words) - 1 for words in ("is high.", "is normal.")]
    # Its last sentence is wrong about the energy, and leaves the rate unsaid.
    assert scored[1].token_values == pytest.approx(dict(zip(ends, (-4 / 24, -3 / 24), strict=True)))
    assert scored[2].token_values == pytest.approx({len(third) - 1: -1 / 24})
    assert scored[0].parts == scores(first)[0].parts


def test_naming_a_hard_attribute_is_as_good_as_naming_an_easy_one(tokenizer: str) -> None:
    """Energy is right in three of four answers, pitch in one: right is right."""
    texts = [
        f"The energy is {energy}. The pitch is {pitch}."
        for energy, pitch in (("high", "high"), ("high", "high"), ("high", "low"), ("low", "high"))
    ]
    values = [list(score.token_values.values()) for score in by_sentence(tokenizer, *texts)]
    for attribute in zip(*values, strict=True):
        assert sum(attribute) == pytest.approx(0)
    assert values[2][1] > 0 > values[3][0]
    assert values[0][0] > 0 > values[0][1]


@pytest.mark.parametrize(("num_right", "speaking_pays"), [(1, False), (2, False), (4, True), (5, True)])
def test_speaking_pays_above_the_probability_that_the_cost_sets(
    num_right: int, speaking_pays: bool, tokenizer: str
) -> None:
    """A wrong claim costs as much as a right one earns: that is one in two."""
    said = ["The pitch is low."] * num_right + ["The pitch is high."] * (6 - num_right)
    *speaking, silent = [
        sum(score.token_values.values())
        for score in by_sentence(tokenizer, *said, "I hear anger.", wrong_cost=1.0)
    ]
    assert sum(speaking) + silent == pytest.approx(0)
    assert (sum(speaking) / 6 > silent) == speaking_pays


def test_a_sentence_that_takes_a_claim_back_pays_for_it(tokenizer: str) -> None:
    score, _ = by_sentence(tokenizer, "The pitch is low. The pitch is high.", "The pitch is low.")
    # Gains of 1/4 and then -3/8, from right to contradictory: -1/8 in all, beside the other answer's 1/4.
    assert list(score.token_values.values()) == pytest.approx([1 / 4 - 1 / 16, -3 / 8])


@pytest.mark.parametrize(
    "text", [RIGHT, "The pitch is low", "", "<think></think>", "!? ...", "Wait. No. Low pitch"]
)
def test_an_answer_that_is_alone_has_nothing_to_be_compared_with(text: str, tokenizer: str) -> None:
    (score,) = by_sentence(tokenizer, text)
    assert not any(score.token_values.values())
    assert all(0 <= at < len(text) for at in score.token_values)


def test_a_tokenizer_that_is_not_there_is_named() -> None:
    with pytest.raises(RLCoreError, match="/no/such/checkpoint"):
        FaithfulnessReward(tokenizer="/no/such/checkpoint")


def test_a_negative_cost_is_refused() -> None:
    with pytest.raises(ConfigError, match="wrong_cost: got -1"):
        FaithfulnessReward(wrong_cost=-1)
