"""Pipecat, ``OpenAIResponsesLLMService``: over its WebSocket, in a pipeline with its context aggregators.

Everything that Pipecat logs at warning or above fails the scenario, unless it is what the scenario is about.
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
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMMessagesAppendFrame,
    LLMTextFrame,
    LLMThoughtTextFrame,
    LLMUpdateSettingsFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.responses.llm import OpenAIResponsesLLMService
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


class Reader(FrameProcessor):
    """Keeps what comes out of the service."""

    def __init__(self, news: News) -> None:
        super().__init__()
        self.news = news

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.news.put(frame)
        await self.push_frame(frame, direction)


class Bot:
    def __init__(self, worker: Any, news: News, complaints: list[str]) -> None:
        self.worker = worker
        self.news = news
        self.complaints = complaints
        self.read = 0

    async def ask(self, text: str) -> None:
        message: Any = {"role": "user", "content": text}
        await self.worker.queue_frame(LLMMessagesAppendFrame([message], run_llm=True))

    async def answer(self) -> str:
        """The words of the next answer that has any."""
        said = ""
        while not said:
            await self.news.wait(lambda frame: isinstance(frame, LLMFullResponseEndFrame), "end of an answer")
            frames = self.news.all[self.read : self.news.looked]
            self.read = self.news.looked
            said = "".join(frame.text for frame in frames if isinstance(frame, LLMTextFrame))
        return said

    async def turn(self, text: str) -> str:
        await self.ask(text)
        return await self.answer()


@contextlib.asynccontextmanager
async def bot(call: Call, *, tools: bool = False, allowed: str = "", **settings: Any) -> AsyncIterator[Bot]:
    """``allowed``: the complaint that this scenario is about."""
    complaints: list[str] = []
    logger.remove()
    logger.add(sys.stderr, level="DEBUG")
    logger.add(lambda line: complaints.append(str(line)), level="WARNING", format="{name}: {message}")
    given = OpenAIResponsesLLMService.Settings(model=call.model, system_instruction="Be brief.", **settings)
    llm = OpenAIResponsesLLMService(api_key=driver.KEY, ws_url=call.responses, settings=given)
    options: Any = {"tools": ToolsSchema(standard_tools=[stock, price])} if tools else {}
    user, assistant = LLMContextAggregatorPair(LLMContext([], **options))
    news = News()
    pipeline = Pipeline([user, llm, Reader(news), assistant])
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
    try:
        yield Bot(worker, news, complaints)
    except driver.Failed as error:
        raise driver.Failed(f"{error}; complaints {complaints[:2]}") from error
    await worker.queue_frame(EndFrame())
    await driver.ends_quietly(running, "the pipeline")
    bad = [line for line in complaints if not (allowed and allowed in line)]
    check(not bad, f"the client complained: {bad[:2]}")


async def connect(call: Call) -> None:
    async with bot(call) as one:
        check(await one.turn("Hello there."), "no answer")


async def text_turn(call: Call) -> None:
    async with bot(call) as one:
        await one.turn(driver.WORD)
        said = await one.turn(driver.ASK)
        check(driver.ANSWER in said.lower(), f"the code word was not remembered: {said}")


async def barge_in(call: Call) -> None:
    """An interruption in the middle: it cancels the response, drains what still comes, and takes another turn.

    What it had sent is then unknown at the server, as at OpenAI; it says so, and sends the whole once.
    """
    async with bot(call, allowed="previous_response_not_found") as one:
        await one.turn(driver.WORD)
        story = driver.Story(call)
        await one.ask(story.ask)
        while not story.hear(
            (await one.news.wait(lambda frame: isinstance(frame, LLMTextFrame), "words")).text
        ):
            pass
        story.interrupt()
        await one.worker.queue_frame(InterruptionFrame())
        await one.news.wait(lambda frame: isinstance(frame, InterruptionFrame), "interruption")
        one.read = one.news.looked
        # The words that came meanwhile are in its context, too: what it has is what it gives back.
        came = driver.words_of(
            "".join(frame.text for frame in one.news.all if isinstance(frame, LLMTextFrame))
        )
        heard = driver.heard_of(await one.turn(driver.HEARD))
        check(story.words <= heard <= came < 400, f"{came} words came, the model knows of {heard}")
        said = await one.turn(driver.ASK)
        check(driver.ANSWER in said.lower(), f"the conversation is lost: {said}")


async def tool_call(call: Call) -> None:
    async with bot(call, tools=True) as one:
        said = await one.turn(driver.CALL_ONE)
        check(called == [("stock", "bolt")], f"called: {called}")
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with bot(call, tools=True) as one:
        check(await one.turn(driver.CALL_BOTH), "no answer after both results")
        check(sorted(called) == [("price", "bolt"), ("stock", "bolt")], f"called: {called}")


EMPTY = "completed with no text or function call"


async def refusal(call: Call) -> None:
    """Not as text, but as an error of its own, which names what the answer is made of; the next turn works.

    Its context has nothing of it, and it sends the whole of that then.
    """
    async with bot(call, allowed=EMPTY) as one:
        await one.ask(driver.FORBIDDEN)
        await one.news.wait(lambda frame: isinstance(frame, LLMFullResponseEndFrame), "end of an answer")
        words = [frame.text for frame in one.news.all if isinstance(frame, LLMTextFrame)]
        check(not words, f"the refusal came as text: {words}")
        told = [line for line in one.complaints if EMPTY in line]
        check(any("message[refusal]" in line for line in told), f"it does not tell of a refusal: {told}")
        call.seen["told"] = told[0].strip()
        one.read = one.news.looked
        said = await one.turn(driver.REFUSED)
        check(said == "I refused 0 times.", f"the next turn is {said!r}")


async def reasoning(call: Call) -> None:
    """Thoughts come as frames; sealed, they are in its context, from which it sends what the server does not have."""
    config = OpenAIResponsesLLMService.ReasoningConfig(effort="low", summary="auto")
    async with bot(call, tools=True, reasoning=config) as one:
        said = await one.turn(driver.THINK)
        check(called == [("stock", "bolt")], f"called: {called}")
        check("17" in said, f"the result is not in the answer: {said}")
        thoughts = "".join(frame.text for frame in one.news.all if isinstance(frame, LLMThoughtTextFrame))
        check(thoughts == "".join(driver.SUMMARY) * 2, f"the thoughts are {thoughts!r}")
        driver.check_thoughts(await one.turn(driver.THOUGHTS), 2)


async def error_path(call: Call) -> None:
    """A wrong setting is refused; with a right one the next turn works on the same connection."""
    async with bot(call, allowed="max_output_tokens", max_completion_tokens=-1) as one:
        await one.ask("Hello there.")
        async with asyncio.timeout(driver.PATIENCE_S):
            while not any("error frame" in line for line in one.complaints):
                await asyncio.sleep(0.01)
        call.seen["error"] = one.complaints[-1]
        delta = OpenAIResponsesLLMService.Settings(max_completion_tokens=200)
        await one.worker.queue_frame(LLMUpdateSettingsFrame(delta=delta))
        check(await one.turn("Hello there."), "no turn after the error")


async def clean_close(call: Call) -> None:
    async with bot(call) as one:
        await one.turn("Hello there.")


if __name__ == "__main__":
    driver.main(
        "pipecat-ai",
        {
            "connect": connect,
            "text_turn": text_turn,
            "barge_in": barge_in,
            "tool_call": tool_call,
            "parallel_tool_calls": parallel_tool_calls,
            "refusal": refusal,
            "reasoning": reasoning,
            "error_path": error_path,
            "clean_close": clean_close,
        },
    )
