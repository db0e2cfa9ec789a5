"""What a Responses client asks of the model itself: taken, handed to each kind of model, and shown again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from openline.core.model import Item, Part
from openline.errors import ClientProtocolError
from openline.types import ItemId
from openline.wire import responses_client
from openline.wire.chat_client import chat_body
from openline.wire.check import Fields
from openline.wire.model_options import shown, to_options, to_text_format, told_form, wants_sealed
from openline.wire.reasoning import SEALED
from openline.wire.responses_client import Asked

SCHEMA = {"type": "object", "properties": {"part": {"type": "string"}}, "required": ["part"]}
USER = Item(ItemId("u"), "message", "user", "user", content=(Part("input_text", "hi"),))


def asked(form: Any) -> str:
    return to_text_format(Fields({"text": {"format": form}}, "", None))


def test_plain_text_is_no_form() -> None:
    for text in (None, {}, {"verbosity": "low"}, {"format": None}, {"format": {"type": "text"}}):
        assert to_text_format(Fields({"text": text}, "", None)) == ""


def test_a_schema_is_kept_with_its_name_and_nothing_that_was_not_given() -> None:
    kept = asked({"type": "json_schema", "name": "stock", "schema": SCHEMA})
    assert json.loads(kept) == {"type": "json_schema", "name": "stock", "schema": SCHEMA}
    more = {"description": "What is there.", "strict": True}
    whole = {"type": "json_schema", "name": "stock", "schema": SCHEMA, **more}
    assert json.loads(asked(whole)) == whole
    assert json.loads(asked({"type": "json_object"})) == {"type": "json_object"}


@pytest.mark.parametrize(
    ("form", "code", "place"),
    [
        ({"type": "yaml"}, "invalid_value", "type"),
        ({"type": "json_schema", "schema": SCHEMA}, "missing_required_parameter", "name"),
        ({"type": "json_schema", "name": "a b", "schema": SCHEMA}, "invalid_value", "name"),
        ({"type": "json_schema", "name": "a" * 65, "schema": SCHEMA}, "invalid_value", "name"),
        ({"type": "json_schema", "name": "a"}, "missing_required_parameter", "schema"),
        ({"type": "json_schema", "name": "a", "schema": None}, "invalid_type", "schema"),
        ({"type": "json_schema", "name": "a", "schema": {"type": "array"}}, "invalid_json_schema", "schema"),
        ({"type": "json_schema", "name": "a", "schema": {}}, "invalid_json_schema", "schema"),
        ({"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": 1}, "invalid_type", "strict"),
    ],
)
def test_a_mistake_is_named_with_its_place(form: Any, code: str, place: str) -> None:
    with pytest.raises(ClientProtocolError) as refusal:
        asked(form)
    assert (refusal.value.code, refusal.value.param) == (code, f"text.format.{place}")


def test_each_api_gets_it_in_its_own_shape() -> None:
    form = asked({"type": "json_schema", "name": "stock", "schema": SCHEMA, "strict": True})
    known = responses_client.entries([USER])
    plain = responses_client.body(Asked("m", ""), known)
    assert "text" not in plain and "response_format" not in chat_body(Asked("m", ""), known)
    wish = Asked("m", "", text_format=form)
    body = json.loads(responses_client.encode(responses_client.body(wish, known)))
    assert body["text"] == {"format": json.loads(form)}
    chat = json.loads(responses_client.encode(chat_body(wish, known)))
    assert chat["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "stock", "schema": SCHEMA, "strict": True},
    }
    bare = json.loads(
        responses_client.encode(chat_body(Asked("m", "", text_format='{"type":"json_object"}'), known))
    )
    assert bare["response_format"] == {"type": "json_object"}


def test_a_model_without_a_setting_for_it_is_told_in_words() -> None:
    told = told_form(asked({"type": "json_schema", "name": "stock", "schema": SCHEMA}))
    assert json.loads(told.partition("Schema: ")[2]) == SCHEMA
    assert "JSON object" in told_form('{"type":"json_object"}')


OPTIONS = {"temperature": 0.2, "top_p": 1, "reasoning": {"effort": "low"}}


def options(**values: Any) -> str:
    return to_options(Fields(values, "", None))


def test_settings_go_to_each_api_under_its_own_names() -> None:
    given = options(**OPTIONS, text={"verbosity": "low"}, user="somebody", truncation="auto")
    known = responses_client.entries([USER])
    wish = Asked("m", "", options=given, text_format='{"type":"json_object"}')
    body = json.loads(responses_client.encode(responses_client.body(wish, known)))
    assert {name: body[name] for name in OPTIONS} == OPTIONS
    assert body["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    assert "user" not in body and "truncation" not in body
    chat = json.loads(responses_client.encode(chat_body(wish, known)))
    assert (chat["temperature"], chat["top_p"], chat["verbosity"]) == (0.2, 1, "low")
    assert chat["reasoning_effort"] == "low" and "reasoning" not in chat
    assert "reasoning_effort" not in chat_body(Asked("m", "", options=options(reasoning={})), known)


def test_of_what_is_to_be_included_the_sealed_thoughts_are_asked_of_the_model() -> None:
    given = options(include=["message.output_text.logprobs", SEALED, 7])
    assert wants_sealed(given) and not wants_sealed(options(include=["other"])) and not wants_sealed("")
    assert options(include="text") == options(include=None) == ""
    known = responses_client.entries([USER])
    body = json.loads(responses_client.encode(responses_client.body(Asked("m", "", options=given), known)))
    assert body["include"] == [SEALED]
    assert "include" not in chat_body(Asked("m", "", options=given), known)
    assert shown(given, "") == (), "a response does not show it again"


def test_without_settings_none_are_sent() -> None:
    assert options() == options(temperature=None, text={}) == ""


@pytest.mark.parametrize(
    ("values", "code", "param"),
    [
        ({"temperature": 2.5}, "invalid_value", "temperature"),
        ({"temperature": "hot"}, "invalid_type", "temperature"),
        ({"top_p": -1}, "invalid_value", "top_p"),
        ({"reasoning": "much"}, "invalid_type", "reasoning"),
        ({"text": {"verbosity": "loud"}}, "invalid_value", "text.verbosity"),
    ],
)
def test_a_setting_that_is_none_is_named(values: Any, code: str, param: str) -> None:
    with pytest.raises(ClientProtocolError) as refusal:
        options(**values)
    assert (refusal.value.code, refusal.value.param) == (code, param)


def test_a_response_that_is_read_again_shows_both() -> None:
    form = asked({"type": "json_schema", "name": "stock", "schema": SCHEMA})
    again = {name: msgspec.json.decode(value) for name, value in shown(options(**OPTIONS), form)}
    assert again == {**OPTIONS, "text": {"format": json.loads(form)}}
    assert shown("", "") == ()
