"""Weighs how much claims about a voice support each emotion, as measured recordings teach it.

The emotion e has, given the claims c, the probability

    P(e | c) = prod_a P(c_a | e) / sum_e' prod_a P(c_a | e'),    P(v | e) = (n(v, e) + s) / (n(e) + s V)

where n(v, e) counts the training recordings of e whose attribute a was measured as v, n(e) those of e whose a
was measured at all, V is the number of values of a, and s the smoothing (naive Bayes with additive smoothing;
Manning, Raghavan and Schuetze 2008, chapter 13). Emotions are as likely beforehand: what is common is not
supported by that. An attribute that is not claimed is summed out, and adds the factor 1. Claims support an
emotion that they make more likely than it is without them: P(e | c) > 1 / K.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from emotion_task.facts import PROSODY, VALUES, stated_facts
from emotion_task.labels import check_set, labels_among
from emotion_task.records import Utterance
from rlcore.errors import ConfigError, DataError
from rlcore.records.files import read_json, write_json

TABLE_FILE = "claim_table.json"
"""Name of the file beside a reward model that holds the table of its training."""


@dataclass(frozen=True, slots=True)
class ClaimTable:
    """Holds P(value | emotion) of every prosodic attribute."""

    labels: tuple[str, ...]
    """[K] emotions."""
    odds: Mapping[tuple[str, str], tuple[float, ...]]
    """(attribute, value) to its probability given each emotion, [K]."""

    def posterior(self, claims: Mapping[str, str]) -> dict[str, float]:
        """Returns each emotion's probability given the claims; they sum to 1.

        Args:
            claims: value by attribute, as `emotion_task.claims.finder.find_claims` returns them. What is no
                prosody, and a claim that contradicts itself, supports nothing.
        """
        rows = [self.odds[claim] for claim in prosodic(claims).items()]
        logs = [math.fsum(math.log(row[k]) for row in rows) for k in range(len(self.labels))]
        weights = [math.exp(value - max(logs)) for value in logs]
        total = math.fsum(weights)
        return {label: weight / total for label, weight in zip(self.labels, weights, strict=True)}

    def best(self, claims: Mapping[str, str]) -> str:
        """Returns the emotion that the claims support most; of equals, the first."""
        found = self.posterior(claims)
        return max(found, key=lambda label: found[label])

    def supports(self, claims: Mapping[str, str], emotion: str) -> bool:
        """Returns whether claims make an emotion, one of `labels`, more likely than it is without them."""
        # An even match is no support, whichever way it is rounded.
        return self.posterior(claims)[emotion] * len(self.labels) > 1 + 1e-9

    def bend(self, facts: Mapping[str, str], emotion: str) -> dict[str, str]:
        """Returns facts changed one after the other into what is most typical of an emotion, until they
        support it. Where they never do, all are changed."""
        bent = dict(facts)
        for name in PROSODY:
            if name in facts and not self.supports(bent, emotion):
                bent[name] = self._most_typical(name, self.labels.index(emotion))
        return bent

    def _most_typical(self, name: str, k: int) -> str:
        """Returns the value with the highest share in an emotion times the emotion's share in the value."""
        rows = {value: self.odds[name, value] for value in VALUES[name]}
        return max(rows, key=lambda value: rows[value][k] ** 2 / sum(rows[value]))

    def write(self, folder: str | Path) -> None:
        """Writes the table beside a model."""
        odds = {name: {value: self.odds[name, value] for value in VALUES[name]} for name in PROSODY}
        write_json(Path(folder) / TABLE_FILE, {"labels": self.labels, "odds": odds})

    @classmethod
    def read(cls, folder: str | Path) -> ClaimTable | None:
        """Reads the table that lies beside a model; None where there is none.

        Raises:
            DataError: the file holds anything else.
        """
        path = Path(folder) / TABLE_FILE
        if not path.is_file():
            return None
        try:
            row = read_json(path)
            check_set(row["labels"], "labels")
            labels = tuple(row["labels"])
            odds = {(name, v): tuple(row["odds"][name][v]) for name in PROSODY for v in VALUES[name]}
            if not all(len(each) == len(labels) and all(0 < p <= 1 for p in each) for each in odds.values()):
                raise ValueError("every value has a probability above 0 for each of the labels")
        except (KeyError, TypeError, ValueError) as error:  # the errors of rlcore are ValueErrors
            raise DataError(
                f"{path}: not a table of claims ({error!r}); train the reward model anew"
            ) from error
        return cls(labels, odds)


def prosodic(claims: Mapping[str, str]) -> dict[str, str]:
    """Returns the claims that state one value of a prosodic attribute."""
    return {name: value for name, value in claims.items() if name in PROSODY and value in VALUES[name]}


def learn_table(
    utterances: Iterable[Utterance], labels: Sequence[str] = (), *, smoothing: float = 1.0
) -> ClaimTable:
    """Counts the measured levels of each emotion.

    Args:
        utterances: annotated, of the training split.
        labels: the emotions; by default those that `utterances` have.
        smoothing: s above, more than 0.

    Raises:
        ConfigError: the smoothing is not above 0, or an emotion has no recording whose prosody was measured.
    """
    if not 0 < smoothing < math.inf:
        raise ConfigError(f"smoothing: got {smoothing}; allowed is any number above 0")
    seen: Counter[tuple[str, str, str]] = Counter()
    known: Counter[str] = Counter()
    for utterance in utterances:
        if utterance.emotion is not None and (facts := prosodic(stated_facts(utterance))):
            known[utterance.emotion] += 1
            seen.update((name, value, utterance.emotion) for name, value in facts.items())
    options = tuple(labels or labels_among(known))
    if missing := [label for label in options if not known[label]]:
        raise ConfigError(
            f"labels: no training recording with measured prosody has the emotion {missing}; those that have "
            f"one are of {labels_among(known)}"
        )
    if not options:
        raise ConfigError(
            "no training recording has an emotion and measured prosody: annotate the corpus first "
            "(`emotion annotate`)"
        )
    odds = {}
    for name in PROSODY:
        totals = [sum(seen[name, value, label] for value in VALUES[name]) for label in options]
        for value in VALUES[name]:
            odds[name, value] = tuple(
                (seen[name, value, label] + smoothing) / (total + smoothing * len(VALUES[name]))
                for label, total in zip(options, totals, strict=True)
            )
    return ClaimTable(options, odds)
