"""A model's events as outputs: in which order, and what led to each."""

from __future__ import annotations

from typing import Any

from openline.ports import (
    ModelDone,
    ModelEvent,
    Outputs,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)
from openline.runtime.fold import Fold
from openline.types import CallId, ResponseId


class Noted(Outputs):
    """Every call, without the response, which is always the same."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        self.said.append(("thinks", delta.text))

    def message_started(
        self,
        response: ResponseId,
        output_index: int,
        *,
        is_refusal: bool = False,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        self.said.append(("refusal" if is_refusal else "message", output_index, *reasoning))

    def text_delta(self, response: ResponseId, output_index: int, text: str) -> None:
        self.said.append(("text", output_index, text))

    def message_finished(self, response: ResponseId, output_index: int) -> None:
        self.said.append(("end", output_index))

    def call_started(
        self,
        response: ResponseId,
        output_index: int,
        call_id: CallId,
        name: str,
        *,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        self.said.append(("call", output_index, call_id, *reasoning))

    def call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None:
        self.said.append(("piece", output_index, arguments))

    def call_finished(self, response: ResponseId, output_index: int, arguments: str) -> None:
        self.said.append(("called", output_index, arguments))


def folded(*events: ModelEvent, is_spoken: bool = False) -> tuple[list[tuple[Any, ...]], Fold]:
    noted = Noted()
    fold = Fold(ResponseId("resp_1"), noted, is_spoken=is_spoken)
    for event in events:
        fold.follow(event)
    return noted.said, fold


CALLED = (
    ToolCallDelta(0, "c1", "f", "{"),
    ToolCallDelta(1, "c2", "f", "{}"),
    ToolCallDone(0, "c1", "f", "{}"),
)


def test_what_was_thought_goes_with_the_item_that_begins_next() -> None:
    said, fold = folded(
        ReasoningDelta("rs_1", 0, "hm"),
        ReasoningDone("rs_1", "one"),
        TextDelta("a"),
        ReasoningDone("rs_2", "two"),
        ReasoningDone("rs_3", "three"),
        ToolCallDone(0, "c1", "f", "{}"),
        ReasoningDone("rs_4", "four"),
        ModelDone(),
    )
    assert said == [
        ("thinks", "hm"),
        ("message", 0, "one"),
        ("text", 0, "a"),
        ("end", 0),
        ("call", 1, "c1", "two", "three"),
        ("called", 1, "{}"),
    ]
    assert fold.take_reasoning() == ("four",), "it led to nothing"
    assert not fold.take_reasoning()


def test_a_change_between_text_and_refusal_begins_another_message() -> None:
    said, fold = folded(TextDelta("a"), RefusalDelta("no"), RefusalDelta("!"), TextDelta("b"))
    assert said == [
        ("message", 0),
        ("text", 0, "a"),
        ("end", 0),
        ("refusal", 1),
        ("text", 1, "no"),
        ("text", 1, "!"),
        ("end", 1),
        ("message", 2),
        ("text", 2, "b"),
    ]
    assert fold.message == 2
    fold.end_message()
    fold.end_message()
    assert said[9:] == [("end", 2)] and fold.message is None


def test_calls_begin_and_end_beside_an_open_message() -> None:
    said, fold = folded(TextDelta("a"), *CALLED, TextDelta("b"))
    assert said == [
        ("message", 0),
        ("text", 0, "a"),
        ("call", 1, "c1"),
        ("piece", 1, "{"),
        ("call", 2, "c2"),
        ("piece", 2, "{}"),
        ("called", 1, "{}"),
        ("text", 0, "b"),
    ]
    assert fold.has_calls and not folded(TextDelta("a"))[1].has_calls


def test_what_is_spoken_is_one_message_that_the_voice_tells() -> None:
    said, _ = folded(
        ReasoningDelta("rs_1", 0, "hm"),
        ReasoningDone("rs_1", "one"),
        TextDelta("a"),
        RefusalDelta("no"),
        *CALLED[:1],
        is_spoken=True,
    )
    assert said == [("message", 0), ("call", 1, "c1"), ("piece", 1, "{")]
