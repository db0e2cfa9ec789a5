"""The upstream link against a provider that behaves: turns, replies, tools, history, renewal.

Covers B1, B2, B14, D4, D12, E3, F1, F3, G1, G5 and G11 of the failure catalogue. Faults stand in
test_link_openai_realtime_faults.py, stories through whole gateways in test_two_gateways.py.
"""

from __future__ import annotations

import asyncio
import time

from integration.upstream import (
    LOUD,
    MANUAL,
    QUIET,
    Scene,
    ask,
    play,
    speak,
    spoken,
    typed,
    until,
)
from openline.core.model import Item, Part, SessionConfig, ToolSpec
from openline.core.value import replace
from openline.testing.fake_realtime import FakeReply
from openline.types import ItemId, ResponseId

# ------------------------------------------------------------------------------------------ a conversation


def test_a_text_turn_is_asked_for_under_our_id_and_comes_back_under_it() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(SessionConfig(modality="text", turn_detection=None))
        assert scene.sink.names() == ["opened"] and scene.fake.seen_keys == ["sk-test"]
        scene.sink.add(typed("item_a", "hello there"))
        scene.link.start_response(ask("resp_1", SessionConfig(modality="text")))
        await scene.done()
        assert scene.sink.text[ResponseId("resp_1")] == "echo hello there"
        assert scene.sink.names()[1:] == ["message_started", "message_finished", "response_finished"]
        assert scene.sink.events[-1] == ("response_finished", "resp_1", "completed")
        assert connection.of("response.create")[0]["response"]["metadata"] == {"openline_response": "resp_1"}
        assert connection.items[0]["id"] == "item_a" and not connection.errors

    play(do)


def test_the_provider_only_detects_and_never_replies_by_itself() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(SessionConfig())
        heard = connection.session["audio"]["input"]
        assert heard["turn_detection"]["create_response"] is False
        assert heard["turn_detection"]["interrupt_response"] is False
        assert heard["transcription"] == {"model": "gpt-4o-mini-transcribe"}

    play(do)


def test_a_spoken_turn_is_the_providers_item_under_our_name() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.transcripts = ["two screws please"]
        connection = await scene.open(SessionConfig())
        scene.link.append_audio(QUIET)
        speak(scene)
        await until(lambda: scene.sink.has("turn_final"))
        told = scene.sink.names()
        assert told == ["opened", "speech_started", "speech_stopped", "turn_committed", "turn_final"]
        assert scene.sink.of("speech_started")[0][1] == 480
        start, end = 480, 480 + 10 * 480 + 25 * 480
        assert scene.sink.of("turn_committed")[0] == ("turn_committed", start, end)
        assert scene.sink.events[-1][1:] == ("item_turn0", "two screws please", start, end)
        assert len(connection.items) == 1, "our item is the provider's, not a second one"
        scene.link.remove_item(ItemId("item_turn0"))
        await until(lambda: not connection.items)

    play(do)


def test_text_that_comes_before_our_name_waits_for_it() -> None:
    async def do(scene: Scene) -> None:
        scene.sink.names_items = False
        connection = await scene.open(SessionConfig())
        speak(scene)
        await until(lambda: connection.items and scene.sink.has("turn_committed"))
        await asyncio.sleep(0.02)
        assert not scene.sink.has("turn_final")
        _, start, end = scene.sink.of("turn_committed")[0]
        scene.sink.add(spoken("item_late", int(str(start)), int(str(end))))
        assert scene.sink.events[-1][:3] == ("turn_final", "item_late", "hello")

    play(do)


def test_words_of_a_turn_that_is_over_are_told_under_our_name() -> None:
    """Also those that came before it had one; and none after its text."""

    async def do(scene: Scene) -> None:
        scene.sink.names_items = False
        scene.fake.transcripts, scene.fake.transcript_pace_s = ["one two three"], 0.1
        await scene.open(SessionConfig())
        speak(scene)
        await until(lambda: scene.sink.has("turn_committed"))
        await asyncio.sleep(0.15)
        assert not scene.sink.has("transcript_partial")
        _, start, end = scene.sink.of("turn_committed")[0]
        scene.sink.add(spoken("item_late", int(str(start)), int(str(end))))
        await until(lambda: scene.sink.has("turn_final"))
        told = [event[1:] for event in scene.sink.of("transcript_partial")]
        assert told == [("item_late", "one two "), ("item_late", "one two three ")]
        assert scene.sink.events[-1][0] == "turn_final"

    play(do)


