"""WAV files as people have them, and the errors for those that are none."""

from __future__ import annotations

import math
import wave
from array import array
from pathlib import Path

import pytest

from openline.cli.audio import read_wav, to_wire_rate, write_wav
from openline.errors import ConfigError


def tone(rate: int, ms: int, hz: int = 440) -> array[int]:
    return array("h", (round(8000 * math.sin(2 * math.pi * hz * n / rate)) for n in range(rate * ms // 1000)))


def write(path: Path, samples: array[int], rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_any_rate_becomes_24_kHz_of_the_same_length_and_pitch(tmp_path: Path, rate: int) -> None:
    pcm = array("h", read_wav(write(tmp_path / "a.wav", tone(rate, 500), rate)))
    assert abs(len(pcm) - 12_000) <= 1
    crossings = sum(1 for a, b in zip(pcm, pcm[1:], strict=False) if a < 0 <= b)
    assert abs(crossings - 220) <= 2


def test_stereo_is_averaged(tmp_path: Path) -> None:
    both = array("h", (value for _ in range(240) for value in (100, 300)))
    assert array("h", read_wav(write(tmp_path / "s.wav", both, 24_000, 2))) == array("h", [200] * 240)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pcm = tone(24_000, 50).tobytes()
    write_wav(tmp_path / "out.wav", pcm)
    assert read_wav(tmp_path / "out.wav") == pcm


def test_nothing_stays_nothing() -> None:
    assert to_wire_rate(b"", 16_000) == b""


def test_wrong_files_are_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(ConfigError, match="cannot be read as WAV"):
        read_wav(tmp_path / "text.wav")
    with pytest.raises(ConfigError, match="cannot be read as WAV"):
        read_wav(tmp_path / "absent.wav")
    with wave.open(str(tmp_path / "8bit.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(24_000)
        file.writeframes(b"\x80" * 100)
    with pytest.raises(ConfigError, match="expected 16-bit PCM; got 8 bits"):
        read_wav(tmp_path / "8bit.wav")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_wav(tmp_path / "no" / "such" / "folder.wav", b"")
