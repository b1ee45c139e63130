"""The accuracy of classical classifiers on the voice alone: the lines that a model is read against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from emotion_task.records import Utterance
from rlcore.errors import DataError, MissingDependencyError
from rlcore.records.progress import Progress


@dataclass(frozen=True, slots=True)
class ReferenceResult:
    """Accuracies of a classifier on the evaluation utterances, 0..1."""

    accuracy: float
    unweighted_accuracy: float
    """Mean recall over the classes."""
    majority: float
    """Accuracy of always naming the commonest emotion of the training utterances."""
    num_train: int
    num_eval: int
    recall: dict[str, float]
    """Recall by emotion."""


class Classifier(Protocol):
    """A classifier of scikit-learn, as far as it is used here."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> object:
        """Trains on features [U, F] and labels [U]."""
        ...

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns the labels [U] of features [U, F]."""
        ...


def prosody_classifier(train: Sequence[Utterance], evaluation: Sequence[Utterance]) -> ReferenceResult:
    """Trains gradient-boosted trees on `Utterance.measured` and gender, and scores unseen speakers.

    Trees take unmeasured (null) fields as they are, so no value is invented for whispered speech.

    Raises:
        DataError: no labelled, measured utterance in one of the two.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    train = [utterance for utterance in train if utterance.measured and utterance.emotion]
    evaluation = [utterance for utterance in evaluation if utterance.measured and utterance.emotion]
    if not train or not evaluation:
        raise DataError(
            f"the reference classifier needs measured utterances with an emotion; got {len(train)} to train "
            f"and {len(evaluation)} to evaluate. Annotate the corpus first (`emotion annotate`)."
        )
    fields = _numeric_fields(train)
    trees = HistGradientBoostingClassifier(
        max_iter=100, learning_rate=0.1, max_leaf_nodes=15, l2_regularization=1.0, random_state=0
    )
    return _evaluate(trees, train, evaluation, lambda utterances: _features(utterances, fields))


def egemaps_classifier(train: Sequence[Utterance], evaluation: Sequence[Utterance]) -> ReferenceResult:
    """Scores logistic regression on the 88 functionals of eGeMAPS, as openSMILE computes them.

    The functionals are those of Eyben et al. (IEEE Transactions on Affective Computing 2016). One thread
    takes about 50 ms per recording.

    Raises:
        MissingDependencyError: openSMILE is not installed.
        DataError: no labelled utterance in one of the two.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    try:
        import opensmile
    except ImportError as error:
        raise MissingDependencyError(
            "openSMILE (the extra `egemaps`) is not installed: pip install opensmile (its licence allows "
            "research only)"
        ) from error
    train = [utterance for utterance in train if utterance.emotion]
    evaluation = [utterance for utterance in evaluation if utterance.emotion]
    if not train or not evaluation:
        raise DataError(
            f"the eGeMAPS reference needs utterances with an emotion; got {len(train)} to train and "
            f"{len(evaluation)} to evaluate"
        )
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)

    def features(utterances: Sequence[Utterance]) -> np.ndarray:
        rows = Progress(utterances, desc="eGeMAPS", unit="file")
        return np.array([smile.process_file(utterance.audio).to_numpy()[0] for utterance in rows])

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return _evaluate(model, train, evaluation, features)


def _evaluate(
    model: Classifier,
    train: Sequence[Utterance],
    evaluation: Sequence[Utterance],
    features: Callable[[Sequence[Utterance]], np.ndarray],
) -> ReferenceResult:
    labels = np.array([utterance.emotion for utterance in train])
    truth = np.array([utterance.emotion for utterance in evaluation])
    model.fit(features(train), labels)
    predicted = model.predict(features(evaluation))
    recall = {str(label): float(np.mean(predicted[truth == label] == label)) for label in sorted(set(truth))}
    commonest = Counter(labels).most_common(1)[0][0]
    return ReferenceResult(
        accuracy=float(np.mean(predicted == truth)),
        unweighted_accuracy=float(np.mean(list(recall.values()))),
        majority=float(np.mean(truth == commonest)),
        num_train=len(train),
        num_eval=len(evaluation),
        recall=recall,
    )


_OF_THE_FILE = ("peak",)
"""Measured fields that tell of the recording, not of the voice."""
_GENDERS = {"male": 0.0, "female": 1.0}


def _numeric_fields(utterances: Sequence[Utterance]) -> list[str]:
    """Returns the fields that some utterance has: trees take no column without a number."""
    names = {
        name
        for utterance in utterances
        for name, value in (utterance.measured or {}).items()
        if isinstance(value, int | float) and name not in _OF_THE_FILE
    }
    known = any(utterance.gender in _GENDERS for utterance in utterances)
    return sorted(names) + (["gender"] if known else [])


def _features(utterances: Sequence[Utterance], fields: Sequence[str]) -> np.ndarray:
    """Returns float64 [U, F], NaN where unmeasured."""
    known = [(u.measured or {}) | {"gender": _GENDERS.get(u.gender or "")} for u in utterances]
    return np.array([[_number(values.get(name)) for name in fields] for values in known])


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan
