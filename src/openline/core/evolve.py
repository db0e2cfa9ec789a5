"""How each fact changes the state: the only code that does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from openline.core import facts as f
from openline.core.history import Entry
from openline.core.model import Item, ResponseRequest
from openline.core.state import (
    COMMANDS_MAX,
    SETTLED_TOOLS_MAX,
    TOKENS_MAX,
    Connection,
    Lull,
    OpenTurn,
    Output,
    Response,
    State,
    ToolCall,
)
from openline.core.tables import advance
from openline.core.value import replace
from openline.types import CallId, ConnectionId, ItemId, Now, Seq


def evolve(state: State, fact: f.Fact, now: Now) -> None:
    """Apply one fact. ``now`` is the step's time. Raises IllegalTransition for a fact that cannot follow."""
    state.seq = Seq(state.seq + 1)
    # A fact of a newer version keeps its place in the sequence and means nothing here.
    _EVOLVE.get(type(fact), _noted)(state, fact, now)


# ------------------------------------------------------------------------------------ session, connections


def _session_started(state: State, fact: f.SessionStarted, now: Now) -> None:
    state.status = advance("session", state.status, "started")
    state.session, state.tenant = fact.session, fact.tenant
    state.config, state.limits = fact.config, fact.limits
    state.prepares_replies, state.is_recorded = fact.prepares_replies, fact.recorded
    state.created_ms = now.wall_ms


def _session_forked(state: State, fact: f.SessionForked, now: Now) -> None:
    state.origin, state.forked_after = (fact.parent, fact.parent_seq), fact.last_item


def _session_owned(state: State, fact: f.SessionOwned, now: Now) -> None:
    assert fact.epoch > state.epoch, "epochs never go back"
    state.epoch, state.node = fact.epoch, fact.node
    # The old owner's monotonic clock means nothing here: what runs starts again. What waits for the model or
    # the recognizer does so when somebody attaches.
    state.quiet_since_ns = now.mono_ns
    if state.preparing is not None:
        state.preparing = (state.preparing[0], now.mono_ns)
    state.entries.restart_clocks(now.mono_ns)
    if state.lull is not None:
        state.lull.unplayed.clear()  # What was playing died with the old owner.
    _close_link(state)


def _close_link(state: State) -> None:
    """Nobody is to blame, and a new one starts from nothing."""
    state.link.phase = advance("link", state.link.phase, "closed")
    state.link.attempt = 0
    state.link.refused = state.link.why = ""


def _session_updated(state: State, fact: f.SessionUpdated, now: Now) -> None:
    state.config = fact.config
    _remember(state, fact.conn, fact.command)


def _session_parked(state: State, fact: f.SessionParked, now: Now) -> None:
    state.status = advance("session", state.status, "parked")
    state.parked_until_ms = fact.until_ms
    state.lull = None
    _close_link(state)


def _session_ended(state: State, fact: f.SessionEnded, now: Now) -> None:
    state.status = advance("session", state.status, "ended")
    _close_link(state)
    state.parked_until_ms = 0
    state.held.clear()
    state.tokens.clear()
    state.predecessors.clear()


def _connection_attached(state: State, fact: f.ConnectionAttached, now: Now) -> None:
    assert fact.conn not in state.connections, "a connection attaches once"
    state.connections[fact.conn] = Connection(
        fact.conn, fact.role, fact.opted_in, fact.strict, fact.resumable, fact.pacing_ms, fact.token_hash
    )
    _pass_on_token(state, fact)
    if fact.role != "observer":
        state.status = advance("session", state.status, "attached")
        state.parked_until_ms = 0
        _restart_waits(state, now)


def _pass_on_token(state: State, fact: f.ConnectionAttached) -> None:
    """The new token replaces the one that was shown. That one is spent when its successor is shown: until then
    nobody knows that the client ever received it, and one that was cut before would be locked out."""
    if fact.replaces in state.predecessors:
        _forget_token(state, state.predecessors[fact.replaces])
    if not fact.token_hash:
        return
    state.tokens[fact.token_hash] = fact.role
    if fact.replaces in state.tokens:
        state.predecessors[fact.token_hash] = fact.replaces
    while len(state.tokens) > TOKENS_MAX:
        _forget_token(state, next(iter(state.tokens)))


