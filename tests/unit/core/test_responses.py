"""Responses and tool calls: what is asked again, what is held, what is dropped, and who is told."""

from __future__ import annotations

from typing import Literal

import pytest

from core_call import (
    CONN,
    Call,
    active_id,
    begin_message,
    call_tool,
    effects,
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
    HeardSource,
    Item,
    Modality,
    Part,
    Problem,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    TurnDetection,
    Usage,
)
from openline.core.responses import HELD_MAX, OUT_OF_BAND_MAX, TOOL_REPLIES_MAX
from openline.types import CallId, ConnectionId, ItemId, ResponseId

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


# ------------------------------------------------------------------------------------------- late and misplaced


def reply_under_way() -> tuple[Call, ResponseId]:
    """A reply with a message at 0 and a call at 1, both open."""
    call = live_call(WITH_TOOLS)
    speak(call, "what time is it")
    begin_message(call)
    response = active_id(call)
    call.give(i.CallStarted(1, response, 1, CallId("call_1"), "clock"))
    return call, response


def said_by(link: int, response: ResponseId, index: int) -> list[i.Input]:
    problem = Problem("server_error", "The model could not finish.", "server_error")
    return [
        i.MessageStarted(link, response, index),
        i.CallStarted(link, response, index, CallId("call_2"), "clock"),
        i.CallFinished(link, response, index, "{}"),
        i.ResponseGenerated(link, response, Usage()),
        i.ResponseFailed(link, response, problem),
    ]


@pytest.mark.parametrize("which", range(5))
def test_what_a_link_that_is_gone_says_of_a_response_is_discarded(which: int) -> None:
    call, response = reply_under_way()
    index = 1 if which == 2 else 2
    assert call.give(said_by(0, response, index)[which]).facts == ()
    assert call.give(said_by(1, ResponseId("resp_unknown"), index)[which]).facts == ()
    assert call.give(said_by(1, response, index)[which]).facts != ()


@pytest.mark.parametrize("which", range(5))
def test_nothing_more_comes_for_a_response_that_was_generated(which: int) -> None:
    call, response = reply_under_way()
    call.give(i.ResponseGenerated(1, response, Usage()))
    assert call.give(said_by(1, response, 1 if which == 2 else 2)[which]).facts == ()


def test_an_output_index_names_one_item_of_one_kind() -> None:
    call, response = reply_under_way()
    cut = Cut(ItemId("item_9"), "It is", 900, 300, "paced")
    misplaced: list[i.Input] = [
        i.MessageStarted(1, response, 0),
        i.MessageStarted(1, response, 1),
        i.CallStarted(1, response, 0, CallId("call_2"), "clock"),
        i.CallStarted(1, response, 1, CallId("call_2"), "clock"),
        i.MessageFinished(response, 1, "It is noon.", 900),
        i.MessageFinished(response, 2, "It is noon.", 900),
        i.MessageFinished(ResponseId("resp_unknown"), 0, "It is noon.", 900),
        i.MessageProgress(response, 2, cut),
        i.MessageProgress(ResponseId("resp_unknown"), 0, cut),
        i.CallFinished(1, response, 0, "{}"),
        i.CallFinished(1, response, 2, "{}"),
        i.ResponseReleased(response),
        i.ResponseReleased(ResponseId("resp_unknown")),
    ]
    for given in misplaced:
        assert call.give(given).facts == (), given


def test_an_item_ends_once() -> None:
    call, response = reply_under_way()
    call.give(i.MessageFinished(response, 0, "It is noon.", 900))
    call.give(i.CallFinished(1, response, 1, "{}"))
    cut = Cut(ItemId("item_9"), "It is", 900, 300, "paced")
    for given in (
        i.MessageFinished(response, 0, "It is noon.", 900),
        i.MessageProgress(response, 0, cut),
        i.CallFinished(1, response, 1, "{}"),
    ):
        assert call.give(given).facts == ()


# ------------------------------------------------------------------------------------------------ asking


