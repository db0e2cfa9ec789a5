"""Client events: good ones come out typed, bad ones as the protocol's own error with code, path and event id."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.core.model import Item, SessionConfig
from openline.errors import ClientProtocolError
from openline.types import ItemId, SessionId
from openline.wire import client_events as ce
from openline.wire.client_events import decode, session_object, to_config, to_item, to_request

PCM = bytes(range(256)) * 2
AUDIO = base64.b64encode(PCM).decode()


def refused(data: Any, *, opted_in: bool = False) -> ClientProtocolError:
    sent = data if isinstance(data, bytes | str) else json.dumps(data)
    with pytest.raises(ClientProtocolError) as caught:
        decode(sent, opted_in=opted_in)
    return caught.value


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            {"type": "session.update", "session": {"type": "realtime"}},
            ce.UpdateSession(session={"type": "realtime"}),
        ),
        ({"type": "input_audio_buffer.append", "audio": AUDIO}, ce.AppendAudio(audio=PCM)),
        ({"type": "input_audio_buffer.commit"}, ce.CommitBuffer()),
        ({"type": "input_audio_buffer.clear"}, ce.ClearBuffer()),
        (
            {"type": "conversation.item.create", "item": {"type": "message"}, "previous_item_id": "root"},
            ce.CreateItem(item={"type": "message"}, previous_item_id="root"),
        ),
        ({"type": "conversation.item.retrieve", "item_id": "i"}, ce.RetrieveItem(item_id="i")),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1500},
            ce.TruncateItem(item_id="i", content_index=0, audio_end_ms=1500),
        ),
        ({"type": "conversation.item.delete", "item_id": "i"}, ce.DeleteItem(item_id="i")),
        ({"type": "response.create"}, ce.CreateResponse()),
        ({"type": "response.create", "response": {}}, ce.CreateResponse(response={})),
        ({"type": "response.cancel", "response_id": "r"}, ce.CancelResponse(response_id="r")),
        ({"type": "output_audio_buffer.clear"}, ce.ClearOutput()),
        (
            {"type": "openline.playout", "item_id": "i", "audio_end_ms": 7},
            ce.ReportPlayout(item_id="i", audio_end_ms=7),
        ),
        ({"type": "openline.session.end", "reason": "done"}, ce.EndSession(reason="done")),
    ],
)
def test_every_client_event_is_typed(sent: dict[str, object], expected: ce.ClientEvent) -> None:
    expected.event_id = "e7"
    data = json.dumps({**sent, "event_id": "e7", "unknown": [1]})
    assert decode(data, opted_in=True) == expected
    assert decode(data.encode(), opted_in=True) == expected


def test_all_eleven_and_our_two_are_there() -> None:
    assert len(ce.STOCK_EVENTS) == 11
    assert ce.OPENLINE_EVENTS == ("openline.playout", "openline.session.end")


def test_our_events_exist_only_for_clients_that_opted_in() -> None:
    error = refused({"type": "openline.session.end", "event_id": "e1"})
    assert (error.code, error.param, error.event_id) == ("invalid_value", "type", "e1")
    assert "openline" not in error.message.split("Supported")[1]


@pytest.mark.parametrize(
    ("sent", "code", "param", "words"),
    [
        ("{", "invalid_event", None, "not valid JSON"),
        ("", "invalid_event", None, "not valid JSON"),
        (b"\xff\xfe", "invalid_event", None, "not valid JSON"),
        (b'{"type":"response.cancel","response_id":"\xff"}', "invalid_event", None, "not valid JSON"),
        ('"\ud800"', "invalid_event", None, "not valid JSON"),
        ("[" * 100_000, "invalid_event", None, "not valid JSON"),
        ('{"type":"session.update","session":' + '{"a":' * 100_000, "invalid_event", None, "not valid JSON"),
        ("[1]", "invalid_event", None, "is an array"),
        ("null", "invalid_event", None, "is null"),
        ({}, "invalid_event", None, "The 'type' field is missing."),
        ({"type": None}, "invalid_type", "type", "expected a string, but got null"),
        (
            {"type": "scooby.dooby.doo"},
            "invalid_value",
            "type",
            "Invalid value: 'scooby.dooby.doo'. Supported values are: 'session.update', 'input_audio_buffer.append',",
        ),
        ({"type": "please\n" * 50}, "invalid_value", "type", "a string of 350 characters"),
        ({"type": "transcription_session.update"}, "invalid_value", "type", "beta API"),
        (
            {"type": "session.update"},
            "missing_required_parameter",
            "session",
            "Missing required parameter: 'session'.",
        ),
        ({"type": "session.update", "session": None}, "invalid_type", "session", "an object"),
        ({"type": "session.update", "session": []}, "invalid_type", "session", "got an array"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio", "'audio'"),
        ({"type": "input_audio_buffer.append", "audio": 5}, "invalid_type", "audio", "an integer"),
        ({"type": "input_audio_buffer.append", "audio": None}, "invalid_type", "audio", "null"),
        ({"type": "input_audio_buffer.append", "audio": "!!!!"}, "invalid_value", "audio", "not base64"),
        ({"type": "input_audio_buffer.append", "audio": "AAA"}, "invalid_value", "audio", "not base64"),
        ({"type": "input_audio_buffer.append", "audio": "AA A="}, "invalid_value", "audio", "not base64"),
        ({"type": "conversation.item.create"}, "missing_required_parameter", "item", "item"),
        (
            {"type": "conversation.item.create", "item": {}, "previous_item_id": 1},
            "invalid_type",
            "previous_item_id",
            "an integer",
        ),
        ({"type": "conversation.item.retrieve"}, "missing_required_parameter", "item_id", "item_id"),
        ({"type": "conversation.item.delete", "item_id": ""}, "invalid_value", "item_id", "empty"),
        ({"type": "conversation.item.delete", "item_id": None}, "invalid_type", "item_id", "null"),
        (
            {"type": "conversation.item.delete", "item_id": "x" * 257},
            "string_above_max_length",
            "item_id",
            "maximum length 256",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0},
            "missing_required_parameter",
            "audio_end_ms",
            "audio_end_ms",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": None},
            "invalid_type",
            "audio_end_ms",
            "null",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": True, "audio_end_ms": 1},
            "invalid_type",
            "content_index",
            "a boolean",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 1.5},
            "invalid_type",
            "audio_end_ms",
            "a decimal",
        ),
        (
            {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": -1},
            "invalid_value",
            "audio_end_ms",
            "Expected a value >= 0, but got -1",
        ),
        (
            {
                "type": "conversation.item.truncate",
                "item_id": "i",
                "content_index": 0,
                "audio_end_ms": 10**30,
            },
            "invalid_value",
            "audio_end_ms",
            "Expected a value <= 604800000, but got a very large number",
        ),
        ({"type": "response.create", "response": "now"}, "invalid_type", "response", "a string"),
        ({"type": "response.cancel", "response_id": {}}, "invalid_type", "response_id", "an object"),
        ({"type": "response.cancel", "event_id": 5}, "invalid_type", "event_id", "an integer"),
        ({"type": "response.cancel", "event_id": "x" * 513}, "string_above_max_length", "event_id", "512"),
        (
            '{"type":"response.cancel","event_id":5,"event_id":"e"}',
            "invalid_event",
            None,
            "could not be read",
        ),
    ],
)
def test_bad_events_get_the_protocols_error(sent: Any, code: str, param: str | None, words: str) -> None:
    error = refused(sent)
    assert (error.code, error.param) == (code, param)
    assert words in error.message
    assert error.kind == "invalid_request_error"


def test_our_events_are_checked_too() -> None:
    assert refused({"type": "openline.playout", "item_id": "i"}, opted_in=True).param == "audio_end_ms"
    assert refused({"type": "openline.session.end", "reason": 1}, opted_in=True).param == "reason"
    assert refused({"type": "nonsense"}, opted_in=True).message.endswith("and 'openline.session.end'.")


@pytest.mark.parametrize(
    "sent",
    [
        {"type": "input_audio_buffer.append", "audio": "?"},
        {"type": "conversation.item.delete"},
        {"type": "nonsense"},
        {"no type": 1},
    ],
)
def test_an_error_names_the_clients_event(sent: dict[str, object]) -> None:
    assert refused({**sent, "event_id": "evt_from_client"}).event_id == "evt_from_client"


def test_half_a_sample_is_for_the_session_to_judge() -> None:
    """G.711 has one byte a sample, and only the session knows its format."""
    event = decode('{"type":"input_audio_buffer.append","audio":"AA==","event_id":"e1"}', opted_in=False)
    assert isinstance(event, ce.AppendAudio) and event.audio == b"\0"
    error = ce.odd_audio(event)
    assert (error.code, error.param, error.event_id) == ("invalid_value", "audio", "e1")
    assert "even number" in error.message


def test_audio_of_more_than_15_mib_is_refused() -> None:
    most = base64.b64encode(bytes(15 * 1024 * 1024)).decode()
    event = decode(json.dumps({"type": "input_audio_buffer.append", "audio": most}), opted_in=False)
    assert isinstance(event, ce.AppendAudio) and len(event.audio) == 15 * 1024 * 1024
    more = base64.b64encode(bytes(15 * 1024 * 1024 + 2)).decode()
    error = refused({"type": "input_audio_buffer.append", "audio": more, "event_id": "big"})
    assert (error.code, error.param, error.event_id) == ("invalid_value", "audio", "big")
    assert "too large" in refused(b" " * (ce.MAX_EVENT + 1)).message


# -------------------------------------------------------------------------------------------------- fuzz

JSON = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
)
NAMES = st.sampled_from(
    "type event_id session item item_id previous_item_id audio input output format rate voice speed tools tool_choice "
    "name parameters description instructions output_modalities max_output_tokens metadata conversation content role "
    "text transcript image_url call_id arguments id status turn_detection threshold silence_duration_ms eagerness "
    "create_response idle_timeout_ms transcription model noise_reduction tracing prompt truncation reasoning effort "
    "include retention_ratio response_id content_index audio_end_ms reason response detail".split()
)
WORDS = st.sampled_from(
    [*ce.STOCK_EVENTS, *ce.OPENLINE_EVENTS]
    + "realtime transcription message function function_call function_call_output mcp mcp_call item_reference user "
    "assistant system input_text input_audio input_image output_text output_audio auto none required inf audio text "
    "server_vad semantic_vad low audio/pcm audio/pcmu near_field retention_ratio AAAA".split()
)
LIKELY = st.recursive(
    WORDS | JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=10,
)
OBJECTS = st.dictionaries(NAMES, LIKELY, max_size=6)


@given(st.binary(max_size=200) | st.text(max_size=200), st.booleans())
def test_any_bytes_give_an_event_or_a_protocol_error(data: bytes | str, opted_in: bool) -> None:
    try:
        decode(data, opted_in=opted_in)
    except ClientProtocolError as error:
        assert error.code and error.message


@given(OBJECTS, WORDS, st.booleans())
def test_any_object_gives_an_event_or_a_protocol_error(
    event: dict[str, Any], kind: str, opted_in: bool
) -> None:
    try:
        decode(json.dumps({**event, "type": kind}), opted_in=opted_in)
    except ClientProtocolError as error:
        assert error.code and error.message


def nothing(item_id: ItemId) -> Item | None:
    return None


@given(OBJECTS, st.booleans())
def test_any_settings_are_taken_or_refused_as_a_whole(patch: dict[str, Any], strict: bool) -> None:
    for read in (
        lambda: session_object(
            to_config(SessionConfig(), {**patch, "type": "realtime"}, strict=strict), SessionId("s")
        ),
        lambda: to_item(patch, strict=strict),
        lambda: to_item({**patch, "type": "message", "role": "user"}, strict=strict),
        lambda: to_request(patch, nothing, strict=strict),
    ):
        try:
            read()
        except ClientProtocolError as error:
            assert error.code and error.message
