"""Responses: asked for, made, played, cut, ended. Every path leads to exactly one terminal fact.

A client's second ``response.create`` is an error of the protocol; a second one on our own initiative
(turn, tool result, agent code, recovery) is held until the active response has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.audio import cut_text
from openline.core.draft import Draft
from openline.core.history import Entry
from openline.core.links import refusal, request_link
from openline.core.model import HEARD_RANK, Cut, Item, ItemStatus, Part, PartType, Problem, ResponseRequest
from openline.core.state import Output, Response, State
from openline.core.tables import is_legal
from openline.core.value import replace
from openline.types import Author, CallId, ConnectionId, ItemId, ResponseId, TurnId

OUT_OF_BAND_MAX = 8
"""Out-of-band responses at once: each may hold a model slot; OpenAI names no number."""
HELD_MAX = 8
"""Replies of our own initiative that wait: more than a few is a loop in agent code."""
TOOL_REPLIES_MAX = 50
"""Replies to tool results since the user's last turn; a model that calls for ever is stopped here."""
HEARD_GRACE_MS = 2_000
"""How long after an item's playout a better source may still correct what was heard (DESIGN §4)."""

# --------------------------------------------------------------------------------------------- asking


def create_response(draft: Draft, request: ResponseRequest, conn: ConnectionId, command: str) -> None:
    """A client or agent code asks for a response."""
    state = draft.state
    if state.config.purpose == "transcription":
        message = (
            "A transcription session makes no responses; connect without 'intent=transcription' for them."
        )
        draft.reject(conn, command, "invalid_session_type", message)
        return
    problem = refusal(draft)
    if problem is not None and conn:
        draft.is_rejected = True
        draft.effect(e.SendError(conn, command, problem))
        return
    if request.conversation == "none":
        if state.status == "parked":
            draft.is_rejected = True  # only agent code can have asked: no link, and nobody who waits for one
            return
        if sum(not r.is_default for r in state.responses.values()) >= OUT_OF_BAND_MAX:
            message = (
                f"Expected at most {OUT_OF_BAND_MAX} out-of-band responses at once; wait for one to finish."
            )
            draft.reject(conn, command, "rate_limit_exceeded", message)
            return
        begin(draft, request, conn=conn, command=command)
        return
    active = state.active
    if active is not None and conn:
        if _is_under_way(state, active, request, conn):
            return
        draft.reject(
            conn,
            command,
            "conversation_already_has_active_response",
            f"Conversation already has an active response in progress: {active.response_id}. "
            "Wait until the response is finished before creating a new one.",
        )
        return
    if not conn:
        reply(draft, request)
        return
    turn_id = take_typed_turn(draft, conn)
    begin(draft, request, turn_id=turn_id, conn=conn, command=command)


def _is_under_way(state: State, active: Response, request: ResponseRequest, conn: ConnectionId) -> bool:
    """The client asks for the reply to tools that we ran, and that is what is being made.

    agents-js asks for it whenever a server-run tool has settled, as a server is not bound to; its question and
    our ``response.created`` cross. Whatever was added since, it asks for that, and is refused.
    """
    connection = state.connections[conn]
    is_stock = not connection.opted_in and not connection.strict
    is_asked = is_stock and active.request.origin == "tool" and request == ResponseRequest()
    last = state.entries.last_id()
    made = {output.item_id for output in active.outputs.values()}
    return is_asked and (last is None or last in made or state.entries[last].item.type == "mcp_call")


def take_typed_turn(draft: Draft, conn: ConnectionId) -> TurnId | None:
    """Typed items become the user's turn at the moment the client asks for the reply to them."""
    state = draft.state
    if not state.untaken:
        return None
    turn_id = TurnId(draft.new_id("turn"))
    text = " ".join(state.entries[item_id].item.text for item_id in state.untaken)
    draft.fact(f.TurnCommitted(turn_id, text, None, None, None, tuple(state.untaken), conn, prepares=False))
    return turn_id


def reply(draft: Draft, request: ResponseRequest, turn_id: TurnId | None = None) -> None:
    """A response on our own initiative: now, or after the active one."""
    state = draft.state
    waits_for_turn = request.origin == "tool" and state.turn is not None
    if state.active is None and state.has_talker and not waits_for_turn:
        begin(draft, request, turn_id=turn_id)
    elif any(held.origin == request.origin == "tool" for held in state.held):
        pass  # One reply will see all results in its context: two would say them twice.
    elif len(state.held) < HELD_MAX:
        draft.fact(f.ResponseHeld(request))
    elif turn_id is not None:
        draft.fact(f.ReplyDropped(turn_id, "held_full"))
    else:
        draft.is_rejected = not draft.facts


