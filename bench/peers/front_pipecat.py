"""Pipecat as a relay: one pipeline a caller, its FastAPI WebSocket transport and ``OpenAIRealtimeLLMService``.

Turns are the server's (``ExternalUserTurnStrategies``: the default loads a turn model for each session, 12 MB). It
keeps context, runs the tool here, paces output. Its transport carries audio; words would be RTVI messages, which are
left out. No log, no resume.
"""

from __future__ import annotations

import sys
from binascii import a2b_base64, b2a_base64

import uvicorn
from fastapi import FastAPI, WebSocket
from leg import APPEND, AUDIO, DONE, SESSION, SILENCE_MS, STARTED, arguments
from loguru import logger
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    TTSStartedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies

logger.remove()
logger.add(sys.stdout, level="ERROR")
chosen = arguments()
app = FastAPI()
RATE = 24_000
LOOKUP = FunctionSchema(
    "lookup", "Stock of a part", {"part": {"type": "string"}, "count": {"type": "integer"}}, ["part", "count"]
)
TOOLS = ToolsSchema(standard_tools=[LOOKUP])


class Frames(FrameSerializer):
    """The load generator's frames, as cheaply as can be."""

    async def serialize(self, frame: Frame) -> str | bytes | None:
        if isinstance(frame, OutputAudioRawFrame):
            return (AUDIO % b2a_base64(frame.audio, newline=False)).decode()
        if isinstance(frame, OutputTransportMessageFrame) and not self.should_ignore_frame(frame):
            return DONE
        return STARTED if isinstance(frame, InterruptionFrame) else None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        if not data.startswith(APPEND.decode()):
            return None
        return InputAudioRawFrame(a2b_base64(data[len(APPEND) : -2]), RATE, 1)


class EndOfReply(FrameProcessor):
    """Says at its place in the stream that a spoken reply is over; a tool call is none."""

    def __init__(self) -> None:
        super().__init__()
        self._has_spoken = False

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, TTSStartedFrame):
            self._has_spoken = True
        elif isinstance(frame, LLMFullResponseEndFrame) and self._has_spoken:
            self._has_spoken = False
            await self.push_frame(OutputTransportMessageFrame(message={"type": "response.done"}))


async def lookup(params) -> None:
    await params.result_callback({"stock": 12})


@app.websocket("/v1/realtime")
async def call(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(SESSION % "session.created")
    while "session.update" not in await socket.receive_text():
        pass
    transport = FastAPIWebsocketTransport(
        socket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_in_sample_rate=RATE,
            audio_out_sample_rate=RATE,
            serializer=Frames(),
        ),
    )
    heard = events.AudioInput(
        transcription=events.InputAudioTranscription(model="gpt-4o-mini-transcribe"),
        turn_detection=events.TurnDetection(silence_duration_ms=SILENCE_MS),
    )
    properties = events.SessionProperties(
        instructions="You run the workshop.", tools=TOOLS, audio=events.AudioConfiguration(input=heard)
    )
    service = OpenAIRealtimeLLMService(
        api_key="none",
        base_url=f"{chosen.upstream}/realtime",
        settings=OpenAIRealtimeLLMService.Settings(model="load", session_properties=properties),
    )
    service.register_function("lookup", lookup)
    context = LLMContext([], TOOLS)
    pair = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
    )
    pipeline = Pipeline(
        [transport.input(), pair.user(), service, EndOfReply(), transport.output(), pair.assistant()]
    )
    task = PipelineTask(
        pipeline,
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
        idle_timeout_secs=None,
        enable_rtvi=False,
    )

    @transport.event_handler("on_client_connected")
    async def on_connected(transport, client) -> None:
        await socket.send_text(SESSION % "session.updated")

    @transport.event_handler("on_client_disconnected")
    async def on_disconnected(transport, client) -> None:
        await task.cancel()

    await PipelineRunner(handle_sigint=False).run(task)


class Server(uvicorn.Server):
    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        print(f"listening on http://127.0.0.1:{chosen.port}", flush=True)


Server(
    uvicorn.Config(
        app,
        host="127.0.0.1",
        port=chosen.port,
        loop="uvloop",
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_level="error",
    )
).run()
