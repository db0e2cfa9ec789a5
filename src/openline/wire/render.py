"""Facts to OpenAI Realtime frames: what one connection sees of one fact. Pure: same fact, same frames.

Order and spelling are those of the live service (openai-protocols.md B.6), where it and E.2 leave room
those of E.2. A fact's frames are counted over its *full* rendering, so that the n of ``evt_<epoch>_<seq>_<n>``
does not depend on who looks; a view then leaves out what is not for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from openline.core import facts as f
from openline.core.facts import Fact
from openline.core.model import Item, Usage
from openline.core.value import replace
from openline.types import ConnectionId, Epoch, ItemId, Role, Seq, SessionId
from openline.wire.items import JsonObject, cut, item_object
from openline.wire.session_config import FORMATS, session_object

RENDERER_VERSION: Final = 1
"""Raised when the frames of any fact change in number or order: a client that resumes then gets the whole
of the fact it stopped in once more."""
MAX_FRAMES: Final = 32
"""Frames of one fact; n from here on belongs to frames that are no facts (wire.frames)."""

Frame = tuple[str, JsonObject]
"""Type and fields of a frame that has no id yet."""


@dataclass(frozen=True, slots=True)
class View:
    """Who looks: one connection of one session. ``expires_at``: Unix seconds of the session's end, 0 for never.
    ``transcribes``: the session is one that only writes down. ``words``: what of an item's transcript this connection
    was given in deltas; only of one that cannot resume, for which a fact need not give the same frames twice."""

    opted_in: bool
    conn: ConnectionId
    role: Role
    strict: bool
    session: SessionId
    expires_at: int = 0
    transcribes: bool = False
    words: dict[ItemId, str] = field(default_factory=dict, compare=False)


def render(fact: Fact, *, epoch: Epoch, seq: Seq, view: View) -> list[tuple[int, bytes]]:
    """The frames of the fact at ``seq`` for ``view``, each with its n (0–31), in the order to send them.

    Empty for facts that clients do not see, and for facts of a newer version.
    """
    return [
        (n, _encode({"type": kind, "event_id": f"evt_{epoch}_{seq}_{n}", **values}))
        for n, (kind, values) in enumerate(rendering(fact, seq, view))
    ]


def rendering(fact: Fact, seq: Seq, view: View) -> list[Frame]:
    """What ``view`` sees of a fact, in order, without ids. Our own frame is the last one, so the protocol's
    have the same n with and without it."""
    stock = _STOCK.get(type(fact))
    frames = list(stock(fact, view)) if stock is not None else []
    own = _OWN.get(type(fact)) if view.opted_in else None
    if own is not None:
        frames.append((fact.TYPE, {"seq": seq, **own(fact, view)}))
    return frames


def item_frames(item: Item, previous: ItemId | None, view: View) -> tuple[Frame, Frame]:
    """A finished item appears: ``added``, then ``done``."""
    values: JsonObject = {"previous_item_id": previous, "item": item_object(item, annotated=view.opted_in)}
    return ("conversation.item.added", values), ("conversation.item.done", values)


_encode: Final = msgspec.json.Encoder().encode

# ------------------------------------------------------------------------------------ session, turns, items


def _session_updated(fact: f.SessionUpdated, view: View) -> Iterable[Frame]:
    session = msgspec.Raw(session_object(fact.config, view.session, expires_at=view.expires_at))
    yield "session.updated", {"session": session}


def _speech_started(fact: f.SpeechStarted, view: View) -> Iterable[Frame]:
    yield (
        "input_audio_buffer.speech_started",
        {"audio_start_ms": fact.audio_start_ms, "item_id": fact.item_id},
    )


def _speech_stopped(fact: f.SpeechStopped, view: View) -> Iterable[Frame]:
    yield "input_audio_buffer.speech_stopped", {"audio_end_ms": fact.audio_end_ms, "item_id": fact.item_id}


def _input_cleared(fact: f.InputCleared, view: View) -> Iterable[Frame]:
    yield "input_audio_buffer.cleared", {}


def _turn_committed(fact: f.TurnCommitted, view: View) -> Iterable[Frame]:
    item = fact.item
    if item is None:  # a typed turn: its items were shown when they were created
        return
    yield "input_audio_buffer.committed", {"previous_item_id": fact.previous_item_id, "item_id": item.id}
    # The service transcribes beside the conversation: an item is shown without its words, then they follow.
    wordless = replace(item, content=tuple(replace(part, text=None) for part in item.content))
    yield from item_frames(wordless, fact.previous_item_id, view)
    if fact.text is not None:
        audio_ms = sum(part.audio.duration_ms for part in item.content if part.audio is not None)
        yield from _transcribed(item.id, fact.text, audio_ms, view)


def _transcribed(item_id: ItemId, text: str, audio_ms: int, view: View) -> Iterable[Frame]:
    """The words of an item. A client that transcribes is told them as a delta too: whole, as whisper-1 does, for a
    recognizer revises what it said before and a delta can only be added to; or what its deltas have not said yet."""
    told = view.words.get(item_id, "")
    rest = text[len(told) :] if text.startswith(told) else ""
    if view.transcribes and rest:
        yield (
            "conversation.item.input_audio_transcription.delta",
            {"item_id": item_id, "content_index": 0, "delta": rest},
        )
    yield (
        "conversation.item.input_audio_transcription.completed",
        {
            "item_id": item_id,
            "content_index": 0,
            "transcript": text,
            "usage": {"type": "duration", "seconds": audio_ms / 1000},
        },
    )


def _turn_transcribed(fact: f.TurnTranscribed, view: View) -> Iterable[Frame]:
    if not fact.failed:
        yield from _transcribed(fact.item_id, fact.text, fact.audio_ms, view)
        return
    yield (
        "conversation.item.input_audio_transcription.failed",
        {
            "item_id": fact.item_id,
            "content_index": 0,
            "error": {
                "type": "transcription_error",
                "code": fact.failed,
                "message": "The audio of this item could not be transcribed.",
            },
        },
    )


def _input_timed_out(fact: f.InputTimedOut, view: View) -> Iterable[Frame]:
    yield (
        "input_audio_buffer.timeout_triggered",
        {
            "audio_start_ms": fact.audio_start_ms,
            "audio_end_ms": fact.audio_end_ms,
            "item_id": fact.item_id,
        },
    )


def _item_created(fact: f.ItemCreated, view: View) -> Iterable[Frame]:
    return item_frames(fact.item, fact.previous_item_id, view)


def _item_deleted(fact: f.ItemDeleted, view: View) -> Iterable[Frame]:
    yield "conversation.item.deleted", {"item_id": fact.item_id}


def _item_truncated(fact: f.ItemTruncated, view: View) -> Iterable[Frame]:
    yield (
        "conversation.item.truncated",
        {"item_id": fact.item_id, "content_index": fact.content_index, "audio_end_ms": fact.audio_end_ms},
    )


def _tool_settled(fact: f.ToolSettled, view: View) -> Iterable[Frame]:
    if fact.item is None:
        return
    shown = item_object(fact.item, annotated=view.opted_in)
    if "error" not in shown and shown["output"] is None:
        shown["output"] = ""  # it may have nothing to say; null would look unsettled
    yield "conversation.item.done", {"previous_item_id": fact.previous_item_id, "item": shown}


# --------------------------------------------------------------------------------------------- responses


def _response_object(
    fact: f.ResponseCreated | f.ResponseDone, view: View, in_conversation: bool
) -> JsonObject:
    """What both ends of a response share. ``conversation_id`` is null out of band, as on the service."""
    return {
        "object": "realtime.response",
        "id": fact.response_id,
        "conversation_id": f"conv_{view.session}" if in_conversation else None,
        "output_modalities": [fact.modality],
        "max_output_tokens": "inf" if fact.max_output_tokens is None else fact.max_output_tokens,
        "audio": {"output": {"format": FORMATS[fact.output_format], "voice": fact.voice}},
    }


def _response_created(fact: f.ResponseCreated, view: View) -> Iterable[Frame]:
    response = _response_object(fact, view, fact.request.conversation == "auto")
    response.update(status="in_progress", output=[])
    if fact.request.metadata:
        response["metadata"] = dict(fact.request.metadata)
    if view.opted_in:
        own: JsonObject = {"attempt": fact.attempt, "origin": fact.request.origin}
        if fact.turn_id is not None:
            own["turn_id"] = fact.turn_id
        response["openline"] = own
    yield "response.created", {"response": response}


def _response_done(fact: f.ResponseDone, view: View) -> Iterable[Frame]:
    response = _response_object(fact, view, fact.is_in_conversation)
    response["status"] = fact.status
    if (details := _status_details(fact)) is not None:
        response["status_details"] = details
    response["output"] = [item_object(item, annotated=view.opted_in) for item in fact.output]
    if fact.metadata:
        response["metadata"] = dict(fact.metadata)
    response["usage"] = _usage(fact.usage)
    if view.opted_in and fact.reason:
        response["openline"] = {"reason": fact.reason}
    yield "response.done", {"response": response}


_REASONS: Final = ("turn_detected", "client_cancelled", "max_output_tokens", "content_filter")


def _status_details(fact: f.ResponseDone) -> JsonObject | None:
    if fact.status == "completed":
        return None
    details: JsonObject = {"type": fact.status}
    # Only the protocol's reasons: openai-agents drops a frame with another one (C.7). Ours is under "openline".
    if fact.reason in _REASONS:
        details["reason"] = fact.reason
    if fact.status == "failed":
        # Pipecat reads the message of every failed response, so there is always one.
        problem = fact.problem
        details["error"] = (
            {"type": "server_error", "code": fact.reason or "failed", "message": "The response failed."}
            if problem is None
            else {"type": problem.type, "code": problem.code, "message": problem.message}
        )
    return details


def _usage(usage: Usage) -> JsonObject:
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": max(0, usage.input_tokens - usage.input_audio_tokens),
            "audio_tokens": usage.input_audio_tokens,
            "image_tokens": 0,
            "cached_tokens": usage.cached_tokens,
        },
        "output_token_details": {
            "text_tokens": max(0, usage.output_tokens - usage.output_audio_tokens),
            "audio_tokens": usage.output_audio_tokens,
        },
    }


def _output_item_added(fact: f.OutputItemAdded, view: View) -> Iterable[Frame]:
    # An item that begins has no content yet: its first part is announced by content_part.added.
    item = item_object(replace(fact.item, content=()), annotated=view.opted_in)
    yield (
        "response.output_item.added",
        {"response_id": fact.response_id, "output_index": fact.output_index, "item": item},
    )
    if fact.is_in_conversation:
        yield "conversation.item.added", {"previous_item_id": fact.previous_item_id, "item": item}
    if fact.item.type == "message":
        yield "response.content_part.added", {**_place(fact), "part": _part(fact.modality, "")}


def _output_item_done(fact: f.OutputItemDone, view: View) -> Iterable[Frame]:
    item = cut(fact.item, fact.shown_end)
    if item.type == "message":
        yield from _message_done(fact, item.text)
    elif item.status == "completed":
        # A call that was cut has no arguments to act on, and Pipecat acts on this frame.
        yield from _call_done(fact, item)
    shown = item_object(item, annotated=view.opted_in)
    # A server-run call stays open in the conversation until its tool has settled; one that was cut never runs.
    if fact.is_in_conversation and not (item.type == "mcp_call" and item.status == "completed"):
        yield "conversation.item.done", {"previous_item_id": fact.previous_item_id, "item": shown}
    yield (
        "response.output_item.done",
        {"response_id": fact.response_id, "output_index": fact.output_index, "item": shown},
    )


def _message_done(fact: f.OutputItemDone, text: str) -> Iterable[Frame]:
    place = _place(fact)
    if fact.modality == "audio":
        yield "response.output_audio.done", place
        yield "response.output_audio_transcript.done", {**place, "transcript": text}
    else:
        yield "response.output_text.done", {**place, "text": text}
    yield "response.content_part.done", {**place, "part": _part(fact.modality, text)}


def _call_done(fact: f.OutputItemDone, item: Item) -> Iterable[Frame]:
    place: JsonObject = {
        "response_id": fact.response_id,
        "item_id": item.id,
        "output_index": fact.output_index,
    }
    if item.type == "mcp_call":
        yield "response.mcp_call_arguments.done", {**place, "arguments": item.arguments}
        yield "response.mcp_call.in_progress", {"item_id": item.id, "output_index": fact.output_index}
        return
    yield (
        "response.function_call_arguments.done",
        {**place, "call_id": item.call_id, "name": item.name, "arguments": item.arguments},
    )


def _place(fact: f.OutputItemAdded | f.OutputItemDone) -> JsonObject:
    return {
        "response_id": fact.response_id,
        "item_id": fact.item.id,
        "output_index": fact.output_index,
        "content_index": 0,
    }


def _part(modality: Literal["audio", "text"], text: str) -> JsonObject:
    """A content *part*: ``audio`` and ``text``, where an item's content says output_audio and output_text."""
    return {"type": "audio", "transcript": text} if modality == "audio" else {"type": "text", "text": text}


