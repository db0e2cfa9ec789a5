"""Ears and a voice by URL: a whole spoken turn over servers with OpenAI's audio API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from integration.gateway import running
from integration.line import line, silence
from openline.agent.agent import Agent
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
