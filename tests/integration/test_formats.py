"""G.711 on the line: heard, said, recorded, interrupted, resumed; through openai's own types."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from integration.gateway import running, spoken_agent, stories
from integration.line import Line, again, dial, line
from integration.stock import Stock, stock
from openline.adapters.g711 import Law, compress, expand
from openline.testing.speech import tone

FRAME = 160
"""20 ms of G.711."""
MULAW, ALAW = {"type": "audio/pcmu"}, {"type": "audio/pcma"}
LAWS: tuple[Law, ...] = ("pcmu", "pcma")


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def voice(law: Law, ms: int) -> bytes:
    """Something loud enough to be speech, as a telephone sends it."""
    return compress(law, tone(440, ms, rate=8_000))


def quiet(law: Law, ms: int) -> bytes:
    return compress(law, bytes(ms * 16))


async def speak(call: Stock | Line, data: bytes, pace: float = 1.0) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    for start in range(0, len(data), FRAME):
        piece = data[start : start + FRAME]
        if isinstance(call, Line):
            await call.append(piece)
        else:
            audio = base64.b64encode(piece).decode()
            await call.connection.input_audio_buffer.append(audio=audio)
        due += 0.02 * pace
        await asyncio.sleep(max(0.0, due - loop.time()))


def loudness(law: Law, data: bytes) -> float:
    pcm = memoryview(expand(law, data)).cast("h")
    return float((sum(sample * sample for sample in pcm) / max(1, len(pcm))) ** 0.5)


@pytest.mark.parametrize("law", LAWS)
def test_a_telephone_is_heard_and_answered_in_its_own_format(law: Law, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            async with stock(gateway.url) as call:
                name = {"type": f"audio/{law}"}
                updated = await call.configure(audio={"input": {"format": name}, "output": {"format": name}})
                assert updated.session.audio.input.format.type == f"audio/{law}"
                assert updated.session.audio.output.format.type == f"audio/{law}"
                await speak(call, quiet(law, 400) + voice(law, 600) + quiet(law, 900))
                started = await call.wait("input_audio_buffer.speech_started")
                stopped = await call.wait("input_audio_buffer.speech_stopped")
                spoken_ms = stopped.audio_end_ms - started.audio_start_ms - 300
                assert 500 <= spoken_ms <= 700, "milliseconds are counted at 8 kHz"
                done = (await call.wait("response.done")).response
                assert done.audio.output.format.type == f"audio/{law}"
                said = call.audio()
                words = done.output[0].content[0].transcript
                assert loudness(law, said) > 1_000, "tones of the twin, not noise"
                # The twin makes a whole number of 20 ms for each word; at 8 kHz that many bytes.
                assert 8 * 20 * len(words.split()) <= len(said)
                await call.connection.conversation.item.retrieve(item_id=started.item_id)
                kept = (await call.wait("conversation.item.retrieved")).item.content[0]
                heard = base64.b64decode(kept.audio)
                span = stopped.audio_end_ms - started.audio_start_ms
                assert abs(len(heard) / 8 - span) <= 40
                assert loudness(law, heard) > 1_000
        (told,) = stories(tmp_path / "data").values()
        spoken = next(fact for fact in told.of("response.output_item.done"))
        assert abs(spoken.audio_ms - len(said) / 8) <= 2, "the log counts what the line was sent"

    run(story())


def test_each_way_may_have_its_own_format(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            async with stock(gateway.url) as call:
                await call.configure(audio={"input": {"format": MULAW}})
                await speak(call, voice("pcmu", 500) + quiet("pcmu", 800))
                await call.wait("response.done")
                first = call.audio()
                await call.configure(audio={"output": {"format": ALAW}})
                done = await call.turn("again")
                second = call.audio()[len(first) :]
                assert done.audio.output.format.type == "audio/pcma"
                assert loudness("pcma", second) > 1_000
                pcm = memoryview(first).cast("h")
                assert max(pcm) > 5_000, "the first answer was PCM16"

    run(story())


def test_one_reply_may_have_a_format_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            async with stock(gateway.url) as call:
                done = await call.turn("hello", audio={"output": {"format": MULAW}})
                assert done.audio.output.format.type == "audio/pcmu"
                first = call.audio()
                assert loudness("pcmu", first) > 1_000
                done = await call.turn("hello")
                assert done.audio.output.format.rate == 24_000
                assert max(memoryview(call.audio()[len(first) :]).cast("h")) > 5_000

    run(story())


def test_half_a_sample_is_an_error_in_pcm_and_a_sample_in_g711(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            async with line(gateway.url) as caller:
                await caller.append(b"\0" * 3)
                assert (await caller.wait("error"))["error"]["param"] == "audio"
                session = {"type": "realtime", "audio": {"input": {"format": MULAW}}}
                await caller.send("session.update", session=session)
                await caller.wait("session.updated")
                await caller.append(b"\xff" * 3)
                await caller.send("session.update", session=session)
                await caller.wait("session.updated")
                assert len(caller.of("error")) == 1

    run(story())


async def telephone(url: str, **query: object) -> Line:
    caller = await dial(url, **query)
    audio = {"input": {"format": MULAW}, "output": {"format": MULAW}}
    await caller.send("session.update", session={"type": "realtime", "audio": audio})
    await caller.wait("session.updated")
    return caller


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def test_an_interruption_cuts_at_what_was_heard(tmp_path: Path) -> None:
    async def story() -> None:
        agent = spoken_agent("stop")
        async with running(tmp_path / "data", agent) as gateway:
            caller = await telephone(gateway.url)
            await caller.ask(f"Say: {LONG}")
            await caller.wait("response.output_audio.delta")
            await asyncio.sleep(0.6)
            talking = asyncio.create_task(speak(caller, voice("pcmu", 500) + quiet("pcmu", 800)))
            await caller.wait("input_audio_buffer.speech_started")
            done = (await caller.wait("response.done"))["response"]
            await talking
            await caller.close()
        (told,) = stories(tmp_path / "data").values()
        if done["status"] == "cancelled":
            heard = told.of("openline.item.heard")[0]
            sent_ms = sum(
                len(base64.b64decode(frame["delta"])) / 8
                for frame in caller.of("response.output_audio.delta")
                if frame["item_id"] == heard.item_id
            )
            assert 0 < heard.audio_end_ms <= sent_ms + 1
        else:
            pytest.fail(f"the reply was over before it could be interrupted: {done['status']}")

    run(story())


def test_a_line_that_was_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    """What the caller cannot have heard is sent again, from its played position, in its format."""

    async def story() -> None:
        async with running(tmp_path / "data", spoken_agent("hello")) as gateway:
            caller = await telephone(gateway.url)
            await caller.ask(f"Say: {LONG}")
            await caller.wait("response.output_audio.delta")
            await asyncio.sleep(0.8)
            before = len(caller.audio())
            await caller.drop()
            back = await dial(gateway.url, **again(caller))
            partial = await back.wait("openline.item.partial")
            done = (await back.wait("response.done"))["response"]
            after = len(back.audio())
            await back.close()
            assert done["status"] == "completed"
            assert partial["audio_start_ms"] * 8 <= before
        (told,) = stories(tmp_path / "data").values()
        made_ms = told.of("response.output_item.done")[0].audio_ms
        assert abs(partial["audio_start_ms"] + after / 8 - made_ms) <= 2

    run(story())
