"""What a client asks one response with: ``response.create{response}`` to a ResponseRequest (B.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, cast

from openline.core.model import Item, ResponseRequest
from openline.types import ItemId
from openline.wire.check import MAX_ID, Fields
from openline.wire.items import JsonObject, to_item, to_max_tokens, to_tool_choice, to_tools
from openline.wire.session_config import to_format, to_modality, to_voice

MAX_METADATA: Final = 16
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512
"""Pairs, and characters of a key and a value, as OpenAI documents them for every ``metadata``."""
MAX_INPUT: Final = 1_000
"""Items given to one response as its context."""

_BETA_FIELDS: Final = {
    "modalities": "response.output_modalities",
    "voice": "response.audio.output.voice",
    "output_audio_format": "response.audio.output.format",
    "max_response_output_tokens": "response.max_output_tokens",
}
_FIELDS: Final = (
    "conversation",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "output_modalities",
    "audio",
    "max_output_tokens",
    "metadata",
    "prompt",
    "reasoning",
)


def to_request(
    response: JsonObject | None,
    lookup: Callable[[ItemId], Item | None],
    *,
    strict: bool = False,
    event_id: str | None = None,
) -> ResponseRequest:
    """The request in ``response.create{response}``; an absent one asks for everything as the session says.

    ``lookup`` finds an item of the conversation for an ``item_reference``. ``max_output_tokens`` "inf" is
    "as the session says"; ``prompt`` and ``reasoning`` are taken and have no effect.

    Raises ClientProtocolError with the path of what is wrong.
    """
    fields = Fields(response or {}, "response", event_id)
    for name, successor in _BETA_FIELDS.items():
        if name in fields:
            message = f"Unknown parameter: 'response.{name}'. It is the beta API's; use '{successor}'."
            raise fields.wrong("unknown_parameter", message, name)
    if strict:
        fields.refuse_unknown(_FIELDS)
    fields.child("prompt")
    fields.child("reasoning")
    audio = fields.child("audio")
    output = audio.child("output") if audio is not None else None
    conversation = fields.choice("conversation", ("auto", "none")) or "auto"
    return ResponseRequest(
        conversation=cast("Literal['auto', 'none']", conversation),
        modality=to_modality(fields, strict),
        instructions=fields.text("instructions"),
        tools=None if fields.get("tools") is None else to_tools(fields),
        tool_choice=to_tool_choice(fields),
        parallel_tool_calls=None
        if fields.get("parallel_tool_calls") is None
        else fields.flag("parallel_tool_calls", True),
        max_output_tokens=to_max_tokens(fields),
        voice=None if output is None else to_voice(output, strict),
        output_format=None if output is None else to_format(output),
        metadata=_metadata(fields),
        has_input=fields.get("input") is not None,
        input=tuple(_input(entry, lookup, strict) for entry in fields.children("input", limit=MAX_INPUT)),
    )


def _metadata(fields: Fields) -> tuple[tuple[str, str], ...]:
    pairs = fields.child("metadata")
    if pairs is None:
        return ()
    if len(pairs.values) > MAX_METADATA:
        message = (
            f"Invalid 'response.metadata': too many properties. Expected an object with at most {MAX_METADATA} "
            f"properties, but got an object with {len(pairs.values)} properties instead."
        )
        raise fields.wrong("object_above_max_properties", message, "metadata")
    for key in pairs.values:
        if len(key) > MAX_METADATA_KEY:
            message = f"Invalid 'response.metadata': a key is longer than {MAX_METADATA_KEY} characters."
            raise fields.wrong("invalid_value", message, "metadata")
    return tuple((key, pairs.required_text(key, limit=MAX_METADATA_VALUE)) for key in pairs.values)


def _input(entry: Fields, lookup: Callable[[ItemId], Item | None], strict: bool) -> Item:
    if entry.get("type") != "item_reference":
        return to_item(entry.values, strict=strict, path=entry.path, event_id=entry.event_id)
    found = lookup(ItemId(entry.required_text("id", limit=MAX_ID)))
    if found is None:
        message = f"Invalid '{entry.at('id')}': the conversation has no item with this id."
        raise entry.wrong("invalid_value", message, "id")
    return found
