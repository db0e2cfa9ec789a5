"""openai-agents, the Responses model over WebSocket: agents and tools over one shared connection."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import driver
from agents import (
    Agent,
    ModelRefusalError,
    ModelSettings,
    function_tool,
    responses_websocket_session,
    set_tracing_disabled,
)
from driver import Call, check
from openai.types.shared import Reasoning

set_tracing_disabled(True)
called: list[tuple[str, str]] = []


@function_tool
async def stock(part: str) -> str:
    """The stock of a part."""
    called.append(("stock", part))
    return driver.TOOLS["stock"]


@function_tool
async def price(part: str) -> str:
    """The price of a part."""
    called.append(("price", part))
    return driver.TOOLS["price"]


@contextlib.asynccontextmanager
async def session(call: Call) -> AsyncIterator[Any]:
    async with responses_websocket_session(api_key=driver.KEY, base_url=f"{call.url}/v1") as one:
        yield one
        await driver.ends_quietly(one.aclose(), "the session")


def agent(call: Call, *, tools: bool = False, **settings: Any) -> Agent[Any]:
    return Agent(
        name="stock",
        instructions="Be brief.",
        model=call.model,
        model_settings=ModelSettings(**settings),
        tools=[stock, price] if tools else [],
    )


async def connect(call: Call) -> None:
    async with session(call) as one:
        check((await one.run(agent(call), "Hello there.")).final_output, "no answer")


async def text_turn(call: Call) -> None:
    async with session(call) as one:
        first = await one.run(agent(call), driver.WORD)
        second = one.run_streamed(agent(call), driver.ASK, previous_response_id=first.last_response_id)
        kinds = [event.type async for event in second.stream_events()]
        check("raw_response_event" in kinds, "nothing was streamed")
        said = second.final_output
        check(driver.ANSWER in said.lower(), f"the code word was not remembered: {said}")


async def barge_in(call: Call) -> None:
    """A streamed run is cancelled in the middle, and read to its end; the session takes another."""
    async with session(call) as one:
        first = await one.run(agent(call), driver.WORD)
        story = driver.Story(call)
        long = one.run_streamed(agent(call), story.ask, previous_response_id=first.last_response_id)
        is_enough = False
        async for event in long.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                check(not is_enough, "words of a run that was cancelled")
                if is_enough := story.hear(event.data.delta):
                    story.interrupt()
                    long.cancel()
        check(is_enough and long.is_complete, "the run does not end")
        after = await one.run(agent(call), driver.HEARD, previous_response_id=first.last_response_id)
        heard = driver.heard_of(after.final_output)
        check(heard == 0, f"{heard} words of a story in a conversation that has none")
        after = await one.run(agent(call), driver.ASK, previous_response_id=after.last_response_id)
        said = after.final_output
        check(driver.ANSWER in said.lower(), f"the conversation is lost: {said}")


async def tool_call(call: Call) -> None:
    async with session(call) as one:
        said = (await one.run(agent(call, tools=True), driver.CALL_ONE)).final_output
        check(called == [("stock", "bolt")], f"called: {called}")
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with session(call) as one:
        result = await one.run(agent(call, tools=True), driver.CALL_BOTH)
        check(sorted(called) == [("price", "bolt"), ("stock", "bolt")], f"called: {called}")
        check(len(result.raw_responses) == 2, f"expected two responses, got {len(result.raw_responses)}")
        check(result.final_output, "no answer after both results")


async def refusal(call: Call) -> None:
    """It has an exception of its own, and a handler of its own for who wants to go on from the refused response."""

    def explain(seen: Any) -> Any:
        return {"final_output": f"It refused: {seen.error.refusal}", "include_in_history": False}

    async with session(call) as one:
        try:
            result = await one.run(agent(call), driver.FORBIDDEN)
            raise driver.Failed(f"expected a ModelRefusalError; got {result.final_output!r}")
        except ModelRefusalError as error:
            check(error.refusal == driver.REFUSAL, f"the refusal is {error.refusal!r}")
        result = await one.run(agent(call), driver.FORBIDDEN, error_handlers={"model_refusal": explain})
        check(result.final_output == f"It refused: {driver.REFUSAL}", f"it came as {result.final_output!r}")
        said = await one.run(agent(call), driver.REFUSED, previous_response_id=result.last_response_id)
        check(
            said.final_output == driver.REFUSED_ONCE, f"the refusal is not known as one: {said.final_output}"
        )
        given = [*result.to_input_list(), {"role": "user", "content": driver.REFUSED}]
        said = await one.run(agent(call), given)
        check(
            said.final_output == driver.REFUSED_ONCE,
            f"the refusal did not come back as one: {said.final_output}",
        )


async def reasoning(call: Call) -> None:
    """Its items are given back by itself in the run, and by ``to_input_list`` in the next; nothing is stored."""
    thinking = agent(
        call,
        tools=True,
        store=False,
        reasoning=Reasoning(effort="low", summary="auto"),
        response_include=["reasoning.encrypted_content"],
    )
    async with session(call) as one:
        result = await one.run(thinking, driver.THINK)
        check(called == [("stock", "bolt")], f"called: {called}")
        check("17" in result.final_output, f"the result is not in the answer: {result.final_output}")
        thoughts = [item.raw_item for item in result.new_items if item.type == "reasoning_item"]
        check(len(thoughts) == 2, f"expected thoughts before the call and the answer, got {len(thoughts)}")
        for thought in thoughts:
            check([part.text for part in thought.summary] == driver.SUMMARY, f"{thought.summary}")
        given = [*result.to_input_list(), {"role": "user", "content": driver.THOUGHTS}]
        driver.check_thoughts((await one.run(thinking, given)).final_output, 2)


async def error_path(call: Call) -> None:
    async with session(call) as one:
        try:
            await one.run(agent(call), "Hello there.", previous_response_id="resp_nowhere")
        except Exception as error:  # the client's own type, which it does not export
            call.seen["error"] = type(error).__name__
            check("resp_nowhere" in str(error), f"the error does not name the response: {error}")
        check("error" in call.seen, "an unknown response was found")
        check((await one.run(agent(call), "Hello there.")).final_output, "no turn after the error")


async def clean_close(call: Call) -> None:
    async with session(call) as one:
        await one.run(agent(call), "Hello there.")


if __name__ == "__main__":
    driver.main(
        "openai-agents",
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
