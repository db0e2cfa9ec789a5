"""The items of a conversation in their order: the last few as objects, the older ones packed.

Hardly any step looks further back than the last few items, and a conversation of an hour has thousands: as
objects about a kilobyte each. So what is old lies in blocks of bytes, and an item of a block is unpacked when
somebody asks for it: a client, a reply that needs the whole context, a new link. What can be seen from outside
does not depend on what is packed, nor on whether the bytes lie in memory: whoever runs the session may move them
to a scratch file (``in_memory``, ``Packed.move``).

A block is read by the process that wrote it and by nobody else: marshal is enough, and the fastest there is.
"""

from __future__ import annotations

import marshal
import zlib
from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol, overload

from openline.core.idset import id_hash
from openline.core.model import AudioRange, Item, Part
from openline.core.value import replace
from openline.types import ItemId

PLAIN_ITEMS = 8
"""The last items, always objects: what a turn and its reply with a few tool calls touch again and again."""
BLOCK_ITEMS = 16
"""Items packed together. Smaller blocks pack worse (8: a fifth more bytes), larger ones leave more items plain."""
SERIAL_BITS = 24
"""Of an entry of the index; the other 40 are of the id's hash."""
SERIAL_MASK = (1 << SERIAL_BITS) - 1


class Entry(NamedTuple):  # no dataclass: one is made with every change
    """An item with what is known of its playout. ``text_end`` None: shown and heard whole."""

    item: Item
    audio_ms: int = 0
    heard_ms: int | None = None
    text_end: int | None = None
    source: str = ""
    heard_ns: int = 0

    def as_heard(self) -> Item:
        """The item as it counts for context, transcript and rehydration: cut to what was heard."""
        if self.text_end is None or not self.item.content:
            return self.item
        part = self.item.content[0]
        if part.text is None or self.text_end >= len(part.text):
            return self.item
        cut = replace(part, text=part.text[: self.text_end])
        return replace(self.item, content=(cut,), status="incomplete", heard_ms=self.heard_ms)


Entries = dict[ItemId, Entry]


class Scratch(Protocol):
    """Where packed bytes may lie instead of memory. As fast as memory mostly is: a step may read it."""

    def read(self, at: int, size: int) -> bytes:
        """All of [at, at + size). Raises OSError, which ends the step and has the session rebuilt from its log."""


