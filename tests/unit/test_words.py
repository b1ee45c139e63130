"""Public docstrings stand alone in an editor's tooltip: each begins as a full sentence and ends as one."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("rlcore", "emotion_task", "benchmarks")


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FRAGMENTS = words(
    "Of And As Its With By For Where Whether What How Why When Which Who Whose From To Into In On At Than "
    "Until Unless Because If But Or Nor That Also Such Like"
)
"""First words that go on with a sentence whose beginning stands elsewhere."""
PROPER_NAMES = words("rlcore vLLM eSpeak openSMILE torch")
"""Names that may begin a sentence with a small letter."""
AUXILIARIES = words(
    "is are was were has have had does do did can cannot could may might must will would shall should"
)
PLAIN_VERBS = words(
    "need take give get make go come stay hold keep stand begin end share run write read wait depend belong "
    "follow"
)
"""Verbs that do not end in -s, unless the word before makes them nouns or infinitives."""
OPENERS = words(
    "which that what who whom whose where whether when how why until if because than unless while once so"
)
"""Each opens a clause that has a verb of its own."""
BEFORE_NOUNS = words(
    "a an the of in on at by to for from with without into over under between beside as than and or all both "
    "their its each every no these those some many few more per like other two three several open new full "
    "own first last latest raw same frozen mean greedy single whole shorter longer higher lower"
)
"""After these a word is no verb but a noun, in -s a plural."""


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?:;])\s", " ".join(text.split()), maxsplit=1)[0]


def has_verb(sentence: str) -> bool:
    """A guess from the words' endings: as many verbs as clauses. Errs towards yes."""
    plain = re.sub(r"`[^`]*`", "it", re.sub(r"\([^)]*\)", "", sentence))
    row = re.findall(r"[A-Za-z][\w'-]*", plain)
    if row and re.fullmatch(r"[A-Z]\w*[a-rt-z]s", row[0]):  # Returns, Reads, Holds
        return True
    verbs, clauses, is_verb = 0, 0, False
    for before, word in itertools.pairwise(row):
        clauses += word in OPENERS
        is_plural = _ends_in_s(before) and not is_verb
        is_noun = before.lower() in BEFORE_NOUNS or before.endswith(("'s", "s'"))
        is_noun_in_s = is_noun or is_plural or re.search("[a-z](ed|ing)$", before) is not None
        is_verb = word in AUXILIARIES or (word in PLAIN_VERBS and not is_noun)
        is_verb = is_verb or (_ends_in_s(word) and not is_noun_in_s)
        verbs += is_verb
    return verbs > clauses


def _ends_in_s(word: str) -> bool:
    """Whether it may be a verb in the third person, or a plural."""
    return word.endswith("s") and not word.endswith(("ss", "us", "'s", "is", "as"))


def faults(docstring: str, *, needs_verb: bool) -> Iterator[str]:
    """What is wrong with a docstring.

    Args:
        needs_verb: a noun phrase alone is not enough, as for a function.
    """
    text = docstring.strip()
    word = re.split(r"[\s,:;.]", text, maxsplit=1)[0]
    if word in FRAGMENTS or text.startswith("The same "):
        yield f"begins with {word if word in FRAGMENTS else 'The same'!r}"
    elif not (word[:1].isupper() or word in PROPER_NAMES or word.startswith("`")):
        yield "begins without a capital letter"
    elif (needs_verb or word.startswith("`")) and not has_verb(first_sentence(text)):
        yield "its first sentence has no verb"
    if not text.split("\n\n")[0].rstrip().endswith((".", ".)", ":", "?")):
        yield "its first paragraph does not end with a period"


def public(tree: ast.Module) -> Iterator[tuple[ast.Module | ast.ClassDef | ast.FunctionDef, str]]:
    """Module, public classes, functions and methods that have a docstring, with their names."""
    yield tree, "module"
    stack: list[tuple[ast.Module | ast.ClassDef, str]] = [(tree, "")]
    while stack:
        parent, prefix = stack.pop()
        for node in parent.body:
            is_def = isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            if not is_def or (node.name.startswith("_") and not node.name.endswith("__")):
                continue
            yield node, f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                stack.append((node, f"{prefix}{node.name}."))


def is_function(node: ast.AST) -> bool:
    """Whether it is called: a property is read as a value is, and may be named by a noun."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return False
    return not any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def test_public_docstrings_are_sentences() -> None:
    found = [
        f"{path.relative_to(PROJECT)}:{getattr(node, 'lineno', 1)} {name}: {fault}: {docstring[:60]!r}"
        for package in PACKAGES
        for path in sorted((PROJECT / package).rglob("*.py"))
        for node, name in public(ast.parse(path.read_text(encoding="utf-8")))
        if (docstring := ast.get_docstring(node))
        for fault in faults(docstring, needs_verb=is_function(node))
    ]
    assert not found, "\n".join([f"{len(found)} docstrings are no sentences", *found])


@pytest.mark.parametrize(
    ("docstring", "fault"),
    [
        ("Its seeds depend on this number and the prompt's id.", "begins with 'Its'"),
        ("The same with the media in front.", "begins with 'The same'"),
        ("of the group, in order.", "begins without a capital letter"),
        ("JSON-ready.", "its first sentence has no verb"),
        (
            "A group as arrays, with the advantages (zeros) and what depends on the time of the update.",
            "no verb",
        ),
        ("The alarm on rollout and learner disagreeing, of tokens that the weights wrote.", "no verb"),
        ("The text's sentences, quotations masked.", "no verb"),
        ("`text` without the secrets: services repeat keys.", "no verb"),
        ("Index into `token_ids` to what is due there beside `value`", "does not end with a period"),
        ("Returns the rows\n\nRaises:\n    DataError: no file.", "does not end with a period"),
    ],
)
def test_fragments_are_refused(docstring: str, fault: str) -> None:
    assert any(fault in each for each in faults(docstring, needs_verb=True))


@pytest.mark.parametrize(
    "docstring",
    [
        "Returns the group's arrays.",
        "Converts a group to arrays. `build_batch` adds advantages and everything known only at update time.",
        "Warns or aborts when rollout and learner log-probabilities disagree.",
        "A push is a transaction: an engine is never left between two versions.",
        "A part that fails makes the whole fail.",
        "vLLM finds the plug-in through its installed entry point.",
        "`value` is the mean over the tokens that were written.",
        "All ranks take part.",
        "Scores a group, for instance:\n\n    reward.score(group)",
    ],
)
def test_sentences_are_not(docstring: str) -> None:
    assert list(faults(docstring, needs_verb=True)) == []
