"""The scripted link does what its script says, hears what is marked as speech, and fails as told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from openline.core.model import Item, Part, ResponseRequest, SessionConfig, TurnDetection
from openline.errors import LinkRejected, LinkUnavailable
from openline.ports import ResponseStart
from openline.testing.link_scripted import ScriptedLink, ScriptedLinkFactory, TurnScript
from openline.testing.scripts import (
    Failure,
    ReplyPlan,
    ToolUse,
    echo_script,
    play_list,
    scripted_silence,
    scripted_speech,
)
from openline.testing.sinks import RecordingSink
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId, ResponseId, SessionId

R1 = ResponseId("resp_1")
CONFIG = SessionConfig(turn_detection=TurnDetection(silence_duration_ms=200, prefix_padding_ms=100))


def user(text: str) -> Item:
    return Item(ItemId("item_1"), "message", "user", role="user", content=(Part("input_text", text),))


def start(
    text: str = "hi", *, items: Sequence[Item] | None = None, request: ResponseRequest = ResponseRequest()
) -> ResponseStart:
    return ResponseStart(R1, request, CONFIG, (user(text),) if items is None else tuple(items))


async def opened(**settings: object) -> tuple[ScriptedLink, RecordingSink]:
    link = ScriptedLink(SessionId("sess_1"), **settings)  # type: ignore[arg-type]  # passed through
    sink = RecordingSink()
    await link.open(sink, CONFIG, ())
    return link, sink


def reply_to(
    text: str, *, request: ResponseRequest = ResponseRequest(), plan: ReplyPlan | None = None
) -> RecordingSink:
    async def story() -> RecordingSink:
        link, sink = await opened(script=play_list([plan] if plan else []))
        link.start_response(start(text, request=request))
        await asyncio.sleep(60)
        return sink

    return run_virtual(story())


def test_it_echoes_with_words_leading_the_audio_and_marks_up_to_the_end() -> None:
    sink = reply_to("the weather, please.")
    assert sink.text[R1] == "You said: the weather, please."
    assert len(sink.audio[R1]) == 5 * 1000 // 3 * 48, "three words a second at 24 kHz"
    deltas = [event for event in sink.events if event[0] in ("text_delta", "audio_delta")]
    assert deltas[0][0] == "text_delta"
    marks = [event[3] for event in deltas if len(event) == 4 and isinstance(event[3], int)]
    assert marks == sorted(marks)
    assert marks[-1] == len("You said: the weather, please.")
    assert sink.names() == ["opened", "message_started", "message_finished", "response_finished"]
    assert sink.events[-1] == ("response_finished", R1, "completed")


def test_special_words_speak_long_repeat_or_call_tools() -> None:
    assert len(reply_to("Long.").audio[R1]) == 10 * 48_000
    assert reply_to("say Good morning!").text[R1] == "Good morning!"
    assert reply_to("hi", request=ResponseRequest(verbatim="Exactly this")).text[R1] == "Exactly this"
    sink = reply_to('call stock with {"part": "M8 and call"} and call now')
    assert [event[1:] for event in sink.events if event[0] == "call_finished"] == [
        (R1, 0, '{"part": "M8 and call"}'),
        (R1, 1, "{}"),
    ]
    pieces = "".join(str(event[3]) for event in sink.events if event[0] == "call_delta" and event[2] == 0)
    assert pieces == '{"part": "M8 and call"}'
    assert R1 not in sink.audio and "message_started" not in sink.names()


def test_a_tool_output_is_read_out_and_text_only_replies_have_no_audio() -> None:
    async def story() -> RecordingSink:
        link, sink = await opened()
        output = Item(ItemId("item_2"), "function_call_output", "tool", call_id="call_1", output="42")
        link.start_response(start(items=[user("call x"), output], request=ResponseRequest(modality="text")))
        await asyncio.sleep(60)
        return sink

    sink = run_virtual(story())
    assert sink.text[R1] == "The tool said: 42"
    assert sink.audio == {}


@pytest.mark.parametrize(
    ("failure", "tail"),
    [
        ("lost", ["message_started", "lost"]),
        ("rejected", ["message_started", "lost"]),
        ("failed", ["message_started", "response_finished"]),
        ("stalls", ["message_started"]),
        ("never_answers", []),
        ("no_audio", ["message_started", "message_finished", "response_finished"]),
        ("finish_twice", ["message_started", "message_finished", "response_finished", "response_finished"]),
        (
            "message_finish_twice",
            ["message_started", "message_finished", "message_finished", "response_finished"],
        ),
    ],
)
@pytest.mark.parametrize("text", ["one two three four", "x"])
def test_each_failure_looks_as_named(failure: Failure, tail: list[str], text: str) -> None:
    sink = reply_to("hi", plan=ReplyPlan(text=text, failure=failure))
    assert sink.names() == ["opened", *tail]
    if failure == "no_audio":
        assert sink.text[R1] == text and sink.audio == {}
    if failure == "failed":
        assert sink.events[-1] == ("response_finished", R1, "failed:server_error")
    if failure in ("lost", "rejected"):
        assert sink.events[-1][1] == ("LinkUnavailable" if failure == "lost" else "LinkRejected")


def test_strangers_get_every_delta_too_when_the_model_is_confused() -> None:
    sink = reply_to("hi", plan=ReplyPlan(text="one two", failure="unknown_response"))
    assert sink.audio[ResponseId("resp_nobody_asked_for")] == sink.audio[R1]


@pytest.mark.parametrize("failure", ["none", "late_finish"])
def test_a_cancel_stops_at_once_unless_the_model_is_deaf(failure: Failure) -> None:
    async def story() -> RecordingSink:
        link, sink = await opened(script=play_list([ReplyPlan(text="a b c", failure=failure)]))
        link.start_response(start())
        await asyncio.sleep(0.05)
        link.cancel_response(R1)
        await asyncio.sleep(60)
        return sink

    assert ("response_finished" in run_virtual(story()).names()) is (failure == "late_finish")


def test_nothing_comes_after_close() -> None:
    async def story() -> None:
        link, sink = await opened()
        link.start_response(start())
        link.commit_audio(ItemId("item_9"), 0, 4800)
        await asyncio.sleep(0.005)
        await link.close()
        before = len(sink.events)
        await asyncio.sleep(60)
        assert len(sink.events) == before
        await link.close()

    run_virtual(story())


def _speak(link: ScriptedLink, pcm: bytes) -> None:
    for begin in range(0, len(pcm), 960):
        link.append_audio(pcm[begin : begin + 960])


def test_marked_audio_is_a_turn_with_the_text_it_carries() -> None:
    async def story() -> None:
        link, sink = await opened()
        _speak(
            link, scripted_silence(1000) + scripted_speech("wörter sind hier", 400) + scripted_silence(1000)
        )
        await asyncio.sleep(1)
        assert sink.events[1:] == [
            ("speech_started", 24_000 - 2400),
            ("speech_stopped", 24_000 + 9600),
            ("user_partial", "wörter sind hier"),
            ("turn_final", None, "wörter sind hier", 24_000 - 2400, 24_000 + 9600),
        ]

    run_virtual(story())


def test_a_click_pauses_what_plays_and_lets_it_go_on() -> None:
    async def story() -> None:
        link, sink = await opened()
        link.playing(True)
        _speak(link, scripted_speech(ms=40) + scripted_silence(100))
        assert sink.events[1:] == [("speech_paused", True), ("speech_paused", False)]

    run_virtual(story())


def test_commits_by_hand_are_answered_for_their_item_and_may_fail() -> None:
    async def story() -> None:
        link, sink = await opened(turns=TurnScript(texts=("first", "second"), fails=frozenset({2})))
        link.update(SessionConfig(turn_detection=None))
        _speak(link, scripted_speech(ms=1000) + scripted_silence(1000))
        for number in range(3):
            link.commit_audio(ItemId(f"item_{number}"), 0, 100)
        _speak(link, scripted_speech("dropped"))
        link.clear_audio()
        link.commit_audio(ItemId("item_3"), 0, 100)
        await asyncio.sleep(1)
        assert sink.events[1:] == [
            ("turn_final", "item_0", "first", 0, 100),
            ("turn_final", "item_1", "second", 0, 100),
            ("turn_failed", "item_2", "scripted"),
            ("turn_final", "item_3", "second", 0, 100),
        ]

    run_virtual(story())


def test_the_factory_says_how_each_link_opens_and_keeps_them() -> None:
    async def story() -> None:
        factory = ScriptedLinkFactory(opens=["unavailable", "rejected"])
        first, second, third = (factory(SessionId("sess_1"), CONFIG) for _ in range(3))
        with pytest.raises(LinkUnavailable):
            await first.open(RecordingSink(), CONFIG, ())
        with pytest.raises(LinkRejected):
            await second.open(RecordingSink(), CONFIG, ())
        await third.open(RecordingSink(), CONFIG, (user("before"),))
        third.add_item(user("more"), ItemId("item_1"))
        third.remove_item(ItemId("item_1"))
        third.truncate(ItemId("item_2"), 100, "so far")
        assert list(factory.links) == [first, second, third]
        assert [call.method for call in factory.links[2].calls] == [
            "open",
            "add_item",
            "remove_item",
            "truncate",
        ]
        assert factory.links[2].items == []

    run_virtual(story())


def test_the_same_script_gives_the_same_events_under_every_seed() -> None:
    async def story() -> list[tuple[object, ...]]:
        link, sink = await opened(
            script=play_list([ReplyPlan(text="a b", calls=(ToolUse("t"),))], echo_script)
        )
        link.start_response(start())
        await asyncio.sleep(10)
        return sink.events

    assert all(run_virtual(story(), seed=seed) == run_virtual(story()) for seed in range(5))
