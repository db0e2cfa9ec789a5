"""What is sent to a Responses server, what is taken from it, and when a chain goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openline.core.model import Item, Part, ToolSpec, Usage
from openline.core.value import replace
from openline.types import ItemId
from openline.wire import responses_client as wire
from openline.wire.responses_client import Asked, CallEnd, CallPiece, End, Failed, Reader, Refusal, Text

ASKED = Asked("m", "Be brief.")
USER = Item(ItemId("u"), "message", "user", "user", content=(Part("input_text", "hi"),))
SAID = Item(ItemId("a"), "message", "assistant", "assistant", content=(Part("output_text", "yes"),))
CALL = Item(ItemId("c"), "function_call", "assistant", call_id="call_1", name="f", arguments='{"a":1}')
OUTPUT = Item(ItemId("o"), "function_call_output", "tool", call_id="call_1", output="12")
RAN = replace(CALL, type="mcp_call")


def kinds(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["type"] for entry in entries]


def test_items_become_entries_without_our_ids() -> None:
    image = Part("input_image", image_url="data:image/png;base64,AA")
    spoken = Part("input_audio", None)
    user = replace(USER, content=(Part("input_text", "look"), image, spoken))
    entries = wire.entries([user, SAID, CALL, OUTPUT])
    assert entries[0]["content"] == [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"},
    ]
    assert entries[1]["content"] == [{"type": "output_text", "text": "yes"}]
    assert entries[2] == {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}
    assert entries[3] == {"type": "function_call_output", "call_id": "call_1", "output": "12"}
    assert not any("id" in entry for entry in entries)


def test_a_turn_without_words_is_said_to_be_one() -> None:
    silent = replace(USER, content=(Part("input_audio", ""),))
    (entry,) = wire.entries([silent])
    assert entry["role"] == "user" and entry["content"] == [wire.SILENCE]


@pytest.mark.parametrize(
    ("item", "outputs"),
    [(RAN, []), (replace(RAN, output="12"), ["12"]), (replace(RAN, error="no"), ["no"])],
)
def test_a_call_that_the_gateway_ran_is_a_call_with_its_output(item: Item, outputs: list[str]) -> None:
    entries = wire.entries([replace(item, call_id="")])
    assert entries[0]["call_id"] == "c", "without a call id its item's id is it"
    assert [entry["output"] for entry in entries[1:]] == outputs


def test_a_chain_goes_on_when_its_conversation_does() -> None:
    known = wire.entries([USER, SAID])
    chain = wire.chain_of("resp_1", known)
    longer = wire.entries([USER, SAID, USER])
    assert wire.continuation(chain, longer) == longer[2:]
    assert wire.continuation(None, longer) is None
    assert wire.continuation(chain, known) is None, "nothing is new"
    assert wire.continuation(chain, known[:1]) is None, "something was taken back"
    changed = wire.entries([USER, replace(SAID, content=(Part("output_text", "y"),)), USER])
    assert wire.continuation(chain, changed) is None, "what was heard is less than what was said"


def test_outputs_of_open_calls_are_new_wherever_they_stand() -> None:
    second = replace(RAN, call_id="call_2")
    chain = wire.chain_of("resp_1", wire.entries([USER, RAN, second]))
    done = [replace(item, output="12") for item in (RAN, second)]
    new = wire.continuation(chain, wire.entries([USER, *done]))
    assert new is not None and [entry["call_id"] for entry in new] == ["call_1", "call_2"]
    assert kinds(new) == ["function_call_output"] * 2


def test_a_body_has_only_what_was_asked_for() -> None:
    plain = wire.body(ASKED, [])
    assert plain == {"model": "m", "instructions": "Be brief.", "input": [], "store": False}
    tool = ToolSpec("f", "does", '{"type":"object"}')
    asked = replace(
        ASKED, tools=(tool,), max_output_tokens=7, encrypted_reasoning=True, parallel_tool_calls=False
    )
    full = wire.decode(wire.encode(wire.body(asked, [], "resp_1", {"stream": True})))
    assert full["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": "does",
            "parameters": {"type": "object"},
            "strict": False,
        }
    ]
    assert (full["tool_choice"], full["parallel_tool_calls"], full["max_output_tokens"]) == ("auto", False, 7)
    assert (full["previous_response_id"], full["include"], full["stream"]) == (
        "resp_1",
        ["reasoning.encrypted_content"],
        True,
    )


def test_a_call_without_output_is_answered_as_pending() -> None:
    assert wire.pending_outputs(wire.entries([CALL, OUTPUT])) == []
    assert [entry["output"] for entry in wire.pending_outputs(wire.entries([CALL]))] == [wire.PENDING_OUTPUT]


def test_reasoning_stands_in_front_of_its_call() -> None:
    thought: dict[str, object] = {"type": "reasoning"}
    found = wire.with_reasoning(wire.entries([USER, CALL, OUTPUT]), {"call_1": [thought]})
    assert kinds(found) == ["message", "reasoning", "function_call", "function_call_output"]


# -------------------------------------------------------------------------------------------- the reader


def read(*events: dict[str, Any], reader: Reader | None = None) -> list[wire.Piece]:
    reader = reader or Reader()
    return [piece for event in events for piece in reader.feed(event)]


def delta(text: str, at: int = 0) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": at, "delta": text}


def done(item: dict[str, Any], at: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": at, "item": item}


def completed(**response: Any) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", **response}}


MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "yes"}]}
CALLED = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}


def test_text_comes_as_it_comes_and_is_remembered_whole() -> None:
    reader = Reader()
    created = {"type": "response.created", "response": {"id": "resp_1"}}
    usage = {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}
    pieces = read(
        created, delta("y"), delta(""), delta("es"), done(MESSAGE), completed(usage=usage), reader=reader
    )
    assert pieces == [Text("y"), Text("es"), End(Usage(9, 2, 4), "completed")]
    assert (reader.response_id, reader.reason, reader.is_over) == ("resp_1", "completed", True)
    assert reader.outputs == [wire.assistant_entry("yes")]
    assert read(delta("late"), reader=reader) == [], "nothing comes after the end"


def test_text_that_only_comes_whole_is_still_said() -> None:
    assert read(delta("y"), done(MESSAGE))[1:] == [Text("es")]
    assert read(completed(output=[MESSAGE]))[0] == Text("yes")
    assert read(delta("no"), done(MESSAGE)) == [Text("no")], "a whole that differs is not said twice"
    assert read(done({"type": "message", "content": None})) == []


def test_thoughts_are_counted_in_either_api() -> None:
    counts = {"output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 7}}
    assert wire.to_usage(counts) == Usage(output_tokens=9, reasoning_tokens=7)
    counts = {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
    assert wire.to_usage(counts) == Usage(output_tokens=9, reasoning_tokens=7)


def test_a_refusal_is_told_as_one_and_remembered_as_one() -> None:
    reader = Reader()
    event = {"type": "response.refusal.delta", "output_index": 0, "delta": "I "}
    whole = done({"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]})
    nothing = {**event, "delta": ""}
    assert read(event, nothing, whole, reader=reader) == [Refusal("I "), Refusal("cannot.")]
    assert reader.outputs == [wire.refusal_entry("I cannot.")]
    both = [{"type": "output_text", "text": "Well."}, {"type": "refusal", "refusal": "No."}]
    assert read(done({"type": "message", "content": both}), reader=(reader := Reader())) == [
        Text("Well."), Refusal("No."),
    ]  # fmt: skip
    # Two messages of the port make the same entries: the chain goes on.
    said = [
        replace(SAID, content=(Part("output_text", "Well."),)),
        replace(SAID, content=(Part("refusal", "No."),)),
    ]
    assert reader.outputs == wire.entries(said)


def test_what_was_thought_before_it_is_no_part_of_what_was_said() -> None:
    thought = Part("reasoning", '{"type":"reasoning","id":"rs_1","summary":[]}')
    said = replace(SAID, content=(*SAID.content, thought))
    refused = replace(SAID, content=(Part("refusal", "No."), thought))
    assert wire.entries([said, refused]) == [wire.assistant_entry("yes"), wire.refusal_entry("No.")]
    (before, after) = wire.entries([said], reasoning=True)
    assert (before["id"], after) == ("rs_1", wire.assistant_entry("yes"))


def test_a_message_of_a_client_with_both_stays_one() -> None:
    parts = (Part("output_text", "Well."), Part("refusal", "No."), Part("output_text", "Sorry."))
    (entry,) = wire.entries([replace(SAID, content=parts)])
    assert entry["content"] == [
        {"type": "output_text", "text": "Well. Sorry."},
        {"type": "refusal", "refusal": "No."},
    ]
    (empty,) = wire.entries([replace(SAID, content=(Part("refusal"),))])
    assert empty["content"] == [{"type": "refusal", "refusal": ""}]


def test_calls_are_numbered_in_order_and_end_once() -> None:
    def added(at: int, call_id: str) -> dict[str, Any]:
        item = {"type": "function_call", "call_id": call_id, "name": "f", "arguments": ""}
        return {"type": "response.output_item.added", "output_index": at, "item": item}

    def piece(at: int, text: str) -> dict[str, Any]:
        return {"type": "response.function_call_arguments.delta", "output_index": at, "delta": text}

    reader = Reader()
    pieces = read(
        added(1, "call_1"),
        added(1, "call_1"),
        added(2, "call_2"),
        piece(2, '{"b"'),
        piece(1, "{}"),
        piece(1, ""),
        piece(7, "stray"),
        done({**CALLED, "call_id": "call_2", "arguments": '{"b":2}'}, 2),
        done(CALLED, 1),
        done(CALLED, 1),
        piece(1, "late"),
        reader=reader,
    )
    assert pieces == [
        CallPiece(1, "call_2", "f", '{"b"'),
        CallPiece(0, "call_1", "f", "{}"),
        CallPiece(1, "call_2", "f", ":2}"),
        CallEnd(1, "call_2", "f", '{"b":2}'),
        CallEnd(0, "call_1", "f", "{}"),
    ]
    assert reader.strays == 2 and reader.has_output
    assert kinds(reader.outputs) == ["function_call", "function_call"]


def test_a_call_without_arguments_has_none_and_half_a_call_is_none() -> None:
    assert read(done({**CALLED, "arguments": ""})) == [CallEnd(0, "call_1", "f", "{}")]
    assert read(done({**CALLED, "status": "incomplete"})) == []


def test_sealed_thoughts_are_kept_for_the_call_behind_them() -> None:
    reader = Reader()
    sealed = {"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "status": "completed"}
    read(done({"type": "reasoning", "id": "rs_0"}, 0), done(sealed, 1), done(CALLED, 2), reader=reader)
    assert reader.reasoning == {"call_1": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "x"}]}
    assert (
        read(done({"type": "web_search_call"}, 3), {"type": "vendor.event"}, {"no": "type"}, reader=reader)
        == []
    )


@pytest.mark.parametrize(
    ("event", "piece"),
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error"}}},
            Failed("server_error"),
        ),
        ({"type": "response.failed", "response": None}, Failed("failed")),
        ({"type": "response.incomplete", "response": {"status": "cancelled"}}, Failed("cancelled")),
        ({"type": "error", "status": 429, "error": {"type": "t", "code": "c"}}, Failed("c", 429, "t")),
        ({"type": "error", "status_code": 500, "error": {}}, Failed("", 500)),
        ({"type": "error", "code": "flat"}, Failed("flat")),
        ({"type": "response.error", "error": "words"}, Failed("")),
    ],
)
def test_failures_are_read_in_every_form(event: dict[str, Any], piece: Failed) -> None:
    reader = Reader()
    assert read(event, reader=reader) == [piece]
    assert reader.reason == "failed" and not reader.has_output


@pytest.mark.parametrize(
    ("why", "reason"), [("max_output_tokens", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_a_cut_reply_says_why(why: str, reason: str) -> None:
    output = [{**MESSAGE, "status": "incomplete"}, "noise"]
    response = {"status": "incomplete", "incomplete_details": {"reason": why}, "output": output}
    assert read({"type": "response.incomplete", "response": response}) == [End(Usage(), reason)]  # type: ignore[arg-type]  # one of the three


@pytest.mark.parametrize(
    ("failed", "permanent", "says"),
    [
        (Failed("invalid_api_key"), True, "key"),
        (Failed("", 401), True, "llm_key_env"),
        (Failed("insufficient_quota", 429), True, "credit"),
        (Failed("model_not_found"), True, "llm_model"),
        (Failed("context_length_exceeded", 400), True, "longer"),
        (Failed("", 0, "invalid_request_error"), True, "log"),
        (Failed("previous_response_not_found", 400), False, "log"),
        (Failed("rate_limit_exceeded", 429), False, "log"),
        (Failed("odd", 503, "invalid_request_error"), False, "log"),
    ],
)
def test_what_an_error_means(failed: Failed, permanent: bool, says: str) -> None:
    assert wire.is_permanent(failed) is permanent
    assert says in wire.remedy(failed)


@pytest.mark.parametrize("payload", [b"no", b"[1]", b"\xff", "1"])
def test_what_is_no_json_object_is_a_value_error(payload: bytes | str) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        wire.decode(payload)


def test_what_is_kept_raw_stays_as_it_was() -> None:
    choice = '{"type":"function","name":"f"}'
    asked = replace(ASKED, tools=(ToolSpec("f"),), tool_choice=choice)
    assert msgspec.json.decode(wire.encode(wire.body(asked, [])))["tool_choice"]["name"] == "f"
