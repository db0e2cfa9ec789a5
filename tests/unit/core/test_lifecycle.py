"""Opened, attached, detached, parked, owned anew, ended; and the model link."""

from __future__ import annotations

import pytest

from core_call import (
    CONN,
    SAY,
    Call,
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
from openline.core.model import Cut, Limits, ResponseRequest, SessionConfig, ToolSpec, TurnDetection
from openline.types import CallId, ConnectionId, Epoch, Now, SessionId

TOOLS = (ToolSpec("clock", runner="gateway"), ToolSpec("screen"))


# --------------------------------------------------------------------------------------------------- the end


def end_by_api(call: Call) -> f.Fact:
    return call.give(i.EndSession("api")).facts[-1]


def end_by_closing(call: Call) -> f.Fact:
    return call.give(i.Detach(CONN, 1000, clean=True)).facts[-1]


def end_by_waiting(call: Call) -> f.Fact:
    call.give(i.Detach(CONN, 1006))
    return call.advance(31_000)[-1].facts[-1]


@pytest.mark.parametrize("end", [end_by_api, end_by_closing, end_by_waiting])
def test_every_end_leaves_no_client_behind_and_no_call_without_an_outcome(end: object) -> None:
    call = live_call(SessionConfig(tools=TOOLS), limits=Limits(park_for_ms=0), resumable=False)
    watching = ConnectionId("watching")
    call.give(i.Attach(watching, "observer"))
    speak(call, "show it to me")
    call_tool(call, "screen")
    assert callable(end)
    assert isinstance(end(call), f.SessionEnded)
    assert call.session.state.connections == {}
    assert call.session.state.tools[CallId("call_1")].phase == "settled"


def test_a_parked_session_that_ends_lets_its_observers_go() -> None:
    call = live_call(limits=Limits(park_for_ms=1_000), resumable=False)
    call.give(i.Detach(CONN, 1000, clean=True))
    call.give(i.Attach(ConnectionId("watching"), "observer"))
    (step,) = call.advance(1_000)
    assert step.effects == (e.CloseConnection(ConnectionId("watching"), 4410, "session ended"),)
    assert names(step) == ["connection.detached", "session.ended"]


def test_a_reply_that_is_being_prepared_at_the_end_is_dropped() -> None:
    call = live_call(prepares=True, resumable=False)
    speak(call, "good bye")
    step = call.give(i.Detach(CONN, 1000, clean=True))
    assert "reply.dropped" in names(step)
    assert call.session.state.preparing is None


def test_nothing_out_of_band_is_asked_of_a_parked_session() -> None:
    """It has no link, and nothing would end the wait for one."""
    call = live_call(resumable=False)
    call.give(i.Detach(CONN, 1000, clean=True))
    step = call.give(i.CreateResponse(ResponseRequest(conversation="none", origin="agent")))
    assert step.is_rejected and not step.facts


# --------------------------------------------------------------------------------------------------- the clock


def test_a_wake_up_that_comes_too_early_or_too_late_changes_nothing() -> None:
    call = live_call(limits=Limits(park_for_ms=10_000), resumable=False)
    call.give(i.Detach(CONN, 1000, clean=True))
    call.ms += 9_999
    assert call.give(i.TimePassed()).facts == ()
    call.ms += 1
    assert names(call.give(i.TimePassed())) == ["session.ended"]
    call.ms += 60_000
    assert call.give(i.TimePassed()).facts == ()


def test_the_resume_window_is_counted_from_when_the_last_talker_left() -> None:
    call = live_call()
    call.give(i.Attach(ConnectionId("desk"), "texter"))
    call.advance(60_000)
    call.give(i.Detach(CONN))
    call.advance(60_000)
    assert call.session.state.status == "live"
    call.give(i.Detach(ConnectionId("desk")))
    call.advance(29_999)
    assert call.session.state.status == "detached"
    call.advance(1)
    assert call.session.state.status == "parked"


def test_a_wall_clock_that_was_set_back_keeps_a_session_parked_longer_and_no_spin() -> None:
    call = live_call(limits=Limits(park_for_ms=10_000), resumable=False)
    step = call.give(i.Detach(CONN, 1000, clean=True))
    assert step.wake_at == call.now.mono_ns + 10_000 * 1_000_000
    assert step.durable_wake_ms == call.now.wall_ms + 10_000
    late = call.session.handle(i.TimePassed(), Now(step.wake_at, call.now.wall_ms - 5_000))
    assert late.facts == () and late.wake_at == step.wake_at + 15_000 * 1_000_000
    passed = Now(step.wake_at, call.now.wall_ms + 20_000)
    assert call.session.handle(i.MediaDropped("playout", 1, "oldest"), passed).wake_at == passed.mono_ns


def test_the_backoff_of_a_link_doubles_to_its_limit() -> None:
    call = live_call()
    delays = []
    while call.session.state.link.phase != "closed":
        step = call.give(i.LinkLost(call.session.state.link.epoch, "link_unavailable"))
        delays += [effect.delay_ms for effect in step.effects if isinstance(effect, e.OpenLink)]
    assert delays == [250, 500, 1_000, 2_000, 4_000, 8_000, 8_000]


# ---------------------------------------------------------------------------------------------- a new owner


def test_what_a_session_is_opened_with_is_in_its_state() -> None:
    call = Call()
    opening = i.OpenSession(
        SessionId("sess_a"), "acme", Epoch(3), "node-a", SessionConfig(voice="cedar"), Limits(8), True, False
    )
    call.give(opening)
    state = call.session.state
    assert (state.session, state.tenant, state.epoch, state.node) == ("sess_a", "acme", 3, "node-a")
    assert (state.config.voice, state.limits.resume_window_ms) == ("cedar", 8)
    assert (state.prepares_replies, state.is_recorded) == (True, False)
    assert state.created_ms == call.now.wall_ms
    assert state.status == "created"


def test_a_restart_gives_the_caller_a_whole_window_to_come_back() -> None:
    call = live_call()
    call.give(i.Detach(CONN))
    call.advance(20_000)
    call.crash(down_ms=50_000)
    call.advance(29_999)
    assert call.session.state.status == "detached"
    call.advance(1)
    assert call.session.state.status == "parked"


def test_a_reply_that_was_being_prepared_at_a_crash_goes_on_without_agent_code() -> None:
    call = live_call(prepares=True)
    speak(call, "what time is it")
    call.crash()
    assert call.wake_ms == call.ms + 300
    (step,) = call.advance(300)
    assert names(step) == ["response.held"]


def test_what_was_heard_may_still_be_corrected_after_a_crash() -> None:
    call = live_call()
    speak(call, "what time is it")
    item = begin_message(call)
    finish_reply(call, audio_ms=2_000)
    call.give(i.Heard(Cut(item, "", 2_000, 1_500, "assumed")))
    call.crash()
    assert names(call.give(i.Heard(Cut(item, "", 2_000, 1_000, "reported")))) == ["item.heard"]


def test_a_restart_forgets_that_a_link_was_refused_and_how_often_it_was_tried() -> None:
    call = live_call()
    call.give(i.LinkLost(1, "link_unavailable"))
    call.give(i.LinkLost(2, "link_rejected", permanent=True))
    call.crash()
    state = call.session.state
    assert (state.link.phase, state.link.attempt) == ("closed", 0)
    step = call.give(i.Attach(ConnectionId("again"), "speaker"))
    assert step.effects == (e.OpenLink(3, 0),)


ASIDE = ResponseRequest(conversation="none", origin="agent")


def test_what_agent_code_asks_after_a_restart_waits_for_somebody_whatever_was_refused_before_it() -> None:
    """The refusal was told to whoever was there then; how long ago that was, no clock here knows."""
    call = live_call()
    call.give(i.LinkLost(1, "link_rejected", permanent=True))
    call.crash()
    step = call.give(i.CreateResponse(ASIDE))
    assert (names(step), step.effects) == (["response.created"], ())
    step = call.give(i.Attach(ConnectionId("again"), "speaker"))
    assert step.effects == (e.OpenLink(2, 0),)


def test_a_link_that_was_lost_with_nobody_there_is_not_refused() -> None:
    call = live_call()
    call.give(i.Detach(CONN))
    call.give(i.LinkLost(1, "link_unavailable"))
    step = call.give(i.CreateResponse(ASIDE))
    assert (names(step), step.effects) == (["response.created"], ())


def test_a_session_that_was_parked_starts_its_links_anew() -> None:
    call = live_call(resumable=False)
    call.give(i.LinkLost(1, "link_unavailable"))
    call.give(i.Detach(CONN, 1000, clean=True))
    state = call.session.state
    assert (state.link.phase, state.link.attempt) == ("closed", 0)
    assert state.parked_until_ms == call.now.wall_ms + 604_800_000
    call.give(i.Attach(ConnectionId("again"), "observer"))
    assert state.parked_until_ms > 0
    call.give(i.Attach(ConnectionId("desk"), "texter"))
    assert state.parked_until_ms == 0


def test_a_session_that_ended_waits_for_nothing() -> None:
    call = live_call(resumable=False)
    call.give(i.Detach(CONN, 1000, clean=True))
    step = call.give(i.EndSession("api"))
    assert call.session.state.parked_until_ms == 0
    assert (step.wake_at, step.durable_wake_ms) == (None, 0)


# -------------------------------------------------------------------------------------------- a link is refused


def test_a_refused_link_fails_also_what_waits_for_it_and_asks_for_nothing_again() -> None:
    call = live_call(SessionConfig(tools=TOOLS))
    speak(call, "what time is it")
    call_tool(call, "clock")
    call.give(i.ToolSettled(CallId("call_1"), 1, "succeeded", "noon"))
    call.give(i.CreateResponse(ResponseRequest(conversation="none"), CONN))
    step = call.give(i.LinkLost(1, "link_rejected", permanent=True))
    assert names(step) == ["link.lost", "response.done", "response.done"]
    assert [fact.status for fact in step.facts if isinstance(fact, f.ResponseDone)] == ["failed", "failed"]
    call.give(i.Attach(ConnectionId("again"), "speaker"))
    call.give(i.CreateResponse(ResponseRequest(), ConnectionId("again")))
    step = call.give(i.LinkLost(2, "link_rejected", permanent=True))
    assert names(step) == ["link.lost", "response.done"]


def test_what_was_held_for_a_free_conversation_is_refused_with_the_link() -> None:
    """A tool's result came while the caller spoke: its reply waits for the turn, and the turn ends with the link."""
    call = live_call(SessionConfig(tools=TOOLS))
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    call.give(i.SpeechStarted(1, 96_000))
    call.give(i.ToolSettled(CallId("call_1"), 1, "succeeded", "noon"))
    assert [request.origin for request in call.session.state.held] == ["tool"]
    step = call.give(i.LinkLost(1, "link_rejected", permanent=True))
    assert names(step) == ["link.lost", "turn.abandoned", "response.created", "response.done"]
    assert call.session.state.held == []
    assert call.session.state.link.phase == "closed"
    call.check_replay()


def test_all_that_was_held_is_refused_with_the_link() -> None:
    call = live_call(SessionConfig(turn_detection=TurnDetection(interrupt_response=False)))
    call.give(i.CreateResponse(SAY))
    begin_message(call)
    for _ in range(2):
        call.give(i.CreateResponse(SAY))
    step = call.give(i.LinkLost(1, "link_rejected", permanent=True))
    failed = [fact.status for fact in step.facts if isinstance(fact, f.ResponseDone)]
    assert failed == ["failed"] * 3
    assert call.session.state.held == []
