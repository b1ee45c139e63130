"""Defines rewards that misbehave as users' rewards do, as the completions' text says. Ray's workers import
them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
import wave

from rlcore.rewards import Reward, Score
from rlcore.types import Prompt


def act(text: str) -> float:
    """Returns the text's length, for `sleep SECONDS` later. Faults are `raise`, `hang`, `kill`, `nan`; and,
    the first time, `once:FILE` (killed), `stop:FILE` (stopped) and `lock:FILE` (keeps Python's lock)."""
    if text == "raise":
        raise KeyError("no such key")
    if text == "hang":
        time.sleep(3600)
    if text.startswith("sleep "):
        time.sleep(float(text.removeprefix("sleep ")))
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    fault, _, marker = text.partition(":")
    if marker and not os.path.exists(marker):
        open(marker, "w").close()
        if fault == "lock":
            ctypes.PyDLL(None).sleep(3600)
        os.kill(os.getpid(), signal.SIGSTOP if fault == "stop" else signal.SIGKILL)
    return float("nan") if text == "nan" else float(len(text))


class Scripted(Reward):
    def __init__(self, scale: float = 1.0):
        self.scale = scale

    def score(self, group, context):
        scores = [Score(self.scale * act(c.text), parts={"pid": os.getpid()}) for c in group.completions]
        return scores[:-1] if group.completions[0].text == "short" else scores


class Batched(Scripted):
    def score_batch(self, groups, context):
        return [self.score(group, context) for group in groups]


def words(prompt, completion, context, scale=1):
    if completion.text == "raise":
        raise ValueError("unreadable")
    return scale * len(completion.text.split()) + context.step


in_flight = most_in_flight = 0


async def slowly(completion):
    """Returns a score whose part says how many completions have been waited for at the same time."""
    global in_flight, most_in_flight
    in_flight += 1
    most_in_flight = max(most_in_flight, in_flight)
    await asyncio.sleep(0.2)
    in_flight -= 1
    return Score(len(completion.text), parts={"most_in_flight": most_in_flight})


def ranked(group):
    """Returns scores that depend on the other completions of the group."""
    order = sorted(len(c.text) for c in group.completions)
    return [order.index(len(c.text)) for c in group.completions]


def in_time(completion):
    """Returns the seconds that its alarm has left, as rewards ask for that must not take long."""
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.alarm(60)
    return signal.alarm(0)


def environment(completion):
    return float(os.environ["A_SETTING"])


class Unbuildable(Reward):
    def __init__(self):
        raise OSError("no such weights")


class DiesThenFails(Reward):
    """Starts once, dies when it scores, and never starts again."""

    def __init__(self, marker: str):
        if os.path.exists(marker):
            raise OSError("the weights are gone")
        self.marker = marker

    def score(self, group, context):
        open(self.marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


class HangsOnce(Reward):
    """Gives no answer to the first call of all, and good ones ever after."""

    def __init__(self, marker: str):
        self.marker = marker

    def score(self, group, context):
        if not os.path.exists(self.marker):
            open(self.marker, "w").close()
            time.sleep(3600)
        return [Score(float(len(c.text))) for c in group.completions]


class Recordings:
    """A task whose prompts have a recording each, as `rlcore reward check --config` asks for them."""

    def __init__(self, audio: str):
        self.audio = audio

    def prompts(self, split):
        return [Prompt(id=f"{split}{i}", text="", media={"audio": self.audio}) for i in range(40)]


def heard(prompt, completion):
    """Returns the seconds of the prompt's recording for each letter of the answer."""
    with wave.open(prompt.media["audio"]) as audio:
        return audio.getnframes() / audio.getframerate() * len(completion.text)
