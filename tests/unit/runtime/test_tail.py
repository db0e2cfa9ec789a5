"""The last of the caller's audio: whole, or said to be gone."""

from __future__ import annotations

from openline.runtime.tail import IDLE_MS, SAMPLES_PER_MS, SPOKEN_MS, CallerTail

FRAME = 480


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "little") * FRAME


def test_what_is_kept_is_read_by_its_place_with_silence_in_between() -> None:
    tail = CallerTail()
    tail.add(FRAME, numbered(1), False)
    tail.add(3 * FRAME, numbered(2), False)
    assert tail.read(0, 5 * FRAME) == bytes(960) + numbered(1) + bytes(960) + numbered(2) + bytes(960)
    assert tail.read(FRAME + 100, FRAME + 101) == numbered(1)[:2]
    assert tail.read(FRAME, FRAME) == b""


def test_while_nobody_speaks_a_second_is_kept_and_half_a_minute_of_who_does() -> None:
    for is_speech, limit in ((False, IDLE_MS), (True, SPOKEN_MS)):
        tail = CallerTail()
        frames = limit * SAMPLES_PER_MS // FRAME + 10
        for number in range(frames):
            tail.add(number * FRAME, numbered(number), is_speech)
        assert tail.read(9 * FRAME, frames * FRAME) == b"", "a part of it is gone: then it is not to be had"
        kept = tail.read(10 * FRAME, frames * FRAME)
        assert len(kept) == limit * SAMPLES_PER_MS * 2
        assert kept[:960] == numbered(10)
