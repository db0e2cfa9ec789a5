"""What a tool wants to know: its schema as a flat list of places to fill, and the questions for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from openline.rules.match import KindRow, RuleBook
from openline.rules.schema import (
    Json,
    Schema,
    accepts,
    as_list,
    as_object,
    merge,
    minimal,
    resolve,
    types_of,
)
from openline.rules.words import name_words, say_list, stem

Path = tuple[str, ...]
_MAX_NESTING = 4
"""Objects inside objects that are filled from speech; deeper ones get a minimal value."""
_MAX_OPTIONS_SAID = 6


@dataclass(frozen=True, slots=True)
class Leaf:
    """One place for a value: where, what fits, and whether the call needs it.

    ``choices`` are the plain alternatives of its schema (anyOf and type lists opened, null left out).
    """

    path: Path
    schema: Schema
    choices: tuple[Schema, ...]
    is_required: bool
    kind: KindRow

    @property
    def name(self) -> str:
        """The name as it is spoken: ``start_date`` is "start date", ``order_id`` is "order"."""
        words = name_words(self.path[-1])
        spoken = words[:-1] if len(words) > 1 and words[-1] in ("id", "name") else words
        return " ".join(spoken)

    @property
    def stems(self) -> frozenset[str]:
        return frozenset(stem(word) for word in name_words(self.path[-1]))

    @property
    def has_default(self) -> bool:
        return "default" in self.schema

    @property
    def can_be_null(self) -> bool:
        return accepts(self.schema, None, self.schema)

    @property
    def can_be_asked(self) -> bool:
        """False for what nobody can say in a sentence: free-form objects and lists of them."""
        return any(_is_sayable(choice) for choice in self.choices)

    def question(self, book: RuleBook) -> str:
        speech = book.data.speech
        for choice in self.choices:
            options = [str(option) for option in as_list(choice.get("enum"))]
            if 0 < len(options) <= _MAX_OPTIONS_SAID:
                said = say_list([" ".join(name_words(option)) for option in options], "or")
                return speech.choice_question.format(name=self.name, options=said)
        names = {name for choice in self.choices for name in types_of(choice)}
        if names == {"boolean"}:
            return speech.yes_no_question.format(name=self.name)
        if names == {"array"}:
            return speech.list_question.format(name=self.name)
        if names <= {"number", "integer"} and self.kind is book.data.default_kind:
            is_many = (
                stem(name_words(self.path[-1])[-1]) != name_words(self.path[-1])[-1] or "people" in self.name
            )
            return (speech.count_question if is_many else speech.number_question).format(name=self.name)
        return self.kind.ask.format(name=self.name)


def _is_sayable(choice: Schema) -> bool:
    names = types_of(choice)
    if "enum" in choice or "const" in choice:
        return True
    if names == ["array"]:
        return _is_sayable(as_object(choice.get("items"))) and not isinstance(choice.get("items"), bool)
    return names != ["object"]


def leaves_of(book: RuleBook, root: Schema) -> list[Leaf]:
    """Everything a call may carry, in declared order, required objects opened."""
    return list(_walk(book, object_of(root, root), root, (), is_required=True))


def object_of(schema: Json, root: Schema) -> Schema:
    """``schema`` as a plain object schema: the first object among its alternatives."""
    return next((part for part in alternatives(schema, root) if "object" in types_of(part)), {})


def alternatives(schema: Json, root: Schema, depth: int = 0) -> tuple[Schema, ...]:
    """The plain schemas a value may follow: references, anyOf, oneOf and lists of types opened."""
    found = resolve(schema, root)
    if depth > _MAX_NESTING:
        return (found,)
    for key in ("anyOf", "oneOf"):
        if key in found:
            base = {name: value for name, value in found.items() if name not in (key, "default")}
            parts = [merge(base, resolve(part, root)) for part in as_list(found[key])]
            return tuple(choice for part in parts for choice in alternatives(part, root, depth + 1))
    names = types_of(found)
    if len(names) > 1:
        return tuple({**found, "type": name} for name in names)
    return (found,)


def _walk(book: RuleBook, schema: Schema, root: Schema, path: Path, *, is_required: bool) -> Iterator[Leaf]:
    required = {str(name) for name in as_list(schema.get("required"))}
    for name, row in as_object(schema.get("properties")).items():
        here = (*path, name)
        choices = tuple(choice for choice in alternatives(row, root) if types_of(choice) != ["null"])
        needed = is_required and name in required
        nested = choices[0] if len(choices) == 1 and types_of(choices[0]) == ["object"] else {}
        if as_object(nested.get("properties")) and len(here) <= _MAX_NESTING:
            yield from _walk(book, nested, root, here, is_required=needed)
        else:
            choices = tuple(_inlined(choice, root) for choice in choices)
            found = resolve(row, root)
            # References inside the leaf must stay valid when it is judged on its own.
            own = dict(found)
            own.update((key, root[key]) for key in ("$defs", "definitions") if key in root)
            yield Leaf(here, own, choices, needed, book.kind_of(name))


def _inlined(choice: Schema, root: Schema) -> Schema:
    return {**choice, "items": resolve(choice["items"], root)} if "items" in choice else choice


def assemble(values: Mapping[Path, Json]) -> dict[str, Json]:
    """The nested object that has each value at its path."""
    made: dict[str, Json] = {}
    for path, value in values.items():
        at = made
        for name in path[:-1]:
            inner = at.setdefault(name, {})
            assert isinstance(inner, dict)
            at = inner
        at[path[-1]] = value
    return made


def settle(root: Schema, leaves: list[Leaf], values: Mapping[Path, Json]) -> dict[str, Json]:
    """The arguments for a call whose required values are all there: always valid if anything is.

    What does not fit is left out (optional values, last first); if that is not enough, a minimal valid
    object takes over what it can of ``values``.
    """
    kept = dict(values)
    optional = [leaf.path for leaf in leaves if not leaf.is_required and leaf.path in kept]
    while not accepts(root, assemble(kept), root) and optional:
        path = optional.pop()
        # An optional object of which one member is unusable goes as a whole.
        kept = {key: value for key, value in kept.items() if key != path}
    made = assemble(kept)
    return made if accepts(root, made, root) else _completed(root, kept)


def _completed(root: Schema, values: Mapping[Path, Json]) -> dict[str, Json]:
    smallest = minimal(root, root)
    base = smallest if isinstance(smallest, dict) else {}
    for path, value in values.items():
        changed = _with(base, path, value)
        if accepts(root, changed, root):
            base = changed
    return base


def _with(made: dict[str, Json], path: Path, value: Json) -> dict[str, Json]:
    inner = made.get(path[0])
    if len(path) == 1:
        return {**made, path[0]: value}
    return {**made, path[0]: _with(inner if isinstance(inner, dict) else {}, path[1:], value)}
