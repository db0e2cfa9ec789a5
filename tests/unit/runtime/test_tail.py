"""The last of the caller's audio: whole, or said to be gone."""

from __future__ import annotations

from openline.adapters.g711 import codec_of, compress
from openline.adapters.resample import Resampler
from openline.core.audio import SAMPLES_PER_MS
from openline.runtime.codecs import Encoded
from openline.runtime.tail import IDLE_MS, SPOKEN_MS, CallerTail

FRAME = 480
CODEC = codec_of(Resampler)


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "little") * FRAME


def test_what_is_kept_is_read_by_its_place_with_silence_in_between() -> None:
    tail = CallerTail(CODEC)
    tail.add(FRAME, 2 * FRAME, numbered(1), False)
    tail.add(3 * FRAME, 4 * FRAME, numbered(2), False)
    assert tail.read(0, 5 * FRAME) == bytes(960) + numbered(1) + bytes(960) + numbered(2) + bytes(960)
    assert tail.read(FRAME + 100, FRAME + 101) == numbered(1)[:2]
    assert tail.read(FRAME, FRAME) == b""


def test_while_nobody_speaks_a_second_is_kept_and_half_a_minute_of_who_does() -> None:
    for is_speech, limit in ((False, IDLE_MS), (True, SPOKEN_MS)):
        tail = CallerTail(CODEC)
        frames = limit * SAMPLES_PER_MS // FRAME + 10
        for number in range(frames):
            tail.add(number * FRAME, (number + 1) * FRAME, numbered(number), is_speech)
        assert tail.read(9 * FRAME, frames * FRAME) == b"", "a part of it is gone: then it is not to be had"
        kept = tail.read(10 * FRAME, frames * FRAME)
        assert len(kept) == limit * SAMPLES_PER_MS * 2
        assert kept[:960] == numbered(10)


def steady(value: int, frames: int = 1) -> Encoded:
    return Encoded("pcmu", compress("pcmu", value.to_bytes(2, "little") * 160 * frames))


def test_what_came_as_it_is_has_its_place_and_is_decoded_when_it_is_read() -> None:
    tail = CallerTail(CODEC)
    for number in range(10):
        tail.add(FRAME * number, FRAME * (number + 1), steady(8_000), False)
    tail.add(FRAME * 12, FRAME * 14, steady(16_000, 2), False)
    tail.add(FRAME * 14, FRAME * 15, numbered(7), False)
    sound = memoryview(tail.read(0, FRAME * 15)).cast("h")
    middle = {place: sound[FRAME * place + FRAME // 2] for place in (0, 5, 9, 10, 11, 12, 13, 14)}
    assert all(abs(middle[place] - 8_000) < 400 for place in (0, 5))
    assert middle[10] == middle[11] == 0 and abs(middle[13] - 16_000) < 800 and middle[14] == 7
    assert all(sound[100 : FRAME * 9]), "one stream: no hole where a frame ends"
    assert not any(sound[FRAME * 10 : FRAME * 12]), "silence where nothing was sent"
    later = memoryview(tail.read(FRAME * 5, FRAME * 10)).cast("h")
    assert len(later) == FRAME * 5 and abs(later[FRAME * 2] - 8_000) < 400


def test_it_is_kept_for_as_long_as_other_audio_and_in_a_sixth_of_the_space() -> None:
    tail = CallerTail(CODEC)
    frames = IDLE_MS * SAMPLES_PER_MS // FRAME + 10
    for number in range(frames):
        tail.add(number * FRAME, (number + 1) * FRAME, steady(8_000), False)
    assert tail.kept_from == 10 * FRAME
    assert tail.read(9 * FRAME, frames * FRAME) == b""
    assert len(tail.read(10 * FRAME, frames * FRAME)) == IDLE_MS * SAMPLES_PER_MS * 2
    assert sum(len(sound.data) for sound in tail._frames if isinstance(sound, Encoded)) == IDLE_MS * 8
