"""The audio formats of one session's line: what the speaker sends and is sent, and what its model link does.

Between them all audio is PCM16 at 24 kHz; where both ends have the same format nothing is touched. Each use has
a codec of its own, because each is a stream with a filter's memory. A use whose format changes begins anew.
"""

from __future__ import annotations

from typing import NamedTuple

from openline.core.audio import CODED_SAMPLES
from openline.core.model import AudioFormat
from openline.ports import AudioCodec, CodecFactory
from openline.types import ItemId

USES_MAX = 32
"""Streams at once: three of the line and two for each item that is being said, with room for what was cut."""


class Encoded(NamedTuple):
    """Caller audio as it came, in a format other than "pcm"."""

    format: AudioFormat
    data: bytes

    @property
    def samples(self) -> int:
        """How far it moves the track, at 24 kHz."""
        return CODED_SAMPLES * len(self.data)


class Codecs:
    """``make`` None: this gateway has no codecs, and was asked for none."""

    def __init__(self, make: CodecFactory | None) -> None:
        self._make = make
        self._uses: dict[tuple[str, str], tuple[AudioFormat, AudioCodec]] = {}

    def _use(self, what: str, item: str, name: AudioFormat) -> AudioCodec:
        known = self._uses.get((what, item))
        if known is None or known[0] != name:
            known = (name, self.fresh(name))
            self._uses[what, item] = known
            if len(self._uses) > USES_MAX:
                # Items that were cleared say no last word; theirs are the oldest.
                del self._uses[next(use for use in self._uses if use[1])]
        return known[1]

    def fresh(self, name: AudioFormat) -> AudioCodec:
        assert self._make is not None, f"expected a gateway with codecs for '{name}'"
        return self._make(name)

    def from_caller(self, name: AudioFormat, data: bytes) -> bytes:
        return self._use("caller", "", name).decode(data)

    def pass_caller(self) -> None:
        """The caller's audio goes by as it is: what a decoder still holds of it is too old to come later."""
        self._uses.pop(("caller", ""), None)

    def to_link(self, name: AudioFormat, pcm: bytes) -> bytes:
        """What a link takes that takes neither PCM16 nor what the caller sends."""
        return self._use("link", "", name).encode(pcm)

    def last_to_link(self) -> bytes:
        """What the encoder of ``to_link`` still holds; what comes next is a stream of its own."""
        last = self._uses.pop(("link", ""), None)
        return last[1].flush() if last is not None else b""

    def to_listener(self, item: ItemId, given: AudioFormat, wanted: AudioFormat, data: bytes) -> bytes:
        """A piece of an item's audio, from the link's format to the listener's."""
        if given == wanted:
            return data
        pcm = data if given == "pcm" else self._use("from", item, given).decode(data)
        return pcm if wanted == "pcm" else self._use("to", item, wanted).encode(pcm)

    def last_of(self, item: ItemId) -> bytes:
        """Nothing more comes of the item: what its encoder still held (a few milliseconds)."""
        self._uses.pop(("from", item), None)
        last = self._uses.pop(("to", item), None)
        return last[1].flush() if last is not None else b""

    def to_tape(self, name: AudioFormat, data: bytes) -> bytes:
        """What was played, as the recording keeps it."""
        return data if name == "pcm" else self._use("tape", "", name).decode(data)