def _forget_token(state: State, token_hash: str) -> None:
    state.tokens.pop(token_hash, None)
    state.predecessors.pop(token_hash, None)


def _restart_waits(state: State, now: Now) -> None:
    """What waits for the model or the recognizer has its full time from here."""
    for response in state.responses.values():
        response.active_ns = now.mono_ns
    for item_id, (turn_id, audio, _) in state.untranscribed.items():
        state.untranscribed[item_id] = (turn_id, audio, now.mono_ns)
    if state.turn is not None:
        state.turn.since_ns = now.mono_ns
    if state.lull is not None:
        state.lull.since_ns = now.mono_ns


def _connection_detached(state: State, fact: f.ConnectionDetached, now: Now) -> None:
    connection = state.connections.pop(fact.conn)
    if connection.role != "observer" and not state.has_talker:
        state.quiet_since_ns = now.mono_ns
        state.status = advance("session", state.status, "detached")


def _link_requested(state: State, fact: f.LinkRequested, now: Now) -> None:
    state.link.phase = advance("link", state.link.phase, "requested")
    state.link.epoch, state.link.attempt = fact.link_epoch, fact.attempt
    state.link.refused = state.link.why = ""


def _link_opened(state: State, fact: f.LinkOpened, now: Now) -> None:
    state.link.phase = advance("link", state.link.phase, "opened")
    state.link.hears, state.link.changed_ns = fact.hears, now.mono_ns
    state.link.missed = set(state.untranscribed)
    _restart_waits(state, now)
    for response in state.responses.values():
        response.waits = _must_wait(state)


def _link_lost(state: State, fact: f.LinkLost, now: Now) -> None:
    state.link.phase = advance("link", state.link.phase, "lost")
    if fact.permanent:
        state.link.refused, state.link.why, state.link.changed_ns = fact.code, fact.why, now.mono_ns
    _outlive(state)


def _link_renewed(state: State, fact: f.LinkRenewed, now: Now) -> None:
    _outlive(state)


def _outlive(state: State) -> None:
    """What is made but still plays is no part of the conversation that the next connection is given."""
    for response in state.responses.values():
        response.outlived_link = response.phase == "generated"


# --------------------------------------------------------------------------------------------------- turns


def _turn_phase(state: State) -> str:
    return state.turn.phase if state.turn else "none"


def _speech_started(state: State, fact: f.SpeechStarted, now: Now) -> None:
    phase = advance("turn", _turn_phase(state), "speech_started")
    active, detection = state.active, state.config.turn_detection
    unheard = None
    assert detection is not None, "without a detector no speech is detected"
    if detection.interrupt_response:
        if active is not None and not active.was_heard:
            unheard = active.request
        if state.preparing is not None:
            unheard, state.preparing = ResponseRequest(origin="turn"), None
    state.turn = OpenTurn(
        fact.turn_id,
        fact.item_id,
        fact.start,
        now.mono_ns,
        phase,
        unheard,
        state.link.epoch,
    )


def _speech_stopped(state: State, fact: f.SpeechStopped, now: Now) -> None:
    phase = advance("turn", _turn_phase(state), "speech_stopped")
    assert state.turn is not None
    state.turn.phase, state.turn.end, state.turn.since_ns = phase, fact.end, now.mono_ns


