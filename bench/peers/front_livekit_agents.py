"""LiveKit Agents as a relay: one ``AgentSession`` with its ``RealtimeModel`` a caller, behind the WebSocket of ``leg``.

Its own leg to callers is a LiveKit room (WebRTC through a server, media decoded in native code); that leg is not
here: audio goes through a custom AudioInput and AudioOutput, which cost less. It groups caller audio to 100 ms by
design. No recording, no VAD of its own (the server's turn detection is used). Audio and transcript go to the caller.
"""

from __future__ import annotations

import asyncio
from functools import cache

import aiohttp
from leg import SILENCE_MS, Caller, arguments, run
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.voice import io
from livekit.plugins import openai
from openai.types.realtime.realtime_audio_input_turn_detection import ServerVad

chosen = arguments()
RATE = 24_000


@function_tool
async def lookup(part: str, count: int) -> str:
    """Stock of a part"""
    return '{"stock":12}'


class Ears(io.AudioInput):
    def __init__(self, caller: Caller) -> None:
        super().__init__(label="caller")
        self._audio = caller.audio()

    async def __anext__(self) -> rtc.AudioFrame:
        pcm = await self._audio.__anext__()
        return rtc.AudioFrame(pcm, RATE, 1, len(pcm) // 2)


class Mouth(io.AudioOutput):
    """Sends at once; a segment has been played when it has been sent: the model speaks in real time."""

    def __init__(self, caller: Caller) -> None:
        super().__init__(
            label="caller", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=RATE
        )
        self._caller = caller
        self._seconds = 0.0
        self._work: set[asyncio.Task[None]] = set()

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self._seconds += frame.duration
        await self._caller.send_audio(bytes(frame.data))

    def flush(self) -> None:
        super().flush()
        self._end(interrupted=False)

    def clear_buffer(self) -> None:
        self._end(interrupted=True)

    def _end(self, *, interrupted: bool) -> None:
        if self._seconds:
            seconds, self._seconds = self._seconds, 0.0
            self.on_playback_finished(playback_position=seconds, interrupted=interrupted)
            task = asyncio.create_task(self._caller.done())
            self._work.add(task)
            task.add_done_callback(self._work.discard)


class Words(io.TextOutput):
    def __init__(self, caller: Caller) -> None:
        super().__init__(label="caller", next_in_chain=None)
        self._caller = caller

    async def capture_text(self, text: str) -> None:
        await self._caller.send_text(text)

    def flush(self) -> None:
        """Nothing is kept here."""


@cache
def http() -> aiohttp.ClientSession:
    """Outside a job the library opens none by itself; one for all callers."""
    return aiohttp.ClientSession()


async def call(caller: Caller) -> None:
    await caller.begin()
    detection = ServerVad(
        type="server_vad", silence_duration_ms=SILENCE_MS, create_response=True, interrupt_response=True
    )
    model = openai.realtime.RealtimeModel(
        base_url=chosen.upstream.replace("ws", "http", 1),
        api_key="none",
        model="load",
        turn_detection=detection,
        http_session=http(),
    )
    session = AgentSession(llm=model, vad=None)
    session.input.audio = Ears(caller)
    session.output.audio = Mouth(caller)
    session.output.transcription = Words(caller)
    await session.start(Agent(instructions="You run the workshop.", tools=[lookup]), record=False)
    await caller.ready()
    await caller.gone()
    await session.aclose()


run(chosen.port, call)
