"""A gateway with a scripted model, and sockets on its ``/v1/responses``; every event is checked strictly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.responses_server_event import ResponsesServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect

from integration.gateway import running, spoken_agent
from openline.agent.agent import Agent
from openline.bootstrap import Running
from openline.core.model import Usage
from openline.ports import ModelRequest
from openline.testing.llm import Call, Finish, Script, ScriptedModel, say

Json = dict[str, Any]
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(ResponsesServerEvent)
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL: Any = {
    "type": "function",
    "name": "stock",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}


def echo(request: ModelRequest) -> Script:
    """Says how many items it was given, and the text of the last; calls two tools when it has any."""
    last = request.items[-1] if request.items else None
    if request.tools and (last is None or last.type != "function_call_output"):
        calls = [Call("stock", '{"part": "hinge"}', "call_1"), Call("stock", '{"part": "bolt"}', "call_2")]
        return [say("Let me see."), *calls]
    text = "" if last is None else last.text or last.output
    return [say(f"{len(request.items)}: {text}"), Finish("completed", Usage(9, 4, 2))]


CLIENTS: list[AsyncOpenAI] = []
"""Closed with the gateway they speak to."""


@asynccontextmanager
async def gateway(
    data: Path, scripts: Any = echo, agent: Agent | None = None, **settings: Any
) -> AsyncIterator[Running]:
    model = scripts if isinstance(scripts, ScriptedModel) else ScriptedModel(scripts)
    agent = agent or spoken_agent(llm=model)
    async with running(data, agent, **settings) as started:
        try:
            yield started
        finally:
            while CLIENTS:
                await CLIENTS.pop().close()


def client_of(started: Running, key: str = "k") -> AsyncOpenAI:
    CLIENTS.append(AsyncOpenAI(base_url=f"{started.url}/v1", api_key=key, max_retries=0))
    return CLIENTS[-1]


class Wire:
    """A raw socket: one request at a time, every event checked."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, **values: Any) -> None:
        await self.socket.send(json.dumps({"type": "response.create", "model": "m", **values}))

    async def next(self) -> Json:
        async with asyncio.timeout(5):
            event: Json = json.loads(await self.socket.recv())
        SERVER_EVENT.validate_python(event)
        return event

    async def until_end(self, lane: str | None = None) -> list[Json]:
        events = [await self.next()]
        while events[-1]["type"] not in ENDS:
            events.append(await self.next())
        assert {event.get("stream_id") for event in events} == {lane}
        if events[-1]["type"] != "error":
            first = events[0]["sequence_number"]
            assert [event["sequence_number"] for event in events] == list(range(first, first + len(events)))
        return events

    async def ask(self, **values: Any) -> Json:
        await self.send(**values)
        return (await self.until_end(values.get("stream_id")))[-1]


ENDS = ("response.completed", "response.failed", "response.incomplete", "error")


async def steer(line: Wire, previous: str, given: Any = "also B", **more: Any) -> None:
    asked = {"type": "response.steer", "previous_response_id": previous, "input": given, **more}
    await line.socket.send(json.dumps(asked))


async def until(line: Wire, *kinds: str) -> list[Json]:
    events = [await line.next()]
    while events[-1]["type"] not in kinds:
        events.append(await line.next())
    return events


@asynccontextmanager
async def socket_of(started: Running, key: str = "k") -> AsyncIterator[Wire]:
    url = f"{started.url.replace('http', 'ws', 1)}/v1/responses"
    async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}) as socket:
        yield Wire(socket)


def text_of(event: Json) -> str:
    return "".join(c["text"] for o in event["response"]["output"] for c in o.get("content", []))


each_store = pytest.mark.parametrize("store", [True, False], ids=["stored", "passing"])