def test_a_response_is_asked_with_its_own_wishes_or_with_the_session_s() -> None:
    config = SessionConfig(modality="text", voice="cedar", max_output_tokens=100)
    for request, expected in (
        (ResponseRequest(), ("text", "cedar", 100)),
        (ResponseRequest(modality="audio", voice="marin", max_output_tokens=7), ("audio", "marin", 7)),
    ):
        call = live_call(config)
        created = call.give(i.CreateResponse(request, CONN, "cmd_1")).facts[-1]
        assert isinstance(created, f.ResponseCreated)
        assert (created.modality, created.voice, created.max_output_tokens) == expected
        assert (created.conn, created.command, created.attempt, created.turn_id) == (CONN, "cmd_1", 1, None)


def test_out_of_band_responses_are_bounded_and_say_so() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    aside = ResponseRequest(conversation="none")
    for _ in range(OUT_OF_BAND_MAX):
        assert not call.give(i.CreateResponse(aside, CONN)).is_rejected
    message = "Expected at most 8 out-of-band responses at once; wait for one to finish."
    step = call.give(i.CreateResponse(aside, CONN, "cmd_1"))
    assert step.effects == (e.SendError(CONN, "cmd_1", Problem("rate_limit_exceeded", message)),)
    assert OUT_OF_BAND_MAX == 8


def test_nothing_out_of_band_disturbs_the_conversation() -> None:
    call = live_call(WITH_TOOLS)
    call.give(i.CreateResponse(ResponseRequest(conversation="none", metadata=(("k", "v"),)), CONN))
    (aside,) = call.session.state.responses
    call.give(i.MessageStarted(1, aside, 0))
    call.give(i.MessageFinished(aside, 0, "aside", 900))
    call.give(i.CallStarted(1, aside, 1, CallId("call_1"), "screen"))
    call.give(i.CallFinished(1, aside, 1, "{}"))
    call.give(i.ResponseGenerated(1, aside, Usage()))
    done = call.give(i.ResponseReleased(aside)).facts[-1]
    assert isinstance(done, f.ResponseDone)
    assert (done.is_in_conversation, done.metadata, len(done.output)) == (False, (("k", "v"),), 2)
    assert call.session.state.order == []
    output = Item(ItemId(""), "function_call_output", "tool", call_id="call_1", output="8")
    settled_ = call.give(i.CreateItem(output, None, CONN)).facts[-1]
    assert settled_ == f.ToolSettled(CallId("call_1"), 0, "succeeded", None, None)


@pytest.mark.parametrize(
    ("reason", "status", "told"),
    [("completed", "completed", ""), ("content_filter", "incomplete", "content_filter")],
)
def test_a_response_ends_as_it_was_generated(reason: str, status: str, told: str) -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    response = active_id(call)
    begin_message(call)
    call.give(i.ResponseGenerated(1, response, Usage(5, 6), reason))
    done = call.give(i.ResponseReleased(response)).facts[-1]
    assert isinstance(done, f.ResponseDone)
    assert (done.status, done.reason, done.problem, done.usage) == (status, told, None, Usage(5, 6))


# ---------------------------------------------------------------------------------------------- what was heard


def finished_reply() -> tuple[Call, ItemId]:
    call = live_call()
    speak(call, "tell me a story")
    item = begin_message(call)
    finish_reply(call, "Once upon a time there was a sailor.", 4_000)
    return call, item