def begin(
    draft: Draft,
    request: ResponseRequest,
    *,
    turn_id: TurnId | None = None,
    conn: ConnectionId = ConnectionId(""),
    command: str = "",
) -> None:
    config = draft.state.config
    response_id = ResponseId(draft.new_id("resp"))
    draft.fact(
        f.ResponseCreated(
            response_id,
            request,
            request.modality or config.modality,
            request.voice or config.voice,
            request.max_output_tokens or config.max_output_tokens,
            turn_id,
            1,
            conn,
            command,
            request.output_format or config.output_format,
        )
    )
    response = draft.state.responses[response_id]
    if not response.waits:
        draft.effect(e.StartResponse(response_id, request))
    elif (problem := refusal(draft)) is not None:
        end(draft, response, "failed", "", problem)
        next_held(draft)
    elif draft.state.link.refused:
        request_link(draft)


def start_waiting(draft: Draft, waited: Sequence[ResponseId]) -> None:
    """Ask the link for those responses that waited before this step and no longer do."""
    for response_id in waited:
        response = draft.state.responses[response_id]
        if not response.waits:
            draft.effect(e.StartResponse(response_id, response.request))


def waiting(draft: Draft) -> list[ResponseId]:
    return [r.response_id for r in draft.state.responses.values() if r.waits and r.phase == "active"]


def next_held(draft: Draft) -> None:
    """The default conversation is free: begin what was held for it, if somebody is there to hear it."""
    state = draft.state
    if state.held and state.active is None and state.has_talker and state.turn is None:
        begin(draft, state.held[0])


# --------------------------------------------------------------------------------------------- making


def _open_response(draft: Draft, response_id: ResponseId, link_epoch: int) -> Response | None:
    """The response if it may still get content; late arrivals find None and leave no trace."""
    if link_epoch != draft.state.link.epoch:
        return None
    response = draft.state.responses.get(response_id)
    is_open = response is not None and response.phase == "active" and not response.waits
    return response if is_open else None


def message_started(draft: Draft, input_: i.MessageStarted) -> None:
    response = _open_response(draft, input_.response_id, input_.link_epoch)
    if response is None or input_.output_index in response.outputs:
        return
    shown: PartType = "refusal" if input_.is_refusal else "output_text"
    part = Part("output_audio" if response.modality == "audio" else shown, "")
    content = (part, *_reasoning(input_.reasoning))
    item = _message(response, ItemId(draft.new_id("item")), content, "in_progress")
    _add_output(draft, response, input_.output_index, item)


def _reasoning(thoughts: Sequence[str]) -> tuple[Part, ...]:
    return tuple([Part("reasoning", text) for text in thoughts])


def _message(response: Response, item_id: ItemId, content: tuple[Part, ...], status: ItemStatus) -> Item:
    author: Author = "synthetic" if response.request.verbatim is not None else "assistant"
    return Item(item_id, "message", author, "assistant", status, content)


def _add_output(draft: Draft, response: Response, output_index: int, item: Item) -> None:
    previous = draft.state.last_item_id() if response.is_default else None
    draft.fact(
        f.OutputItemAdded(
            response.response_id, output_index, item, response.modality, previous, response.is_default
        )
    )


def message_progress(draft: Draft, input_: i.MessageProgress) -> None:
    response = draft.state.responses.get(input_.response_id)
    output = response.outputs.get(input_.output_index) if response else None
    if output is not None and output.phase == "open":
        cut = input_.cut
        draft.fact(f.OutputItemProgressed(output.item_id, cut.text, cut.audio_ms, cut.heard_ms))


def message_finished(draft: Draft, input_: i.MessageFinished) -> None:
    response = draft.state.responses.get(input_.response_id)
    output = response.outputs.get(input_.output_index) if response else None
    if output is None or output.phase != "open" or output.kind != "message":
        return
    assert response is not None
    _finish_output(draft, response, output, input_.text, input_.audio_ms, None)


def _finish_output(
    draft: Draft, response: Response, output: Output, text: str, audio_ms: int, shown_end: int | None
) -> None:
    """The item's last fact in this response. ``shown_end`` None: it is complete."""
    status: ItemStatus = "completed" if shown_end is None else "incomplete"
    if output.kind == "message":
        first, *rest = output.parts
        item = _message(response, output.item_id, (Part(first.type, text), *rest), status)
    else:
        item = _call_item(draft, response, output, text, status)
    in_conversation = output.item_id in draft.state.entries
    previous = draft.state.previous_of(output.item_id) if in_conversation else None
    draft.fact(
        f.OutputItemDone(
            response.response_id,
            output.output_index,
            item,
            response.modality,
            previous,
            in_conversation,
            audio_ms,
            shown_end,
        )
    )
    if response.outlived_link and in_conversation:
        draft.effect(
            e.AddItem(item, previous)
        )  # The link that made it is gone, and the one that is there not told.


