"""What the small model makes of a conversation that is not a plain exchange of turns."""

from __future__ import annotations

from openline.core.model import Item, Part
from openline.ports import ModelRequest
from openline.rules.engine import RuleEngine
from openline.rules.match import load_rules
from openline.types import ItemId, ResponseId, SessionId

ENGINE = RuleEngine(load_rules())


def item(kind: str, text: str = "", **fields: str) -> Item:
    if kind in ("user", "assistant"):
        return Item(ItemId(""), "message", kind, kind, content=(Part("output_text", text),))  # type: ignore[arg-type]  # one of two
    return Item(ItemId(""), kind, "tool", **fields)  # type: ignore[arg-type]  # a kind of item and its fields


CALLS = [
    item("user", "stock and price of bolts"),
    item("function_call", call_id="c1", name="get_stock"),
    item("function_call", call_id="c2", name="get_price"),
]
STOCK = item("function_call_output", call_id="c1", output="17")
PRICE = item("function_call_output", call_id="c2", output="9")


def reply(*items: Item) -> str:
    request = ModelRequest(
        SessionId("s"), ResponseId("r"), "", (*CALLS, *items), (), '"auto"', True, None, ""
    )
    return ENGINE.decide(request).text


def test_a_result_that_came_while_the_other_was_told_is_told_next() -> None:
    assert reply(STOCK) == "The stock is seventeen."
    # The price came before that reply was said, and after it was made: the SDKs ask again.
    told = item("assistant", "The stock is seventeen.")
    assert reply(STOCK, PRICE, told) == "The price is nine."


def test_what_was_told_is_not_told_again() -> None:
    told = item("assistant", "The stock is seventeen. The price is nine.")
    idle = reply(STOCK, PRICE, told)
    assert "seventeen" not in idle and "nine" not in idle


def test_a_result_that_was_cut_off_is_told_again_when_a_reply_is_asked_for() -> None:
    assert reply(STOCK, PRICE, item("assistant", "The stock is seventeen. The")) == "The price is nine."
