"""Saying what a tool returned, briefly and honestly."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from openline.core.model import Item
from openline.rules.match import RuleBook
from openline.rules.numbers import say_number
from openline.rules.schema import Json, Schema, as_object
from openline.rules.words import name_words, say_list, sentence

_MAX_SPOKEN = 400
"""Characters of a result that are spoken: half a minute; a caller who wants more asks."""
_MAX_MEMBERS = 5
_MAX_FIELDS = 6
_ANSWER_KEYS = ("message", "result", "answer", "text", "summary", "output", "content", "value")
_FINE = ("ok", "success", "succeeded", "done", "completed", "created", "sent", "true")


@dataclass(frozen=True, slots=True)
class Result:
    """What one call came back with; ``error`` if it failed."""

    name: str
    arguments: str
    output: str
    error: str = ""


def results_in(items: Sequence[Item], known: Sequence[Item]) -> list[Result]:
    """The results among ``items``; names and arguments are looked up in ``known`` by call id."""
    calls = {item.call_id: item for item in known if item.type == "function_call"}
    found: list[Result] = []
    for item in items:
        if item.type == "mcp_call" and (item.output or item.error):
            found.append(Result(item.name, item.arguments, item.output, item.error))
        elif item.type == "function_call_output":
            call = calls.get(item.call_id)
            name, arguments = (call.name, call.arguments) if call is not None else (item.name, "")
            found.append(Result(name, arguments, item.output, item.error))
    return found


def say_results(book: RuleBook, results: Sequence[Result]) -> str:
    """All results in one breath; two of the same tool are told apart by what they were asked for."""
    names = [result.name for result in results]
    spoken: list[str] = []
    for result in results:
        text = _say(book, result)
        which = _distinction(result, results) if names.count(result.name) > 1 else ""
        spoken.append(book.data.speech.for_which.format(which=which, text=_lower(text)) if which else text)
    return " ".join(spoken)


def _lower(text: str) -> str:
    return text[0].lower() + text[1:] if len(text) > 1 and text[1].islower() and text[0] != "I" else text


def _distinction(result: Result, results: Sequence[Result]) -> str:
    """The argument in which this call differs from its sisters."""
    own = _arguments(result)
    for key, value in sorted(own.items(), key=lambda row: not isinstance(row[1], str)):
        same = [_arguments(other).get(key) for other in results if other.name == result.name]
        if isinstance(value, str | int | float) and same.count(value) == 1:
            return _say_scalar(value)
    return ""


def _arguments(result: Result) -> Schema:
    try:
        return as_object(json.loads(result.arguments or "{}"))
    except ValueError:
        return {}


def _say(book: RuleBook, result: Result) -> str:
    speech = book.data.speech
    if result.error:
        return _say_failure(book, _error_text(result.error))
    text = result.output.strip()
    try:
        value: Json = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict):
        failure = value.get("error") or (value.get("errors") if value.get("errors") else None)
        if failure or value.get("isError") is True or value.get("is_error") is True:
            return _say_failure(book, _first_text(failure))
        return _say_object(book, value)
    if isinstance(value, list):
        return _say_members(book, value)
    if value is None or value == "":
        return speech.done
    if isinstance(value, str):
        is_failed = re.match(r"(?:error|failed|failure)\b[:\s-]*", value, re.IGNORECASE)
        if is_failed is not None:
            return _say_failure(book, value[is_failed.end() :])
        return speech.done if value.lower() in _FINE else _prose(value)
    if isinstance(value, bool) and not _returns_its_name(book, result.name):
        return speech.done if value else speech.failed_silently
    return _say_named(book, result.name, _say_scalar(value))


def _returns_its_name(book: RuleBook, name: str) -> bool:
    """ "get_stock" and "stock" name what they return, "order_part" and "calculate" do not."""
    words = name_words(name)
    left = [word for word in words if word not in book.queries]
    return bool(left) and words[0] not in book.actions and (len(words) == 1 or len(left) < len(words))


def _error_text(error: str) -> str:
    try:
        return _first_text(json.loads(error))
    except ValueError:
        return error


def _first_text(value: Json) -> str:
    """The words of an error, whatever its shape."""
    if isinstance(value, dict):
        keys = ("message", "error", "detail", "reason", "code")
        return next((_first_text(value[key]) for key in keys if value.get(key)), "")
    if isinstance(value, list):
        return _first_text(value[0]) if value else ""
    return value if isinstance(value, str) else ""


def _say_failure(book: RuleBook, error: str) -> str:
    text = _prose(error)
    return book.data.speech.failed.format(error=_lower(text)) if text else book.data.speech.failed_silently


def _prose(text: str) -> str:
    """Plain text that can be spoken: no markdown, no line breaks, not too long."""
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    text = re.sub(r"(?m)^\s*(?:[-*+]|#+|\d+\.)\s+", "", text)
    text = " ".join(re.sub(r"[*_`#|>]+", " ", text).split())
    if len(text) > _MAX_SPOKEN:
        cut = text[:_MAX_SPOKEN]
        end = max(cut.rfind(". "), cut.rfind("! "), cut.rfind("? "))
        text = cut[: end + 1] if end > 0 else cut.rsplit(" ", 1)[0]
    return sentence(text)


def _say_named(book: RuleBook, name: str, value: str) -> str:
    if not _returns_its_name(book, name):
        return sentence(book.data.speech.bare_value.format(value=value))
    left = [word for word in name_words(name) if word not in book.queries]
    return sentence(book.data.speech.value.format(name=" ".join(left), value=value))


def _say_object(book: RuleBook, value: Schema) -> str:
    speech = book.data.speech
    shown = {key: member for key, member in value.items() if member is not None and not key.startswith("_")}
    for key in _ANSWER_KEYS:
        if isinstance(shown.get(key), str) and shown[key]:
            return _prose(str(shown[key]))
    is_fine = [key for key in ("ok", "success", "status") if str(shown.get(key)).lower() in _FINE]
    rest = {key: member for key, member in shown.items() if key not in is_fine}
    if not rest:
        return speech.done
    if len(rest) == 1:
        key, member = next(iter(rest.items()))
        if isinstance(member, list) and member:
            return _say_members(book, member)
        if isinstance(member, dict):
            return _say_object(book, member)
    parts = [_clause(key, member) for key, member in list(rest.items())[:_MAX_FIELDS]]
    return sentence(say_list([part for part in parts if part])) or speech.done


def _clause(key: str, value: Json) -> str:
    name = " ".join(name_words(key))
    if isinstance(value, bool):
        return f"{name}: {'yes' if value else 'no'}"
    if isinstance(value, list):
        members = say_list([_say_scalar(member) for member in value[:_MAX_MEMBERS]])
        return f"the {name} are {members}" if members else f"there are no {name}"
    if isinstance(value, dict):
        inner = [f"{' '.join(name_words(k))} {_say_scalar(v)}" for k, v in list(value.items())[:_MAX_MEMBERS]]
        return f"the {name} is {say_list(inner)}" if inner else ""
    return f"the {name} is {_say_scalar(value)}" if value != "" else ""


def _say_members(book: RuleBook, members: list[Json]) -> str:
    speech = book.data.speech
    if not members:
        return speech.nothing_found
    shown = say_list([_say_scalar(member) for member in members[:_MAX_MEMBERS]])
    pattern = speech.found if len(members) <= _MAX_MEMBERS else speech.found_more
    return sentence(pattern.format(count=say_number(len(members)), members=shown))


def _say_scalar(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return say_number(value)
    if isinstance(value, dict):
        named = next((value[key] for key in ("name", "title", "label", "text", "id") if key in value), None)
        return _say_scalar(named) if named is not None else say_list(
            [f"{' '.join(name_words(k))} {_say_scalar(v)}" for k, v in list(value.items())[:3] if not isinstance(v, dict)]
        )  # fmt: skip
    if isinstance(value, list):
        return say_list([_say_scalar(member) for member in value[:3]])
    return (
        "nothing"
        if value is None
        else _prose(value).removesuffix(".")
        if len(value) > 80
        else " ".join(value.split())
    )
