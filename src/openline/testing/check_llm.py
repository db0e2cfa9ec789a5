"""What every language model behind the port must do: one suite for the twin, the embedded one and real ones.

``check_language_model`` raises AssertionError with a sentence when a rule of the port is broken. It has no
opinion on what is said, only on the shape of the stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from openline.core.model import Item, Part, ToolSpec
from openline.core.value import replace
from openline.ports import (
    LanguageModel,
    ModelDone,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)
from openline.runtime.model_choice import steer
from openline.types import ItemId, ResponseId, SessionId

T = TypeVar("T")
WAIT_S = 60.0
"""No wait of a check is longer; above a slow hosted model's whole reply."""
PART_TOOL = ToolSpec(
    "check_stock",
    "How many pieces of a part are in stock.",
    '{"type":"object","properties":{"part":{"type":"string"}},"required":["part"],"additionalProperties":false}',
)


def ask(
    text: str, *, tools: tuple[ToolSpec, ...] = (), choice: str = '"auto"', number: int = 1
) -> ModelRequest:
    """A request with one user turn; ``number`` makes its ids."""
    item = Item(ItemId(f"item_{number}"), "message", "user", "user", content=(Part("input_text", text),))
    return ModelRequest(
        SessionId("sess_check"), ResponseId(f"resp_check{number}"), "Answer briefly.", (item,), tools, choice
    )


async def check_language_model(
    make: Callable[[], LanguageModel], *, question: str = "hello", is_deterministic: bool = True
) -> None:
    """``question`` must be answered with at least two deltas of text when no tool is there."""
    model = make()
    assert model.name, "a model has a name"
    await model.start()
    try:
        await _check_text(model, question, is_deterministic=is_deterministic)
        await _check_choices(model, question)
        await _check_results(model)
        await _check_limit(model, question)
        await _check_closing(model, question)
        await _check_together(model, question, is_deterministic=is_deterministic)
    finally:
        await _within(model.close())
    await _within(model.close())


async def check_steering(
    make: Callable[[], LanguageModel], *, question: str = "hello", is_offered: bool = True
) -> None:
    """What a model does with input for a running generation, beside ``check_language_model``. ``question`` as there.

    ``is_offered`` False: it must say so, and go on as if nothing had been asked.
    """
    model = make()
    await model.start()
    try:
        more = ask("and the bolts", number=2).items
        request = ask(question, number=3)
        answer = await _within(steer(model, request, more))
        assert answer.outcome != "accepted", "what does not run cannot be steered"
        events: list[ModelEvent] = []
        async with aclosing(model.generate(request)) as stream:
            async for event in stream:
                events.append(event)
                if len(events) == 1:
                    answer = await _within(steer(model, request, more))
        check_stream(events)
        wanted = "accepted" if is_offered else "not_offered"
        assert answer.outcome == wanted, f"expected {wanted}, got {answer.outcome} {answer.code}"
        done = events[-1]
        assert isinstance(done, ModelDone)
        assert is_offered or done.reason != "steered", "what took no input is not ended by it"
        assert (await _within(steer(model, request, more))).outcome != "accepted", "it is over"
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        said = Item(
            ItemId("item_4"), "message", "assistant", "assistant", content=(Part("output_text", text),)
        )
        after = replace(ask(question, number=5), items=(*request.items, said, *more))
        assert any(isinstance(event, TextDelta) for event in await collect(model, after)), (
            "the request that has the input is answered"
        )
        await _check_cut_while_steered(model, question, more)
    finally:
        await _within(model.close())


async def _check_cut_while_steered(model: LanguageModel, question: str, more: tuple[Item, ...]) -> None:
    """A generation that was steered and is closed leaves nothing behind."""
    request = ask(question, number=6)
    async with aclosing(model.generate(request)) as stream:
        await _within(anext(stream))
        await _within(steer(model, request, more))
    events = await collect(model, ask(question, number=7))
    done = events[-1]
    assert isinstance(done, ModelDone) and done.reason == "completed", "the next one is not steered"


async def collect(model: LanguageModel, request: ModelRequest) -> list[ModelEvent]:
    """All events of one generation, checked for shape."""

    async def run() -> list[ModelEvent]:
        return [event async for event in model.generate(request)]

    events = await _within(run())
    check_stream(events)
    return events


