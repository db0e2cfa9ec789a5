"""What the fake provider is told and what it makes its answers of: faults, replies, and small pieces of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Container, Iterator
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
SEALED = "reasoning.encrypted_content"
"""In ``include``: reasoning items come with their encrypted content."""
FaultKind = Literal[
    "refuse",
    "cap",
    "not_found",
    "error",
    "failed",
    "close",
    "half_frame",
    "garbage",
    "binary",
    "silence",
    "big_frame",
    "stray",
    "duplicate_done",
    "late_created",
    "only_completed",
]
RESPONSES_FAULTS: dict[str, str] = {
    "refuse": "HTTP ``status`` with ``code``, at the upgrade or for a POST",
    "cap": "``websocket_connection_limit_reached``, then close 1000",
    "not_found": "``previous_response_not_found``, whatever is held",
    "error": "an error frame with ``code`` and ``status`` in place of the response",
    "failed": "``response.failed`` with ``code`` after ``after`` events",
    "close": "close with ``code`` after ``after`` events; 1006: the line is cut (upgrade: at once)",
    "half_frame": "half a frame after ``after`` events, then the line is cut",
    "garbage": "text that is no JSON after ``after`` events",
    "binary": "a binary frame of noise after ``after`` events",
    "silence": "nothing more after ``after`` events; pings are still answered",
    "big_frame": "a frame of 40 MB before the response",
    "stray": "deltas for items that were never added, before the response",
    "duplicate_done": "every ``…done`` twice, and events behind the terminal one",
    "late_created": "``response.created`` comes after the first output item",
    "only_completed": "nothing but ``response.completed``, with the whole output",
}
"""What can go wrong on command, and what then happens."""


@dataclass(frozen=True, slots=True)
class Fault:
    kind: FaultKind
    after: int = 0
    code: int | str = ""
    status: int = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model says. ``calls``: (name, arguments JSON), all in one response. ``wait``: before the
    first output. ``hold``: behind the first word, or the first whole call, until it is set, or somebody steers or
    cancels. ``pace_s``: seconds between events. ``cut``: it ends with ``max_output_tokens``.

    With any of ``summary`` (its parts), ``thoughts`` (their text, as open models show it) and ``reasoning`` (its
    encrypted content, shown to who asks for that) a reasoning item comes first; ``ponders_s``: seconds of silence
    in it."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    reasoning: str = ""
    summary: tuple[str, ...] = ()
    thoughts: str = ""
    ponders_s: float = 0.0
    cut: bool = False
    wait: asyncio.Event | None = None
    hold: asyncio.Event | None = None
    pace_s: float = 0.0

    @property
    def reasons(self) -> bool:
        return bool(self.reasoning or self.summary or self.thoughts)


@dataclass(slots=True)
class Asked:
    """A request as it came. ``bytes``: of its body or frame. ``path``: "ws", or the POST's path."""

    path: str
    body: Json
    bytes: int
    connection: int


@dataclass(slots=True)
class Stored:
    items: list[Json]
    is_stored: bool


class Refused(Exception):
    def __init__(self, frame: Json) -> None:
        super().__init__("refused")
        self.frame = frame


def as_items(given: object) -> list[Json]:
    """``input`` as a list of items, whichever form it came in."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    assert isinstance(given, list)
    return list(given)


def last_text(body: Json) -> str:
    """The newest user text, tool output or other string of a request, in any of the three APIs."""
    items = as_items(body.get("input", body.get("messages", [])))
    for item in reversed(items):
        content = item.get("output", item.get("content"))
        if isinstance(content, list) and content:
            content = content[-1].get("text", "")
        if isinstance(content, str) and item.get("role") not in ("assistant", "system"):
            return content
    return ""


def pieces_of(text: str) -> list[str]:
    """Word by word, blanks kept."""
    return [word if at == 0 else f" {word}" for at, word in enumerate(text.split(" "))] if text else []


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def tokens(values: object) -> int:
    """A stand-in for a count of tokens: four bytes of JSON each."""
    return len(json.dumps(values)) // 4


def not_found(previous: object) -> Json:
    message = f"Previous response with id '{previous}' not found."
    return error_frame("previous_response_not_found", 400, message, "previous_response_id")


def error_frame(code: str, status: int, message: str, param: str | None = None) -> Json:
    error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
    return {"type": "error", "status": status, "error": error}


def added(at: int, item: Json) -> Json:
    return {"type": "response.output_item.added", "output_index": at, "item": item}


def reasoning_events(reply: Reply, item_id: str, at: int, sealed: str) -> Iterator[Json]:
    """A reasoning item, from its ``added`` to its ``done``. ``sealed``: its encrypted content, "" for none."""
    item: Json = {"id": item_id, "type": "reasoning", "summary": []}
    here = {"output_index": at, "item_id": item_id}
    yield added(at, item)
    for number, text in enumerate(reply.summary):
        place = {"summary_index": number, **here}
        part = {"type": "summary_text", "text": text}
        yield {"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}, **place}
        for piece in pieces_of(text):
            yield {"type": "response.reasoning_summary_text.delta", "delta": piece, **place}
        yield {"type": "response.reasoning_summary_text.done", "text": text, **place}
        yield {"type": "response.reasoning_summary_part.done", "part": part, **place}
        item = {**item, "summary": [*item["summary"], part]}
    if reply.thoughts:
        for piece in pieces_of(reply.thoughts):
            yield {"type": "response.reasoning_text.delta", "content_index": 0, "delta": piece, **here}
        item = {**item, "content": [{"type": "reasoning_text", "text": reply.thoughts}]}
    if sealed:
        item = {**item, "encrypted_content": sealed}
    yield {"type": "response.output_item.done", "output_index": at, "item": item}


def reasoning_problem(given: list[Json], sealed: dict[str, str], stored: Container[object]) -> Json | None:
    """Why reasoning in a request's ``input`` is refused, or None: it comes back under its own id and unchanged, or by
    the id of something ``stored``, and in front of what it led to."""
    for at, item in enumerate(given):
        if item.get("type") != "reasoning":
            continue
        item_id, content = item.get("id", ""), item.get("encrypted_content")
        if content is not None and content != sealed.get(item_id):
            message = f"The encrypted content for item {item_id} could not be verified."
            return error_frame("invalid_encrypted_content", 400, message)
        if content is None and "content" not in item and item_id not in stored:
            return error_frame("", 404, f"Item with id '{item_id}' not found.", "input")
        led_to: Json = next((one for one in given[at + 1 :] if one.get("type") != "reasoning"), {})
        if led_to.get("type") != "function_call" and led_to.get("role") != "assistant":
            message = (
                f"Item '{item_id}' of type 'reasoning' was provided without its required following item."
            )
            return error_frame("", 400, message, "input")
    return None


async def shaped(events: AsyncIterator[Json], fault: Fault | None) -> AsyncIterator[Json]:
    """The events in the disorder that some servers have."""
    kind = fault.kind if fault is not None else ""
    held: list[Json] = []
    async for event in events:
        if kind == "only_completed" and "response" not in event:
            continue
        if kind == "late_created" and event["type"] in ("response.created", "response.in_progress"):
            held.append(event)
            continue
        yield event
        if kind == "duplicate_done" and event["type"].endswith((".done", ".completed")):
            yield event
        if held and event["type"] == "response.output_item.added":
            for late in held:
                yield late
            held.clear()
