"""Conversation items and tools: OpenAI Realtime JSON to core values and back (openai-protocols.md B.4).

The naming pitfall: the content of an *item* is ``output_text`` / ``output_audio``, a content *part* of a
response event is ``text`` / ``audio``. Audio bytes are in neither.
"""

from __future__ import annotations

import binascii
import re
from typing import Final, Literal, cast, get_args

import msgspec

from openline.core.model import Item, ItemStatus, Part, PartType, ToolSpec
from openline.core.value import replace
from openline.errors import ClientProtocolError
from openline.types import ItemId
from openline.wire.check import MAX_AUDIO, MAX_ID, Fields

MAX_PARTS: Final = 64
"""Content parts of one item; the service names no limit."""
MAX_IMAGE: Final = 4 * 1024 * 1024
"""Characters of an image's data URL: it is shown again in ``conversation.item.added``, and openai-agents
drops frames over 8 MiB (C.2)."""
MAX_TOOLS: Final = 128
"""Function tools of a session or response, as on OpenAI's other endpoints."""
STRICT_ID_LIMIT: Final = 32
"""Characters that OpenAI allows for a client's item id."""

_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_STATUSES: Final[tuple[ItemStatus, ...]] = get_args(ItemStatus)
_ROLES: Final = ("user", "assistant", "system")
_ITEM_TYPES: Final = ("message", "function_call", "function_call_output")
_MCP_TYPES: Final = ("mcp_call", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response")
_PARTS: Final[dict[str, tuple[PartType, ...]]] = {
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "output_audio"),
    "system": ("input_text",),
}

JsonObject = dict[str, object]

# ------------------------------------------------------------------------------------------ from a client


def to_item(
    item: JsonObject, *, strict: bool = False, path: str = "item", event_id: str | None = None
) -> Item:
    """The item a client asks to create; ``id`` is empty when it chose none.

    Raises ClientProtocolError with the path of what is wrong. Not strict: long ids and transcripts in
    place of audio are taken (docs/reference/deviations.md).
    """
    fields = Fields(item, path, event_id)
    if fields.get("type") in _MCP_TYPES:
        raise fields.not_supported("type", "items of MCP tools in conversation.item.create")
    kind = fields.required_choice("type", _ITEM_TYPES)
    item_id = ItemId(fields.text("id", limit=STRICT_ID_LIMIT if strict else MAX_ID) or "")
    # A created item is finished by definition; only "incomplete" says something else about it.
    status: ItemStatus = "incomplete" if fields.choice("status", _STATUSES) == "incomplete" else "completed"
    if kind == "message":
        return _message(fields, item_id, status, strict)
    if kind == "function_call":
        return Item(
            item_id,
            "function_call",
            "assistant",
            status=status,
            call_id=fields.text("call_id", limit=MAX_ID) or "",
            name=fields.required_text("name", limit=MAX_ID),
            arguments=fields.required_text("arguments"),
        )
    return Item(
        item_id,
        "function_call_output",
        "tool",
        status=status,
        call_id=fields.required_text("call_id", limit=MAX_ID),
        output=fields.required_text("output"),
    )


def _message(fields: Fields, item_id: ItemId, status: ItemStatus, strict: bool) -> Item:
    role = cast("Literal['user', 'assistant', 'system']", fields.required_choice("role", _ROLES))
    fields.require("content")
    parts = tuple(_part(part, role, strict) for part in fields.children("content", limit=MAX_PARTS))
    return Item(item_id, "message", role, role=role, status=status, content=parts)


def _part(fields: Fields, role: str, strict: bool) -> Part:
    kind = cast("PartType", fields.required_choice("type", _PARTS[role]))
    if kind == "input_image":
        return _image(fields)
    if kind == "input_audio" or kind == "output_audio":
        return _spoken(fields, kind, strict)
    return Part(kind, text=fields.required_text("text"))


def _image(fields: Fields) -> Part:
    url = fields.required_text("image_url", limit=MAX_IMAGE)
    if not url.startswith("data:image/"):
        message = f"Invalid '{fields.at('image_url')}': expected a data URL (data:image/png;base64,…)."
        raise fields.wrong("invalid_value", message, "image_url")
    return Part("input_image", image_url=url, detail=fields.choice("detail", ("auto", "low", "high")) or "")


