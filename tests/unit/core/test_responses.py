"""Responses: asked for, held, made, asked again, cancelled, given up."""

from __future__ import annotations

import pytest

from core_call import (
    CONN,
    SAY,
    WITH_TOOLS,
    active_id,
    begin_message,
    effects,
    finish_reply,
    finished_reply,
    live_call,
    names,
    reply_under_way,
    speak,
)
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import (
    AudioRange,
    Cut,
    Item,
    Limits,
    Modality,
    Part,
    Problem,
    ResponseRequest,
    SessionConfig,
    TurnDetection,
    Usage,
)
from openline.core.responses import HELD_MAX, OUT_OF_BAND_MAX
from openline.types import CallId, ConnectionId, ItemId, ResponseId

# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(("modality", "kind"), [("text", "refusal"), ("audio", "output_audio")])
def test_a_refusal_is_a_part_where_text_is_shown_and_speech_where_it_is_spoken(
    modality: Modality, kind: str
) -> None:
    call = live_call(SessionConfig(modality=modality))
    speak(call, "pick the lock")
    response = active_id(call)
    call.give(i.MessageStarted(call.session.state.link.epoch, response, 0, is_refusal=True))
    done = finish_reply(call, "I cannot help with that.").facts[-1]
    assert isinstance(done, f.ResponseDone)
    (item,) = done.output
    assert item.content == (Part(kind, "I cannot help with that."),)  # type: ignore[arg-type]  # one of its types
    assert item.is_refusal == (modality == "text")
    assert call.session.state.entries[item.id].item == item


def test_what_led_to_an_item_is_begun_and_ended_with_it_also_where_it_is_cut() -> None:
    call = live_call(SessionConfig(modality="text", tools=WITH_TOOLS.tools))
    speak(call, "how many")
    response, epoch = active_id(call), call.session.state.link.epoch
    call.give(i.MessageStarted(epoch, response, 0, reasoning=("{1}", "{2}")))
    call.give(i.CallStarted(epoch, response, 1, CallId("call_1"), "screen", ("{3}",)))
    call.give(i.CallFinished(epoch, response, 1, "{}"))
    step = call.give(i.CancelResponse(conn=CONN))
    done = step.facts[-1]
    assert isinstance(done, f.ResponseDone)
    assert [(item.type, item.reasoning) for item in done.output] == [
        ("function_call", ("{3}",)),
        ("message", ("{1}", "{2}")),
    ]
    assert all(call.session.state.entries[item.id].item.reasoning == item.reasoning for item in done.output)


@pytest.mark.parametrize(("modality", "budget_ms"), [("audio", 2_000), ("text", 9_000)])
def test_a_reply_that_is_written_may_take_longer_to_begin_than_one_that_is_spoken(
    modality: Modality, budget_ms: int
) -> None:
    call = live_call(
        SessionConfig(modality=modality), limits=Limits(silence_budget_ms=2_000, text_silence_ms=9_000)
    )
    speak(call, "what time is it")
    assert not call.advance(budget_ms - 1)
    (step,) = call.advance(1)
    assert names(step) == ["silence.exceeded"]


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


# ----------------------------------------------------------------------------------------------- too much


def test_agent_code_that_says_too_much_at_once_is_refused() -> None:
    call = live_call()
    for _ in range(1 + HELD_MAX):
        assert not call.give(i.CreateResponse(SAY)).is_rejected
    step = call.give(i.CreateResponse(SAY))
    assert step.is_rejected and not step.facts
    assert HELD_MAX == 8


# ------------------------------------------------------------------------------------------- late and misplaced


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
    config = SessionConfig(modality="text", voice="cedar", max_output_tokens=100, output_format="pcmu")
    own = ResponseRequest(modality="audio", voice="marin", max_output_tokens=7, output_format="pcma")
    for request, expected in (
        (ResponseRequest(), ("text", "cedar", 100, "pcmu")),
        (own, ("audio", "marin", 7, "pcma")),
    ):
        call = live_call(config)
        created = call.give(i.CreateResponse(request, CONN, "cmd_1")).facts[-1]
        assert isinstance(created, f.ResponseCreated)
        formed = (created.modality, created.voice, created.max_output_tokens, created.output_format)
        assert formed == expected
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
    assert list(call.session.state.entries) == []
    output = Item(ItemId(""), "function_call_output", "tool", call_id="call_1", output="8")
    settled_ = call.give(i.CreateItem(output, None, CONN)).facts[-1]
    assert settled_ == f.ToolSettled(CallId("call_1"), 0, "succeeded", None, None)


def test_what_is_still_played_out_of_band_is_not_told_to_the_next_link() -> None:
    """That is given the conversation, and this is no part of it."""
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(conversation="none"), CONN))
    (aside,) = call.session.state.responses
    call.give(i.MessageStarted(1, aside, 0))
    call.give(i.ResponseGenerated(1, aside, Usage()))
    call.give(i.LinkRenewed(1, "age"))
    assert call.give(i.MessageFinished(aside, 0, "aside", 900)).effects == ()


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


def test_a_response_that_was_released_as_it_was_made_ends_in_one_step() -> None:
    """As a model speaks in real time: the steps and facts are those of two, in one commit."""
    ends = []
    for is_released in (True, False):
        call = live_call()
        call.give(i.CreateResponse(ResponseRequest(), CONN))
        call.give(i.CreateResponse(ResponseRequest(), CONN))
        response = active_id(call)
        begin_message(call)
        steps = [call.give(i.ResponseGenerated(1, response, Usage(5, 6), "content_filter", is_released))]
        if not is_released:
            steps.append(call.give(i.ResponseReleased(response)))
        ends.append([fact for step in steps for fact in step.facts])
        assert call.give(i.ResponseReleased(response)).facts == (), "it is over"
    assert [fact.TYPE for fact in ends[0]] == [fact.TYPE for fact in ends[1]]
    assert ends[0][0].TYPE == "openline.response.generated" and "response.done" in {
        fact.TYPE for fact in ends[0]
    }


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


def test_a_finished_item_is_a_sign_of_life_and_the_words_of_a_turn_are_none() -> None:
    """The silence budget of 8 s runs from what the reply itself did last."""
    call = live_call(SessionConfig(turn_detection=None))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    item, response = begin_message(call), active_id(call)
    call.advance(5_000)
    call.give(i.MessageFinished(response, 0, "It is noon.", 2_000))
    assert call.wake_ms == 5_000 + 8_000
    call.advance(3_000)
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    (said,) = call.session.state.untranscribed
    call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(0, 24_000), said))
    assert call.wake_ms == 5_000 + 8_000
    (step,) = call.advance(5_000)
    assert names(step) == ["silence.exceeded", "response.done"]
    assert item in call.session.state.entries


def test_nobody_is_kept_waiting_who_is_not_there() -> None:
    call = live_call()
    speak(call, "what time is it")
    call.give(i.Detach(CONN))
    call.ms += 14_999
    assert call.give(i.TimePassed()).facts == ()


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


def test_what_was_asked_out_of_band_is_not_asked_for_again() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(conversation="none"), CONN))
    assert names(call.give(i.LinkLost(1, "link_unavailable"))) == [
        "link.lost",
        "response.done",
        "link.requested",
    ]


def test_a_response_of_which_nothing_more_comes_is_not_asked_again_in_silence() -> None:
    call = live_call()
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call.give(i.ResponseGenerated(1, active_id(call), Usage()))
    (step,) = call.advance(8_000)
    assert names(step) == ["silence.exceeded", "response.done"]