_STOCK: Final[dict[type[Fact], Callable[[Any, View], Iterable[Frame]]]] = {
    f.SessionUpdated: _session_updated,
    f.SpeechStarted: _speech_started,
    f.SpeechStopped: _speech_stopped,
    f.InputCleared: _input_cleared,
    f.InputTimedOut: _input_timed_out,
    f.TurnCommitted: _turn_committed,
    f.TurnTranscribed: _turn_transcribed,
    f.ItemCreated: _item_created,
    f.ItemDeleted: _item_deleted,
    f.ItemTruncated: _item_truncated,
    f.ResponseCreated: _response_created,
    f.OutputItemAdded: _output_item_added,
    f.OutputItemDone: _output_item_done,
    f.ResponseDone: _response_done,
    f.ToolSettled: _tool_settled,
}

# ----------------------------------------------------------------------------------- openline.* frames


def _fields_but(*hidden: str) -> Callable[[Fact, View], JsonObject]:
    """All fields of a fact that have a value, without ``hidden``; items as the protocol shows them."""

    def own(fact: Fact, view: View) -> JsonObject:
        shown: JsonObject = {}
        for name in fact.__struct_fields__:
            value = getattr(fact, name)
            if name not in hidden and value is not None:
                shown[name] = item_object(value, annotated=True) if isinstance(value, Item) else value
        return shown

    return own


