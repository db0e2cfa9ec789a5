"""Frames that are no facts: deltas, the first frame, errors, receipts; and the ids of all of them."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import msgspec
import pytest

from openline.core.model import Problem
from openline.types import CallId, Epoch, ItemId, ResponseId, Seq, SessionId, TurnId
from openline.wire import frames
from openline.wire.events import EVENTS
from openline.wire.render import RENDERER_VERSION
from wire_samples import (
    CALL_ITEM,
    CONFIG,
    OPTED_IN,
    SESSION,
    SPOKEN,
    STOCK,
    TURN,
    TYPED_ITEM,
    USER_ITEM,
    WRITTEN,
)

RESP, ITEM, CALL = ResponseId('resp_"1"'), ItemId("item_1"), CallId("call_1")
OPENING = frames.Opening(SESSION, Epoch(3), "tok_1", "speaker", "evt_2_40_1", ("evt_2_44",))


def read(frame: bytes) -> dict[str, Any]:
    event: dict[str, Any] = msgspec.json.decode(frame)
    assert event["event_id"] == "evt_3_7_32"
    assert event["type"] in EVENTS
    return event


ID = "evt_3_7_32"


def every_frame() -> dict[str, bytes]:
    return {
        "created": frames.session_created(ID, CONFIG, STOCK),
        "created, opted in": frames.session_created(ID, CONFIG, OPTED_IN, OPENING),
        "error": frames.error_frame(
            ID, Problem("invalid_value", "Invalid value: 'x'.", param="type"), "mine"
        ),
        "bare error": frames.error_frame(ID, Problem("session_expired", "Too long.")),
        "audio": frames.audio_delta(ID, RESP, ITEM, 1, b"\x01\x02" * 480),
        "text": frames.text_delta(ID, RESP, ITEM, 0, 'say "hi"\n'),
        "transcript": frames.transcript_delta(ID, RESP, ITEM, 0, "héllo"),
        "arguments": frames.arguments_delta(ID, RESP, ITEM, 2, CALL, '{"a'),
        "mcp arguments": frames.arguments_delta(ID, RESP, ITEM, 2, None, '{"a'),
        "retrieved": frames.item_retrieved(ID, USER_ITEM, STOCK, "AAAA"),
        "retrieved silent": frames.item_retrieved(ID, SPOKEN, STOCK),
        "retrieved call": frames.item_retrieved(ID, CALL_ITEM, STOCK, "AAAA"),
        "retrieved text": frames.item_retrieved(ID, WRITTEN, STOCK, "AAAA"),
    }


@pytest.mark.parametrize("name", every_frame())
def test_openais_own_types_take_every_frame(name: str) -> None:
    realtime = pytest.importorskip("openai.types.realtime")
    pydantic = pytest.importorskip("pydantic")
    frame = every_frame()[name]
    event = pydantic.TypeAdapter(realtime.RealtimeServerEvent).validate_json(frame)
    assert event.type == read(frame)["type"]


# ---------------------------------------------------------------------------------------------------- ids


def test_ids_count_from_32_and_name_the_last_durable_seq() -> None:
    ids = frames.EventIds(Epoch(3))
    assert [ids.next(Seq(0)), ids.next(Seq(7)), ids.next(Seq(7))] == [
        "evt_3_0_32",
        "evt_3_7_64",
        "evt_3_7_96",
    ]
    assert frames.event_id(Epoch(1), Seq(2), 3) == "evt_1_2_3"


@pytest.mark.parametrize("seen", [0, 1, 7, 30, 31])
def test_an_id_says_how_much_of_its_fact_was_sent(seen: int) -> None:
    ids = frames.EventIds(Epoch(3))
    for _ in range(3):
        place = frames.parse_event_id(ids.next(Seq(7), seen))
        assert place is not None and place[2] >= 32
        assert frames.last_seen(place[2]) == seen
    assert frames.last_seen(seen) == seen


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("evt_3_7_32", (3, 7, 32)),
        ("evt_1_0_0", (1, 0, 0)),
        ("", None),
        ("evt_3_7", None),
        ("evt_3_7_32\n", None),
        ("evt_-3_7_32", None),
        ("evt_٣_7_32", None),
        ("evt_1_" + "9" * 19 + "_1", None),
        ("event_3_7_32", None),
    ],
)
def test_only_our_ids_are_places(text: str, place: tuple[int, int, int] | None) -> None:
    assert frames.parse_event_id(text) == place


# ------------------------------------------------------------------------------------------------- deltas


def test_audio_goes_out_as_base64() -> None:
    event = read(every_frame()["audio"])
    assert base64.b64decode(event.pop("delta"), validate=True) == b"\x01\x02" * 480
    assert event == {
        "type": "response.output_audio.delta",
        "response_id": 'resp_"1"',
        "item_id": "item_1",
        "output_index": 1,
        "content_index": 0,
        "event_id": ID,
    }


def test_text_is_escaped() -> None:
    assert read(every_frame()["text"])["delta"] == 'say "hi"\n'
    assert read(every_frame()["transcript"])["delta"] == "héllo"
    assert read(every_frame()["transcript"])["content_index"] == 0


def test_arguments_name_their_call() -> None:
    event = read(every_frame()["arguments"])
    assert (event["type"], event["call_id"], event["delta"]) == (
        "response.function_call_arguments.delta",
        "call_1",
        '{"a',
    )
    server_run = read(every_frame()["mcp arguments"])
    assert server_run["type"] == "response.mcp_call_arguments.delta"
    assert server_run["obfuscation"] == "", "agents-js ignores the frame without it"
    assert "call_id" not in server_run and "content_index" not in server_run


def test_partials_hold_the_whole_turn() -> None:
    event = read(frames.user_partial(ID, TURN, USER_ITEM.id, "two bolts"))
    assert event == {
        "type": "openline.turn.partial",
        "event_id": ID,
        "turn_id": TurnId("turn_1"),
        "item_id": "item_u",
        "text": "two bolts",
    }


def test_words_of_a_turn_that_is_written_down_are_added_to_those_before() -> None:
    event = read(frames.transcription_delta(ID, USER_ITEM.id, " bolts"))
    assert event == {
        "type": "conversation.item.input_audio_transcription.delta",
        "event_id": ID,
        "item_id": "item_u",
        "content_index": 0,
        "delta": " bolts",
    }


# ------------------------------------------------------------------------------------------ one connection


def test_the_first_frame_tells_opted_in_clients_how_to_come_back() -> None:
    assert "openline" not in read(every_frame()["created"])
    assert "openline" not in read(frames.session_created(ID, CONFIG, STOCK, OPENING))
    assert "openline" not in read(frames.session_created(ID, CONFIG, OPTED_IN))
    event = read(every_frame()["created, opted in"])
    assert event["session"]["id"] == SESSION
    assert event["openline"] == {
        "session_id": "sess_1",
        "epoch": 3,
        "token": "tok_1",
        "role": "speaker",
        "resumed_from": "evt_2_40_1",
        "lost": ["evt_2_44"],
        "renderer": RENDERER_VERSION,
    }


def test_errors_name_the_clients_event_when_there_is_one() -> None:
    assert read(every_frame()["error"])["error"] == {
        "type": "invalid_request_error",
        "code": "invalid_value",
        "message": "Invalid value: 'x'.",
        "param": "type",
        "event_id": "mine",
    }
    assert read(every_frame()["bare error"])["error"] == {
        "type": "invalid_request_error",
        "code": "session_expired",
        "message": "Too long.",
    }


def test_receipts_and_rewinds() -> None:
    assert read(frames.receipt(ID, "cmd_1", "duplicate", Seq(9))) == {
        "type": "openline.command.settled",
        "event_id": ID,
        "command": "cmd_1",
        "outcome": "duplicate",
        "seq": 9,
    }
    assert read(frames.rewound(ID, Epoch(2), Seq(40))) == {
        "type": "openline.session.rewound",
        "event_id": ID,
        "epoch": 2,
        "seq": 40,
    }


def test_an_item_created_again_is_shown_again() -> None:
    added, done = frames.item_resent(("evt_1_2_33", "evt_1_2_34"), TYPED_ITEM, None, STOCK)
    assert msgspec.json.decode(added)["type"] == "conversation.item.added"
    event = msgspec.json.decode(done)
    assert (event["type"], event["event_id"]) == ("conversation.item.done", "evt_1_2_34")
    assert event["previous_item_id"] is None


def test_a_retrieved_item_holds_its_audio_when_it_was_spoken() -> None:
    spoken = read(every_frame()["retrieved"])["item"]
    assert spoken["content"] == [{"type": "input_audio", "transcript": "two bolts please", "audio": "AAAA"}]
    assert "audio" not in read(every_frame()["retrieved silent"])["item"]["content"][0]
    assert "audio" not in read(every_frame()["retrieved text"])["item"]["content"][0]
    assert "content" not in read(every_frame()["retrieved call"])["item"]
    view = dataclasses.replace(OPTED_IN, session=SessionId("other"))
    assert read(frames.item_retrieved(ID, SPOKEN, view))["item"]["openline"] == {"author": "assistant"}
