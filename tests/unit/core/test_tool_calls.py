"""Tool calls: requested, run, settled once, and spoken to once."""

from __future__ import annotations

from typing import Literal

import pytest

from core_call import (
    CONN,
    SAY,
    TOOLS,
    WITH_TOOLS,
    active_id,
    begin_message,
    call_tool,
    end_response,
    finish_reply,
    live_call,
    names,
    settled,
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
    known, minted = call.session.state.tools
    assert known == "call_same" and minted.startswith("call_") and minted != known


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


def test_a_result_that_finds_no_room_is_kept_and_not_announced() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    for _ in range(1 + HELD_MAX):
        call.give(i.CreateResponse(SAY))
    step = call.give(settled("call_1"))
    assert names(step) == ["tool.settled"] and not step.is_rejected


def test_a_turn_lets_go_of_the_calls_before_it_but_their_ids_stay_taken() -> None:
    """The reply to the turn has their results; a log of years would be walked at each step otherwise."""
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it, and what is on the screen")
    call_tool(call, "clock", "call_done")
    call_tool(call, "screen", "call_open", index=1)
    end_response(call)
    call.give(settled("call_done"))
    speak(call, "hurry", start=96_000)
    assert list(call.session.state.tools) == ["call_open"]
    call_tool(call, "clock", "call_done")
    (_, again) = call.session.state.tools
    assert again != "call_done", "an id names one call"


def test_a_call_of_a_reply_that_goes_on_is_not_let_go_by_a_turn() -> None:
    """The speech did not cut the reply: its results are spoken to when it has ended."""
    quiet = TurnDetection(interrupt_response=False)
    call = live_call(SessionConfig(tools=TOOLS, turn_detection=quiet))
    speak(call, "what time is it")
    call_tool(call, "clock")
    call.give(settled("call_1"))
    assert names(speak(call, "hurry", start=96_000))[-1] == "response.held"
    created = end_response(call).facts[-1]
    assert isinstance(created, f.ResponseCreated) and created.request.origin == "tool"


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


def test_a_call_that_a_client_runs_has_no_error_of_ours_when_it_is_cut() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "show it")
    call.give(i.CallStarted(1, active_id(call), 0, CallId("call_1"), "screen"))
    step = call.give(i.CancelResponse(conn=CONN))
    (cut, _) = step.facts
    assert isinstance(cut, f.OutputItemDone)
    assert (cut.item.type, cut.item.error, cut.item.server_label) == ("function_call", "", "")


@pytest.mark.parametrize(
    ("outcome", "said", "output", "error"),
    [
        ("succeeded", "8", "8", ""),
        ("succeeded", "", "", ""),
        ("failed", "no such part", "", "no such part"),
        ("failed", "", "", "failed"),
        ("cancelled", "", "", "cancelled"),
    ],
)
def test_the_item_of_a_call_that_we_ran_tells_its_outcome(
    outcome: Literal["succeeded", "failed", "cancelled"], said: str, output: str, error: str
) -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    step = call.give(i.ToolSettled(CallId("call_1"), 1, outcome, said))
    (fact,) = step.facts
    assert isinstance(fact, f.ToolSettled) and fact.item is not None
    assert (fact.item.output, fact.item.error, fact.outcome) == (output, error, outcome)
    assert (fact.item.type, fact.item.server_label) == ("mcp_call", "openline")
    assert step.effects == (e.AddItem(fact.item, fact.previous_item_id),)


def test_a_call_whose_item_was_deleted_still_has_its_outcome() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    call_tool(call, "clock")
    item = call.session.state.tools[CallId("call_1")].item_id
    call.give(i.DeleteItem(item, CONN))
    step = call.give(settled("call_1"))
    assert step.facts == (f.ToolSettled(CallId("call_1"), 1, "succeeded", None, None),)
    assert step.effects == ()


def test_a_tool_that_nobody_declared_is_the_client_s_and_one_of_the_response_is_taken_first() -> None:
    call = live_call(WITH_TOOLS)
    request = ResponseRequest(tools=(ToolSpec("screen", runner="gateway", timeout_ms=7, recovery="retry"),))
    call.give(i.CreateResponse(request, CONN))
    step = call_tool(call, "screen", "call_1")
    assert step.effects == (e.RunTool(CallId("call_1"), 1, "sess_test:call_1", "screen", '{"part":"M6"}', 7),)
    call_tool(call, "nobody", "call_2", index=1)
    tools = call.session.state.tools
    assert [(c.runner, c.recovery, c.timeout_ms) for c in tools.values()] == [
        ("gateway", "retry", 7), ("client", "ask", 30_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "label"),
    [("clock", "mcp_call", "openline"), ("screen", "function_call", ""), ("nobody", "function_call", "")],
)
def test_a_call_is_shown_by_who_runs_it_from_its_beginning(name: str, kind: str, label: str) -> None:
    call = live_call(WITH_TOOLS)
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    response = active_id(call)
    for given, status, arguments in (
        (i.CallStarted(1, response, 0, CallId("call_1"), name), "in_progress", ""),
        (i.CallFinished(1, response, 0, '{"count":12}'), "completed", '{"count":12}'),
    ):
        fact = call.give(given).facts[0]
        assert isinstance(fact, f.OutputItemAdded | f.OutputItemDone)
        item = fact.item
        assert (item.type, item.server_label, item.status, item.author) == (kind, label, status, "assistant")
        assert (item.name, item.call_id, item.arguments, item.error) == (name, "call_1", arguments, "")


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        ('"auto"', None),
        ('"none"', None),
        ('"required"', '"auto"'),
        ('{"type":"function","name":"clock"}', '"auto"'),
    ],
)
def test_the_reply_to_results_is_free_to_speak_whatever_call_was_forced(
    choice: str, asked: str | None
) -> None:
    call = live_call(SessionConfig(tools=TOOLS, tool_choice=choice))
    speak(call, "what time is it")
    call_tool(call, "clock")
    end_response(call)
    created = call.give(settled("call_1")).facts[-1]
    assert isinstance(created, f.ResponseCreated)
    assert created.request == ResponseRequest(origin="tool", tool_choice=asked)
