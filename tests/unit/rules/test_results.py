"""What a tool returned, in a sentence."""

from __future__ import annotations

import json

import pytest

from openline.core.model import Item
from openline.rules.match import load_rules
from openline.rules.results import Result, results_in, say_results
from openline.types import ItemId

BOOK = load_rules()


@pytest.mark.parametrize(
    ("name", "output", "said"),
    [
        ("get_stock", "12", "The stock is twelve."),
        ("stock", "12", "The stock is twelve."),
        ("order_part", "12", "That is twelve."),
        ("is_open", "true", "Done."),
        ("order_part", "false", "That did not work."),
        ("get_status", "true", "The status is yes."),
        ("x", "", "Done."),
        ("x", "null", "Done."),
        ("x", '"ok"', "Done."),
        ("x", "{}", "Done."),
        ("x", '{"ok": true}', "Done."),
        ("x", "[]", "I found nothing."),
        ("x", '["nut", "bolt"]', "I found two: nut and bolt."),
        ("x", '[{"name": "Ann", "age": 3}, {"id": 7}]', "I found two: Ann and seven."),
        ("x", json.dumps(list(range(30))), "I found thirty. The first are zero, one, two, three and four."),
        ("x", '{"message": "All is well"}', "All is well."),
        ("x", '{"price": 3.5, "inStock": false, "note": null}', "The price is three point five and in stock: no."),
        ("x", '{"address": {"street": "High Street", "number": 5}}', "The street is High Street and the number is five."),
        ("x", '{"sizes": ["s", "m"], "a": {"b": 1}}', "The sizes are s and m and the a is b one."),
        ("x", '{"error": "no such part"}', "That did not work: no such part."),
        ("x", '{"error": {"code": 5, "message": "Closed."}}', "That did not work: closed."),
        ("x", '{"errors": []}', "There are no errors."),
        ("x", '{"isError": true}', "That did not work."),
        ("x", "Error: timed out", "That did not work: timed out."),
        ("x", "## Title\n- **one** [two](http://x)\n- `three`", "Title one two three."),
        ("x", "Long. " * 200, ("Long. " * 66).strip()),
        ("x", "{broken", "{broken."),
    ],
)  # fmt: skip
def test_a_result_is_said(name: str, output: str, said: str) -> None:
    assert say_results(BOOK, [Result(name, "{}", output)]) == said


def test_results_of_one_tool_are_told_apart() -> None:
    results = [
        Result("get_stock", '{"part": "nut", "x": 1}', "1"),
        Result("get_stock", '{"part": "bolt", "x": 1}', "2"),
    ]
    assert say_results(BOOK, results) == "For nut: the stock is one. For bolt: the stock is two."
    same = [Result("get_stock", "{}", "1"), Result("get_stock", "not json", "2")]
    assert say_results(BOOK, same) == "The stock is one. The stock is two."


def test_server_tools_bring_their_own_result_or_error() -> None:
    items = [
        Item(ItemId("a"), "mcp_call", "tool", name="get_stock", output="5"),
        Item(ItemId("b"), "mcp_call", "tool", name="get_stock", error='{"message": "Server gone"}'),
        Item(ItemId("c"), "mcp_call", "tool", name="get_stock"),
        Item(ItemId("d"), "function_call_output", "tool", call_id="nobody", output="ok"),
    ]
    results = results_in(items, items)
    assert len(results) == 3, "a call that has not settled has no result"
    assert say_results(BOOK, results) == "The stock is five. That did not work: server gone. Done."
