"""Sessions that only write down, before an upstream model: true transcription sessions there, or, where a provider has
none, realtime sessions that nobody answers. Through openai's own types, a fake provider, and two gateways.

Covers B1, B3, G1 and G5 of the failure catalogue for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from integration.gateway import running, spoken_agent, stories
from integration.line import again, dial, dial_unheard, silence
from integration.stock import stock
from openline.core import facts as f
from openline.testing.fake_realtime import FakeConnection, FakeRealtime
from openline.testing.speech import tone

INTENT = {"intent": "transcription"}
WORDS = "conversation.item.input_audio_transcription"
VOICE = tone(440, 600, rate=24_000)
UP = {"model": "openai/up", "record": "off"}


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


async def until(test: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not test():
            await asyncio.sleep(0.01)


def heard_by(connection: FakeConnection) -> dict[str, Any]:
    heard: dict[str, Any] = connection.session["audio"]["input"]
    return heard


# ------------------------------------------------------------------------------------- in front of a provider


def test_a_transcription_session_is_one_upstream_too(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcripts = ["two bolts please", "and a nut"]
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                async with stock(gateway.url, extra_query=INTENT) as call:
                    transcription = {"model": "gpt-4o-transcribe", "language": "en", "prompt": "hardware"}
                    heard = {"transcription": transcription, "noise_reduction": {"type": "near_field"}}
                    await call.connection.session.update(
                        session={
                            "type": "transcription",
                            "include": ["item.input_audio_transcription.logprobs"],
                            "audio": {"input": heard},
                        }
                    )
                    await call.wait("session.updated")
                    for words in ("two bolts please", "and a nut"):
                        await call.speak(VOICE + silence(800), pace=0.3)
                        committed = await call.wait("input_audio_buffer.committed")
                        completed = await call.wait(f"{WORDS}.completed")
                        assert (completed.item_id, completed.transcript) == (committed.item_id, words)
                    told = "".join(event.delta for event in call.of(f"{WORDS}.delta"))
                    assert told.replace(" ", "") == "twoboltspleaseandanut"
                    upstream = fake.latest
                    assert upstream.session["type"] == "transcription"
                    assert heard_by(upstream)["transcription"] == transcription
                    assert heard_by(upstream)["noise_reduction"] == {"type": "near_field"}
                    assert upstream.session["include"] == ["item.input_audio_transcription.logprobs"]
                    assert heard_by(upstream)["turn_detection"] == {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 500,
                    }
                    kinds = {event["type"] for event in upstream.events}
                    assert kinds == {"session.update"} and not upstream.errors
        (told_,) = stories(tmp_path / "data").values()
        assert [fact.text for fact in told_.of("openline.turn.transcribed")] == [
            "two bolts please",
            "and a nut",
        ]

    run(story())


def test_words_come_as_the_provider_finds_them(tmp_path: Path) -> None:
    """Deltas for a stock client; for one that opted in the whole text so far, and one delta that a resume may repeat."""

    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcripts, fake.transcript_pace_s = ["two bolts please"], 0.15
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                async with stock(gateway.url, extra_query=INTENT) as call:
                    await call.speak(VOICE + silence(800), pace=0.3)
                    item = (await call.wait("input_audio_buffer.committed")).item_id
                    first = await call.wait(f"{WORDS}.delta")
                    assert (first.item_id, first.delta) == (item, "two ")
                    assert not call.of(f"{WORDS}.completed"), "it comes while the others are still looked for"
                    completed = await call.wait(f"{WORDS}.completed")
                    deltas = [event.delta for event in call.of(f"{WORDS}.delta")]
                    assert (
                        deltas == ["two ", "bolts ", "please "] and completed.transcript == "two bolts please"
                    )
                caller = await dial(gateway.url, intent="transcription")
                await caller.speak(VOICE + silence(800), pace=0.3)
                completed_frame = await caller.wait(f"{WORDS}.completed")
                partials = [frame["text"] for frame in caller.of("openline.turn.partial")]
                assert partials == ["two ", "two bolts ", "two bolts please "]
                assert [frame["delta"] for frame in caller.of(f"{WORDS}.delta")] == ["two bolts please"]
                assert {frame["item_id"] for frame in caller.of("openline.turn.partial")} == {
                    completed_frame["item_id"]
                }
                await caller.close()

    run(story())


@pytest.mark.parametrize("model", ["gpt-4o-transcribe", "gpt-live-transcribe"])
def test_a_client_that_ends_its_turns_itself(model: str, tmp_path: Path) -> None:
    """Turn detection null; and a model that has none, whose client says nothing of it."""

    async def story() -> None:
        async with FakeRealtime() as fake:
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                async with stock(gateway.url, extra_query=INTENT) as call:
                    heard: dict[str, Any] = {"transcription": {"model": model}}
                    if model == "gpt-4o-transcribe":
                        heard["turn_detection"] = None
                    await call.connection.session.update(
                        session={"type": "transcription", "audio": {"input": heard}}
                    )
                    await call.wait("session.updated")
                    await call.speak(VOICE, pace=0)
                    await call.connection.input_audio_buffer.commit()
                    item = (await call.wait("input_audio_buffer.committed")).item_id
                    completed = await call.wait(f"{WORDS}.completed")
                    assert (completed.item_id, completed.transcript) == (item, "hello")
                    assert heard_by(fake.latest)["turn_detection"] is None
                    assert fake.latest.session["type"] == "transcription" and not fake.latest.errors

    run(story())


def test_a_telephone_is_written_down_as_it_is(tmp_path: Path) -> None:
    from integration.test_formats import MULAW, quiet, speak, voice

    async def story() -> None:
        async with FakeRealtime() as fake:
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                caller = await dial(gateway.url, intent="transcription")
                session = {"type": "transcription", "audio": {"input": {"format": MULAW}}}
                await caller.send("session.update", session=session)
                await caller.wait("session.updated")
                await speak(caller, quiet("pcmu", 300) + voice("pcmu", 600) + quiet("pcmu", 900), pace=0.3)
                assert (await caller.wait(f"{WORDS}.completed"))["transcript"] == "hello"
                assert heard_by(fake.latest)["format"] == MULAW and fake.latest.encoded
                assert not fake.latest.errors
                await caller.close()

    run(story())


def test_a_failed_transcription_is_said_and_the_next_is_heard(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcripts = ["(failed)", "and a nut"]
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                async with stock(gateway.url, extra_query=INTENT) as call:
                    await call.speak(VOICE + silence(800), pace=0.3)
                    failed = await call.wait(f"{WORDS}.failed")
                    assert failed.error.code == "audio_unintelligible"
                    await call.speak(VOICE + silence(800), pace=0.3)
                    assert (await call.wait(f"{WORDS}.completed")).transcript == "and a nut"

    run(story())


def test_a_lost_provider_in_mid_sentence_loses_no_words(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcripts = ["two bolts"]
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                caller = await dial(gateway.url, intent="transcription")
                await caller.speak(silence(200) + VOICE)
                await caller.wait("input_audio_buffer.speech_started")
                fake.latest.close(1011)
                await caller.speak(VOICE + silence(900), pace=0.5)
                assert (await caller.wait(f"{WORDS}.completed"))["transcript"] == "two bolts"
                assert [connection.session["type"] for connection in fake.connections] == [
                    "transcription"
                ] * 2
                assert not fake.latest.of("conversation.item.create"), "there is no history to be given"
                await caller.close()

    run(story())


def test_a_session_is_renewed_before_the_cap_and_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcripts = ["two bolts"]
            given: dict[str, Any] = {**UP, "upstream_url": fake.url, "upstream_rotate_s": 1}
            async with running(tmp_path / "data", **given) as gateway:
                caller = await dial(gateway.url, intent="transcription")
                await caller.speak(VOICE + silence(800), pace=0.3)
                assert (await caller.wait(f"{WORDS}.completed"))["transcript"] == "two bolts"
                await until(lambda: len(fake.connections) > 1 and fake.connections[0].closed == 1000)
                fake.transcripts = ["and a nut"]
                await caller.speak(VOICE + silence(800), pace=0.3)
                assert (await caller.wait(f"{WORDS}.completed"))["transcript"] == "and a nut"
                assert {connection.session["type"] for connection in fake.connections} == {"transcription"}
                assert not any(connection.errors for connection in fake.connections)
                await caller.close()
        (told,) = stories(tmp_path / "data").values()
        assert "openline.link.renewed" in told.types() and "openline.link.lost" not in told.types()

    run(story())


@pytest.mark.parametrize("how", ["refused", "ignored", "claimed"])
def test_a_provider_without_them_writes_down_in_a_realtime_session(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcription = how
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                async with stock(gateway.url, extra_query=INTENT) as call:
                    await call.speak(VOICE + silence(800), pace=0.3)
                    assert (await call.wait(f"{WORDS}.completed")).transcript == "hello"
                    assert fake.latest.session["type"] == "realtime"
                    assert heard_by(fake.latest)["turn_detection"]["create_response"] is False
                    assert len(fake.connections) == (1 if how == "refused" else 2)
                    assert not fake.latest.of("response.create")
                    assert not [kind for kind in call.types() if kind.startswith("response.")]
        told = [line for line in map(str, caplog.messages) if "no transcription sessions there" in line]
        assert len(told) == 1
        assert stories(tmp_path / "data")

    run(story())


@pytest.mark.parametrize("refusal", ["http:401", "key", "quota"])
def test_a_key_that_is_refused_is_not_tried_another_way(refusal: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.opens = [refusal]
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                caller = await dial_unheard(gateway.url, intent="transcription")
                await caller.speak(VOICE + silence(400), pace=0)
                await caller.wait("error")
                assert len(fake.seen_keys) == 1
                await caller.close()
        (told,) = stories(tmp_path / "data").values()
        assert isinstance(told.of("openline.link.lost")[0], f.LinkLost)

    run(story())


# -------------------------------------------------------------------------------------------- two gateways


def test_two_gateways_in_a_row_write_down(tmp_path: Path) -> None:
    """Both sessions are of that kind: nothing in either could answer."""

    async def story() -> None:
        agent = spoken_agent("two bolts please", "and a nut", builtin_tools=False)
        async with running(tmp_path / "back", agent) as back:
            async with running(tmp_path / "front", **UP, upstream_url=f"{back.url}/v1") as front:
                first = await dial(front.url, intent="transcription")
                await first.speak(VOICE + silence(800))
                assert (await first.wait(f"{WORDS}.completed"))["transcript"] == "two bolts please"
                await first.drop()
                second = await dial(front.url, intent="transcription", **again(first))
                await second.speak(VOICE + silence(800))
                assert (await second.wait(f"{WORDS}.completed"))["transcript"] == "and a nut"
                assert not second.of("error")
                await second.close()
        for name in ("front", "back"):
            (told,) = stories(tmp_path / name).values()
            assert told.ended.state.config.purpose == "transcription"

    run(story())
