"""The sound of the fake Realtime provider: PCM16 at 24,000 samples a second, or G.711 at 8,000.

Written from ITU-T G.711 for itself: a fault of ``adapters.g711`` must not be here too.
"""

from __future__ import annotations

import struct
from functools import lru_cache

BYTES_PER_MS = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}
QUIET = 500
"""Of 32,767: nothing that a detector takes for speech."""


def _mu(code: int) -> int:
    """A µ-law code's sample: the bits come inverted, a segment doubles the step (tables 2a and 2b)."""
    code ^= 0xFF
    exponent, mantissa = (code & 0x70) >> 4, code & 0x0F
    sample = (((mantissa << 1) + 33) << exponent) - 33 << 2
    return -sample if code & 0x80 else sample


def _a(code: int) -> int:
    """An A-law code's sample: even bits come inverted (tables 1a and 1b)."""
    code ^= 0x55
    exponent, mantissa = (code & 0x70) >> 4, code & 0x0F
    step = (mantissa << 1) + 1
    sample = (step if exponent == 0 else step + 32 << exponent - 1) << 3
    return sample if code & 0x80 else -sample


@lru_cache(maxsize=2)
def _samples(name: str) -> tuple[int, ...]:
    law = _mu if name == "audio/pcmu" else _a
    return tuple(law(code) for code in range(256))


def as_pcm(name: str, data: bytes) -> bytes:
    """PCM16 24 kHz: each sample of G.711 three times, which no ear would like and every detector hears."""
    if name == "audio/pcm":
        return data
    table = _samples(name)
    return b"".join(struct.pack("<h", table[code]) * 3 for code in data)


def quiet_tone(name: str, ms: int) -> bytes:
    """A quiet square wave of 1,000 Hz, which is there at either rate."""
    if name == "audio/pcm":
        return (struct.pack("<h", QUIET) * 12 + struct.pack("<h", -QUIET) * 12) * ms
    table = _samples(name)
    high, low = (min(range(256), key=lambda code: abs(table[code] - wanted)) for wanted in (QUIET, -QUIET))
    return bytes([high] * 4 + [low] * 4) * ms
