"""Turns: the deterministic point at which what the user said is final, and every way out of a wait for it."""

from __future__ import annotations

import pytest

from core_call import CONN, Call, begin_message, finish_reply, live_call, names, speak
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Part, Problem, ResponseRequest, SessionConfig, TurnDetection
from openline.core.session import Step
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
            call.give(i.LinkOpened(2))
            call.give(i.TurnFailed(2, "audio_not_kept"))
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


def test_a_turn_whose_words_are_awaited_keeps_its_deadline_when_the_link_is_refused() -> None:
    """It may be that the words are on their way by another road; only who still speaks is cut off at once."""
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    call.give(i.SpeechStopped(1, 48_000))
    assert names(call.give(i.LinkLost(1, "link_rejected", permanent=True))) == ["link.lost"]
    (step,) = call.advance(10_000)
    assert names(step) == ["turn.abandoned"]


# ------------------------------------------------------------------------------------------------ typed turns


def test_what_agent_code_copies_in_is_no_turn_of_the_caller() -> None:
    """It was somebody's turn before, in the conversation that it comes from."""
    call = live_call()
    copied = Item(ItemId("then"), "message", "user", "user", content=(Part("input_text", "hello"),))
    call.give(i.CreateItem(copied))
    assert names(call.give(i.CreateResponse(ResponseRequest(), CONN))) == ["response.created"]


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


# ---------------------------------------------------------------------------------------- who may say something


def heard_by(call: Call, link: int) -> list[i.Input]:
    return [
        i.SpeechStarted(link, 96_000),
        i.SpeechStopped(link, 120_000),
        i.TurnFinal(link, "hello", 0.9, AudioRange(96_000, 120_000)),
        i.TurnFailed(link, "speech_failed"),
    ]


@pytest.mark.parametrize("is_open_turn", [True, False])
@pytest.mark.parametrize("which", range(4))
def test_a_link_that_is_gone_says_nothing(which: int, is_open_turn: bool) -> None:
    call = live_call()
    call.give(i.LinkLost(1, "link_unavailable"))
    assert call.give(heard_by(call, 2)[which]).facts == (), "the next one is not open yet"
    call.give(i.LinkOpened(2))
    if is_open_turn:
        call.give(i.SpeechStarted(2, 72_000))
    assert call.give(heard_by(call, 1)[which]).facts == ()


def test_without_a_detector_nobody_starts_and_a_turn_that_was_open_gets_no_reply() -> None:
    manual = live_call(SessionConfig(turn_detection=None))
    assert manual.give(i.SpeechStarted(1, 24_000)).facts == ()
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    call.give(i.UpdateConfig(SessionConfig(turn_detection=None), CONN))
    step = call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(24_000, 48_000)))
    assert names(step) == ["input_audio_buffer.speech_stopped", "turn.committed"]


def test_a_client_that_replies_itself_gets_the_commit_and_nothing_is_prepared() -> None:
    call = live_call(SessionConfig(turn_detection=TurnDetection(create_response=False)), prepares=True)
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call.give(i.SpeechStarted(1, 24_000))
    call.give(i.CreateResponse(ResponseRequest(verbatim="One moment.", origin="agent")))
    step = speak_on(call)
    assert names(step) == ["turn.committed"]
    assert call.session.state.preparing is None


def speak_on(call: Call) -> Step:
    call.give(i.SpeechStopped(1, 48_000))
    return call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(24_000, 48_000)))


def test_what_agent_code_waits_to_say_is_said_after_a_turn_without_a_reply() -> None:
    call = live_call(SessionConfig(turn_detection=TurnDetection(create_response=False)))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    call.give(i.CreateResponse(ResponseRequest(verbatim="One moment.", origin="agent")))
    assert names(call.give(i.SpeechStarted(1, 24_000)))[-1] == "response.done"
    assert names(speak_on(call)) == ["turn.committed", "response.created"]


def test_a_turn_without_words_is_noise_and_one_whose_words_follow_is_not() -> None:
    for text, last in ((" ", "turn.abandoned"), (None, "response.created")):
        call = live_call()
        call.give(i.SpeechStarted(1, 24_000))
        step = call.give(i.TurnFinal(1, text, None, AudioRange(24_000, 48_000)))
        assert names(step)[-1] == last


def test_words_that_never_come_for_a_turn_whose_words_were_to_follow() -> None:
    call = live_call(SessionConfig(turn_detection=None))
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    (item,) = call.session.state.untranscribed
    (fact,) = call.give(i.TurnFinal(1, None, None, AudioRange(0, 24_000), item)).facts
    assert isinstance(fact, f.TurnTranscribed)
    assert (fact.text, fact.failed, fact.audio_ms) == ("", "", 1_000)


def test_texts_and_failures_go_to_the_item_that_they_name() -> None:
    call = live_call()
    call.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    (pending,) = call.session.state.untranscribed
    call.give(i.SpeechStarted(1, 48_000))
    assert call.give(i.TurnFailed(1, "speech_failed", ItemId("item_9"))).facts == ()
    assert call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(48_000, 72_000), ItemId("item_9"))).facts == ()
    assert names(call.give(i.TurnFailed(1, "speech_failed", pending))) == ["turn.transcribed"]
    turn = call.session.state.turn
    assert turn is not None
    assert names(call.give(i.TurnFailed(1, "speech_failed", turn.item_id))) == ["turn.abandoned"]
    assert call.give(i.TurnFailed(1, "speech_failed")).facts == ()


