"""A speaker classifier that ends its process at one pitch, for tests of files that kill their worker."""

from __future__ import annotations

import os
import signal

from emotion_task.prosody.speaker import SpeakerTraits


class Deadly:
    """A classifier with a fault in its native code, at one pitch."""

    def classify(self, waveform, sample_rate, measurement):
        if 295 < measurement.f0_median_hz < 305:
            os.kill(os.getpid(), signal.SIGKILL)
        return SpeakerTraits(age_years=os.getppid() / 2**16)  # of the raylet: tells the nodes apart
