"""Sessions that only write down, and silence that becomes a turn; through openai's own types."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from integration.gateway import running, spoken_agent, stories
from integration.line import again, dial, silence
from integration.stock import openai, stock
from openline.agent.agent import Agent
from openline.core.facts import TurnCommitted
from openline.testing.speech import tone

INTENT = {"intent": "transcription"}
TRANSCRIPTION = "conversation.item.input_audio_transcription"
VOICE = tone(440, 600, rate=24_000)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_turns_are_written_down_and_not_answered(tmp_path: Path) -> None:
    """Server VAD: committed, the words as a delta and as a whole; handlers run, the log verifies, nobody speaks."""
    heard: list[str] = []
    agent = spoken_agent("two bolts please", "and a nut")

    @agent.on("openline.turn.committed")
    async def note(turn: Any, session: Any) -> None:
        heard.append(turn.text)

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway:
            async with stock(gateway.url, extra_query=INTENT) as call:
                created = call.of("session.created")[0].session
                assert created.type == "transcription"
                await call.connection.session.update(
                    session={
                        "type": "transcription",
                        "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}},
                    }
                )
                updated = (await call.wait("session.updated")).session
                assert updated.audio.input.transcription.model == "gpt-4o-transcribe"
                for words in ("two bolts please", "and a nut"):
                    await call.speak(VOICE + silence(800))
                    committed = await call.wait("input_audio_buffer.committed")
                    delta = await call.wait(f"{TRANSCRIPTION}.delta")
                    completed = await call.wait(f"{TRANSCRIPTION}.completed")
                    assert committed.item_id == delta.item_id == completed.item_id
                    assert delta.delta == completed.transcript == words
                    assert completed.usage.type == "duration" and completed.usage.seconds > 0.5
                await call.connection.response.create()
                refused = (await call.wait("error")).error
                assert refused.code == "invalid_session_type"
                assert not [kind for kind in call.types() if kind.startswith("response.")]
        (told,) = stories(tmp_path / "data").values()
        assert [fact.text for fact in told.of("openline.turn.committed")] == heard
        assert heard == ["two bolts please", "and a nut"]

    run(story())


def test_the_client_may_end_its_turns_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("two bolts please")) as gateway:
            async with stock(gateway.url, extra_query=INTENT) as call:
                await call.connection.session.update(
                    session={"type": "transcription", "audio": {"input": {"turn_detection": None}}}
                )
                await call.wait("session.updated")
                await call.speak(VOICE, pace=0)
                await call.connection.input_audio_buffer.commit()
                item = (await call.wait("input_audio_buffer.committed")).item_id
                assert (await call.wait(f"{TRANSCRIPTION}.delta")).delta == "two bolts please"
                completed = await call.wait(f"{TRANSCRIPTION}.completed")
                assert (completed.item_id, completed.transcript) == (item, "two bolts please")

    run(story())


def test_a_failed_transcription_is_said(tmp_path: Path) -> None:
    from openline.errors import SpeechError
    from openline.testing.speech import EnergyDetector, ScriptedRecognizer, ToneSynthesizer

    ears = ScriptedRecognizer([SpeechError("the engine died.")])
    agent = Agent(stt=ears, tts=ToneSynthesizer(), vad=EnergyDetector)

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway:
            async with stock(gateway.url, extra_query=INTENT) as call:
                await call.connection.session.update(
                    session={"type": "transcription", "audio": {"input": {"turn_detection": None}}}
                )
                await call.speak(VOICE, pace=0)
                await call.connection.input_audio_buffer.commit()
                failed = await call.wait(f"{TRANSCRIPTION}.failed")
                assert failed.error.code == "speech_failed"

    run(story())


def test_a_client_secret_opens_a_session_that_writes_down(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("two bolts please")) as gateway:
            backend = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0)
            secret = await backend.realtime.client_secrets.create(
                session={"type": "transcription", "audio": {"input": {"turn_detection": None}}}
            )
            await backend.close()
            assert secret.session.type == "transcription"
            async with stock(gateway.url, api_key=secret.value) as call:
                assert call.of("session.created")[0].session.type == "transcription"
                await call.speak(VOICE, pace=0)
                await call.connection.input_audio_buffer.commit()
                assert (await call.wait(f"{TRANSCRIPTION}.completed")).transcript == "two bolts please"

    run(story())


def test_a_transcription_that_was_cut_off_is_resumed_exactly(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("two bolts please", "and a nut")) as gateway:
            first = await dial(gateway.url, intent="transcription")
            await first.speak(VOICE + silence(800))
            await first.wait(f"{TRANSCRIPTION}.completed")
            await first.drop()
            back = await dial(gateway.url, intent="transcription", **again(first))
            assert back.frames[0]["session"]["type"] == "transcription"
            await back.speak(VOICE + silence(800))
            assert (await back.wait(f"{TRANSCRIPTION}.completed"))["transcript"] == "and a nut"
            await back.close()

    run(story())


@pytest.mark.parametrize(
    ("first", "then", "code"),
    [({"intent": "gossip"}, None, "invalid_value"), ({}, "transcription", "invalid_model")],
)
def test_what_cannot_be_is_said(first: dict[str, str], then: str | None, code: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            from integration.line import dial_unheard

            caller = await dial_unheard(gateway.url, **first)
            if then is not None:
                await caller.send("session.update", session={"type": then})
            assert (await caller.wait("error"))["error"]["code"] == code
            await caller.close()

    run(story())


def test_silence_after_a_reply_is_answered(tmp_path: Path) -> None:
    """``idle_timeout_ms``: counted from the end of the playout, committed as a turn, answered; the log verifies."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            async with stock(gateway.url) as call:
                await call.configure(
                    audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 1_000}}}
                )
                await call.turn("hello")
                done_at, audio_s = loop.time(), len(call.audio()) / 48_000
                sending = asyncio.create_task(call.speak(silence(int(audio_s * 1_000) + 4_000)))
                timeout = await call.wait("input_audio_buffer.timeout_triggered")
                waited = loop.time() - done_at
                committed = await call.wait("input_audio_buffer.committed")
                item = await call.wait("conversation.item.done")
                response = (await call.wait("response.done")).response
                sending.cancel()
                # It was sent half a second ahead of being heard, and then the second counts.
                assert 1.0 < waited < 1.0 + audio_s + 1.0
                assert timeout.item_id == committed.item_id == item.item.id
                assert 900 <= timeout.audio_end_ms - timeout.audio_start_ms <= 1_300
                assert response.status == "completed" and response.output
        (told,) = stories(tmp_path / "data").values()
        turn = next(fact for fact in told.of("openline.turn.committed") if fact.item is not None)
        assert isinstance(turn, TurnCommitted) and turn.text == ""

    run(story())