def _turn_committed(state: State, fact: f.TurnCommitted, now: Now) -> None:
    # What was typed is a turn of its own beside one that is being spoken.
    advance("turn", "none" if fact.item is None else _turn_phase(state), "committed")
    if fact.item is not None:
        assert state.turn is None or state.turn.item_id == fact.item.id, "the open turn is the one committed"
        state.turn = None
        _put_item(state, fact.item, fact.previous_item_id)
        audio = fact.item.content[0].audio
        assert audio is not None, "what was spoken has its place on the track"
        if fact.text is None:
            state.untranscribed[fact.item.id] = (fact.turn_id, audio, now.mono_ns)
    if fact.text_items:
        state.untaken.clear()
    state.preparing = (fact.turn_id, now.mono_ns) if fact.prepares else None
    state.lull = None
    if fact.text != "":
        state.idle_turns = 0
    # The reply to this turn sees all that these would have said: they are superseded.
    state.held = [request for request in state.held if request.origin == "agent"]
    state.tool_replies = 0
    # The same for the reply to these: of a call that is over only its id can be asked for from here.
    settled = (call for call in state.tools.values() if call.phase == "settled")
    _forget_calls(state, [call.call_id for call in settled if call.response_id not in state.responses])
    state.turns += 1
    if not fact.conn:  # What a client typed or committed says nothing of the link.
        state.link.attempt = 0


def _turn_transcribed(state: State, fact: f.TurnTranscribed, now: Now) -> None:
    state.untranscribed.pop(fact.item_id)
    state.link.missed.discard(fact.item_id)
    entry = state.entries.get(fact.item_id)
    if entry is not None:
        part = replace(entry.item.content[0], text=fact.text)
        state.entries.replace(entry._replace(item=replace(entry.item, content=(part,))))
    if not _must_wait(state):
        for response in state.responses.values():
            if response.waits:
                response.waits, response.active_ns = False, now.mono_ns


def _turn_abandoned(state: State, fact: f.TurnAbandoned, now: Now) -> None:
    advance("turn", _turn_phase(state), "abandoned")
    state.turn = None
    if state.lull is not None:
        state.lull.since_ns = now.mono_ns


def _input_timed_out(state: State, fact: f.InputTimedOut, now: Now) -> None:
    state.idle_turns += 1


def _turn_continued(state: State, fact: f.TurnContinued, now: Now) -> None:
    assert state.turn is not None, "an open turn goes on"
    state.turn.link_epoch = fact.link_epoch


# --------------------------------------------------------------------------------------------------- items


def _put_item(state: State, item: Item, previous: ItemId | None) -> None:
    assert item.id not in state.entries, "an item id names one item"
    is_first = previous == state.forked_after  # None in both: the root of a conversation that is no fork.
    state.entries.put(item, None if is_first else previous)


def _item_created(state: State, fact: f.ItemCreated, now: Now) -> None:
    _put_item(state, fact.item, fact.previous_item_id)
    if fact.item.role == "user" and fact.conn:  # What was copied in was somebody's turn before.
        state.untaken.append(fact.item.id)
    _remember(state, fact.conn, fact.command)


def _item_deleted(state: State, fact: f.ItemDeleted, now: Now) -> None:
    state.entries.remove(fact.item_id)
    if fact.item_id in state.untaken:
        state.untaken.remove(fact.item_id)
    if state.lull is not None:
        state.lull.unplayed.discard(fact.item_id)
    _remember(state, fact.conn, fact.command)


def _item_truncated(state: State, fact: f.ItemTruncated, now: Now) -> None:
    _remember(state, fact.conn, fact.command)


def _item_heard(state: State, fact: f.ItemHeard, now: Now) -> None:
    entry = state.entries[fact.item_id]
    state.entries.replace(
        Entry(entry.item, entry.audio_ms, fact.audio_end_ms, fact.text_end, fact.source, now.mono_ns)
    )
    lull = state.lull
    if lull is not None and fact.item_id in lull.unplayed:
        lull.unplayed.remove(fact.item_id)
        lull.since_ns = now.mono_ns


# ----------------------------------------------------------------------------------------------- responses


def _must_wait(state: State) -> bool:
    """A reply can be asked for when a link is there and knows what was said: a link that hears knows what it heard."""
    link = state.link
    return link.phase != "open" or bool(link.missed if link.hears else state.untranscribed)


def _response_held(state: State, fact: f.ResponseHeld, now: Now) -> None:
    state.held.append(fact.request)
    if fact.request.origin != "agent":
        state.preparing = None


def _reply_dropped(state: State, fact: f.ReplyDropped, now: Now) -> None:
    state.preparing = None


