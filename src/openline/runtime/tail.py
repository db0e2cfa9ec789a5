"""The last of the caller's audio, kept where nothing records it: what a new link must hear again.

A moment while nobody speaks (a model says late that speech began, and where), the open utterance while somebody
does. With recording on it is read from the recording, and none of this is kept.
"""

from __future__ import annotations

from collections import deque

IDLE_MS = 1_000
"""DESIGN §4: at most a second of audio in memory; it covers the padding and the time until speech is reported."""
SPOKEN_MS = 31_000
"""Half a minute of an utterance (DESIGN §5) with what comes before it: 1.5 MB, for the one who speaks."""
SAMPLES_PER_MS = 24
IDLE_SAMPLES, SPOKEN_SAMPLES = IDLE_MS * SAMPLES_PER_MS, SPOKEN_MS * SAMPLES_PER_MS


class CallerTail:
    """PCM16 24 kHz by its place on the caller's track (samples)."""

    __slots__ = ("_complete_from", "_frames", "_samples")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, bytes]] = deque()
        self._samples = 0
        self._complete_from = 0
        """From here on everything that came is kept."""

    def add(self, start: int, pcm: bytes, is_speech: bool) -> None:
        self._frames.append((start, pcm))
        samples = self._samples + (len(pcm) >> 1)
        if samples > IDLE_SAMPLES and not (is_speech and samples <= SPOKEN_SAMPLES):
            samples = self._trim(samples, SPOKEN_SAMPLES if is_speech else IDLE_SAMPLES)
        self._samples = samples

    def _trim(self, samples: int, limit: int) -> int:
        frames = self._frames
        while samples > limit:
            first, dropped = frames.popleft()
            size = len(dropped) >> 1
            samples -= size
            self._complete_from = first + size
        return samples

    @property
    def kept_from(self) -> int:
        return self._complete_from

    def read(self, start: int, end: int) -> bytes:
        """[start, end) of the track, silence where nothing was sent; b"" if some of it is kept no more."""
        if start < self._complete_from or end <= start:
            return b""
        out = bytearray(2 * (end - start))
        for first, pcm in self._frames:
            low, high = max(start, first), min(end, first + len(pcm) // 2)
            if low < high:
                out[2 * (low - start) : 2 * (high - start)] = pcm[2 * (low - first) : 2 * (high - first)]
        return bytes(out)
