"""Items and tools from clients, and items as clients are shown them."""

from __future__ import annotations

from typing import Any

import pytest

from openline.core.model import Item, Part
from openline.core.value import replace
from openline.errors import ClientProtocolError
from openline.types import ItemId, TurnId
from openline.wire.items import cut, item_object, to_item
from wire_samples import CALL_ITEM, MCP_ITEM, SPOKEN


def message(role: str, *content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(content), **more}


def refused(item: dict[str, Any], *, strict: bool = False) -> ClientProtocolError:
    with pytest.raises(ClientProtocolError) as caught:
        to_item(item, strict=strict, event_id="e1")
    assert caught.value.event_id == "e1"
    return caught.value


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            message("user", {"type": "input_text", "text": "hi"}, id="mine", status="in_progress"),
            Item(ItemId("mine"), "message", "user", "user", content=(Part("input_text", "hi"),)),
        ),
        (
            message("system", {"type": "input_text", "text": "hi"}, status="incomplete"),
            Item(ItemId(""), "message", "system", "system", "incomplete", (Part("input_text", "hi"),)),
        ),
        (
            message("assistant", {"type": "output_text", "text": "hi"}, id=None),
            Item(ItemId(""), "message", "assistant", "assistant", content=(Part("output_text", "hi"),)),
        ),
        (
            message("user", {"type": "input_audio", "transcript": "hi", "audio": "AAAA"[:4] + "AAA="}),
            None,
        ),
        (
            message(
                "user", {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}
            ),
            Item(
                ItemId(""),
                "message",
                "user",
                "user",
                content=(Part("input_image", image_url="data:image/png;base64,AA", detail="low"),),
            ),
        ),
        (
            {"type": "function_call", "name": "stock", "arguments": "{}", "call_id": "c"},
            Item(ItemId(""), "function_call", "assistant", call_id="c", name="stock", arguments="{}"),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "42"},
            Item(ItemId(""), "function_call_output", "tool", call_id="c", output="42"),
        ),
    ],
)
def test_items_of_clients(given: dict[str, Any], expected: Item | None) -> None:
    if expected is None:
        assert refused(given).param == "item.content[0].audio"  # 5 bytes: no whole samples
    else:
        assert to_item(given) == expected


def test_spoken_parts_are_taken_by_their_words() -> None:
    user = to_item(message("user", {"type": "input_audio", "transcript": "hi", "audio": "AAAA" * 2}))
    assert user.content == (Part("input_audio", "hi"),)
    ours = message("assistant", {"type": "output_audio", "transcript": "hello"})
    assert to_item(ours).content == (Part("output_audio", "hello"),)
    assert refused(ours, strict=True).code == "invalid_value"


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({}, "missing_required_parameter", "item.type"),
        ({"type": "song"}, "invalid_value", "item.type"),
        ({"type": "mcp_approval_response"}, "unsupported_value", "item.type"),
        ({"type": "message"}, "missing_required_parameter", "item.role"),
        ({"type": "message", "role": "developer"}, "invalid_value", "item.role"),
        ({"type": "message", "role": "user"}, "missing_required_parameter", "item.content"),
        ({"type": "message", "role": "user", "content": "hi"}, "invalid_type", "item.content"),
        (message("user", id=7), "invalid_type", "item.id"),
        (message("user", id="x" * 257), "string_above_max_length", "item.id"),
        (message("user", status="done"), "invalid_value", "item.status"),
        (message("user", {}), "missing_required_parameter", "item.content[0].type"),
        (message("user", {"type": "text", "text": "beta"}), "invalid_value", "item.content[0].type"),
        (message("assistant", {"type": "input_text", "text": "x"}), "invalid_value", "item.content[0].type"),
        (message("user", {"type": "input_text"}), "missing_required_parameter", "item.content[0].text"),
        (message("user", {"type": "input_text", "text": None}), "invalid_type", "item.content[0].text"),
        (
            message("user", *[{"type": "input_text", "text": ""}] * 65),
            "array_above_max_length",
            "item.content",
        ),
        (message("user", {"type": "input_audio"}), "unsupported_value", "item.content[0].type"),
        (
            message("user", {"type": "input_audio", "audio": "AAAAAAAA"}),
            "unsupported_value",
            "item.content[0].type",
        ),
        (message("user", {"type": "input_audio", "audio": "?"}), "invalid_value", "item.content[0].audio"),
        (message("user", {"type": "input_audio", "audio": "ü"}), "invalid_value", "item.content[0].audio"),
        (
            message("user", {"type": "input_image", "image_url": "http://x/y"}),
            "invalid_value",
            "item.content[0].image_url",
        ),
        (
            message("user", {"type": "input_image", "image_url": "data:image/png,", "detail": "max"}),
            "invalid_value",
            "item.content[0].detail",
        ),
        ({"type": "function_call", "name": "x"}, "missing_required_parameter", "item.arguments"),
        ({"type": "function_call", "arguments": "{}"}, "missing_required_parameter", "item.name"),
        ({"type": "function_call_output", "output": "x"}, "missing_required_parameter", "item.call_id"),
        ({"type": "function_call_output", "call_id": "c", "output": 42}, "invalid_type", "item.output"),
    ],
)
def test_wrong_items(given: dict[str, Any], code: str, param: str) -> None:
    error = refused(given)
    assert (error.code, error.param) == (code, param)