def test_a_turn_that_the_session_did_not_take_is_taken_from_the_model_too() -> None:
    async def do(scene: Scene) -> None:
        scene.sink.names_items = False
        connection = await scene.open(SessionConfig())
        speak(scene)
        speak(scene, frames=20)
        await until(lambda: len(scene.sink.of("turn_committed")) == 2)
        _, start, end = scene.sink.of("turn_committed")[1]
        scene.sink.add(spoken("item_second", int(str(start)), int(str(end))))
        await until(lambda: len(connection.items) == 1)
        assert scene.sink.of("turn_final")[0][1] == "item_second"

    play(do)


def test_a_transcription_that_fails_says_so_for_its_turn() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.transcripts = ["(failed)"]
        await scene.open(SessionConfig())
        speak(scene)
        await until(lambda: scene.sink.has("turn_failed"))
        assert scene.sink.events[-1] == ("turn_failed", "item_turn0", "audio_unintelligible")

    play(do)


def test_a_manual_commit_is_mapped_and_one_that_is_too_short_fails_its_turn() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.link.commit_audio(ItemId("item_short"), 0, 10)
        await until(lambda: scene.sink.has("turn_failed"))
        assert scene.sink.events[-1] == ("turn_failed", "item_short", "input_audio_buffer_commit_empty")
        speak(scene)
        scene.link.commit_audio(ItemId("item_long"), 0, 19_200)
        await until(lambda: scene.sink.has("turn_final"))
        assert scene.sink.of("turn_final") == [("turn_final", "item_long", "hello", 0, 19_200)]
        assert len(connection.items) == 1

    play(do)


def test_audio_of_an_earlier_link_is_heard_again_and_moves_no_later_turn() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(SessionConfig())
        assert scene.link.recognize(ItemId("item_before"), LOUD * 50)
        assert not scene.link.recognize(ItemId("item_tiny"), LOUD)
        await until(lambda: scene.sink.has("turn_final"))
        assert scene.sink.events[-1][1] == "item_before"
        assert not scene.sink.has("speech_started"), "it is no speech of now"
        assert connection.session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
        speak(scene)
        await until(lambda: scene.sink.has("turn_committed"))
        assert scene.sink.of("speech_started")[0][1] == 0

    play(do)


def test_a_spoken_reply_carries_all_audio_and_its_words() -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.fake.plan(FakeReply("one two three", audio_ms=500))
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        assert len(scene.sink.audio[ResponseId("resp_1")]) == 500 * 48
        assert scene.sink.text[ResponseId("resp_1")] == "one two three"

    play(do)


TOOL = ToolSpec("stock", "Parts in stock.", '{"type":"object","properties":{"part":{"type":"string"}}}')


def test_a_call_of_the_gateway_is_answered_upstream_under_the_providers_call_id() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(replace(MANUAL, tools=(TOOL,)))
        assert connection.session["tools"][0]["name"] == "stock"
        scene.fake.plan(FakeReply("", (("stock", '{"part":"M8"}'), ("stock", '{"part":"M9"}'))))
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        calls = scene.sink.of("call_started")
        assert [call[4] for call in calls] == ["stock", "stock"]
        assert scene.sink.of("call_finished")[1] == ("call_finished", "resp_1", 1, '{"part":"M9"}')
        for index, output in ((1, "9"), (0, "8")):
            item = Item(
                ItemId(f"item_resp_1_{index}"),
                "mcp_call",
                "assistant",
                call_id=str(calls[index][3]),
                name="stock",
                output=output,
            )
            scene.sink.add(item)
        await until(lambda: len(connection.items) == 4)
        outputs = {item["call_id"]: item["output"] for item in connection.items if "output" in item}
        assert outputs == {calls[0][3]: "8", calls[1][3]: "9"} and not connection.errors
        scene.link.start_response(ask("resp_2"))
        await scene.done(2)
        assert scene.sink.text[ResponseId("resp_2")].startswith("result ")

    play(do)


