"""The floor machine in numbers; its stories are in tests/scenarios/floor."""

from __future__ import annotations

import pytest

from openline.core.floor import (
    FLOOR,
    STARVED_MS,
    Floor,
    FloorSettings,
    Hold,
    Release,
    Started,
    Stopped,
)

FRAME = 768


def test_defaults() -> None:
    assert FloorSettings() == FloorSettings(0.5, 500, 300, 96, 160)
    assert STARVED_MS == 400


def play(floor: Floor, frames: str) -> list[object]:
    """``#`` is certain speech, ``.`` none, digits are tenths."""
    chances = {".": 0.0, "#": 1.0} | {str(tenths): tenths / 10 for tenths in range(1, 10)}
    return [
        event
        for count, character in enumerate(frames)
        for event in floor.frame(count * FRAME, (count + 1) * FRAME, chances[character])
    ]


def test_speech_begins_before_its_first_voice_and_ends_at_its_last() -> None:
    start, end = 10 * FRAME, 14 * FRAME
    assert play(Floor(FloorSettings()), "." * 10 + "####" + "." * 16) == [
        Started(start - 300 * 24),
        Stopped(start - 300 * 24, end),
    ]


@pytest.mark.parametrize(("silence_ms", "frames"), [(96, 3), (97, 4), (500, 16)])
def test_the_window_of_silence_is_exact(silence_ms: int, frames: int) -> None:
    voice = "####"
    assert len(play(Floor(FloorSettings(silence_ms=silence_ms)), voice + "." * (frames - 1))) == 1
    assert len(play(Floor(FloorSettings(silence_ms=silence_ms)), voice + "." * frames)) == 2


@pytest.mark.parametrize(("chance", "begins"), [("4", False), ("5", True), ("6", True)])
def test_speech_begins_at_the_threshold_itself(chance: str, begins: bool) -> None:
    assert bool(play(Floor(FloorSettings()), chance * 3)) == begins


@pytest.mark.parametrize(("samples", "begins"), [(96 * 24 - 1, False), (96 * 24, True)])
def test_the_voice_that_begins_speech_is_counted_to_the_sample(samples: int, begins: bool) -> None:
    assert bool(Floor(FloorSettings()).frame(0, samples, 1.0)) == begins


def test_speech_goes_on_down_to_the_threshold_less_its_hysteresis() -> None:
    settings = FloorSettings(threshold=0.75, silence_ms=96)
    assert len(play(Floor(settings), "###" + "6" * 9)) == 1
    assert len(play(Floor(settings), "###" + "5" * 9)) == 2


def test_an_interruption_takes_more_voice_and_holds_the_audio_once() -> None:
    floor = Floor(FloorSettings())
    floor.is_playing = True
    assert play(floor, "####") == [Hold()]
    assert play(Floor(FloorSettings()), "###") == [Started(0)]
    floor.reset()
    assert play(floor, "#####") == [Hold(), Started(0)]


def test_a_sound_is_given_up_after_160_ms_without_voice() -> None:
    floor = Floor(FloorSettings())
    floor.is_playing = True
    assert play(floor, "##....") == [Hold()]
    assert floor.frame(6 * FRAME, 7 * FRAME, 0.0) == (Release(),)
    assert floor.frame(7 * FRAME, 8 * FRAME, 0.0) == ()


def test_a_held_sound_that_becomes_speech_holds_again_the_next_time() -> None:
    floor = Floor(FloorSettings(silence_ms=32))
    floor.is_playing = True
    assert play(floor, "#####.") == [Hold(), Started(0), Stopped(0, 5 * FRAME)]
    assert floor.frame(6 * FRAME, 7 * FRAME, 1.0) == (Hold(),)


def test_without_audio_whoever_spoke_has_stopped() -> None:
    floor = Floor(FloorSettings())
    assert floor.starved() == ()
    play(floor, "....#####..")
    assert floor.starved() == (Stopped(0, 9 * FRAME),)
    assert floor.starved() == ()


def test_the_trace_tells_transitions_and_only_those() -> None:
    told: list[tuple[str, str, int]] = []
    floor = Floor(FloorSettings(), lambda event, state, position: told.append((event, state, position)))
    play(floor, ".####" + "." * 16)
    assert told == [
        ("voice", "maybe", 2 * FRAME),
        ("enough", "speaking", 4 * FRAME),
        ("ended", "idle", 5 * FRAME),
    ]


def test_undecided_sound_is_kept_from_its_padding_on() -> None:
    floor = Floor(FloorSettings())
    play(floor, "." * 20 + "#")
    assert floor.undecided_from == 20 * FRAME - 300 * 24
    decided = Floor(FloorSettings())
    play(decided, "." * 20 + "###")
    assert decided.undecided_from is None


def test_the_table() -> None:
    assert {f"{state} {event} {after}" for (state, event), after in FLOOR.items()} == {
        "idle voice maybe", "idle quiet idle", "maybe voice maybe", "maybe quiet maybe", "maybe enough speaking",
        "maybe nothing idle", "speaking voice speaking", "speaking quiet speaking", "speaking ended idle",
    }  # fmt: skip
