"""Tools by which a policy checks a recording before it claims: an environment for `rollout.environment`.

Without a place, a tool says what annotation measured of the whole utterance, in the words of the manifest's
levels. With one, a word or seconds, it measures that part anew, in physical units.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from emotion_task.prosody.activity import FRAME_S, Activity, find_activity
from emotion_task.prosody.audio import load_audio
from emotion_task.prosody.f0 import F0Track, track_f0
from emotion_task.prosody.syllables import count_nuclei
from emotion_task.records import read_manifest
from rlcore.environments import BadCallError, Tools
from rlcore.errors import DataError
from rlcore.types import Prompt

_RATE = 16000
_MIN_SECONDS, _MIN_VOICED_FRAMES = 0.05, 3


class VoiceTools(Tools):
    """Measures the recording of a prompt of `emotion_task.task:EmotionTask`.

        <tool>pitch</tool>               <result>high</result>
        <tool>pitch 0.4 0.9</tool>       <result>212 Hz, 3 st above the whole</result>
        <tool>energy never</tool>        <result>4 dB above the whole</result>
        <tool>listen never</tool>        <result>pitch ..., energy ..., rate ...</result>
        <tool>transcribe</tool>          <result>I never said that</result>

    Seconds count from the start of the file.

    Args:
        manifest: the task's, for the times of words where an aligner found them; without it a place is
            seconds.
    """

    tools = ("pitch", "energy", "rate", "intonation", "listen", "transcribe")

    def __init__(self, manifest: str | None = None):
        self._words: dict[str, list[tuple[str, float, float]]] = {}
        for utterance in read_manifest(manifest) if manifest is not None else ():
            times = (utterance.measured or {}).get("word_times") or ()
            self._words[utterance.id] = [(str(w), float(a), float(b)) for w, a, b in times]

    def pitch(self, prompt: Prompt, start: str = "", end: str = "") -> str:
        """Returns the median F0 of a place in Hz, and in semitones against the whole, or `none`."""
        if not start:
            return _level(prompt, "pitch_level")
        track, (a, b) = _sound(prompt).track, self._place(prompt, start, end)
        inside = track.hertz[(track.times >= a) & (track.times < b) & (track.hertz > 0)]
        if len(inside) < _MIN_VOICED_FRAMES:
            return "none"
        hertz = float(np.median(inside))
        semitones = 12 * np.log2(hertz / np.median(track.hertz[track.hertz > 0]))
        return f"{hertz:.0f} Hz, {_against(semitones, 'st')}"

    def energy(self, prompt: Prompt, start: str = "", end: str = "") -> str:
        """Returns the level of a place in dB against the utterance's speech."""
        if not start:
            return _level(prompt, "energy_level")
        sound, (a, b) = _sound(prompt), self._place(prompt, start, end)
        samples = sound.waveform[int(a * _RATE) : int(b * _RATE)].astype(np.float64)
        decibels = 10 * np.log10(np.mean(samples**2) + 1e-12) - sound.activity.level_dbfs
        return _against(decibels, "dB")

    def rate(self, prompt: Prompt, start: str = "", end: str = "") -> str:
        """Returns the syllables per second of a place, by the peaks of its energy."""
        if not start:
            return _level(prompt, "speed_level")
        activity, (a, b) = _sound(prompt).activity, self._place(prompt, start, end)
        frames = slice(int(a / FRAME_S), int(b / FRAME_S))
        count = count_nuclei(activity.frame_db[frames], activity.active[frames], None)
        return f"{count / (b - a):.1f} syllables per second"

    def intonation(self, prompt: Prompt) -> str:
        """Returns the contour of the utterance."""
        return _level(prompt, "intonation")

    def listen(self, prompt: Prompt, start: str, end: str = "") -> str:
        """Returns all that can be measured of a place: the nearest to hearing it again."""
        measures = {"pitch": self.pitch, "energy": self.energy, "rate": self.rate}
        return ", ".join(f"{name} {measure(prompt, start, end)}" for name, measure in measures.items())

    def transcribe(self, prompt: Prompt) -> str:
        """Returns the words, where the manifest has them."""
        text = prompt.reference.get("text")
        if not text:
            raise BadCallError("no transcript")
        return str(text)

    def _place(self, prompt: Prompt, start: str, end: str) -> tuple[float, float]:
        """Seconds of a word, or from `start` to `end`, within the recording."""
        if end:
            try:
                first, last = float(start), float(end)
            except ValueError:
                raise BadCallError("a place is a word, or two numbers of seconds") from None
        else:
            times = self._words.get(prompt.id, ())
            said = [(a, b) for word, a, b in times if start.lower() in word.lower().split()]
            if not said:
                raise BadCallError("no such word" if times else "no word has a time; give seconds")
            first, last = said[0]
        duration = len(_sound(prompt).waveform) / _RATE
        if not (first >= 0 and first + _MIN_SECONDS <= last <= duration + _MIN_SECONDS):
            raise BadCallError(f"seconds go from 0 to {duration:.2f}")
        return first, min(last, duration)


class _Sound:
    """One recording, measured once."""

    def __init__(self, path: str):
        self.waveform = load_audio(path, _RATE)
        samples = self.waveform.astype(np.float64)
        activity = find_activity(samples - samples.mean(), _RATE)
        if activity is None:
            raise DataError(f"{path}: no speech stands out of the background")
        self.activity: Activity = activity
        self.track: F0Track = track_f0(samples, _RATE)


@lru_cache(maxsize=256)
def _measured(path: str) -> _Sound:
    return _Sound(path)


def _sound(prompt: Prompt) -> _Sound:
    return _measured(str(prompt.media["audio"]))


def _level(prompt: Prompt, name: str) -> str:
    """What annotation found; nothing is guessed."""
    return str(prompt.reference.get(name) or "unknown")


def _against(difference: float, unit: str) -> str:
    side = "above" if difference >= 0 else "below"
    return f"{abs(difference):.0f} {unit} {side} the whole"
