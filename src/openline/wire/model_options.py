"""What a Responses client asks of the model itself: the form of its text, and settings that some models have.

The form is kept as JSON text in the shape of that API, ``{"type":"json_schema","name":…,"schema":…}`` or
``{"type":"json_object"}``; plain text is "". The gateway hands it to the model and checks nothing of what comes back:
models with structured output keep to it by construction, others as well as they can.
The settings (``temperature``, ``top_p``, ``reasoning``, ``text.verbosity``, and of ``include`` the encrypted content of
reasoning items) are an object as JSON text, and go to models behind either of OpenAI's APIs; the embedded one has no
use for them.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from openline.errors import ClientProtocolError
from openline.wire.check import Fields, quoted
from openline.wire.items import JsonObject
from openline.wire.reasoning import SEALED

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_JSON: Final = '{"type":"json_object"}'
_OPTIONS: Final = ("temperature", "top_p", "reasoning")
SEALED_LIST: Final = f'["{SEALED}"]'
SEALED_OPTIONS: Final = f'{{"include":{SEALED_LIST}}}'
"""Options of one who wants the encrypted content of reasoning items, and nothing else."""
_encode: Final = msgspec.json.Encoder().encode


def to_text_format(fields: Fields) -> str:
    """What ``fields["text"]["format"]`` asks for. Raises ClientProtocolError."""
    text = fields.child("text")
    form = text.child("format") if text is not None else None
    if form is None:
        return ""
    match form.required_choice("type", ("text", "json_object", "json_schema")):
        case "json_schema":
            return _schema_format(form)
        case "json_object":
            return _JSON
        case _:
            return ""


def _schema_format(form: Fields) -> str:
    name = form.required_text("name")
    if not _NAME.fullmatch(name):
        message = f"Invalid '{form.at('name')}': expected 1 to 64 of a-z, A-Z, 0-9, '_' and '-'."
        raise form.wrong("invalid_value", message, "name")
    kept: JsonObject = {"type": "json_schema", "name": name}
    description = form.text("description")
    if description is not None:
        kept["description"] = description
    form.require("schema")
    schema = form.child("schema")
    if schema is None:
        raise form.wrong_type("schema", "an object")
    if schema.get("type") != "object":
        raise _no_object(form, name, schema)
    kept["schema"] = msgspec.Raw(form.json_text("schema").encode())
    if form.flag("strict", False):
        kept["strict"] = True
    return _encode(kept).decode()


def _no_object(form: Fields, name: str, schema: Fields) -> ClientProtocolError:
    message = (
        f"Invalid schema for response_format '{name}': schema must be a JSON Schema of 'type: \"object\"', "
        f"got 'type: {quoted(schema.get('type'))}'."
    )
    return form.wrong("invalid_json_schema", message, "schema")


def to_options(fields: Fields) -> str:
    """The settings of ``fields`` that a model may have, as JSON text; "" where there are none.

    Raises ClientProtocolError.
    """
    fields.number("temperature", 0, 2)
    fields.number("top_p", 0, 1)
    fields.child("reasoning")
    found = {name: fields.json_text(name) for name in _OPTIONS if fields.get(name) is not None}
    if SEALED in texts(fields, "include"):
        found["include"] = SEALED_LIST
    text = fields.child("text")
    if text is not None and text.choice("verbosity", ("low", "medium", "high")) is not None:
        found["verbosity"] = text.json_text("verbosity")
    return (
        _encode({name: msgspec.Raw(value.encode()) for name, value in found.items()}).decode()
        if found
        else ""
    )


def texts(fields: Fields, name: str) -> list[str]:
    """The texts in a list of them; what is none is let pass, as clients send new ones before we know them."""
    given = fields.get(name)
    return [value for value in given if isinstance(value, str)] if isinstance(given, list) else []


def wants_sealed(options: str) -> bool:
    """Whether the client wants the encrypted content of reasoning items."""
    return "include" in _object(options)


def responses_options(options: str, text_format: str) -> JsonObject:
    """Both as fields of a Responses request or response."""
    found: JsonObject = dict(_object(options))
    text: JsonObject = {"format": msgspec.Raw(text_format.encode())} if text_format else {}
    if "verbosity" in found:
        text["verbosity"] = found.pop("verbosity")
    return {**found, "text": text} if text else found


def chat_options(options: str, text_format: str) -> JsonObject:
    """Both as fields of a Chat Completions request: what describes a schema stands in an object of its own there,
    and of ``reasoning`` there is only the effort."""
    found: JsonObject = dict(_object(options))
    found.pop("include", None)
    reasoning = found.pop("reasoning", None)
    if isinstance(reasoning, msgspec.Raw):
        effort = _object(bytes(reasoning).decode()).get("effort")
        found |= {} if effort is None else {"reasoning_effort": effort}
    if text_format:
        form = _object(text_format)
        kind = form.pop("type")
        found["response_format"] = {"type": kind, "json_schema": form} if form else {"type": kind}
    return found


def _object(text: str) -> dict[str, msgspec.Raw]:
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw]) if text else {}


def shown(options: str, text_format: str) -> tuple[tuple[str, bytes], ...]:
    """Both as a response shows them again: names of fields and their JSON."""
    found = responses_options(options, text_format)
    return tuple((name, _encode(value)) for name, value in found.items() if name != "include")


def told_form(text_format: str) -> str:
    """The form in words, for models that have no setting for it."""
    form = _object(text_format)
    if "schema" not in form:
        return "Answer with one JSON object and nothing else."
    schema = bytes(form["schema"]).decode()
    return f"Answer with one JSON object and nothing else. It must be valid for this JSON Schema: {schema}"