def response_generated(draft: Draft, input_: i.ResponseGenerated) -> None:
    if _open_response(draft, input_.response_id, input_.link_epoch) is not None:
        draft.fact(f.ResponseGenerated(input_.response_id, input_.usage, input_.reason))
        if input_.is_released:
            _released(draft, input_.response_id)


def response_released(draft: Draft, input_: i.ResponseReleased) -> None:
    _released(draft, input_.response_id)


def _released(draft: Draft, response_id: ResponseId) -> None:
    response = draft.state.responses.get(response_id)
    if response is None or response.phase != "generated":
        return
    status = "completed" if response.reason == "completed" else "incomplete"
    end(draft, response, status, response.reason if status == "incomplete" else "")
    after_end(draft, response)


def response_failed(draft: Draft, input_: i.ResponseFailed) -> None:
    response = _open_response(draft, input_.response_id, input_.link_epoch)
    if response is None:
        return
    end(draft, response, "failed", "", input_.problem, cuts=input_.cuts)
    after_end(draft, response)


# --------------------------------------------------------------------------------------------- ending


def end(
    draft: Draft,
    response: Response,
    status: str,
    reason: str,
    problem: Problem | None = None,
    cuts: Sequence[Cut] = (),
) -> None:
    """The terminal fact, after every open item was finished as far as it was heard."""
    known = {cut.item_id: cut for cut in cuts}
    for output in list(response.outputs.values()):
        if output.phase == "open":
            _cut_output(draft, response, output, known.get(output.item_id))
    assert status in ("completed", "cancelled", "incomplete", "failed")
    draft.fact(
        f.ResponseDone(
            response.response_id,
            status,  # type: ignore[arg-type]  # narrowed by the assertion above; mypy does not narrow str
            reason,
            problem,
            tuple(response.done),
            response.modality,
            response.voice,
            response.max_output_tokens,
            response.request.metadata,
            response.is_default,
            response.usage,
            response.output_format,
        )
    )


def _cut_output(draft: Draft, response: Response, output: Output, cut: Cut | None) -> None:
    """Finish an open item where it stopped. Without a cut the last checkpoint is what is known."""
    if cut is None:
        cut = Cut(output.item_id, output.text, output.audio_ms, output.heard_ms, "assumed")
    if output.kind == "call":
        _finish_output(draft, response, output, "", 0, 0)
        return
    if response.modality == "text":
        _finish_output(draft, response, output, cut.text, 0, len(cut.text))
        return
    entry = draft.state.entries.get(output.item_id)
    is_spoken = output.parts[0].type == "output_audio"
    shown_end, estimated = cut_text(cut.text, cut.audio_ms, cut.heard_ms, cut.text_end, is_open=is_spoken)
    _finish_output(draft, response, output, cut.text, cut.audio_ms, shown_end)
    if entry is not None:
        draft.fact(f.ItemHeard(output.item_id, cut.heard_ms, shown_end, cut.source, estimated))
        draft.effect(e.CutItem(output.item_id, cut.heard_ms, cut.text[:shown_end]))


def after_end(draft: Draft, response: Response) -> None:
    """What follows a terminal: the reply to settled tools, else what was held."""
    # Most replies call nothing: the settled calls of a long conversation are not walked for them.
    if any(output.kind == "call" for output in response.outputs.values()):
        reply_to_tools(draft, response.response_id)
    next_held(draft)


def stop(draft: Draft, response: Response, reason: str, cuts: Sequence[Cut]) -> None:
    """Cancel: silence first, then tell the link, then the facts of what was heard."""
    draft.effect(e.ClearPlayout(response.response_id))
    if response.phase == "active" and not response.waits:
        draft.effect(e.StopResponse(response.response_id))
    end(draft, response, "cancelled", reason, cuts=cuts)


def cancel_response(draft: Draft, input_: i.CancelResponse) -> None:
    state = draft.state
    response = state.responses.get(input_.response_id) if input_.response_id else state.active
    if response is None:
        message = "Cancellation failed: no active response found"
        draft.reject(input_.conn, input_.command, "response_cancel_not_active", message)
        return
    stop(draft, response, input_.reason, input_.cuts)
    note_played(draft, input_.cuts)
    next_held(draft)


