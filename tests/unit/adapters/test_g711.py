"""G.711 against the tables of the Recommendation, and against the standard library where it still has it."""

from __future__ import annotations

import math
import warnings
from array import array

import pytest

from openline.adapters.g711 import G711Codec, Law, codec_of, compress, expand
from openline.adapters.resample import Resampler

LAWS: tuple[Law, ...] = ("pcmu", "pcma")
EVERY_CODE = bytes(range(256))
EVERY_SAMPLE = array("h", range(-32_768, 32_768))


def samples(pcm: bytes) -> array[int]:
    return array("h", pcm)


@pytest.mark.parametrize(
    ("law", "code", "sample"),
    [
        # ITU-T G.711 tables 2a and 2b: 8031 and 0 of 8159, times four.
        ("pcmu", 0x80, 32_124),
        ("pcmu", 0x00, -32_124),
        ("pcmu", 0xFF, 0),
        ("pcmu", 0xFE, 8),
        ("pcmu", 0x7E, -8),
        # ITU-T G.711 tables 1a and 1b: 4032 and 1 of 4096, times eight.
        ("pcma", 0xAA, 32_256),
        ("pcma", 0x2A, -32_256),
        ("pcma", 0xD5, 8),
        ("pcma", 0x55, -8),
    ],
)
def test_the_tables_of_the_recommendation(law: Law, code: int, sample: int) -> None:
    assert list(samples(expand(law, bytes([code])))) == [sample]
    assert compress(law, array("h", [sample]).tobytes()) == bytes([code])


@pytest.mark.parametrize("law", LAWS)
def test_every_code_survives_a_round_trip(law: Law) -> None:
    """Nothing is lost by going through PCM; µ-law's second zero becomes the first."""
    again = compress(law, expand(law, EVERY_CODE))
    different = [code for code in EVERY_CODE if again[code] != code]
    assert different == ([0x7F] if law == "pcmu" else [])


@pytest.mark.parametrize("law", LAWS)
def test_each_sample_gets_a_code_whose_value_is_near(law: Law) -> None:
    heard = samples(expand(law, compress(law, EVERY_SAMPLE.tobytes())))
    for sample, value in zip(EVERY_SAMPLE, heard, strict=True):
        # A step is a sixteenth of its segment's size; half of one is the most that may be wrong.
        allowed = max(8, (abs(sample) + 132) // 32 + 1) if abs(sample) <= 32_635 else 700
        assert abs(sample - value) <= allowed, (sample, value)


@pytest.mark.parametrize("law", LAWS)
def test_the_standard_library_agrees(law: Law) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="removed from Python 3.13")
    into, out_of = (
        (audioop.lin2ulaw, audioop.ulaw2lin) if law == "pcmu" else (audioop.lin2alaw, audioop.alaw2lin)
    )
    assert expand(law, EVERY_CODE) == out_of(EVERY_CODE, 2)
    # It rounds its input down to 14 (13) bits first, so below zero it may be one step off; never above.
    positive = array("h", range(32_768)).tobytes()
    assert compress(law, positive) == into(positive, 2)


def sine(hz: float, seconds: float, rate: int, amplitude: int = 8_000) -> array[int]:
    return array(
        "h", (round(amplitude * math.sin(2 * math.pi * hz * n / rate)) for n in range(int(seconds * rate)))
    )


@pytest.mark.parametrize("law", LAWS)
def test_a_second_in_is_a_second_out_however_it_is_cut(law: Law) -> None:
    codec = G711Codec(law, Resampler)
    data = compress(law, sine(440, 1.0, 8_000).tobytes())
    parts = [codec.decode(data[at : at + 37]) for at in range(0, len(data), 37)]
    whole = b"".join(parts)
    assert 24_000 - 72 <= len(whole) // 2 <= 24_000
    at_once = samples(G711Codec(law, Resampler).decode(data))
    # The filter's blocks fall differently, and with them the last bit of its rounding.
    assert all(abs(a - b) <= 1 for a, b in zip(samples(whole), at_once, strict=False))
    back = b"".join(codec.encode(part) for part in parts)
    back += codec.flush()
    assert abs(len(back) - len(whole) // 6) <= 24, "the filter's own tail comes with the last of it"


@pytest.mark.parametrize("law", LAWS)
def test_a_tone_comes_through_as_itself(law: Law) -> None:
    codec = G711Codec(law, Resampler)
    pcm = codec.decode(compress(law, sine(1_000, 0.5, 8_000).tobytes()))
    heard = samples(pcm)[2_400:9_600]
    turns = [2 * math.pi * n / 24 for n in range(len(heard))]
    # The filter's delay is no whole number of samples: what fits in any phase is the tone, the rest is noise.
    a, b = (
        2 / len(heard) * sum(h * of(t) for h, t in zip(heard, turns, strict=True))
        for of in (math.sin, math.cos)
    )
    noise = sum(
        (h - a * math.sin(t) - b * math.cos(t)) ** 2 for h, t in zip(heard, turns, strict=True)
    ) / len(heard)
    power = (a * a + b * b) / 2
    assert math.hypot(a, b) == pytest.approx(8_000, rel=0.02)
    assert 10 * math.log10(power / noise) > 30, "G.711 itself has about 38 dB"


def test_nothing_encoded_has_nothing_to_flush() -> None:
    assert G711Codec("pcmu", Resampler).flush() == b""


def test_plain_pcm_has_no_codec() -> None:
    make = codec_of(Resampler)
    assert isinstance(make("pcma"), G711Codec)
    with pytest.raises(ValueError, match="PCM16 needs no codec"):
        make("pcm")
