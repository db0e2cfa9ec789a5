"""Agent code at work: facts in order and at least once, tools with exactly one outcome, replies with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from openline.core.model import Limits, ResponseRequest
from openline.errors import ToolError
from openline.runtime.deliveries import HANDLER_TIMEOUT_S, TOOL_OUTPUT_MAX, handled_to
from openline.testing.virtual_time import run_virtual
from openline.types import TurnId
from runtime_gateway import Agent, Caller, House, ask, facts_of, house, speak, typed

WANTED = ("conversation.item.created", "openline.turn.committed", "response.done")


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


def wanted(home: House, session: Any) -> list[tuple[int, str]]:
    """What a handler of WANTED must have seen, from the log."""
    return [(seq, name) for seq, name in enumerate(facts_of(home.log, session), 1) if name in WANTED]


# ------------------------------------------------------------------------------------------------ handlers


def test_handlers_get_durable_facts_in_order_and_only_those_they_want() -> None:
    async def story() -> None:
        async with house(agent=Agent(wants=WANTED)) as home:
            driver = await home.call(Caller())
            for text in ("say one", "say two"):
                ask(driver, text)
                await asyncio.sleep(3)
            assert home.agent.handled == wanted(home, driver.session.state.session)
            assert len(home.agent.handled) == 6

    run(story())


def test_a_handler_sees_nothing_before_it_is_durable() -> None:
    async def story() -> None:
        async with house(manual=True, agent=Agent(wants=WANTED)) as home:
            driver = await home.call(Caller())
            home.log.commit()
            driver.offer(typed("hello"))
            await asyncio.sleep(1)
            assert home.agent.handled == []
            home.log.commit()
            await asyncio.sleep(0.01)
            assert len(home.agent.handled) == 1

    run(story())


def test_one_handler_at_a_time_so_later_facts_wait() -> None:
    async def story() -> None:
        agent = Agent(wants=WANTED, gate=asyncio.Event())
        async with house(agent=agent) as home:
            driver = await home.call(Caller())
            for number in range(3):
                driver.offer(typed("x", f"item_{number}"))
            await asyncio.sleep(5)
            assert agent.handled == []
            assert agent.gate is not None
            agent.gate.set()
            await asyncio.sleep(0.1)
            assert agent.handled == wanted(home, driver.session.state.session)

    run(story())


def test_a_handler_that_fails_counts_as_done_and_the_next_fact_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        agent = Agent(wants=WANTED, fails_on={"conversation.item.created"})
        async with house(agent=agent) as home:
            driver = await home.call(Caller())
            ask(driver, "say hello")
            await asyncio.sleep(3)
            assert agent.handled == wanted(home, driver.session.state.session)

    run(story())
    assert "handler of conversation.item.created failed: ValueError" in caplog.text


def test_a_handler_that_hangs_is_cancelled_at_its_deadline() -> None:
    async def story() -> None:
        agent = Agent(wants=WANTED, gate=asyncio.Event())
        async with house(agent=agent) as home:
            driver = await home.call(Caller())
            driver.offer(typed("x", "item_1"))
            await asyncio.sleep(HANDLER_TIMEOUT_S + 1)
            agent.gate = None
            driver.offer(typed("x", "item_2"))
            await asyncio.sleep(0.1)
            assert [name for _, name in agent.handled] == ["conversation.item.created"]
            assert await handled_to(home.log, driver.session.state.session) == driver.session.state.seq

    run(story())


def test_after_a_crash_handling_goes_on_with_the_first_fact_that_was_not_done() -> None:
    async def story() -> None:
        agent = Agent(wants=WANTED)
        async with house(agent=agent) as home:
            driver = await home.call(Caller())
            session = driver.session.state.session
            driver.offer(typed("x", "item_1"))
            await asyncio.sleep(0.1)
            agent.gate = asyncio.Event()
            driver.offer(typed("x", "item_2"))
            driver.offer(typed("x", "item_3"))
            await asyncio.sleep(0.1)
            driver.playout.close()
            home.log.crash()
        next_home = House(log=home.log, agent=Agent(wants=WANTED))
        await next_home.log.open()
        await next_home.gateway.start()
        await asyncio.sleep(0.1)
        every = [*agent.handled, *next_home.agent.handled]
        assert every == wanted(home, session)
        await next_home.gateway.close()

    run(story())


# --------------------------------------------------------------------------------------------------- tools


async def outcome_of(agent: Agent, text: str = "call work", *, wait_s: float = 3) -> tuple[str, str]:
    """The one outcome of a call and what the model was told."""
    async with house(agent=agent) as home:
        driver = await home.call(Caller())
        ask(driver, text)
        await asyncio.sleep(wait_s)
        names = facts_of(home.log, driver.session.state.session)
        assert names.count("openline.tool.settled") == names.count("openline.tool.started") == 1
        (call,) = driver.session.state.tools.values()
        item = driver.session.state.entries[call.item_id].item
        return item.output, item.error


def test_what_a_tool_returns_is_what_the_model_reads() -> None:
    async def story() -> None:
        async def work(arguments: str) -> str:
            return f"got {arguments}"

        agent = Agent({"work": work})
        assert await outcome_of(agent, 'call work with {"n": 2}') == ('got {"n": 2}', "")
        ((key, attempt),) = agent.attempts
        assert attempt == 1
        assert key.startswith("sess_00000001:")

    run(story())


def test_an_error_that_the_tool_names_is_told_in_its_own_words() -> None:
    async def story() -> None:
        async def work(arguments: str) -> str:
            raise ToolError("no such part")

        assert await outcome_of(Agent({"work": work})) == ("", "no such part")

    run(story())


def test_a_bug_in_a_tool_is_told_by_its_type_only() -> None:
    async def story() -> None:
        async def work(arguments: str) -> str:
            raise KeyError("a secret")

        output, error = await outcome_of(Agent({"work": work}))
        assert "KeyError" in error
        assert "secret" not in output + error

    run(story())


def test_a_tool_past_its_time_is_cancelled_and_its_effect_unknown() -> None:
    async def story() -> None:
        cancelled: list[bool] = []

        async def work(arguments: str) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return "too late"

        output, error = await outcome_of(Agent({"work": work}, timeout_ms=2_000), wait_s=5)
        assert cancelled == [True]
        assert output == ""
        assert "unknown" in error

    run(story())


def test_a_result_too_large_for_a_model_is_a_failure_that_says_so() -> None:
    async def story() -> None:
        async def work(arguments: str) -> str:
            return "x" * (TOOL_OUTPUT_MAX + 1)

        output, error = await outcome_of(Agent({"work": work}))
        assert output == ""
        assert str(TOOL_OUTPUT_MAX) in error

    run(story())


# ------------------------------------------------------------------------------------------ before the reply


def test_before_reply_decides_what_the_reply_is_asked_with() -> None:
    async def story() -> None:
        async def prepare(turn: TurnId) -> ResponseRequest:
            return ResponseRequest(origin="turn", verbatim="prepared words")

        async with house(agent=Agent(prepare=prepare)) as home:
            driver = await home.call(Caller())
            await speak(driver, "hello")
            await asyncio.sleep(3)
            assert driver.session.state.conversation()[-1].text == "prepared words"

    run(story())


def test_before_reply_may_say_nothing() -> None:
    async def story() -> None:
        async def prepare(turn: TurnId) -> None:
            return None

        async with house(agent=Agent(prepare=prepare)) as home:
            driver = await home.call(Caller())
            await speak(driver, "hello")
            await asyncio.sleep(3)
            names = facts_of(home.log, driver.session.state.session)
            assert "openline.reply.dropped" in names
            assert "response.created" not in names

    run(story())


@pytest.mark.parametrize("fault", ["raises", "hangs"])
def test_before_reply_that_fails_or_takes_too_long_is_gone_without(fault: str) -> None:
    async def story() -> None:
        async def prepare(turn: TurnId) -> ResponseRequest:
            if fault == "raises":
                raise RuntimeError("a bug")
            await asyncio.sleep(20)
            return ResponseRequest(origin="turn", verbatim="far too late")

        limits = Limits(prepare_reply_ms=300)
        async with house(agent=Agent(prepare=prepare), limits=limits) as home:
            driver = await home.call(Caller())
            await speak(driver, "say the plain reply")
            await asyncio.sleep(25)
            names = facts_of(home.log, driver.session.state.session)
            assert names.count("response.created") == 1
            assert driver.session.state.conversation()[-1].text == "the plain reply"

    run(story())
