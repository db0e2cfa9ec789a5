"""For any valid schema of a family of tools, the arguments of a call validate: forced ones, and those that
were taken from what was said. Judged by ``jsonschema``, which is no part of Openline."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from openline.core.model import Item, Part, ToolSpec
from openline.core.value import replace
from openline.ports import ModelRequest
from openline.rules.engine import Reply, RuleEngine
from openline.rules.match import load_rules
from openline.rules.schema import accepts
from openline.types import ItemId, ResponseId, SessionId

ENGINE = RuleEngine(load_rules())
NAMES = [
    "city",
    "count",
    "part",
    "text",
    "seconds",
    "urgent",
    "expression",
    "date",
    "startTime",
    "items",
    "x",
    "color_name",
]
names = st.sampled_from(NAMES)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-50, 50), st.sampled_from(["red", "light blue", "paris", "", "7"])
)


@st.composite
def strings(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(st.integers(0, 12))
    extra = draw(st.fixed_dictionaries({}, optional={
        "minLength": st.just(low), "maxLength": st.integers(low, 20), "description": st.just("in minutes"),
    }))  # fmt: skip
    return {"type": "string", **extra}


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    low = draw(st.integers(-30, 30))
    high = low + draw(st.integers(3, 60))
    keys = draw(st.sampled_from([
        (), ("minimum",), ("maximum",), ("minimum", "maximum"), ("exclusiveMinimum", "maximum"),
        ("minimum", "exclusiveMaximum"), ("multipleOf",), ("minimum", "multipleOf"),
    ]))  # fmt: skip
    values = {
        "minimum": low,
        "maximum": high,
        "exclusiveMinimum": low,
        "exclusiveMaximum": high,
        "multipleOf": 3,
    }
    return {"type": kind, **{key: values[key] for key in keys}}


enums = st.lists(scalars, min_size=1, max_size=4).map(lambda options: {"enum": options})
constants = scalars.map(lambda value: {"const": value})
references = st.sampled_from(["Color", "Spot", "Chain"]).map(lambda name: {"$ref": f"#/$defs/{name}"})
DEFS = {
    "Color": {"enum": ["red", "green", "light blue"]},
    "Spot": {"type": "object", "properties": {"x": {"type": "integer"}, "label": {"$ref": "#/$defs/Color"}}, "required": ["x", "label"],
             "additionalProperties": False},
    "Chain": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Chain"}, {"type": "null"}]}}, "required": ["next"]},
}  # fmt: skip
leaves = st.one_of(strings(), numbers(), enums, constants, references, st.just({"type": "boolean"}))


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    low = draw(st.integers(0, 3))
    extra = draw(
        st.fixed_dictionaries({}, optional={"minItems": st.just(low), "maxItems": st.integers(low, 5)})
    )
    return {"type": "array", "items": draw(inner), **extra}


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(names, inner, max_size=4))
    required = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    extra = draw(st.sampled_from([{}, {"additionalProperties": False}]))
    return {"type": "object", "properties": properties, "required": required, **extra}


def unions(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    branches = st.lists(inner, min_size=1, max_size=3)
    nullable = inner.map(lambda schema: {"anyOf": [schema, {"type": "null"}]})
    # Alternatives of one type could overlap, and a oneOf that nothing satisfies is no valid schema.
    apart = st.tuples(strings(), numbers()).map(lambda pair: {"oneOf": list(pair)})
    listed = st.just({"type": ["string", "null"]})
    return st.one_of(branches.map(lambda parts: {"anyOf": parts}), nullable, apart, listed)


schemas = st.recursive(
    leaves, lambda inner: st.one_of(arrays(inner), objects(inner), unions(inner)), max_leaves=6
)
tools = objects(schemas).map(lambda schema: {**schema, "$defs": DEFS})
sentences = st.one_of(
    st.sampled_from([
        "", "run it", "run the probe in paris with count five and color name red not urgent",
        'run probe "hello there" 12 light blue for ten minutes', "seven", "probe minus three point five",
        "run probe x 7 part hinge text buy milk and eggs tomorrow at 14:05", "red, green and light blue",
    ]),
    st.lists(st.sampled_from(["run", "probe", *NAMES, "five", "12", "and", "red", "not", "in", "the", "minutes", '"a b"', "-7"]),
             max_size=12).map(" ".join),
)  # fmt: skip


def reply_to(schema: dict[str, Any], text: str, choice: str) -> Reply:
    item = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_text", text),))
    tool = ToolSpec("run_probe", "Runs a probe.", json.dumps(schema))
    request = ModelRequest(SessionId("sess_p"), ResponseId("resp_p"), "", (item,), (tool,), choice)
    return ENGINE.decide(request)


def assert_valid(schema: dict[str, Any], reply: Reply) -> None:
    judge = Draft202012Validator(schema)
    for call in reply.calls:
        errors = [error.message for error in judge.iter_errors(json.loads(call.arguments))]
        assert not errors, f"{call.arguments}: {errors}"


@settings(max_examples=120)
@given(tools, sentences, st.sampled_from(['"required"', '{"type": "function", "name": "run_probe"}']))
@example({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 2}},
          "required": ["a"]}, "", '"required"')  # fmt: skip
@example(
    {"type": "object", "allOf": [{"properties": {"a": {"const": 1}}}], "required": ["a"]},
    "hello",
    '"required"',
)
@example(
    {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[A-Z]{2}$"}}, "required": ["a"]},
    "x",
    '"required"',
)
def test_forced_calls_are_always_valid(schema: dict[str, Any], text: str, choice: str) -> None:
    reply = reply_to(schema, text, choice)
    assert reply.calls, "a forced tool choice gives a call"
    assert_valid(schema, reply)


@settings(max_examples=120)
@given(tools, sentences)
def test_what_is_taken_from_speech_is_valid(schema: dict[str, Any], text: str) -> None:
    assume(text)
    assert_valid(schema, reply_to(schema, text, '"auto"'))


@settings(max_examples=120)
@given(tools, sentences)
def test_json_that_is_asked_for_is_valid(schema: dict[str, Any], text: str) -> None:
    item = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_text", text),))
    form = json.dumps({"type": "json_schema", "name": "probe", "schema": schema})
    request = ModelRequest(SessionId("s"), ResponseId("r"), "", (item,), (), '"auto"', text_format=form)
    said = json.loads(ENGINE.decide(request).text)
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(said)]
    assert not errors, f"{said}: {errors}"


@settings(max_examples=120)
@given(
    tools,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=5,
    ),
)
def test_our_judgement_is_that_of_jsonschema(schema: dict[str, Any], value: Any) -> None:
    for part in (schema, *schema["properties"].values()):
        judge = Draft202012Validator({**part, "$defs": DEFS})
        assert accepts({**part, "$defs": DEFS}, value, schema) == judge.is_valid(value)


@settings(max_examples=100)
@given(
    st.text(max_size=80),
    st.sampled_from(['"auto"', '"none"', '"required"', "nonsense", "{}", "[1]"]),
    st.text(max_size=30),
)
def test_no_text_breaks_it(text: str, choice: str, parameters: str) -> None:
    tool = ToolSpec("run_probe", text, parameters)
    item = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_text", text),))
    request = ModelRequest(SessionId("s"), ResponseId("r"), text, (item,), (tool,), choice)
    reply = ENGINE.decide(request)
    assert reply.text or reply.calls, "there is always an answer"
    assert ENGINE.decide(request) == reply, "and always the same"
    told = Item(ItemId("item_2"), "function_call_output", "tool", call_id="c", output=text)
    assert ENGINE.decide(replace(request, items=(item, told), tool_choice='"auto"')).text
