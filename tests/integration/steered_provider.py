"""A provider that can be steered, and knows what it was told, and who calls it: what the tests of steering share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from openline.adapters.llm_openai import Endpoint
from openline.adapters.llm_openai_responses import ResponsesModel
from openline.adapters.llm_openai_responses_sockets import SocketPlan
from openline.core.model import Item, Part
from openline.core.value import replace
from openline.ports import LanguageModel, ModelDone, ModelRequest, SteerAnswer, TextDelta, ToolCallDone
from openline.runtime.model_choice import steer
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Reply
from openline.types import ItemId, ResponseId, SessionId

PLAN = SocketPlan(wait_s=5, stall_s=5, drain_s=1, answer_s=2)
TALK, ALSO = "talk", "also B"


def user(text: str) -> Item:
    return Item(ItemId(""), "message", "user", "user", content=(Part("input_text", text),))


def said(text: str) -> Item:
    return Item(ItemId(""), "message", "assistant", "assistant", content=(Part("output_text", text),))


def texts(known: list[dict[str, Any]]) -> list[str]:
    """A conversation as the provider has it."""
    found = []
    for item in known:
        content = item.get("content") or item.get("output") or item.get("name", "")
        found.append(content if isinstance(content, str) else content[0]["text"])
    return found


@dataclass
class Provider:
    """The fake: begins to talk when it is asked to, and holds; calls for "call"; else says how much it knows."""

    fake: FakeProvider = field(init=False)
    never: asyncio.Event = field(default_factory=asyncio.Event)
    known: list[list[str]] = field(default_factory=list)
    """The whole conversation of each response, in order."""

    def __post_init__(self) -> None:
        self.fake = FakeProvider(self.reply)

    def reply(self, body: dict[str, Any]) -> Reply:
        self.known.append(texts(body["input"]))
        last = self.known[-1][-1]
        if last.startswith(TALK):
            return Reply("begun to talk", hold=self.never)
        if last.startswith("call"):
            return Reply(calls=(("check_stock", "{}"),), hold=self.never)
        return Reply(f"{len(self.known[-1])}: {last}")

    @property
    def creates(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.fake.requests]


@dataclass
class Caller:
    """One session: what it knows of the conversation, and the generation that runs."""

    model: LanguageModel
    name: str = "sess_one"
    items: list[Item] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    number: int = 0
    asked: ModelRequest = field(init=False)
    task: asyncio.Task[None] = field(init=False)
    spoke: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, *items: Item, **more: Any) -> None:
        self.number += 1
        self.items += items
        self.asked = replace(
            ModelRequest(
                SessionId(self.name), ResponseId(f"resp_{self.number}"), "", tuple(self.items), (), '"auto"'
            ),
            **more,
        )
        self.events, self.spoke = [], asyncio.Event()
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        async with aclosing(self.model.generate(self.asked)) as events:
            async for event in events:
                self.events.append(event)
                if isinstance(event, TextDelta | ToolCallDone):
                    self.spoke.set()

    async def steer(self, text: str = ALSO) -> SteerAnswer:
        return await steer(self.model, self.asked, (user(text),))

    async def end(self) -> str:
        """How it ended; what was made is part of the conversation now."""
        async with asyncio.timeout(10):
            await self.task
        text = "".join(event.text for event in self.events if isinstance(event, TextDelta))
        self.items += [said(text)] if text else []
        for call in (event for event in self.events if isinstance(event, ToolCallDone)):
            made = Item(ItemId(""), "function_call", "assistant", call_id=call.call_id, name=call.name)
            self.items.append(replace(made, arguments=call.arguments))
        done = self.events[-1]
        assert isinstance(done, ModelDone)
        return done.reason

    async def ask(self, *items: Item) -> str:
        self.begin(*items)
        assert await self.end() == "completed"
        return self.items[-1].text

    async def talk(self, text: str = TALK) -> None:
        """Until the model has begun to answer, and holds."""
        self.begin(user(text))
        async with asyncio.timeout(5):
            await self.spoke.wait()


@asynccontextmanager
async def calling(plan: SocketPlan = PLAN) -> AsyncIterator[tuple[Provider, ResponsesModel, Caller]]:
    provider = Provider()
    async with provider.fake:
        model = ResponsesModel(Endpoint(provider.fake.url, "fake-1"), plan)
        await model.start()
        try:
            yield provider, model, Caller(model)
        finally:
            await model.close()