def test_a_clients_answer_finds_its_call_also_when_the_session_renamed_it() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.fake.plan(FakeReply("", (("stock", "{}"),)))
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        call = Item(
            ItemId("item_resp_1_0"), "function_call", "assistant", call_id="call_renamed", name="stock"
        )
        scene.sink.items.append(call)
        scene.sink.add(
            Item(ItemId("item_out"), "function_call_output", "tool", call_id="call_renamed", output="5"),
            "item_resp_1_0",
        )
        await until(lambda: connection.items[-1]["type"] == "function_call_output")
        assert connection.items[-1]["call_id"] == scene.sink.of("call_started")[0][3]
        assert not connection.errors

    play(do)


def test_what_was_heard_is_cut_upstream_and_what_nobody_heard_is_removed() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        for number in (1, 2, 3):
            scene.link.start_response(ask(f"resp_{number}"))
            await scene.done(number)
        lengths = {item["id"]: item for item in connection.items}
        assert [item["audio_ms"] for item in lengths.values()] == [400, 400, 400]
        scene.link.truncate(ItemId("item_resp_1_0"), 150, "echo")
        scene.link.truncate(ItemId("item_resp_2_0"), 0, "")
        scene.link.truncate(ItemId("item_resp_3_0"), 5_000, "echo")
        scene.link.truncate(ItemId("item_unknown"), 100, "")
        await until(lambda: len(connection.items) == 2)
        assert [item["audio_ms"] for item in connection.items] == [150, 400]
        assert not connection.errors, "no truncate at 0 and none beyond the audio (D12)"

    play(do)


def test_a_reply_cancelled_and_asked_again_at_once_meets_no_busy_conversation() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.fake.plan(FakeReply("a long one", audio_ms=4_000, pace_s=0.01), FakeReply("short"))
        scene.link.start_response(ask("resp_1"))
        await until(lambda: scene.sink.has("audio_delta"))
        scene.link.cancel_response(ResponseId("resp_1"))
        scene.link.start_response(ask("resp_2"))
        scene.link.truncate(ItemId("item_resp_1_0"), 20, "a")
        await scene.done()
        assert scene.sink.of("response_finished") == [("response_finished", "resp_2", "completed")]
        assert not connection.errors
        scene.link.cancel_response(ResponseId("resp_2"))
        scene.link.cancel_response(ResponseId("resp_unknown"))
        await asyncio.sleep(0.01)
        assert len(connection.of("response.cancel")) == 1, "what is over is not cancelled again (F3)"

    play(do)


def test_out_of_band_verbatim_and_context_go_up_as_the_request_says() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(replace(MANUAL, instructions="Be brief."))
        config = replace(MANUAL, instructions="Be brief.")
        note = Item(ItemId("n"), "message", "system", "system", content=(Part("input_text", "It rains."),))
        requests = [
            ask(
                "r1",
                config,
                conversation="none",
                has_input=True,
                input=(typed("x", "sum up"),),
                modality="text",
            ),
            ask("r2", config, verbatim="Good morning.", metadata=(("topic", "hi"),)),
            ask("r3", config, context=(note,), tool_choice='"none"', tools=(TOOL,), max_output_tokens=9),
        ]
        for number, request in enumerate(requests, 1):
            scene.link.start_response(request)
            await scene.done(number)
        one, two, three = (event["response"] for event in connection.of("response.create"))
        assert one["conversation"] == "none" and one["input"][0]["content"][0]["text"] == "sum up"
        assert "id" not in one["input"][0] and one["output_modalities"] == ["text"]
        assert two["instructions"].endswith("Good morning.") and two["tools"] == [] and two["input"] == []
        assert two["metadata"] == {"topic": "hi", "openline_response": "r2"}
        assert three["instructions"] == "Be brief.\n\nIt rains." and "input" not in three
        assert three["tool_choice"] == "none" and three["max_output_tokens"] == 9
        assert len(three["tools"]) == 1

    play(do)


def test_settings_go_up_once_and_only_what_changed() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.link.update(MANUAL)
        scene.link.update(replace(MANUAL, instructions="New."))
        await until(lambda: len(connection.of("session.update")) == 2)
        assert connection.of("session.update")[1]["session"] == {"type": "realtime", "instructions": "New."}

    play(do)


