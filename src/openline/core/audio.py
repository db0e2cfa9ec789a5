"""Arithmetic of media time: samples, milliseconds, and the text that goes with heard audio. No codecs."""

from __future__ import annotations

from openline.core.model import AudioFormat

RATE = 24_000
"""Samples a second of every session track."""
SAMPLES_PER_MS = RATE // 1000
BYTES_PER_SAMPLE = 2
BYTES_PER_MS: dict[AudioFormat, int] = {"pcm": 48, "pcmu": 8, "pcma": 8}
"""PCM16 at 24,000 samples a second; G.711 at 8,000, a byte each."""
CODED_SAMPLES = 3
"""Samples of a track for each byte of G.711."""


def samples_of(name: AudioFormat, data: bytes) -> int:
    """How far audio of that format moves a track."""
    return len(data) >> 1 if name == "pcm" else CODED_SAMPLES * len(data)


def ms_of_samples(samples: int, rate: int = RATE) -> int:
    """Whole milliseconds, rounded down."""
    return samples * 1000 // rate


def samples_of_ms(ms: int, rate: int = RATE) -> int:
    return ms * rate // 1000


def ms_of_bytes(count: int, rate: int = RATE) -> int:
    return ms_of_samples(count // BYTES_PER_SAMPLE, rate)


def cut_text(
    text: str,
    audio_ms: int,
    heard_ms: int,
    text_end: int | None,
    known: tuple[int, int] | None = None,
    *,
    is_open: bool = False,
) -> tuple[int, bool]:
    """How many characters of ``text`` were heard, and whether that is an estimate.

    By the synthesizer's mark when there is one (``text_end``), else in proportion to the audio, down to
    the last whole word: half a heard word is not heard. Everything heard is the whole text. ``known``: a
    time and the characters that were heard by then. The proportion goes through it; before it, to the word
    whose end is nearest, for the last one known had ended some time before. ``is_open``: more audio was to
    come, and the text may be ahead of it: all of the audio is the whole text only if no mark says less.
    """
    heard_ms = min(heard_ms, audio_ms)
    is_ahead = is_open and (text_end is not None or audio_ms == 0)
    if heard_ms == audio_ms and not is_ahead and (known is None or known[0] < audio_ms):
        return len(text), False
    if heard_ms <= 0:
        return 0, False
    if text_end is not None:
        return min(text_end, len(text)), False
    if known is not None and heard_ms <= known[0]:
        return _nearest_end(text[: known[1]], known[1] * heard_ms // known[0]), True
    begin_ms, begin = known or (0, 0)
    position = begin + (len(text) - begin) * (heard_ms - begin_ms) // (audio_ms - begin_ms)
    return _last_end(text, position), True


def _last_end(text: str, position: int) -> int:
    """Where the last word that has ended by ``position`` ends."""
    while 0 < position < len(text) and not text[position].isspace():
        position -= 1
    return len(text[:position].rstrip())


def _nearest_end(text: str, position: int) -> int:
    before = _last_end(text, position)
    after = position
    while after < len(text) and not text[after].isspace():
        after += 1
    return after if after - position <= position - before else before
