"""The first way to a model that its server offers is the one that stays."""

from __future__ import annotations

import asyncio

import pytest

from openline.errors import LinkNotOffered, LinkRejected
from openline.ports import TextDelta
from openline.runtime.model_choice import FirstOffered
from openline.testing.check_llm import ask
from openline.testing.llm import Fail, ScriptedModel, say


async def text_of(model: FirstOffered) -> str:
    events = [event async for event in model.generate(ask("hi"))]
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def missing(name: str) -> ScriptedModel:
    return ScriptedModel(lambda request: [Fail(LinkNotOffered("not here"))], name=name)


def test_what_is_not_offered_is_left_out_for_good() -> None:
    socket, chat = missing("socket"), ScriptedModel(lambda request: [say("hello there")], name="chat")

    async def story() -> None:
        model = FirstOffered([socket, missing("responses"), chat])
        await model.start()
        assert model.name == "socket"
        assert await text_of(model) == "hello there" and model.name == "chat"
        assert await text_of(model) == "hello there" and len(socket.requests) == 1
        await model.close()

    asyncio.run(story())


def test_two_that_find_out_at_once_leave_it_out_once() -> None:
    chat = ScriptedModel(lambda request: [say("hello there")], name="chat")

    async def story() -> None:
        model = FirstOffered([missing("socket"), chat])
        assert await asyncio.gather(text_of(model), text_of(model)) == ["hello there"] * 2

    asyncio.run(story())


def test_any_other_failure_is_no_reason_to_try_the_next() -> None:
    wrong = ScriptedModel(lambda request: [Fail(LinkRejected("wrong key"))])
    other = ScriptedModel(lambda request: [say("hello")])

    async def story() -> None:
        with pytest.raises(LinkRejected, match="wrong key"):
            await text_of(FirstOffered([wrong, other]))
        assert not other.requests
        with pytest.raises(LinkNotOffered):
            await text_of(FirstOffered([missing("only")]))

    asyncio.run(story())