class Packed:
    """The bytes of a block. They never change; where they lie may. Whoever holds one keeps them, and their file."""

    __slots__ = ("_at", "_data", "_scratch", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._scratch: Scratch | None = None
        self._at: int  # in the scratch file, once there is one
        self.size = len(data)

    @property
    def is_in_memory(self) -> bool:
        return self._scratch is None

    def read(self) -> bytes:
        return self._data if self._scratch is None else self._scratch.read(self._at, self.size)

    def move(self, scratch: Scratch, at: int) -> None:
        """They have been written to ``scratch``; memory forgets them."""
        self._scratch, self._at, self._data = scratch, at, b""


class Block(NamedTuple):
    """Consecutive entries. ``heard_ns``: takes the place of that of every entry in it, if it is not None."""

    packed: Packed
    size: int
    heard_ns: int | None = None


class History:
    """A conversation's entries by item id, iterated in the conversation's order. Entries are values: to change
    one, ``replace`` it."""

    __slots__ = ("_blocks", "_index", "_plain", "_serial")

    def __init__(self) -> None:
        self._plain: Entries = {}
        """The end of the conversation; empty only if all of it is."""
        self._blocks: dict[int, Block] = {}
        """By serial number, in the conversation's order."""
        self._index = array("Q")
        """Sorted: for each packed item the hash of its id, then the serial number of its block."""
        self._serial = 0

    # -- reading

    def __len__(self) -> int:
        return sum(block.size for block in self._blocks.values()) + len(self._plain)

    def __iter__(self) -> Iterator[ItemId]:
        return (entry.item.id for entry in self.values())

    def values(self) -> Iterator[Entry]:
        for block in self._blocks.values():
            yield from _unpacked(block).values()
        yield from self._plain.values()

    def __contains__(self, item_id: str) -> bool:
        return self.get(ItemId(item_id)) is not None

    def __getitem__(self, item_id: ItemId) -> Entry:
        entry = self.get(item_id)
        assert entry is not None, f"expected an item of the conversation, got '{item_id}'"
        return entry

    def get(self, item_id: ItemId) -> Entry | None:
        entry = self._plain.get(item_id)
        if entry is None and self._blocks:
            found = self._find(item_id)
            return found[1][item_id] if found is not None else None
        return entry

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and list(self.values()) == list(other.values())

    def last_id(self) -> ItemId | None:
        return next(reversed(self._plain), None)

    def previous_of(self, item_id: ItemId) -> ItemId | None:
        """The id of the item before it; None for the first."""
        if item_id in self._plain:
            ids, before = list(self._plain), list(self._blocks.values())
        else:
            serial, entries = self._where(item_id)
            ids, before = list(entries), list(self._blocks.values())[: list(self._blocks).index(serial)]
        place = ids.index(item_id)
        if place == 0:
            return next(reversed(_unpacked(before[-1]))) if before else None
        return ids[place - 1]

    def context(
        self, hidden: Iterable[ItemId] = (), before: tuple[Item, ...] = (), after: tuple[Item, ...] = ()
    ) -> Context:
        """The finished items as heard, without those that are ``hidden``, between ``before`` and ``after``."""
        without = frozenset(hidden)
        last = tuple(_shown(self._plain.values(), without))
        return Context(before, tuple(self._blocks.values()), without, last + after)

    def in_memory(self) -> Iterator[Packed]:
        """Packed bytes that could lie elsewhere, newest first, back to the first that do already: those of an old
        block that was changed since are few, and may stay."""
        for block in reversed(self._blocks.values()):
            if not block.packed.is_in_memory:
                return
            yield block.packed

    # -- changing

    def put(self, item: Item, previous: ItemId | None) -> None:
        """A new item behind ``previous``; None or "": before all others."""
        entry = Entry(item)
        if previous == self.last_id():
            self._plain[item.id] = entry
        elif previous in self._plain or not self._blocks:
            self._plain = _with(self._plain, entry, previous)
        else:
            serial, entries = self._where(previous) if previous else self._first()
            insort(self._index, _key(item.id, serial))
            self._rewrite(serial, _with(entries, entry, previous))
        if len(self._plain) >= PLAIN_ITEMS + BLOCK_ITEMS:
            self._pack_oldest()

    def replace(self, entry: Entry) -> None:
        """What is known of an item of the conversation has changed."""
        item_id = entry.item.id
        if item_id in self._plain:
            self._plain[item_id] = entry
        else:
            serial, entries = self._where(item_id)
            entries[item_id] = entry
            self._rewrite(serial, entries)

    def remove(self, item_id: ItemId) -> None:
        if item_id in self._plain:
            del self._plain[item_id]
            if not self._plain and self._blocks:
                serial, block = self._blocks.popitem()
                self._plain = _unpacked(block)
                self._unlist(self._plain, serial)
        else:
            serial, entries = self._where(item_id)
            del entries[item_id]
            self._unlist((item_id,), serial)
            self._rewrite(serial, entries)

    def restart_clocks(self, heard_ns: int) -> None:
        """The monotonic clock is another one now: whatever was heard counts as heard at this moment."""
        self._plain = {key: entry._replace(heard_ns=heard_ns) for key, entry in self._plain.items()}
        self._blocks = {key: block._replace(heard_ns=heard_ns) for key, block in self._blocks.items()}

    # -- blocks

    def _find(self, item_id: ItemId) -> tuple[int, Entries] | None:
        """The block that holds a packed item and what is in it."""
        index, first = self._index, _key(item_id, 0)
        at = bisect_left(index, first)
        while at < len(index) and index[at] <= first | SERIAL_MASK:
            serial = index[at] & SERIAL_MASK
            entries = _unpacked(self._blocks[serial])
            if item_id in entries:
                return serial, entries
            at += 1
        return None

    def _where(self, item_id: ItemId) -> tuple[int, Entries]:
        found = self._find(item_id)
        assert found is not None, f"expected an item of the conversation, got '{item_id}'"
        return found

    def _first(self) -> tuple[int, Entries]:
        serial, block = next(iter(self._blocks.items()))
        return serial, _unpacked(block)

    def _pack_oldest(self) -> None:
        entries = list(self._plain.values())
        self._add_block(entries[:BLOCK_ITEMS])
        self._plain = {entry.item.id: entry for entry in entries[BLOCK_ITEMS:]}

    def _add_block(self, entries: list[Entry]) -> None:
        self._serial += 1
        self._blocks[self._serial] = _packed(entries)
        for entry in entries:
            insort(self._index, _key(entry.item.id, self._serial))

    def _rewrite(self, serial: int, entries: Entries) -> None:
        """A block's content has changed; its ids are listed already. One that grew too large becomes two."""
        if not entries:
            del self._blocks[serial]
            return
        kept = list(entries.values())
        if len(kept) > 2 * BLOCK_ITEMS:
            kept, rest = kept[:BLOCK_ITEMS], kept[BLOCK_ITEMS:]
            self._unlist([entry.item.id for entry in rest], serial)
            self._add_block(rest)
            order = list(self._blocks)
            order.insert(order.index(serial) + 1, order.pop())
            self._blocks = {number: self._blocks[number] for number in order}
        self._blocks[serial] = _packed(kept)

    def _unlist(self, ids: Iterable[ItemId], serial: int) -> None:
        for item_id in ids:
            self._index.pop(bisect_left(self._index, _key(item_id, serial)))


class Context(Sequence[Item]):
    """The finished items of a conversation at one moment, as heard. Those that were packed are unpacked when
    somebody reads that far: a link that knows the conversation never does."""

    __slots__ = ("_blocks", "_first", "_hidden", "_last", "_whole")

    def __init__(
        self,
        first: tuple[Item, ...],
        blocks: tuple[Block, ...],
        hidden: frozenset[ItemId],
        last: tuple[Item, ...],
    ) -> None:
        self._first = first
        self._blocks = blocks
        self._hidden = hidden
        self._last = last
        self._whole: tuple[Item, ...] | None = None if blocks else first + last

    def _all(self) -> tuple[Item, ...]:
        if self._whole is None:
            found = [
                item for block in self._blocks for item in _shown(_unpacked(block).values(), self._hidden)
            ]
            self._whole = (*self._first, *found, *self._last)
        return self._whole

    def __bool__(self) -> bool:
        return bool(self._last or self._all())

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...

    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, int) and -len(self._last) <= index < 0:
            return self._last[index]
        return self._all()[index]

    def __iter__(self) -> Iterator[Item]:
        return iter(self._all())

    def __reversed__(self) -> Iterator[Item]:
        """Unpacks as far as it is read."""
        yield from reversed(self._last)
        for block in reversed(self._blocks):
            yield from reversed(list(_shown(_unpacked(block).values(), self._hidden)))
        yield from reversed(self._first)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)


