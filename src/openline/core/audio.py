"""Arithmetic of media time: samples, milliseconds, and the text that goes with heard audio. No codecs."""

from __future__ import annotations

RATE = 24_000
"""Samples a second of every session track."""
BYTES_PER_SAMPLE = 2


def ms_of_samples(samples: int, rate: int = RATE) -> int:
    """Whole milliseconds, rounded down."""
    return samples * 1000 // rate


def samples_of_ms(ms: int, rate: int = RATE) -> int:
    return ms * rate // 1000


def ms_of_bytes(count: int, rate: int = RATE) -> int:
    return ms_of_samples(count // BYTES_PER_SAMPLE, rate)


def cut_text(text: str, audio_ms: int, heard_ms: int, text_end: int | None) -> tuple[int, bool]:
    """How many characters of ``text`` were heard, and whether that is an estimate.

    By the synthesizer's mark when there is one (``text_end``), else in proportion to the audio, down to
    the last whole word: half a heard word is not heard. Everything heard is the whole text.
    """
    if heard_ms >= audio_ms:
        return len(text), False
    if heard_ms <= 0:
        return 0, False
    if text_end is not None:
        return min(text_end, len(text)), False
    position = len(text) * heard_ms // audio_ms
    while position > 0 and not text[position].isspace():
        position -= 1
    return len(text[:position].rstrip()), True
