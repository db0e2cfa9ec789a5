"""Turns: who has the floor, and the deterministic point at which the user's turn is final."""

from __future__ import annotations

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.audio import ms_of_samples, samples_of_ms
from openline.core.draft import Draft
from openline.core.model import AudioRange, Item, Part, ResponseRequest
from openline.core.responses import interrupt, next_held, note_heard, reply, start_waiting, waiting
from openline.core.state import State
from openline.core.tables import is_legal
from openline.core.value import replace
from openline.types import ConnectionId, ItemId, TurnId

IDLE_TURNS_MAX = 10
"""Turns of silence in a row: whoever does not answer ten times has left the line open and gone away."""
COMMIT_MIN_MS = 100
"""Shortest audio that a client may commit (openai-protocols.md B.6, observed error text)."""


def _is_stale(draft: Draft, link_epoch: int) -> bool:
    return link_epoch != draft.state.link.epoch or draft.state.link.phase != "open"


def speech_started(draft: Draft, input_: i.SpeechStarted) -> None:
    state = draft.state
    detection = state.config.turn_detection
    if _is_stale(draft, input_.link_epoch) or detection is None:
        return
    if state.turn is not None:
        if state.speaks_unheard:
            draft.fact(f.TurnContinued(state.turn.turn_id, state.turn.item_id, input_.link_epoch))
        return
    if state.active is not None:
        # Before the turn opens: whether the reply was heard decides if noise brings it back.
        note_heard(draft, state.active, input_.cuts)
    turn_id, item_id = TurnId(draft.new_id("turn")), ItemId(draft.new_id("item"))
    draft.fact(f.SpeechStarted(turn_id, item_id, input_.start, ms_of_samples(input_.start)))
    if detection.interrupt_response:
        interrupt(draft, input_.cuts)


def speech_stopped(draft: Draft, input_: i.SpeechStopped) -> None:
    if not _is_stale(draft, input_.link_epoch):
        _stop_speech(draft, input_.end)


def _stop_speech(draft: Draft, end: int) -> None:
    turn = draft.state.turn
    if turn is not None and is_legal("turn", turn.phase, "speech_stopped"):
        draft.fact(f.SpeechStopped(turn.turn_id, turn.item_id, end, ms_of_samples(end)))


def turn_final(draft: Draft, input_: i.TurnFinal) -> None:
    """The recognizer has the turn's text: the turn commit of detected speech, or the text of a manual one."""
    if _is_stale(draft, input_.link_epoch):
        return
    turn = draft.state.turn
    if input_.item_id is None:
        # The audio says which turn is meant: the text of an earlier one may come this late.
        if turn is not None and input_.audio.end > turn.start:
            _commit_speech(draft, input_)
    elif input_.item_id in draft.state.untranscribed:
        _transcribed(draft, input_.item_id, input_.text or "", input_.confidence, "")
    elif turn is not None and input_.item_id == turn.item_id:
        _commit_speech(draft, input_)


def _commit_speech(draft: Draft, input_: i.TurnFinal) -> None:
    turn = draft.state.turn
    assert turn is not None
    _stop_speech(draft, input_.audio.end)
    if input_.text is not None and not input_.text.strip():
        abandon_turn(draft, "no_speech")
        return
    item = _spoken(turn.turn_id, turn.item_id, input_.text, input_.audio)
    _commit(draft, turn.turn_id, item, input_.confidence)


def _spoken(turn_id: TurnId, item_id: ItemId, text: str | None, audio: AudioRange) -> Item:
    part = Part("input_audio", text, audio)
    return Item(item_id, "message", "user", "user", content=(part,), turn_id=turn_id)


def _commit(draft: Draft, turn_id: TurnId, item: Item, confidence: float | None) -> None:
    """The turn commit of what a detector took for a turn, and the reply to it."""
    state = draft.state
    detection = state.config.turn_detection
    is_answered = state.config.purpose == "realtime"
    replies = is_answered and detection is not None and detection.create_response
    prepares = replies and state.prepares_replies
    text = item.content[0].text
    draft.fact(
        f.TurnCommitted(turn_id, text, confidence, item, state.last_item_id(), (), ConnectionId(""), prepares)
    )
    draft.effect(e.AddItem(item, None))
    if prepares:
        draft.effect(e.PrepareReply(turn_id))
    elif replies:
        reply(draft, ResponseRequest(origin="turn"), turn_id)
    else:
        next_held(draft)


def turn_failed(draft: Draft, input_: i.TurnFailed) -> None:
    if _is_stale(draft, input_.link_epoch):
        return
    turn = draft.state.turn
    if input_.item_id is None or (turn is not None and turn.item_id == input_.item_id):
        abandon_turn(draft, "link_lost" if draft.state.speaks_unheard else "error")
    elif input_.item_id in draft.state.untranscribed:
        _transcribed(draft, input_.item_id, "", None, input_.reason)


def abandon_turn(draft: Draft, reason: str) -> None:
    """The open turn ends without an item. A reply that it cancelled before anybody heard it comes back.

    Whatever the reason: what was said is lost, and silence would leave the turn before it unanswered.
    """
    turn = draft.state.turn
    if turn is None:
        return
    draft.fact(f.TurnAbandoned(turn.turn_id, turn.item_id, reason))
    if turn.unheard is not None and draft.state.active is None:
        reply(draft, turn.unheard)
    else:
        next_held(draft)


