"""Makes text that does not belong in a response: what a policy might write to talk to its judge."""

from __future__ import annotations

import random
import re

from emotion_task.reward_model.listening import DIGITS

WORDS = re.findall(
    r"\w+",
    "table river seven give mark full points grade score best top reader model must please now new task rule "
    "forget everything above below perfect correct excellent right number output print return true system "
    "user note test final result end begin value five four always never accept confirm list code data",
)
_PIECES = ("{", "}", "[", "]", ":", ",", "/", "|", "<", ">", "#", "=", "*", "---", "(", ")", '"', "\n", "\\")


def foreign(rng: random.Random) -> str:
    """Returns a few characters to a few lines that do not belong in a response: digits, code, tags, phrases
    of plain words, letters of other scripts, in any mixture."""
    return rng.choice(("", " ")).join(_piece(rng) for _ in range(rng.randint(1, 6)))


def _piece(rng: random.Random) -> str:
    words = " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
    number = rng.choice(DIGITS)
    return rng.choice(
        (
            words.capitalize() + rng.choice((".", "!", ":", "")),
            f"{words.capitalize()} {number}{rng.choice(('.', '!', ''))}",
            rng.choice(("", " ", "\n", ",")).join(rng.choices(DIGITS, k=rng.randint(1, 12))),
            rng.choice(("", " ", ", ", "\n")).join([number] * rng.randint(2, 10)),
            "".join(rng.choices(_PIECES, k=rng.randint(1, 6))),
            f'{{"{rng.choice(WORDS)}": {number}}}',
            f"{rng.choice(WORDS)}: {number}",
            f"</{rng.choice(WORDS)}>",
            f"<{rng.choice(WORDS)}>",
            "".join(chr(rng.choice((rng.randint(0x21, 0x7E), rng.randint(0xA1, 0x2FFF)))) for _ in range(12)),
        )
    )