def _spoken(fields: Fields, kind: Literal["input_audio", "output_audio"], strict: bool) -> Part:
    """A spoken part is taken by its words: audio comes in through the input buffer only."""
    transcript = fields.text("transcript")
    if (audio := fields.text("audio", limit=MAX_AUDIO * 4 // 3)) is not None:
        _check_audio(fields, audio)
    if strict and kind == "output_audio":
        raise fields.wrong_value("type", ("output_text",))
    if transcript is None:
        raise fields.not_supported("type", f"{kind} without its transcript; use input_audio_buffer.append")
    return Part(kind, text=transcript)


def _check_audio(fields: Fields, audio: str) -> None:
    try:
        pcm = binascii.a2b_base64(audio, strict_mode=True)
    except ValueError:
        # binascii.Error is a ValueError, and so is what non-ASCII text gives.
        raise fields.wrong("invalid_value", f"Invalid '{fields.at('audio')}': not base64.", "audio") from None
    if len(pcm) % 2:
        raise odd_audio(fields)


def odd_audio(fields: Fields) -> ClientProtocolError:
    message = f"Invalid '{fields.at('audio')}': PCM16 audio needs an even number of bytes."
    return fields.wrong("invalid_value", message, "audio")


def to_tools(fields: Fields) -> tuple[ToolSpec, ...]:
    """The function tools in ``fields["tools"]``, run by the client."""
    tools: list[ToolSpec] = []
    names: set[str] = set()
    for tool in fields.children("tools", limit=MAX_TOOLS):
        if tool.get("type") == "mcp":
            raise tool.not_supported("type", "MCP tools declared by a client")
        tool.required_choice("type", ("function",))
        name = tool.required_text("name")
        if not _TOOL_NAME.fullmatch(name):
            message = f"Invalid '{tool.at('name')}': expected 1 to 64 of a-z, A-Z, 0-9, '_' and '-'."
            raise tool.wrong("invalid_value", message, "name")
        if name in names:
            raise tool.wrong("invalid_value", f"Invalid '{tool.at('name')}': the name is used twice.", "name")
        names.add(name)
        description = tool.text("description") or ""
        if tool.child("parameters") is None:
            tools.append(ToolSpec(name, description))
        else:
            tools.append(ToolSpec(name, description, tool.json_text("parameters")))
    return tuple(tools)


def to_tool_choice(fields: Fields) -> str | None:
    """``tool_choice`` as JSON text; None when absent or null."""
    value = fields.get("tool_choice")
    if not isinstance(value, dict):
        mode = fields.choice("tool_choice", ("auto", "none", "required"))
        return None if mode is None else f'"{mode}"'
    forced = Fields(value, fields.at("tool_choice"), fields.event_id)
    if forced.get("type") == "mcp":
        raise forced.not_supported("type", "MCP tools")
    forced.required_choice("type", ("function",))
    name = forced.required_text("name", limit=MAX_ID)
    return msgspec.json.encode({"type": "function", "name": name}).decode()


def to_max_tokens(fields: Fields) -> int | None:
    """``max_output_tokens`` 1…4096; None for "inf", null and absent."""
    if fields.get("max_output_tokens") == "inf":
        return None
    return fields.integer("max_output_tokens", 1, 4096)


# -------------------------------------------------------------------------------------------- to a client


def item_object(item: Item, *, annotated: bool = False) -> JsonObject:
    """An item as the protocol shows it. ``annotated``: with our own ``openline`` field, for opted-in clients."""
    shown = _SHAPES[item.type](item)
    if annotated:
        extra: JsonObject = {"author": item.author}
        if item.turn_id is not None:
            extra["turn_id"] = item.turn_id
        if item.heard_ms is not None:
            extra["heard_ms"] = item.heard_ms
        shown["openline"] = extra
    return shown


def _message_object(item: Item) -> JsonObject:
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "message",
        "status": item.status,
        "role": item.role,
        "content": [part_object(part) for part in item.content if part.type != "reasoning"],
    }


def part_object(part: Part) -> JsonObject:
    """One part of an item's content; ``transcript`` is there even when null (C.7: agents-js throws without)."""
    if part.type == "input_audio":
        return {"type": part.type, "transcript": part.text}
    if part.type == "output_audio":
        return {"type": part.type, "transcript": part.text or ""}
    if part.type == "input_image":
        image: JsonObject = {"type": part.type, "image_url": part.image_url}
        return {**image, "detail": part.detail} if part.detail else image
    # Realtime has no part for a refusal: it is text like any other there.
    kind = "output_text" if part.type == "refusal" else part.type
    return {"type": kind, "text": part.text or ""}


def _call_object(item: Item) -> JsonObject:
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "function_call",
        "status": item.status,
        "name": item.name,
        # Always there (E.2 #5): agents-js and openai-agents look a call up by it.
        "call_id": item.call_id or item.id,
        "arguments": item.arguments,
    }


def _output_object(item: Item) -> JsonObject:
    return {
        "id": item.id,
        "object": "realtime.item",
        "type": "function_call_output",
        "status": item.status,
        "call_id": item.call_id,
        "output": item.output,
    }


def _mcp_object(item: Item) -> JsonObject:
    shown: JsonObject = {
        "id": item.id,
        "type": "mcp_call",
        "server_label": item.server_label,
        "name": item.name,
        "arguments": item.arguments,
        # Always there, null until it has settled: agents-js throws at a server-run call without the key.
        "output": None if item.error else item.output or None,
    }
    if item.error:
        shown["error"] = {"type": "tool_execution_error", "message": item.error}
    return shown


_SHAPES: Final = {
    "message": _message_object,
    "function_call": _call_object,
    "function_call_output": _output_object,
    "mcp_call": _mcp_object,
}


def cut(item: Item, end: int | None) -> Item:
    """``item`` with only the first ``end`` characters of its text over all parts; None: all of it."""
    if end is None:
        return item
    parts: list[Part] = []
    for part in item.content:
        text = part.text or ""
        parts.append(replace(part, text=text[:end]))
        end -= min(end, len(text))
    return replace(item, content=tuple(parts))
