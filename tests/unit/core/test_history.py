"""The conversation's items: whatever is packed, what can be seen is the same."""

from __future__ import annotations

import random

import msgspec
import pytest

from openline.core import history
from openline.core.history import BLOCK_ITEMS, PLAIN_ITEMS, Context, Entry, History
from openline.core.model import AudioRange, Item, Part
from openline.core.value import replace
from openline.types import ItemId, TurnId

FULL = PLAIN_ITEMS + BLOCK_ITEMS


def said(number: int | str, text: str = "") -> Item:
    content = (Part("output_audio", text or f"words of {number}"),)
    return Item(ItemId(f"item_{number}"), "message", "assistant", "assistant", content=content)


def filled(count: int) -> History:
    known = History()
    for number in range(count):
        known.put(said(number), known.last_id())
    return known


def ids(known: History) -> list[str]:
    return [item_id.removeprefix("item_") for item_id in known]


def packed(known: History) -> int:
    return len(known) - len(known._plain)


# ------------------------------------------------------------------------------------------------ what is packed


def test_the_last_items_are_objects_and_the_older_ones_bytes() -> None:
    known = filled(FULL - 1)
    assert packed(known) == 0
    known.put(said("x"), known.last_id())
    assert packed(known) == BLOCK_ITEMS
    assert (PLAIN_ITEMS, BLOCK_ITEMS) == (8, 16)
    known = filled(1_000)
    assert PLAIN_ITEMS <= len(known._plain) < FULL
    assert len(known) == 1_000
    assert ids(known) == [str(number) for number in range(1_000)]


def test_a_packed_item_is_a_fraction_of_its_text_and_little_else() -> None:
    """What the whole is for: an object costs about a kilobyte."""
    dice = random.Random(4)
    words = [f"word{number}" for number in range(300)]
    known = History()
    for number in range(500):
        known.put(said(f"sess{number:08}", " ".join(dice.choices(words, k=30))), known.last_id())
    size = sum(block.packed.size for block in known._blocks.values())
    assert size < 180 * packed(known)


def test_packed_bytes_are_the_same_wherever_they_lie() -> None:
    class Elsewhere:
        def read(self, at: int, size: int) -> bytes:
            return (b"......" + data)[at : at + size]

    data = b"of a block"
    packed_bytes = history.Packed(data)
    assert (packed_bytes.read(), packed_bytes.size, packed_bytes.is_in_memory) == (data, len(data), True)
    packed_bytes.move(Elsewhere(), 6)
    assert (packed_bytes.read(), packed_bytes.size, packed_bytes.is_in_memory) == (data, len(data), False)


def test_what_could_lie_elsewhere_is_told_newest_first_back_to_what_does() -> None:
    class Elsewhere:
        def read(self, at: int, size: int) -> bytes:
            raise AssertionError("nobody asked for what is in it")

    known = filled(PLAIN_ITEMS + 3 * BLOCK_ITEMS)
    blocks = [block.packed for block in known._blocks.values()]
    assert list(known.in_memory()) == blocks[::-1]
    blocks[1].move(Elsewhere(), 0)
    assert list(known.in_memory()) == blocks[:1:-1]
    assert list(History().in_memory()) == []


def test_every_field_of_an_item_and_of_what_was_heard_comes_back() -> None:
    whole = Item(
        ItemId("item_all"), "mcp_call", "synthetic", "system", "incomplete",
        (
            Part("input_audio", None, AudioRange(24, 4_800, 16_000)),
            Part("input_image", "été \ud800", None, "data:image/png;base64,AA==", "high"),
        ),
        "call_1", "lookup", '{"part":"M8"}', "12", "none", "openline", 250, TurnId("turn_1"),
    )  # fmt: skip
    unset = {
        field.name for field in msgspec.structs.fields(Item) if getattr(whole, field.name) == field.default
    }
    assert not unset, "a field that is not set here is not tried"
    entry = Entry(whole, 3_000, 290, 12, "reported", 5_000_000_000)
    bare = Entry(Item(ItemId("item_bare"), "function_call", "assistant"))
    assert bare[1:] == (0, None, None, "", 0)
    found = history._unpacked(history._packed([entry, bare]))
    assert list(found.values()) == [entry, bare]
    assert isinstance(found[ItemId("item_all")].item.content, tuple)


# ------------------------------------------------------------------------------------------------------- reading


def test_an_item_is_found_wherever_it_is() -> None:
    known = filled(100)
    for number in (0, 15, 16, 50, 99):
        assert known[ItemId(f"item_{number}")].item == said(number)
        assert f"item_{number}" in known
    assert known.get(ItemId("item_100")) is None
    assert "item_100" not in known
    assert History().get(ItemId("item_0")) is None
    with pytest.raises(AssertionError, match="expected an item of the conversation, got 'item_100'"):
        known[ItemId("item_100")]


def test_ids_with_the_same_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "id_hash", lambda _name: 7 << history.SERIAL_BITS | 5)
    known = filled(60)
    for number in range(60):
        assert known[ItemId(f"item_{number}")].item == said(number)
    assert "item_60" not in known
    known.remove(ItemId("item_3"))
    known.remove(ItemId("item_20"))
    assert ids(known) == [str(number) for number in range(60) if number not in (3, 20)]
    assert "item_3" not in known and "item_4" in known and "item_21" in known


