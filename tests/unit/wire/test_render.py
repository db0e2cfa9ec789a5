"""Facts as frames: the orders of the live service (openai-protocols.md B.6), and frames that strict clients take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from openline.core import facts as f
from openline.core.facts import ALL_FACTS, Fact
from openline.core.model import Part, Problem, ResponseRequest
from openline.core.value import replace
from openline.types import Epoch, Seq
from openline.wire.envelope import UnknownFact
from openline.wire.events import EVENTS, GA_EVENTS, OPENLINE_EVENTS
from openline.wire.render import MAX_FRAMES, OPENLINE_FACTS, STOCK_FACTS, UNSEEN, View, render, rendering
from wire_samples import (
    CALL_ITEM,
    CONFIG,
    CONN,
    MCP_ITEM,
    OPTED_IN,
    OUT_OF_BAND,
    OUTPUT_ITEM,
    SPOKEN,
    STOCK,
    TRANSCRIBES,
    TURN,
    TYPED_ITEM,
    USER_ITEM,
    WRITTEN,
    added,
    committed,
    created,
    done,
    every_fact,
    frames_of,
    item_done,
    kinds_of,
)

# ------------------------------------------------------------------------------------------- the orders

ADDED_AND_DONE = ["conversation.item.added", "conversation.item.done"]


def test_a_text_turn() -> None:
    story = [
        f.ItemCreated(TYPED_ITEM, None, CONN, ""),
        created(),
        added(WRITTEN, "text"),
        item_done(WRITTEN, "text"),
        done(),
    ]
    assert kinds_of(story) == [
        *ADDED_AND_DONE,
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]


def test_an_audio_reply() -> None:
    assert kinds_of([created(), added(SPOKEN), item_done(SPOKEN), done()]) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]


def test_a_spoken_turn() -> None:
    story = [
        f.SpeechStarted(TURN, USER_ITEM.id, 24_000, 1_000),
        f.SpeechStopped(TURN, USER_ITEM.id, 60_000, 2_500),
        committed(text=None),
        created(),
        f.TurnTranscribed(TURN, USER_ITEM.id, "two bolts please", None, 1_500, ""),
    ]
    assert kinds_of(story) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        *ADDED_AND_DONE,
        "response.created",
        "conversation.item.input_audio_transcription.completed",
    ]


def test_a_spoken_turn_whose_words_are_known() -> None:
    first, item, again, words = frames_of([committed()])
    assert first == {
        "type": "input_audio_buffer.committed",
        "event_id": "evt_1_1_0",
        "previous_item_id": None,
        "item_id": "item_u",
    }
    assert (
        item["item"]["content"] == again["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    )
    assert words == {
        "type": "conversation.item.input_audio_transcription.completed",
        "event_id": "evt_1_1_3",
        "item_id": "item_u",
        "content_index": 0,
        "transcript": "two bolts please",
        "usage": {"type": "duration", "seconds": 1.5},
    }


def test_a_typed_turn_was_shown_already() -> None:
    assert kinds_of([committed(item=None)]) == []
    (own,) = frames_of([committed(item=None)], OPTED_IN)
    assert own["text_items"] == ["item_t"]


def test_a_failed_transcription_says_so() -> None:
    (frame,) = frames_of([f.TurnTranscribed(TURN, USER_ITEM.id, "", None, 1_500, "timeout")])
    assert frame["type"] == "conversation.item.input_audio_transcription.failed"
    assert frame["error"]["code"] == "timeout"


def test_a_function_call() -> None:
    story = [created(), added(CALL_ITEM), item_done(CALL_ITEM), done(output=(CALL_ITEM,))]
    frames = frames_of([*story, f.ItemCreated(OUTPUT_ITEM, CALL_ITEM.id, CONN, "")])
    assert [frame["type"] for frame in frames] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        *ADDED_AND_DONE,
    ]
    assert frames[1]["item"]["arguments"] == "" and frames[1]["item"]["status"] == "in_progress"
    assert frames[3] == {
        "type": "response.function_call_arguments.done",
        "event_id": "evt_1_3_0",
        "response_id": "resp_1",
        "item_id": "item_c",
        "output_index": 0,
        "call_id": "call_1",
        "name": "stock",
        "arguments": '{"part":"M6"}',
    }


def test_a_call_that_was_cut_is_never_handed_to_be_run() -> None:
    frames = frames_of([item_done(CALL_ITEM, shown_end=0)])
    assert [frame["type"] for frame in frames] == ["conversation.item.done", "response.output_item.done"]
    assert frames[1]["item"]["status"] == "incomplete"


def test_a_tool_that_the_gateway_runs() -> None:
    settled = replace(MCP_ITEM, output="42")
    story = [
        created(),
        added(MCP_ITEM),
        item_done(MCP_ITEM),
        done(output=(MCP_ITEM,)),
        f.ToolSettled(USER_ITEM.id, 1, "succeeded", settled, None),  # type: ignore[arg-type]  # any id will do
    ]
    frames = frames_of(story)
    assert [frame["type"] for frame in frames] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress",
        "response.output_item.done",
        "response.done",
        "conversation.item.done",
    ]
    assert frames[-1]["item"]["output"] == "42"


def test_a_tool_with_nothing_to_say_has_settled_all_the_same() -> None:
    (frame,) = frames_of([f.ToolSettled(CALL_ITEM.id, 1, "succeeded", MCP_ITEM, None)])  # type: ignore[arg-type]  # any id
    assert frame["item"]["output"] == ""


def test_a_server_run_call_that_was_cut_ends_at_once() -> None:
    cut_call = replace(MCP_ITEM, error="cancelled before it was complete")
    assert kinds_of([item_done(cut_call, shown_end=0)]) == [
        "conversation.item.done",
        "response.output_item.done",
    ]


def test_an_out_of_band_response_touches_no_conversation() -> None:
    story = [
        created(OUT_OF_BAND, "text"),
        added(WRITTEN, "text", in_conversation=False),
        item_done(WRITTEN, "text", in_conversation=False),
        done(in_conversation=False, metadata=OUT_OF_BAND.metadata),
    ]
    frames = frames_of(story)
    assert [frame["type"] for frame in frames] == [
        "response.created",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    for frame in (frames[0], frames[-1]):
        assert frame["response"]["conversation_id"] is None
        assert frame["response"]["metadata"] == {"topic": "mood"}


# -------------------------------------------------------------------------------------------- the fields


def test_an_item_that_begins_is_empty_and_its_part_is_named_as_parts_are() -> None:
    begun, in_conversation, part = frames_of([added(SPOKEN)])
    assert begun["item"] == in_conversation["item"]
    assert begun["item"] == {
        "id": "item_a",
        "object": "realtime.item",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }
    assert in_conversation["previous_item_id"] == "item_u"
    assert part["part"] == {"type": "audio", "transcript": ""}
    assert frames_of([added(WRITTEN, "text")])[2]["part"] == {"type": "text", "text": ""}


def test_items_say_output_audio_where_parts_say_audio() -> None:
    frames = frames_of([item_done(SPOKEN)])
    assert frames[1]["transcript"] == "Good morning."
    assert frames[2]["part"] == {"type": "audio", "transcript": "Good morning."}
    assert frames[3]["item"]["content"] == [{"type": "output_audio", "transcript": "Good morning."}]
    assert frames[3]["item"] == frames[4]["item"]


def test_what_was_not_heard_is_not_shown() -> None:
    frames = frames_of([item_done(SPOKEN, shown_end=4)])
    assert frames[1]["transcript"] == "Good"
    assert frames[2]["part"]["transcript"] == "Good"
    assert frames[4]["item"]["content"] == [{"type": "output_audio", "transcript": "Good"}]
    assert frames[4]["item"]["status"] == "incomplete"
    assert b"morning" not in b"".join(
        frame
        for _, frame in render(item_done(SPOKEN, shown_end=4), epoch=Epoch(1), seq=Seq(1), view=OPTED_IN)
    )


def test_the_response_object_at_both_ends() -> None:
    (begun,) = frames_of([created()])
    assert begun["response"] == {
        "object": "realtime.response",
        "id": "resp_1",
        "conversation_id": "conv_sess_1",
        "output_modalities": ["audio"],
        "max_output_tokens": "inf",
        "audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin"}},
        "status": "in_progress",
        "output": [],
    }
    (ended,) = frames_of([done()])
    response = ended["response"]
    assert (response["status"], response["max_output_tokens"]) == ("completed", 100)
    assert response["output"] == [
        {
            "id": "item_a",
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_audio", "transcript": "Good morning."}],
        }
    ]
    assert response["usage"] == {
        "total_tokens": 50,
        "input_tokens": 30,
        "output_tokens": 20,
        "input_token_details": {"text_tokens": 25, "audio_tokens": 5, "image_tokens": 0, "cached_tokens": 10},
        "output_token_details": {"text_tokens": 5, "audio_tokens": 15},
    }


@pytest.mark.parametrize(
    ("fact", "details"),
    [
        (done(), None),
        (done("cancelled", "turn_detected"), {"type": "cancelled", "reason": "turn_detected"}),
        (done("incomplete", "max_output_tokens"), {"type": "incomplete", "reason": "max_output_tokens"}),
        (done("incomplete", "crash"), {"type": "incomplete"}),
        (
            done("failed", "", Problem("insufficient_quota", "No quota left.", "server_error")),
            {
                "type": "failed",
                "error": {"type": "server_error", "code": "insufficient_quota", "message": "No quota left."},
            },
        ),
        (
            done("failed", "silence"),
            {
                "type": "failed",
                "error": {"type": "server_error", "code": "silence", "message": "The response failed."},
            },
        ),
        (
            done("failed"),
            {
                "type": "failed",
                "error": {"type": "server_error", "code": "failed", "message": "The response failed."},
            },
        ),
    ],
)
def test_status_details_hold_only_the_protocols_reasons(fact: Fact, details: dict[str, Any] | None) -> None:
    (frame,) = frames_of([fact])
    assert frame["response"].get("status_details") == details


def test_session_updated_shows_the_whole_session() -> None:
    view = dataclasses.replace(STOCK, expires_at=1_790_003_600)
    (frame,) = frames_of([f.SessionUpdated(CONFIG, CONN, "")], view)
    assert frame["session"]["id"] == "sess_1"
    assert frame["session"]["expires_at"] == 1_790_003_600
    assert [tool["name"] for tool in frame["session"]["tools"]] == ["stock"]


def test_small_facts_carry_their_fields() -> None:
    story = [
        f.SpeechStarted(TURN, USER_ITEM.id, 24_000, 1_000),
        f.SpeechStopped(TURN, USER_ITEM.id, 60_000, 2_500),
        f.InputCleared(CONN, ""),
        f.ItemDeleted(TYPED_ITEM.id, CONN, ""),
        f.ItemTruncated(SPOKEN.id, 0, 400, CONN, ""),
    ]
    kept = [{k: v for k, v in frame.items() if k not in ("type", "event_id")} for frame in frames_of(story)]
    assert kept == [
        {"audio_start_ms": 1000, "item_id": "item_u"},
        {"audio_end_ms": 2500, "item_id": "item_u"},
        {},
        {"item_id": "item_t"},
        {"item_id": "item_a", "content_index": 0, "audio_end_ms": 400},
    ]


# ------------------------------------------------------------------------------------- who sees what


@pytest.mark.parametrize("fact", every_fact(), ids=lambda fact: fact.TYPE)
def test_ids_do_not_depend_on_who_looks(fact: Fact) -> None:
    def shown(view: View) -> dict[int, str]:
        frames = render(fact, epoch=Epoch(3), seq=Seq(7), view=view)
        assert [n for n, _ in frames] == sorted({n for n, _ in frames})
        assert all(0 <= n < MAX_FRAMES for n, _ in frames)
        kinds = {}
        for n, frame in frames:
            read = msgspec.json.decode(frame)
            assert read["event_id"] == f"evt_3_7_{n}"
            kinds[n] = read["type"]
        return kinds

    stock, all_of_it = shown(STOCK), shown(OPTED_IN)
    assert stock == {n: kind for n, kind in all_of_it.items() if not kind.startswith("openline.")}
    assert list(all_of_it) == list(range(len(all_of_it)))


@pytest.mark.parametrize("fact", every_fact(), ids=lambda fact: fact.TYPE)
def test_stock_clients_see_nothing_of_ours(fact: Fact) -> None:
    for _, frame in render(fact, epoch=Epoch(1), seq=Seq(1), view=STOCK):
        assert b"openline" not in frame.replace(b'"server_label":"openline"', b"")


@pytest.mark.parametrize("fact", every_fact(), ids=lambda fact: fact.TYPE)
def test_no_secret_is_shown(fact: Fact) -> None:
    shown = b"".join(frame for _, frame in render(fact, epoch=Epoch(1), seq=Seq(1), view=OPTED_IN))
    for secret in (b"c0ffee", b"decaf", b"sess_1:call_1", b"secret plan"):
        assert secret not in shown


def test_our_frames_carry_seq_and_the_facts_own_fields() -> None:
    (heard,) = frames_of([f.ItemHeard(SPOKEN.id, 400, 4, "paced", True)], OPTED_IN)
    assert heard == {
        "type": "openline.item.heard",
        "event_id": "evt_1_1_0",
        "seq": 1,
        "item_id": "item_a",
        "audio_end_ms": 400,
        "text_end": 4,
        "source": "paced",
        "estimated": True,
    }
    turn = frames_of([committed()], OPTED_IN)[-1]
    assert (turn["type"], turn["text"], turn["confidence"]) == (
        "openline.turn.committed",
        "two bolts please",
        0.8,
    )
    assert turn["item"]["content"] == [{"type": "input_audio", "transcript": "two bolts please"}]
    (held,) = frames_of([f.ResponseHeld(ResponseRequest(origin="tool"))], OPTED_IN)
    assert held["origin"] == "tool"


def test_opted_in_clients_learn_why_and_for_what() -> None:
    begun, ended = frames_of([created(), done("incomplete", "crash")], OPTED_IN)
    assert begun["response"]["openline"] == {"attempt": 1, "origin": "client", "turn_id": "turn_1"}
    assert ended["response"]["openline"] == {"reason": "crash"}
    (unasked,) = frames_of([replace(created(), turn_id=None)], OPTED_IN)
    assert "turn_id" not in unasked["response"]["openline"]
    (whole,) = frames_of([done()], OPTED_IN)
    assert "openline" not in whole["response"]


def test_every_fact_has_its_place() -> None:
    assert {type(fact) for fact in every_fact()} == set(ALL_FACTS)
    assert set(STOCK_FACTS) | set(OPENLINE_FACTS) | UNSEEN == set(ALL_FACTS)
    assert not UNSEEN & (set(STOCK_FACTS) | set(OPENLINE_FACTS))
    for kind in OPENLINE_FACTS:
        assert kind.TYPE.startswith("openline.")


def test_facts_of_a_newer_version_are_not_shown() -> None:
    assert (
        render(UnknownFact("openline.moon.reached", b"\x80"), epoch=Epoch(1), seq=Seq(1), view=OPTED_IN) == []
    )


# ----------------------------------------------------------------------------- what strict clients need


def nulls(value: object, name: str = "") -> Iterator[str]:
    if value is None:
        yield name
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nulls(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from nulls(inner, name)


@pytest.mark.parametrize("fact", every_fact(), ids=lambda fact: fact.TYPE)
def test_optional_keys_are_left_out_and_not_null(fact: Fact) -> None:
    for frame in frames_of([fact], OPTED_IN):
        assert set(nulls(frame)) <= {"previous_item_id", "transcript", "conversation_id", "output"}


@pytest.fixture(scope="module")
def stock_adapter() -> Any:
    """The server events of openai-python, checked as openai-agents checks them: each frame or none of it."""
    realtime = pytest.importorskip("openai.types.realtime")
    pydantic = pytest.importorskip("pydantic")
    return pydantic.TypeAdapter(realtime.RealtimeServerEvent)


@pytest.mark.parametrize("fact", every_fact(), ids=lambda fact: fact.TYPE)
def test_openais_own_types_take_every_frame(fact: Fact, stock_adapter: Any) -> None:
    for view in (STOCK, OPTED_IN):
        for _, frame in render(fact, epoch=Epoch(1), seq=Seq(1), view=view):
            kind = msgspec.json.decode(frame)["type"]
            if kind.startswith("openline."):
                continue
            read = stock_adapter.validate_json(frame)
            assert read.type == kind
            if hasattr(read, "item"):
                assert read.item.type == msgspec.json.decode(frame)["item"]["type"]


def test_the_adapter_would_notice(stock_adapter: Any) -> None:
    pydantic = pytest.importorskip("pydantic")
    _, frame = render(added(SPOKEN), epoch=Epoch(1), seq=Seq(1), view=STOCK)[2]
    for broken in (
        frame.replace(b'"audio"', b'"output_audio"'),
        frame.replace(b'"event_id"', b'"id"'),
        frame.replace(b"content_part.added", b"content_part.begun"),
    ):
        with pytest.raises(pydantic.ValidationError):
            stock_adapter.validate_json(broken)


# ------------------------------------------------------------------------------------ the table of events


def test_every_event_of_openai_is_listed(stock_adapter: Any) -> None:
    schema = stock_adapter.json_schema()
    listed = {event.name for event in GA_EVENTS}
    known = {
        definition["properties"]["type"]["const"]
        for name, definition in schema["$defs"].items()
        if "event_id" in definition.get("properties", {})
        and "const" in definition["properties"].get("type", {})
    }
    assert known - {"error"} <= listed
    assert len(listed) == len(GA_EVENTS) == 46
    assert len(EVENTS) == len(GA_EVENTS) + len(OPENLINE_EVENTS)


def test_the_table_says_what_the_renderer_does() -> None:
    rendered: dict[str, set[type[Fact]]] = {}
    for fact in every_fact():
        for view in (OPTED_IN, TRANSCRIBES):
            for kind, _ in rendering(fact, Seq(1), view):
                rendered.setdefault(kind, set()).add(type(fact))
    table = {event.name: set(event.facts) for event in EVENTS.values() if event.origin == "rendered"}
    assert table == rendered
    for event in EVENTS.values():
        assert (event.origin == "rendered") == bool(event.facts)
        assert all(fact.CLASS == event.kind for fact in event.facts if event.kind == "effect")


TRANSCRIPTION = "conversation.item.input_audio_transcription"


def test_who_transcribes_is_told_the_words_as_a_delta_too() -> None:
    """Its concatenated deltas are the transcript, as on the service, and nothing is taken back."""
    late = f.TurnTranscribed(TURN, USER_ITEM.id, "and a nut", None, 1_500, "")
    for fact, text in ((committed(), "two bolts please"), (late, "and a nut")):
        delta, completed = frames_of([fact], TRANSCRIBES)[-2:]
        assert (delta["type"], completed["type"]) == (f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed")
        assert (delta["item_id"], delta["content_index"], delta["delta"]) == (USER_ITEM.id, 0, text)
        assert completed["transcript"] == text
        assert f"{TRANSCRIPTION}.delta" not in kinds_of([fact], STOCK)


@pytest.mark.parametrize(
    ("said", "rest"), [("and", [" a nut"]), ("and a nut", []), ("and a bolt", []), ("", ["and a nut"])]
)
def test_of_words_that_were_given_as_they_came_only_the_rest_is_a_delta(said: str, rest: list[str]) -> None:
    late = f.TurnTranscribed(TURN, USER_ITEM.id, "and a nut", None, 1_500, "")
    view = dataclasses.replace(TRANSCRIBES, words={USER_ITEM.id: said})
    frames = frames_of([late], view)
    assert [frame["delta"] for frame in frames if frame["type"] == f"{TRANSCRIPTION}.delta"] == rest
    assert frames[-1]["transcript"] == "and a nut", "what was taken back is put right by the whole"


def test_where_nothing_was_said_there_is_no_delta() -> None:
    nothing = f.TurnTranscribed(TURN, USER_ITEM.id, "", None, 1_500, "")
    assert kinds_of([nothing], TRANSCRIBES) == [f"{TRANSCRIPTION}.completed"]


def test_silence_that_became_a_turn() -> None:
    silent = replace(USER_ITEM, content=(Part("input_audio", ""),))
    story = [f.InputTimedOut(silent.id, 1_000, 2_500), committed("", silent), created()]
    shown = frames_of(story)
    assert [frame["type"] for frame in shown] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        *ADDED_AND_DONE,
        f"{TRANSCRIPTION}.completed",
        "response.created",
    ]
    assert {"audio_start_ms": 1_000, "audio_end_ms": 2_500, "item_id": silent.id}.items() <= shown[0].items()


def test_a_response_says_in_which_format_it_speaks() -> None:
    first = frames_of([replace(created(), output_format="pcma")])[0]
    last = frames_of([replace(done(), output_format="pcmu")])[0]
    assert first["response"]["audio"]["output"]["format"] == {"type": "audio/pcma"}
    assert last["response"]["audio"]["output"]["format"] == {"type": "audio/pcmu"}
    assert frames_of([done()])[0]["response"]["audio"]["output"]["format"]["rate"] == 24_000


def test_parts_without_audio_count_no_seconds() -> None:
    typed = replace(USER_ITEM, content=(Part("input_audio", "hi"),))
    assert frames_of([committed("hi", typed)])[3]["usage"]["seconds"] == 0
