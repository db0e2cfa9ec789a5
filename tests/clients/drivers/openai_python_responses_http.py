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
    calls = [item for item in response.output if item.type == "function_call"]
    for item in calls:
        given = json.loads(item.arguments)
        check(given == {"part": "bolt"}, f"{item.name} was called with {given}")
    return [
        {"type": "function_call_output", "call_id": item.call_id, "output": driver.TOOLS[item.name]}
        for item in calls
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
    """It closes the stream in the middle. It goes on from the response before, with the words that it had."""
    async with client_of(call) as client:
        before = await client.responses.create(model=call.model, input=driver.WORD)
        story = driver.Story(call)
        stream = await client.responses.create(
            model=call.model, input=story.ask, previous_response_id=before.id, stream=True
        )
        async for event in stream:
            if event.type == "response.output_text.delta" and story.hear(event.delta):
                break
        story.interrupt()
        await driver.ends_quietly(stream.close(), "the stream")
        known: Any = [
            {"role": "user", "content": story.ask},
            {"role": "assistant", "content": story.text},
            {"role": "user", "content": driver.HEARD},
        ]
        after = await client.responses.create(model=call.model, input=known, previous_response_id=before.id)
        heard = driver.heard_of(after.output_text)
        check(heard == story.words, f"{story.words} words were given back, the model knows of {heard}")
        said = await client.responses.create(
            model=call.model, input=driver.ASK, previous_response_id=after.id
        )
        check(driver.ANSWER in said.output_text.lower(), f"the conversation is lost: {said.output_text}")


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


async def refusal(call: Call) -> None:
    """As JSON and as a stream; then the refusal is given back as the client has it, with nothing stored."""
    async with client_of(call) as client:
        first = await client.responses.create(model=call.model, input=driver.FORBIDDEN)
        check_refusal(first)
        after = await client.responses.create(
            model=call.model, input=driver.REFUSED, previous_response_id=first.id
        )
        check(
            after.output_text == driver.REFUSED_ONCE, f"the refusal is not known as one: {after.output_text}"
        )
        deltas = ""
        asked: Any = [{"role": "user", "content": driver.FORBIDDEN}]
        async with client.responses.stream(model=call.model, input=asked, store=False) as stream:
            async for event in stream:
                check(event.type != "response.output_text.delta", "a refusal came as text")
                if event.type == "response.refusal.delta":
                    deltas += event.delta
            response = await stream.get_final_response()
        check_refusal(response)
        check(deltas == driver.REFUSAL, f"the refusal's deltas are {deltas!r}")
        given = [*asked, *response.output, {"role": "user", "content": driver.REFUSED}]
        said = (await client.responses.create(model=call.model, input=given, store=False)).output_text
        check(said == driver.REFUSED_ONCE, f"the refusal is not known as one: {said}")


def check_refusal(response: Any) -> None:
    (part,) = response.output[0].content
    check(part.type == "refusal" and part.refusal == driver.REFUSAL, f"the part is {part}")
    check(not response.output_text, "the client takes the refusal for text")


async def reasoning(call: Call) -> None:
    """With nothing stored: sealed thoughts come with the output, which is given back as it is."""
    asked: Any = {"model": call.model, "tools": TOOLS, "store": False}
    asked |= {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    async with client_of(call) as client:
        known: list[Any] = [{"role": "user", "content": driver.THINK}]
        wish = await client.responses.create(input=known, **asked)
        check(
            [item.type for item in wish.output] == ["reasoning", "function_call"],
            "expected thoughts, then a call",
        )
        thought: Any = wish.output[0]
        check([part.text for part in thought.summary] == driver.SUMMARY, f"{thought.summary}")
        check(thought.encrypted_content, "no sealed content, which was asked for")
        known += [*wish.output, *outputs_of(wish)]
        summary = ""
        async with client.responses.stream(input=known, **asked) as stream:
            async for event in stream:
                if event.type == "response.reasoning_summary_text.delta":
                    summary += event.delta
            said = await stream.get_final_response()
        check(summary == "".join(driver.SUMMARY), f"the summary's deltas are {summary!r}")
        check("17" in said.output_text, f"the result is not in the answer: {said.output_text}")
        known += [*said.output, {"role": "user", "content": driver.THOUGHTS}]
        driver.check_thoughts((await client.responses.create(input=known, **asked)).output_text, 2)


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
            "refusal": refusal,
            "reasoning": reasoning,
            "error_path": error_path,
            "clean_close": clean_close,
        },
    )