def check_stream(events: list[ModelEvent]) -> None:
    """One ModelDone, at the end; every call's pieces make its whole, and the whole is a JSON object."""
    ends = [event for event in events if isinstance(event, ModelDone)]
    assert len(ends) == 1, f"a generation ends with exactly one ModelDone, got {len(ends)}"
    assert events[-1] is ends[0], "nothing comes after ModelDone"
    reasons = ("completed", "max_output_tokens", "content_filter", "steered")
    assert ends[0].reason in reasons, f"the reason is one of {reasons}, got {ends[0].reason!r}"
    usage = ends[0].usage
    assert min(usage.input_tokens, usage.output_tokens) >= 0, "token counts are not negative"
    pieces: dict[int, str] = {}
    done: dict[int, str] = {}
    thought: set[str] = set()
    for event in events:
        match event:
            case TextDelta(text) | RefusalDelta(text):
                assert text, "a delta of text is not empty"
            case ReasoningDelta(name):
                assert name and name not in thought, (
                    "a reasoning item has an id, and nothing comes after its end"
                )
            case ReasoningDone(name, item):
                whole = json.loads(item)
                assert (whole["type"], whole["id"]) == ("reasoning", name), "a reasoning item has its id"
                thought.add(name)
            case ToolCallDelta(index, _, _, arguments):
                assert index not in done, f"call {index}: nothing comes after its end"
                pieces[index] = pieces.get(index, "") + arguments
            case ToolCallDone(index, call_id, name, arguments):
                assert index not in done, f"call {index}: ends once"
                assert name and call_id, f"call {index}: has a name and an id"
                assert call_id not in done.values(), f"call {index}: its id is its own"
                assert pieces.get(index, arguments) == arguments, f"call {index}: the pieces make the whole"
                assert isinstance(json.loads(arguments), dict), f"call {index}: arguments are a JSON object"
                done[index] = call_id
            case ModelDone():
                pass
    if ends[0].reason == "completed":
        assert pieces.keys() <= done.keys(), "a call that was begun is ended"
    assert sorted(done) == list(range(len(done))), "calls are numbered from 0 without gaps"


async def _check_text(model: LanguageModel, question: str, *, is_deterministic: bool) -> None:
    first = await collect(model, ask(question))
    assert len([event for event in first if isinstance(event, TextDelta)]) >= 2, (
        "text is streamed, not sent whole"
    )
    assert not _calls(first), "without tools there are no calls"
    if is_deterministic:
        assert await collect(model, ask(question)) == first, "the same request gives the same reply"


async def _check_choices(model: LanguageModel, question: str) -> None:
    tools = (PART_TOOL,)
    named = json.dumps({"type": "function", "name": PART_TOOL.name})
    for choice in ('"required"', named):
        calls = _calls(await collect(model, ask(question, tools=tools, choice=choice)))
        assert [call.name for call in calls][:1] == [PART_TOOL.name], f"tool choice {choice} gives a call"
        arguments = json.loads(calls[0].arguments)
        assert isinstance(arguments.get("part"), str), "required arguments are there and of their type"
        single = replace(ask(question, tools=tools, choice=choice), parallel_tool_calls=False)
        assert len(_calls(await collect(model, single))) == 1, "no parallel calls where they are not allowed"
    none = await collect(model, ask(question, tools=tools, choice='"none"'))
    assert not _calls(none), "tool choice none gives no call"
    ids = {
        _calls(await collect(model, ask(question, tools=tools, choice=named, number=number)))[0].call_id
        for number in (1, 2)
    }
    assert len(ids) == 2, "two responses of a session do not share call ids"


async def _check_results(model: LanguageModel) -> None:
    """A tool's result is answered with text."""
    request = ask("how many hinges are in stock", tools=(PART_TOOL,))
    call = Item(ItemId("item_2"), "function_call", "assistant", call_id="call_1", name=PART_TOOL.name,
                arguments='{"part":"hinge"}')  # fmt: skip
    output = Item(ItemId("item_3"), "function_call_output", "tool", call_id="call_1", output="12")
    events = await collect(model, replace(request, items=(*request.items, call, output)))
    assert any(isinstance(event, TextDelta) for event in events), "a result is told"


async def _check_limit(model: LanguageModel, question: str) -> None:
    events = await collect(model, replace(ask(question), max_output_tokens=2))
    end = events[-1]
    assert isinstance(end, ModelDone) and end.reason == "max_output_tokens", "a cut reply says that it is cut"
    assert end.usage.output_tokens <= 2, "no more is counted than was allowed"


async def _check_closing(model: LanguageModel, question: str) -> None:
    """Closing in the middle, and before the first event, ends the stream and nothing else."""
    for count in (0, 1):
        stream = model.generate(ask(question))
        for _ in range(count):
            await _within(anext(stream))
        await _within(stream.aclose())
        rest = [event async for event in stream]
        assert not rest, "after aclose nothing comes"
    await collect(model, ask(question))


async def _check_together(model: LanguageModel, question: str, *, is_deterministic: bool) -> None:
    """Two at once do not mix, and neither keeps the loop to itself."""
    alone = await collect(model, ask(question))
    order: list[int] = []

    async def run(number: int) -> list[ModelEvent]:
        events: list[ModelEvent] = []
        async for event in model.generate(ask(question)):
            order.append(number)
            events.append(event)
        return events

    both = await _within(asyncio.gather(run(0), run(1)))
    for events in both:
        check_stream(events)
        assert not is_deterministic or events == alone, "two generations at once do not mix"
    assert order != sorted(order) and order != sorted(order, reverse=True), "a generation lets others go on"


def _calls(events: list[ModelEvent]) -> list[ToolCallDone]:
    return [event for event in events if isinstance(event, ToolCallDone)]


async def _within(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, WAIT_S)
