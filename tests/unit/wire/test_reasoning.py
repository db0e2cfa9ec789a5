"""Reasoning items: as a client gives them, as they are told, and what of them a model can read again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from openline.core.model import Item, Part, Usage
from openline.errors import ClientProtocolError
from openline.types import ItemId
from openline.wire import reasoning as r
from openline.wire import responses_client as client
from openline.wire import responses_input as inputs
from openline.wire import responses_server as server
from openline.wire.check import Fields
from openline.wire.items import item_object
from openline.wire.responses_server import Create, ResponseWriter

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WHOLE = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "one"}, {"type": "summary_text", "text": "two"}],
    "encrypted_content": "gAAA",
}
CALL = Item(
    ItemId("c"), "function_call", "assistant", call_id="call_1", name="f", arguments="{}",
    content=(r.part_of(json.dumps(WHOLE)),),
)  # fmt: skip
USER = Item(ItemId("u"), "message", "user", "user", content=(Part("input_text", "hi"),))


def shown(events: list[server.Event]) -> list[dict[str, Any]]:
    found = [json.loads(payload) for _, payload in events]
    for event in found:
        EVENT.validate_python(event)
    return found


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


# ------------------------------------------------------------------------------------------ from a client


def test_of_a_clients_item_what_a_model_reads_is_kept() -> None:
    given_ = {**WHOLE, "status": "completed", "content": [{"type": "reasoning_text", "text": "hm"}], "new": 1}
    kept = json.loads(r.to_reasoning(Fields(given_, "input[0]", None)))
    assert kept == {**WHOLE, "content": [{"type": "reasoning_text", "text": "hm"}]}
    bare = json.loads(r.to_reasoning(Fields({"type": "reasoning", "content": None}, "input[0]", None)))
    assert bare == {"type": "reasoning", "summary": []}
    with pytest.raises(ClientProtocolError) as refused:
        r.to_reasoning(Fields({"summary": [{"type": "text", "text": "x"}]}, "input[0]", None))
    assert refused.value.param == "input[0].summary[0].type"


def test_it_goes_with_what_it_led_to_and_what_led_to_nothing_is_left_out() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    body = {
        "input": [
            {**thought, "id": "rs_0"},
            {"role": "user", "content": "hi"},
            thought,
            {**thought, "id": "rs_2"},
            {"role": "assistant", "content": "hello"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {**thought, "id": "rs_3"},
        ]
    }
    items = server.decode_body(json.dumps(body).encode()).items
    assert [[json.loads(text)["id"] for text in item.reasoning] for item in items] == [
        [], ["rs_1", "rs_2"], [],
    ]  # fmt: skip
    assert (items[1].text, items[1].content[0].type) == ("hello", "output_text")


def test_no_client_of_realtime_and_no_transcript_has_it() -> None:
    said = Item(ItemId("a"), "message", "assistant", "assistant",
                content=(Part("output_text", "yes"), r.part_of(json.dumps(WHOLE))))  # fmt: skip
    assert said.text == "yes" and said.reasoning == (json.dumps(WHOLE),)
    assert item_object(said)["content"] == [{"type": "output_text", "text": "yes"}]
    (thought, message) = inputs.input_objects([said])
    assert "encrypted_content" not in thought and message["content"] == [inputs.text_part("yes")]


# ------------------------------------------------------------------------------------------ to a model


def test_a_model_of_this_api_is_given_it_in_front_of_what_it_led_to() -> None:
    entries = client.entries([USER, CALL], reasoning=True)
    assert [entry["type"] for entry in entries] == ["message", "reasoning", "function_call"]
    assert entries[1] == WHOLE and client.readable(entries) == entries
    assert client.entries([USER, CALL]) == client.without_reasoning(entries)
    # Its own memory of the same call is not told a second time.
    assert client.with_reasoning(entries, {"call_1": [WHOLE]}) == entries


@pytest.mark.parametrize(
    ("entry", "is_readable"),
    [
        ({"encrypted_content": "x"}, True),
        ({"content": [{"type": "reasoning_text", "text": "hm"}]}, True),
        ({"summary": WHOLE["summary"]}, False),
        ({"encrypted_content": None, "content": []}, False),
    ],
)
def test_a_summary_alone_is_for_people(entry: dict[str, Any], is_readable: bool) -> None:
    known = [{"type": "reasoning", **entry}, client.call_entry("c", "f", "{}")]
    assert len(client.readable(known)) == 1 + is_readable


@given(
    st.lists(st.sampled_from("mcor"), max_size=8), st.lists(st.sampled_from("mcor"), min_size=1, max_size=8)
)
def test_a_chain_goes_on_the_same_with_and_without_what_was_thought(old: list[str], new: list[str]) -> None:
    def entries(kinds_: list[str], first: int) -> list[dict[str, Any]]:
        made = {
            "m": lambda n: client.assistant_entry(str(n)),
            "c": lambda n: client.call_entry(f"call_{n}", "f", "{}"),
            "o": lambda n: client.output_entry(f"call_{n - 1}", "12"),
            "r": lambda n: {"type": "reasoning", "id": f"rs_{n}"},
        }
        return [made[kind](first + number) for number, kind in enumerate(kinds_)]

    old = [*old, "m"]  # The provider holds nothing that ends with a thought.
    before, after = entries(old, 0), entries(new, len(old))
    with_it = client.continuation(client.chain_of("resp_1", before), [*before, *after])
    bare = client.without_reasoning(before)
    without = client.continuation(client.chain_of("resp_1", bare), [*bare, *client.without_reasoning(after)])
    assert (None if with_it is None else client.without_reasoning(with_it)) == without
    # Each new thought is still in front of the same entry.
    for entry in with_it or []:
        if entry["type"] == "reasoning":
            assert entry in after


# ----------------------------------------------------------------------------------- from a model, and told


def test_the_reader_tells_it_as_it_comes_and_ends_it_before_what_it_led_to() -> None:
    reader = client.Reader("resp_1")
    added = {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {"type": "reasoning", "id": "rs_1"},
    }
    assert not reader.is_thinking
    assert reader.feed(added) == [client.Thought("rs_1", 0, "")] and reader.feed(added) == []
    assert reader.is_thinking, "silence is no loss now"
    piece = {"output_index": 0, "delta": "one", "item_id": "rs_1"}
    summary = {"type": "response.reasoning_summary_text.delta", "summary_index": 1, **piece}
    assert reader.feed(summary) == [client.Thought("rs_1", 1, "one")]
    assert reader.feed({**summary, "delta": ""}) == []
    open_ = {"type": "response.reasoning_text.delta", "content_index": 2, **piece}
    assert reader.feed(open_) == [client.Thought("rs_1", 2, "one", is_summary=False)]
    whole = {**WHOLE, "status": "completed", "content": None}
    assert reader.feed({"type": "response.output_item.done", "output_index": 0, "item": whole}) == []
    assert not reader.has_output, "a try that is lost here said nothing"
    assert not reader.is_thinking
    said = reader.feed({"type": "response.output_text.delta", "output_index": 1, "delta": "yes"})
    assert said[1:] == [client.Text("yes")] and reader.has_output
    (end,) = said[:1]
    assert isinstance(end, client.ThoughtEnd) and json.loads(end.item) == WHOLE


def test_what_a_server_tells_only_at_the_end_is_told_and_nameless_items_get_a_name() -> None:
    reader = client.Reader("resp_7")
    output = [{"type": "reasoning", "summary": []}, {"type": "message", "content": [{"text": "yes"}]}]
    response = {"id": "resp_7", "status": "completed", "output": output}
    end, text, _ = reader.feed({"type": "response.completed", "response": response})
    assert isinstance(end, client.ThoughtEnd) and json.loads(end.item)["id"] == end.id == "rs_7_0"
    assert text == client.Text("yes")
    alone = client.Reader()
    assert [type(piece) for piece in alone.feed({"type": "response.completed", "response": {"output": output[:1]}})] == [
        client.ThoughtEnd, client.End,
    ]  # fmt: skip
    failed = client.Reader()
    failed.feed({"type": "response.output_item.done", "output_index": 0, "item": output[0]})
    assert [type(piece) for piece in failed.feed({"type": "error", "code": "x"})] == [client.Failed]


def test_every_event_of_a_thought_in_order() -> None:
    writer = ResponseWriter("resp_1", Create((), options='{"include":["reasoning.encrypted_content"]}'), 7)
    events = writer.created() + writer.reasoning("rs_1", 0, "", is_summary=True)
    events += writer.reasoning("rs_1", 0, "on", is_summary=True) + writer.reasoning(
        "rs_1", 0, "e", is_summary=True
    )
    events += writer.reasoning_done(json.dumps(WHOLE)) + writer.call_started(0, "fc_1", "call_1", "f")
    events += writer.call_done(0, "{}") + writer.done("completed", usage=Usage())
    told = shown(events)
    assert kinds(told)[2:-4] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    response = told[-1]["response"]
    Response.model_validate(response)
    assert response["output"][0] == WHOLE and response["output"][1]["call_id"] == "call_1"
    assert [event["output_index"] for event in told if "output_index" in event] == [0] * 11 + [1] * 3


@pytest.mark.parametrize("is_summary", [True, False])
def test_what_is_given_up_ends_incomplete_before_the_next_item_or_the_end(is_summary: bool) -> None:
    writer = ResponseWriter("resp_1", Create(()), 7)
    events = writer.reasoning("rs_1", 0, "half", is_summary=is_summary) + writer.message_started(0, "msg_1")
    events += writer.message_done(0, "yes") + writer.reasoning("rs_2", 0, "", is_summary=is_summary)
    told = shown(events + writer.done("incomplete", "max_output_tokens"))
    first, message, last = told[-1]["response"]["output"]
    name, kind = ("summary", "summary_text") if is_summary else ("content", "reasoning_text")
    assert (first["status"], first[name]) == ("incomplete", [{"type": kind, "text": "half"}])
    assert (message["status"], last["status"], last["summary"]) == ("completed", "incomplete", [])
    Response.model_validate(told[-1]["response"])


def test_a_sloppy_whole_is_taken_as_it_is() -> None:
    writer = ResponseWriter("resp_1", Create(()), 7)
    whole = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": "text",
        "content": [7, {"text": None}, {"text": "x"}],
    }
    told = [json.loads(payload) for _, payload in writer.reasoning_done(json.dumps(whole))]
    assert kinds(told) == [
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
    ]  # fmt: skip


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.text(min_size=1, max_size=3)), max_size=12),
    st.lists(st.text(max_size=3), max_size=4),
    st.lists(st.text(max_size=3), max_size=4),
)
def test_however_it_is_told_every_part_begins_once_ends_once_and_is_the_sum_of_its_pieces(
    pieces: list[tuple[bool, int, str]], summary: list[str], content: list[str]
) -> None:
    thinking = r.Thinking("rs_1", 0)
    told = [
        event
        for is_summary, part, text in pieces
        for event in thinking.text(part, text, is_summary=is_summary)
    ]
    whole = {"summary": [{"text": text} for text in summary], "content": [{"text": text} for text in content]}
    told += thinking.done(whole)
    open_: dict[str, str] | None = None
    count = {"summary_index": 0, "content_index": 0}
    for kind, values in told:
        (place,) = [name for name in values if name in count]
        if kind.endswith("part.added"):
            assert open_ is None and values[place] == count[place], "parts begin one after another"
            open_ = {"place": place, "text": ""}
            count[place] += 1
        assert open_ is not None and open_["place"] == place and values[place] == count[place] - 1
        if kind.endswith(".delta"):
            open_["text"] += str(values["delta"])
        elif kind.endswith("text.done"):
            assert values["text"] == open_["text"]
        elif kind.endswith("part.done"):
            open_ = None
    assert open_ is None, "and all have ended"
    assert count["summary_index"] >= len(summary) and count["content_index"] >= len(content)


def test_a_stored_response_is_read_back_with_what_it_thought() -> None:
    writer = ResponseWriter("resp_1", Create(()), 7)
    server.output_items([CALL], writer)
    thought, call = writer.response("completed")["output"]  # type: ignore[misc]  # a list of two
    assert (thought["id"], call["call_id"]) == ("rs_1", "call_1") and "encrypted_content" not in thought
