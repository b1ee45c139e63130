"""Finds what a level word or a direction is said of, by a shallow grammar over the words of `lexicon.py`.

A word may stand before its noun ("a high, trembling pitch"), after it ("the pitch, by contrast, stays low"),
or point at it ("low in pitch"). Nouns that are not of the voice own their words ("a loud shirt", "her mood is
low"), so a claim is only made where the walk from the word reaches a noun of the voice before any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emotion_task.claims.figures import STATED
from emotion_task.claims.levels import FOREIGN, alone, denies_pitch, reverse, value_of
from emotion_task.claims.lexicon import (
    ADJECTIVES,
    BEARER,
    BREAKS,
    CONJUNCTIONS,
    DETERMINERS,
    DOWN,
    ENERGY,
    FREE,
    LEVEL_WORDS,
    LINKS,
    NEGATIONS,
    NOUNS,
    OWN_LEVELS,
    PARTICIPLES,
    PITCH,
    PREPOSITIONS,
    SCALES,
    SPEECH,
    SPEED,
    STATIVE,
    TOPIC,
    UP,
    VARIATION,
    VERBS,
    VOICE,
    words,
)
from emotion_task.claims.placing import beside_loudness, is_placed
from emotion_task.claims.sentences import OWNER, Sentence
from emotion_task.claims.word_classes import adjectival, adverbial, is_foreign

_DEGREES = {
    PITCH: ("low", "normal", "high"),
    ENERGY: ("low", "normal", "high"),
    SPEED: ("slow", "normal", "fast"),
}
_BARE = words("high higher low lower")
"""Words that are of the pitch or of the loudness."""
_BE = words("is are was were be been being")
_PARTIAL = words("last first final second few some certain stressed")
"""Words that pick a part: what is said of the last word is said of no whole utterance."""
_PRO_VERBS = words("is are does do was were")


class SentenceReader:
    """Reads the levels that one sentence asserts.

    Args:
        sentence: the sentence to read.
        topics: carriers that the sentence before spoke of, which "it" points back to.
        last: claim that was made last, which "the volume is, too" repeats.
    """

    def __init__(self, sentence: Sentence, topics: Sequence[str] = (), last: tuple[str, str] | None = None):
        self.sentence, self.tokens, self.denied = sentence, sentence.tokens, sentence.denied
        self._topics = tuple(topics)
        self.last = last
        self.made: set[tuple[str, str]] = set()
        """Claims that the sentence makes of levels, once `claims` has been read."""
        self.negations: list[tuple[str, str]] = []
        """(attribute, value) of each level that the sentence denies, once `claims` has been read."""

    def topics(self) -> tuple[str, ...]:
        """Returns the attributes that an "it" in the next sentence may mean: those of this sentence, else the
        earlier ones."""
        named = tuple(dict.fromkeys(NOUNS[t] for t in self.tokens if NOUNS.get(t) in OWN_LEVELS))
        if named:
            return named
        if {name for name, _ in self.made.union(self.negations)} == {PITCH}:
            return (PITCH,)  # the voice is not high; it is low
        spoken = any(NOUNS.get(t) == VOICE for t in self.tokens)
        return (VOICE,) if spoken else self._topics

    def claims(self) -> Iterator[tuple[str, str]]:
        """Yields (attribute, value) for each level that the sentence asserts, in the order of the words."""
        last = self.last
        for i, word in enumerate(self.tokens):
            if word in STATED:
                if i not in self.denied:
                    yield STATED[word]
            elif word in LEVEL_WORDS or word in FREE:
                if i in self.sentence.negated and not is_placed(self.tokens, i):
                    said_not = [value_of(carrier, word) for carrier in self._carriers(i)]
                    self.negations += [claim for claim in said_not if claim]
                if not is_placed(self.tokens, i) and not (
                    i in self.denied and word != "no" and word != "any"
                ):
                    for carrier in self._carriers(i):
                        claim = value_of(carrier, word)
                        if claim and i in self.sentence.reversed:
                            claim = reverse(claim)
                        if claim and not (i in self.denied and carrier != VARIATION):
                            last = self.last = claim
                            self.made.add(claim)
                            yield claim
            elif word == "likewise" and NOUNS.get(self.at(i - 1)) in OWN_LEVELS and last is not None:
                yield from self._likewise(i - 1, last)
            elif (
                word in ("too", "likewise", "also")
                and last is not None
                and (noun := self._also(i)) is not None
            ):
                yield from self._likewise(noun, last)
            elif word in ("so", "as") and self.at(i + 1) in _PRO_VERBS and last is not None:
                yield from self._likewise(i + 2, last)
        if denies_pitch(self.tokens):
            yield PITCH, "none"

    def _also(self, i: int) -> int | None:
        """Returns the position of the attribute that is "too" at `i`: the volume is, too."""
        j = i - 1 if self.at(i - 1) != "," else i - 2
        return (
            j - 1
            if self.at(j) in _BE and NOUNS.get(self.at(j - 1)) in OWN_LEVELS and self.at(i + 1) in ("", ",")
            else None
        )

    def _likewise(self, j: int, said: tuple[str, str]) -> Iterator[tuple[str, str]]:
        """Yields the same level of another attribute: ..., and so is her pitch."""
        while self.at(j) in DETERMINERS | ADJECTIVES or self.at(j) in ("speaking", "speech"):
            j += 1
        name = NOUNS.get(self.at(j))
        if name in _DEGREES and said[0] in _DEGREES:
            yield name, _DEGREES[name][_DEGREES[said[0]].index(said[1])]

    def at(self, i: int) -> str:
        """Returns the token at `i`, or an empty string outside the sentence."""
        return self.tokens[i] if 0 <= i < len(self.tokens) else ""

    def _carriers(self, i: int) -> list[str]:
        """Returns the carriers (values of `NOUNS`) that the level word at `i` is said of; none where it is
        said of nothing."""
        word = self.tokens[i]
        if word in _BARE and beside_loudness(self.tokens, i):
            return [PITCH]
        pointed = self.pointed_at(i)
        if pointed:
            return pointed
        if self.at(i - 1) == "how" or (word.endswith("ness") and self.at(i + 1) == "of"):
            return [c for c in map(NOUNS.get, self.tokens[i + 1 : i + 4]) if c and value_of(c, word)][:1]
        if word in ("more", "less"):
            return [m for m in self._modified(i) if m in OWN_LEVELS and value_of(m, word)]
        linked = self._after_link(i)
        subjects = self.subjects(i) if linked else []
        if linked == ":":
            subjects = [m for m in self._modified(i) if value_of(m, word)] or subjects
        if fitting := [s for s in subjects if value_of(s, word)]:
            return fitting
        modified = [] if word in VERBS else self._modified(i)
        if subjects == [FOREIGN] and not any(value_of(m, word) for m in modified):
            return []
        if modified == [FOREIGN]:
            return []
        if modified:
            fitting = [m for m in modified if value_of(m, word)]
            owners = self.subjects(i) if "quality" in self.tokens[i + 1 : i + 4] and word not in FREE else []
            return fitting or [s for s in owners if s in OWN_LEVELS and value_of(s, word)] or alone(word)
        if word == "neutral" and not linked:  # mostly the emotion
            return []
        subjects = subjects or self.subjects(i)
        listed = self._field(i)
        if listed and not any(value_of(s, word) for s in subjects):
            return [listed]
        if subjects == [FOREIGN]:
            return []
        if not subjects:
            if self._topics[-1:] == (VOICE,) and len(self.tokens) < 4:
                return [VOICE]
            return alone(word) if self._of_speech(i) else []
        return [s for s in subjects if value_of(s, word)]

    def _field(self, i: int) -> str:
        """Returns the attribute at the head of a list that the word at `i` stands in: "pitch: wide variation,
        overall high". An empty string where there is none."""
        colon = next((k for k in range(i - 1, 0, -1) if self.tokens[k] == ":"), 0)
        carrier = NOUNS.get(self.at(colon - 1), "") if colon else ""
        if carrier not in OWN_LEVELS or not value_of(carrier, self.tokens[i]):
            return ""
        return "" if any(map(is_foreign, self.tokens[colon + 1 : i])) else carrier

    def _of_speech(self, i: int) -> bool:
        """Returns whether the sentence speaks of a voice, or the clause at `i` of nothing else."""
        start = max((k + 1 for k in range(i) if self.tokens[k] in BREAKS), default=0)
        end = next((k for k in range(i, len(self.tokens)) if self.tokens[k] in BREAKS), len(self.tokens))
        return (
            any(NOUNS.get(t) in (SPEECH, VOICE, BEARER, *OWN_LEVELS) for t in self.tokens)
            or len(self.tokens) < 4
            or not any(map(is_foreign, self.tokens[start:end]))
        )

    def pointed_at(self, i: int) -> list[str]:
        """Returns the carriers that the level word at `i` points at: low in pitch, a high level of energy,
        nothing unusual about the tempo."""
        j = i + 1
        while self.at(j) in SCALES or self.at(j) == "both":
            j += 1
        if self.at(j) not in ("in", "of", "about"):
            return []
        j += 1
        while self.at(j) in DETERMINERS or self.at(j) in ADJECTIVES:
            j += 1
        carrier = NOUNS.get(self.at(j), "")
        if carrier not in OWN_LEVELS or not value_of(carrier, self.tokens[i]):
            return []
        return [carrier, *self._shared(j, self.tokens[i])]

    def _after_link(self, i: int) -> str:
        """Returns the link that the word at `i` follows, or an empty string."""
        j = i - 1
        while j >= 0 and (
            adverbial(self.tokens[j])
            or self.tokens[j] in LEVEL_WORDS
            or self.tokens[j] in CONJUNCTIONS
            or self.tokens[j] == ","
            or adjectival(self.tokens[j])
        ):
            j -= 1
        return self.tokens[j] if j >= 0 and self.tokens[j] in LINKS and self.at(j - 1) != "there" else ""

    def _modified(self, i: int) -> list[str]:
        """Returns the carriers of the nouns after the word at `i`, the nearest fitting one first; `[FOREIGN]`
        where the noun is not of the voice, none where there is no noun."""
        word, n = self.tokens[i], len(self.tokens)
        j = i + 1
        while j < n and not word.endswith("ly") and self._inside_phrase(j):
            j += 1
        run: list[int] = []
        start = j
        while j < n and (self.tokens[j] in NOUNS or (run and self.tokens[j] in SCALES)):
            if NOUNS.get(self.tokens[j]) not in (None, TOPIC) and not self._is_person_start(j, start):
                run.append(j)
            else:
                break
            j += 1
        if not run:
            return [FOREIGN] if is_foreign(self.at(j)) else []
        if self._is_foreign_of(run[-1]) or (self.tokens[run[-1]] in PARTICIPLES and is_foreign(self.at(j))):
            return [FOREIGN]
        fitting = [NOUNS[self.tokens[k]] for k in reversed(run) if self.tokens[k] in NOUNS]
        found = next((c for c in fitting if value_of(c, word)), fitting[0])
        return [found, *self._shared(run[-1], word)]

    def _is_person_start(self, j: int, start: int) -> bool:
        """Returns whether a pronoun, which no adjective modifies, stands at `j` = `start`: slowly she
        speaks."""
        return self.tokens[j] in ("she", "he") and j == start

    def _inside_phrase(self, j: int) -> bool:
        token = self.tokens[j]
        if token in NEGATIONS:
            return False
        if token in (",", "and", "or"):
            after = self.at(j + 1)
            if adverbial(after) and after not in BREAKS:
                after = self.at(j + 2)
            return (after in LEVEL_WORDS - NEGATIONS or adjectival(after)) and after not in NOUNS
        return (
            token in LEVEL_WORDS or adverbial(token) or adjectival(token) or token in UP or token in DOWN
        ) and token not in NOUNS

    def _shared(self, j: int, word: str) -> Iterator[str]:
        """Yields the nouns that share the first noun's level: low pitch and volume."""
        while self.at(j + 1) in ("and", ",", "or"):
            j += 3 if self.at(j + 2) in ("the", "in") else 2
            if self.at(j) not in NOUNS:
                return
            carrier = NOUNS[self.tokens[j]]
            follows = self.at(j + 1)
            if carrier not in OWN_LEVELS or follows in LINKS or follows in LEVEL_WORDS or follows in STATIVE:
                return
            if value_of(carrier, word):
                yield carrier

    def _is_foreign_of(self, j: int) -> bool:
        """Returns whether the noun at `j` is of something else: the rate of change, emotional intensity."""
        if self.tokens[j - 1] in ("emotional", "emotion", "nervous", "interest", "inner"):
            return True
        k = j + 1
        if k >= len(self.tokens) or self.tokens[k] != "of" or NOUNS[self.tokens[j]] not in OWN_LEVELS:
            return False
        k += 1
        while k < len(self.tokens) and (self.tokens[k] in DETERMINERS or adjectival(self.tokens[k])):
            k += 1
        return k < len(self.tokens) and is_foreign(self.tokens[k]) and self.tokens[k] not in _MEDIA

    def subjects(self, i: int) -> list[str]:
        """Returns the carriers before the word at `i` that the word is said of: the subject's noun and those
        coordinated with it; `[FOREIGN]` where another noun is nearer."""
        fallback: list[str] = []
        j, comma = i - 1, False
        while j >= 0:
            token = self.tokens[j]
            if token in NOUNS and NOUNS[token] is not None:
                if token in ("this", "all", "both") and self.at(j - 1) not in BREAKS | {"", ","}:
                    j -= 1
                    continue
                carrier = NOUNS[token]
                head = self._noun_phrase_start(j)
                if carrier == BEARER and self.at(head - 1) == "for":
                    j = head - 2  # for a woman
                    continue
                if carrier in (VOICE, SPEECH, BEARER) and self.at(head - 1) in PREPOSITIONS - {"with"}:
                    fallback = fallback or [carrier]
                    j = head - 2
                    continue
                if self._is_foreign_of(j) or (carrier == SPEECH and set(self.tokens[head:j]) & _PARTIAL):
                    return [FOREIGN]
                if carrier == TOPIC:
                    return list(self._topics_before(j)) or fallback or [TOPIC]
                if not value_of(carrier, self.tokens[i]) and NOUNS.get(self.at(j - 1)) in OWN_LEVELS:
                    j -= 1  # the intensity contour is high
                    continue
                return [carrier, *self._coordinated(head)]
            if token == ",":
                if fallback:
                    return fallback
                if self.at(j + 1) in LINKS and "," in self.tokens[:j]:  # the pitch, by contrast, is low
                    j = max(k for k in range(j) if self.tokens[k] == ",") - 1
                    continue
                comma = True
            elif (
                token.endswith("ing")
                and token not in LEVEL_WORDS
                and adjectival(token)
                and self.at(j - 1) in _BE
                and not (self._coordinate_adjective(j, i))
            ):
                return fallback or [FOREIGN]  # he was driving too fast
            elif is_foreign(token) or (adjectival(token) and self.at(j + 1) in LINKS - {"as"}):
                start = self._noun_phrase_start(j)
                if self._coordinate_adjective(j, i) or (
                    is_foreign(token) and self.at(j - 1) in NOUNS.keys() - DETERMINERS
                ):
                    pass  # fragile and faint; or an unknown verb of the voice: the pitch clusters low
                elif start > 0 and self.tokens[start - 1] in PREPOSITIONS:
                    j = start - 1
                else:
                    return fallback or ([] if comma else [FOREIGN])
            j -= 1
        return fallback

    def _coordinate_adjective(self, j: int, i: int) -> bool:
        between = self.tokens[j + 1 : i]
        return (
            bool(between)
            and all(t in CONJUNCTIONS or t == "," or adverbial(t) or t in LEVEL_WORDS for t in between)
            and between[0] in ("and", ",", "or")
        )

    def _noun_phrase_start(self, j: int) -> int:
        while j > 0 and (
            self.tokens[j] == OWNER
            or self.tokens[j - 1] in DETERMINERS
            or self.tokens[j - 1] in LEVEL_WORDS
            or adjectival(self.tokens[j - 1])
            or NOUNS.get(self.tokens[j - 1]) in (VOICE, SPEECH)
        ):
            j -= 1
        return j

    def _topics_before(self, j: int) -> Sequence[str]:
        named = [NOUNS[t] for t in self.tokens[:j] if NOUNS.get(t) in OWN_LEVELS]
        if self.tokens[j] in ("it", "this"):
            is_voice = any(NOUNS.get(t) == VOICE for t in self.tokens[:j])
            return named[-1:] or ((VOICE,) if is_voice else self._topics[-1:])
        return tuple(dict.fromkeys(named)) or self._topics

    def _coordinated(self, head: int) -> Iterator[str]:
        """Yields the coordinated nouns before the one at `head`: pitch, volume, and speed are ..."""
        j = head - 1
        while j > 0 and self.tokens[j] in ("and", "or", "nor", ","):
            while j > 0 and self.tokens[j] in ("and", "or", "nor", ","):
                j -= 1
            while j > 0 and self.tokens[j] in SCALES:
                j -= 1
            carrier = NOUNS.get(self.tokens[j])
            if carrier not in OWN_LEVELS:
                return
            start = self._noun_phrase_start(j)
            if any(t in LEVEL_WORDS for t in self.tokens[start:j]):
                return
            yield carrier
            j = start - 1


_MEDIA = words("recording clip audio vocals delivery line passage")
