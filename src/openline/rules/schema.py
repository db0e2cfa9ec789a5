"""JSON Schema, as much of it as tools use: what a value may be, and a small value that it may be.

Not a validator for the world: it knows types, enum, const, number and length limits, pattern, arrays,
objects, anyOf, oneOf, allOf, not and local ``$ref``. Unknown keywords are ignored, as the standard says.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
Schema: TypeAlias = "dict[str, Json]"

MAX_DEPTH = 16
"""Nesting that is followed; deeper schemas (endless recursion by ``$ref``) count as unrestricted."""
_MAX_TRIES = 400
"""Candidates tried for one value: enough for arrays of some hundred distinct members."""
_MAX_STEPS = 5_000
"""Schema nodes visited for one question: some 20 ms of Python; real tools need fewer than a hundred."""
_COMBINERS = ("anyOf", "oneOf", "allOf")


def parse_schema(text: str) -> Schema:
    """The schema as an object; what is no JSON object counts as "an object with no properties"."""
    try:
        found: Json = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"type": "object", "properties": {}}


def as_object(value: Json) -> Schema:
    return value if isinstance(value, dict) else {}


def as_list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def resolve(schema: Json, root: Schema) -> Schema:
    """Follow local ``$ref`` and fold ``allOf`` in. ``true`` and unknown references are unrestricted."""
    found = as_object(schema)
    for _ in range(MAX_DEPTH):
        reference = found.get("$ref")
        if not isinstance(reference, str):
            break
        rest = {key: value for key, value in found.items() if key != "$ref"}
        found = merge(_pointed(reference, root), rest)
    for part in as_list(found.get("allOf")):
        found = merge(
            {key: value for key, value in found.items() if key != "allOf"}, resolve_shallow(part, root)
        )
    return found


def resolve_shallow(schema: Json, root: Schema) -> Schema:
    found = as_object(schema)
    reference = found.get("$ref")
    return _pointed(reference, root) if isinstance(reference, str) else found


def _pointed(reference: str, root: Schema) -> Schema:
    found: Json = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            found = as_object(found).get(step.replace("~1", "/").replace("~0", "~"))
    return as_object(found)


def merge(one: Schema, other: Schema) -> Schema:
    """Both at once: properties and required are joined, for the rest ``other`` wins."""
    joined: Schema = {**one, **other}
    if "properties" in one and "properties" in other:
        joined["properties"] = {**as_object(one["properties"]), **as_object(other["properties"])}
    if "required" in one and "required" in other:
        joined["required"] = list(
            dict.fromkeys(map(str, as_list(one["required"]) + as_list(other["required"])))
        )
    return joined


def types_of(schema: Mapping[str, Json]) -> list[str]:
    """The types it allows; guessed from its keywords when it names none; [] = any."""
    named = schema.get("type")
    if isinstance(named, str):
        return [named]
    if isinstance(named, list):
        return [name for name in named if isinstance(name, str)]
    if "properties" in schema or "required" in schema:
        return ["object"]
    if "items" in schema or "minItems" in schema:
        return ["array"]
    if "minimum" in schema or "maximum" in schema or "multipleOf" in schema:
        return ["number"]
    return ["string"] if "minLength" in schema or "pattern" in schema else []


# ------------------------------------------------------------------------------------------------ accepts


class _Search:
    """One question about one schema, with the work that may still go into it.

    A client declares tools, so a schema can be hostile: references that multiply at every level would
    otherwise take for ever. Out of steps means: accepted, and no more candidates.
    """

    __slots__ = ("root", "steps")

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.steps = _MAX_STEPS

    def is_over(self, depth: int) -> bool:
        self.steps -= 1
        return self.steps < 0 or depth > MAX_DEPTH


def accepts(schema: Json, value: Json, root: Schema) -> bool:
    """True if ``value`` is valid for ``schema`` (its ``$ref`` point into ``root``)."""
    return _accepts(schema, value, _Search(root), 0)


def _accepts(schema: Json, value: Json, root: _Search, depth: int) -> bool:
    if isinstance(schema, bool):
        return schema
    found = as_object(schema)
    if not found or root.is_over(depth):
        return True
    reference = found.get("$ref")
    if isinstance(reference, str) and not _accepts(_pointed(reference, root.root), value, root, depth + 1):
        return False
    return (
        _accepts_type(found, value)
        and _accepts_fixed(found, value)
        and _accepts_combined(found, value, root, depth + 1)
        and _accepts_number(found, value)
        and _accepts_text(found, value)
        and _accepts_array(found, value, root, depth + 1)
        and _accepts_object(found, value, root, depth + 1)
    )


def same(one: Json, other: Json) -> bool:
    """JSON equality: true is not 1, 1.0 is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) in (int, float) and type(other) in (int, float) and one == other or (
        type(one) is type(other) and one == other
    )  # fmt: skip