def test_long_ids_are_kept_unless_strict() -> None:
    given = message("user", {"type": "input_text", "text": "hi"}, id="item_" + "x" * 40)
    assert to_item(given).id == given["id"]
    assert refused(given, strict=True).code == "string_above_max_length"


# ----------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part("input_text", "hi"), {"type": "input_text", "text": "hi"}),
        (Part("output_text"), {"type": "output_text", "text": ""}),
        (Part("refusal", "no"), {"type": "output_text", "text": "no"}),
        (Part("input_audio"), {"type": "input_audio", "transcript": None}),
        (Part("input_audio", "hi"), {"type": "input_audio", "transcript": "hi"}),
        (Part("output_audio"), {"type": "output_audio", "transcript": ""}),
        (Part("input_image", image_url="data:image/x"), {"type": "input_image", "image_url": "data:image/x"}),
        (
            Part("input_image", image_url="data:image/x", detail="low"),
            {"type": "input_image", "image_url": "data:image/x", "detail": "low"},
        ),
    ],
)
def test_content_is_shown_without_audio_bytes(part: Part, expected: dict[str, Any]) -> None:
    assert item_object(replace(SPOKEN, content=(part,)))["content"] == [expected]


def test_calls_always_have_name_call_id_and_arguments() -> None:
    shown = item_object(replace(CALL_ITEM, call_id=""))
    assert (shown["name"], shown["call_id"], shown["arguments"]) == ("stock", "item_c", '{"part":"M6"}')


def test_server_run_calls_show_their_outcome_and_no_status() -> None:
    assert item_object(MCP_ITEM) == {
        "id": "item_m",
        "type": "mcp_call",
        "server_label": "openline",
        "name": "stock",
        "arguments": '{"part":"M6"}',
        "output": None,
    }
    assert item_object(replace(MCP_ITEM, output="42"))["output"] == "42"
    failed = item_object(replace(MCP_ITEM, output="half", error="no such part"))
    assert failed["error"] == {"type": "tool_execution_error", "message": "no such part"}
    assert failed["output"] is None, "agents-js throws at a server-run call without the key"


def test_opted_in_clients_see_who_wrote_an_item() -> None:
    assert "openline" not in item_object(SPOKEN)
    assert item_object(SPOKEN, annotated=True)["openline"] == {"author": "assistant"}
    cut_short = replace(SPOKEN, turn_id=TurnId("t"), heard_ms=400)
    assert item_object(cut_short, annotated=True)["openline"] == {
        "author": "assistant",
        "turn_id": "t",
        "heard_ms": 400,
    }


@pytest.mark.parametrize(
    ("end", "texts"),
    [(None, ["one", None, "two"]), (0, ["", "", ""]), (2, ["on", "", ""]), (4, ["one", "", "t"])],
)
def test_a_cut_goes_through_all_parts(end: int | None, texts: list[str | None]) -> None:
    parts = (Part("output_text", "one"), Part("output_text"), Part("output_text", "two"))
    item = replace(SPOKEN, content=parts)
    assert [part.text for part in cut(item, end).content] == texts
