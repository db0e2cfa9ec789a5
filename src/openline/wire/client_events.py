"""What clients send over ``/v1/realtime``: typed events from JSON, or a ClientProtocolError to answer with.

The 11 events of OpenAI Realtime (openai-protocols.md B.3) and, for clients that opted in, our two. The
way of a good event is one pass of msgspec over the bytes, base64 included; only what that refuses is
read a second time, to find out what is wrong with it in the protocol's own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, NoReturn

import msgspec
from msgspec import Meta

from openline.errors import ClientProtocolError
from openline.wire.check import MAX_AUDIO, MAX_ID, MAX_MS, Fields, error, kind_of
from openline.wire.items import JsonObject, to_item
from openline.wire.items import odd_audio as odd_audio_at
from openline.wire.requests import to_request
from openline.wire.session_config import session_object, to_config

MAX_EVENT: Final = MAX_AUDIO * 4 // 3 + 4_096
"""Bytes of one event: the largest audio as base64 and its envelope."""
MAX_CONTENT_INDEX: Final = 1_000

_Id = Annotated[str, Meta(max_length=MAX_ID)]
_RequiredId = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
_EventId = Annotated[str, Meta(max_length=512)]
_Offset = Annotated[int, Meta(ge=0, le=MAX_MS)]
_Index = Annotated[int, Meta(ge=0, le=MAX_CONTENT_INDEX)]


class ClientEvent(msgspec.Struct, kw_only=True, tag_field="type"):
    """Base of all. ``event_id`` is the client's own, echoed in errors and receipts only."""

    event_id: _EventId | None = None


class UpdateSession(ClientEvent, tag="session.update"):
    """``session`` is unchecked JSON: see ``to_config``."""

    session: JsonObject


class AppendAudio(ClientEvent, tag="input_audio_buffer.append", gc=False):
    """``audio``: in the session's input format, at most 15 MiB. What it is, only the session knows: see ``odd_audio``."""

    audio: bytes


class CommitBuffer(ClientEvent, tag="input_audio_buffer.commit"):
    pass


class ClearBuffer(ClientEvent, tag="input_audio_buffer.clear"):
    pass


class CreateItem(ClientEvent, tag="conversation.item.create"):
    """``item`` is unchecked JSON: see ``to_item``. ``previous_item_id``: "root", an id, or None for the end."""

    item: JsonObject
    previous_item_id: _Id | None = None


class RetrieveItem(ClientEvent, tag="conversation.item.retrieve"):
    item_id: _RequiredId


class TruncateItem(ClientEvent, tag="conversation.item.truncate"):
    item_id: _RequiredId
    content_index: _Index
    audio_end_ms: _Offset


class DeleteItem(ClientEvent, tag="conversation.item.delete"):
    item_id: _RequiredId


class CreateResponse(ClientEvent, tag="response.create"):
    """``response`` is unchecked JSON: see ``to_request``."""

    response: JsonObject | None = None


class CancelResponse(ClientEvent, tag="response.cancel"):
    response_id: _Id | None = None


class ClearOutput(ClientEvent, tag="output_audio_buffer.clear"):
    """WebRTC and SIP only in the protocol: a WebSocket client holds its own output."""


class ReportPlayout(ClientEvent, tag="openline.playout"):
    """The client has played ``item_id`` up to ``audio_end_ms``."""

    item_id: _RequiredId
    audio_end_ms: _Offset


class EndSession(ClientEvent, tag="openline.session.end"):
    reason: Annotated[str, Meta(max_length=128)] | None = None


_STOCK: Final[tuple[type[ClientEvent], ...]] = (
    UpdateSession,
    AppendAudio,
    CommitBuffer,
    ClearBuffer,
    CreateItem,
    RetrieveItem,
    TruncateItem,
    DeleteItem,
    CreateResponse,
    CancelResponse,
    ClearOutput,
)


def event_type(kind: type[ClientEvent]) -> str:
    return str(kind.__struct_config__.tag)


STOCK_EVENTS: Final = tuple(event_type(kind) for kind in _STOCK)
OPENLINE_EVENTS: Final = (event_type(ReportPlayout), event_type(EndSession))

_StockEvent = (
    UpdateSession
    | AppendAudio
    | CommitBuffer
    | ClearBuffer
    | CreateItem
    | RetrieveItem
    | TruncateItem
    | DeleteItem
    | CreateResponse
    | CancelResponse
    | ClearOutput
)
_decode_stock: Final[Callable[[bytes | str], ClientEvent]] = msgspec.json.Decoder(_StockEvent).decode
_decode_opted_in: Final[Callable[[bytes | str], ClientEvent]] = msgspec.json.Decoder(
    _StockEvent | ReportPlayout | EndSession
).decode


