"""One reply: words and sound in step, an end on every path, and nothing left running when it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.core.model import Modality, ResponseRequest, SessionConfig
from openline.errors import ClientProtocolError, LinkUnavailable, SpeechError
from openline.ports import ResponseStart, Speech
from openline.runtime.voice import AHEAD_MS, SENTENCES_MAX, Reply
from openline.testing.llm import Call, Fail, Finish, Say, ScriptedModel, Wait, say
from openline.testing.sinks import RecordingSink
from openline.testing.speech import ToneSynthesizer
from openline.testing.virtual_time import run_virtual
from openline.types import ResponseId, SessionId

RESPONSE = ResponseId("resp_1")


class Desk:
    """A reply with its model, its voice and its sink."""

    def __init__(
        self, *steps: Any, voice: Any = None, sink: RecordingSink | None = None, **request: Any
    ) -> None:
        self.sink = sink or RecordingSink()
        self.model = ScriptedModel([steps])
        self.voice = voice or ToneSynthesizer()
        start = ResponseStart(RESPONSE, ResponseRequest(**request), SessionConfig(), ())
        self.reply = Reply(start, self.sink, SessionId("sess_1"), self.model, self.voice)

    async def run(self) -> list[Any]:
        await self.voice.start()
        await self.reply.run()
        return self.sink.names()

    @property
    def reason(self) -> object:
        name, _, reason = self.sink.events[-1]
        assert name == "response_finished"
        return reason

    @property
    def text(self) -> str:
        return self.sink.text.get(RESPONSE, "")


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


# ------------------------------------------------------------------------------------------- what is said


@given(st.text(alphabet=st.sampled_from("ab é.,!?\n "), min_size=1, max_size=200), st.integers(1, 9))
def test_the_text_that_is_shown_is_the_text_that_was_made_however_it_streams(text: str, size: int) -> None:
    pieces = tuple(text[at : at + size] for at in range(0, len(text), size))

    async def story() -> None:
        desk = Desk(Say(pieces))
        names = await desk.run()
        assert desk.text == text
        assert names == ["message_started", "message_finished", "response_finished"]
        assert desk.reason == "completed"

    run(story())


def test_marks_count_the_characters_of_the_whole_message() -> None:
    async def story() -> None:
        desk = Desk(say("The first sentence is here. And the second one follows it."))
        await desk.run()
        marks = [int(str(event[3])) for event in desk.sink.events if event[0] == "audio_delta"]
        assert marks == sorted(marks)
        assert marks[-1] == len(desk.text)
        shown = ""
        for event in desk.sink.events:
            if event[0] == "text_delta":
                shown += str(event[2])
            elif event[0] == "audio_delta":
                assert int(str(event[3])) <= len(shown)

    run(story())


def test_the_first_sentence_is_spoken_before_the_last_is_made() -> None:
    async def story() -> None:
        gate = asyncio.Event()
        desk = Desk(say("Here is the first one. "), Wait(gate), say("And the rest."))
        running = asyncio.ensure_future(desk.run())
        await asyncio.sleep(0.1)
        assert desk.voice.spoken == ["Here is the first one."]
        assert desk.sink.audio[RESPONSE]
        gate.set()
        await running
        assert desk.reason == "completed"

    run(story())


def test_a_text_reply_has_no_sound_and_comes_as_it_is_made() -> None:
    async def story() -> None:
        desk = Desk(Say(("one", " two")), modality="text")
        await desk.run()
        assert desk.voice.spoken == []
        assert [event[2] for event in desk.sink.events if event[0] == "text_delta"] == ["one", " two"]

    run(story())


@pytest.mark.parametrize(
    ("modality", "told"),
    [
        ("text", ["message_started", "message_finished", "refusal_started", "message_finished"]),
        ("audio", ["message_started", "message_finished"]),
    ],
)
def test_a_refusal_is_a_message_of_its_own_as_text_and_spoken_like_the_rest_by_voice(
    modality: Modality, told: list[str]
) -> None:
    async def story() -> None:
        desk = Desk(say("Well, I see."), say("No, not that.", refuses=True), modality=modality)
        await desk.run()
        assert desk.sink.names() == [*told, "response_finished"]

    run(story())


def test_verbatim_words_are_said_and_no_model_is_asked() -> None:
    async def story() -> None:
        desk = Desk(verbatim="Good morning to you.")
        await desk.run()
        assert (desk.text, desk.model.requests) == ("Good morning to you.", [])

    run(story())


def test_calls_and_words_get_indexes_in_the_order_they_begin() -> None:
    async def story() -> None:
        desk = Desk(say("One moment please. "), Call("look", '{"a": 1}'), Call("book"))
        await desk.run()
        started = [event for event in desk.sink.events if str(event[0]).endswith("_started")]
        assert [(event[0], event[2]) for event in started] == [
            ("message_started", 0), ("call_started", 1), ("call_started", 2),
        ]  # fmt: skip
        finished = [event for event in desk.sink.events if event[0] == "call_finished"]
        assert [(event[2], event[3]) for event in finished] == [(1, '{"a": 1}'), (2, "{}")]

    run(story())


def test_only_calls_make_no_message() -> None:
    async def story() -> None:
        desk = Desk(Call("look"))
        names = await desk.run()
        assert "message_started" not in names
        assert names[-1] == "response_finished"

    run(story())


def test_why_the_model_stopped_is_said() -> None:
    async def story() -> None:
        desk = Desk(say("cut off here"), Finish("max_output_tokens"))
        await desk.run()
        assert desk.reason == "max_output_tokens"

    run(story())


# ----------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("spoken", ["audio", "text"])
def test_a_model_that_fails_ends_the_reply_by_its_code(spoken: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        gone = LinkUnavailable("qwen3 at 127.0.0.1: gone.", hint="Is it running?")
        desk = Desk(say("so far. "), Fail(gone), modality=spoken)
        await desk.run()
        assert desk.reason == f"failed:{LinkUnavailable.code}"

    run(story())
    assert "failed: qwen3 at 127.0.0.1: gone. Is it running?" in caplog.text


def test_of_another_error_only_the_kind_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        await Desk(Fail(ClientProtocolError("a secret", code="invalid_value"))).run()

    run(story())
    assert "ClientProtocolError" in caplog.text
    assert "a secret" not in caplog.text


def test_a_voice_that_fails_ends_the_reply_and_closes_the_model() -> None:
    async def story() -> None:
        never = asyncio.Event()
        desk = Desk(say("this breaks it. "), Wait(never), voice=ToneSynthesizer(fail_on="breaks"))
        await desk.run()
        assert desk.reason == f"failed:{SpeechError.code}"
        assert desk.model.closed == 1

    run(story())


def test_a_bug_is_an_internal_error_and_its_text_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        desk = Desk(Fail(KeyError("a secret")))
        await desk.run()
        assert desk.reason == "failed:internal_error"

    run(story())
    assert "reply failed" in caplog.text


# ----------------------------------------------------------------------------------------------- cancelled


def test_cancelled_it_closes_the_model_and_the_voice_and_says_nothing_more() -> None:
    async def story() -> None:
        never = asyncio.Event()
        sink = Full()
        desk = Desk(say("A sentence that is being spoken now. "), Wait(never), sink=sink)
        running = asyncio.ensure_future(desk.run())
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait([running])
        events = len(sink.events)
        await asyncio.sleep(10)
        assert len(sink.events) == events
        assert "response_finished" not in sink.names()
        assert (desk.model.closed, desk.voice.cancelled) == (1, 1)

    run(story())


class Full(RecordingSink):
    """A sink with more waiting than is wanted."""

    waits_ms = AHEAD_MS + 1_000

    def buffered_ms(self) -> int:
        return self.waits_ms


def test_the_voice_waits_while_enough_waits_for_release() -> None:
    async def story() -> None:
        sink = Full()
        desk = Desk(say("Eight words that are spoken one by one."), sink=sink)
        running = asyncio.ensure_future(desk.run())
        await asyncio.sleep(30)
        assert len(sink.audio[RESPONSE]) == 60 * 48
        sink.waits_ms = 0
        await running
        assert len(sink.audio[RESPONSE]) == 8 * 200 * 48

    run(story())


def test_a_model_faster_than_the_voice_is_held_back() -> None:
    class Stuck:
        """A voice that says nothing until it may."""

        def __init__(self) -> None:
            self.gate = asyncio.Event()

        async def start(self) -> None: ...

        async def speak(
            self, text: str, *, voice: str = "", speed: float = 1.0
        ) -> AsyncGenerator[Speech, None]:
            await self.gate.wait()
            yield Speech(bytes(480), len(text))

    async def story() -> None:
        voice = Stuck()
        count = SENTENCES_MAX * 3
        desk = Desk(Say(tuple("A sentence of words. " for _ in range(count))), voice=voice)
        running = asyncio.ensure_future(desk.run())
        await asyncio.sleep(5)
        assert desk.reply._sentences.qsize() == SENTENCES_MAX
        voice.gate.set()
        await running
        assert desk.text == "A sentence of words. " * count

    run(story())