def _transcribed(draft: Draft, item_id: ItemId, text: str, confidence: float | None, failed: str) -> None:
    turn_id, audio, _ = draft.state.untranscribed[item_id]
    waited = waiting(draft)
    draft.fact(f.TurnTranscribed(turn_id, item_id, text, confidence, audio.duration_ms, failed))
    entry = draft.state.entries.get(item_id)
    if entry is not None:
        draft.effect(e.AddItem(entry.item, None))
    start_waiting(draft, waited)


def commit_audio(draft: Draft, input_: i.CommitAudio) -> None:
    """The client ends the turn itself; the reply comes when it asks for one."""
    state = draft.state
    buffered_ms = input_.audio.duration_ms
    if buffered_ms < COMMIT_MIN_MS:
        draft.reject(
            input_.conn,
            input_.command,
            "input_audio_buffer_commit_empty",
            "Error committing input audio buffer: buffer too small. Expected at least "
            f"{COMMIT_MIN_MS}ms of audio, but buffer only has {buffered_ms}.00ms of audio.",
        )
        return
    turn = state.turn
    turn_id = turn.turn_id if turn else TurnId(draft.new_id("turn"))
    item_id = turn.item_id if turn else ItemId(draft.new_id("item"))
    _stop_speech(draft, input_.audio.end)
    item = _spoken(turn_id, item_id, None, input_.audio)
    draft.fact(
        f.TurnCommitted(turn_id, None, None, item, state.last_item_id(), (), input_.conn, prepares=False)
    )
    if state.link.phase == "open":
        draft.effect(e.TranscribeAudio(item_id, input_.audio))


def clear_audio(draft: Draft, input_: i.ClearAudio) -> None:
    draft.fact(f.InputCleared(input_.conn, input_.command))
    draft.effect(e.DropAudio())
    abandon_turn(draft, "cleared")


def reply_prepared(draft: Draft, input_: i.ReplyPrepared) -> None:
    preparing = draft.state.preparing
    if preparing is None or preparing[0] != input_.turn_id:
        return
    if input_.drop:
        draft.fact(f.ReplyDropped(input_.turn_id, "agent"))
        next_held(draft)
    else:
        reply(draft, replace(input_.request, origin="turn"), input_.turn_id)


def idle_deadline_ns(state: State) -> int | None:
    """When silence becomes a turn and the agent speaks up by itself; None while nobody is waited for."""
    lull, detection = state.lull, state.config.turn_detection
    if lull is None or lull.unplayed or detection is None or detection.idle_timeout_ms is None:
        return None
    is_bound = state.idle_turns >= IDLE_TURNS_MAX or not detection.create_response
    if is_bound or state.turn is not None or state.link.phase != "open":
        return None
    return lull.since_ns + detection.idle_timeout_ms * 1_000_000


def check_idle(draft: Draft, heard_until: int) -> None:
    """The idle timeout: the silence since the reply is the user's turn, and is answered."""
    deadline, lull = idle_deadline_ns(draft.state), draft.state.lull
    if deadline is None or draft.now.mono_ns < deadline:
        return
    assert lull is not None, "it is what the deadline is counted from"
    start = max(0, heard_until - samples_of_ms(draft.elapsed_ms(lull.since_ns)))
    audio = AudioRange(start, heard_until)
    turn_id, item_id = TurnId(draft.new_id("turn")), ItemId(draft.new_id("item"))
    draft.fact(f.InputTimedOut(item_id, audio.start_ms, audio.end_ms))
    _commit(draft, turn_id, _spoken(turn_id, item_id, "", audio), None)


def check_turns(draft: Draft) -> None:
    """Deadlines of turns: a transcript or a preparation that does not come has a named way out."""
    state = draft.state
    if state.has_talker:
        _check_transcripts(draft)
    preparing = state.preparing
    if preparing is not None and draft.elapsed_ms(preparing[1]) >= state.limits.prepare_reply_ms:
        reply(draft, ResponseRequest(origin="turn"), preparing[0])


def _check_transcripts(draft: Draft) -> None:
    """With nobody there no link is asked either, and the resume window bounds the wait."""
    state = draft.state
    limit = state.limits.transcription_ms
    turn = state.turn
    if turn is not None and draft.elapsed_ms(turn.since_ns) >= limit:
        if turn.phase == "deciding":
            abandon_turn(draft, "timeout")
        elif state.speaks_unheard:
            abandon_turn(draft, "link_lost")
    for item_id, (_, _, since_ns) in list(state.untranscribed.items()):
        if draft.elapsed_ms(since_ns) >= limit:
            _transcribed(draft, item_id, "", None, "timeout")


def recover_turn(draft: Draft, recorded_until: int) -> None:
    """After a crash: open speech is recognised again if the recording has it, else it is abandoned."""
    turn = draft.state.turn
    if turn is None:
        return
    end = turn.end if turn.end is not None else recorded_until
    if recorded_until >= end and ms_of_samples(end - turn.start) >= COMMIT_MIN_MS:
        _stop_speech(draft, end)
    else:
        abandon_turn(draft, "crash")


def transcribe_pending(draft: Draft) -> None:
    """A new link knows nothing of what the old one was asked to recognise, or was hearing: ask again."""
    for item_id, (_, audio, _) in draft.state.untranscribed.items():
        draft.effect(e.TranscribeAudio(item_id, audio))
    turn = draft.state.turn
    if turn is None:
        return
    if turn.end is None:
        draft.effect(e.HearAgain(turn.item_id, turn.start))
    else:
        draft.effect(e.TranscribeAudio(turn.item_id, AudioRange(turn.start, turn.end)))