def test_a_recognized_turn_is_taken_by_its_id_whatever_its_audio_says() -> None:
    call = live_call()
    call.give(i.SpeechStarted(1, 48_000))
    turn = call.session.state.turn
    assert turn is not None
    step = call.give(i.TurnFinal(1, "hello", 0.9, AudioRange(0, 0), turn.item_id))
    assert "turn.committed" in names(step)
    other = live_call()
    other.give(i.SpeechStarted(1, 48_000))
    assert other.give(i.TurnFinal(1, "hello", 0.9, AudioRange(0, 48_000))).facts == ()
    assert other.give(i.TurnFinal(1, "hello", 0.9, AudioRange(0, 48_001))).facts != ()


# ---------------------------------------------------------------------------------------------- manual commits


@pytest.mark.parametrize(("samples", "accepted"), [(2_399, False), (2_400, True)])
def test_a_commit_takes_at_least_100_ms(samples: int, accepted: bool) -> None:
    call = live_call(SessionConfig(turn_detection=None))
    step = call.give(i.CommitAudio(AudioRange(0, samples), CONN, "cmd_1"))
    assert bool(step.facts) == accepted
    if not accepted:
        message = (
            "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
            "but buffer only has 99.00ms of audio."
        )
        assert step.effects == (
            e.SendError(CONN, "cmd_1", Problem("input_audio_buffer_commit_empty", message)),
        )


def test_a_commit_in_the_middle_of_speech_ends_that_speech_and_is_its_turn() -> None:
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    turn = call.session.state.turn
    assert turn is not None
    step = call.give(i.CommitAudio(AudioRange(24_000, 60_000), CONN))
    stopped, committed = step.facts
    assert isinstance(stopped, f.SpeechStopped) and isinstance(committed, f.TurnCommitted)
    assert (stopped.turn_id, stopped.end, stopped.audio_end_ms) == (turn.turn_id, 60_000, 2_500)
    assert committed.turn_id == turn.turn_id
    assert committed.item is not None
    assert (committed.item.id, committed.item.turn_id) == (turn.item_id, turn.turn_id)
    assert (committed.conn, committed.prepares) == (CONN, False)
    assert call.session.state.turn is None


# ------------------------------------------------------------------------------------------ after a crash


@pytest.mark.parametrize(
    ("stopped_at", "recorded_until", "kept"),
    [
        (None, 26_400, True),
        (None, 26_399, False),
        (None, 0, False),
        (60_000, 60_000, True),
        (60_000, 59_999, False),
        (60_000, 90_000, True),
        (26_399, 90_000, False),
    ],
)
def test_speech_is_recognized_again_if_the_recording_holds_it_whole(
    stopped_at: int | None, recorded_until: int, kept: bool
) -> None:
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    if stopped_at is not None:
        call.give(i.SpeechStopped(1, stopped_at))
    step = call.crash(recorded_until)
    turn = call.session.state.turn
    assert (turn is not None) == kept
    if turn is not None:
        assert (turn.phase, turn.end) == ("deciding", stopped_at or recorded_until)
    else:
        abandoned = step.facts[-1]
        assert isinstance(abandoned, f.TurnAbandoned) and abandoned.reason == "crash"


def test_a_preparation_may_take_300_ms_and_a_transcript_10_s() -> None:
    call = live_call(prepares=True)
    speak(call, "what time is it")
    assert call.advance(299) == []
    assert len(call.advance(1)) == 1
    silent = live_call()
    silent.give(i.SpeechStarted(1, 24_000))
    assert silent.advance(60_000) == [], "somebody who speaks is not waited for"
    silent.give(i.SpeechStopped(1, 48_000))
    assert silent.advance(9_999) == []
    (step,) = silent.advance(1)
    (fact,) = step.facts
    assert isinstance(fact, f.TurnAbandoned) and fact.reason == "timeout"


def test_a_wake_up_that_comes_too_early_ends_no_wait() -> None:
    preparing = live_call(prepares=True)
    speak(preparing, "what time is it")
    speaking = live_call()
    speaking.give(i.SpeechStarted(1, 24_000))
    speaking.ms += 30_000
    deciding = live_call()
    deciding.give(i.SpeechStarted(1, 24_000))
    deciding.give(i.SpeechStopped(1, 48_000))
    pending = live_call(SessionConfig(turn_detection=None))
    pending.give(i.CommitAudio(AudioRange(0, 24_000), CONN))
    for call in (preparing, speaking, deciding, pending):
        call.ms += 200
        assert call.give(i.TimePassed()).facts == ()


def test_with_nobody_there_the_window_ends_the_wait_for_words_and_nothing_else_does() -> None:
    call = live_call()
    call.give(i.SpeechStarted(1, 24_000))
    call.give(i.SpeechStopped(1, 48_000))
    call.crash(recorded_until=48_000)
    (step,) = call.advance(30_000)
    abandoned, parked = step.facts
    assert isinstance(abandoned, f.TurnAbandoned) and abandoned.reason == "resume_window"
    assert isinstance(parked, f.SessionParked)


def test_a_reply_that_the_client_asked_for_meanwhile_takes_the_place_of_the_one_that_was_cut() -> None:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    call.give(i.SpeechStarted(1, 96_000))
    call.give(i.CreateResponse(ResponseRequest(), CONN))
    assert names(call.give(i.TurnFinal(1, "", None, AudioRange(96_000, 98_000)))) == [
        "input_audio_buffer.speech_stopped", "turn.abandoned",
    ]  # fmt: skip
