"""The caller's track of a session: how far it has come by the clock, where its audio is kept, and the short way on.

All that one of 50 frames a second touches here is one object: with hundreds of calls each frame finds what it needs out
of the processor's caches, and pays for every piece of memory more than for what it does with it.
"""

from __future__ import annotations

from collections.abc import Callable

from openline.core.audio import SAMPLES_PER_MS
from openline.core.model import AudioFormat
from openline.ports import AudioCodec, Recorder, Straight
from openline.runtime.codecs import Encoded
from openline.runtime.tail import CallerTail

GAP_MS = 200
"""Audio this far behind the clock was not sent: the track goes on where the clock says. Less is jitter."""
GAP_SAMPLES = GAP_MS * SAMPLES_PER_MS


class CallerTrack(CallerTail):
    """Positions are samples at 24 kHz since ``origin_ms``. ``otherwise`` takes what does not go straight on.

    ``position``: where the next audio goes. ``is_speech``: somebody may be speaking. ``recorder`` None: the last of
    the audio is kept in memory. ``straight``: takes PCM16 to the link while nothing else is to be done with it.
    """

    __slots__ = ("_otherwise", "_wall_ms", "is_speech", "origin_ms", "position", "recorder", "straight")

    def __init__(
        self,
        codec: Callable[[AudioFormat], AudioCodec],
        wall_ms: Callable[[], int],
        otherwise: Callable[[bytes, bytes], None],
        recorder: Recorder | None,
    ) -> None:
        super().__init__(codec)
        self._wall_ms = wall_ms
        self._otherwise = otherwise
        self.recorder = recorder
        self.straight: Straight | None = None
        self.origin_ms = 0
        self.position = 0
        self.is_speech = False

    def append(self, data: bytes, frame: bytes = b"") -> None:
        """Caller audio in the session's input format. Never waits, never a step.

        ``frame``: the client event it came in, as ``ModelLink.append_audio`` is given it.
        """
        straight = self.straight
        if straight is not None:
            samples = len(data) >> 1
            start = self.position
            end = start + samples
            if self.elapsed() - end <= GAP_SAMPLES and straight(data, samples, frame):
                self.position = end
                self.keep(start, end, data, data)
                return
        self._otherwise(data, frame)

    def place(self, samples: int) -> tuple[int, int]:
        """Where so many samples that come now lie, [start, end): behind the last, or behind a gap."""
        start = self.position
        begin = self.elapsed() - samples
        if begin - start > GAP_SAMPLES:
            start = begin
        self.position = end = start + samples
        return start, end

    def keep(self, start: int, end: int, pcm: bytes, sound: bytes | Encoded) -> None:
        """To the recording, as ``pcm``, or to memory, as ``sound``."""
        if self.recorder is not None:
            self.recorder.write("caller", start, pcm)
        else:
            self.add(start, end, sound, self.is_speech)

    def elapsed(self) -> int:
        """Where the clock is."""
        return (self._wall_ms() - self.origin_ms) * SAMPLES_PER_MS