def test_two_ids_with_the_same_hash_in_two_blocks_are_both_found(monkeypatch: pytest.MonkeyPatch) -> None:
    alike, id_hash = {"item_0", "item_20"}, history.id_hash
    monkeypatch.setattr(history, "id_hash", lambda name: id_hash("alike" if name in alike else name))
    known = filled(60)
    assert known[ItemId("item_0")].item == said(0)
    assert known[ItemId("item_20")].item == said(20)


def test_the_item_before_another() -> None:
    known = filled(100)
    assert known.previous_of(ItemId("item_0")) is None
    for number in range(1, 100):
        assert known.previous_of(ItemId(f"item_{number}")) == f"item_{number - 1}"
    assert filled(1).previous_of(ItemId("item_0")) is None
    assert known.last_id() == "item_99"
    assert History().last_id() is None
    with pytest.raises(AssertionError, match="got 'item_100'"):
        known.previous_of(ItemId("item_100"))


def test_histories_are_equal_when_their_entries_are() -> None:
    assert filled(40) == filled(40)
    assert filled(40) != filled(41)
    assert filled(1) != [said(0)]
    longer = filled(41)
    longer.remove(ItemId("item_40"))
    assert longer == filled(40)


# ------------------------------------------------------------------------------------------------------ changing


def test_an_item_goes_where_it_is_put() -> None:
    known = filled(60)
    known.put(said("first"), None)
    known.put(said("before"), ItemId(""))
    known.put(said("packed"), ItemId("item_5"))
    known.put(said("plain"), ItemId("item_55"))
    known.put(said("last"), ItemId("item_59"))
    expected = [str(number) for number in range(60)]
    expected[56:56], expected[6:6] = ["plain"], ["packed"]
    assert ids(known) == ["before", "first", *expected, "last"]
    for name in ("first", "before", "packed", "plain", "last"):
        assert known[ItemId(f"item_{name}")].item == said(name)
    short = filled(3)
    short.put(said("first"), None)
    short.put(said("second"), ItemId("item_first"))
    assert ids(short) == ["first", "second", "0", "1", "2"]


@pytest.mark.parametrize("count", [3, 60])
def test_behind_an_item_that_is_not_there_nothing_goes(count: int) -> None:
    with pytest.raises(AssertionError, match="expected an item of the conversation, got 'item_x'"):
        filled(count).put(said("y"), ItemId("item_x"))


def test_a_block_that_grows_is_divided_and_stays_in_its_place() -> None:
    """A client may put thousands of items at one place: no block becomes as large as all of them."""
    known = filled(60)
    for number in range(90):
        known.put(said(f"n{number}"), ItemId("item_20"))
        sizes = [block.size for block in known._blocks.values()]
        assert len(sizes) == 3 + (number + 1) // (BLOCK_ITEMS + 1) and max(sizes) <= 2 * BLOCK_ITEMS
    for number in range(40):
        known.put(said(f"r{number}"), None)
    numbers = [str(number) for number in range(60)]
    expected = [*(f"r{n}" for n in reversed(range(40))), *numbers[:21]]
    expected += [*(f"n{n}" for n in reversed(range(90))), *numbers[21:]]
    assert ids(known) == expected
    assert len(known._index) == packed(known) == sum(block.size for block in known._blocks.values())
    for name in expected:
        assert known[ItemId(f"item_{name}")].item == said(name)


def test_what_is_known_of_an_item_changes_wherever_it_is() -> None:
    known = filled(60)
    for number in (2, 58):
        entry = known[ItemId(f"item_{number}")]._replace(heard_ms=300, source="paced")
        known.replace(entry)
        assert known[ItemId(f"item_{number}")] == entry
    assert ids(known) == [str(number) for number in range(60)]
    with pytest.raises(AssertionError, match="got 'item_x'"):
        known.replace(Entry(said("x")))


def test_removed_items_are_gone_and_their_ids_free() -> None:
    known = filled(60)
    for number in (0, 20, 59):
        known.remove(ItemId(f"item_{number}"))
        assert f"item_{number}" not in known
        assert len(known._index) == packed(known)
    assert known.last_id() == "item_58"
    known.put(said(20), ItemId("item_19"))
    assert ids(known) == [str(number) for number in range(1, 59)]
    with pytest.raises(AssertionError, match="got 'item_x'"):
        known.remove(ItemId("item_x"))


def test_all_items_can_be_removed_from_either_end() -> None:
    for order in (range(60), reversed(range(60))):
        known = filled(60)
        for left, number in zip(reversed(range(60)), order, strict=True):
            known.remove(ItemId(f"item_{number}"))
            assert len(known) == left
            assert bool(known._plain) == (left > 0), "the end of the conversation is at hand"
            assert len(known._index) == packed(known)
        assert known.last_id() is None
        known.put(said("new"), None)
        assert ids(known) == ["new"]