@pytest.mark.parametrize(
    ("first", "second", "after_ms", "taken"),
    [
        (("paced", 2_000), ("assumed", 3_000), 0, False),
        (("paced", 2_000), ("reported", 1_000), 0, True),
        (("paced", 2_000), ("paced", 2_000), 0, False),
        (("paced", 2_000), ("reported", 2_000), 0, True),
        (("paced", 2_000), ("paced", 1_000), 2_000, True),
        (("paced", 2_000), ("paced", 1_000), 2_001, False),
        (("paced", 2_000), ("reported", 1_000), 2_001, False),
        (("paced", 2_000), ("paced", 2_001), 2_001, True),
        (("paced", 0), ("paced", 1), 2_001, True),
        (("paced", 2_000), ("reported", 2_000), 2_001, False),
    ],
)
def test_which_word_counts_for_what_was_heard(
    first: tuple[HeardSource, int], second: tuple[HeardSource, int], after_ms: int, taken: bool
) -> None:
    call, item = finished_reply()
    call.give(i.Heard(Cut(item, "", 4_000, first[1], first[0])))
    call.ms += after_ms
    step = call.give(i.Heard(Cut(item, "", 4_000, second[1], second[0])))
    assert names(step) == (["item.heard"] if taken else [])


def test_a_client_may_say_late_what_was_heard_and_its_word_stands() -> None:
    call, item = finished_reply()
    call.give(i.Heard(Cut(item, "", 4_000, 2_000, "reported")))
    call.ms += 60_000
    assert names(call.give(i.TruncateItem(item, 0, 1_000, CONN))) == [
        "conversation.item.truncated",
        "item.heard",
    ]
    assert call.give(i.Heard(Cut(item, "", 4_000, 4_000, "reported"))).facts == ()


def test_more_than_all_of_an_item_is_all_of_it_and_the_model_need_not_be_told() -> None:
    call, item = finished_reply()
    step = call.give(i.Heard(Cut(item, "", 4_000, 4_100, "reported")))
    assert step.facts == (f.ItemHeard(item, 4_000, 36, "reported", False),)
    assert step.effects == ()


def test_how_long_an_item_was_is_taken_from_the_cut_where_nobody_else_knows() -> None:
    call = live_call()
    spoken = Item(
        ItemId("said"), "message", "assistant", "assistant", content=(Part("output_audio", "It is noon."),)
    )
    call.give(i.CreateItem(spoken, None, CONN))
    step = call.give(i.Heard(Cut(ItemId("said"), "", 1_000, 600, "reported")))
    assert step.facts == (f.ItemHeard(ItemId("said"), 600, 5, "reported", True),)
    assert step.effects == (e.CutItem(ItemId("said"), 600, "It is"),)


def test_nothing_is_heard_of_an_item_that_is_being_made_or_is_not_there() -> None:
    call = live_call()
    speak(call, "tell me a story")
    item = begin_message(call)
    for unknown in (item, ItemId("item_9")):
        assert call.give(i.Heard(Cut(unknown, "Once", 900, 300, "reported"))).facts == ()


def test_a_barge_in_cuts_what_still_plays_and_leaves_what_was_heard_whole() -> None:
    call, item = finished_reply()
    whole = Cut(item, "", 4_000, 4_000, "paced")
    step = call.give(i.SpeechStarted(1, 240_000, (whole, Cut(ItemId("item_9"), "", 900, 1, "paced"))))
    assert names(step) == ["input_audio_buffer.speech_started"]


def test_a_cut_of_an_open_call_and_of_open_text_is_no_matter_of_hearing() -> None:
    call, response = reply_under_way()
    outputs = call.session.state.responses[response].outputs
    cuts = tuple(Cut(output.item_id, "It is noon.", 2_000, 900, "paced", 5) for output in outputs.values())
    step = call.give(i.CancelResponse(None, cuts, conn=CONN))
    assert names(step) == [
        "response.output_item.done", "item.heard", "response.output_item.done", "response.done",
    ]  # fmt: skip
    message, _, cancelled, done = step.facts
    assert isinstance(message, f.OutputItemDone) and isinstance(cancelled, f.OutputItemDone)
    assert (message.shown_end, message.audio_ms, message.item.text) == (5, 2_000, "It is noon.")
    assert (cancelled.shown_end, cancelled.item.arguments, cancelled.item.status) == (0, "", "incomplete")
    assert cancelled.item.error == "cancelled before it was complete"
    written = live_call(SessionConfig(modality="text"))
    speak(written, "what time is it")
    item = begin_message(written)
    step = written.give(i.CancelResponse(None, (Cut(item, "It is", 0, 0, "paced"),), conn=CONN))
    assert names(step) == ["response.output_item.done", "response.done"]
    (shown, *_) = step.facts
    assert isinstance(shown, f.OutputItemDone)
    assert (shown.shown_end, shown.audio_ms, shown.item.content[0].text) == (5, 0, "It is")