def _held(fact: Any, view: View) -> JsonObject:
    # Its instructions and context are agent code's own, and may be told to no client.
    return {"origin": fact.request.origin}


_ALL: Final = _fields_but()
_OWN: Final[dict[type[Fact], Callable[[Fact, View], JsonObject]]] = {
    # The configuration was in session.created already; the tenant is the operator's word.
    f.SessionStarted: _fields_but("config", "tenant", "prepares_replies", "version"),
    f.SessionForked: _ALL,
    f.SessionOwned: _ALL,
    f.SessionParked: _ALL,
    f.SessionEnded: _ALL,
    f.ConnectionAttached: _fields_but("token_hash", "replaces"),
    f.ConnectionDetached: _ALL,
    f.LinkOpened: _ALL,
    f.LinkLost: _ALL,
    f.LinkRenewed: _ALL,
    f.TurnCommitted: _ALL,
    f.TurnTranscribed: _ALL,
    f.TurnAbandoned: _ALL,
    f.TurnContinued: _ALL,
    f.ItemHeard: _ALL,
    f.ResponseHeld: _held,
    f.ReplyDropped: _ALL,
    # An idempotency key lets its holder act as us at the far side.
    f.ToolRequested: _fields_but("key"),
    f.ToolStarted: _fields_but("key"),
    f.ToolSettled: _ALL,
    f.MediaDropped: _ALL,
    f.SilenceExceeded: _ALL,
}
UNSEEN: Final[frozenset[type[Fact]]] = frozenset(
    {f.LinkRequested, f.OutputItemProgressed, f.SegmentRecorded, f.ResponseGenerated}
)
"""Pure notes: no client is shown them."""
OPENLINE_FACTS: Final = tuple(_OWN)
STOCK_FACTS: Final = tuple(_STOCK)