def interrupt(draft: Draft, cuts: Sequence[Cut]) -> None:
    """Barge-in: the active response, and whatever of an ended one is still playing, stop now."""
    active = draft.state.active
    if active is not None:
        stop(draft, active, "turn_detected", cuts)
        reply_to_tools(draft, active.response_id)
    note_played(draft, cuts)


def note_played(draft: Draft, cuts: Sequence[Cut]) -> None:
    """Items whose response has ended but whose audio had not: cut them to what was heard."""
    for cut in cuts:
        entry = _spoken(draft, cut.item_id)
        if entry is not None and cut.heard_ms < cut.audio_ms:
            hear(draft, entry, cut)


def _spoken(draft: Draft, item_id: ItemId) -> Entry | None:
    """The entry of a finished message of ours: of nothing else anything is heard."""
    entry = draft.state.entries.get(item_id)
    is_spoken = entry is not None and entry.item.role == "assistant" and entry.item.status != "in_progress"
    return entry if is_spoken else None


def note_heard(draft: Draft, response: Response, cuts: Sequence[Cut]) -> None:
    """Checkpoint open items from ``cuts``, so that "was anything heard" is answered from facts."""
    open_items = {o.item_id for o in response.outputs.values() if o.phase == "open" and o.kind == "message"}
    for cut in cuts:
        if cut.item_id in open_items:
            draft.fact(f.OutputItemProgressed(cut.item_id, cut.text, cut.audio_ms, cut.heard_ms))


def hear(draft: Draft, entry: Entry, cut: Cut) -> None:
    """Record what was heard of a finished item, if this source may still say so."""
    late = bool(entry.source) and draft.elapsed_ms(entry.heard_ns) > HEARD_GRACE_MS
    more = entry.heard_ms is not None and cut.heard_ms > entry.heard_ms
    if HEARD_RANK[cut.source] < HEARD_RANK.get(entry.source, 0) or (
        late and not more and cut.source != "client"
    ):
        return
    if entry.heard_ms == cut.heard_ms and entry.source == cut.source:
        return
    text = entry.item.text
    audio_ms = entry.audio_ms or cut.audio_ms
    known = None
    # Of what was cut while it was made the text may be far ahead of the audio, and no proportion is right.
    if entry.item.status == "incomplete" and entry.heard_ms is not None:
        assert entry.text_end is not None, "they are told together"
        known = (entry.heard_ms, entry.text_end)
    text_end, estimated = cut_text(text, audio_ms, cut.heard_ms, cut.text_end, known)
    draft.fact(f.ItemHeard(entry.item.id, min(cut.heard_ms, audio_ms), text_end, cut.source, estimated))
    if text_end < len(text):
        draft.effect(e.CutItem(entry.item.id, cut.heard_ms, text[:text_end]))


def heard(draft: Draft, input_: i.Heard) -> None:
    entry = _spoken(draft, input_.cut.item_id)
    if entry is not None:
        hear(draft, entry, input_.cut)


def owe_again(draft: Draft, response: Response) -> bool:
    """A reply that nobody heard and that ended by our fault is asked for again, once; whether it is."""
    is_owed = response.is_default and not response.was_heard and response.request.origin != "recovery"
    if is_owed:
        draft.fact(f.ResponseHeld(replace(response.request, origin="recovery")))
    return is_owed


# ---------------------------------------------------------------------------------------------- calls


def call_started(draft: Draft, input_: i.CallStarted) -> None:
    response = _open_response(draft, input_.response_id, input_.link_epoch)
    if response is None or input_.output_index in response.outputs:
        return
    call_id = input_.call_id
    if draft.state.is_call(call_id):
        call_id = CallId(draft.new_id("call"))
    spec = draft.state.tool_spec(input_.name, response.request)
    is_ours = spec is not None and spec.runner == "gateway"
    item = Item(
        ItemId(draft.new_id("item")),
        "mcp_call" if is_ours else "function_call",
        "assistant",
        status="in_progress",
        content=_reasoning(input_.reasoning),
        call_id=call_id,
        name=input_.name,
        server_label="openline" if is_ours else "",
    )
    _add_output(draft, response, input_.output_index, item)


def _call_item(draft: Draft, response: Response, output: Output, arguments: str, status: ItemStatus) -> Item:
    spec = draft.state.tool_spec(output.name, response.request)
    is_ours = spec is not None and spec.runner == "gateway"
    return Item(
        output.item_id,
        "mcp_call" if is_ours else "function_call",
        "assistant",
        status=status,
        content=output.parts,
        call_id=output.call_id,
        name=output.name,
        arguments=arguments,
        error="" if status == "completed" or not is_ours else "cancelled before it was complete",
        server_label="openline" if is_ours else "",
    )


