"""What the fake provider is told and what it makes its answers of: faults, replies, and small pieces of JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
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
    first output. ``pace_s``: seconds between events. ``cut``: it ends with ``max_output_tokens``."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    reasoning: str = ""
    cut: bool = False
    wait: asyncio.Event | None = None
    pace_s: float = 0.0


@dataclass(slots=True)
class Asked:
    """A request as it came. ``bytes``: of its body or frame. ``path``: "ws", or the POST's path."""

    path: str
    body: Json
    bytes: int
    connection: int


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
