"""LiveKit Agents, ``openai.responses.LLM``: over its WebSocket, with its own chat context and tools.

It validates every event that it reads; what does not fit ends the stream with an error.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import driver
from driver import Call, check
from livekit.agents import APIConnectOptions, llm
from livekit.agents.utils import http_context
from livekit.plugins import openai
from openai.types import Reasoning


@llm.function_tool
async def stock(part: str) -> str:
    """The stock of a part."""
    return driver.TOOLS["stock"]


@llm.function_tool
async def price(part: str) -> str:
    """The price of a part."""
    return driver.TOOLS["price"]


TOOLS = {"stock": stock, "price": price}
ONCE = APIConnectOptions(max_retry=0, timeout=driver.PATIENCE_S)


class Chat:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.context = llm.ChatContext.empty()
        self.context.add_message(role="system", content="Be brief.")

    async def generate(self, *, tools: bool = False) -> tuple[str, list[Any]]:
        """The answer's words and its calls, which are put into the context as AgentSession does."""
        given: Any = list(TOOLS.values()) if tools else []
        said, calls = "", []
        async with self.model.chat(chat_ctx=self.context, tools=given, conn_options=ONCE) as stream:
            async for chunk in stream:
                if chunk.delta is not None:
                    said += chunk.delta.content or ""
                    calls += chunk.delta.tool_calls
        if said:
            self.context.add_message(role="assistant", content=said)
        for one in calls:
            self.context.items.append(
                llm.FunctionCall(call_id=one.call_id, name=one.name, arguments=one.arguments)
            )
        return said, calls

    async def turn(self, text: str, *, tools: bool = False) -> tuple[str, list[Any]]:
        self.context.add_message(role="user", content=text)
        return await self.generate(tools=tools)

    async def answer_tools(self, calls: list[Any]) -> str:
        for one in calls:
            given = json.loads(one.arguments)
            check(given == {"part": "bolt"}, f"{one.name} was called with {given}")
            output = await TOOLS[one.name](**given)
            self.context.items.append(
                llm.FunctionCallOutput(call_id=one.call_id, name=one.name, output=output, is_error=False)
            )
        return (await self.generate(tools=True))[0]


@contextlib.asynccontextmanager
async def chat(call: Call, **options: Any) -> AsyncIterator[Chat]:
    async with http_context.open():
        model = openai.responses.LLM(model=call.model, api_key=driver.KEY, base_url=call.responses, **options)
        yield Chat(model)
        await driver.ends_quietly(model.aclose(), "the model")


async def connect(call: Call) -> None:
    async with chat(call) as one:
        check((await one.turn("Hello there."))[0], "no answer")


async def text_turn(call: Call) -> None:
    for options in ({}, {"store": False}):
        async with chat(call, **options) as one:
            await one.turn(driver.WORD)
            said, _ = await one.turn(driver.ASK)
            check(driver.ANSWER in said.lower(), f"{options}: the code word was not remembered: {said}")


async def barge_in(call: Call) -> None:
    """The stream is closed in the middle; the next turn brings what was said of the story, as AgentSession does."""
    async with chat(call) as one:
        await one.turn(driver.WORD)
        story = driver.Story(call)
        one.context.add_message(role="user", content=story.ask)
        async with one.model.chat(chat_ctx=one.context, tools=[], conn_options=ONCE) as stream:
            async for chunk in stream:
                if chunk.delta and story.hear(chunk.delta.content or ""):
                    story.interrupt()
                    break
        one.context.add_message(role="assistant", content=story.text, interrupted=True)
        answer, _ = await one.turn(driver.HEARD)
        heard = driver.heard_of(answer)
        check(heard == story.words, f"{story.words} words were given back, the model knows of {heard}")
        again, _ = await one.turn(driver.ASK)
        check(driver.ANSWER in again.lower(), f"the conversation is lost: {again}")


async def tool_call(call: Call) -> None:
    async with chat(call) as one:
        _, calls = await one.turn(driver.CALL_ONE, tools=True)
        check([wanted.name for wanted in calls] == ["stock"], f"called: {calls}")
        said = await one.answer_tools(calls)
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with chat(call) as one:
        _, calls = await one.turn(driver.CALL_BOTH, tools=True)
        check([wanted.name for wanted in calls] == ["stock", "price"], f"called: {calls}")
        check(await one.answer_tools(calls), "no answer after both results")


async def refusal(call: Call) -> None:
    """Not as text, and the conversation goes on; but it has no type for it."""
    async with chat(call) as one:
        said, calls = await one.turn(driver.FORBIDDEN)
        check(not said and not calls, f"the refusal came as {said!r}, {calls}")
        again, _ = await one.turn(driver.REFUSED)
        check(again == driver.REFUSED_ONCE, f"the refusal is not known as one: {again}")
    raise driver.Cannot(
        "it shows no refusals, in no type: LLMStream._parse_ws_event of livekit/plugins/openai/responses/llm.py "
        "reads no response.refusal events, so the turn ends without words; it does, and the next one works"
    )


async def reasoning(call: Call) -> None:
    """What is stored knows the thoughts. It drops them itself, so with nothing stored they are not given back."""
    for options, thoughts in (({}, 2), ({"store": False}, 0)):
        async with chat(call, reasoning=Reasoning(effort="low", summary="auto"), **options) as one:
            said, calls = await one.turn(driver.THINK, tools=True)
            check(not said, f"thoughts came as words: {said}")
            check([wanted.name for wanted in calls] == ["stock"], f"called: {calls}")
            said = await one.answer_tools(calls)
            check("17" in said, f"the result is not in the answer: {said}")
            driver.check_thoughts((await one.turn(driver.THOUGHTS))[0], thoughts)


async def error_path(call: Call) -> None:
    """A parameter of the wrong kind is refused in its own terms, and the next turn works."""
    async with chat(call) as one:
        one.context.add_message(role="user", content="Hello there.")
        try:
            stream = one.model.chat(
                chat_ctx=one.context, conn_options=ONCE, extra_kwargs={"conversation": "conv_nowhere"}
            )
            async with stream:
                async for _ in stream:
                    pass
        except Exception as error:  # an APIError of the client
            call.seen["error"] = f"{type(error).__name__}: {error}"[:200]
        check("error" in call.seen, "a wrong request was taken")
        check((await one.turn("Hello there."))[0], "no turn after the error")


async def clean_close(call: Call) -> None:
    async with chat(call) as one:
        await one.turn("Hello there.")


if __name__ == "__main__":
    driver.main(
        "livekit-plugins-openai",
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
