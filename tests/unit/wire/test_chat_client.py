"""Chat Completions: the same conversation and the same pieces as over the Responses API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from openline.core.model import Item, Part, ToolSpec, Usage
from openline.core.value import replace
from openline.types import ItemId
from openline.wire import responses_client as wire
from openline.wire.chat_client import ChatReader, chat_body
from openline.wire.responses_client import Asked, CallEnd, CallPiece, End, Failed, Refusal, Text

ASKED = Asked("m", "Be brief.")
USER = Item(ItemId("u"), "message", "user", "user", content=(Part("input_text", "hi"),))
SAID = Item(ItemId("a"), "message", "assistant", "assistant", content=(Part("output_text", "let me see"),))
CALL = Item(ItemId("c"), "function_call", "assistant", call_id="call_1", name="f", arguments="{}")
OUTPUT = Item(ItemId("o"), "function_call_output", "tool", call_id="call_1", output="12")


def sent(asked: Asked, *items: Item) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(wire.encode(chat_body(asked, wire.entries(items))))
    return body


def test_calls_join_their_message_and_outputs_follow() -> None:
    second = replace(CALL, call_id="call_2")
    late = replace(OUTPUT, call_id="call_2", output="13")
    messages = sent(ASKED, USER, SAID, CALL, second, OUTPUT, late, USER)["messages"]
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert [call["id"] for call in messages[2]["tool_calls"]] == ["call_1", "call_2"]
    assert [message["content"] for message in messages[3:5]] == ["12", "13"]


def test_a_refusal_goes_back_as_one_and_as_text_for_servers_that_know_none() -> None:
    refused = replace(SAID, content=(Part("refusal", "No."),))
    (message,) = sent(replace(ASKED, instructions=""), refused)["messages"]
    assert message == {"role": "assistant", "content": "No.", "refusal": "No."}
    mixed = replace(SAID, content=(Part("output_text", "Well."), Part("refusal", "No.")))
    (message,) = sent(replace(ASKED, instructions=""), mixed)["messages"]
    assert message == {"role": "assistant", "content": "Well. No.", "refusal": "No."}
    call = sent(replace(ASKED, instructions=""), refused, CALL, OUTPUT)["messages"]
    assert call[0]["tool_calls"] and call[0]["refusal"] == "No."


def test_a_call_alone_makes_its_message_and_its_missing_output_is_pending() -> None:
    messages = sent(replace(ASKED, instructions=""), CALL)["messages"]
    assert [message["role"] for message in messages] == ["assistant", "tool"]
    assert messages[0]["content"] is None and messages[1]["content"] == wire.PENDING_OUTPUT


def test_tools_choices_images_and_limits() -> None:
    image = Part("input_image", image_url="data:image/png;base64,AA")
    user = replace(USER, content=(Part("input_text", "look"), image))
    named = '{"type":"function","name":"f"}'
    asked = replace(
        ASKED, tools=(ToolSpec("f"),), tool_choice=named, parallel_tool_calls=False, max_output_tokens=5
    )
    body = sent(asked, user)
    assert body["messages"][1]["content"][1]["image_url"]["url"].startswith("data:")
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["tools"][0]["function"]["name"] == "f"
    assert (body["parallel_tool_calls"], body["max_tokens"], body["stream"]) == (False, 5, True)
    plain = sent(replace(asked, tool_choice='"auto"', parallel_tool_calls=True, max_output_tokens=None), USER)
    assert plain["tool_choice"] == "auto" and "parallel_tool_calls" not in plain and "max_tokens" not in plain


def chunk(delta: Any = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def test_text_refusal_and_usage() -> None:
    reader = ChatReader("r")
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    chunks = (chunk({"content": "y"}), chunk({"content": "", "refusal": "no"}), chunk({}, "stop"))
    pieces = [piece for each in chunks for piece in reader.feed(each)]
    assert reader.feed({"choices": [], "usage": usage}) == [] and reader.has_output
    assert [*pieces, *reader.finish()] == [Text("y"), Refusal("no"), End(Usage(9, 2, 4), "completed")]
    assert reader.finish() == [] and reader.feed(chunk({"content": "late"})) == []


def test_calls_with_and_without_ids_and_indexes() -> None:
    reader = ChatReader("r")
    first = {"index": 0, "id": "call_9", "function": {"name": "f", "arguments": ""}}
    pieces = reader.feed(chunk({"tool_calls": [first]}))
    pieces += reader.feed(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}))
    pieces += reader.feed(chunk({"tool_calls": ["noise", {"function": {"name": "g", "arguments": None}}]}))
    pieces += reader.feed(chunk({"tool_calls": [{"index": "x", "function": {}}, {"index": 3}]}, "tool_calls"))
    assert pieces == [CallPiece(0, "call_9", "f", "{}")]
    ends = reader.finish()
    assert ends[:2] == [CallEnd(0, "call_9", "f", "{}"), CallEnd(1, "call_r_1", "g", "{}")]


def test_a_cut_call_is_no_call_and_a_broken_stream_has_no_end() -> None:
    reader = ChatReader("r")
    reader.feed(
        chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": 1, "arguments": "{"}}]}, "length")
    )
    assert reader.finish() == [End(Usage(), "max_output_tokens")]
    assert ChatReader("r").finish() == []


@pytest.mark.parametrize(
    "noise", [{"choices": None}, {"choices": ["x"]}, chunk("x"), chunk({"tool_calls": None})]
)
def test_noise_is_nothing(noise: dict[str, Any]) -> None:
    assert ChatReader("r").feed(noise) == []


def test_an_error_in_the_stream_ends_it() -> None:
    reader = ChatReader("r")
    assert reader.feed({"error": {"code": "server_error", "type": "t"}}) == [Failed("server_error", 0, "t")]
    assert reader.is_over and reader.finish() == []
