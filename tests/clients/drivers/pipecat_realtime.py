"""Pipecat, ``OpenAIRealtimeLLMService``: in a pipeline with its context aggregators, as a bot has it.

The place of the transport is taken by ``Speaker``: it says when the bot speaks, which an output transport does,
and keeps every frame. Everything that Pipecat logs at warning or above fails the scenario, for a frame that it
cannot parse ends its reader and is only logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import driver
from driver import Call, News, check
from loguru import logger
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMTextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

called: list[tuple[str, str]] = []


async def stock(params: FunctionCallParams, part: str) -> None:
    """The stock of a part.

    Args:
        part: The part's name.
    """
    called.append(("stock", part))
    await params.result_callback(driver.TOOLS["stock"])


async def price(params: FunctionCallParams, part: str) -> None:
    """The price of a part.

    Args:
        part: The part's name.
    """
    called.append(("price", part))
    await params.result_callback(driver.TOOLS["price"])


class Speaker(FrameProcessor):
    """Where a transport's output stands."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.news.put(frame)
        await self.push_frame(frame, direction)
        if isinstance(frame, TTSStartedFrame):
            await self.broadcast_frame(BotStartedSpeakingFrame)
        elif isinstance(frame, TTSStoppedFrame | InterruptionFrame):
            await self.broadcast_frame(BotStoppedSpeakingFrame)


class Bot:
    def __init__(self, worker: Any, llm: OpenAIRealtimeLLMService, news: News) -> None:
        self.worker = worker
        self.llm = llm
        self.news = news
        self.read = 0

    async def wait(self, kind: type, test: Any = lambda frame: True) -> Any:
        return await self.news.wait(lambda frame: isinstance(frame, kind) and test(frame), kind.__name__)

    async def answer(self) -> str:
        """The words of the next answer that has any."""
        said = ""
        while not said:
            await self.wait(LLMFullResponseEndFrame)
            end = self.news.looked
            said = self.text(self.read, end)
            self.read = end
        return said

    def text(self, begin: int, end: int) -> str:
        return "".join(frame.text for frame in self.news.all[begin:end] if isinstance(frame, LLMTextFrame))

    async def speak(self, call: Call, name: str, *, after_ms: int = 1_000) -> None:
        async for pcm in driver.frames(call.sound(name), after_ms=after_ms):
            await self.worker.queue_frame(InputAudioRawFrame(pcm, 24_000, 1))

    def audio_ms(self) -> float:
        return sum(len(frame.audio) / 48 for frame in self.news.all if isinstance(frame, TTSAudioRawFrame))


def properties(*, text: bool = False, manual: bool = False) -> events.SessionProperties:
    audio = events.AudioInput(
        transcription=events.InputAudioTranscription(),
        turn_detection=False if manual else events.TurnDetection(type="server_vad"),
    )
    return events.SessionProperties(
        output_modalities=["text"] if text else ["audio"],
        audio=events.AudioConfiguration(input=audio),
    )


@contextlib.asynccontextmanager
async def bot(
    call: Call, first: str, *, tools: bool = False, text: bool = False, manual: bool = False
) -> AsyncIterator[Bot]:
    """``first``: what the user says in the context that the call begins with."""
    complaints: list[str] = []
    logger.remove()
    logger.add(sys.stderr, level="DEBUG")
    logger.add(lambda line: complaints.append(str(line)), level="WARNING", format="{name}: {message}")
    llm = OpenAIRealtimeLLMService(
        api_key=driver.KEY,
        base_url=call.realtime,
        settings=OpenAIRealtimeLLMService.Settings(
            model=call.model,
            system_instruction="Be brief.",
            session_properties=properties(text=text, manual=manual),
        ),
    )
    said: Any = [{"role": "user", "content": first}]
    given = {"tools": ToolsSchema(standard_tools=[stock, price])} if tools else {}
    context = LLMContext(said, **given)
    user, assistant = LLMContextAggregatorPair(context)
    news = News()
    pipeline = Pipeline([user, llm, Speaker(news), assistant])
    worker = PipelineWorker(pipeline, cancel_on_idle_timeout=False, enable_rtvi=False)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(worker: Any, frame: Any) -> None:
        started.set()

    @worker.event_handler("on_pipeline_error")
    async def on_error(worker: Any, frame: ErrorFrame) -> None:
        complaints.append(f"error frame: {frame.error}")

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(driver.PATIENCE_S):
        await started.wait()
    one = Bot(worker, llm, news)
    await worker.queue_frame(LLMRunFrame())
    try:
        yield one
    except driver.Failed as error:
        raise driver.Failed(f"{error}; complaints {complaints[:2]}") from error
    await worker.queue_frame(EndFrame())
    await driver.ends_quietly(running, "the pipeline")
    # With manual turns it says that it detects none, which is what was asked for.
    bad = [line for line in complaints if not (manual and "is not emitting turn frames" in line)]
    check(not bad, f"the client complained: {bad[:2]}")


