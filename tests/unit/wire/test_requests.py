"""response.create{response}: what one response is asked with."""

from __future__ import annotations

from typing import Any

import pytest

from openline.core.model import Item, Part, ResponseRequest, ToolSpec
from openline.errors import ClientProtocolError
from openline.types import ItemId
from openline.wire.requests import to_request
from wire_samples import TYPED_ITEM


def lookup(item_id: ItemId) -> Item | None:
    return TYPED_ITEM if item_id == TYPED_ITEM.id else None


def refused(response: dict[str, Any], *, strict: bool = False) -> ClientProtocolError:
    with pytest.raises(ClientProtocolError) as caught:
        to_request(response, lookup, strict=strict, event_id="e1")
    assert caught.value.event_id == "e1"
    return caught.value


def test_nothing_asked_is_everything_as_the_session_says() -> None:
    assert to_request(None, lookup) == to_request({}, lookup, strict=True) == ResponseRequest()


def test_everything_can_be_asked() -> None:
    request = to_request(
        {
            "conversation": "none",
            "input": [
                {"type": "item_reference", "id": "item_t"},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and?"}]},
            ],
            "instructions": "one word",
            "tools": [{"type": "function", "name": "stock"}],
            "tool_choice": "required",
            "parallel_tool_calls": True,
            "output_modalities": ["text"],
            "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "cedar"}},
            "max_output_tokens": 12,
            "metadata": {"topic": "mood", "client_event_id": "response_create_1"},
            "prompt": {"id": "p"},
            "reasoning": {"effort": "low"},
        },
        lookup,
        strict=True,
    )
    assert request == ResponseRequest(
        conversation="none",
        modality="text",
        instructions="one word",
        tools=(ToolSpec("stock"),),
        tool_choice='"required"',
        parallel_tool_calls=True,
        max_output_tokens=12,
        voice="cedar",
        output_format="pcm",
        metadata=(("topic", "mood"), ("client_event_id", "response_create_1")),
        has_input=True,
        input=(
            TYPED_ITEM,
            Item(ItemId(""), "message", "user", "user", content=(Part("input_text", "and?"),)),
        ),
    )


def test_no_context_and_no_tools_differ_from_the_sessions() -> None:
    request = to_request({"input": [], "tools": [], "instructions": ""}, lookup)
    assert (request.has_input, request.input, request.tools, request.instructions) == (True, (), (), "")
    absent = to_request({"input": None, "tools": None, "max_output_tokens": "inf", "audio": {}}, lookup)
    assert absent == ResponseRequest()


@pytest.mark.parametrize(
    ("response", "code", "param"),
    [
        ({"conversation": "both"}, "invalid_value", "response.conversation"),
        ({"input": "hi"}, "invalid_type", "response.input"),
        ({"input": [{"type": "item_reference"}]}, "missing_required_parameter", "response.input[0].id"),
        ({"input": [{"type": "item_reference", "id": "gone"}]}, "invalid_value", "response.input[0].id"),
        ({"input": [{"type": "message"}]}, "missing_required_parameter", "response.input[0].role"),
        ({"metadata": []}, "invalid_type", "response.metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "object_above_max_properties", "response.metadata"),
        ({"metadata": {"k" * 65: ""}}, "invalid_value", "response.metadata"),
        ({"metadata": {"k": "v" * 513}}, "string_above_max_length", "response.metadata.k"),
        ({"metadata": {"k": 1}}, "invalid_type", "response.metadata.k"),
        ({"metadata": {"k": None}}, "invalid_type", "response.metadata.k"),
        (
            {"audio": {"output": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "response.audio.output.format.type",
        ),
        ({"modalities": ["text"]}, "unknown_parameter", "response.modalities"),
        ({"parallel_tool_calls": 1}, "invalid_type", "response.parallel_tool_calls"),
        ({"prompt": "p"}, "invalid_type", "response.prompt"),
        ({"reasoning": "low"}, "invalid_type", "response.reasoning"),
        ({"instructions": 1}, "invalid_type", "response.instructions"),
    ],
)
def test_wrong_requests(response: dict[str, Any], code: str, param: str) -> None:
    error = refused(response)
    assert (error.code, error.param) == (code, param)


def test_unknown_fields_are_refused_only_when_strict() -> None:
    assert to_request({"temperature": 1}, lookup) == ResponseRequest()
    assert refused({"temperature": 1}, strict=True).message == "Unknown parameter: 'response.temperature'."


def test_one_response_may_speak_in_another_format() -> None:
    request = to_request({"audio": {"output": {"format": {"type": "audio/pcma"}}}}, lookup)
    assert request == ResponseRequest(output_format="pcma")


def test_metadata_at_its_limits_is_taken() -> None:
    pairs = {f"{n:064d}": "v" * 512 for n in range(16)}
    assert dict(to_request({"metadata": pairs}, lookup).metadata) == pairs
