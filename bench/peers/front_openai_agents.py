"""OpenAI Agents SDK as a relay: one ``RealtimeRunner`` session a caller, behind the WebSocket of ``leg``.

It keeps history, runs the tool here, tracks playout for interruptions. It has no server of its own, no log, no
resume. Audio and transcript deltas go to the caller; the other events end here.
"""

from __future__ import annotations

import asyncio

from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner
from leg import SILENCE_MS, Caller, arguments, run

set_tracing_disabled(True)
chosen = arguments()


@function_tool
async def lookup(part: str, count: int) -> str:
    """Stock of a part"""
    return '{"stock":12}'


DETECTION = {
    "type": "server_vad",
    "silence_duration_ms": SILENCE_MS,
    "create_response": True,
    "interrupt_response": True,
}
CONFIG = {
    "model_settings": {
        "model_name": "load",
        "audio": {
            "input": {
                "format": "pcm16",
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": DETECTION,
            },
            "output": {"format": "pcm16"},
        },
    },
    "tracing_disabled": True,
}


async def call(caller: Caller) -> None:
    await caller.begin()
    agent = RealtimeAgent(name="load", instructions="You run the workshop.", tools=[lookup])
    runner = RealtimeRunner(agent, config=CONFIG)
    session = await runner.run(
        model_config={"url": f"{chosen.upstream}/realtime?model=load", "api_key": "none"}
    )
    async with session:
        down = asyncio.create_task(relay_down(caller, session))
        await caller.ready()
        async for pcm in caller.audio():
            await session.send_audio(pcm)
        down.cancel()


async def relay_down(caller: Caller, session) -> None:
    has_spoken = False
    async for event in session:
        if event.type == "audio":
            has_spoken = True
            await caller.send_audio(event.audio.data)
        elif event.type == "audio_interrupted":
            await caller.interrupted()
        elif event.type == "error":
            print(f"error: {event.error}", flush=True)
        elif event.type == "raw_model_event":
            if event.data.type == "transcript_delta":
                await caller.send_text(event.data.delta)
            elif event.data.type == "turn_ended" and has_spoken:
                has_spoken = False
                await caller.done()


run(chosen.port, call)