def _shown(entries: Iterable[Entry], hidden: frozenset[ItemId]) -> Iterator[Item]:
    """Finished items as heard. A call that was cut is none."""
    for entry in entries:
        item = entry.as_heard()
        is_finished = item.status == "completed" or (item.type == "message" and item.status == "incomplete")
        if is_finished and item.id not in hidden:
            yield item


def _with(entries: Entries, entry: Entry, previous: ItemId | None) -> Entries:
    """``entries`` with one more behind ``previous``, or before all."""
    found: Entries = {} if previous else {entry.item.id: entry}
    for key, known in entries.items():
        found[key] = known
        if key == previous:
            found[entry.item.id] = entry
    assert entry.item.id in found, f"expected an item of the conversation, got '{previous}'"
    return found


# --------------------------------------------------------------------------------------------- the packed form

_ITEM = Item.__struct_fields__
_CONTENT = _ITEM.index("content")
_PART = Part.__struct_fields__
_AUDIO = _PART.index("audio")
_of_item, _of_part = attrgetter(*_ITEM), attrgetter(*_PART)
_of_audio = attrgetter(*AudioRange.__struct_fields__)
WINDOW_BITS, MEMORY_LEVEL = 12, 5
"""zlib's: 4 KiB are as much as a block has, and 32 KiB of working memory do not go to the system and back."""


def _packed(entries: list[Entry]) -> Block:
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -WINDOW_BITS, MEMORY_LEVEL)
    packed = squeeze.compress(marshal.dumps([_row(entry) for entry in entries])) + squeeze.flush()
    return Block(Packed(packed), len(entries))


def _row(entry: Entry) -> tuple[object, ...]:
    values = list(_of_item(entry.item))
    values[_CONTENT] = [_part_row(part) for part in entry.item.content]
    return (values, *entry[1:])


def _part_row(part: Part) -> list[object]:
    values = list(_of_part(part))
    if part.audio is not None:
        values[_AUDIO] = _of_audio(part.audio)
    return values


def _unpacked(block: Block) -> Entries:
    found: Entries = {}
    for values, *rest in marshal.loads(zlib.decompress(block.packed.read(), -WINDOW_BITS)):
        values[_CONTENT] = tuple([_part(part) for part in values[_CONTENT]])
        item = Item(*values)
        if block.heard_ns is not None:
            rest[-1] = block.heard_ns
        found[item.id] = Entry(item, *rest)
    return found


def _part(values: list[object]) -> Part:
    audio = values[_AUDIO]
    if isinstance(audio, tuple):
        values[_AUDIO] = AudioRange(*audio)
    return Part(*values)  # type: ignore[arg-type]  # what _part_row wrote


def _key(item_id: ItemId, serial: int) -> int:
    return id_hash(item_id) & ~SERIAL_MASK | serial
