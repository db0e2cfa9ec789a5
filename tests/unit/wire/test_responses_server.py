"""What a Responses client may send, what it gets for mistakes, and every event of a response in order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter

from openline.core.model import Item, Part, Problem, Usage
from openline.core.value import replace
from openline.errors import ClientProtocolError
from openline.types import ItemId
from openline.wire import responses_input as inputs
from openline.wire import responses_server as wire
from openline.wire.responses_server import Create, Event, ResponseWriter

STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}


def create(**values: Any) -> Create:
    event = wire.decode(json.dumps({"type": "response.create", **values}).encode())
    assert isinstance(event, Create)
    return event


def decoded(events: list[Event]) -> list[dict[str, Any]]:
    found = []
    for kind, payload in events:
        event = json.loads(payload)
        assert event["type"] == kind
        STREAM_EVENT.validate_python(event)
        found.append(event)
    return found


# ------------------------------------------------------------------------------------------- from clients


def test_the_least_a_client_can_send() -> None:
    asked = create(model="m", input="hi")
    assert (asked.model, asked.stores, asked.generates, asked.stream_id) == ("m", True, True, "")
    assert asked.items[0].role == "user" and asked.items[0].text == "hi"
    request = asked.request()
    assert (request.modality, request.instructions, request.tools) == ("text", "", ())
    assert create().items == () and create(input=[]).items == ()


def test_the_most_a_client_can_send() -> None:
    asked = create(
        model="m",
        stream=True,
        background=False,
        store=False,
        stream_id="main.lane_1-x",
        previous_response_id="resp_1",
        instructions="be brief",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
        max_output_tokens=9,
        metadata={"a": "b"},
        include=[],
        temperature=0.5,
        text={"format": {"type": "text"}},
    )
    assert asked.previous == "resp_1" and asked.stream_id == "main.lane_1-x" and asked.streams
    assert (asked.tools[0].name, json.loads(asked.tool_choice)["name"]) == ("f", "f")
    assert (asked.max_output_tokens, asked.metadata, asked.parallel_tool_calls) == (9, (("a", "b"),), False)
    assert dict(asked.echo)["temperature"] == b"0.5"


@pytest.mark.parametrize("more", [{"generate": False}, {"prompt_cache_options": {"prewarm": True}}])
def test_a_warm_up_generates_nothing(more: dict[str, Any]) -> None:
    assert not create(**more).generates
    assert create(prompt_cache_options={"ttl": "30m"}).generates


def test_input_items_in_all_their_forms() -> None:
    asked = create(
        input=[
            {"role": "user", "content": "easy"},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
            },
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "https://h/i.png", "detail": "low"}],
            },
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://h/i.png"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "12"},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "input_text", "text": "13"}],
            },
        ]
    )
    shapes = [(item.type, item.author, item.text or item.output) for item in asked.items]
    assert shapes == [
        ("message", "user", "easy"),
        ("message", "system", "rules"),
        ("message", "assistant", "a b"),  # and what of it is a refusal, below
        ("message", "user", ""),
        ("message", "user", ""),
        ("function_call", "assistant", ""),
        ("function_call_output", "tool", "12"),
        ("function_call_output", "tool", "13"),
    ]
    assert [part.type for part in asked.items[2].content] == ["output_text", "refusal"]
    assert asked.items[3].content[0].detail == "low"
    assert not any(item.id for item in asked.items), "ids are ours"


@pytest.mark.parametrize(
    ("values", "code", "param"),
    [
        ({"background": True}, "unsupported_value", "background"),
        ({"conversation": "conv_1"}, "unsupported_value", "conversation"),
        ({"prompt": {"id": "p"}}, "unsupported_value", "prompt"),
        ({"stream_id": ""}, "invalid_stream_id", "stream_id"),
        ({"stream_id": "a b"}, "invalid_stream_id", "stream_id"),
        ({"stream_id": 7}, "invalid_stream_id", "stream_id"),
        ({"input": 7}, "invalid_type", "input"),
        ({"input": [{"type": "input_file"}]}, "invalid_value", "input[0].type"),
        ({"input": [{}]}, "missing_required_parameter", "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "invalid_value",
            "input[0].content[0].type",
        ),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"tools": [{"type": "web_search"}]}, "invalid_value", "tools[0].type"),
        ({"max_output_tokens": 0}, "invalid_value", "max_output_tokens"),
        ({"text": {"format": {"type": "json_schema"}}}, "missing_required_parameter", "text.format.name"),
        ({"text": {"format": {"type": "yaml"}}}, "invalid_value", "text.format.type"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "object_above_max_properties", "metadata"),
        ({"store": "no"}, "invalid_type", "store"),
    ],
)
def test_a_mistake_is_named_with_its_place(values: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(ClientProtocolError) as caught:
        create(**values)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_the_other_events() -> None:
    assert wire.decode(b'{"type":"response.cancel","response_id":"r"}') == wire.Cancel("r")
    assert wire.decode(b'{"type":"response.cancel"}') == wire.Cancel("")
    assert wire.decode(b'{"type":"response.processed"}') == wire.Ignored()


def steer_of(given: Any, **more: Any) -> wire.Steer:
    values = {"type": "response.steer", "previous_response_id": "r", "input": given, **more}
    steer = wire.decode(json.dumps(values).encode())
    assert isinstance(steer, wire.Steer)
    return steer


def test_references_wait_for_whoever_knows_the_store() -> None:
    call = Item(ItemId(""), "function_call", "assistant", call_id="c", name="f", arguments="{}")
    thought = Part("reasoning", '{"type":"reasoning","id":"rs_1","summary":[]}')
    asked = create(
        input=[
            {"role": "user", "content": "hi"},
            {"id": "rs_1"},
            {"type": "item_reference", "id": "fc_1"},
            {"type": "item_reference", "id": "msg_1"},
        ]
    )
    assert asked.items == () and [type(each).__name__ for each in asked.given] == ["Item"] + ["Reference"] * 3
    done = asked.resolved({"rs_1": thought, "fc_1": call, "msg_1": None})
    assert done.given == () and [item.type for item in done.items] == ["message", "function_call"]
    assert done.items[1].content == (thought,)
    own = replace(call, content=(thought,))
    again = asked.resolved({"rs_1": thought, "fc_1": own, "msg_1": None})
    assert again.items[1].content == (thought,), "it has its reasoning: that is not put in twice"
    assert steer_of([{"id": "msg_1"}]).problem, "nothing that is stored steers"
    error = inputs.item_not_found("rs_9")
    assert (error.code, error.param) == ("item_not_found", "input")
    assert error.message.startswith("Item with id 'rs_9' not found.")


def test_what_steers_is_text_or_messages_of_the_user() -> None:
    for given in ("also", [{"role": "user", "content": "also"}]):
        steer = steer_of(given)
        assert (steer.previous, steer.input, steer.problem) == ("r", given, "")
        assert [(item.author, item.text) for item in steer.items] == [("user", "also")]
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    for wrong in ([], 7, [output], [{"role": "assistant", "content": "x"}], [{"role": "user"}]):
        refused = steer_of(wrong)
        assert refused.problem and refused.input == wrong and not refused.items
    assert "stream_id" in steer_of("also", stream_id="a").problem


def test_the_frames_about_steering() -> None:
    steer = steer_of("also")
    accepted = json.loads(wire.steer_accepted(0, "steer_1", "r", "a"))
    assert accepted["stream_id"] == "a" and accepted["steer"] == {
        "id": "steer_1",
        "previous_response_id": "r",
    }
    pending = json.loads(wire.steer_pending(1, "steer_1", "r", "", [("call_1", "stock")]))
    assert "stream_id" not in pending and pending["sequence_number"] == 1
    assert pending["required_input"] == [
        {"type": "function_call_output", "call_id": "call_1", "name": "stock"}
    ]
    failed = json.loads(wire.steer_failed(2, steer, "response_not_found", "No."))
    assert failed["steer"] == {"input": "also", "previous_response_id": "r"}
    named = json.loads(wire.steer_failed(2, steer, "response_not_active", "No.", "steer_1", "a"))
    assert named["steer"]["id"] == "steer_1"
    assert failed["error"]["type"] == "invalid_request_error"
    for event in (accepted, pending, failed, named):
        SERVER_EVENT.validate_python(event)


def test_only_whole_calls_want_an_output() -> None:
    writer = ResponseWriter("resp_1", wire.Create(()), 0)
    writer.message_started(0, "msg_1")
    writer.call_started(1, "fc_1", "call_1", "stock")
    writer.call_started(2, "fc_2", "call_2", "order")
    writer.call_done(2, "{}")
    assert writer.calls() == [("call_2", "order")]


@pytest.mark.parametrize("payload", [b"no", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_named_and_has_no_lane(payload: bytes) -> None:
    for read in (wire.decode, wire.decode_body):
        with pytest.raises(ClientProtocolError) as caught:
            read(payload)
        assert caught.value.code == "invalid_json"
    assert wire.stream_id_of(payload) == ""


def test_the_lane_of_a_bad_request_is_found_when_it_has_one() -> None:
    assert wire.stream_id_of(b'{"stream_id":"a"}') == "a"
    assert wire.stream_id_of(b'{"stream_id":""}') == "" and wire.stream_id_of(b"{}") == ""


# --------------------------------------------------------------------------------------------- to clients


def test_every_event_of_a_response_in_order() -> None:
    asked = create(model="m", input="x", stream_id="main", tools=[TOOL], metadata={"a": "b"}, temperature=0.5)
    writer = ResponseWriter("resp_1", asked, 7)
    events = (
        writer.created() + writer.message_started(0, "msg_1") + writer.text(0, "ye") + writer.text(0, "s")
    )
    events += writer.message_done(0, "yes") + writer.call_started(1, "fc_1", "call_1", "f")
    events += writer.call_delta(1, "{}") + writer.call_done(1, "{}")
    events += writer.done("completed", usage=Usage(9, 2, 4))
    shown = decoded(events)
    assert [event["type"] for event in shown] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event["sequence_number"] for event in shown] == list(range(14))
    assert {event["stream_id"] for event in shown} == {"main"}
    assert shown[4]["logprobs"] == [] and shown[3]["part"]["annotations"] == []
    assert (shown[11]["name"], shown[9]["item"]["arguments"]) == ("f", "")
    response = shown[-1]["response"]
    Response.model_validate(response)
    assert response["usage"]["input_tokens_details"] == {"cached_tokens": 4, "cache_write_tokens": 0}
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    assert (response["temperature"], response["metadata"], response["created_at"]) == (0.5, {"a": "b"}, 7)
    assert json.loads(wire.response_of(events[-1][1])) == response


def test_a_refusal_has_events_and_a_part_of_its_own() -> None:
    writer = ResponseWriter("resp_1", create(input="x"), 7)
    events = writer.created() + writer.message_started(0, "msg_1", is_refusal=True) + writer.text(0, "No")
    shown = decoded(events + writer.message_done(0, "No.") + writer.done("completed", usage=Usage()))
    assert [event["type"] for event in shown[2:-1]] == [
        "response.output_item.added",
        "response.content_part.added",
        "response.refusal.delta",
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert (shown[3]["part"], shown[6]["part"]) == (
        {"type": "refusal", "refusal": ""},
        {"type": "refusal", "refusal": "No."},
    )
    assert (shown[4]["delta"], shown[5]["refusal"]) == ("No", "No.")
    response = Response.model_validate(shown[-1]["response"])
    assert response.output_text == "" and response.output[0].to_dict()["content"] == [shown[6]["part"]]


def test_a_stored_refusal_is_read_back_as_one() -> None:
    no = Item(ItemId("msg_1"), "message", "assistant", "assistant", content=(Part("refusal", "No."),))
    writer = ResponseWriter("resp_1", Create(()), 7, "m")
    wire.output_items([no], writer)
    (item,) = json.loads(wire.encode(writer.response("completed", usage=Usage())))["output"]
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]
    assert inputs.input_object(no)["content"] == item["content"]
    users = create(input=[{"role": "user", "content": [{"type": "refusal", "refusal": "No."}]}])
    assert users.items[0].content == (Part("input_text", "No."),), "only the assistant refuses"


def test_what_is_cut_ends_incomplete_before_the_terminal_event() -> None:
    writer = ResponseWriter("resp_1", create(input="x"), 7)
    writer.created()
    writer.message_started(0, "msg_1")
    writer.text(0, "half")
    writer.call_started(1, "fc_1", "call_1", "f")
    writer.call_delta(1, '{"a')
    shown = decoded(writer.done("cancelled"))
    assert [event["type"] for event in shown[-2:]] == ["response.output_item.done", "response.incomplete"]
    response = shown[-1]["response"]
    assert response["status"] == "cancelled" and response["incomplete_details"] is None
    assert [item["status"] for item in response["output"]] == ["incomplete", "incomplete"]
    assert response["output"][0]["content"][0]["text"] == "half"


def test_a_failure_and_a_limit_say_why() -> None:
    failed = decoded(
        ResponseWriter("r", create(), 7).done("failed", problem=Problem("server_error", "No model."))
    )
    assert failed[-1]["response"]["error"] == {"code": "server_error", "message": "No model."}
    cut = decoded(ResponseWriter("r", create(), 7).done("incomplete", "max_output_tokens"))
    assert cut[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert "stream_id" not in cut[-1]


def test_a_stored_response_is_read_back_whole() -> None:
    said = Item(ItemId("msg_1"), "message", "assistant", "assistant", content=(Part("output_text", "yes"),))
    call = Item(ItemId("fc_1"), "function_call", "assistant", call_id="", name="f", arguments="{}")
    writer = ResponseWriter("resp_1", Create(()), 7, "m")
    wire.output_items([said, call], writer)
    response = json.loads(wire.encode(writer.response("completed", usage=Usage())))
    Response.model_validate(response)
    assert response["output"][0]["content"][0]["text"] == "yes"
    assert response["output"][1]["call_id"] == "fc_1"


def test_errors_are_nested_and_name_their_lane() -> None:
    error = wire.not_found("resp_9")
    frame = json.loads(wire.error_frame(Problem(error.code, error.message, param=error.param), 400, "a"))
    SERVER_EVENT.validate_python(frame)
    assert frame["stream_id"] == "a" and frame["status"] == 400
    assert frame["error"] == {
        "type": "invalid_request_error",
        "code": "previous_response_not_found",
        "message": "Previous response with id 'resp_9' not found.",
        "param": "previous_response_id",
    }
    assert "stream_id" not in json.loads(wire.error_frame(Problem("c", "m")))


def test_an_input_item_is_shown_as_it_was_given() -> None:
    image = Part("input_image", image_url="data:x")
    items = [
        Item(ItemId("i1"), "message", "user", "user", content=(Part("input_text", "hi"), image)),
        Item(ItemId("i2"), "message", "assistant", "assistant", content=(Part("output_text", "yes"),)),
        Item(ItemId("i3"), "function_call", "assistant", call_id="c", name="n", arguments="{}"),
        Item(ItemId("i4"), "function_call_output", "tool", call_id="c", output="12"),
    ]
    page = json.loads(inputs.input_list(inputs.input_objects(items), True))
    ResponseItemList.model_validate(page)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("i1", "i4", True)
    assert page["data"][0]["content"] == [
        {"type": "input_text", "text": "hi"},
        {"type": "input_image", "image_url": "data:x", "detail": "auto"},
    ]
    assert page["data"][1]["content"][0]["text"] == "yes"
    assert page["data"][2]["arguments"] == "{}" and page["data"][3]["output"] == "12"
    empty = json.loads(inputs.input_list([], False))
    assert (empty["data"], empty["first_id"]) == ([], None)


def test_plain_text_may_be_asked_for_by_name() -> None:
    for text in ({}, {"verbosity": "low"}, {"format": {"type": "text"}}, {"format": None}):
        assert create(text=text).echo == (("text", json.dumps(text, separators=(",", ":")).encode()),)
