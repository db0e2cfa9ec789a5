"""The stock openai client, unmodified, on two gateways in a row: what it does with one, it does with two."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from integration.gateway import running, stories
from integration.line import silence
from integration.stock import Stock, stock
from openline.agent.agent import Agent
from openline.testing.scripts import scripted_speech

TOOLS = [
    {
        "type": "function",
        "name": name,
        "description": f"{name} of a part",
        "parameters": {"type": "object", "properties": {"part": {"type": "string"}}},
    }
    for name in ("stock", "price")
]


@contextlib.asynccontextmanager
async def calling(folder: Path) -> AsyncIterator[Stock]:
    plain = Agent(builtin_tools=False)
    async with running(folder / "back", plain, model="scripted", record="off") as back:
        url = f"{back.url}/v1"
        front = running(folder / "front", plain, model="openai/up", upstream_url=url, record="off")
        async with front as gateway, stock(gateway.url) as call:
            yield call
            assert not call.of("error")
    for name in ("front", "back"):
        assert stories(folder / name), "every log verifies"


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_text_and_tools(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(tmp_path) as call:
            await call.configure(output_modalities=["text"], tools=TOOLS)
            done = await call.turn("hello over there")
            assert done.output[0].content[0].text == "You said: hello over there."
            done = await call.turn('call stock with {"part":"M8"} and call price with {"part":"M8"}')
            assert [(item.name, json.loads(item.arguments)) for item in done.output] == [
                ("stock", {"part": "M8"}),
                ("price", {"part": "M8"}),
            ]
            for item, output in zip(done.output, ("eight", "two euros"), strict=True):
                told = {"type": "function_call_output", "call_id": item.call_id, "output": output}
                await call.connection.conversation.item.create(item=told)
            await call.connection.response.create()
            said = (await call.wait("response.done")).response
            assert said.output[0].content[0].text == "The tool said: two euros"

    run(story())


def test_speech_and_barge_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(tmp_path) as call:
            await call.speak(scripted_speech("long", 400) + silence(700), pace=0.3)
            await call.wait("response.output_audio.delta")
            await call.speak(scripted_speech("stop it", 400) + silence(700), pace=0.5)
            cut = (await call.wait("response.done")).response
            assert (cut.status, cut.status_details.reason) == ("cancelled", "turn_detected")
            done = (await call.wait("response.done")).response
            assert done.output[0].content[0].transcript == "You said: stop it."
            heard = call.of("conversation.item.input_audio_transcription.completed")
            assert [event.transcript for event in heard] == ["long", "stop it"]

    run(story())


def test_a_turn_by_hand(tmp_path: Path) -> None:
    async def story() -> None:
        async with calling(tmp_path) as call:
            await call.configure(audio={"input": {"turn_detection": None}})
            await call.speak(scripted_speech("two screws", 400), pace=0.2)
            await call.connection.input_audio_buffer.commit()
            await call.wait("input_audio_buffer.committed")
            await call.connection.response.create()
            done = (await call.wait("response.done")).response
            assert done.output[0].content[0].transcript == "You said: two screws."

    run(story())
