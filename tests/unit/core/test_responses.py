"""Responses and tool calls: what is asked again, what is held, what is dropped, and who is told."""

from __future__ import annotations

from core_call import (
    CONN,
    active_id,
    begin_message,
    call_tool,
    end_response,
    finish_reply,
    live_call,
    names,
    speak,
)
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import (
    AudioRange,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    TurnDetection,
    Usage,
)
from openline.core.responses import HELD_MAX
from openline.types import CallId

TOOLS = (ToolSpec("clock", runner="gateway"), ToolSpec("order", runner="gateway"), ToolSpec("screen"))
WITH_TOOLS = SessionConfig(tools=TOOLS)
SAY = ResponseRequest(verbatim="One moment.", origin="agent")


def settled(call_id: str, attempt: int = 1, output: str = "8") -> i.ToolSettled:
    return i.ToolSettled(CallId(call_id), attempt, "succeeded", output)


# ------------------------------------------------------------------------------------------- being prepared


def test_agent_code_that_says_something_does_not_cost_the_turn_its_prepared_reply() -> None:
    call = live_call(prepares=True)
    turn = speak(call, "what time is it").facts[-1]
    assert isinstance(turn, f.TurnCommitted)
    call.give(i.CreateResponse(SAY))
    begin_message(call)
    step = call.give(i.ReplyPrepared(turn.turn_id, ResponseRequest(origin="turn")))
    assert names(step) == ["response.held"]
    done = finish_reply(call, "One moment.")
    assert names(done) == ["response.done", "response.created"]
    assert call.session.state.active is not None and call.session.state.active.request.origin == "turn"


def test_agent_code_that_is_held_does_not_cost_the_turn_its_prepared_reply() -> None:
    detection = TurnDetection(interrupt_response=False)
    call = live_call(SessionConfig(turn_detection=detection), prepares=True)
    call.give(i.CreateResponse(SAY))
    begin_message(call)
    turn = speak(call, "what time is it").facts[-1]
    assert isinstance(turn, f.TurnCommitted)
    call.give(i.CreateResponse(SAY))
    assert call.session.state.preparing is not None
    call.give(i.ReplyPrepared(turn.turn_id, ResponseRequest(origin="turn")))
    assert [held.origin for held in call.session.state.held] == ["agent", "turn"]


def test_a_turn_whose_reply_finds_no_room_says_so() -> None:
    detection = TurnDetection(interrupt_response=False)
    call = live_call(SessionConfig(turn_detection=detection))
    call.give(i.CreateResponse(SAY))
    for _ in range(HELD_MAX):
        call.give(i.CreateResponse(SAY))
    step = speak(call, "what time is it")
    dropped = step.facts[-1]
    assert isinstance(dropped, f.ReplyDropped) and dropped.reason == "held_full"


# ---------------------------------------------------------------------------------------------- asked again


def test_a_reply_that_speech_did_not_cut_is_not_asked_for_again_when_the_speech_was_noise() -> None:
    detection = TurnDetection(interrupt_response=False)
    call = live_call(SessionConfig(turn_detection=detection))
    speak(call, "what time is it")
    begin_message(call)
    call.give(i.SpeechStarted(1, 96_000))
    finish_reply(call)
    call.give(i.SpeechStopped(1, 100_000))
    step = call.give(i.TurnFinal(1, "", None, AudioRange(96_000, 100_000)))
    assert names(step) == ["turn.abandoned"]


def test_a_generated_reply_of_which_nothing_was_heard_is_asked_for_again_after_a_crash() -> None:
    """A short reply is generated long before it is played."""
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    call.give(i.ResponseGenerated(1, active_id(call), Usage()))
    step = call.crash()
    held = [fact for fact in step.facts if isinstance(fact, f.ResponseHeld)]
    assert [fact.request.origin for fact in held] == ["recovery"]


def test_content_for_a_response_that_was_not_asked_for_yet_is_discarded() -> None:
    call = live_call(SessionConfig(turn_detection=None))
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    assert call.give(i.MessageStarted(1, active_id(call), 0)).facts == ()


# ---------------------------------------------------------------------------------------------------- tools


def test_results_that_settled_before_the_link_was_lost_are_still_spoken_to() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    call.give(settled("call_1"))
    step = call.give(i.LinkLost(1, "link_unavailable"))
    created = [fact for fact in step.facts if isinstance(fact, f.ResponseCreated)]
    assert [fact.request.origin for fact in created] == ["tool"]


def test_a_result_that_arrives_during_noise_is_spoken_to_after_it() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    call.give(i.SpeechStarted(1, 96_000))
    assert names(call.give(settled("call_1"))) == ["tool.settled", "response.held"]
    step = call.give(i.TurnFinal(1, " ", None, AudioRange(96_000, 100_000)))
    assert names(step)[-1] == "response.created"


def test_a_result_that_arrives_during_speech_is_in_the_reply_to_it_and_in_no_other() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    call.give(i.SpeechStarted(1, 96_000))
    call.give(settled("call_1"))
    call.give(i.TurnFinal(1, "hurry", 0.9, AudioRange(96_000, 120_000)))
    begin_message(call)
    assert names(finish_reply(call)) == ["response.done"]


def test_a_call_out_of_band_brings_no_reply_into_the_conversation() -> None:
    call = live_call(WITH_TOOLS)
    call.give(i.CreateResponse(ResponseRequest(conversation="none"), CONN))
    (response_id,) = call.session.state.responses
    call.give(i.CallStarted(1, response_id, 0, CallId("call_1"), "clock"))
    call.give(i.CallFinished(1, response_id, 0, "{}"))
    call.give(i.ResponseGenerated(1, response_id, Usage()))
    call.give(i.ResponseReleased(response_id))
    assert names(call.give(settled("call_1"))) == ["tool.settled"]


def test_two_open_calls_of_one_id_are_told_apart() -> None:
    """Some providers number their calls anew in each response, some forget to."""
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    response_id = active_id(call)
    for index in (0, 1):
        call.give(i.CallStarted(1, response_id, index, CallId("call_same"), "clock"))
    for index in (0, 1):
        call.give(i.CallFinished(1, response_id, index, "{}"))
    assert len(call.session.state.tools) == 2


def test_results_of_a_reply_that_noise_cut_are_spoken_to_after_it() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    call.give(settled("call_1"))
    assert names(call.give(i.SpeechStarted(1, 96_000)))[-1] == "response.held"
    step = call.give(i.TurnFinal(1, " ", None, AudioRange(96_000, 100_000)))
    assert names(step)[-1] == "response.created"
