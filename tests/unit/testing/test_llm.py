"""The scripted model does what a test needs beyond the port: waiting, failing, counting."""

from __future__ import annotations

import asyncio

import pytest

from openline.core.model import Usage
from openline.errors import LinkRejected, LinkUnavailable
from openline.ports import ModelDone, TextDelta
from openline.testing.check_llm import ask, collect
from openline.testing.llm import Call, Fail, Finish, ScriptedModel, Wait, say


def test_scripts_are_played_in_turn_and_then_it_says_that_there_are_no_more() -> None:
    model = ScriptedModel([[say("one two")], [Finish("content_filter", Usage(1, 2))]])
    assert asyncio.run(collect(model, ask("a"))) == [
        TextDelta("one"), TextDelta(" two"), ModelDone(Usage(output_tokens=2)),
    ]  # fmt: skip
    assert asyncio.run(collect(model, ask("b"))) == [ModelDone(Usage(1, 2), "content_filter")]
    with pytest.raises(LinkRejected, match="expected at most 2 generations"):
        asyncio.run(collect(model, ask("c")))
    assert [request.items[0].text for request in model.requests] == ["a", "b", "c"]


def test_it_waits_and_can_be_closed_while_it_waits() -> None:
    async def story() -> None:
        gate = asyncio.Event()
        model = ScriptedModel([[say("one"), Wait(gate), say("two")]] * 2)
        stream = model.generate(ask("a"))
        assert await anext(stream) == TextDelta("one")
        held = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not held.done()
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        await stream.aclose()
        assert model.closed == 1
        gate.set()
        assert len(await collect(model, ask("b"))) == 3
        assert model.closed == 1

    asyncio.run(story())


def test_it_fails_where_it_is_told_to() -> None:
    async def story() -> None:
        model = ScriptedModel([[say("one"), Fail(LinkUnavailable("down"))]])
        stream = model.generate(ask("a"))
        assert await anext(stream) == TextDelta("one")
        with pytest.raises(LinkUnavailable, match="down"):
            await anext(stream)

    asyncio.run(story())


def test_a_call_keeps_the_id_it_was_given() -> None:
    events = asyncio.run(collect(ScriptedModel([[Call("a", "{}", "call_7"), Call("b")]]), ask("x")))
    assert [getattr(event, "call_id", "") for event in events] == ["call_7"] * 3 + [
        "call_resp_check1_1"
    ] * 3 + [""]
