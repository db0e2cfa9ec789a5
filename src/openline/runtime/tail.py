"""The last of the caller's audio, kept where nothing records it: what a new link must hear again.

A moment while nobody speaks (a model says late that speech began, and where), the open utterance while somebody
does. With recording on it is read from the recording, and none of this is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

from openline.core.audio import SAMPLES_PER_MS
from openline.core.model import AudioFormat
from openline.ports import AudioCodec
from openline.runtime.codecs import Encoded

IDLE_MS = 1_000
"""DESIGN §4: at most a second of audio in memory; it covers the padding and the time until speech is reported."""
SPOKEN_MS = 31_000
"""Half a minute of an utterance (DESIGN §5) with what comes before it: 1.5 MB, for the one who speaks."""
IDLE_SAMPLES, SPOKEN_SAMPLES = IDLE_MS * SAMPLES_PER_MS, SPOKEN_MS * SAMPLES_PER_MS


class CallerTail:
    """PCM16 24 kHz, or audio as it came, by its place on the caller's track (samples). ``codec`` makes one."""

    __slots__ = ("_codec", "_complete_from", "_end", "_first", "_frames", "_samples")

    def __init__(self, codec: Callable[[AudioFormat], AudioCodec]) -> None:
        self._codec = codec
        # Where a frame lies follows from those before it: a place kept with each would be two objects more, and what
        # is a second old has long left the caches when it is let go.
        self._frames: deque[bytes | Encoded | int] = deque()
        """Oldest first; a number: so many samples in which nothing came."""
        self._first = self._end = 0
        self._samples = 0
        self._complete_from = 0
        """From here on everything that came is kept."""

    def add(self, start: int, end: int, sound: bytes | Encoded, is_speech: bool) -> None:
        """``sound`` is [start, end) of the track, behind all that came before."""
        if start != self._end:
            self._frames.append(start - self._end)
        self._end = end
        self._frames.append(sound)
        samples = self._samples + end - start
        if samples > IDLE_SAMPLES and not (is_speech and samples <= SPOKEN_SAMPLES):
            samples = self._trim(samples, SPOKEN_SAMPLES if is_speech else IDLE_SAMPLES)
        self._samples = samples

    def _trim(self, samples: int, limit: int) -> int:
        while samples > limit:
            size = _samples(dropped := self._frames.popleft())
            self._first += size
            if type(dropped) is not int:
                samples -= size
                self._complete_from = self._first
        return samples

    @property
    def kept_from(self) -> int:
        return self._complete_from

    def read(self, start: int, end: int) -> bytes:
        """[start, end) of the track, silence where nothing was sent; b"" if some of it is kept no more."""
        if start < self._complete_from or end <= start:
            return b""
        out = bytearray(2 * (end - start))
        for first, pcm in self._decoded(start, end):
            low, high = max(start, first), min(end, first + len(pcm) // 2)
            if low < high:
                out[2 * (low - start) : 2 * (high - start)] = pcm[2 * (low - first) : 2 * (high - first)]
        return bytes(out)

    def _decoded(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What lies in [start, end) as PCM16. What came without a gap is decoded as one stream, which may end up to
        3 ms early: a filter's rest."""
        codec: AudioCodec | None = None
        name, place, at, behind = "pcm", 0, 0, self._first
        for sound in self._frames:
            first, behind = behind, behind + _samples(sound)
            if isinstance(sound, int) or behind <= start or first >= end:
                continue
            if not isinstance(sound, Encoded):
                codec = None
                yield first, sound
                continue
            if codec is None or sound.format != name or first != place:
                codec, name, at = self._codec(sound.format), sound.format, first
            place = behind
            pcm = codec.decode(sound.data)
            yield at, pcm
            at += len(pcm) >> 1


def _samples(sound: bytes | Encoded | int) -> int:
    if type(sound) is bytes:
        return len(sound) >> 1
    return sound if isinstance(sound, int) else cast("Encoded", sound).samples