def test_a_call_that_a_client_runs_has_no_error_of_ours_when_it_is_cut() -> None:
    call = live_call(WITH_TOOLS)
    speak(call, "show it")
    call.give(i.CallStarted(1, active_id(call), 0, CallId("call_1"), "screen"))
    step = call.give(i.CancelResponse(conn=CONN))
    (cut, _) = step.facts
    assert isinstance(cut, f.OutputItemDone)
    assert (cut.item.type, cut.item.error, cut.item.server_label) == ("function_call", "", "")


# ---------------------------------------------------------------------------------------------------- outcomes


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


# ---------------------------------------------------------------------------------------------------- silence


def test_a_response_that_waits_for_its_link_is_not_stopped_on_one() -> None:
    call = live_call()
    call.give(i.LinkLost(1, "link_unavailable"))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    (retried,) = call.advance(8_000)
    assert effects(retried) == []
    (given_up,) = call.advance(8_000)
    assert effects(given_up) == ["ClearPlayout"]


def test_a_reply_that_is_only_played_is_not_stopped_on_the_link_when_its_playing_stalls() -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    call.give(i.ResponseGenerated(1, active_id(call), Usage()))
    (step,) = call.advance(8_000)
    assert effects(step) == ["ClearPlayout", "CutItem"]
    (exceeded, *_) = step.facts
    assert isinstance(exceeded, f.SilenceExceeded)
    assert (exceeded.waited_ms, exceeded.action) == (8_000, "give_up")


def test_nobody_is_kept_waiting_who_is_not_there() -> None:
    call = live_call()
    speak(call, "what time is it")
    call.give(i.Detach(CONN))
    call.ms += 20_000
    assert call.give(i.TimePassed()).facts == ()


def test_of_what_others_said_nothing_is_heard() -> None:
    call = live_call()
    speak(call, "what time is it")
    (said,) = call.session.state.order
    assert call.give(i.Heard(Cut(said, "what time is it", 1_000, 300, "reported"))).facts == ()


def test_what_is_held_waits_for_somebody_to_hear_it() -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    call.give(i.CreateResponse(SAY))
    call.give(i.Detach(CONN))
    assert names(finish_reply(call)) == ["response.done"]
    assert "response.created" in names(call.give(i.Attach(ConnectionId("again"), "texter")))


def test_a_reply_that_only_plays_is_not_asked_for_again_when_words_arrive_on_a_new_link() -> None:
    call = live_call(SessionConfig(turn_detection=None))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    begin_message(call)
    call.give(i.ResponseGenerated(1, active_id(call), Usage()))
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    call.give(i.LinkLost(1, "link_unavailable"))
    call.give(i.LinkOpened(2))
    (item,) = call.session.state.untranscribed
    step = call.give(i.TurnFinal(2, "hello", 0.9, AudioRange(0, 24_000), item))
    assert effects(step) == ["AddItem"]


def test_what_is_held_waits_until_the_user_has_finished() -> None:
    detection = TurnDetection(interrupt_response=False, create_response=False)
    call = live_call(SessionConfig(turn_detection=detection))
    call.give(i.CreateResponse(SAY))
    begin_message(call)
    call.give(i.CreateResponse(SAY))
    call.give(i.SpeechStarted(1, 24_000))
    assert names(finish_reply(call)) == ["response.done"]
    assert "response.created" in names(call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(24_000, 48_000))))


