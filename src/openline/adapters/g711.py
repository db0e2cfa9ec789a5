"""G.711, the audio of telephones: µ-law and A-law at 8,000 samples a second, to and from PCM16 at 24,000.

The laws are those of ITU-T Recommendation G.711 (11/1988), tables 1a to 2b: eight segments, each twice as coarse
as the one before it, of sixteen steps each. No third party: both ways are table look-ups, made once (the way
up has 65,536 rows, 64 KiB a law).

Rates are changed by a factor of three exactly, so positions on a track are counted in whole samples at either
rate. The resampler is given (``adapters.resample.Resampler`` in production): adapters do not know each other.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from openline.core.model import AudioFormat
from openline.ports import WIRE_RATE, AudioCodec, Resample

RATE = 8_000
"""Samples (and bytes) a second, by the Recommendation."""
Law = Literal["pcmu", "pcma"]

MU_BIAS = 132
"""33 on the Recommendation's 14-bit scale, here on 16 bits: it makes the segments' borders powers of two."""
MU_CLIP = 32_635
"""The loudest sample that has a code of its own; louder ones get the same."""


def _mu_value(code: int) -> int:
    """µ-law: bits are sent inverted; sign, three bits of segment, four of step (G.711 §3.2)."""
    inverted = ~code & 0xFF
    segment, step = inverted >> 4 & 7, inverted & 0x0F
    magnitude = ((step << 3) + MU_BIAS << segment) - MU_BIAS
    return -magnitude if inverted & 0x80 else magnitude


def _mu_code(sample: int) -> int:
    sign = 0x80 if sample < 0 else 0
    magnitude = min(abs(sample), MU_CLIP) + MU_BIAS
    segment = magnitude.bit_length() - 8
    return ~(sign | segment << 4 | magnitude >> segment + 3 & 0x0F) & 0xFF


def _a_value(code: int) -> int:
    """A-law: every other bit is sent inverted (0x55); the sign bit is 1 for positive values (G.711 §3.1)."""
    plain = code ^ 0x55
    segment, step = plain >> 4 & 7, plain & 0x0F
    magnitude = (step << 4) + 8 if segment == 0 else (step << 4) + 264 << segment - 1
    return magnitude if plain & 0x80 else -magnitude


def _a_code(sample: int) -> int:
    sign = 0x80 if sample >= 0 else 0
    # Below zero the steps mirror those above it: -1 is the first step down as 0 is the first step up.
    magnitude = sample if sample >= 0 else -sample - 1
    segment = max(0, magnitude.bit_length() - 8)
    step = magnitude >> (4 if segment == 0 else segment + 3) & 0x0F
    return (sign | segment << 4 | step) ^ 0x55


@lru_cache(maxsize=2)
def _tables(law: Law) -> tuple[tuple[int, ...], bytes]:
    """By code its sample; by sample (as an unsigned 16-bit number) its code."""
    value, code = (_mu_value, _mu_code) if law == "pcmu" else (_a_value, _a_code)
    signed = (number - 65_536 if number > 32_767 else number for number in range(65_536))
    return tuple(value(number) for number in range(256)), bytes(code(number) for number in signed)


def expand(law: Law, data: bytes) -> bytes:
    """Codes to PCM16 at the same rate. 20 ms take about 10 µs."""
    samples = array("h", map(_tables(law)[0].__getitem__, data))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def compress(law: Law, pcm: bytes) -> bytes:
    """PCM16 to codes at the same rate."""
    samples = array("H", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return bytes(map(_tables(law)[1].__getitem__, samples))


class G711Codec(AudioCodec):
    """``ports.AudioCodec`` of one law. Each way is a stream of its own with a filter's memory (0.8 to 3.8 ms)."""

    def __init__(self, law: Law, make_resampler: Callable[[int, int], Resample]) -> None:
        self._law: Law = law
        self._make = make_resampler
        self._up: Resample | None = None
        self._down: Resample | None = None

    def decode(self, data: bytes) -> bytes:
        if self._up is None:
            self._up = self._make(RATE, WIRE_RATE)
        return self._up.convert(expand(self._law, data))

    def encode(self, pcm: bytes) -> bytes:
        if self._down is None:
            self._down = self._make(WIRE_RATE, RATE)
        return compress(self._law, self._down.convert(pcm))

    def flush(self) -> bytes:
        return compress(self._law, self._down.flush()) if self._down is not None else b""


def codec_of(make_resampler: Callable[[int, int], Resample]) -> Callable[[AudioFormat], AudioCodec]:
    """``ports.CodecFactory`` over a resampler. Raises ValueError for plain PCM, which has no codec."""

    def make(name: AudioFormat) -> AudioCodec:
        if name == "pcm":
            raise ValueError("expected pcmu or pcma; PCM16 needs no codec")
        return G711Codec(name, make_resampler)

    return make