HISTORY = (
    typed("item_1", "how many M8"),
    Item(ItemId("item_2"), "function_call", "assistant", call_id="call_1", name="stock", arguments="{}"),
    Item(ItemId("item_3"), "function_call_output", "tool", call_id="call_1", output="7"),
    Item(
        ItemId("item_4"),
        "message",
        "assistant",
        "assistant",
        status="incomplete",
        content=(Part("output_audio", "There are"),),
        heard_ms=300,
    ),
    spoken("item_5", 0, 48_000, "and M9?"),
    spoken("item_6", 48_000, 96_000),
    Item(
        ItemId("item_with_a_name_of_more_than_32_characters"),
        "mcp_call",
        "assistant",
        call_id="call_2",
        name="look",
    ),
)


def test_a_new_link_is_given_the_history_as_heard_with_open_calls_pending() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(items=HISTORY)
        await until(lambda: len(connection.items) == 7)
        shown = [item.get("output") or item.get("content") or item["name"] for item in connection.items]
        assert shown[0] == [{"type": "input_text", "text": "how many M8"}]
        assert shown[2] == "7"
        assert shown[3] == [{"type": "output_text", "text": "There are"}]
        assert shown[4] == [{"type": "input_text", "text": "and M9?"}]
        assert shown[5] == "look" and "pending" in shown[6]
        assert not connection.errors and not connection.of("response.create")
        scene.sink.add(replace(HISTORY[-1], output="found"))
        await until(lambda: connection.items[-1].get("output") == "found")
        assert len(connection.items) == 7 and not connection.errors, (
            "the result takes the pending one's place"
        )

    play(do)


def test_items_are_placed_where_the_session_has_them() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.sink.add(typed("item_b", "b"))
        scene.sink.add(typed("item_d", "d"), "item_b")
        scene.sink.add(typed("item_c", "c"), "item_b")
        scene.sink.add(typed("item_a", "a"))
        scene.sink.add(typed("item_e", "e"), "item_unknown")
        scene.sink.add(typed("item_a", "a again"))
        await until(lambda: len(connection.items) == 5)
        assert [item["id"] for item in connection.items] == [f"item_{c}" for c in "abcde"]

    play(do)


def test_the_newest_stands_behind_speech_that_was_recognised_late() -> None:
    """An utterance of an earlier connection is recognised over this one, and stands at the end there though it was
    said before the last answer. What is typed then is the newest all the same: it is what the model answers."""

    async def do(scene: Scene) -> None:
        connection = await scene.open()
        assert scene.link is not None
        scene.sink.add(typed("item_before", "before"))
        scene.sink.add(typed("item_answer", "the last word"), "item_before")
        assert scene.link.recognize(ItemId("item_late"), LOUD * 50)
        await until(lambda: len(connection.items) == 3)
        scene.sink.add(typed("item_new", "new"), "item_answer")
        await until(lambda: len(connection.items) == 4)
        assert connection.items[-1]["id"] == "item_new"

    play(do)


# ---------------------------------------------------------------------------------------------- renewal


def test_the_connection_is_renewed_when_it_is_quiet_and_nothing_is_doubled() -> None:
    async def do(scene: Scene) -> None:
        await scene.open(SessionConfig())
        scene.link.playing(True)
        await until(lambda: len(scene.fake.connections) == 2)
        speak(scene)
        await until(lambda: scene.sink.has("turn_final"))
        scene.sink.items = [spoken("item_turn0", 0, 16_800, "hello")]
        await asyncio.sleep(0.3)
        assert scene.link.rotations == 0, "not while something plays"
        scene.link.playing(False)
        await until(lambda: scene.link.rotations == 1)
        old, new = scene.fake.connections[0], scene.fake.latest
        await until(lambda: old.closed == 1000)
        assert scene.sink.of("renewed") == [("renewed", "age")]
        assert [item["content"][0]["text"] for item in new.items] == ["hello"]
        events = len(scene.sink.names())
        speak(scene, frames=12)
        await until(lambda: len(scene.sink.of("turn_final")) == 2)
        told = scene.sink.names()[events:]
        assert told == ["speech_started", "speech_stopped", "turn_committed", "turn_final"]
        assert scene.sink.of("speech_started")[-1][1] == 40 * 480, "positions go on"
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        assert len(new.items) == 3 and scene.sink.names().count("opened") == 1

    play(do, rotate_s=0.2, rotate_by_s=60.0, rotate_retry_s=0.05)


