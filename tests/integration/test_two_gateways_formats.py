"""A telephone through the whole gateway with the upstream link: G.711 unchanged to the provider and back, or
transcoded where it does not take it; through two gateways; with openai's own types."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from integration.gateway import running, spoken_agent, stories
from integration.line import again, dial, line
from integration.stock import stock
from integration.test_formats import LAWS, LONG, loudness, quiet, speak, telephone, voice
from openline.adapters.g711 import Law
from openline.testing.fake_realtime import FakeRealtime, FakeReply

UP = {"model": "openai/up", "record": "off"}


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


async def until(test: Any) -> None:
    async with asyncio.timeout(5):
        while not test():
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------- in front of a provider


@pytest.mark.parametrize("record", ["off", "on"])
def test_every_byte_of_a_telephone_reaches_the_provider_as_it_was(record: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.plan(FakeReply("a quiet tone", audio_ms=400))
            settings: dict[str, Any] = {**UP, "record": record, "upstream_url": fake.url}
            async with running(tmp_path / "data", **settings) as gateway:
                caller = await telephone(gateway.url)
                sent = quiet("pcmu", 400) + voice("pcmu", 600) + quiet("pcmu", 900)
                await speak(caller, sent, pace=0.3)
                started = await caller.wait("input_audio_buffer.speech_started")
                stopped = await caller.wait("input_audio_buffer.speech_stopped")
                assert 850 <= stopped["audio_end_ms"] - started["audio_start_ms"] <= 1_500
                done = (await caller.wait("response.done"))["response"]
                assert done["status"] == "completed"
                await until(lambda: len(fake.latest.encoded) >= len(sent))
                # What came before the link had agreed went as PCM16: the rest is what was sent, to the byte.
                heard = bytes(fake.latest.encoded)
                assert sent.endswith(heard) and len(heard) >= len(sent) - 160 * 5
                assert len(caller.audio()) == 400 * 8 and 300 < loudness("pcmu", caller.audio()) < 600
                assert not fake.latest.errors
                await caller.close()
        (told,) = stories(tmp_path / "data").values()
        (said,) = told.of("response.output_item.done")
        assert said.audio_ms == 400

    run(story())


def test_a_provider_that_does_not_take_it_is_a_telephone_call_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.formats = {"audio/pcm"}
            fake.plan(FakeReply("a quiet tone", audio_ms=400))
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                caller = await telephone(gateway.url)
                await speak(caller, quiet("pcmu", 200) + voice("pcmu", 600) + quiet("pcmu", 900), pace=0.3)
                done = (await caller.wait("response.done"))["response"]
                assert done["status"] == "completed"
                await until(lambda: abs(len(caller.audio()) - 400 * 8) <= 40)
                assert 300 < loudness("pcmu", caller.audio()) < 600
                assert not fake.latest.encoded and len(fake.connections) == 1
                assert not caller.of("error")
                await caller.close()
        assert any("does not take 'pcmu'" in record.getMessage() for record in caplog.records)
        assert stories(tmp_path / "data")

    run(story())


def test_a_telephone_whose_provider_is_lost_in_a_sentence_is_heard_by_the_next(tmp_path: Path) -> None:
    """The utterance is given to the new connection again, in its format."""

    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.transcripts = ["two bolts"]
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                caller = await telephone(gateway.url)
                await speak(caller, quiet("pcmu", 200) + voice("pcmu", 600))
                await caller.wait("input_audio_buffer.speech_started")
                fake.latest.close(1011)
                await speak(caller, voice("pcmu", 400) + quiet("pcmu", 900), pace=0.5)
                heard = await caller.wait("conversation.item.input_audio_transcription.completed")
                assert heard["transcript"] == "two bolts"
                assert len(fake.connections) == 2 and len(fake.latest.encoded) > 1_000 * 8
                assert max(memoryview(bytes(fake.latest.audio)).cast("h")) > 2_500
                assert not fake.latest.errors
                await caller.close()
        assert stories(tmp_path / "data")

    run(story())


# -------------------------------------------------------------------------------------------- two gateways


@pytest.mark.parametrize("law", LAWS)
def test_a_telephone_through_two_gateways(law: Law, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "back", spoken_agent("hello", builtin_tools=False)) as back:
            front_settings: dict[str, Any] = {**UP, "record": "on", "upstream_url": f"{back.url}/v1"}
            async with running(tmp_path / "front", **front_settings) as front:
                async with stock(front.url) as call:
                    name = {"type": f"audio/{law}"}
                    await call.configure(audio={"input": {"format": name}, "output": {"format": name}})
                    await speak(call, quiet(law, 400) + voice(law, 600) + quiet(law, 900))
                    started = await call.wait("input_audio_buffer.speech_started")
                    stopped = await call.wait("input_audio_buffer.speech_stopped")
                    spoken_ms = stopped.audio_end_ms - started.audio_start_ms - 300
                    assert 450 <= spoken_ms <= 750
                    done = (await call.wait("response.done")).response
                    assert done.status == "completed" and done.audio.output.format.type == f"audio/{law}"
                    said = call.audio()
                    assert loudness(law, said) > 1_000
                    await call.connection.conversation.item.retrieve(item_id=started.item_id)
                    kept = (await call.wait("conversation.item.retrieved")).item.content[0]
                    assert loudness(law, base64.b64decode(kept.audio)) > 1_000
        for name in ("front", "back"):
            (told,) = stories(tmp_path / name).values()
            spoken = told.of("response.output_item.done")[0]
            assert abs(spoken.audio_ms - len(said) / 8) <= 4
            config = told.ended.state.config
            assert (config.input_format, config.output_format) == (law, law)

    run(story())


def test_an_interruption_through_two_gateways_cuts_at_what_was_heard(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "back", spoken_agent("stop", builtin_tools=False)) as back:
            async with running(tmp_path / "front", **UP, upstream_url=f"{back.url}/v1") as front:
                caller = await telephone(front.url)
                await caller.ask(f"Say: {LONG}")
                await caller.wait("response.output_audio.delta")
                await asyncio.sleep(0.6)
                await speak(caller, voice("pcmu", 500) + quiet("pcmu", 800))
                await caller.wait("input_audio_buffer.speech_started")
                done = (await caller.wait("response.done"))["response"]
                assert done["status"] == "cancelled"
                sent_ms = len(caller.audio()) / 8
                await caller.close()
        heard = {}
        for name in ("front", "back"):
            (told,) = stories(tmp_path / name).values()
            cut = told.of("openline.item.heard")[0].item_id
            heard[name] = told.ended.state.entries[cut].heard_ms
        assert 300 < heard["front"] <= sent_ms + 1
        assert heard["back"] == heard["front"], "in the end both know the same of what was heard"

    run(story())


def test_a_telephone_that_comes_back_hears_the_rest(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "back", spoken_agent("hello", builtin_tools=False)) as back:
            async with running(tmp_path / "front", **UP, upstream_url=f"{back.url}/v1") as front:
                caller = await telephone(front.url)
                await caller.ask(f"Say: {LONG}")
                await caller.wait("response.output_audio.delta")
                await asyncio.sleep(0.8)
                await caller.drop()
                returned = await dial(front.url, **again(caller))
                partial = await returned.wait("openline.item.partial")
                done = (await returned.wait("response.done"))["response"]
                after = len(returned.audio())
                await returned.close()
                assert done["status"] == "completed" and partial["audio_start_ms"] * 8 <= len(caller.audio())
        (told,) = stories(tmp_path / "front").values()
        made_ms = told.of("response.output_item.done")[0].audio_ms
        assert abs(partial["audio_start_ms"] + after / 8 - made_ms) <= 2

    run(story())


def test_text_needs_no_format(tmp_path: Path) -> None:
    """A caller that only writes before a provider without G.711: nothing is asked of it that it could refuse."""

    async def story() -> None:
        async with FakeRealtime() as fake:
            fake.formats = {"audio/pcm"}
            async with running(tmp_path / "data", **UP, upstream_url=fake.url) as gateway:
                async with line(gateway.url) as caller:
                    await caller.turn("hello")
                    assert not fake.latest.errors

    run(story())
