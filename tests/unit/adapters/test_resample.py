"""The converter: right length, right pitch, no fold-over, no click, and the same with and without numpy."""

from __future__ import annotations

import cmath
import importlib.util
import math
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openline.adapters.resample import Resampler
from openline.testing.speech import samples_of, tone

BACKENDS = ["python"] + (["numpy"] if importlib.util.find_spec("numpy") else [])
PAIRS = [(24_000, 16_000), (22_050, 24_000), (8_000, 16_000), (48_000, 24_000)]


def level_db(pcm: bytes, frequency_hz: float, rate: int) -> float:
    """Strength of one frequency against a full-scale sine, Hann-windowed so that borders do not leak."""
    samples = samples_of(pcm)
    count = len(samples)
    total = sum(
        sample * (1 - math.cos(2 * math.pi * n / count)) * cmath.exp(-2j * math.pi * frequency_hz * n / rate)
        for n, sample in enumerate(samples)
    )
    return 20 * math.log10(abs(total) * 2 / count / 32767 + 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_tone_keeps_its_pitch_and_level(source: int, target: int, backend: str) -> None:
    resampler = Resampler(source, target, backend=backend)
    out = resampler.convert(tone(1_000, 200, rate=source, amplitude=16_384))
    steady = out[len(out) // 4 : len(out) // 4 + 2 * (target // 10)]
    assert level_db(steady, 1_000, target) == pytest.approx(-6.0, abs=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_would_fold_back_is_60_db_down(backend: str) -> None:
    """9 kHz at 24,000 would be heard at 7 kHz after plain decimation to 16,000."""
    out = Resampler(24_000, 16_000, backend=backend).convert(tone(9_000, 150, rate=24_000, amplitude=32_000))
    steady = out[640 : 640 + 3_200]
    assert level_db(steady, 7_000, 16_000) < -60
    assert max(abs(sample) for sample in samples_of(steady)) < 33


@pytest.mark.parametrize("backend", BACKENDS)
def test_20_ms_in_is_20_ms_out_from_the_first_frame_on(backend: str) -> None:
    resampler = Resampler(24_000, 16_000, backend=backend)
    assert [len(resampler.convert(bytes(960))) for _ in range(5)] == [640] * 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
@given(cuts=st.lists(st.integers(0, 3_000), max_size=12))
@settings(max_examples=15)
def test_however_it_is_cut_the_result_is_the_same(
    source: int, target: int, backend: str, cuts: list[int]
) -> None:
    """Odd cuts too: half a sample waits for its other half."""
    pcm = tone(700, 40, rate=source, amplitude=20_000)
    whole = Resampler(source, target, backend=backend)
    expected = samples_of(whole.convert(pcm) + whole.flush())
    pieces = Resampler(source, target, backend=backend)
    out = b""
    rest = pcm
    for cut in cuts:
        out += pieces.convert(rest[:cut])
        rest = rest[cut:]
    out += pieces.convert(rest) + pieces.flush()
    got = samples_of(out)
    assert len(got) == len(expected)
    # One unit apart at most: a matrix product of another shape may add in another order.
    assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) <= 1


@pytest.mark.skipif(len(BACKENDS) < 2, reason="numpy is not installed (extra 'speech')")
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_numpy_and_python_agree_to_the_last_unit(source: int, target: int) -> None:
    pcm = tone(440, 50, rate=source, amplitude=32_767) + array("h", [32_767, -32_768] * 200).tobytes()
    one, other = (Resampler(source, target, backend=backend) for backend in BACKENDS)
    got, expected = samples_of(one.convert(pcm) + one.flush()), samples_of(other.convert(pcm) + other.flush())
    assert len(got) == len(expected)
    assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_flush_gives_the_end_and_starts_anew(backend: str) -> None:
    resampler = Resampler(22_050, 24_000, backend=backend)
    first = resampler.convert(tone(500, 30, rate=22_050)) + resampler.flush()
    again = resampler.convert(tone(500, 30, rate=22_050)) + resampler.flush()
    assert first == again
    # 30 ms and the filter's delay, to within a sample.
    assert len(first) // 2 == pytest.approx((30 + resampler.delay_ms) * 24, abs=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_scale_noise_is_held_at_the_limits(backend: str) -> None:
    loud = array("h", [32_767] * 400 + [-32_768] * 400).tobytes()
    out = samples_of(Resampler(24_000, 16_000, backend=backend).convert(loud))
    assert (max(out), min(out)) == (32_767, -32_768)


def test_the_same_rate_passes_through_untouched() -> None:
    resampler = Resampler(16_000, 16_000)
    assert resampler.convert(b"abc") == b"abc"
    assert resampler.flush() == b""


def test_rates_and_backends_are_checked() -> None:
    with pytest.raises(ValueError, match="two positive rates"):
        Resampler(0, 16_000)
    with pytest.raises(ValueError, match="expected auto, numpy or python"):
        Resampler(24_000, 16_000, backend="scipy")
