"""Responses and tool calls: what is asked again, what is held, what is dropped, and who is told."""

from __future__ import annotations

import pytest

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
from openline.core import effects as e
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
from openline.core.responses import HELD_MAX, TOOL_REPLIES_MAX
from openline.types import CallId, ConnectionId

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


def test_results_of_two_replies_that_wait_are_spoken_to_once() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call_tool(call, "clock", "call_2")
    end_response(call)
    call.give(i.Detach(CONN))
    call.give(settled("call_1"))
    assert names(call.give(settled("call_2"))) == ["tool.settled"]
    assert [held.origin for held in call.session.state.held] == ["tool"]


def test_agent_code_that_says_too_much_at_once_is_refused() -> None:
    call = live_call()
    for _ in range(1 + HELD_MAX):
        assert not call.give(i.CreateResponse(SAY)).is_rejected
    step = call.give(i.CreateResponse(SAY))
    assert step.is_rejected and not step.facts
    assert HELD_MAX == 8


def test_a_result_that_finds_no_room_is_kept_and_not_announced() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    for _ in range(1 + HELD_MAX):
        call.give(i.CreateResponse(SAY))
    step = call.give(settled("call_1"))
    assert names(step) == ["tool.settled"] and not step.is_rejected


def test_a_model_that_calls_for_ever_is_stopped_until_the_user_speaks_again() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    for number in range(TOOL_REPLIES_MAX):
        call_tool(call, "clock", f"call_{number}")
        end_response(call)
        assert "response.created" in names(call.give(settled(f"call_{number}")))
    call_tool(call, "clock", "call_last")
    end_response(call)
    assert names(call.give(settled("call_last"))) == ["tool.settled"]
    speak(call, "and now", start=480_000)
    call_tool(call, "clock", "call_again")
    end_response(call)
    assert "response.created" in names(call.give(settled("call_again")))
    assert TOOL_REPLIES_MAX == 50


@pytest.mark.parametrize("at", range(9))
def test_a_crash_between_any_two_inputs_of_a_tool_call_leaves_one_outcome_and_one_reply(at: int) -> None:
    """Whoever comes back: the call has one key in all its attempts, one outcome, and is spoken to once."""
    call = live_call(SessionConfig(tools=(ToolSpec("clock", runner="gateway", recovery="retry"),)))
    ran: list[str] = []

    def give(given: i.Input) -> None:
        ran.extend(effect.key for effect in call.give(given).effects if isinstance(effect, e.RunTool))

    def come_back() -> None:
        ran.extend(effect.key for effect in call.crash(400_000).effects if isinstance(effect, e.RunTool))
        give(i.Attach(ConnectionId(f"back_{call.session.state.epoch}"), "speaker"))
        give(i.LinkOpened(call.session.state.link.epoch))

    for number in range(9):
        if number == at:
            come_back()
        if call.session.state.turn is None and call.session.state.turns == 0:
            speak(call, "what time is it")
        elif (active := call.session.state.active) is not None and not call.session.state.tools:
            epoch = call.session.state.link.epoch
            if not active.outputs:
                give(i.CallStarted(epoch, active.response_id, 0, CallId("call_1"), "clock"))
            else:
                give(i.CallFinished(epoch, active.response_id, 0, "{}"))
        elif active is not None and active.request.origin in ("turn", "recovery") and active.done:
            end_response(call)
        elif (
            known := call.session.state.tools.get(CallId("call_1"))
        ) is not None and known.phase == "started":
            give(settled("call_1", known.attempt))
        elif active is not None:
            begin_message(call)
            finish_reply(call)
    assert set(ran) == {"sess_test:call_1"}
    assert call.session.state.tools[CallId("call_1")].phase == "settled"
    spoken = [entry.item for entry in call.session.state.entries.values() if entry.item.role == "assistant"]
    assert [item.text for item in spoken] == ["It is noon."]
    call.check_replay()
