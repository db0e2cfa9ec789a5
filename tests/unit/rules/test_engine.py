"""What the small model makes of a conversation that is not a plain exchange of turns."""

from __future__ import annotations

import json
from typing import Any

from openline.core.model import Item, Part, ToolSpec
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


def in_form(text: str, form: dict[str, Any], *more: Item, instructions: str = "") -> Any:
    """What is answered to ``text`` where JSON is asked for, read as JSON."""
    request = ModelRequest(
        SessionId("s"),
        ResponseId("r"),
        instructions,
        (item("user", text), *more),
        (),
        '"auto"',
        text_format=json.dumps(form),
    )
    return json.loads(ENGINE.decide(request).text)


def schema_of(**properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "json_schema", "name": "order", "schema": schema}


def test_a_form_is_filled_from_what_was_said() -> None:
    colours = {"type": "string", "enum": ["red", "light blue"]}
    form = schema_of(count={"type": "integer"}, colour=colours, urgent={"type": "boolean"})
    said = in_form("please order twelve in light blue, urgent", form)
    assert said == {"count": 12, "colour": "light blue", "urgent": True}


def test_where_an_answer_is_wanted_it_stands_in_the_form() -> None:
    form = schema_of(answer={"type": "string"}, language={"const": "en"})
    said = in_form("what is two plus two", form)
    assert (
        said["language"] == "en"
        and said["answer"]
        == ENGINE.decide(
            ModelRequest(
                SessionId("s"), ResponseId("r"), "", (item("user", "what is two plus two"),), (), '"auto"'
            )
        ).text
    )
    assert in_form("hello", {"type": "json_object"}).keys() == {"answer"}


def test_words_told_to_be_said_that_are_the_form_already_stay() -> None:
    form = schema_of(answer={"type": "string"})
    assert in_form("hi", form, instructions='Say exactly: {"answer": "yes"}') == {"answer": "yes"}
    other = in_form("hi", form, instructions='Say exactly: {"answer": 7}')
    assert other == {"answer": '{"answer": 7}'}, "what is not valid for the schema is words"


def test_a_call_is_a_call_whatever_form_the_words_have() -> None:
    tool = ToolSpec("get_stock", "", '{"type":"object","properties":{},"required":[]}')
    request = ModelRequest(
        SessionId("s"), ResponseId("r"), "", (item("user", "stock"),), (tool,), '"required"',
        text_format=json.dumps(schema_of(answer={"type": "string"})),
    )  # fmt: skip
    reply = ENGINE.decide(request)
    assert [call.name for call in reply.calls] == ["get_stock"] and not reply.text


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