def test_a_block_that_is_empty_is_gone() -> None:
    known = filled(60)
    for number in range(BLOCK_ITEMS, 2 * BLOCK_ITEMS):
        known.remove(ItemId(f"item_{number}"))
    assert known.previous_of(ItemId(f"item_{2 * BLOCK_ITEMS}")) == f"item_{BLOCK_ITEMS - 1}"
    assert [block.size for block in known._blocks.values()] == [BLOCK_ITEMS] * 2


def test_another_clock_moves_the_time_of_what_was_heard() -> None:
    known = filled(60)
    known.replace(known[ItemId("item_1")]._replace(heard_ns=5))
    known.restart_clocks(900)
    assert {entry.heard_ns for entry in known.values()} == {900}
    known.replace(known[ItemId("item_1")]._replace(heard_ns=950))
    assert [known[ItemId(f"item_{number}")].heard_ns for number in (0, 1, 59)] == [900, 950, 900]


def test_any_sequence_of_changes_is_that_of_a_plain_list() -> None:
    """The model: a list of ids and a dictionary."""
    for seed in range(6):
        dice = random.Random(seed)
        known, order, entries = History(), list[str](), dict[str, Entry]()
        for number in range(150):
            deed = dice.random()
            if order and deed < 0.25:
                name = dice.choice(order)
                order.remove(name)
                del entries[name]
                known.remove(ItemId(name))
            elif order and deed < 0.35:
                name = dice.choice(order)
                entries[name] = entries[name]._replace(heard_ms=number, heard_ns=number)
                known.replace(entries[name])
            elif deed < 0.37:
                entries = {name: entry._replace(heard_ns=number) for name, entry in entries.items()}
                known.restart_clocks(number)
            else:
                previous = dice.choice([*order, None]) if dice.random() < 0.3 else known.last_id()
                item = said(number)
                order.insert(order.index(previous) + 1 if previous else 0, item.id)
                entries[item.id] = Entry(item)
                known.put(item, ItemId(previous) if previous else None)
            assert list(known) == order
            assert list(known.values()) == [entries[name] for name in order]
            if order:
                at = dice.randrange(len(order))
                before = order[at - 1] if at else None
                assert known.previous_of(ItemId(order[at])) == before
                assert known[ItemId(order[at])] == entries[order[at]]
            assert known.last_id() == (order[-1] if order else None)


# ------------------------------------------------------------------------------------------------------- context


def test_the_context_is_every_finished_item_as_heard_in_order() -> None:
    known = filled(60)
    known.replace(known[ItemId("item_2")]._replace(text_end=5, heard_ms=100))
    known.put(replace(said("open"), status="in_progress"), ItemId("item_4"))
    known.put(replace(said("cut"), status="incomplete"), ItemId("item_5"))
    known.put(Item(ItemId("item_call"), "function_call", "assistant", status="incomplete"), known.last_id())
    hint = said("hint")
    old = said("old")
    shown = known.context([ItemId("item_7"), ItemId("item_59")], (old,), (hint,))
    expected = [name for name in ids(known) if name not in ("7", "59", "open", "call")]
    assert [item.id for item in shown] == [f"item_{name}" for name in ("old", *expected, "hint")]
    assert [item.id for item in reversed(shown)] == [
        f"item_{name}" for name in reversed(("old", *expected, "hint"))
    ]
    assert shown[3].text == "words"
    assert len(shown) == 61


def test_a_context_stays_as_it_was() -> None:
    known = filled(60)
    before = known.context()
    known.remove(ItemId("item_0"))
    known.remove(ItemId("item_59"))
    known.put(said("new"), ItemId("item_30"))
    assert [item.id for item in before] == [f"item_{number}" for number in range(60)]
    assert before == filled(60).context()


def test_the_end_of_a_context_is_at_hand_and_the_rest_is_unpacked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A link that knows the conversation looks at its last item only; others read it again and again."""
    known, unpacked = filled(60), list[history.Block]()
    unpack = history._unpacked

    def counted(block: history.Block) -> history.Entries:
        unpacked.append(block)
        return unpack(block)

    monkeypatch.setattr(history, "_unpacked", counted)
    shown = known.context()
    at_hand = len(known._plain)
    assert shown[-1] == said(59) and shown[-at_hand] == said(60 - at_hand) and bool(shown)
    assert not unpacked
    assert shown[-at_hand - 1] == said(59 - at_hand)
    assert shown[0] == said(0) and shown[1:3] == (said(1), said(2)) and len(shown) == 60
    assert len(unpacked) == len(known._blocks)


def test_a_context_is_a_sequence_like_any_other() -> None:
    none = Context((), (), frozenset(), ())
    assert not none and len(none) == 0 and none == ()
    short = filled(3).context()
    assert short == (said(0), said(1), said(2)) and short != 3
    assert short != (said(0), said(1)) and short != (said(0), said(1), said("other"))
    assert list(reversed(short)) == [said(2), said(1), said(0)]
    assert short[0] == said(0)
    with pytest.raises(IndexError):
        short[3]
    hidden = filled(60)
    assert not hidden.context(list(hidden))
    assert hidden.context([item_id for item_id in hidden if item_id != "item_0"])