def _is_a(value: Json, name: str) -> bool:
    match name:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "integer":
            is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return is_whole and not isinstance(value, bool)
    return True


def _accepts_type(schema: Schema, value: Json) -> bool:
    return "type" not in schema or any(_is_a(value, name) for name in types_of(schema))


def _accepts_fixed(schema: Schema, value: Json) -> bool:
    if "const" in schema and not same(schema["const"], value):
        return False
    return "enum" not in schema or any(same(option, value) for option in as_list(schema["enum"]))


def _accepts_combined(schema: Schema, value: Json, root: _Search, depth: int) -> bool:
    def hits(key: str) -> int:
        return sum(_accepts(part, value, root, depth) for part in as_list(schema.get(key)))

    if "anyOf" in schema and hits("anyOf") == 0:
        return False
    if "oneOf" in schema and hits("oneOf") != 1:
        return False
    if "allOf" in schema and hits("allOf") != len(as_list(schema["allOf"])):
        return False
    return "not" not in schema or not _accepts(schema["not"], value, root, depth)


def limit(schema: Mapping[str, Json], key: str) -> float | None:
    """The number at ``key`` or None. Draft 4's boolean ``exclusiveMinimum`` is no number and is ignored."""
    found = schema.get(key)
    return None if isinstance(found, bool) or not isinstance(found, int | float) else found


def _accepts_number(schema: Schema, value: Json) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    low, high = limit(schema, "minimum"), limit(schema, "maximum")
    above, below = limit(schema, "exclusiveMinimum"), limit(schema, "exclusiveMaximum")
    step = limit(schema, "multipleOf")
    if step:
        ratio = value / step
        if not math.isfinite(ratio) or ratio != int(ratio):
            return False
    return (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def _within(size: int, schema: Schema, least: str, most: str) -> bool:
    low, high = limit(schema, least), limit(schema, most)
    return (low is None or size >= low) and (high is None or size <= high)


def _accepts_text(schema: Schema, value: Json) -> bool:
    if not isinstance(value, str):
        return True
    if not _within(len(value), schema, "minLength", "maxLength"):
        return False
    pattern = schema.get("pattern")
    if not isinstance(pattern, str):
        return True
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True  # an ECMA pattern that Python cannot read; the tool itself will judge


def _accepts_array(schema: Schema, value: Json, root: _Search, depth: int) -> bool:
    if not isinstance(value, list):
        return True
    if not _within(len(value), schema, "minItems", "maxItems"):
        return False
    if schema.get("uniqueItems") is True and not _is_unique(value):
        return False
    first = as_list(schema.get("prefixItems"))
    if not all(_accepts(part, member, root, depth) for part, member in zip(first, value, strict=False)):
        return False
    rest: Json = schema.get("items", True)
    return isinstance(rest, list) or all(
        _accepts(rest, member, root, depth) for member in value[len(first) :]
    )


def _is_unique(members: list[Json]) -> bool:
    return not any(same(a, b) for a, b in itertools.combinations(members, 2))


def _accepts_object(schema: Schema, value: Json, root: _Search, depth: int) -> bool:
    if not isinstance(value, dict):
        return True
    if not _within(len(value), schema, "minProperties", "maxProperties"):
        return False
    if not all(str(name) in value for name in as_list(schema.get("required"))):
        return False
    properties = as_object(schema.get("properties"))
    other: Json = schema.get("additionalProperties", True)
    return all(_accepts(properties.get(name, other), member, root, depth) for name, member in value.items())


# ------------------------------------------------------------------------------------------------ minimal


def minimal(schema: Json, root: Schema) -> Json:
    """A small value that ``schema`` accepts: the first of its candidates that passes ``accepts``.

    For a schema that nothing satisfies (or that is beyond what is known here) the first candidate.
    """
    candidates = itertools.islice(_examples(schema, _Search(root), 0), _MAX_TRIES)
    first = next(candidates, None)
    if accepts(schema, first, root):
        return first
    return next((value for value in candidates if accepts(schema, value, root)), first)


def _examples(schema: Json, root: _Search, depth: int) -> Iterator[Json]:
    """Candidates for ``schema``, likely ones first. Not all of them are accepted."""
    found = resolve(schema, root.root)
    if root.is_over(depth):
        return
    if "const" in found:
        yield found["const"]
        return
    if "default" in found:
        yield found["default"]
    if "enum" in found:
        yield from as_list(found["enum"])
        return
    branches = [part for key in _COMBINERS for part in as_list(found.get(key))]
    if branches:
        base = {key: value for key, value in found.items() if key not in _COMBINERS}
        parts = sorted((merge(base, resolve(part, root.root)) for part in branches), key=_effort)
        yield from _in_turn([_examples(part, root, depth + 1) for part in parts])
        return
    names = types_of(found) or ["string", "number", "boolean", "array", "object", "null"]
    names = sorted(names, key=lambda name: name == "null")
    yield from _in_turn([_of_type(name, found, root, depth) for name in names])


def _in_turn(streams: list[Iterator[Json]]) -> Iterator[Json]:
    """The first of each, then the second of each …: a oneOf may need the second branch's first value.

    Lazy: a branch that refers to its own parent is not entered while an easier one will do.
    """
    while streams:
        for stream in list(streams):
            try:
                yield next(stream)
            except StopIteration:
                streams.remove(stream)


def _effort(schema: Schema) -> int:
    """Simple values first, then null, then what nests."""
    names = types_of(schema)
    if "const" in schema or "enum" in schema:
        return 0
    order = {"string": 0, "integer": 0, "number": 0, "boolean": 0, "null": 1, "array": 2, "object": 3}
    return min((order.get(name, 3) for name in names), default=3)


def _of_type(name: str, schema: Schema, root: _Search, depth: int) -> Iterator[Json]:
    match name:
        case "null":
            yield None
        case "boolean":
            yield from (False, True)
        case "integer" | "number":
            yield from _numbers(schema, is_whole=name == "integer")
        case "string":
            yield from _texts(schema)
        case "array":
            yield from _arrays(schema, root, depth + 1)
        case "object":
            yield from _objects(schema, root, depth + 1)


def _numbers(schema: Schema, *, is_whole: bool) -> Iterator[Json]:
    low, above = limit(schema, "minimum"), limit(schema, "exclusiveMinimum")
    high, below = limit(schema, "maximum"), limit(schema, "exclusiveMaximum")
    bounds = [bound for bound in (low, above) if bound is not None]
    tops = [bound for bound in (high, below) if bound is not None]
    step = limit(schema, "multipleOf") or 1
    start = max(bounds) if bounds else min([0.0, *tops])
    first = math.ceil(start / step)
    yield _whole(first * step)
    if not is_whole and "multipleOf" not in schema:
        top = min(tops) if tops else start + 1
        yield from (start, (start + top) / 2, top)
    for index in range(1, _MAX_TRIES):
        yield _whole((first + index) * step)
        if not bounds and index < 40:
            yield _whole((first - index) * step)


def _whole(value: float) -> Json:
    return int(value) if value == int(value) else value


_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01", "time": "00:00:00Z", "email": "a@example.com",
    "uri": "https://example.com/", "url": "https://example.com/", "hostname": "example.com", "ipv4": "127.0.0.1",
    "ipv6": "::1", "uuid": "00000000-0000-4000-8000-000000000000", "duration": "PT1S",
}  # fmt: skip
_PATTERN_TRIES = (
    "",
    "0",
    "1",
    "12",
    "123",
    "1234",
    "A",
    "AB",
    "ABC",
    "abc",
    "A1",
    "a1",
    "AB12",
    "00:00",
    "a-1",
    "A-1",
)


