"""The built-in tools by voice: the rule-driven model picks them, their contracts accept what it fills in, and
it says what they return."""

from __future__ import annotations

import asyncio
import inspect

import msgspec
import pytest

from openline.adapters.llm_rules import RulesModel
from openline.agent import builtin
from openline.agent.builtin import Notebook, Timer, ToolContext
from openline.agent.schema import FunctionSpec, function_spec
from openline.core.model import Item, Part, ToolSpec
from openline.core.value import replace
from openline.ports import ModelRequest, TextDelta, ToolCallDone
from openline.testing.check_llm import ask, collect
from openline.types import CallId, ItemId, Now, ResponseId, SessionId

NOON_MS = 1_795_435_200_000
"""2026-11-23 12:00 UTC, a Monday."""


class Desk:
    """A session with the built-in tools, without a runtime."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.timers: list[Timer] = []
        self.model = RulesModel()
        declared = [(function_spec(f, injected={ToolContext}), f) for f in builtin.BUILTIN_TOOLS]
        self.tools = {spec.name: (spec, function) for spec, function in declared}
        specs = tuple(
            ToolSpec(spec.name, spec.description, spec.parameters) for spec, _ in self.tools.values()
        )
        self.request = replace(ask("", tools=specs), items=())
        self.count = 0

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None:
        self.kept[space, key] = value

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
        return self.kept.get((space, key))

    async def say(self, text: str) -> str:
        """What the agent answers, tools run in between."""
        self.add(replace(ask(text).items[0], id=self.id()))
        for _ in range(3):
            self.count += 1
            request = replace(self.request, response_id=ResponseId(f"resp_{self.count}"))
            events = await collect(self.model, request)
            spoken = "".join(event.text for event in events if isinstance(event, TextDelta))
            calls = [event for event in events if isinstance(event, ToolCallDone)]
            if spoken:
                part = Part("output_audio", spoken)
                self.add(Item(self.id(), "message", "assistant", "assistant", content=(part,)))
            if not calls:
                return spoken
            for call in calls:
                await self.run(request, call)
        raise AssertionError("it calls tools for ever")

    async def run(self, request: ModelRequest, call: ToolCallDone) -> None:
        spec, function = self.tools[call.name]
        values = self.bind(spec, call)
        result = function(**values)
        if inspect.isawaitable(result):
            result = await result
        output = result if isinstance(result, str) else msgspec.json.encode(result).decode()
        self.add(
            Item(
                self.id(),
                "function_call",
                "assistant",
                call_id=call.call_id,
                name=call.name,
                arguments=call.arguments,
            )
        )
        self.add(Item(self.id(), "function_call_output", "tool", call_id=call.call_id, output=output))

    def bind(self, spec: FunctionSpec, call: ToolCallDone) -> dict[str, object]:
        context = ToolContext(
            SessionId("sess_1"),
            CallId(call.call_id),
            call.call_id,
            Now(0, NOON_MS),
            Notebook(self),
            self.timers.append,
        )
        return {**spec.bind(call.arguments), **{name: context for name in spec.injected}}

    def add(self, item: Item) -> None:
        self.request = replace(self.request, items=(*self.request.items, item))

    def id(self) -> ItemId:
        return ItemId(f"item_{len(self.request.items)}")


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ("what time is it", "It is 12:00 on Monday, 23 November 2026, UTC time."),
        ("can you tell me the time please", "It is 12:00 on Monday, 23 November 2026, UTC time."),
        ("what is the date today", "It is 12:00 on Monday, 23 November 2026, UTC time."),
        ("what is twelve times seven", "That is eighty four."),
        ("how much is 12.5 + 3", "That is fifteen point five."),
        ("calculate two hundred divided by eight", "That is twenty five."),
        ("what is ten divided by four", "That is two point five."),
        ("set a timer for ten minutes", "The timer is set for 10 minutes. It is due at 12:10:00."),
        ("wake me in an hour", "The timer is set for 1 hour. It is due at 13:00:00."),
        ("take a note buy milk and eggs", "I wrote that down."),
        ("please note that the door is open", "I wrote that down."),
        ("list my notes", "I found nothing."),
        ("my code word is tiger seven", "Okay, your code word is tiger seven. I will remember that."),
        ("remember that my code word is tiger seven", "Okay, your code word is tiger seven. I will remember that."),
        ("tell me about openline", "Openline keeps one line open between a person and an agent."),
        ("how are you", "I am fine, thank you. How can I help?"),
        ("count to three", "One, two, three."),
    ],
)  # fmt: skip
def test_a_sentence_and_its_answer(said: str, answered: str) -> None:
    assert asyncio.run(Desk().say(said)).startswith(answered)


def test_notes_by_voice() -> None:
    async def story() -> None:
        desk = Desk()
        assert await desk.say("take a note") == "What should it say?"
        assert await desk.say("the door is open and the light is on") == "I wrote that down."
        assert await desk.say("make a note call the bank") == "I wrote that down. There are 2 notes now."
        told = "I found two: the door is open and the light is on and call the bank."
        assert [await desk.say(text) for text in ("read my notes", "what notes do i have")] == [told, told]

    asyncio.run(story())


def test_timers_by_voice() -> None:
    async def story() -> None:
        desk = Desk()
        await desk.say("set a timer for ten minutes and thirty seconds and a timer for one hour called bread")
        assert [(timer.due_ms - NOON_MS, timer.label) for timer in desk.timers] == [
            (630_000, ""),
            (3_600_000, "bread"),
        ]

    asyncio.run(story())
