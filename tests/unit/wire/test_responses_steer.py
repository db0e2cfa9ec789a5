"""What becomes of input that a response was steered with, by what the server says; and the steered response itself."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import ResponseSteerEvent

from openline.wire.responses_client import End, Reader, Text, chain_of
from openline.wire.responses_steer import Steering, steer_event, steered_response, without

B: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "B"}]}
C: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "C"}]}


def told(kind: str, steer_id: str = "", previous: str = "r1", **more: Any) -> dict[str, Any]:
    steer = {"previous_response_id": previous, **({"id": steer_id} if steer_id else {})}
    return {"type": f"response.steer.{kind}", "sequence_number": 0, "steer": steer, **more}


def failed(code: str, steer_id: str = "", **more: Any) -> dict[str, Any]:
    error = {"type": "invalid_request_error", "code": code, "message": "No."}
    return told("failed", steer_id, error=error, **more)


def event(kind: str, response_id: str = "r1") -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"id": response_id}}


def error(status: int | None, code: str = "invalid_value", kind: str = "invalid_request_error") -> Any:
    frame = {"type": "error", "error": {"type": kind, "code": code, "message": "No.", "param": "type"}}
    return frame if status is None else {**frame, "status": status}


def steering(*accepted: Any) -> Steering:
    found = Steering("r1")
    for number, entry in enumerate(accepted, 1):
        found.add([entry])
        assert found.hear(told("accepted", f"s{number}"))
    return found


def test_the_event_is_what_the_typed_model_of_the_sdk_takes() -> None:
    sent = steer_event("r1", [B])
    assert sent.keys() == {"type", "previous_response_id", "input"}, "the response decides the lane"
    ResponseSteerEvent.model_validate(sent)


def test_input_is_applied_by_a_successor() -> None:
    found = steering(B, C)
    assert found.fate == "open" and found.is_waiting
    assert not found.hear({"type": "response.output_text.delta", "delta": "x"})
    assert not found.hear(event("created")), "its own, late"
    assert found.fate == "open"
    assert not found.hear(event("incomplete")) and found.is_over
    assert not found.hear(event("created", "r2"))
    assert (found.fate, found.successor, found.applied, found.is_done) == ("begun", "r2", [B, C], False)
    assert not found.hear(event("completed", "r2")) and found.is_done
    found.hear(event("created", "r3"))
    assert found.successor == "r2"


def test_input_waits_for_the_outputs_of_calls_or_goes_back() -> None:
    found = steering(B, C)
    found.hear(event("completed"))
    was_open = [found.hear(told("pending", each)) and found.is_open for each in ("s1", "s2")]
    assert was_open == [True, False]
    assert found.entries("queued") == [B, C]
    assert found.hear(failed("response_not_active", "s2"))
    assert (found.fate, found.entries("queued")) == ("queued", [B])
    assert found.hear(failed("response_not_active", "s1"))
    assert (found.fate, found.is_waiting) == ("none", False)
    assert [one.code for one in found.steers] == ["response_not_active"] * 2


def test_first_answers_are_taken_in_the_order_of_sending() -> None:
    found = Steering("r1")
    one, two, three = found.add([B]), found.add([C]), found.add([B])
    found.hear(told("accepted", "s1"))
    found.hear(failed("too_many_pending_steers"))
    found.hear(failed("invalid_input", "s9"))
    assert [each.state for each in (one, two, three)] == ["accepted", "refused", "refused"]
    assert (two.code, three.code, three.id) == ("too_many_pending_steers", "invalid_input", "s9")
    assert found.hear(told("accepted", "s4")), "an answer too many changes nothing"
    assert [each.state for each in (one, two, three)] == ["accepted", "refused", "refused"]


def test_answers_about_another_response_change_nothing() -> None:
    found = Steering("r1")
    one = found.add([B])
    assert found.hear(told("accepted", "s1", "r0")) and one.state == "sent"
    assert steered_response(told("failed", "", "r0")) == "r0"
    others: list[dict[str, Any]] = [event("created"), {"type": 7}, told("failed") | {"steer": 7}]
    for other in others:
        assert steered_response(other) == ""


@pytest.mark.parametrize(
    ("frame", "is_ours"),
    [
        (error(400), True),
        (error(None), True),
        (error(None, kind="server_error"), False),
        (error(429, "rate_limit_exceeded"), False),
        (error(500), False),
        (error(400, "websocket_connection_limit_reached"), False),
    ],
)
def test_an_error_in_the_middle_is_about_the_steer_or_ends_the_response(frame: Any, is_ours: bool) -> None:
    found = Steering("r1")
    one = found.add([B])
    assert found.hear(frame) is is_ours
    assert one.state == ("refused" if is_ours else "sent")
    assert one.code == ("unknown_event" if is_ours else "")
    assert not found.hear(error(400)) if is_ours else found.is_over


def test_what_the_server_has_is_left_out_once_and_only_if_all_of_it_is_there() -> None:
    assert without([B, C, B], [B]) == [C, B]
    assert without([B], [B]) == []
    assert without([C, B], [B, C]) is None
    assert without([C], []) == [C]


@pytest.mark.parametrize("status", ["incomplete", "completed"])
@pytest.mark.parametrize("has_done", [True, False], ids=["done", "only in the end"])
def test_a_steered_response_is_kept_as_far_as_it_was_said(status: str, has_done: bool) -> None:
    """Its cut message counts: the successor has it in its context."""
    reader = Reader()
    content = [{"type": "output_text", "text": "half of it"}]
    item = {"type": "message", "role": "assistant", "status": status, "content": content}
    call = {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{", "status": "incomplete"}
    events: list[Any] = [
        event("created"),
        {"type": "response.output_text.delta", "output_index": 0, "delta": "half"},
    ]
    if has_done:
        events.append({"type": "response.output_item.done", "output_index": 0, "item": item})
    response: Any = {"id": "r1", "status": "incomplete", "output": [item, call]}
    response["incomplete_details"] = {"reason": "steered"}
    events.append({"type": "response.incomplete", "response": response})
    pieces = [piece for each in events for piece in reader.feed(each)]
    assert "".join(piece.text for piece in pieces if isinstance(piece, Text)) == "half of it"
    assert isinstance(pieces[-1], End) and pieces[-1].reason == "steered"
    assert chain_of("r1", reader.outputs).count == 1, "half a call is none"
    assert not reader.has_calls
    reader = Reader()
    reader.feed({"type": "response.output_item.added", "output_index": 0, "item": call})
    assert reader.has_calls