def _response_created(state: State, fact: f.ResponseCreated, now: Now) -> None:
    phase = advance("response", "none", "created")
    if fact.request.conversation == "auto":
        assert state.active is None, "one response writes to the default conversation"
        state.lull = None
        # What agent code says meanwhile is no answer to the turn.
        if fact.request.origin != "agent":
            state.preparing = None
    if fact.request in state.held:
        state.held.remove(fact.request)
    waits = _must_wait(state)
    state.responses[fact.response_id] = Response(
        fact.response_id,
        fact.request,
        fact.modality,
        fact.voice,
        fact.max_output_tokens,
        fact.turn_id,
        fact.attempt,
        now.mono_ns,
        waits,
        phase,
        fact.output_format,
    )
    if fact.request.origin == "tool":
        state.tool_replies += 1
    _remember(state, fact.conn, fact.command)


def _output_item_added(state: State, fact: f.OutputItemAdded, now: Now) -> None:
    response = state.responses[fact.response_id]
    phase = advance("output", "none", "added")
    assert fact.output_index not in response.outputs, "an output index names one item"
    kind: Literal["message", "call"] = "message" if fact.item.type == "message" else "call"
    response.outputs[fact.output_index] = Output(
        fact.item.id,
        fact.output_index,
        kind,
        phase,
        CallId(fact.item.call_id),
        fact.item.name,
        fact.item.content,
    )
    response.active_ns = now.mono_ns
    if fact.is_in_conversation:
        _put_item(state, fact.item, fact.previous_item_id)
    state.link.attempt = 0


def _output_item_progressed(state: State, fact: f.OutputItemProgressed, now: Now) -> None:
    for response in state.responses.values():
        for output in response.outputs.values():
            if output.item_id == fact.item_id:
                output.text, output.audio_ms, output.heard_ms = fact.text, fact.audio_ms, fact.heard_ms
                response.active_ns = now.mono_ns


def _output_item_done(state: State, fact: f.OutputItemDone, now: Now) -> None:
    response = state.responses[fact.response_id]
    output = response.outputs[fact.output_index]
    output.phase = advance("output", output.phase, "done")
    output.audio_ms, output.text = fact.audio_ms, fact.item.text
    response.done.append(_as_shown(fact.item, fact.shown_end))
    response.active_ns = now.mono_ns
    entry = state.entries.get(fact.item.id)
    if entry is not None:
        state.entries.replace(entry._replace(item=fact.item, audio_ms=fact.audio_ms))
    if fact.modality == "audio" and output.kind == "message":
        state.has_spoken = True


def _as_shown(item: Item, shown_end: int | None) -> Item:
    if shown_end is None or not item.content:
        return item
    first, *rest = item.content
    return replace(item, content=(replace(first, text=item.text[:shown_end]), *rest))


def _response_generated(state: State, fact: f.ResponseGenerated, now: Now) -> None:
    response = state.responses[fact.response_id]
    response.phase = advance("response", response.phase, "generated")
    response.usage, response.reason, response.active_ns = fact.usage, fact.reason, now.mono_ns


def _response_done(state: State, fact: f.ResponseDone, now: Now) -> None:
    response = state.responses.pop(fact.response_id)
    advance("response", response.phase, "done")
    outputs = response.outputs.values()
    assert all(output.phase == "done" for output in outputs), "items end before responses"
    # A call is answered by its tool, and then by a reply of its own: nobody is waited for.
    if response.is_default and fact.status == "completed" and all(o.kind == "message" for o in outputs):
        spoken = (o.item_id for o in outputs if o.audio_ms)
        known = state.entries
        unplayed = {item_id for item_id in spoken if item_id in known and not known[item_id].source}
        state.lull = Lull(now.mono_ns, unplayed)


# --------------------------------------------------------------------------------------------- tools, rest


