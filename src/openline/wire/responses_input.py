"""The ``input`` of a Responses request: items a client gives or refers to, and how they are shown again.

Pure. What is given is in the order of the request: items, reasoning in front of what it led to, and references to
stored items, which whoever knows the store puts in before ``joined`` makes the items of a conversation of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from openline.core.model import Item, Part, PartType
from openline.core.value import replace
from openline.errors import ClientProtocolError
from openline.types import ItemId
from openline.wire.check import MAX_ID, Fields, error
from openline.wire.items import JsonObject
from openline.wire.reasoning import object_of, part_of, reasoning_entries, shown, to_reasoning

MAX_INPUT: Final = 10_000
"""Input items of one request; the service names no limit."""
ITEM_NOT_FOUND: Final = "item_not_found"
"""OpenAI sends no code with this error; its status is 404."""
_ROLES: Final = ("user", "assistant", "system", "developer")
_TYPES: Final = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Reference:
    """A stored item, by the id under which this API showed it."""

    id: str


Given = Item | Part | Reference
"""An item, a reasoning part that goes with the item behind it, or a reference to either."""


def to_given(fields: Fields) -> tuple[Given, ...]:
    """``fields["input"]``: text or a list. Raises ClientProtocolError."""
    given = fields.get("input")
    if isinstance(given, str):
        return (_typed("user", (Part("input_text", fields.text("input")),)),)
    return tuple([_given(entry) for entry in fields.children("input", limit=MAX_INPUT)])


def joined(given: Iterable[Given]) -> tuple[Item, ...]:
    """The items of ``given``, each with the reasoning that led to it, once. Without what led to nothing of the
    model's own: no model takes that. There is no reference left in it."""
    items: list[Item] = []
    led_here: list[Part] = []
    for each in given:
        if isinstance(each, Part):
            led_here.append(each)
            continue
        assert isinstance(each, Item), "a reference is answered first"
        known = {object_of(text).get("id") for text in each.reasoning}
        own = [part for part in led_here if object_of(part.text or "{}").get("id", "") not in known]
        is_led_to = own and each.author == "assistant"
        items.append(replace(each, content=(*each.content, *own)) if is_led_to else each)
        led_here = []
    return tuple(items)


def has_references(given: Iterable[Given]) -> bool:
    return any(isinstance(each, Reference) for each in given)


def item_not_found(item_id: str) -> ClientProtocolError:
    message = (
        f"Item with id '{item_id[:MAX_ID]}' not found. Items are not persisted when `store` is set to false. "
        "Try again with `store` set to true, or remove this item from your input."
    )
    return error(ITEM_NOT_FOUND, message, "input")


def _given(fields: Fields) -> Given:
    kind = fields.get("type")
    if kind == "reasoning":
        return part_of(to_reasoning(fields))
    # The client's own types let the type of a reference be left out.
    if kind == "item_reference" or (kind is None and "id" in fields and "role" not in fields):
        return Reference(fields.required_text("id", limit=MAX_ID))
    return _item(fields)


def _item(fields: Fields) -> Item:
    kind = fields.get("type")
    if kind is None and "role" in fields:
        return _message(fields)
    match fields.required_choice("type", _TYPES):
        case "message":
            return _message(fields)
        case "function_call":
            return Item(
                ItemId(""),
                "function_call",
                "assistant",
                call_id=fields.required_text("call_id", limit=MAX_ID),
                name=fields.required_text("name", limit=MAX_ID),
                arguments=fields.required_text("arguments"),
            )
        case _:
            call_id = fields.required_text("call_id", limit=MAX_ID)
            return Item(ItemId(""), "function_call_output", "tool", call_id=call_id, output=_output(fields))


def _output(fields: Fields) -> str:
    if isinstance(fields.get("output"), list):
        parts = fields.children("output", limit=MAX_INPUT)
        for part in parts:
            part.required_choice("type", ("input_text", "output_text", "text"))
        return " ".join(part.required_text("text") for part in parts)
    return fields.required_text("output")


def _message(fields: Fields) -> Item:
    role = fields.required_choice("role", _ROLES)
    fields.require("content")
    text_type: Literal["input_text", "output_text"] = "output_text" if role == "assistant" else "input_text"
    if isinstance(fields.get("content"), str):
        return _typed(role, (Part(text_type, fields.text("content")),))
    parts: list[Part] = []
    for part in fields.children("content", limit=MAX_INPUT):
        supported = ("input_text", "output_text", "text", "refusal", "input_image")
        match part.required_choice("type", supported):
            case "input_image":
                url = part.required_text("image_url", limit=32 * 1024 * 1024)
                detail = part.choice("detail", ("auto", "low", "high", "original")) or ""
                parts.append(Part("input_image", image_url=url, detail=detail))
            case "refusal":
                kind: PartType = "refusal" if role == "assistant" else text_type
                parts.append(Part(kind, part.required_text("refusal")))
            case _:
                parts.append(Part(text_type, part.required_text("text")))
    return _typed(role, tuple(parts))


def _typed(role: str, content: tuple[Part, ...]) -> Item:
    match role:
        case "assistant":
            return Item(ItemId(""), "message", "assistant", "assistant", content=content)
        case "user":
            return Item(ItemId(""), "message", "user", "user", content=content)
        case _:
            return Item(ItemId(""), "message", "system", "system", content=content)


# ------------------------------------------------------------------------------------------ shown again


def input_objects(items: Iterable[Item], *, sealed: bool = False) -> list[JsonObject]:
    """Items of a stored request as this API shows them, each behind the reasoning that led to it; ``sealed``: with
    its encrypted content."""
    found: list[JsonObject] = []
    for item in items:
        found += [shown(entry, sealed=sealed) for entry in reasoning_entries(item)]
        found.append(input_object(item))
    return found


def input_list(data: Sequence[JsonObject], has_more: bool) -> bytes:
    """``GET …/input_items``: one page of a stored request's input."""
    first, last = (data[0].get("id"), data[-1].get("id")) if data else (None, None)
    page: JsonObject = {"object": "list", "data": data, "first_id": first, "last_id": last}
    return _encode({**page, "has_more": has_more})


def input_object(item: Item) -> JsonObject:
    """An input item as this API shows it; what was spoken is text here."""
    match item.type:
        case "message":
            return {
                "id": item.id,
                "type": "message",
                "role": item.role,
                "status": item.status,
                "content": [_input_part(item, part) for part in item.content if part.type != "reasoning"],
            }
        case "function_call_output":
            return {"id": item.id, "type": item.type, "call_id": item.call_id, "output": item.output,
                    "status": "completed"}  # fmt: skip
        case _:
            return {"id": item.id, "type": "function_call", "call_id": item.call_id, "name": item.name,
                    "arguments": item.arguments, "status": item.status}  # fmt: skip


def _input_part(item: Item, part: Part) -> JsonObject:
    if part.type == "input_image":
        return {"type": "input_image", "image_url": part.image_url, "detail": part.detail or "auto"}
    if part.type == "refusal":
        return refusal_part(part.text or "")
    if item.role == "assistant":
        return text_part(part.text or "")
    return {"type": "input_text", "text": part.text or ""}


def refusal_part(text: str) -> JsonObject:
    return {"type": "refusal", "refusal": text}


def text_part(text: str) -> JsonObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
