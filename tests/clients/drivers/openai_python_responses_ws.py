"""openai-python, ``client.responses.connect``: WebSocket mode, its typed events, only new items on each turn."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import driver
from driver import Call, check
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

SERVER_EVENT = TypeAdapter(ResponseStreamEvent)
TOOLS = [
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
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")


class Line:
    def __init__(self, connection: Any, model: str) -> None:
        self.connection = connection
        self.model = model
        self.last: str | None = None

    async def ask(self, input_: Any, **values: Any) -> None:
        if self.last:
            values["previous_response_id"] = self.last
        await self.connection.response.create(model=self.model, input=input_, **values)

    async def read(self, until: str = "") -> list[Any]:
        """Events up to the end of a response, or to the first of the type ``until``."""
        events: list[Any] = []
        async for event in self.connection:
            if event.type != "error":
                # The client is lenient; its declared types are not, and other programs rely on them.
                SERVER_EVENT.validate_json(event.model_dump_json(exclude_unset=True))
            events.append(event)
            if event.type in (*ENDS, until):
                return events
        raise driver.Failed("the connection ended in the middle of a response")

    async def hear(self, story: driver.Story) -> str:
        """Ask for the story and read on until there is enough of it; the id of its response."""
        await self.ask(story.ask)
        (created,) = await self.read(until="response.created")
        while not story.hear((await self.read(until="response.output_text.delta"))[-1].delta):
            pass
        return created.response.id

    async def turn(self, input_: Any, **values: Any) -> Any:
        await self.ask(input_, **values)
        events = await self.read()
        check(events[-1].type == "response.completed", f"it ended with {events[-1].type}")
        numbers = [event.sequence_number for event in events]
        check(numbers == list(range(len(events))), f"sequence numbers {numbers[:5]}…")
        response = events[-1].response
        deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        check(deltas == response.output_text, "the deltas differ from the whole")
        self.last = response.id
        return response


@contextlib.asynccontextmanager
async def client_of(call: Call) -> AsyncIterator[AsyncOpenAI]:
    client = AsyncOpenAI(base_url=f"{call.url}/v1", api_key=driver.KEY, max_retries=0)
    yield client
    await client.close()


@contextlib.asynccontextmanager
async def connection_of(client: AsyncOpenAI, model: str) -> AsyncIterator[Line]:
    async with client.responses.connect() as connection:
        yield Line(connection, model)
        # With frames that nobody reads, the library under it gives up on the close handshake after 10 s.
        await driver.ends_quietly(connection.close(), "the connection", 12.0)


@contextlib.asynccontextmanager
async def line(call: Call) -> AsyncIterator[Line]:
    async with client_of(call) as client, connection_of(client, call.model) as one:
        yield one


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
    async with line(call) as one:
        check((await one.turn("Hello there.")).output_text, "no answer")


async def text_turn(call: Call) -> None:
    """Stored by default; then the same over the connection alone."""
    for store in (True, False):
        async with line(call) as one:
            await one.turn(driver.WORD, store=store)
            said = (await one.turn(driver.ASK, store=store)).output_text
            check(driver.ANSWER in said.lower(), f"store={store}: the code word was not remembered: {said}")


async def barge_in(call: Call) -> None:
    """Its types have no event to cancel with. It leaves, and goes on from what is stored on a new connection; and it
    sends one all the same, and goes on on the connection that it has."""
    async with client_of(call) as client:
        async with connection_of(client, call.model) as one:
            before = await one.turn(driver.WORD)
            story = driver.Story(call)
            await one.hear(story)
            story.interrupt()
        async with connection_of(client, call.model) as one:
            one.last = before.id
            await check_goes_on(one)
            before = await one.turn(driver.WORD)
            story = driver.Story(call)
            running = await one.hear(story)
            story.interrupt()
            cancel: Any = {"type": "response.cancel", "response_id": running}
            await one.connection.send(cancel)
            last = (await one.read())[-1]
            check(last.response.status == "cancelled", f"the story ended as {last.response.status}")
            one.last = before.id
            await check_goes_on(one)


async def check_goes_on(one: Line) -> None:
    """From the response before the story, so nothing of the story is known."""
    heard = driver.heard_of((await one.turn(driver.HEARD)).output_text)
    check(heard == 0, f"{heard} words of a story in a conversation that has none")
    said = (await one.turn(driver.ASK)).output_text
    check(driver.ANSWER in said.lower(), f"the conversation is lost: {said}")


async def tool_call(call: Call) -> None:
    async with line(call) as one:
        wish = await one.turn(driver.CALL_ONE, tools=TOOLS)
        check([item.name for item in wish.output] == ["stock"], "expected one call of stock")
        said = (await one.turn(outputs_of(wish), tools=TOOLS)).output_text
        check("17" in said, f"the result is not in the answer: {said}")


async def parallel_tool_calls(call: Call) -> None:
    async with line(call) as one:
        wish = await one.turn(driver.CALL_BOTH, tools=TOOLS)
        check(
            [item.name for item in wish.output] == ["stock", "price"], "expected both calls in one response"
        )
        check((await one.turn(outputs_of(wish), tools=TOOLS)).output_text, "no answer after both results")


async def refusal(call: Call) -> None:
    """Stored, then over the connection alone."""
    for store in (True, False):
        async with line(call) as one:
            await one.ask(driver.FORBIDDEN, store=store)
            events = await one.read()
            check(not [e for e in events if e.type == "response.output_text.delta"], "a refusal came as text")
            deltas = "".join(event.delta for event in events if event.type == "response.refusal.delta")
            check(deltas == driver.REFUSAL, f"store={store}: the refusal's deltas are {deltas!r}")
            (done,) = [event for event in events if event.type == "response.refusal.done"]
            response = events[-1].response
            (part,) = response.output[0].content
            check(part.type == "refusal" and part.refusal == done.refusal == deltas, f"the part is {part}")
            check(not response.output_text, "the client takes the refusal for text")
            one.last = response.id
            said = (await one.turn(driver.REFUSED, store=store)).output_text
            check(said == driver.REFUSED_ONCE, f"store={store}: the refusal is not known as one: {said}")


async def reasoning(call: Call) -> None:
    """Summaries as they come, a call, its result; with ``store: false`` the connection keeps the thoughts."""
    asked: Any = {"tools": TOOLS, "reasoning": {"effort": "low", "summary": "auto"}}
    for store in (True, False):
        async with line(call) as one:
            wish = await one.turn(driver.THINK, store=store, **asked)
            check(
                [item.type for item in wish.output] == ["reasoning", "function_call"],
                "expected thoughts, then a call",
            )
            check(
                [part.text for part in wish.output[0].summary] == driver.SUMMARY, f"{wish.output[0].summary}"
            )
            said = await one.turn(outputs_of(wish), store=store, **asked)
            check(
                [item.type for item in said.output] == ["reasoning", "message"],
                "expected thoughts, then words",
            )
            check("17" in said.output_text, f"the result is not in the answer: {said.output_text}")
            driver.check_thoughts((await one.turn(driver.THOUGHTS, store=store)).output_text, 2)


async def error_path(call: Call) -> None:
    async with line(call) as one:
        one.last = "resp_nowhere"
        await one.ask("Hello there.")
        error = (await one.read())[-1]
        check(error.type == "error", f"expected an error, got {error.type}")
        code = error.error.code
        check(code == "previous_response_not_found", f"the code is {code}")
        call.seen["code"] = code
        one.last = None
        check((await one.turn("Hello there.")).output_text, "no turn after the error")


async def clean_close(call: Call) -> None:
    async with line(call) as one:
        await one.turn("Hello there.")


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
