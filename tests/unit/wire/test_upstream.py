"""What goes to a provider and what is made of what it says: examples of each, and nothing that raises."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.core.model import Item, Part, SessionConfig, ToolSpec, TurnDetection, Usage
from openline.core.value import replace
from openline.types import ItemId
from openline.wire import client_events, upstream
from openline.wire.items import JsonObject


def plain(value: object) -> Any:
    """As the provider reads it."""
    return msgspec.json.decode(msgspec.json.encode(value))


# ------------------------------------------------------------------------------------------- what we send


def test_audio_goes_up_as_one_append() -> None:
    event = msgspec.json.decode(upstream.append_audio(b"\x01\x02" * 480))
    assert event == {
        "type": "input_audio_buffer.append",
        "audio": base64.b64encode(b"\x01\x02" * 480).decode(),
    }


SPELLINGS = [
    '{"type":"input_audio_buffer.append","audio":"%s"}',
    '{"type": "input_audio_buffer.append", "audio": "%s"}',
    '{"event_id":"event_1","type":"input_audio_buffer.append","audio":"%s"}',
    '{"audio":"%s","type":"input_audio_buffer.append"}',
    '{"audio":"%s","type":"input_audio_buffer.append","event_id":"AQIB"}',
    '{"type":"input_audio_buffer.append","audio":"%s" }',
    '{"type":"input_audio_buffer.append","audio":  "%s"}',
    '{"type":"input_audio_buffer.append","audio":"AAAA","audio":"%s"}',
    '{"audio":"%s","type":"input_audio_buffer.append","event_id":"\\"audio\\":\\"AQIB"}',
    '{"audio":"%s","type":"input_audio_buffer.append","note":{"audio":"AQIB"}}',
    '{"type":"input_audio_buffer.append","instructions":"say no more","audio":"%s"}',
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 160, 960, 961])
def test_what_a_client_sent_goes_up_as_its_audio_and_nothing_else(spelling: str, size: int) -> None:
    data = (b"\x01\x02\x01" * 321)[:size]
    frame = (spelling % base64.b64encode(data).decode()).encode()
    event = client_events.decode(frame, opted_in=False)
    assert isinstance(event, client_events.AppendAudio) and event.audio == data
    assert msgspec.json.decode(upstream.append_audio(event.audio, frame)) == {
        "type": "input_audio_buffer.append",
        "audio": base64.b64encode(data).decode(),
    }


def test_base64_that_is_spelt_otherwise_is_written_anew() -> None:
    frame = b'{"type":"input_audio_buffer.append","audio":"Q\\/\\u0038="}'
    event = client_events.decode(frame, opted_in=False)
    assert isinstance(event, client_events.AppendAudio)
    assert upstream.append_audio(event.audio, frame) == upstream.append_audio(event.audio)


@pytest.mark.parametrize("spelling", SPELLINGS[:3])
def test_the_clients_own_text_is_taken_over(spelling: str) -> None:
    """Text that ends in other spare bits than ours (RFC 4648 section 3.5) shows that nobody wrote it anew."""
    frame = (spelling % "AQJ=").encode()
    assert upstream.append_audio(b"\x01\x02", frame).endswith(b'"audio":"AQJ="}')


def test_a_command_carries_its_id_and_values() -> None:
    event = msgspec.json.decode(upstream.command("conversation.item.delete", "ol_7", item_id="item_1"))
    assert event == {"type": "conversation.item.delete", "event_id": "ol_7", "item_id": "item_1"}


def test_the_default_session_transcribes_and_only_detects() -> None:
    assert plain(upstream.session_settings(SessionConfig(), "scribe")) == {
        "type": "realtime",
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {"model": "scribe"},
                "turn_detection": {
                    "type": "server_vad",
                    "create_response": False,
                    "interrupt_response": False,
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "marin"},
        },
    }


def test_every_setting_of_a_session_reaches_the_provider() -> None:
    config = SessionConfig(
        modality="text",
        instructions="Be brief.",
        tools=(ToolSpec("stock", "Parts.", '{"type":"object","properties":{}}', runner="gateway"),),
        tool_choice='{"type":"function","name":"stock"}',
        parallel_tool_calls=False,
        max_output_tokens=90,
        voice="cedar",
        speed=1.2,
        turn_detection=TurnDetection("semantic_vad", eagerness="high", idle_timeout_ms=5_000),
        transcription="whisper-1",
        extra='{"transcription":{"model":"x","language":"de"},"noise_reduction":{"type":"near_field"},'
        '"reasoning":{"effort":"low"},"truncation":"auto","prompt":{"id":"p"},"tracing":"auto","include":[]}',
    )
    session = plain(upstream.session_settings(config, "scribe"))
    heard, said = session["audio"]["input"], session["audio"]["output"]
    assert heard["transcription"] == {"model": "whisper-1", "language": "de"}
    assert heard["noise_reduction"] == {"type": "near_field"}
    assert heard["turn_detection"] == {
        "type": "semantic_vad",
        "create_response": False,
        "interrupt_response": False,
        "eagerness": "high",
    }, "an idle timeout of the provider's would speak by itself"
    assert (said["voice"], said["speed"]) == ("cedar", 1.2)
    assert session["tools"] == [
        {
            "type": "function",
            "name": "stock",
            "description": "Parts.",
            "parameters": {"type": "object", "properties": {}},
        }
    ]
    assert session["tool_choice"] == {"type": "function", "name": "stock"}
    assert session["parallel_tool_calls"] is False and session["max_output_tokens"] == 90
    assert session["reasoning"] == {"effort": "low"} and session["truncation"] == "auto"
    assert session["prompt"] == {"id": "p"} and session["tracing"] == "auto" and "include" not in session


def test_no_turn_detection_is_said_so() -> None:
    session = plain(upstream.session_settings(SessionConfig(turn_detection=None), "scribe"))
    assert session["audio"]["input"]["turn_detection"] is None


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, {}),
        ({"instructions": "New."}, {"type": "realtime", "instructions": "New."}),
        ({"tool_choice": '"none"'}, {"type": "realtime", "tool_choice": "none"}),
    ],
)
def test_only_what_changed_is_sent_again(changes: dict[str, Any], shown: JsonObject) -> None:
    tools = (ToolSpec("stock"),)
    old = SessionConfig(tools=tools)
    new = replace(old, tools=(ToolSpec("stock"),), **changes)
    told = upstream.changed_settings(upstream.session_settings(old, "s"), upstream.session_settings(new, "s"))
    assert plain(told) == shown


def test_a_change_on_one_side_of_the_audio_leaves_the_other_alone() -> None:
    old = upstream.session_settings(SessionConfig(), "s")
    new = upstream.session_settings(SessionConfig(turn_detection=None), "s")
    assert list(plain(upstream.changed_settings(old, new))["audio"]) == ["input"]
    louder = upstream.session_settings(SessionConfig(voice="ash"), "s")
    assert list(plain(upstream.changed_settings(old, louder))["audio"]) == ["output"]


def message(role: Any, *parts: Part) -> Item:
    return Item(ItemId("item_1"), "message", "user", role, content=parts)


@pytest.mark.parametrize(
    ("item", "content"),
    [
        (message("user", Part("input_text", "hi")), [{"type": "input_text", "text": "hi"}]),
        (message("user", Part("input_audio", "hi")), [{"type": "input_text", "text": "hi"}]),
        (message("assistant", Part("output_audio", "ho")), [{"type": "output_text", "text": "ho"}]),
        (message("assistant", Part("output_text", "ho")), [{"type": "output_text", "text": "ho"}]),
        (message("assistant", Part("refusal", "no")), [{"type": "output_text", "text": "no"}]),
        (
            message("assistant", Part("output_text", "ho"), Part("reasoning", "{}")),
            [{"type": "output_text", "text": "ho"}],
        ),
        (
            message("user", Part("input_image", image_url="data:image/png;base64,x", detail="low")),
            [{"type": "input_image", "image_url": "data:image/png;base64,x", "detail": "low"}],
        ),
        (
            message("user", Part("input_image", image_url="data:image/png;base64,x"), Part("input_audio")),
            [{"type": "input_image", "image_url": "data:image/png;base64,x"}],
        ),
    ],
)
def test_a_message_is_history_by_its_words(item: Item, content: list[JsonObject]) -> None:
    assert upstream.message_object(item) == {"type": "message", "role": item.role, "content": content}


def test_a_message_that_says_nothing_is_none() -> None:
    assert upstream.message_object(message("user", Part("input_audio"))) is None
    assert upstream.message_object(message("assistant", Part("output_audio", ""))) is None


def test_the_input_of_one_response_refers_to_speech_that_has_no_words_yet() -> None:
    unheard = replace(message("user", Part("input_audio")), id=ItemId("item_known"))
    items = (
        message("user", Part("input_text", "hi")),
        unheard,
        replace(unheard, id=ItemId("item_unknown")),
        Item(ItemId("i2"), "function_call", "assistant", call_id="c1", name="stock"),
        Item(ItemId("i3"), "function_call_output", "tool", call_id="c1", output="7"),
        Item(ItemId("i4"), "mcp_call", "assistant", call_id="c2", name="look", arguments='{"a":1}'),
        Item(ItemId("i5"), "mcp_call", "assistant", call_id="c3", name="look", error="broken"),
    )
    shown = upstream.input_objects(items, {"item_known": "theirs"})
    assert [entry["type"] for entry in shown] == [
        "message",
        "item_reference",
        "function_call",
        "function_call_output",
        "function_call",
        "function_call_output",
        "function_call",
        "function_call_output",
    ]
    assert shown[1] == {"type": "item_reference", "id": "theirs"}
    assert shown[2]["arguments"] == "{}" and shown[4]["arguments"] == '{"a":1}'
    assert shown[5]["output"] == upstream.PENDING and shown[7]["output"] == "broken"


def test_json_of_ours_goes_up_as_it_is() -> None:
    assert plain({"choice": upstream.raw('{"type":"function","name":"x"}')})["choice"]["name"] == "x"
    assert plain(upstream.tool_objects((ToolSpec("x"),)))[0]["parameters"]["type"] == "object"


# ------------------------------------------------------------------------------------------- what comes


EVENTS: list[tuple[dict[str, Any], upstream.ServerEvent]] = [
    ({"type": "session.created", "session": {"id": "s"}}, upstream.SessionCreated()),
    ({"type": "session.updated"}, upstream.SessionUpdated()),
    (
        {"type": "error", "error": {"code": 404, "message": "m", "param": None}},
        upstream.ErrorEvent(upstream.ErrorBody(code=404, message="m")),
    ),
    (
        {"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": 20},
        upstream.SpeechStarted("i", 20),
    ),
    (
        {"type": "input_audio_buffer.speech_stopped", "item_id": "i", "audio_end_ms": 40.5},
        upstream.SpeechStopped("i", 40.5),
    ),
    (
        {"type": "input_audio_buffer.committed", "item_id": "i", "previous_item_id": None},
        upstream.Committed("i"),
    ),
    (
        {"type": "conversation.item.input_audio_transcription.delta", "item_id": "i", "delta": "a"},
        upstream.TranscriptionDelta("i", "a"),
    ),
    (
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "transcript": "a"},
        upstream.TranscriptionCompleted("i", "a"),
    ),
    (
        {"type": "conversation.item.input_audio_transcription.failed", "item_id": "i", "error": None},
        upstream.TranscriptionFailed("i"),
    ),
    (
        {"type": "response.output_audio.delta", "response_id": "r", "output_index": 1, "delta": "AQI="},
        upstream.AudioDelta("r", b"\x01\x02", 1),
    ),
    (
        {"type": "response.output_text.delta", "response_id": "r", "delta": "a", "obfuscation": "x"},
        upstream.TextDelta("r", "a"),
    ),
    ({"type": "response.output_text.done", "response_id": "r", "text": "a"}, upstream.TextDone("r", "a")),
    (
        {"type": "response.function_call_arguments.done", "response_id": "r", "arguments": "{}", "name": "n"},
        upstream.ArgumentsDone("r", "{}", name="n"),
    ),
    (
        {
            "type": "response.output_item.added",
            "response_id": "r",
            "item": {"id": "i", "type": "message", "role": "assistant", "content": []},
        },
        upstream.ItemAdded("r", upstream.Thing("i", "message")),
    ),
]


@pytest.mark.parametrize(("frame", "event"), EVENTS, ids=[frame["type"] for frame, _ in EVENTS])
def test_each_event_is_read(frame: dict[str, Any], event: upstream.ServerEvent) -> None:
    payload = msgspec.json.encode({"event_id": "e", **frame})
    assert upstream.decode(payload) == event
    assert upstream.decode(memoryview(payload)) == event


@pytest.mark.parametrize(
    ("payload", "why", "kind"),
    [
        (b'{"type":"vendor.special","x":1}', "unknown", "vendor.special"),
        (b'{"type":"response.audio.delta","delta":""}', "unknown", "response.audio.delta"),
        (b'{"type":"response.output_audio.delta","response_id":"r","delta":"?"}', "malformed", None),
        (b'{"type":"response.created"}', "malformed", "response.created"),
        (b'{"type":7}', "garbage", ""),
        (b'{"no":"type"}', "garbage", ""),
        (b"[]", "garbage", ""),
        (b"\xff\xfe", "garbage", ""),
        (b"", "garbage", ""),
        (b"[" * 100_000, "garbage", ""),
        (b'{"type":"' + b"x" * 500 + b'"}', "unknown", "x" * 80),
    ],
)
def test_what_cannot_be_used_says_why_and_never_raises(payload: bytes, why: str, kind: str | None) -> None:
    event = upstream.decode(payload)
    assert isinstance(event, upstream.Unusable) and event.why == why
    assert kind is None or event.type == kind


@given(st.binary(max_size=200))
def test_no_bytes_make_decode_raise(payload: bytes) -> None:
    upstream.decode(payload)


@given(
    st.sampled_from([frame for frame, _ in EVENTS]),
    st.recursive(st.none() | st.integers() | st.text(), st.lists),
)
def test_no_wrong_value_makes_decode_raise(frame: dict[str, Any], value: object) -> None:
    for name in frame:
        upstream.decode(msgspec.json.encode({**frame, name: value}))


def test_an_error_may_be_text_or_nothing() -> None:
    for frame, text in ((b'{"type":"error","error":"no model"}', "no model"), (b'{"type":"error"}', None)):
        event = upstream.decode(frame)
        assert isinstance(event, upstream.ErrorEvent) and event.body.message == text


def test_an_error_object_is_its_body() -> None:
    event = upstream.decode(b'{"type":"error","error":{"type":"invalid_request_error","code":"x"}}')
    assert isinstance(event, upstream.ErrorEvent)
    assert event.body == upstream.ErrorBody("invalid_request_error", "x")


def reply(**values: object) -> upstream.Reply:
    return msgspec.json.decode(msgspec.json.encode(values), type=upstream.Reply)


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        ({"status": "completed", "status_details": None}, "completed"),
        ({"status": "completed"}, "completed"),
        ({"status": "incomplete", "status_details": {"reason": "max_output_tokens"}}, "max_output_tokens"),
        ({"status": "incomplete", "status_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "status_details": {"reason": "bored"}}, "failed:response_incomplete"),
        ({"status": "failed", "status_details": {"error": {"code": "rate_limit"}}}, "failed:rate_limit"),
        ({"status": "failed", "status_details": {"error": {"code": "a key: sk-1 !"}}}, "failed:akeysk-1"),
        ({"status": "failed", "status_details": {"error": None}}, "failed:server_error"),
        ({"status": "failed", "status_details": "broken"}, "failed:server_error"),
        ({"status": "cancelled"}, "failed:response_cancelled"),
        ({}, "failed:response_server_error"),
    ],
)
def test_how_a_response_ended(response: dict[str, object], outcome: str) -> None:
    assert upstream.outcome_of(reply(**response)) == outcome


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "input_token_details": {"cached_tokens": 4, "audio_tokens": 6},
                "output_token_details": {"audio_tokens": 3},
            },
            Usage(10, 5, 4, 6, 3),
        ),
        ({"input_tokens": None, "input_token_details": None}, Usage()),
        ("none", Usage()),
    ],
)
def test_usage_is_read_as_far_as_it_is_told(usage: object, read: Usage) -> None:
    assert upstream.usage_of(reply(usage=usage)) == read


def test_a_response_without_usage_used_nothing() -> None:
    assert upstream.usage_of(reply()) == Usage()
    assert upstream.usage_of(reply(usage=None)) == Usage()


# ------------------------------------------------------------------------------------------------ formats


def test_formats_are_told_with_the_settings_and_changed_by_themselves() -> None:
    phone = SessionConfig(input_format="pcmu", output_format="pcma", voice="ash")
    told = plain(upstream.session_settings(phone, "s"))
    assert told["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert told["audio"]["output"]["format"] == {"type": "audio/pcma"}
    old = upstream.session_settings(SessionConfig(), "s")
    changes = plain(upstream.changed_settings(old, upstream.session_settings(phone, "s")))
    assert changes == {"type": "realtime", "audio": {"output": {"voice": "ash"}}}
    assert plain(upstream.format_settings("pcmu", "pcm")) == {
        "type": "realtime",
        "audio": {
            "input": {"format": {"type": "audio/pcmu"}},
            "output": {"format": {"type": "audio/pcm", "rate": 24_000}},
        },
    }


@pytest.mark.parametrize(
    ("session", "told"),
    [
        (b'{"audio":{"input":{"format":{"type":"audio/pcmu"}},"output":{"format":{"type":"audio/pcm","rate":24000}}}}',
         ("pcmu", "pcm")),
        (b'{"audio":{"output":{"format":{"type":"audio/pcma"}}}}', (None, "pcma")),
        (b'{"audio":{"input":{"format":null},"output":{"format":{}}}}', (None, None)),
        (b'{"audio":{"input":{"format":{"type":"audio/opus"}}}}', (None, None)),
        (b'{"audio":null}', (None, None)),
        (b'{"audio":{"input":{"format":"pcm16"}}}', (None, None)),
        (b"", (None, None)),
    ],
)  # fmt: skip
def test_what_a_provider_says_of_its_formats_is_read_as_far_as_it_can_be(
    session: bytes, told: tuple[str | None, str | None]
) -> None:
    assert upstream.formats_of(msgspec.Raw(session)) == told


@pytest.mark.parametrize(
    ("audio", "told"),
    [(b'{"output":{"format":{"type":"audio/pcmu"}}}', "pcmu"), (b"null", None), (b"[]", None), (b"", None)],
)
def test_a_response_may_say_its_format(audio: bytes, told: str | None) -> None:
    assert upstream.reply_format(upstream.Reply(audio=msgspec.Raw(audio))) == told


# ------------------------------------------------------------------------------------- sessions without a reply

SCRIBE = SessionConfig(
    purpose="transcription", transcription="gpt-4o-transcribe", instructions="none", voice="ash"
)


def test_a_transcription_session_has_ears_and_nothing_else() -> None:
    extra = '{"include":["x"],"transcription":{"language":"de","prompt":"p"},"noise_reduction":{"type":"far_field"}}'
    told = plain(upstream.session_settings(replace(SCRIBE, extra=extra), "scribe", "transcription"))
    assert told == {
        "type": "transcription",
        "include": ["x"],
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {"language": "de", "prompt": "p", "model": "gpt-4o-transcribe"},
                "noise_reduction": {"type": "far_field"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            }
        },
    }
    bare = plain(upstream.session_settings(replace(SCRIBE, turn_detection=None), "scribe", "transcription"))
    assert bare["audio"]["input"]["turn_detection"] is None and "include" not in bare
    assert plain(upstream.format_settings("pcmu", "pcm", "transcription")) == {
        "type": "transcription",
        "audio": {"input": {"format": {"type": "audio/pcmu"}}},
    }


def test_what_changes_of_it_is_told_as_what_it_is() -> None:
    old = upstream.session_settings(SCRIBE, "s", "transcription")
    assert upstream.changed_settings(old, old) == {}
    new = upstream.session_settings(replace(SCRIBE, turn_detection=None), "s", "transcription")
    told = plain(upstream.changed_settings(old, new))
    assert told["type"] == "transcription" and told["audio"]["input"]["turn_detection"] is None


def test_a_model_without_turn_detection_is_asked_for_none_and_nothing_is_said_there() -> None:
    live = replace(SCRIBE, transcription="gpt-live-transcribe", output_format="pcmu")
    taken = upstream.as_taken(live)
    assert (taken.turn_detection, taken.output_format) == (None, "pcm")
    assert upstream.as_taken(SCRIBE).turn_detection == SCRIBE.turn_detection
    answered = replace(live, purpose="realtime")
    assert upstream.as_taken(answered) is answered, "beside a conversation the provider detects for itself"


@pytest.mark.parametrize(
    ("session", "kind"), [(b'{"type":"realtime"}', "realtime"), (b"{}", None), (b"[1]", None), (b"", None)]
)
def test_a_session_object_says_what_it_is(session: bytes, kind: str | None) -> None:
    assert upstream.kind_of(msgspec.Raw(session)) == kind