def _tool_requested(state: State, fact: f.ToolRequested, now: Now) -> None:
    assert fact.call_id not in state.tools, "a call id names one call"
    phase = advance("tool", "none", "requested")
    response = next(
        r for r in state.responses.values() if any(o.item_id == fact.item_id for o in r.outputs.values())
    )
    item = next(item for item in response.done if item.id == fact.item_id)
    spec = state.tool_spec(fact.name, response.request)
    state.tools[fact.call_id] = ToolCall(
        fact.call_id,
        fact.item_id,
        response.response_id,
        fact.name,
        item.arguments,
        fact.runner,
        fact.key,
        spec.recovery if spec else "ask",
        spec.timeout_ms if spec else 30_000,
        phase,
        response.is_default,
    )


def _tool_started(state: State, fact: f.ToolStarted, now: Now) -> None:
    call = state.tools[fact.call_id]
    call.phase = advance("tool", call.phase, "started")
    assert fact.attempt == call.attempt + 1, "attempts count up by one"
    call.attempt = fact.attempt


def _tool_settled(state: State, fact: f.ToolSettled, now: Now) -> None:
    call = state.tools[fact.call_id]
    call.phase = advance("tool", call.phase, "settled")
    if fact.item is not None:
        state.entries.replace(state.entries[fact.item.id]._replace(item=fact.item))
    settled = [call_id for call_id, known in state.tools.items() if known.phase == "settled"]
    _forget_calls(state, settled[: max(0, len(settled) - SETTLED_TOOLS_MAX)])


def _forget_calls(state: State, calls: Iterable[CallId]) -> None:
    for call_id in calls:
        del state.tools[call_id]
        state.past_calls.add(call_id)


def _silence_exceeded(state: State, fact: f.SilenceExceeded, now: Now) -> None:
    if fact.action == "retry":
        assert fact.response_id is not None, "only a response is asked for again"
        response = state.responses[fact.response_id]
        response.attempt += 1
        response.active_ns = now.mono_ns


def _noted(state: State, fact: f.Fact, now: Now) -> None:
    """Bookkeeping that the session's own decisions never read."""


def _remember(state: State, conn: ConnectionId, command: str) -> None:
    connection = state.connections.get(conn)
    if command and connection is not None and connection.opted_in:
        state.commands[command] = state.seq
        while len(state.commands) > COMMANDS_MAX:
            del state.commands[next(iter(state.commands))]


def _input_cleared(state: State, fact: f.InputCleared, now: Now) -> None:
    _remember(state, fact.conn, fact.command)


_EVOLVE: dict[type[f.Fact], Callable[..., None]] = {
    f.SessionStarted: _session_started,
    f.SessionForked: _session_forked,
    f.SessionOwned: _session_owned,
    f.SessionUpdated: _session_updated,
    f.SessionParked: _session_parked,
    f.SessionEnded: _session_ended,
    f.ConnectionAttached: _connection_attached,
    f.ConnectionDetached: _connection_detached,
    f.LinkRequested: _link_requested,
    f.LinkOpened: _link_opened,
    f.LinkLost: _link_lost,
    f.LinkRenewed: _link_renewed,
    f.SpeechStarted: _speech_started,
    f.SpeechStopped: _speech_stopped,
    f.InputCleared: _input_cleared,
    f.TurnCommitted: _turn_committed,
    f.TurnTranscribed: _turn_transcribed,
    f.TurnAbandoned: _turn_abandoned,
    f.TurnContinued: _turn_continued,
    f.ItemCreated: _item_created,
    f.ItemDeleted: _item_deleted,
    f.ItemTruncated: _item_truncated,
    f.ItemHeard: _item_heard,
    f.ResponseHeld: _response_held,
    f.ReplyDropped: _reply_dropped,
    f.ResponseCreated: _response_created,
    f.OutputItemAdded: _output_item_added,
    f.OutputItemProgressed: _output_item_progressed,
    f.OutputItemDone: _output_item_done,
    f.ResponseGenerated: _response_generated,
    f.ResponseDone: _response_done,
    f.ToolRequested: _tool_requested,
    f.ToolStarted: _tool_started,
    f.ToolSettled: _tool_settled,
    f.SegmentRecorded: _noted,
    f.MediaDropped: _noted,
    f.SilenceExceeded: _silence_exceeded,
    f.InputTimedOut: _input_timed_out,
}
