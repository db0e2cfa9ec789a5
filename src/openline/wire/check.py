"""Reading client JSON field by field, with OpenAI's error codes and the path of the field as ``param``.

A ``Fields`` is one JSON object at one path. Each method takes one field, checks it, and says what is
wrong in the words of the protocol (openai-protocols.md B.7). Messages quote at most a short name from
the client: never free text, which could be content of the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from openline.errors import ClientProtocolError

MAX_TEXT: Final = 1_048_576
"""Characters of one text (instructions, a content part, a tool's output). An item is shown in frames of
its own, and openai-agents drops frames over 8 MiB (C.2); 1 Mi characters stay below that in any script."""
MAX_ID: Final = 256
"""Characters of an id that a client chose. OpenAI allows 32; clients of other servers send up to 200."""
MAX_MS: Final = 7 * 24 * 3600 * 1000
"""A week: no audio offset and no idle time is longer than the longest a session is kept by default."""

MAX_DEPTH: Final = 64
"""Levels of JSON that we keep as text. Every later reader recurses, and their stacks are not ours."""

MAX_AUDIO: Final = 15 * 1024 * 1024
"""Bytes of audio in one event (B.3)."""

_QUOTABLE: Final = re.compile(r"[\w.:/+-]{0,64}", re.ASCII)


def error(
    code: str, message: str, param: str | None = None, event_id: str | None = None
) -> ClientProtocolError:
    return ClientProtocolError(message, code=code, param=param, event_id=event_id)


def quoted(value: object) -> str:
    """A value as an error message may show it: a short name or number as it is, anything else by its kind."""
    if isinstance(value, str):
        return f"'{value}'" if _QUOTABLE.fullmatch(value) else f"a string of {len(value)} characters"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.15g}" if abs(value) < 1e15 else "a very large number"
    return kind_of(value)


def kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def listed(values: Iterable[object]) -> str:
    """``'a', 'b', and 'c'``, as OpenAI writes supported values."""
    names = [quoted(value) for value in values]
    if len(names) < 3:
        return " and ".join(names)
    return ", ".join(names[:-1]) + f", and {names[-1]}"


class Fields:
    """One JSON object of a client's event at ``path`` (empty: the event itself)."""

    __slots__ = ("event_id", "path", "values")

    def __init__(self, values: dict[str, object], path: str, event_id: str | None) -> None:
        self.values = values
        self.path = path
        self.event_id = event_id

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str) -> object:
        """The raw value; None when absent or null."""
        return self.values.get(name)

    # -- errors

    def wrong(self, code: str, message: str, name: str) -> ClientProtocolError:
        return error(code, message, self.at(name), self.event_id)

    def wrong_type(self, name: str, expected: str) -> ClientProtocolError:
        message = f"Invalid type for '{self.at(name)}': expected {expected}, but got {kind_of(self.get(name))} instead."
        return self.wrong("invalid_type", message, name)

    def wrong_value(self, name: str, supported: Sequence[object]) -> ClientProtocolError:
        message = f"Invalid value: {quoted(self.get(name))}. Supported values are: {listed(supported)}."
        return self.wrong("invalid_value", message, name)

    def not_supported(self, name: str, what: str) -> ClientProtocolError:
        return self.wrong("unsupported_value", f"Not supported yet: {what}.", name)

    def require(self, name: str) -> None:
        if name not in self.values:
            raise self.wrong(
                "missing_required_parameter", f"Missing required parameter: '{self.at(name)}'.", name
            )

    def refuse_unknown(self, known: Iterable[str]) -> None:
        """The protocol's own strictness; only with ``errors=strict``."""
        for name in sorted(self.values.keys() - set(known)):
            shown = self.at(name) if _QUOTABLE.fullmatch(name) else self.path
            raise error("unknown_parameter", f"Unknown parameter: '{shown}'.", shown, self.event_id)

    # -- values: None when absent or null

    def text(self, name: str, *, limit: int = MAX_TEXT) -> str | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong_type(name, "a string")
        if len(value) > limit:
            message = (
                f"Invalid '{self.at(name)}': string too long. Expected a string with maximum length {limit}, "
                f"but got a string with length {len(value)} instead."
            )
            raise self.wrong("string_above_max_length", message, name)
        return value

    def required_text(self, name: str, *, limit: int = MAX_TEXT) -> str:
        self.require(name)
        value = self.text(name, limit=limit)
        if value is None:
            raise self.wrong_type(name, "a string")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong_type(name, "a boolean")
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        # A bool is an int to Python and is none to JSON.
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong_type(name, "an integer")
        self._check_range(name, value, low, high)
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong_type(name, "a decimal")
        self._check_range(name, value, low, high)
        return float(value)

    def _check_range(self, name: str, value: float, low: float, high: float) -> None:
        for is_out, words in (
            (value < low, f"below minimum value. Expected a value >= {quoted(low)}"),
            (value > high, f"above maximum value. Expected a value <= {quoted(high)}"),
        ):
            if is_out:
                message = f"Invalid '{self.at(name)}': {words}, but got {quoted(value)} instead."
                raise self.wrong("invalid_value", message, name)

    def choice(self, name: str, supported: Sequence[str]) -> str | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.wrong_type(name, "a string")
        if value not in supported:
            raise self.wrong_value(name, supported)
        return value

    def required_choice(self, name: str, supported: Sequence[str]) -> str:
        self.require(name)
        value = self.choice(name, supported)
        if value is None:
            raise self.wrong_type(name, "a string")
        return value

    def child(self, name: str) -> Fields | None:
        """The object in a field."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong_type(name, "an object")
        return Fields(value, self.at(name), self.event_id)

    def children(self, name: str, *, limit: int) -> list[Fields]:
        """The objects of an array; empty when absent or null."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong_type(name, "an array")
        if len(value) > limit:
            message = (
                f"Invalid '{self.at(name)}': array too long. Expected an array with maximum length {limit}, "
                f"but got an array with length {len(value)} instead."
            )
            raise self.wrong("array_above_max_length", message, name)
        return [self._element(name, index, element) for index, element in enumerate(value)]

    def _element(self, name: str, index: int, element: object) -> Fields:
        place = f"{self.at(name)}[{index}]"
        if not isinstance(element, dict):
            message = f"Invalid type for '{place}': expected an object, but got {kind_of(element)} instead."
            raise error("invalid_type", message, place, self.event_id)
        return Fields(element, place, self.event_id)

    def json_text(self, name: str) -> str:
        """The field's value as JSON text; at most MAX_DEPTH levels deep."""
        if _is_deeper(self.get(name), MAX_DEPTH):
            raise self.wrong("invalid_value", f"Invalid '{self.at(name)}': nested too deeply.", name)
        return msgspec.json.encode(self.get(name)).decode()


def _is_deeper(value: object, levels: int) -> bool:
    children: Iterable[object]
    if isinstance(value, dict):
        children = value.values()
    elif isinstance(value, list):
        children = value
    else:
        return False
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)
