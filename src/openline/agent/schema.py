"""From a plain Python function to a tool: its JSON Schema, and its arguments checked against it.

A contract that cannot be kept (an argument without a type, ``*args``, a type with no JSON form) is named when
the tool is declared, not when a caller is on the line.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Callable, Collection, Mapping
from types import UnionType
from typing import Annotated, Union

import msgspec

from openline.errors import ConfigError, ToolError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
"""What the OpenAI API accepts as a function name."""
_ARGUMENT_LINE = re.compile(r"^(\s*)\**(\w+)\s*(?:\([^)]*\))?\s*:\s*(\S.*)$")
_REF = "#/$defs/{name}"


@dataclasses.dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A declared function. ``parameters`` is JSON Schema as text; ``injected`` maps the parameters that the
    runtime fills to their types."""

    name: str
    description: str
    parameters: str
    injected: Mapping[str, type]
    is_async: bool
    _arguments: type[msgspec.Struct] = dataclasses.field(repr=False)

    def bind(self, arguments_json: str | bytes) -> dict[str, object]:
        """Keyword arguments for the function; left-out ones keep the function's own defaults.

        "" counts as "{}" (models send it for tools without parameters). Raises ToolError: no JSON, a wrong
        type, a value out of bounds, an unknown or missing argument. The message names the place and never the
        value, because arguments are content of the conversation.
        """
        try:
            found = msgspec.json.decode(arguments_json or b"{}", type=self._arguments)
        except msgspec.ValidationError as error:
            raise self._wrong(str(error)) from None  # the cause could carry a value into a log
        except msgspec.DecodeError:
            raise ToolError(
                f"tool {self.name}: arguments: expected a JSON object; got text that is not JSON.",
                hint="Send the arguments again as one JSON object.",
            ) from None
        values = {name: getattr(found, name) for name in self._arguments.__struct_fields__}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}

    def _wrong(self, reason: str) -> ToolError:
        """A message without values: msgspec names types and places, but also enum values and field names."""
        text, _, place = reason.partition(" - at `")
        known = set(self._arguments.__struct_fields__)
        where = place.rstrip("`").removeprefix("$").lstrip(".") or "arguments"
        if where.split(".")[0].split("[")[0] not in known:
            where = "arguments"
        field = re.search(r"required field `(\w+)`", text)
        expected = re.match(r"Expected `([^`]+)`(.*), got `([^`]+)`\Z", text)
        bound = re.match(r"Expected `[^`]+` (?:of length )?(?:[<>=]+|matching|that's)[^`']*\Z", text)
        if field is not None:
            says = f"expected '{field.group(1)}', which is required; got none."
        elif expected is not None:
            says = f"expected {expected.group(1)}; got {expected.group(3)}."
        elif bound is not None:
            says = f"expected {text.removeprefix('Expected ').replace('`', '')}; got a value out of these bounds."
        elif "unknown field" in text:
            says = f"expected only {', '.join(sorted(known)) or 'no arguments'}; got another argument."
        else:
            says = "expected one of the values that the schema allows; got another."
        return ToolError(
            f"tool {self.name}: {where}: {says}", hint="Correct the arguments and call it again."
        )


def function_spec(
    function: Callable[..., object], *, injected: Collection[type] = (), name: str = "", description: str = ""
) -> FunctionSpec:
    """Declare ``function`` as a tool. ``injected``: parameter types that the runtime fills, no part of the schema.

    The description is the docstring's first paragraph, a parameter's its ``name: text`` line. Raises
    ConfigError naming the function, the parameter and what to change.
    """
    shown = name or getattr(function, "__name__", "")
    if not _NAME.match(shown):
        raise ConfigError(
            f"tool name: expected 1 to 64 letters, digits, _ or -; got {shown[:80]!r}.",
            hint="Use a named function, or give name=….",
        )
    hints = _hints(function, shown)
    first, described = _documented(inspect.getdoc(function) or "")
    fields: list[tuple[str, object, object]] = []
    filled: dict[str, type] = {}
    defaults: dict[str, object] = {}
    for parameter in inspect.signature(function).parameters.values():
        annotation = _annotation(shown, parameter, hints)
        special = _special(annotation, injected)
        if special is not None:
            filled[parameter.name] = special
            continue
        annotation = _described(annotation, described.get(parameter.name, ""))
        _check_type(shown, parameter.name, annotation)
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, annotation, msgspec.NODEFAULT))
        else:
            fields.append((parameter.name, Union[annotation, msgspec.UnsetType], msgspec.UNSET))  # noqa: UP007 - values, no types
            defaults[parameter.name] = parameter.default
    arguments = _struct(shown, fields)
    schema = _schema(shown, arguments, defaults)
    is_async = inspect.iscoroutinefunction(function)
    text = json.dumps(schema, ensure_ascii=False)
    return FunctionSpec(shown, description or first, text, filled, is_async, arguments)


