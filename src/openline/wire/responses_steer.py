"""``response.steer`` as a client of the Responses API speaks it: the event, and what becomes of what it sent.

Pure. A ``Steering`` is of one response. The server owns accepted input and does one of three things with it once that
response is over (openai-protocols.md A.7): it begins a successor, it keeps it for the request that answers the calls,
or it gives it back. An answer names a steer by an id that the server chose, and the first answer to a steer is what
brings that id: first answers are taken in the order of sending, which is the order in which a server reads its socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from openline.wire.items import JsonObject
from openline.wire.responses_client import LIMIT_REACHED, TERMINAL, failure

NOT_SUPPORTED: Final = "steering_not_supported"
UNKNOWN_EVENT: Final = "unknown_event"
"""Our word for the error of a server that does not know ``response.steer`` at all."""
UNREADABLE_INPUT: Final = "invalid_input"
OVER: Final = frozenset({"response_already_completed", "response_not_active", "response_not_found"})
"""The response ended while the steer was on its way."""

Fate = Literal["none", "open", "begun", "queued"]
"""Of all that one response was steered with: nothing of it is at the server; nobody knows yet; a successor has it; it
waits for the request that continues the response."""


def steer_event(response_id: str, entries: Sequence[JsonObject]) -> JsonObject:
    """``entries``: messages of the user. The response decides the lane: ``stream_id`` is refused here."""
    return {"type": "response.steer", "previous_response_id": response_id, "input": list(entries)}


@dataclass(slots=True, eq=False)
class Steer:
    """Input that was sent. ``id``: the server's, once it is known. ``code``: why it is not the server's (any more)."""

    entries: tuple[JsonObject, ...]
    state: Literal["sent", "accepted", "queued", "refused"] = "sent"
    id: str = ""
    code: str = ""


@dataclass(slots=True, eq=False)
class Steering:
    """What the response ``response_id`` was steered with. ``hear`` gets every event of its lane, in order.

    ``is_over``: the response is. ``successor``: the response that the server began with the input; ``applied``: the
    entries that it has; ``is_done``: it is over too.
    """

    response_id: str
    steers: list[Steer] = field(default_factory=list)
    is_over: bool = False
    successor: str = ""
    applied: list[JsonObject] = field(default_factory=list)
    is_done: bool = False

    def add(self, entries: Sequence[JsonObject]) -> Steer:
        """Note that ``entries`` are sent now."""
        self.steers.append(Steer(tuple(entries)))
        return self.steers[-1]

    @property
    def is_waiting(self) -> bool:
        """Some input was sent and not refused: what follows the response may have it."""
        return any(one.state != "refused" for one in self.steers)

    @property
    def fate(self) -> Fate:
        if self.successor:
            return "begun"
        live = [one for one in self.steers if one.state != "refused"]
        if not live:
            return "none"
        return "queued" if all(one.state == "queued" for one in live) else "open"

    @property
    def is_open(self) -> bool:
        return self.fate == "open"

    def entries(self, state: Literal["accepted", "queued"]) -> list[JsonObject]:
        return [entry for one in self.steers if one.state == state for entry in one.entries]

    def hear(self, event: JsonObject) -> bool:
        """Whether ``event`` was an answer to a steer, and nothing else."""
        kind = event.get("type")
        if steered_response(event) not in ("", self.response_id):
            return True  # Of a response before it on this lane, which nobody asks for any more.
        match kind:
            case "response.steer.accepted":
                self._answered(event, "accepted")
            case "response.steer.pending":
                self._answered(event, "queued")
            case "response.steer.failed":
                self._answered(event, "refused", failure(event).code)
            case "error" if self.is_refused_by(event):
                self._answered({}, "refused", UNKNOWN_EVENT)
            case "response.created" if not self.successor:
                self._began(_id_in(event, "response"))
                return False
            case _ if kind in TERMINAL:
                self.is_over, self.is_done = True, bool(self.successor)
                return False
            case _:
                return False
        return True

    def _began(self, response_id: str) -> None:
        if response_id != self.response_id:  # Its own may come late.
            self.is_over, self.successor = True, response_id
            self.applied = self.entries("accepted")

    def is_refused_by(self, error: JsonObject) -> bool:
        """Once a response has begun, an error of a request can only be about what was sent since: a steer."""
        if self._first_sent() is None:
            return False
        failed = failure(error)
        if failed.code == LIMIT_REACHED or failed.status == 429 or failed.status >= 500:
            return False
        return failed.status >= 400 or failed.kind == "invalid_request_error"

    def _answered(
        self, event: JsonObject, state: Literal["accepted", "queued", "refused"], code: str = ""
    ) -> None:
        steer_id = _id_in(event, "steer")
        named = (one for one in self.steers if steer_id and one.id == steer_id)
        one = next(named, None) or self._first_sent()
        if one is not None:
            one.state, one.id, one.code = state, steer_id or one.id, code

    def _first_sent(self) -> Steer | None:
        return next((one for one in self.steers if one.state == "sent"), None)


def steered_response(event: JsonObject) -> str:
    """The response that an answer to a steer is about; "" for other events. A refusal may name no lane."""
    kind = event.get("type")
    if not isinstance(kind, str) or not kind.startswith("response.steer."):
        return ""
    return _text_in(event, "steer", "previous_response_id")


def _id_in(event: JsonObject, name: str) -> str:
    return _text_in(event, name, "id")


def _text_in(event: JsonObject, outer: str, name: str) -> str:
    inner = event.get(outer)
    value = inner.get(name) if isinstance(inner, dict) else None
    return value if isinstance(value, str) else ""


def without(entries: Sequence[JsonObject], queued: Sequence[JsonObject]) -> list[JsonObject] | None:
    """``entries`` less ``queued``, each taken out once and in order; None when they are not all there."""
    left = list(queued)
    found: list[JsonObject] = []
    for entry in entries:
        if left and entry == left[0]:
            left.pop(0)
        else:
            found.append(entry)
    return None if left else found
