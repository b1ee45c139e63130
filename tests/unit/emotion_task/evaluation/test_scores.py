from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from emotion_task.evaluation.scores import (
    AGREE,
    CONFLICT,
    FOLLOWS_WORDS,
    MACRO_F1,
    UNWEIGHTED,
    Graded,
    conflict_parts,
    estimates,
    gains,
)

CLASSES = ("angry", "happy", "sad")


def drawn(seed: int, num: int = 60, right: float = 0.6) -> list[Graded]:
    """Answers of a model; the questions are the same for every seed."""
    truth = np.random.default_rng(0).choice(CLASSES, num)
    rng = np.random.default_rng(seed)
    rows = []
    for index, answer in enumerate(truth):
        said = answer if rng.random() < right else str(rng.choice([*CLASSES, "fear"]))
        rows.append(
            Graded(
                answer=str(answer),
                said=None if rng.random() < 0.1 else str(said),
                groups={"dataset": "b" if index % 3 else "a", "task": "one"},
                words=(None, "happy", "sad")[index % 3],
            )
        )
    return rows


def test_the_figures_are_those_of_scikit_learn() -> None:
    rows = drawn(1)
    truth, said = [row.answer for row in rows], [row.said or "none" for row in rows]
    found = estimates(rows, are_classes=True)
    assert found["accuracy"].value == pytest.approx(accuracy_score(truth, said))
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        assert found[UNWEIGHTED].value == pytest.approx(balanced_accuracy_score(truth, said))
    expected = f1_score(truth, said, labels=list(CLASSES), average="macro", zero_division=0)
    assert found[MACRO_F1].value == pytest.approx(expected)
    for name in CLASSES:
        hits = [row.said == name for row in rows if row.answer == name]
        assert found[f"emotion: {name}"].value == pytest.approx(np.mean(hits))
        assert found[f"emotion: {name}"].num == len(hits)
    assert all(each.low <= each.value <= each.high for each in found.values())
    assert found["dataset: a"].num == 20 and found["dataset: b"].num == 40
    assert not any(name.startswith("task: ") for name in found)  # one value: nothing to compare


def test_macro_f1_has_the_interval_of_resampled_questions() -> None:
    rows = drawn(2)
    rng, resampled = np.random.default_rng(9), []
    for _ in range(2000):
        pairs = [(rows[index].answer, rows[index].said) for index in rng.integers(len(rows), size=len(rows))]
        of_class = []
        for name in {answer for answer, _ in pairs}:
            right = pairs.count((name, name))
            of_class.append(2 * right / sum((answer == name) + (said == name) for answer, said in pairs))
        resampled.append(np.mean(of_class))
    found = estimates(rows, are_classes=True, num_resamples=4000)[MACRO_F1]
    np.testing.assert_allclose((found.low, found.high), np.percentile(resampled, [2.5, 97.5]), atol=0.015)


def test_words_and_voice_in_conflict_are_a_set_of_their_own() -> None:
    rows = [
        Graded(answer="sad", said="sad", words="sad"),
        Graded(answer="sad", said="happy", words="happy"),
        Graded(answer="sad", said="sad", words="angry"),
        Graded(answer="sad", said=None, words="angry"),
        Graded(answer="angry", said="happy", words="happy"),
        Graded(answer="angry", said="angry"),
    ]
    found = estimates(rows, are_classes=True)
    assert (found[AGREE].value, found[AGREE].num) == (1.0, 1)
    assert (found[CONFLICT].value, found[CONFLICT].num) == (0.25, 4)
    assert (found[FOLLOWS_WORDS].value, found[FOLLOWS_WORDS].num) == (0.5, 4)
    assert conflict_parts(rows) == {AGREE: [0], CONFLICT: [1, 2, 3, 4]}
    # Where the words never contradict the voice there is no such set.
    assert conflict_parts(rows[:1]) == {} == conflict_parts(rows[5:])
    assert AGREE not in estimates(rows[:1], are_classes=True)


def test_differences_are_paired() -> None:
    before, after = drawn(1), drawn(2, right=0.8)
    found = gains(before, after, are_classes=True)
    old, new = estimates(before, are_classes=True), estimates(after, are_classes=True)
    assert found.keys() == old.keys()
    for name, each in found.items():
        assert each.value == pytest.approx(new[name].value - old[name].value)
    same = gains(before, before, are_classes=True)
    assert {(each.value, each.low, each.high) for each in same.values()} == {(0.0, 0.0, 0.0)}
    with pytest.raises(ValueError, match="the same questions"):
        gains(before, after[1:], are_classes=True)


def test_multiple_choice_has_accuracies_alone() -> None:
    rows = [
        Graded(answer="Man", said="Man", groups={"task": "sound"}),
        Graded(answer="Rain", said="Wind", groups={"task": "speech"}),
    ]
    found = estimates(rows, are_classes=False)
    assert {name: each.value for name, each in found.items()} == {
        "accuracy": 0.5,
        "task: sound": 1.0,
        "task: speech": 0.0,
    }