def _hints(function: Callable[..., object], shown: str) -> dict[str, object]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"tool {shown}: expected annotations that can be read at run time; the name '{error.name}' is unknown there.",
            hint="Import it at the top of the module, outside of 'if TYPE_CHECKING'.",
        ) from error
    except TypeError as error:
        raise ConfigError(
            f"tool {shown}: expected a function or method; got {type(function).__name__}.",
            hint="Wrap it in a function with typed parameters.",
        ) from error


def _annotation(shown: str, parameter: inspect.Parameter, hints: Mapping[str, object]) -> object:
    kinds = {
        inspect.Parameter.VAR_POSITIONAL: f"*{parameter.name}",
        inspect.Parameter.VAR_KEYWORD: f"**{parameter.name}",
        inspect.Parameter.POSITIONAL_ONLY: f"the positional-only '{parameter.name}'",
    }
    if parameter.kind in kinds:
        raise ConfigError(
            f"tool {shown}: expected parameters that have a name in JSON; got {kinds[parameter.kind]}.",
            hint="Use named parameters; a list parameter takes several values.",
        )
    if parameter.name not in hints:
        raise ConfigError(
            f"tool {shown}: parameter '{parameter.name}': expected a type annotation; got none.",
            hint=f"Write '{parameter.name}: str' or the type it has.",
        )
    return hints[parameter.name]


def _special(annotation: object, injected: Collection[type]) -> type | None:
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    options = typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((kind for kind in injected for option in options if option is kind), None)


def _described(annotation: object, text: str) -> object:
    """With the docstring's description, unless the annotation brings its own."""
    extras = typing.get_args(annotation)[1:] if typing.get_origin(annotation) is Annotated else ()
    has_own = any(isinstance(extra, msgspec.Meta) and extra.description for extra in extras)
    if not text or has_own:
        return annotation
    return Annotated[annotation, msgspec.Meta(description=text)]


def _check_type(shown: str, parameter: str, annotation: object) -> None:
    """Build decoder and schema for this one parameter, so that the message can name it."""
    try:
        msgspec.json.schema_components([annotation], ref_template=_REF)
        msgspec.json.Decoder(annotation)
    except (TypeError, NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"tool {shown}: parameter '{parameter}': expected a type with a JSON form; got {_spelled(annotation)}.",
            hint="Use str, int, float, bool, Literal, Enum, list, dict, a dataclass, a Struct, or one of them | None.",
        ) from error


def _spelled(annotation: object) -> str:
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _struct(shown: str, fields: list[tuple[str, object, object]]) -> type[msgspec.Struct]:
    # Keyword only, because a required parameter may stand behind one with a default.
    rows: list[tuple[str, type, object]] = [
        (name, typing.cast(type, hint), default) for name, hint, default in fields
    ]
    return msgspec.defstruct(
        f"{shown}_arguments", rows, kw_only=True, forbid_unknown_fields=True, frozen=True
    )


def _schema(shown: str, arguments: type[msgspec.Struct], defaults: Mapping[str, object]) -> dict[str, object]:
    (_,), components = msgspec.json.schema_components([arguments], ref_template=_REF)
    schema: dict[str, object] = dict(components.pop(arguments.__name__))
    schema.pop("title", None)
    schema.setdefault("properties", {})
    properties = schema["properties"]
    assert isinstance(properties, dict)
    for name, default in defaults.items():
        try:
            properties[name]["default"] = msgspec.to_builtins(default)
        except TypeError as error:
            raise ConfigError(
                f"tool {shown}: parameter '{name}': expected a default with a JSON form; got {type(default).__name__}.",
                hint="Use None as the default and make the value inside the function.",
            ) from error
    if components:
        schema["$defs"] = components
    return schema


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph as one line, and ``name: text`` lines with their deeper indented continuations."""
    paragraphs = text.split("\n\n", 1)
    first = " ".join(paragraphs[0].split())
    described: dict[str, str] = {}
    name, depth = "", 0
    for line in paragraphs[1].splitlines() if len(paragraphs) > 1 else ():
        found = _ARGUMENT_LINE.match(line)
        indent = len(line) - len(line.lstrip())
        if found is not None and not (name and indent > depth):
            name, depth = found.group(2), indent
            described[name] = found.group(3).strip()
        elif name and line.strip() and indent > depth:
            described[name] += " " + line.strip()
        else:
            name = ""
    return first, described
