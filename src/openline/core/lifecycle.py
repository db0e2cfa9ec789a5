"""A session's life: opened, attached, detached, parked, owned anew, ended; and its model link.

Everything that can be left open has its settlement here: no path out of a conversation leaves a turn,
a response or a connection without its terminal fact.
"""

from __future__ import annotations

from collections.abc import Sequence

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.draft import Draft
from openline.core.links import LINK_ATTEMPTS_MAX, LINK_PROVEN_MS, link_problem, request_link
from openline.core.model import Cut
from openline.core.responses import (
    check_silence,
    end,
    next_held,
    note_heard,
    note_played,
    owe_again,
    reply_to_tools,
    run_tool,
    settle_tool,
    start_waiting,
    stop,
    waiting,
)
from openline.core.turns import (
    check_idle,
    check_turns,
    idle_deadline_ns,
    recover_turn,
    transcribe_pending,
)
from openline.types import ConnectionId

CLOSE_REPLACED = 4409
CLOSE_ENDED = 4410


def open_session(draft: Draft, input_: i.OpenSession) -> None:
    draft.fact(
        f.SessionStarted(
            input_.session,
            input_.tenant,
            input_.config,
            input_.limits,
            input_.prepares_replies,
            input_.recorded,
            input_.version,
        )
    )
    if input_.parent:
        draft.fact(f.SessionForked(input_.parent, input_.parent_seq, input_.parent_item))
    draft.fact(f.SessionOwned(input_.epoch, input_.node))


# ----------------------------------------------------------------------------------------- connections


def attach(draft: Draft, input_: i.Attach) -> None:
    state = draft.state
    if state.status == "ended":
        draft.reject(input_.conn, "", "session_ended", "The session has ended; start a new one.")
        draft.effect(e.CloseConnection(input_.conn, CLOSE_ENDED, "session ended"))
        return
    old = state.speaker
    if input_.role == "speaker" and old is not None:
        draft.effect(e.CloseConnection(old.conn, CLOSE_REPLACED, "replaced by a newer speaker"))
        draft.fact(f.ConnectionDetached(old.conn, "replaced", CLOSE_REPLACED))
    draft.fact(
        f.ConnectionAttached(
            input_.conn,
            input_.role,
            input_.opted_in,
            input_.strict,
            input_.resumable,
            input_.pacing_ms,
            input_.token_hash,
            input_.replaces,
        )
    )
    if input_.role != "observer":
        request_link(draft)
        next_held(draft)


def detach(draft: Draft, input_: i.Detach) -> None:
    state = draft.state
    connection = state.connections.get(input_.conn)
    if connection is None:
        return
    draft.fact(f.ConnectionDetached(input_.conn, "closed" if input_.clean else "lost", input_.code))
    note_played(draft, input_.cuts)
    active = state.active
    if active is not None:
        note_heard(draft, active, input_.cuts)
    if connection.role != "observer" and not state.has_talker and input_.clean and not connection.resumable:
        park(draft, "closed", input_.cuts)


def end_session(draft: Draft, input_: i.EndSession) -> None:
    settle(draft, "ended", input_.cuts)
    _close_link(draft)
    _finish(draft, input_.reason, input_.conn)


def _finish(draft: Draft, reason: str, asked_by: ConnectionId | None = None) -> None:
    """The end, by whatever way it came. Calls that a client was to run have nobody left to run them."""
    state = draft.state
    for call in list(state.tools.values()):
        if call.runner == "client" and call.phase != "settled":
            settle_tool(draft, call.call_id, "cancelled")
    for connection in list(state.connections.values()):
        code = 1000 if connection.conn == asked_by else CLOSE_ENDED
        draft.effect(e.CloseConnection(connection.conn, code, "session ended"))
        draft.fact(f.ConnectionDetached(connection.conn, "ended", code))
    draft.fact(f.SessionEnded(reason))


def park(draft: Draft, reason: str, cuts: Sequence[Cut] = ()) -> None:
    """Nobody is there: settle, close the link, wait. ``park_for`` 0 ends the session instead."""
    limits = draft.state.limits
    settle(draft, reason, cuts)
    _close_link(draft)
    if limits.park_for_ms == 0:
        _finish(draft, reason)
    else:
        draft.fact(f.SessionParked(reason, draft.now.wall_ms + limits.park_for_ms))


def settle(draft: Draft, reason: str, cuts: Sequence[Cut]) -> None:
    """Terminal facts for all that is open on the user's and the model's side. Tools go on: they outlive calls."""
    state = draft.state
    if state.turn is not None:
        draft.fact(f.TurnAbandoned(state.turn.turn_id, state.turn.item_id, reason))
    for item_id, (turn_id, audio, _) in list(state.untranscribed.items()):
        draft.fact(f.TurnTranscribed(turn_id, item_id, "", None, audio.duration_ms, reason))
    if state.preparing is not None:
        draft.fact(f.ReplyDropped(state.preparing[0], reason))
    for response in list(state.responses.values()):
        stop(draft, response, "client_cancelled", cuts)
    note_played(draft, cuts)


# ------------------------------------------------------------------------------------------------- link


def _close_link(draft: Draft) -> None:
    if draft.state.link.phase != "closed":
        draft.effect(e.CloseLink(draft.state.link.epoch))


def link_opened(draft: Draft, input_: i.LinkOpened) -> None:
    state = draft.state
    if input_.link_epoch != state.link.epoch or state.link.phase != "opening":
        return
    waited = waiting(draft)
    draft.fact(f.LinkOpened(input_.link_epoch, input_.model, input_.hears))
    transcribe_pending(draft)
    start_waiting(draft, waited)


