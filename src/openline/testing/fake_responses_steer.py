"""How the fake provider is steered: what it does with ``response.steer`` on command, and its frames about it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from openline.testing.fake_responses_parts import Json

SteerKind = Literal[
    "apply", "finish", "return", "refuse", "unknown", "ignore", "close", "close_before", "close_after"
]
STEERS: dict[str, str] = {
    "apply": "accept it, cut what is being said, and go on in a successor that has it (the default)",
    "finish": "accept it, end as it would have, then the successor",
    "return": "accept it, end as it would have, then give it back with ``code`` (``successor_creation_failed``)",
    "refuse": "``response.steer.failed`` with ``code`` (``steering_not_supported``) at once",
    "unknown": "an error frame, as servers that know no such event answer; it names no lane",
    "ignore": "no answer at all, now or later",
    "close": "close with ``code`` (1006: the line is cut) in place of an answer",
    "close_before": "accept it, cut what is being said, then close before the successor begins",
    "close_after": "the same, and close once the successor has begun to speak",
}
"""What becomes of a steer. A response that has begun a call is not cut: it ends, and the input waits for the outputs."""


@dataclass(frozen=True, slots=True)
class SteerPlan:
    """``rest_s``: seconds between the end of the response and what then becomes of the input."""

    kind: SteerKind = "apply"
    code: str = ""
    rest_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Steered:
    """Input that was accepted."""

    plan: SteerPlan
    id: str
    input: object
    previous: str

    @property
    def told(self) -> Json:
        return {"id": self.id, "previous_response_id": self.previous}

    @property
    def cuts(self) -> bool:
        return self.plan.kind in ("apply", "close_before", "close_after")


def accepted(one: Steered) -> Json:
    return {"type": "response.steer.accepted", "sequence_number": 0, "steer": one.told}


def pending(one: Steered, calls: list[Json]) -> Json:
    needed = [
        {"type": "function_call_output", "call_id": call["call_id"], "name": call["name"]} for call in calls
    ]
    more = {"reason": "waiting_for_required_input", "required_input": needed}
    return {"type": "response.steer.pending", "sequence_number": 0, "steer": one.told, **more}


def failed(code: str, given: object, previous: str, steer_id: str = "") -> Json:
    error = {"type": "invalid_request_error", "code": code, "message": "As the test asked."}
    told: Json = {"input": given, "previous_response_id": previous, **({"id": steer_id} if steer_id else {})}
    return {"type": "response.steer.failed", "sequence_number": 0, "error": error, "steer": told}


@dataclass(slots=True)
class Told:
    """What of a response went out, so that it can be cut there. ``stop`` is set when it is to be."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    has_calls: bool = False
    _message: Json | None = None
    _at: int = 0
    _text: str = ""

    @property
    def is_cut(self) -> bool:
        return self.stop.is_set() and not self.has_calls

    def note(self, event: Json) -> None:
        item = event.get("item", {})
        if event["type"] == "response.output_item.added":
            self.has_calls = self.has_calls or item["type"] == "function_call"
            self._message, self._at, self._text = item, event["output_index"], ""
        elif event["type"] == "response.output_item.done":
            self._message = None
        elif event["type"] == "response.output_text.delta":
            self._text += event["delta"]

    def cut(self) -> Json | None:
        """The end of the message that is open, as far as it was said; None when none is."""
        item, self._message = self._message, None
        if item is None or item["type"] != "message":
            return None
        content = [{"type": "output_text", "text": self._text, "annotations": []}]
        whole = {**item, "status": "incomplete", "content": content}
        return {"type": "response.output_item.done", "output_index": self._at, "item": whole}


async def either(one: asyncio.Event, other: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
