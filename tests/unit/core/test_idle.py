"""The idle timeout: when silence after a reply becomes a turn of its own, and when it does not."""

from __future__ import annotations

import pytest

from core_call import (
    CONN,
    SAY,
    Call,
    active_id,
    begin_message,
    call_tool,
    end_response,
    finish_reply,
    live_call,
    names,
    speak,
)
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import (
    AudioRange,
    Cut,
    Item,
    Part,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    TurnDetection,
)
from openline.core.turns import IDLE_TURNS_MAX
from openline.core.value import replace
from openline.types import ConnectionId, ItemId

IDLE = SessionConfig(turn_detection=TurnDetection(idle_timeout_ms=5_000))
TIMEOUT = "input_audio_buffer.timeout_triggered"


def played(call: Call, item: ItemId, audio_ms: int = 2_000) -> None:
    """The whole item has been played."""
    call.give(i.Heard(Cut(item, "It is noon.", audio_ms, audio_ms, "paced")))


def answered(config: SessionConfig = IDLE, *, prepares: bool = False) -> tuple[Call, ItemId]:
    """A call in which a reply has ended and is still being played."""
    call = live_call(config, prepares=prepares)
    call.give(i.CreateResponse(SAY))
    item = begin_message(call)
    finish_reply(call)
    return call, item


def test_silence_is_counted_from_the_end_of_what_is_played() -> None:
    call, item = answered()
    assert call.advance(60_000) == []
    played(call, item)
    assert call.advance(4_999) == []
    (step,) = call.advance(1)
    assert names(step) == [TIMEOUT, "turn.committed", "response.created"]


def test_a_reply_that_was_played_before_it_ended_is_counted_from_its_end() -> None:
    call = live_call(IDLE)
    call.give(i.CreateResponse(SAY))
    item = begin_message(call)
    response = active_id(call)
    call.give(i.MessageFinished(response, 0, "It is noon.", 2_000))
    played(call, item)
    call.advance(3_000)
    end_response(call)
    assert call.advance(4_999) == []
    assert names(call.advance(1)[0])[0] == TIMEOUT


def test_a_written_reply_has_nothing_to_play() -> None:
    call = live_call(replace(IDLE, modality="text"))
    call.give(i.CreateResponse(SAY))
    begin_message(call)
    finish_reply(call, audio_ms=0)
    assert names(call.advance(5_000)[0])[0] == TIMEOUT


def test_the_turn_is_the_silence_since_the_reply() -> None:
    call, item = answered()
    played(call, item)
    call.ms += 5_250
    step = call.give(i.TimePassed(heard_until=10 * 24_000))
    timeout, committed = step.facts[:2]
    assert isinstance(timeout, f.InputTimedOut) and isinstance(committed, f.TurnCommitted)
    assert (timeout.audio_start_ms, timeout.audio_end_ms) == (4_750, 10_000)
    made = committed.item
    assert made is not None and timeout.item_id == made.id and committed.text == ""
    assert made == Item(
        made.id,
        "message",
        "user",
        "user",
        content=(Part("input_audio", "", AudioRange(4_750 * 24, 240_000)),),
        turn_id=committed.turn_id,
    )
    assert committed.previous_item_id == item
    assert step.effects[0] == e.AddItem(made, None)
    response = call.session.state.active
    assert response is not None and response.turn_id == committed.turn_id
    assert response.request == ResponseRequest(origin="turn")


def test_silence_longer_than_the_track_begins_with_it() -> None:
    call, item = answered()
    played(call, item)
    call.ms += 5_000
    step = call.give(i.TimePassed(heard_until=24_000))
    fact, item_id = step.facts[0], step.facts[0].item_id  # type: ignore[attr-defined]  # asserted below
    assert isinstance(fact, f.InputTimedOut) and (fact.audio_start_ms, fact.audio_end_ms) == (0, 1_000)
    entry = call.session.state.entries[item_id]
    assert entry.item.content[0].audio == AudioRange(0, 24_000)


def test_agent_code_is_asked_before_a_reply_to_silence_too() -> None:
    call, item = answered(prepares=True)
    played(call, item)
    (step, *_) = call.advance(5_000)
    committed = step.facts[1]
    assert isinstance(committed, f.TurnCommitted) and committed.prepares
    assert step.effects[-1] == e.PrepareReply(committed.turn_id)


@pytest.mark.parametrize(
    "detection",
    [
        None,
        TurnDetection(),
        TurnDetection(idle_timeout_ms=5_000, create_response=False),
    ],
)
def test_nobody_is_waited_for_where_it_was_not_asked_for(detection: TurnDetection | None) -> None:
    call, item = answered(SessionConfig(turn_detection=detection))
    played(call, item)
    assert call.wake_ms is None and call.advance(60_000) == []


def test_a_timer_that_comes_for_something_else_ends_no_silence() -> None:
    call, item = answered()
    played(call, item)
    call.ms += 4_999
    assert call.give(i.TimePassed()).facts == ()


def test_who_speaks_ends_the_wait_and_noise_begins_it_anew() -> None:
    call, item = answered()
    played(call, item)
    call.advance(3_000)
    call.give(i.SpeechStarted(1, 96_000))
    assert call.wake_ms is None, "nobody is waited for while somebody speaks"
    call.give(i.SpeechStopped(1, 120_000))
    call.give(i.TurnFinal(1, " ", 0.1, AudioRange(96_000, 120_000)))
    assert call.advance(4_999) == []
    assert names(call.advance(1)[0])[0] == TIMEOUT


