"""The conversation as the provider has it: which of its items are which of ours.

One ``Conversation`` per socket: a new one is given the whole history again, and its ids start from nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from openline.core.model import Item
from openline.types import ItemId
from openline.wire import upstream
from openline.wire.items import STRICT_ID_LIMIT, JsonObject

Command = Callable[..., str]
"""Sends a client event (its type, and its values by name) and returns the event id it was given."""


@dataclass(slots=True)
class _Call:
    """A tool call upstream. ``output``: the id of its output item there; ``is_pending``: not its result yet."""

    call_id: str
    output: str = ""
    is_pending: bool = False


class Conversation:
    """``command`` sends; ``ours`` gives the session's items, to place new ones and to find renamed calls."""

    __slots__ = ("_audio_ms", "_calls", "_command", "_session_items", "_written", "known")

    def __init__(self, command: Command, ours: Callable[[], Sequence[Item]]) -> None:
        self._command = command
        self._session_items = ours
        self._calls: dict[ItemId, _Call] = {}
        self._audio_ms: dict[ItemId, int] = {}
        self._written: dict[ItemId, int] = {}
        """What the assistant said elsewhere and is only text here; how often it was written."""
        self.known: dict[str, str] = {}
        """Our item id to the provider's."""

    # -- what the provider made

    def bind(self, ours: ItemId, theirs: str) -> None:
        self.known[ours] = theirs

    def bind_call(self, ours: ItemId, theirs: str, call_id: str) -> None:
        self.known[ours] = theirs
        self._calls[ours] = _Call(call_id)

    def generated(self, ours: ItemId, audio_ms: int) -> None:
        """A spoken item is as long as this upstream: no truncate may name more."""
        self._audio_ms[ours] = audio_ms

    # -- what we make

    def rehydrate(self, items: Sequence[Item], start: int = 0) -> None:
        """Give a new socket the history: words as heard, calls with their outputs or a pending one. It has the
        items before ``start`` already."""
        answered = {item.call_id for item in items if item.type == "function_call_output"}
        asked = {item.call_id for item in items if item.type in ("function_call", "mcp_call")}
        pending = {call.call_id for call in self._calls.values() if call.is_pending}
        for place in range(start, len(items)):
            item = items[place]
            if item.type == "message":
                self._create_message(item, None)
            elif item.type == "function_call_output":
                if item.call_id in pending:
                    self._add_output(item, items[place - 1].id)
                elif item.call_id in asked:
                    self._create(item.id, upstream.output_object(item.call_id, item.output), None)
            elif item.type == "mcp_call":
                self._create_call(item, item.output or item.error)
            else:
                self._create_call(item, None if item.call_id in answered else "")

    def _create_call(self, item: Item, output: str | None) -> None:
        """``output`` "" : it is still open; None: its own item follows."""
        self._create(item.id, upstream.call_object(item, item.call_id), None)
        call = self._calls[item.id] = _Call(item.call_id)
        if output is not None:
            self._answer(item.id, call, output or upstream.PENDING, is_pending=not output)

    def add(self, item: Item, previous: ItemId | None) -> None:
        """An item that the session has now. One the provider has already is not made twice.

        The newest goes to the end there too, whatever stands there: speech of earlier that was only now
        recognised from a recording lies behind its place, and would be what the model answers.
        """
        ours = self._session_items()
        place = None if ours and ours[-1].id == item.id else previous or "root"
        match item.type:
            case "message":
                if item.id not in self.known:
                    # What was said by voice ends the conversation; what was put in has its place.
                    self._create_message(item, None if item.turn_id is not None else place)
            case "mcp_call":
                self._settle(item)
            case "function_call_output":
                self._add_output(item, place)
            case "function_call":
                if item.id not in self.known:
                    self._create(item.id, upstream.call_object(item, item.call_id), place)
                    self._calls[item.id] = _Call(item.call_id)

    def _create_message(self, item: Item, previous: str | None) -> None:
        shown = upstream.message_object(item)
        if shown is not None:
            self._create(item.id, shown, previous)
            if item.role == "assistant":
                self._written[item.id] = 0

    def _settle(self, item: Item) -> None:
        call = self._calls.get(item.id)
        if call is None:
            self._create_call(item, item.output or item.error)
        else:
            self._answer(item.id, call, item.output or item.error or "{}", is_pending=False)

    def _answer(self, ours: ItemId, call: _Call, output: str, *, is_pending: bool) -> None:
        if call.output and not call.is_pending:
            return
        stale, call.output = call.output, upstream_id(f"{ours}_{'p' if is_pending else 'o'}")
        call.is_pending = is_pending
        if stale:
            self._command("conversation.item.delete", item_id=stale)
        self._create_as(
            call.output, upstream.output_object(call.call_id, output), self.known.get(ours) if stale else None
        )

    def _add_output(self, item: Item, place: str | None) -> None:
        """The client's answer to a call. The session may have renamed the call: its item says which it is."""
        if item.id in self.known:
            return
        asked = next(
            (
                known
                for known in reversed(self._session_items())
                if known.type == "function_call" and known.call_id == item.call_id
            ),
            None,
        )
        call = self._calls.get(asked.id) if asked is not None else None
        if call is None:
            self._create(item.id, upstream.output_object(item.call_id, item.output), place)
            return
        if call.output:
            self._command("conversation.item.delete", item_id=call.output)
        self._create(item.id, upstream.output_object(call.call_id, item.output), place)
        call.output, call.is_pending = self.known[item.id], False

    def remove(self, item_id: ItemId) -> None:
        theirs = self.known.pop(item_id, None)
        call = self._calls.pop(item_id, None)
        self._audio_ms.pop(item_id, None)
        self._written.pop(item_id, None)
        if theirs is not None:
            self._command("conversation.item.delete", item_id=theirs)
        if call is not None and call.output and call.output not in self.known.values():
            self._command("conversation.item.delete", item_id=call.output)

    def truncate(self, item_id: ItemId, audio_end_ms: int) -> None:
        """Cut a spoken item to what was heard. Of what nobody heard nothing stays: cutting at 0 is an error
        there (failures.md D12). Speech that was heard to its end is left alone; what was said over an earlier
        connection and is only text here is written again as it was heard."""
        theirs = self.known.get(item_id)
        made_ms = self._audio_ms.get(item_id, 0)
        if theirs is None:
            return
        if audio_end_ms <= 0:
            self.remove(item_id)
        elif item_id in self._written:
            self._write_again(item_id, theirs)
        elif audio_end_ms < made_ms:
            self._command(
                "conversation.item.truncate", item_id=theirs, content_index=0, audio_end_ms=audio_end_ms
            )

    def _write_again(self, ours: ItemId, theirs: str) -> None:
        items = self._session_items()
        place = next((place for place, item in enumerate(items) if item.id == ours), None)
        shown = upstream.message_object(items[place]) if place is not None else None
        if place is None or shown is None:
            self.remove(ours)
            return
        self._written[ours] += 1
        self._command("conversation.item.delete", item_id=theirs)
        self.known[ours] = upstream_id(f"{ours}_{self._written[ours]}")
        before = self.known.get(items[place - 1].id) if place else "root"
        self._create_as(self.known[ours], shown, before)

    def _create(self, ours: ItemId, shown: JsonObject, previous: str | None) -> None:
        """``previous``: an item of ours, "root" for the front, None for the end."""
        theirs = upstream_id(ours)
        place = None
        if previous == "root":
            place = "root"
        elif previous is not None:
            # After an item that the provider does not have: the end is the best guess.
            place = self.known.get(ItemId(previous))
        self.known[ours] = theirs
        self._create_as(theirs, shown, place)

    def _create_as(self, theirs: str, shown: JsonObject, place: str | None) -> None:
        where = {} if place is None else {"previous_item_id": place}
        self._command("conversation.item.create", **where, item={"id": theirs, **shown})


def upstream_id(ours: str) -> str:
    """Our id where the provider takes it (at most 32 characters), else one made from it."""
    if len(ours) <= STRICT_ID_LIMIT:
        return ours
    return f"ol_{sha256(ours.encode()).hexdigest()[:28]}"