@pytest.mark.parametrize(
    ("modality", "verbatim", "part", "author"),
    [
        ("audio", None, "output_audio", "assistant"),
        ("text", None, "output_text", "assistant"),
        ("audio", "One moment.", "output_audio", "synthetic"),
    ],
)
def test_an_output_item_says_what_it_is_and_who_wrote_it(
    modality: Modality, verbatim: str | None, part: str, author: str
) -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(modality=modality, verbatim=verbatim), CONN))
    item = begin_message(call)
    begun = call.session.state.entries[item].item
    finish_reply(call)
    made = call.session.state.entries[item].item
    for known, text, status in ((begun, "", "in_progress"), (made, "It is noon.", "completed")):
        assert (known.type, known.role, known.author, known.status) == (
            "message",
            "assistant",
            author,
            status,
        )
        assert known.content == (Part(part, text),)  # type: ignore[arg-type]  # one of the two


# ------------------------------------------------------------------------------------------------ cancelling


def test_only_what_was_asked_of_the_link_and_still_is_made_is_stopped_there() -> None:
    waiting = live_call()
    waiting.give(i.LinkLost(1, "link_unavailable"))
    waiting.give(i.CreateResponse(ResponseRequest(), CONN))
    assert effects(waiting.give(i.CancelResponse(conn=CONN))) == ["ClearPlayout"]
    made = live_call()
    made.give(i.CreateResponse(ResponseRequest(), CONN))
    made.give(i.ResponseGenerated(1, active_id(made), Usage()))
    assert effects(made.give(i.CancelResponse(conn=CONN))) == ["ClearPlayout"]
    asked = live_call()
    asked.give(i.CreateResponse(ResponseRequest(), CONN))
    assert effects(asked.give(i.CancelResponse(conn=CONN))) == ["ClearPlayout", "StopResponse"]


def test_the_response_that_is_named_is_cancelled_and_no_other() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call.give(i.CreateResponse(ResponseRequest(conversation="none"), CONN))
    default, aside = call.session.state.responses
    call.give(i.CancelResponse(aside, conn=CONN))
    assert list(call.session.state.responses) == [default]
    assert call.give(i.CancelResponse(aside, conn=CONN)).is_rejected


def test_a_cancel_cuts_what_still_plays_and_lets_what_waits_be_said() -> None:
    call, item = finished_reply()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call.give(i.CreateResponse(SAY))
    step = call.give(i.CancelResponse(None, (Cut(item, "", 4_000, 1_000, "paced"),), conn=CONN))
    assert names(step) == ["response.done", "item.heard", "response.created"]


def test_a_cut_is_noted_for_the_message_that_is_being_made_and_for_nothing_else() -> None:
    call, response = reply_under_way()
    call.give(i.MessageFinished(response, 0, "It is noon.", 900))
    call.give(i.MessageStarted(1, response, 2))
    outputs = call.session.state.responses[response].outputs
    cuts = tuple(Cut(output.item_id, "It is", 900, 900, "paced") for output in outputs.values())
    step = call.give(i.Detach(CONN, 1006, cuts=cuts))
    assert step.facts[1:] == (f.OutputItemProgressed(outputs[2].item_id, "It is", 900, 900),)


def test_how_long_an_item_was_is_what_was_said_when_it_ended() -> None:
    call, item = finished_reply()
    (fact,) = call.give(i.Heard(Cut(item, "", 9_000, 2_000, "reported"))).facts
    assert fact == f.ItemHeard(item, 2_000, 16, "reported", True)


def test_what_was_asked_out_of_band_is_not_asked_for_again() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(conversation="none"), CONN))
    assert names(call.give(i.LinkLost(1, "link_unavailable"))) == [
        "link.lost",
        "response.done",
        "link.requested",
    ]


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


def test_a_response_of_which_nothing_more_comes_is_not_asked_again_in_silence() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call.give(i.ResponseGenerated(1, active_id(call), Usage()))
    (step,) = call.advance(8_000)
    assert names(step) == ["silence.exceeded", "response.done"]