def test_a_turn_and_its_reply_begin_the_wait_anew() -> None:
    call, item = answered()
    played(call, item)
    speak(call, "go on")
    begin_message(call)
    assert call.session.state.lull is None
    finish_reply(call)
    assert call.session.state.lull is not None


def test_a_turn_that_is_not_answered_is_waited_for_by_nobody() -> None:
    """The client drives: it has the turn, and its own idea of what comes next."""
    call, item = answered()
    played(call, item)
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(0, 24_000), call.session.state.entries.last_id()))
    assert call.advance(60_000) == []


def test_a_call_is_answered_by_its_tool() -> None:
    call = live_call(replace(IDLE, tools=(ToolSpec("screen"),)))
    speak(call, "show it to me")
    call_tool(call, "screen")
    end_response(call)
    assert call.session.state.lull is None


def test_a_reply_that_also_calls_is_answered_by_its_tool() -> None:
    call = live_call(replace(IDLE, tools=(ToolSpec("screen"),)))
    speak(call, "show it to me")
    begin_message(call)
    call_tool(call, "screen", index=1)
    finish_reply(call)
    assert call.session.state.responses == {} and call.session.state.lull is None


@pytest.mark.parametrize("how", ["cancelled", "failed", "out_of_band"])
def test_only_a_whole_reply_to_the_conversation_is_waited_after(how: str) -> None:
    call = live_call(IDLE)
    conversation = "none" if how == "out_of_band" else "auto"
    call.give(i.CreateResponse(ResponseRequest(conversation=conversation), CONN))  # type: ignore[arg-type]  # one of the two
    (response,) = call.session.state.responses
    match how:
        case "cancelled":
            call.give(i.CancelResponse(response))
        case "failed":
            call.give(i.ResponseFailed(1, response, f.Problem("server_error", "No.")))
        case _:
            call.give(i.ResponseGenerated(1, response, f.Usage()))
            call.give(i.ResponseReleased(response))
    assert call.session.state.responses == {}
    assert call.session.state.lull is None


def test_an_item_that_was_deleted_is_not_waited_for() -> None:
    call, item = answered()
    call.give(i.DeleteItem(item, CONN))
    assert names(call.advance(5_000)[0])[0] == TIMEOUT


def test_an_item_that_was_deleted_before_its_reply_ended_is_not_waited_for() -> None:
    call = live_call(IDLE)
    call.give(i.CreateResponse(SAY))
    item = begin_message(call)
    call.give(i.MessageFinished(active_id(call), 0, "It is noon.", 2_000))
    call.give(i.DeleteItem(item, CONN))
    end_response(call)
    assert names(call.advance(5_000)[0])[0] == TIMEOUT


def test_while_the_agent_speaks_nobody_is_waited_for() -> None:
    """A reply that agent code asked for by itself began in the silence after the last one."""
    call, item = answered()
    played(call, item)
    call.advance(3_000)
    call.give(i.CreateResponse(SAY))
    begin_message(call)
    assert call.advance(7_999) == []


def test_an_item_of_before_does_not_end_the_wait_for_this_one() -> None:
    call, item = answered()
    played(call, item)
    call.give(i.CreateResponse(SAY))
    later = begin_message(call)
    finish_reply(call)
    call.give(i.Heard(Cut(item, "It is noon.", 2_000, 2_000, "reported")))
    assert call.session.state.lull is not None and call.session.state.lull.unplayed == {later}


def test_the_count_begins_anew_when_somebody_comes_back() -> None:
    call, item = answered()
    played(call, item)
    call.advance(3_000)
    call.give(i.Detach(CONN, 1006))
    call.advance(20_000)
    call.give(i.Attach(ConnectionId("again"), "speaker"))
    assert call.advance(4_999) == []
    assert names(call.advance(1)[0])[0] == TIMEOUT


def test_nobody_speaks_up_without_a_model() -> None:
    call, item = answered()
    played(call, item)
    call.give(i.LinkLost(1, "link_unavailable"))
    assert call.advance(20_000) == []
    call.give(i.LinkOpened(2))
    assert names(call.advance(5_000)[0])[0] == TIMEOUT


def test_a_crash_in_the_middle_of_the_playout_does_not_silence_the_agent() -> None:
    """What was playing is gone: nothing will say that it was played."""
    call, _ = answered()
    call.crash()
    call.give(i.Attach(ConnectionId("again"), "speaker"))
    call.give(i.LinkOpened(call.session.state.link.epoch))
    assert names(call.advance(5_000)[0])[0] == TIMEOUT


def test_a_parked_session_waits_for_no_answer() -> None:
    call, item = answered()
    played(call, item)
    call.give(i.Detach(CONN, 1006))
    call.advance(31_000)
    assert call.session.state.status == "parked" and call.session.state.lull is None


def test_whoever_has_gone_away_is_not_asked_for_ever() -> None:
    call, item = answered()
    assert IDLE_TURNS_MAX == 10
    for _ in range(IDLE_TURNS_MAX):
        played(call, item)
        assert names(call.advance(5_000)[0])[0] == TIMEOUT
        item = begin_message(call)
        finish_reply(call)
    played(call, item)
    assert call.advance(60_000) == []
    speak(call, "I am back")
    assert call.session.state.idle_turns == 0
