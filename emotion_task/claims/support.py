"""Weighs how much claims about a voice support each emotion, as measured recordings teach it.

The emotion e has, given the claims c, the probability

    P(e | c) = prod_a P(c_a | e) / sum_e' prod_a P(c_a | e'),    P(v | e) = (n(v, e) + s) / (n(e) + s V)

where n(v, e) counts the training recordings of e whose attribute a was measured as v, n(e) those of e whose a
was measured at all, V is the number of values of a, and s the smoothing (naive Bayes with additive smoothing;
Manning, Raghavan and Schuetze 2008, chapter 13). Emotions are as likely beforehand: what is common is not
supported by that. An attribute that is not claimed is summed out, and adds the factor 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from emotion_task.facts import PROSODY, VALUES, stated_facts
from emotion_task.labels import labels_among
from emotion_task.records import Utterance
from rlcore.errors import ConfigError


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
