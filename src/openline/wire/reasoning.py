"""Reasoning items of the Responses API: what a model thought before it said or called something.

A reasoning item stays JSON text, as the model's server gave it: a summary that people may read, text of the thoughts
themselves where a model is open about them, or ``encrypted_content`` that only its own server can read. It is kept in
a part of the item that it led to (``core.model.Part``), so a conversation has no item that speaks for nobody, and an
item that is deleted takes its thoughts along. Which fields it has is the provider's affair; these are read here:
``id``, ``summary``, ``content``, ``encrypted_content``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from openline.core.model import Item, Part
from openline.wire.check import MAX_ID, Fields
from openline.wire.items import JsonObject

SEALED: Final = "reasoning.encrypted_content"
"""What a client puts into ``include`` that wants the encrypted content, to give it back."""
MAX_PARTS: Final = 1_000
"""Parts of a summary; the service names no limit."""
MAX_SEALED: Final = 16 * 1024 * 1024
"""Characters of encrypted content; the service names no limit. A frame of 32 MiB holds it."""

_encode: Final = msgspec.json.Encoder().encode


def to_reasoning(fields: Fields) -> str:
    """A client's reasoning item, checked; only what is read here is kept. Raises ClientProtocolError."""
    kept: JsonObject = {"type": "reasoning"}
    item_id = fields.text("id", limit=MAX_ID)
    if item_id:
        kept["id"] = item_id
    kept["summary"] = _parts(fields, "summary", "summary_text")
    if fields.get("content") is not None:
        kept["content"] = _parts(fields, "content", "reasoning_text")
    sealed = fields.text("encrypted_content", limit=MAX_SEALED)
    if sealed:
        kept["encrypted_content"] = sealed
    return _encode(kept).decode()


def _parts(fields: Fields, name: str, kind: str) -> list[JsonObject]:
    found = fields.children(name, limit=MAX_PARTS)
    for part in found:
        part.required_choice("type", (kind,))
    return [{"type": kind, "text": part.required_text("text")} for part in found]


def part_of(reasoning: str) -> Part:
    return Part("reasoning", reasoning)


def reasoning_entries(item: Item) -> list[JsonObject]:
    """The reasoning items in front of ``item``, oldest first."""
    return [object_of(text) for text in item.reasoning]


def object_of(reasoning: str) -> JsonObject:
    return msgspec.json.decode(reasoning, type=dict[str, object])


def is_readable(entry: JsonObject) -> bool:
    """Whether a model that stores nothing can read it again: a summary is for people."""
    return bool(entry.get("encrypted_content") or entry.get("content"))


def shown(entry: JsonObject, *, sealed: bool) -> JsonObject:
    """As a client sees it; ``sealed``: with its encrypted content, which it asked for."""
    return entry if sealed else {name: value for name, value in entry.items() if name != "encrypted_content"}


def texts_of(entry: JsonObject, name: str) -> list[str]:
    """The texts of its ``summary`` or ``content``; of a provider's sloppy ones what there is."""
    parts = entry.get(name)
    found = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return [text for text in found if isinstance(text, str)]


# ------------------------------------------------------------------------------------------------ output

Told = tuple[str, JsonObject]
"""An event's type after ``response.``, and what it says besides its place."""
_KINDS: Final = {
    True: ("summary_index", "reasoning_summary_part", "reasoning_summary_text", "summary_text"),
    False: ("content_index", "content_part", "reasoning_text", "reasoning_text"),
}
"""For a part of the summary, or of the thoughts themselves: its index, events of the part and of its text, its type."""


@dataclass(slots=True)
class Thinking:
    """A reasoning item while it is told. ``whole``: as it was finished; ``index``: its output index."""

    item_id: str
    index: int
    status: str = "in_progress"
    whole: JsonObject | None = None
    _texts: dict[bool, list[str]] = field(default_factory=lambda: {True: [], False: []})
    _open: tuple[bool, int] | None = None
    """Whether the part that is being told is of the summary, and the model's number of it."""

    def text(self, part: int, delta: str, *, is_summary: bool) -> list[Told]:
        told: list[Told] = []
        if self._open != (is_summary, part):
            told = [*self._end_part(), *self._begin_part(part, is_summary=is_summary)]
        self._texts[is_summary][-1] += delta
        name, _, kind, _ = _KINDS[is_summary]
        return [*told, (f"{kind}.delta", {name: len(self._texts[is_summary]) - 1, "delta": delta})]

    def done(self, whole: JsonObject) -> list[Told]:
        """Finish it; what of it was not told comes now."""
        told = self._end_part()
        for is_summary, name in ((True, "summary"), (False, "content")):
            for text in texts_of(whole, name)[len(self._texts[is_summary]) :]:
                told += self.text(-1, text, is_summary=is_summary)
                told += self._end_part()
        self.status, self.whole = "completed", whole
        return told

    def cut(self) -> list[Told]:
        """It ends here, unfinished."""
        told = self._end_part()
        self.status = "incomplete"
        return told

    def item(self, *, sealed: bool) -> JsonObject:
        if self.whole is not None:
            return shown({**self.whole, "id": self.item_id}, sealed=sealed)
        begun: JsonObject = {"id": self.item_id, "type": "reasoning", "summary": []}
        if self.status == "incomplete":
            begun["summary"] = _texts(self._texts[True], "summary_text")
            begun |= {"content": _texts(self._texts[False], "reasoning_text")} if self._texts[False] else {}
            begun["status"] = self.status
        return begun

    def _begin_part(self, part: int, *, is_summary: bool) -> list[Told]:
        self._open = (is_summary, part)
        self._texts[is_summary].append("")
        name, event, _, kind = _KINDS[is_summary]
        place = {name: len(self._texts[is_summary]) - 1}
        return [(f"{event}.added", {**place, "part": {"type": kind, "text": ""}})]

    def _end_part(self) -> list[Told]:
        if self._open is None:
            return []
        is_summary, self._open = self._open[0], None
        name, event, text_event, kind = _KINDS[is_summary]
        texts = self._texts[is_summary]
        place: JsonObject = {name: len(texts) - 1}
        return [
            (f"{text_event}.done", {**place, "text": texts[-1]}),
            (f"{event}.done", {**place, "part": {"type": kind, "text": texts[-1]}}),
        ]


def _texts(texts: Sequence[str], kind: str) -> list[JsonObject]:
    return [{"type": kind, "text": text} for text in texts]
