"""WAV files in and out, without an engine: PCM16 mono at 24,000 samples a second is what the line carries."""

from __future__ import annotations

import sys
import wave
from array import array
from pathlib import Path

from openline.errors import ConfigError
from openline.ports import WIRE_RATE

FRAME_MS = 20
FRAME_BYTES = WIRE_RATE // 1000 * FRAME_MS * 2


def read_wav(path: Path) -> bytes:
    """Any PCM16 WAV as PCM16 mono 24 kHz; channels are averaged. Raises ConfigError."""
    try:
        with wave.open(str(path)) as source:
            if source.getsampwidth() != 2 or not 1 <= source.getnchannels() <= 8:
                raise ConfigError(
                    f"{path}: expected 16-bit PCM; got {8 * source.getsampwidth()} bits, "
                    f"{source.getnchannels()} channels.",
                    hint="ffmpeg -i IN -ac 1 -ar 24000 -c:a pcm_s16le OUT.wav",
                )
            pcm, rate, channels = (
                source.readframes(source.getnframes()),
                source.getframerate(),
                source.getnchannels(),
            )
    except (OSError, wave.Error, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read as WAV ({error}).") from error
    return to_wire_rate(_mono(pcm, channels), rate)


def _mono(pcm: bytes, channels: int) -> bytes:
    if channels == 1:
        return pcm
    samples = _samples(pcm)
    tracks = [samples[at::channels] for at in range(channels)]
    return _bytes(array("h", (sum(parts) // channels for parts in zip(*tracks, strict=False))))


def to_wire_rate(pcm: bytes, rate: int) -> bytes:
    """PCM16 mono of any rate as 24 kHz, by linear interpolation: enough to be understood, and needs nothing."""
    if rate == WIRE_RATE or not pcm:
        return pcm
    samples = _samples(pcm)
    samples.append(samples[-1])
    count = (len(samples) - 1) * WIRE_RATE // rate
    made = array("h", bytes(2 * count))
    for number in range(count):
        place, rest = divmod(number * rate, WIRE_RATE)
        here = samples[place]
        made[number] = here + (samples[place + 1] - here) * rest // WIRE_RATE
    return _bytes(made)


def write_wav(path: Path, pcm: bytes) -> None:
    """PCM16 mono 24 kHz. Raises ConfigError for a place that cannot be written."""
    try:
        with path.open("wb") as target, wave.open(target, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(WIRE_RATE)
            file.writeframes(pcm)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}).") from error


def _samples(pcm: bytes) -> array[int]:
    samples = array("h")
    samples.frombytes(pcm[: len(pcm) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _bytes(samples: array[int]) -> bytes:
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()