def _texts(schema: Schema) -> Iterator[Json]:
    known = _FORMATS.get(str(schema.get("format", "")))
    if known is not None:
        yield known
    if "pattern" in schema:
        yield from _PATTERN_TRIES
    least = int(limit(schema, "minLength") or 0)
    yield "a" * max(least, 0)
    for index in range(_MAX_TRIES):
        yield ("a" * least + str(index))[-least:] if least else str(index)


def _arrays(schema: Schema, root: _Search, depth: int) -> Iterator[Json]:
    least = int(limit(schema, "minItems") or 0)
    fixed = [_nested(part, root, depth) for part in as_list(schema.get("prefixItems"))]
    members: list[Json] = list(fixed[:least]) if least else []
    item: Json = schema.get("items", True)
    is_unique = schema.get("uniqueItems") is True
    if not is_unique and len(members) < least:
        members += [_nested(item, root, depth)] * (least - len(members))
    elif len(members) < least:
        for value in itertools.islice(_examples(item, root, depth), _MAX_TRIES):
            if (
                len(members) < least
                and accepts(item, value, root.root)
                and not any(same(value, m) for m in members)
            ):
                members.append(value)
    yield members
    for value in itertools.islice(_examples(item, root, depth), 4):
        yield [*members, value]


def _objects(schema: Schema, root: _Search, depth: int) -> Iterator[Json]:
    properties = as_object(schema.get("properties"))
    other: Json = schema.get("additionalProperties", True)
    made: dict[str, Json] = {}
    for name in map(str, as_list(schema.get("required"))):
        made[name] = _nested(properties.get(name, other), root, depth)
    yield made
    more = dict(made)
    for name in [key for key in properties if key not in made]:
        more[name] = _nested(properties[name], root, depth)
        yield dict(more)


def _nested(schema: Json, root: _Search, depth: int) -> Json:
    candidates = itertools.islice(_examples(schema, root, depth), _MAX_TRIES)
    return next((value for value in candidates if accepts(schema, value, root.root)), None)