def decode(data: bytes | str, *, opted_in: bool) -> ClientEvent:
    """One text frame of a client. 20 ms of audio take about 1 µs.

    ``opted_in``: the ``openline.*`` events exist for this client; for others they are unknown types.

    Raises:
        ClientProtocolError: with OpenAI's code, the path of the field as ``param``, and the client's
            ``event_id`` whenever it could be read. Nothing else comes out, whatever goes in.
    """
    if len(data) > MAX_EVENT:
        raise error("invalid_event", f"The event is too large: at most {MAX_EVENT} bytes, got {len(data)}.")
    try:
        event = (_decode_opted_in if opted_in else _decode_stock)(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        _explain(data, opted_in)
    if type(event) is AppendAudio:
        if len(event.audio) > MAX_AUDIO:
            message = (
                f"Invalid 'audio': at most {MAX_AUDIO} bytes of audio in one event, got {len(event.audio)}."
            )
            raise error("invalid_value", message, "audio", event.event_id)
    return event


def odd_audio(event: AppendAudio) -> ClientProtocolError:
    """The answer to PCM16 that ends in half a sample."""
    return odd_audio_at(Fields({}, "", event.event_id))


# ------------------------------------------------------------------------------------- what went wrong

_Check = Callable[[Fields, str], object]


def _explain(data: bytes | str, opted_in: bool) -> NoReturn:
    try:
        event = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Its own message would do, but msgspec may quote the text around the error.
        raise error("invalid_event", "The event is not valid JSON.") from None
    if not isinstance(event, dict):
        raise error("invalid_event", f"The event must be a JSON object, but is {kind_of(event)}.")
    event_id = event.get("event_id")
    fields = Fields(event, "", event_id if isinstance(event_id, str) and len(event_id) <= 512 else None)
    kind = _known_type(fields, opted_in)
    fields.text("event_id", limit=512)
    for name, check in _CHECKS[kind].items():
        check(fields, name)
    if "audio" in _CHECKS[kind]:
        # It is a string, and there, and still could not be read.
        raise fields.wrong("invalid_value", "Invalid 'audio': not base64.", "audio")
    # A key that comes twice, once wrong: the two readings take different ones.
    raise error("invalid_event", "The event could not be read.", None, fields.event_id)


def _known_type(fields: Fields, opted_in: bool) -> str:
    if "type" not in fields:
        raise error("invalid_event", "The 'type' field is missing.", None, fields.event_id)
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise fields.wrong_type("type", "a string")
    supported = STOCK_EVENTS + OPENLINE_EVENTS if opted_in else STOCK_EVENTS
    if kind == "transcription_session.update":
        message = "Invalid value: 'transcription_session.update'. It is the beta API's; use 'session.update'."
        raise fields.wrong("invalid_value", message, "type")
    if kind not in supported:
        raise fields.wrong_value("type", supported)
    return kind


def _object(fields: Fields, name: str) -> None:
    fields.require(name)
    if fields.child(name) is None:
        raise fields.wrong_type(name, "an object")


def _id(fields: Fields, name: str) -> None:
    if not fields.required_text(name, limit=MAX_ID):
        raise fields.wrong("invalid_value", f"Invalid '{name}': empty string.", name)


def _integer(high: int) -> _Check:
    def check(fields: Fields, name: str) -> None:
        fields.require(name)
        if fields.integer(name, 0, high) is None:
            raise fields.wrong_type(name, "an integer")

    return check


def _optional_id(fields: Fields, name: str) -> None:
    fields.text(name, limit=MAX_ID)


_CHECKS: Final[dict[str, dict[str, _Check]]] = {
    "session.update": {"session": _object},
    "input_audio_buffer.append": {"audio": lambda fields, name: fields.required_text(name, limit=MAX_EVENT)},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "conversation.item.create": {"item": _object, "previous_item_id": _optional_id},
    "conversation.item.retrieve": {"item_id": _id},
    "conversation.item.truncate": {
        "item_id": _id,
        "content_index": _integer(MAX_CONTENT_INDEX),
        "audio_end_ms": _integer(MAX_MS),
    },
    "conversation.item.delete": {"item_id": _id},
    "response.create": {"response": lambda fields, name: fields.child(name)},
    "response.cancel": {"response_id": _optional_id},
    "output_audio_buffer.clear": {},
    "openline.playout": {"item_id": _id, "audio_end_ms": _integer(MAX_MS)},
    "openline.session.end": {"reason": lambda fields, name: fields.text(name, limit=128)},
}

__all__ = [
    "MAX_EVENT",
    "OPENLINE_EVENTS",
    "STOCK_EVENTS",
    "AppendAudio",
    "CancelResponse",
    "ClearBuffer",
    "ClearOutput",
    "ClientEvent",
    "CommitBuffer",
    "CreateItem",
    "CreateResponse",
    "DeleteItem",
    "EndSession",
    "ReportPlayout",
    "RetrieveItem",
    "TruncateItem",
    "UpdateSession",
    "decode",
    "odd_audio",
    "session_object",
    "to_config",
    "to_item",
    "to_request",
]
