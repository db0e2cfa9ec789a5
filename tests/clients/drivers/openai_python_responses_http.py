"""openai-python, ``client.responses.create`` and ``client.responses.stream``: HTTP, as JSON and as events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import driver
import openai
from driver import Call, check

TOOLS: Any = [
    {
        "type": "function",
        "name": name,
        "description": f"The {name} of a part.",
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": {"part": {"type": "string"}},
            "required": ["part"],
        },
    }
    for name in driver.TOOLS
]


@contextlib.asynccontextmanager
async def client_of(call: Call) -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(base_url=f"{call.url}/v1", api_key=driver.KEY, max_retries=0)
    yield client
    await driver.ends_quietly(client.close(), "the client")


def outputs_of(response: Any) -> list[Any]:
    """What the client answers to each call."""
    for item in response.output:
        given = json.loads(item.arguments)
        check(given == {"part": "bolt"}, f"{item.name} was called with {given}")
    return [
        {"type": "function_call_output", "call_id": item.call_id, "output": driver.TOOLS[item.name]}
        for item in response.output
    ]


async def connect(call: Call) -> None:
    async with client_of(call) as client:
        response = await client.responses.create(model=call.model, input="Hello there.")
        check(response.output_text, "no answer")


async def text_turn(call: Call) -> None:
    """The first turn as JSON, the second as a stream."""
    async with client_of(call) as client:
        first = await client.responses.create(model=call.model, input=driver.WORD)
        deltas = ""
        asked = client.responses.stream(model=call.model, input=driver.ASK, previous_response_id=first.id)
        async with asked as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    deltas += event.delta
            said = (await stream.get_final_response()).output_text
        check(driver.ANSWER in said.lower(), f"the code word was not remembered: {said}")
        check(deltas == said, "the deltas differ from the whole")


async def barge_in(call: Call) -> None:
    """It closes the stream in the middle, and goes on from the response before."""
    async with client_of(call) as client:
        before = await client.responses.create(model=call.model, input=driver.WORD)
        stream = await client.responses.create(
            model=call.model,
            input="Tell me about the open line.",
            previous_response_id=before.id,
            stream=True,
        )
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
        await driver.ends_quietly(stream.close(), "the stream")
        after = await client.responses.create(
            model=call.model, input=driver.ASK, previous_response_id=before.id
        )
        check(driver.ANSWER in after.output_text.lower(), f"the conversation is lost: {after.output_text}")


async def tool_call(call: Call) -> None:
    async with client_of(call) as client:
        wish = await client.responses.create(model=call.model, input=driver.CALL_ONE, tools=TOOLS)
        check([item.name for item in wish.output] == ["stock"], "expected one call of stock")
        said = await client.responses.create(
            model=call.model, input=outputs_of(wish), previous_response_id=wish.id, tools=TOOLS
        )
        check("17" in said.output_text, f"the result is not in the answer: {said.output_text}")


async def parallel_tool_calls(call: Call) -> None:
    async with client_of(call) as client:
        wish = await client.responses.create(model=call.model, input=driver.CALL_BOTH, tools=TOOLS)
        check(
            [item.name for item in wish.output] == ["stock", "price"], "expected both calls in one response"
        )
        said = await client.responses.create(
            model=call.model, input=outputs_of(wish), previous_response_id=wish.id, tools=TOOLS
        )
        check(said.output_text, "no answer after both results")


async def error_path(call: Call) -> None:
    async with client_of(call) as client:
        try:
            await client.responses.create(
                model=call.model, input="Hello there.", previous_response_id="resp_nowhere"
            )
        except openai.APIStatusError as error:
            call.seen["code"] = error.code
            check(400 <= error.status_code < 500, f"the status is {error.status_code}")
            check(error.code == "previous_response_not_found", f"the code is {error.code}")
        check("code" in call.seen, "an unknown response was found")
        response = await client.responses.create(model=call.model, input="Hello there.")
        check(response.output_text, "no turn after the error")


async def clean_close(call: Call) -> None:
    async with client_of(call) as client:
        await client.responses.create(model=call.model, input="Hello there.")


if __name__ == "__main__":
    driver.main(
        "openai",
        {
            "connect": connect,
            "text_turn": text_turn,
            "barge_in": barge_in,
            "tool_call": tool_call,
            "parallel_tool_calls": parallel_tool_calls,
            "error_path": error_path,
            "clean_close": clean_close,
        },
    )
