"""What of a long conversation a language model is given."""

from __future__ import annotations

from openline.core.model import Item, Part
from openline.runtime.context import TOKENS_AN_IMAGE, TOKENS_AN_ITEM, tokens_of, within
from openline.types import ItemId


def said(number: int, characters: int = 64) -> Item:
    """An item of 20 tokens: sixteen of text and four of its own."""
    return Item(
        ItemId(f"i{number}"), "message", "user", "user", content=(Part("input_text", "x" * characters),)
    )


def ids(items: tuple[Item, ...]) -> list[str]:
    return [item.id for item in items]


def test_what_an_item_costs() -> None:
    assert tokens_of(said(1, 0)) == TOKENS_AN_ITEM
    assert tokens_of(said(1, 5)) == TOKENS_AN_ITEM + 2
    image = Item(ItemId("p"), "message", "user", "user", content=(Part("input_image", image_url="data:"),))
    assert tokens_of(image) == TOKENS_AN_ITEM + TOKENS_AN_IMAGE
    call = Item(ItemId("c"), "mcp_call", "assistant", name="four", arguments="{}  ", error="oops")
    assert tokens_of(call) == TOKENS_AN_ITEM + 3


def test_without_a_limit_all_of_it_is_given() -> None:
    items = [said(n) for n in range(100)]
    assert within(items, None, 0.0) == tuple(items)


def test_up_to_the_limit_nothing_is_cut() -> None:
    assert ids(within([said(n) for n in range(5)], 100, 0.5)) == ["i0", "i1", "i2", "i3", "i4"]


def test_past_the_limit_it_is_cut_to_the_share_that_is_kept() -> None:
    assert ids(within([said(n) for n in range(6)], 100, 0.5)) == ["i4", "i5"]
    assert ids(within([said(n) for n in range(6)], 100, 1.0)) == ["i1", "i2", "i3", "i4", "i5"]


def test_it_is_cut_seldom_and_always_in_the_same_place() -> None:
    """Between two cuts the beginning stays, and with it what a provider has cached."""
    items = [said(n) for n in range(40)]
    begins = [within(items[:count], 100, 0.5)[0].id for count in range(1, 41)]
    assert len(set(begins)) <= 40 / 3
    assert begins == sorted(begins, key=lambda name: int(name[1:]))


def test_the_last_item_stays_however_long_it_is() -> None:
    assert ids(within([said(1), said(2, 4_000)], 100, 0.5)) == ["i2"]
    assert ids(within([said(1), said(2)], 0, 0.0)) == ["i2"]


def test_an_output_goes_with_its_call() -> None:
    call = Item(ItemId("c"), "function_call", "assistant", call_id="call_1", name="f", arguments="x" * 60)
    output = Item(ItemId("o"), "function_call_output", "tool", call_id="call_1", output="x" * 64)
    items = [call, output, said(1), said(2)]
    assert ids(within(items, 200, 0.5)) == ["c", "o", "i1", "i2"]
    assert ids(within(items, 70, 0.9)) == ["i1", "i2"]