async def connect(call: Call) -> None:
    async with bot(call, "Hello there.", text=True) as one:
        check(await one.answer(), "no answer")


async def text_turn(call: Call) -> None:
    """The service takes what a user typed only with the context that a call begins with; the rest is spoken."""
    async with bot(call, driver.WORD, text=True) as one:
        await one.answer()
        await one.speak(call, "ask")
        said = await one.answer()
        check(driver.ANSWER in said.lower(), f"the code word was not remembered: {said}")


async def audio_turn(call: Call) -> None:
    async with bot(call, "Hello there.") as one:
        await one.answer()
        await one.speak(call, "times")
        await one.wait(UserStartedSpeakingFrame)
        words = ""
        while not ("84" in words or "eighty" in words):
            words = (await one.answer()).lower()
        check(one.audio_ms() > 500, f"only {one.audio_ms():.0f} ms of sound came")
        heard = [frame.text.lower() for frame in one.news.all if isinstance(frame, TranscriptionFrame)]
        call.seen["heard"] = heard
        call.seen["said"] = words


async def barge_in(call: Call) -> None:
    """It interrupts its own pipeline, and truncates to what it takes for played."""
    async with bot(call, "Hello there.") as one:
        await one.answer()
        before = one.audio_ms()
        await one.speak(call, "about", after_ms=900)
        await one.wait(TTSAudioRawFrame)
        playing = driver.Playing(one.news.came)
        await asyncio.sleep(1.0)
        speaking = asyncio.create_task(one.speak(call, "stop"))
        await one.wait(InterruptionFrame)
        playing.interrupt(call, one.audio_ms() - before)
        # From here on only the next answer has words. The end of the cut one may be before this or after.
        one.read = one.news.looked
        check(await one.answer(), "no answer followed")
        await speaking


async def tool_call(call: Call) -> None:
    async with bot(call, driver.CALL_ONE, tools=True, text=True) as one:
        said = await one.answer()
        check(called == [("stock", "bolt")], f"called: {called}")
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with bot(call, driver.CALL_BOTH, tools=True, text=True) as one:
        check(await one.answer(), "no answer after both results")
        check(sorted(called) == [("price", "bolt"), ("stock", "bolt")], f"called: {called}")


async def manual_commit(call: Call) -> None:
    """Turns are the client's: it commits and asks when its own user stops speaking."""
    async with bot(call, "Hello there.", text=True, manual=True) as one:
        await one.answer()
        await one.worker.queue_frame(UserStartedSpeakingFrame())
        await one.speak(call, "fact-tiger-seven")
        await one.worker.queue_frame(UserStoppedSpeakingFrame())
        await one.answer()
        await one.worker.queue_frame(UserStartedSpeakingFrame())
        await one.speak(call, "ask")
        await one.worker.queue_frame(UserStoppedSpeakingFrame())
        said = await one.answer()
        check(driver.ANSWER in said.lower(), f"what was said is not known: {said}")


async def error_path(call: Call) -> None:
    """Most errors end its reader; the ones it can bear are those that it causes by itself."""
    async with bot(call, "Hello there.", text=True) as one:
        await one.answer()
        try:
            await one.llm.retrieve_conversation_item("item_nowhere")
        except Exception as error:  # what the client makes of the refusal
            call.seen["error"] = str(error)
        check("error" in call.seen, "an unknown item was retrieved")
        await one.llm.send_client_event(events.ResponseCancelEvent())
        await one.speak(call, "hello")
        check(await one.answer(), "no turn after the errors")


async def clean_close(call: Call) -> None:
    async with bot(call, "Hello there.", text=True) as one:
        await one.answer()


if __name__ == "__main__":
    driver.main(
        "pipecat-ai",
        {
            "connect": connect,
            "text_turn": text_turn,
            "audio_turn": audio_turn,
            "barge_in": barge_in,
            "tool_call": tool_call,
            "parallel_tool_calls": parallel_tool_calls,
            "manual_commit": manual_commit,
            "error_path": error_path,
            "clean_close": clean_close,
        },
    )
