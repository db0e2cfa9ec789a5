"""Audio formats of the upstream link: what may be asked for, the arithmetic of each, the way between two.

A client's G.711 goes through as it is where the provider takes it. Where it does not, audio is PCM16 there and is
transcoded; the caller hears no difference, and the log says so once for each link.
"""

from __future__ import annotations

import logging
from typing import Literal

from openline.core.audio import BYTES_PER_MS
from openline.core.model import AudioFormat, SessionConfig
from openline.core.value import replace
from openline.ports import AudioCodec, CodecFactory

log = logging.getLogger("openline.link")

_SILENCE: dict[AudioFormat, bytes] = {"pcm": b"\x00", "pcmu": b"\xff", "pcma": b"\xd5"}
"""Zero in each law (ITU-T G.711, tables 1a and 2a)."""
Side = Literal["input", "output"]
_SIDES: tuple[Side, Side] = ("input", "output")


def silence(name: AudioFormat, ms: int) -> bytes:
    return _SILENCE[name] * (ms * BYTES_PER_MS[name])


class Formats:
    """What one link asks its provider for. ``make`` None: nothing but PCM16, for nobody could transcode it after a
    refusal. A format that was refused is not asked for again in the link's life. ``where`` names the provider."""

    __slots__ = ("_make", "_refused", "_where")

    def __init__(self, make: CodecFactory | None, where: str) -> None:
        self._make = make
        self._where = where
        self._refused: set[tuple[Side, AudioFormat]] = set()

    @property
    def can_transcode(self) -> bool:
        return self._make is not None

    def wanted(self, config: SessionConfig) -> SessionConfig:
        """``config`` with the formats that the provider may be asked for."""
        heard, said = self._may("input", config.input_format), self._may("output", config.output_format)
        if heard == config.input_format and said == config.output_format:
            return config
        return replace(config, input_format=heard, output_format=said)

    def _may(self, side: Side, name: AudioFormat) -> AudioFormat:
        return "pcm" if self._make is None or (side, name) in self._refused else name

    def refuse_all(
        self,
        asked: tuple[AudioFormat, AudioFormat],
        param: str = "",
        *,
        but: tuple[AudioFormat, AudioFormat] = ("pcm", "pcm"),
    ) -> bool:
        """The provider does not do what it was asked: on the side that ``param`` names, if it names one. ``but``: it
        does so much. False: there was nothing to refuse."""
        named = [side for side in _SIDES if side in param] or _SIDES
        refused = [
            (side, name)
            for side, name, taken in zip(_SIDES, asked, but, strict=True)
            if side in named and name != taken
        ]
        for side, name in refused:
            if (side, name) not in self._refused:
                self._refused.add((side, name))
                log.warning("%s: does not take '%s' as its %s; it is transcoded", self._where, name, side)
        return bool(refused)

    def codec(self, name: AudioFormat) -> AudioCodec:
        assert self._make is not None, "expected codecs where G.711 was asked for"
        return self._make(name)


class Transcoder:
    """A stream of audio from whatever it is in to what is wanted now. Each pair of formats has its filters' memory
    (some milliseconds), and begins anew when the pair changes."""

    __slots__ = ("_formats", "_from", "_pair", "_to")

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._pair: tuple[AudioFormat, AudioFormat] = ("pcm", "pcm")
        self._from: AudioCodec | None = None
        self._to: AudioCodec | None = None

    def convert(self, given: AudioFormat, wanted: AudioFormat, data: bytes) -> bytes:
        if given == wanted:
            return data
        if self._pair != (given, wanted):
            self._pair = (given, wanted)
            self._from = None if given == "pcm" else self._formats.codec(given)
            self._to = None if wanted == "pcm" else self._formats.codec(wanted)
        pcm = data if self._from is None else self._from.decode(data)
        return pcm if self._to is None else self._to.encode(pcm)

    def whole(self, wanted: AudioFormat, pcm: bytes) -> bytes:
        """All of a recording at once, to its last sample."""
        if wanted == "pcm":
            return pcm
        codec = self._formats.codec(wanted)
        return codec.encode(pcm) + codec.flush()