def test_a_renewed_connection_is_given_what_a_detector_may_not_have_told_of_yet() -> None:
    async def do(scene: Scene) -> None:
        await scene.open(SessionConfig())
        straight = scene.link.straight
        assert straight is not None and straight(QUIET, len(QUIET) // 2, b"")
        await until(lambda: len(scene.fake.connections) == 2)
        for _ in range(50):
            assert not straight(QUIET, len(QUIET) // 2, b""), "the link keeps what is said meanwhile"
            scene.link.append_audio(QUIET)
        assert scene.link.rotations == 0, "it waits until it has so much to give"
        await until(lambda: scene.link.rotations == 1)
        await until(lambda: len(scene.fake.latest.audio) == 35 * len(QUIET))
        assert not straight(QUIET, len(QUIET) // 2, b""), "it led to the old one"
        assert scene.link.straight is not None and scene.link.straight(QUIET, len(QUIET) // 2, b"")

    play(do, rotate_s=0.2, rotate_by_s=60.0, rotate_retry_s=0.05)


def test_of_a_turn_that_is_over_a_renewed_connection_hears_nothing_again() -> None:
    async def do(scene: Scene) -> None:
        await scene.open(SessionConfig())
        scene.link.playing(True)
        await until(lambda: len(scene.fake.connections) == 2)
        speak(scene)
        await until(lambda: scene.sink.has("turn_final"))
        scene.sink.items = [spoken("item_turn0", 0, 16_800, "hello")]
        scene.link.playing(False)
        await until(lambda: scene.link.rotations == 1)
        await until(lambda: len(scene.fake.latest.audio) > 0)
        heard = bytes(scene.fake.latest.audio)
        assert heard == QUIET * (len(heard) // len(QUIET)), "only what came after the turn"

    play(do, rotate_s=0.2, rotate_by_s=60.0, rotate_retry_s=0.05)


def test_the_new_connection_is_told_what_the_old_one_heard_meanwhile() -> None:
    """It stands ready while the old one finishes its turn: there is no moment without one."""

    async def do(scene: Scene) -> None:
        call = Item(ItemId("fc_1"), "function_call", "assistant", call_id="call_1", name="f", arguments="{}")
        await scene.open(items=(typed("item_a", "a"), call))
        scene.link.playing(True)
        await until(lambda: len(scene.fake.connections) == 2 and len(scene.fake.latest.items) == 3)
        new = scene.fake.latest
        assert "pending" in new.items[-1]["output"]
        output = Item(ItemId("fco_1"), "function_call_output", "tool", call_id="call_1", output="found")
        scene.sink.add(output, "fc_1")
        scene.sink.add(typed("item_b", "b"), "fco_1")
        scene.link.update(replace(MANUAL, instructions="Be brief."))
        assert scene.link.rotations == 0
        scene.link.playing(False)
        await until(lambda: scene.link.rotations == 1 and len(new.items) == 4)
        assert [item.get("output", "") for item in new.items] == ["", "", "found", ""]
        assert new.items[3]["id"] == "item_b" and not new.errors
        await until(lambda: new.session.get("instructions") == "Be brief.")
        assert len(scene.fake.connections) == 2

    play(do, rotate_s=0.05, rotate_by_s=60.0)


def test_a_new_connection_whose_history_is_no_more_true_is_begun_again() -> None:
    async def do(scene: Scene) -> None:
        await scene.open(items=(typed("item_a", "a"), typed("item_b", "b")))
        scene.link.playing(True)
        await until(lambda: len(scene.fake.connections) == 2 and len(scene.fake.latest.items) == 2)
        del scene.sink.items[0]
        scene.link.playing(False)
        await until(lambda: scene.link.rotations == 1)
        assert [item["id"] for item in scene.fake.latest.items] == ["item_b"]
        assert len(scene.fake.connections) == 3
        await until(lambda: scene.fake.connections[1].closed == 1000)

    play(do, rotate_s=0.05, rotate_by_s=60.0)


def test_what_a_client_has_said_and_not_committed_keeps_its_connection() -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        speak(scene)
        await asyncio.sleep(0.3)
        assert scene.link.rotations == 0
        scene.link.commit_audio(ItemId("item_1"), 0, 9_600)
        await until(lambda: scene.link.rotations == 1)

    play(do, rotate_s=0.05, rotate_by_s=0.1)


def test_a_new_connection_that_dies_while_it_waits_is_replaced_and_nobody_hears_of_it() -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.link.playing(True)
        await until(lambda: len(scene.fake.connections) == 2)
        await asyncio.sleep(0.05)
        scene.fake.latest.close(1011)
        await until(lambda: len(scene.fake.connections) == 3)
        scene.link.playing(False)
        await until(lambda: scene.link.rotations == 1)
        assert scene.sink.error is None

    play(do, rotate_s=0.05, rotate_by_s=60.0, rotate_retry_s=0.05)


def test_what_is_only_text_there_is_written_again_when_less_of_it_was_heard() -> None:
    """After a renewal in the middle of playing, and after any reconnect, a cut has no audio to be made in."""

    async def do(scene: Scene) -> None:
        def said(text: str) -> Item:
            part = Part("output_audio", text)
            return Item(ItemId("item_said"), "message", "assistant", "assistant", content=(part,))

        connection = await scene.open(
            items=(typed("item_a", "a"), said("one two three"), typed("item_b", "b"))
        )
        scene.sink.items[1] = said("one two")
        scene.link.truncate(ItemId("item_said"), 700, "one two")
        await until(lambda: connection.items[1]["content"][0]["text"] == "one two")
        scene.sink.items[1] = said("one")
        scene.link.truncate(ItemId("item_said"), 300, "one")
        await until(lambda: connection.items[1]["content"][0]["text"] == "one")
        assert len(connection.items) == 3
        del scene.sink.items[1]
        scene.link.truncate(ItemId("item_said"), 100, "")
        await until(lambda: len(connection.items) == 2)
        assert not connection.errors

    play(do)


def test_a_caller_who_stops_sending_in_mid_utterance_has_fallen_silent() -> None:
    """A13: a muted microphone sends no silence, and the provider's detector moves only with audio."""

    async def do(scene: Scene) -> None:
        await scene.open(SessionConfig())
        speak(scene, frames=12, silence=0)
        await until(lambda: scene.sink.has("turn_final"))
        assert scene.sink.of("turn_committed") == [("turn_committed", 0, 12 * 480)]
        speak(scene, frames=10)
        await until(lambda: len(scene.sink.of("turn_final")) == 2)
        assert scene.sink.of("speech_started")[1] == ("speech_started", 12 * 480), "positions go on"

    play(do)


def test_a_loop_that_was_busy_for_a_while_is_no_dead_line() -> None:
    """C1, C6: what came meanwhile is not read yet when the watch looks."""

    async def do(scene: Scene) -> None:
        await scene.open()
        time.sleep(1.2)
        await asyncio.sleep(0.2)
        assert scene.sink.error is None

    play(do, ping_s=0.05, dead_s=0.5)


def test_after_a_renewal_that_fails_audio_goes_straight_again() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.opens = ["ok", "http:503"]
        await scene.open(SessionConfig())
        due = scene.link._rotate_after
        await until(lambda: scene.link._rotate_after != due)
        assert scene.link.straight is not None and scene.link.straight(QUIET, len(QUIET) // 2, b"")

    play(do, rotate_s=0.1, rotate_by_s=60.0, rotate_retry_s=60.0)


def test_a_renewal_that_fails_leaves_the_old_connection_as_it_was() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.opens = ["ok", "http:503", "close:1011", "ok"]
        await scene.open()
        await until(lambda: scene.link.rotations == 1)
        assert scene.sink.names() == ["opened", "renewed"]
        scene.link.start_response(ask("resp_1"))
        await scene.done()

    play(do, rotate_s=0.1, rotate_by_s=60.0, rotate_retry_s=0.05)


def test_closing_in_the_middle_of_anything_leaves_nothing_behind() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.opens = ["ok", "silent"]
        await scene.open()
        await until(lambda: len(scene.fake.connections) == 2)
        await scene.link.close()
        await scene.link.close()
        await until(lambda: all(connection.closed is not None for connection in scene.fake.connections))
        assert scene.sink.names() == ["opened"]
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left

    play(do, rotate_s=0.01)