def call_finished(draft: Draft, input_: i.CallFinished) -> None:
    response = _open_response(draft, input_.response_id, input_.link_epoch)
    output = response.outputs.get(input_.output_index) if response else None
    if output is None or output.phase != "open" or output.kind != "call":
        return
    assert response is not None
    _finish_output(draft, response, output, input_.arguments, 0, None)
    spec = draft.state.tool_spec(output.name, response.request)
    runner = spec.runner if spec is not None else "client"
    key = f"{draft.state.session}:{output.call_id}"
    draft.fact(f.ToolRequested(output.call_id, output.item_id, output.name, runner, key))
    if runner == "gateway":
        run_tool(draft, output.call_id)


def run_tool(draft: Draft, call_id: CallId) -> None:
    """One attempt: written down first, then run."""
    call = draft.state.tools[call_id]
    draft.fact(f.ToolStarted(call_id, call.attempt + 1, draft.epoch, call.key))
    draft.effect(e.RunTool(call_id, call.attempt, call.key, call.name, call.arguments, call.timeout_ms))


def tool_settled(draft: Draft, input_: i.ToolSettled) -> None:
    call = draft.state.tools.get(input_.call_id)
    if call is None or not is_legal("tool", call.phase, "settled") or input_.attempt != call.attempt:
        return
    settle_tool(draft, input_.call_id, input_.outcome, input_.output)
    reply_to_tools(draft, call.response_id)


def settle_tool(draft: Draft, call_id: CallId, outcome: str, output: str | None = None) -> None:
    """The one outcome. ``output`` is for the item of a call that we ran; a client brings an item of its own."""
    call = draft.state.tools[call_id]
    entry = draft.state.entries.get(call.item_id)
    item = None
    previous = None
    if entry is not None and entry.item.type == "mcp_call":
        assert output is not None, "what we ran has said something, if only nothing"
        is_good = outcome == "succeeded"
        item = replace(
            entry.item, output=output if is_good else "", error="" if is_good else output or outcome
        )
        previous = draft.state.previous_of(call.item_id)
        draft.effect(e.AddItem(item, previous))
    assert outcome in ("succeeded", "failed", "cancelled", "unknown")
    draft.fact(
        f.ToolSettled(
            call_id,
            call.attempt,
            outcome,  # type: ignore[arg-type]  # narrowed by the assertion above; mypy does not narrow str
            item,
            previous,
        )
    )


def reply_to_tools(draft: Draft, response_id: ResponseId) -> None:
    """All gateway calls of a finished response have settled: speak to their results.

    While the user speaks that waits: the reply to a turn has the results in its context and takes its place,
    noise does not. Calls out of band concern the conversation not at all.
    """
    state = draft.state
    ours = [
        c
        for c in state.tools.values()
        if c.response_id == response_id and c.runner == "gateway" and c.is_in_conversation
    ]
    if not ours or any(c.phase != "settled" for c in ours) or response_id in state.responses:
        return
    if state.tool_replies < TOOL_REPLIES_MAX and state.status != "ended":
        # A forced choice would call again, for ever: the reply to results may choose freely.
        forced = state.config.tool_choice not in ('"auto"', '"none"')
        reply(draft, ResponseRequest(origin="tool", tool_choice='"auto"' if forced else None))


# --------------------------------------------------------------------------------------------- silence


def check_silence(draft: Draft) -> None:
    """A response that shows no sign of life past the silence budget is asked for again once, then given up."""
    if not draft.state.has_talker:
        return  # Nobody waits for a word; the resume window bounds this state.
    limits = draft.state.limits
    for response in list(draft.state.responses.values()):
        waited = draft.elapsed_ms(response.active_ns)
        if waited < limits.silence_ms(response.modality):
            continue
        if response.phase == "active" and not response.outputs and response.attempt == 1:
            draft.fact(f.SilenceExceeded(response.response_id, waited, "retry"))
            if not response.waits:
                draft.effect(e.StopResponse(response.response_id))
                draft.effect(e.StartResponse(response.response_id, response.request))
            continue
        draft.fact(f.SilenceExceeded(response.response_id, waited, "give_up"))
        draft.effect(e.ClearPlayout(response.response_id))
        if response.phase == "active" and not response.waits:
            draft.effect(e.StopResponse(response.response_id))
        problem = Problem(
            "silence_budget_exceeded", "The model gave no sign of life in time.", "server_error"
        )
        end(draft, response, "failed", "", problem)
        after_end(draft, response)
