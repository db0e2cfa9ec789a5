"""Values for schemas where a generator would seldom look."""

from __future__ import annotations

import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from openline.rules.schema import accepts, minimal


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 3},
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 30},
        {"type": "array", "prefixItems": [{"const": "a"}, {"type": "integer"}], "minItems": 2},
        {"type": "string", "pattern": "^[A-Z]{2}[0-9]{2}$"},
        {"type": "string", "format": "date-time"},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "multipleOf": 0.25, "minimum": 0.3},
        {"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 100}]},
        {"oneOf": [{"required": ["a"], "type": "object"}, {"required": ["b"], "type": "object"}]},
        {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"minLength": 2, "type": "string"}}}]},
        {"not": {"type": "string"}},
        {"type": "object", "minProperties": 2, "properties": {"a": {"const": 1}, "b": {"const": 2}}},
        {"type": ["null", "integer"], "minimum": 4},
        {"type": "object", "required": ["free"]},
        {"const": {"a": [1, True, None]}},
        {},
    ],
)  # fmt: skip
def test_a_minimal_value_is_valid(schema: dict[str, Any]) -> None:
    value = minimal(schema, schema)
    assert Draft202012Validator(schema).is_valid(value)
    assert accepts(schema, value, schema)


def test_a_chain_ends_as_soon_as_it_may() -> None:
    schema: Any = {"type": "object", "required": ["next"], "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}  # fmt: skip
    assert minimal(schema, schema) == {"next": None}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "required": ["l", "r"], "properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]},
        {"$ref": "#"},
        {"$ref": "#/nowhere/at~1all"},
    ],
)
def test_a_hostile_schema_takes_bounded_time(schema: Any) -> None:
    """Every level of these doubles the work; without a bound they take for ever."""
    begun = time.process_time()
    minimal(schema, schema)
    assert time.process_time() - begun < 2


def test_true_is_not_one() -> None:
    assert not accepts({"const": 1}, True, {})
    assert accepts({"const": 1}, 1.0, {})
    assert not accepts({"type": "integer"}, True, {})
    assert not accepts(False, 1, {})