def link_lost(draft: Draft, input_: i.LinkLost) -> None:
    """What was in flight is settled; a reply that nobody heard is asked for again on the next link, and who is in
    mid-utterance is heard again by it (``HearAgain``)."""
    state = draft.state
    link = state.link
    if input_.link_epoch != link.epoch or link.phase == "closed":
        return
    is_quick = link.phase == "opening" or draft.elapsed_ms(link.changed_ns) < LINK_PROVEN_MS
    attempt = link.attempt if is_quick else 0
    permanent = input_.permanent or attempt >= LINK_ATTEMPTS_MAX
    draft.fact(f.LinkLost(input_.link_epoch, input_.code, permanent, input_.why))
    if permanent and state.turn is not None and state.turn.end is None:
        draft.fact(f.TurnAbandoned(state.turn.turn_id, state.turn.item_id, "link_lost"))
    problem = link_problem(input_.code, input_.why, is_permanent=permanent)
    for response in list(state.responses.values()):
        if response.phase == "generated" or (response.waits and not permanent):
            continue
        note_heard(draft, response, input_.cuts)
        draft.effect(e.ClearPlayout(response.response_id))
        is_owed = not permanent and owe_again(draft, response)
        if is_owed or (response.was_heard and not permanent):
            end(draft, response, "incomplete", "link_lost", cuts=input_.cuts)
        else:
            end(draft, response, "failed", "", problem, input_.cuts)
        if not permanent:
            reply_to_tools(draft, response.response_id)
    if permanent:
        for connection in state.connections.values():
            draft.effect(e.SendError(connection.conn, "", problem))
    elif state.has_talker:
        request_link(draft, attempt + 1)
    # After a refusal for good what was held fails, as whatever is asked for now: nobody would ever begin it.
    next_held(draft)


def link_renewed(draft: Draft, input_: i.LinkRenewed) -> None:
    if input_.link_epoch == draft.state.link.epoch and draft.state.link.phase == "open":
        draft.fact(f.LinkRenewed(input_.link_epoch, input_.why))


# --------------------------------------------------------------------------------------------- ownership


def take_ownership(draft: Draft, input_: i.TakeOwnership) -> None:
    """Settle what the dead owner left open, then offer again what is owed. Of a session that has ended that is the
    outcome of its tools alone: they outlive it."""
    state = draft.state
    draft.fact(f.SessionOwned(input_.epoch, input_.node))
    for connection in list(state.connections.values()):
        draft.fact(f.ConnectionDetached(connection.conn, "crash", 1006))
    recover_turn(draft, input_.recorded_until)
    for response in list(state.responses.values()):
        owe_again(draft, response)
        end(draft, response, "incomplete", "")
        reply_to_tools(draft, response.response_id)
    for call in list(state.tools.values()):
        if call.runner != "gateway" or call.phase == "settled":
            continue
        if call.recovery == "retry":
            run_tool(draft, call.call_id)
        else:
            message = "The outcome is unknown: the gateway stopped while the tool was running."
            settle_tool(draft, call.call_id, "unknown", message)
            reply_to_tools(draft, call.response_id)


# ----------------------------------------------------------------------------------------------- the clock


def time_passed(draft: Draft, input_: i.TimePassed) -> None:
    state = draft.state
    if state.status == "parked":
        if draft.now.wall_ms >= state.parked_until_ms:
            _finish(draft, "parked_too_long")
    elif state.status != "ended":
        check_turns(draft)
        check_silence(draft)
        if state.has_talker:
            check_idle(draft, input_.heard_until)
        else:
            _check_detached(draft)


def _check_detached(draft: Draft) -> None:
    """With nobody there a running reply has a bound, and the session another. What was being made for nobody is
    asked for again when somebody comes; what is whole waits for them."""
    state = draft.state
    quiet_ms = draft.elapsed_ms(state.quiet_since_ns)
    if quiet_ms >= state.limits.detached_reply_ms:
        for response in state.running:
            draft.effect(e.ClearPlayout(response.response_id))
            draft.effect(e.StopResponse(response.response_id))
            owe_again(draft, response)
            end(draft, response, "incomplete", "detached")
    if quiet_ms >= state.limits.resume_window_ms:
        park(draft, "resume_window")


def wake_at(draft: Draft) -> int | None:
    """The earliest deadline as monotonic ns, or None. A deadline that has passed is now."""
    state, limits = draft.state, draft.state.limits
    if state.status == "ended":
        return None
    if state.status == "parked":
        return draft.now.mono_ns + max(0, state.parked_until_ms - draft.now.wall_ms) * 1_000_000
    # Asked after every step, and mostly there is nothing to wait for: no list is made for nothing.
    deadlines: list[int] = []
    if state.has_talker:
        for _, _, since_ns in state.untranscribed.values():
            deadlines.append(since_ns + limits.transcription_ms * 1_000_000)
        if state.turn is not None and (state.turn.phase == "deciding" or state.speaks_unheard):
            deadlines.append(state.turn.since_ns + limits.transcription_ms * 1_000_000)
        for response in state.responses.values():
            deadlines.append(response.active_ns + limits.silence_ms(response.modality) * 1_000_000)
        if (idle := idle_deadline_ns(state)) is not None:
            deadlines.append(idle)
    else:
        deadlines.append(state.quiet_since_ns + limits.resume_window_ms * 1_000_000)
        if state.running:
            deadlines.append(state.quiet_since_ns + limits.detached_reply_ms * 1_000_000)
    if state.preparing is not None:
        deadlines.append(state.preparing[1] + limits.prepare_reply_ms * 1_000_000)
    return min(deadlines) if deadlines else None


def durable_wake_ms(draft: Draft) -> int:
    """The earliest deadline that must survive a restart (Unix ms), or 0."""
    return draft.state.parked_until_ms
