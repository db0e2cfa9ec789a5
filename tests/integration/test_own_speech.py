"""Ears and a voice by URL: a whole spoken turn over servers with OpenAI's audio API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from integration.gateway import running
from integration.line import line, silence
from openline.agent.agent import Agent
from openline.errors import SpeechError
from openline.testing.fake_audio import FakeAudio
from openline.testing.speech import EnergyDetector, tone

pytest.importorskip("httpx", reason="httpx is not installed (extra 'openai')")


def test_a_turn_is_heard_and_answered_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARS_KEY", "k1")

    async def story() -> None:
        async with FakeAudio("hello", key="k1") as fake:
            async with running(
                tmp_path / "data",
                Agent(vad=EnergyDetector),
                stt_url=fake.url,
                stt_key_env="EARS_KEY",
                tts_url=fake.url,
                tts_key_env="EARS_KEY",
            ) as gateway:
                async with line(gateway.url) as caller:
                    await caller.speak(tone(440, 600, rate=24_000) + silence(900))
                    heard = await caller.wait("conversation.item.input_audio_transcription.completed")
                    assert heard["transcript"] == "hello"
                    done = (await caller.wait("response.done"))["response"]
                    assert done["status"] == "completed" and len(caller.audio()) > 24_000
            assert "/v1/audio/transcriptions" in fake.requests and "/v1/audio/speech" in fake.requests

    asyncio.run(story())


# ------------------------------------------------------------------------------------------ words as they come

WORDS = "two bolts and a nut"
SPEECH = tone(440, 600, rate=16_000)


async def heard(fake: FakeAudio, partials: list[str], times: int = 1) -> str:
    """What a recognizer makes of one utterance after another; the last."""
    from openline.adapters.llm_openai import Endpoint
    from openline.adapters.stt_openai_http import OpenAIRecognizer

    ears = OpenAIRecognizer(Endpoint(fake.url, "gpt-4o-transcribe"))
    await ears.start()
    try:
        for _ in range(times):
            partials.clear()
            stream = ears.stream(partials.append)
            stream.push(SPEECH)
            text = (await stream.finish()).text
        assert ears.free_slots == 32
        return text
    finally:
        await ears.close()


@pytest.mark.parametrize("stream", ["words", "undone", "endless"])
def test_words_are_told_as_they_are_found(stream: str) -> None:
    async def story() -> None:
        partials: list[str] = []
        async with FakeAudio(WORDS, stream=stream, pace_s=0.12) as fake:
            assert await heard(fake, partials) == WORDS
            assert partials[0] == "two" and partials[-1] == WORDS
            assert all(
                later.startswith(earlier) for earlier, later in zip(partials, partials[1:], strict=False)
            )
        async with FakeAudio(WORDS, stream=stream) as fake:
            assert await heard(fake, partials) == WORDS
            assert len(partials) == 1, "no more often than every 100 ms"

    asyncio.run(story())


def test_a_stream_that_ends_leaves_its_connection_to_the_next_utterance() -> None:
    async def story() -> None:
        async with FakeAudio(WORDS, stream="words") as fake:
            assert await heard(fake, [], times=3) == WORDS
            assert len(fake.requests) == 3 and fake.accepted == 1

    asyncio.run(story())


@pytest.mark.parametrize(
    ("stream", "requests"), [("ignored", 3), ("refused", 4), ("foreign", 4), ("garbage", 4)]
)
def test_a_server_without_streams_answers_whole_and_is_not_asked_twice_for_one(
    stream: str, requests: int
) -> None:
    async def story() -> None:
        partials: list[str] = []
        async with FakeAudio(WORDS, stream=stream) as fake:
            assert await heard(fake, partials, times=3) == WORDS
            assert not partials and len(fake.requests) == requests

    asyncio.run(story())


@pytest.mark.parametrize(
    ("stream", "says"),
    [("error", "failed in mid-answer"), ("broken", "failed"), ("huge", "over 1048576 bytes")],
)
def test_a_stream_that_breaks_is_a_speech_error_without_words(stream: str, says: str) -> None:
    async def story() -> None:
        async with FakeAudio(WORDS, stream=stream) as fake:
            with pytest.raises(SpeechError, match=says) as failed:
                await heard(fake, [])
            assert "two" not in str(failed.value)

    asyncio.run(story())


def test_an_utterance_that_is_cut_short_lets_its_connection_go_at_once() -> None:
    from openline.adapters.llm_openai import Endpoint
    from openline.adapters.stt_openai_http import OpenAIRecognizer

    async def story() -> None:
        async with FakeAudio(WORDS, stream="silent") as fake:
            ears = OpenAIRecognizer(Endpoint(fake.url, "gpt-4o-transcribe"), slots=1)
            await ears.start()
            began = asyncio.Event()
            stream = ears.stream(lambda text: began.set())
            stream.push(SPEECH)
            finishing = asyncio.create_task(stream.finish())
            await began.wait()
            assert fake.cut == 0 and ears.free_slots == 0
            finishing.cancel()
            async with asyncio.timeout(5):
                while not fake.cut:
                    await asyncio.sleep(0.01)
            assert ears.free_slots == 1
            await ears.close()

    asyncio.run(story())


def test_a_caller_sees_the_words_while_they_are_found(tmp_path: Path) -> None:
    """Through the whole gateway: partials of the open turn for a client that asked for them, then the turn."""

    async def story() -> None:
        async with FakeAudio(WORDS, stream="words", pace_s=0.12) as fake:
            async with running(tmp_path / "data", Agent(vad=EnergyDetector), stt_url=fake.url) as gateway:
                async with line(gateway.url) as caller:
                    await caller.speak(tone(440, 600, rate=24_000) + silence(900))
                    partial = await caller.wait("openline.turn.partial")
                    assert partial["text"].startswith("two")
                    done = await caller.wait("conversation.item.input_audio_transcription.completed")
                    assert done["transcript"] == WORDS and done["item_id"] == partial["item_id"]

    asyncio.run(story())


def test_a_voice_that_is_cut_short_lets_its_connection_go_at_once() -> None:
    from openline.adapters.llm_openai import Endpoint
    from openline.adapters.tts_openai_http import OpenAISynthesizer

    async def story() -> None:
        async with FakeAudio() as fake:
            voice = OpenAISynthesizer(Endpoint(fake.url, "tts-1"))
            await voice.start()
            chunks = voice.speak("A sentence of many words that somebody interrupts. " * 40)
            await anext(chunks)
            assert fake.cut == 0
            await chunks.aclose()
            async with asyncio.timeout(5):
                while not fake.cut:
                    await asyncio.sleep(0.01)
            await voice.close()

    asyncio.run(story())
