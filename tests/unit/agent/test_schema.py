"""From a function's signature to its contract, and the refusal of contracts that cannot be kept."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from openline.agent.schema import FunctionSpec, function_spec
from openline.errors import ConfigError, ToolError


class ToolCall:
    """Stands for the runtime's own type."""


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Address:
    street: str
    number: int = 1


class Line(msgspec.Struct):
    part: str
    count: Annotated[int, msgspec.Meta(ge=1)] = 1


async def order(
    part: str,
    lines: list[Line],
    call: ToolCall,
    size: Size = Size.SMALL,
    colour: Literal["red", "green"] | None = None,
    to: Address | None = None,
    tags: list[str] = [],  # noqa: B006 - what people write
    limits: dict[str, float] | None = None,
    ratio: Annotated[float, msgspec.Meta(ge=0, le=1, description="its own words")] = 0.5,
    urgent: bool = False,
) -> str:
    """Order something
    from the supplier.

    More about it, which the model need not know.

    Args:
        part: What to order,
            by its name.
        size (Size): How large.
        ratio: not used
    """
    return part


SPEC = function_spec(order, injected={ToolCall})
SCHEMA = json.loads(SPEC.parameters)


def test_the_contract_of_a_function() -> None:
    assert (SPEC.name, SPEC.description, SPEC.is_async) == (
        "order",
        "Order something from the supplier.",
        True,
    )
    assert SPEC.injected == {"call": ToolCall}
    properties = SCHEMA["properties"]
    assert sorted(properties) == [
        "colour",
        "limits",
        "lines",
        "part",
        "ratio",
        "size",
        "tags",
        "to",
        "urgent",
    ]
    assert sorted(SCHEMA["required"]) == ["lines", "part"]
    assert properties["part"] == {"type": "string", "description": "What to order, by its name."}
    assert properties["size"]["default"] == "small" and properties["size"]["description"] == "How large."
    assert properties["ratio"]["description"] == "its own words"
    assert properties["tags"]["default"] == [] and properties["colour"]["default"] is None
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["$defs"]) == {"Line", "Address", "Size"}
    Draft202012Validator.check_schema(SCHEMA)


def test_bound_arguments_are_values_of_the_declared_types() -> None:
    text = (
        '{"part": "bolt", "lines": [{"part": "nut", "count": 2}], "size": "large", "to": {"street": "High"}}'
    )
    assert SPEC.bind(text) == {
        "part": "bolt", "lines": [Line("nut", 2)], "size": Size.LARGE, "to": Address("High"),
    }  # fmt: skip
    assert "tags" not in SPEC.bind(text), "left out: the function's own default applies"
    assert SPEC.bind('{"part": "", "lines": [], "colour": null}')["colour"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"lines": []}', "expected 'part', which is required; got none"),
        ('{"part": 5, "lines": []}', "part: expected str; got int"),
        ('{"part": "SECRET", "lines": [{"part": "x", "count": 0}]}', "lines[0].count: expected int >= 1"),
        ('{"part": "x", "lines": [], "size": "SECRET"}', "size: expected one of the values"),
        ('{"part": "x", "lines": [], "colour": "SECRET"}', "colour: expected one of the values"),
        ('{"part": "x", "lines": [], "SECRET": 1}', "expected only colour, limits"),
        (
            '{"part": "x", "lines": [], "to": {"street": "x", "number": "SECRET"}}',
            "to.number: expected int; got str",
        ),
        (
            '{"part": "x", "lines": [], "limits": {"SECRET": "SECRET"}}',
            "limits[...]: expected float; got str",
        ),
        ('{"part": "x", "lines": [], "ratio": 2}', "ratio: expected float <= 1.0"),
        ('{"part": "SECRET', "expected a JSON object; got text that is not JSON"),
        ("SECRET", "not JSON"),
        ("[1]", "arguments: expected object; got array"),
    ],
)
def test_wrong_arguments_are_named_by_place_and_never_by_value(text: str, says: str) -> None:
    with pytest.raises(ToolError) as caught:
        SPEC.bind(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("tool order: ") and caught.value.hint
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_function_without_parameters_takes_nothing_at_all() -> None:
    def ping() -> str:
        return "pong"

    spec = function_spec(ping, name="ping-2", description="Pings.")
    assert (spec.name, spec.description) == ("ping-2", "Pings.")
    assert spec.bind("") == spec.bind("{}") == spec.bind(b"") == {}
    with pytest.raises(ToolError, match="expected only no arguments"):
        spec.bind('{"a": 1}')


def test_methods_lose_their_self() -> None:
    class Shop:
        def stock(self, part: str) -> int:
            """Pieces in stock."""
            return 1

    assert json.loads(function_spec(Shop().stock).parameters)["required"] == ["part"]


def untyped(part) -> None: ...  # type: ignore[no-untyped-def]  # that is the point
def starred(*parts: str) -> None: ...
def keywords(**parts: str) -> None: ...
def positional(part: str, /) -> None: ...
def callback(part: str, then: Callable[[], None]) -> None: ...
def object_like(part: ToolCall) -> None: ...
def two_structs(what: Line | Address) -> None: ...
def unknown(part: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that is the point
def odd_default(part: Any = object()) -> None: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (untyped, "tool untyped: parameter 'part': expected a type annotation"),
        (starred, r"got \*parts"),
        (keywords, r"got \*\*parts"),
        (positional, "positional-only 'part'"),
        (callback, "parameter 'then': expected a type with a JSON form"),
        (object_like, "parameter 'part': expected a type with a JSON form; got ToolCall"),
        (two_structs, "parameter 'what'"),
        (unknown, "'Nowhere' is unknown"),
        (odd_default, "expected a default with a JSON form; got object"),
        (lambda: None, "tool name"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_named_when_it_is_declared(
    function: Callable[..., object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        function_spec(function)
    assert caught.value.hint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["part", "street", "count", "a"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(SCHEMA["properties"])), json_values, max_size=6))
def test_what_binds_is_what_the_schema_allows(arguments: dict[str, Any]) -> None:
    is_valid = Draft202012Validator(SCHEMA).is_valid(arguments)
    assert _binds(SPEC, arguments) == is_valid


def _binds(spec: FunctionSpec, arguments: dict[str, Any]) -> bool:
    try:
        spec.bind(json.dumps(arguments))
    except ToolError:
        return False
    return True
