"""Turns: the deterministic point at which what the user said is final, and every way out of a wait for it."""

from __future__ import annotations

import pytest

from core_call import CONN, begin_message, finish_reply, live_call, names, speak
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Part, ResponseRequest, SessionConfig
from openline.types import ConnectionId, ItemId

# ---------------------------------------------------------------------------------------- late, and recovered


def test_a_late_text_of_an_earlier_turn_does_not_end_the_one_that_is_open() -> None:
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    call.give(i.SpeechStopped(1, 48_000))
    call.advance(10_000)
    call.give(i.SpeechStarted(1, 300_000))
    late = call.give(i.TurnFinal(1, "what time is it", 0.9, AudioRange(24_000, 48_000)))
    assert late.facts == ()
    step = call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(300_000, 324_000)))
    assert "turn.committed" in names(step)


def test_speech_from_before_a_crash_waits_for_its_caller_to_come_back() -> None:
    """The recognizer cannot be asked before there is a link; the resume window bounds the wait for one."""
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    call.give(i.SpeechStopped(1, 72_000))
    call.crash(recorded_until=72_000)
    call.advance(20_000)
    call.give(i.Attach(ConnectionId("again"), "speaker"))
    call.advance(4_000)
    step = call.give(i.LinkOpened(call.session.state.link.epoch))
    assert step.effects == (e.TranscribeAudio(call.session.state.turn.item_id, AudioRange(24_000, 72_000)),)  # type: ignore[union-attr]  # a turn is open
    call.advance(9_000)
    assert "turn.committed" in names(
        call.give(i.TurnFinal(call.session.state.link.epoch, "two bolts", 0.9, AudioRange(24_000, 72_000)))
    )


def test_audio_that_was_committed_before_a_crash_waits_too_and_not_for_ever() -> None:
    call = live_call(SessionConfig(turn_detection=None))
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    call.crash(recorded_until=24_000)
    call.advance(20_000)
    call.give(i.Attach(ConnectionId("again"), "speaker"))
    call.give(i.LinkOpened(call.session.state.link.epoch))
    assert call.advance(9_000) == []
    (step,) = call.advance(1_000)
    (fact,) = step.facts
    assert isinstance(fact, f.TurnTranscribed) and fact.failed == "timeout"


# ------------------------------------------------------------------------------------ a reply cut for nothing


@pytest.mark.parametrize("reason", ["crash", "link_lost", "error", "timeout", "cleared", "no_speech"])
def test_a_reply_that_nobody_heard_comes_back_when_the_speech_that_cut_it_is_lost(reason: str) -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    cut = call.give(i.SpeechStarted(1, 96_000))
    assert names(cut)[-1] == "response.done"
    match reason:
        case "crash":
            call.crash()
            call.give(i.Attach(ConnectionId("again"), "speaker"))
        case "link_lost":
            call.give(i.LinkLost(1, "link_unavailable"))
        case "error":
            call.give(i.TurnFailed(1, "speech_failed"))
        case "timeout":
            call.give(i.SpeechStopped(1, 98_000))
            call.advance(10_000)
        case "cleared":
            call.give(i.ClearAudio(CONN))
        case _:
            call.give(i.TurnFinal(1, "", None, AudioRange(96_000, 98_000)))
    assert call.session.state.turn is None
    assert call.session.state.active is not None and call.session.state.active.request.origin == "turn"


def test_a_link_that_is_refused_brings_nothing_back() -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    call.give(i.SpeechStarted(1, 96_000))
    step = call.give(i.LinkLost(1, "link_rejected", permanent=True))
    assert names(step) == ["link.lost", "turn.abandoned"]
    abandoned = step.facts[1]
    assert isinstance(abandoned, f.TurnAbandoned)
    assert abandoned.reason == "link_lost"


# ------------------------------------------------------------------------------------------------ typed turns


def test_what_was_typed_stays_to_be_taken_when_something_else_is_said() -> None:
    call = live_call()
    for text in ("two bolts", "and hinges"):
        part = Part("input_text", text)
        call.give(i.CreateItem(Item(ItemId(""), "message", "user", "user", content=(part,)), None, CONN))
    speak(call, "what time is it")
    begin_message(call)
    finish_reply(call)
    step = call.give(i.CreateResponse(ResponseRequest(), CONN))
    committed = step.facts[0]
    assert isinstance(committed, f.TurnCommitted)
    assert (committed.text, len(committed.text_items)) == ("two bolts and hinges", 2)
    assert call.session.state.untaken == []


def test_what_is_taken_is_what_users_typed_and_was_not_deleted() -> None:
    call = live_call()
    for number, role in enumerate(("user", "system", "user")):
        part = Part("input_text", f"text {number}")
        item = Item(ItemId(f"item_{number}"), "message", role, role, content=(part,))  # type: ignore[arg-type]  # both are
        call.give(i.CreateItem(item, None, CONN))
    call.give(i.DeleteItem(ItemId("item_1"), CONN))
    call.give(i.DeleteItem(ItemId("item_0"), CONN))
    committed = call.give(i.CreateResponse(ResponseRequest(), CONN)).facts[0]
    assert isinstance(committed, f.TurnCommitted)
    assert committed.text_items == ("item_2",)
