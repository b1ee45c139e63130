"""Learns what is usual of each emotion's prosody, to ask whether claims support an emotion.

annotated training rows -> P(value | emotion), by attribute -> P(emotion | claims) against chance
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emotion_task.facts import PROSODY, VALUES, stated_facts
from emotion_task.records import Utterance
from rlcore.records.files import read_json, write_json

NAME = "profiles.json"
"""File in a reward model's folder."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """Holds how often each emotion has each prosodic value (naive Bayes, all emotions as likely)."""

    odds: Mapping[str, Mapping[str, Mapping[str, float]]]
    """P(value | emotion), by emotion, attribute of `PROSODY` and value."""

    @classmethod
    def read(cls, folder: str | Path) -> Profiles | None:
        """Reads the profiles that lie beside a reward model; None where there are none."""
        path = Path(folder) / NAME
        return cls(read_json(path)) if path.is_file() else None

    def write(self, folder: str | Path) -> None:
        """Writes the profiles beside a reward model."""
        write_json(Path(folder) / NAME, self.odds)

    @classmethod
    def learn(cls, utterances: Iterable[Utterance]) -> Profiles:
        """Counts the values of annotated utterances with an emotion. One is added to each count (Laplace)."""
        counts: dict[str, dict[str, Counter[str]]] = {}
        for utterance in utterances:
            if utterance.emotion is not None:
                of_emotion = counts.setdefault(utterance.emotion, {name: Counter() for name in PROSODY})
                for name, value in stated_facts(utterance).items():
                    if name in PROSODY:
                        of_emotion[name][value] += 1
        return cls(
            {
                emotion: {
                    name: {v: (c[v] + 1) / (c.total() + len(VALUES[name])) for v in VALUES[name]}
                    for name, c in of_emotion.items()
                }
                for emotion, of_emotion in counts.items()
            }
        )

    def support(self, claims: Mapping[str, str], emotion: str) -> bool:
        """Returns whether claims make an emotion more likely than it is without them: P(emotion | claims) is
        above one over the number of emotions.

        Claims of nothing prosodic support nothing. An emotion that has no profile cannot be asked about, so
        any claim supports it.

        Args:
            claims: claimed value by attribute; values that no voice has (`contradictory`) say nothing.
        """
        said = [(name, claims[name]) for name in PROSODY if claims.get(name) in VALUES[name]]
        if not said or emotion not in self.odds:
            return bool(said)
        likely = {e: math.prod(odds[name][v] for name, v in said) for e, odds in self.odds.items()}
        return likely[emotion] > sum(likely.values()) / len(likely)

    def bend(self, facts: Mapping[str, str], emotion: str) -> dict[str, str]:
        """Returns facts changed one after the other into what is most typical of an emotion, until they
        support it. Where they never do, all are changed."""
        bent = dict(facts)
        for name in PROSODY:
            if name in facts and emotion in self.odds and not self.support(bent, emotion):
                bent[name] = max(VALUES[name], key=lambda v: self._typical(emotion, name, v))
        return bent

    def _typical(self, emotion: str, name: str, value: str) -> float:
        """Returns how typical a value is: its share in the emotion times the emotion's share in the value."""
        share = self.odds[emotion][name][value]
        return share * share / sum(odds[name][value] for odds in self.odds.values())
