"""The Agent API over a real gateway: what a person writes, and what a caller then lives through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from integration.gateway import GatewayProcess, running, spoken_agent, stories
from integration.line import Line, again, dial, dial_unheard, line, silence
from openline.agent.agent import Agent
from openline.agent.handles import Reply, SessionHandle, ToolCall, Turn
from openline.core.facts import Fact
from openline.ports import ModelRequest
from openline.testing.llm import Call, ScriptedModel, say
from openline.testing.speech import tone

UTTERANCE = tone(220, 400, rate=24_000) + silence(700)


def thinking(agent: Agent, *scripts: Any) -> ScriptedModel:
    """Give the agent a model that says ``scripts``, one for each generation, and keeps what it was asked."""
    agent.llm = model = ScriptedModel(scripts)
    return model


def echo(agent: Agent) -> ScriptedModel:
    def reply(request: ModelRequest) -> list[Any]:
        return [say(f"heard {request.items[-1].text}")]

    agent.llm = model = ScriptedModel(reply)
    return model


def said(done: dict[str, Any]) -> str:
    """What a finished response says, spoken or written."""
    parts = done["response"]["output"][0]["content"]
    return str(parts[0].get("transcript") or parts[0].get("text"))


def spoken(done: dict[str, Any]) -> bool:
    return any(item["type"] == "message" for item in done["response"]["output"])


async def until(test: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------- tools


def test_a_tool_runs_once_under_its_key_and_the_reply_knows_its_result(tmp_path: Path) -> None:
    calls: list[tuple[str, str, int]] = []
    agent = spoken_agent(builtin_tools=False)
    model = thinking(agent, [Call("stock", '{"part": "bolt"}')], [say("There are 17.")])

    @agent.tool
    async def stock(part: str, call: ToolCall) -> int:
        """How many of a part there are."""
        calls.append((part, call.key, call.attempt))
        return 17

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway, line(gateway.url) as caller:
            await caller.ask("how many bolts")
            done = await caller.wait("response.done", spoken)
            assert said(done) == "There are 17."
            item = next(
                frame["item"]
                for frame in caller.of("conversation.item.done")
                if frame["item"]["type"] == "mcp_call"
            )
            assert (item["name"], json.loads(item["arguments"]), item["output"]) == (
                "stock",
                {"part": "bolt"},
                "17",
            )
            kinds = [f["type"] for f in caller.frames if f["type"].startswith("openline.tool")]
            assert kinds == ["openline.tool.requested", "openline.tool.started", "openline.tool.settled"]
            session = caller.opening["session_id"]
        assert len(calls) == 1 and calls[0][::2] == ("bolt", 1) and session in calls[0][1]
        assert model.requests[1].items[-1].output == "17", "the model is given the result"
        assert calls[0][1] not in str(caller.frames), "the key is told to no client"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("arguments", "outcome", "says"),
    [
        ('{"part": "bolt"}', "failed", "ZeroDivisionError"),
        ('{"part": 5}', "failed", "expected str"),
        ("{}", "failed", "'part'"),
        ('{"part": "slow"}', "unknown", "did not finish within"),
    ],
)
def test_a_tool_that_fails_has_one_outcome_and_the_call_goes_on(
    tmp_path: Path, arguments: str, outcome: str, says: str
) -> None:
    agent = spoken_agent(builtin_tools=False)
    thinking(agent, [Call("stock", arguments)], [say("Sorry.")], [say("Yes?")])

    @agent.tool(timeout_s=0.2)
    async def stock(part: str) -> float:
        """Fails."""
        if part == "slow":
            await asyncio.sleep(60)
        return 1 / 0

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway, line(gateway.url) as caller:
            await caller.ask("how many bolts")
            settled = await caller.wait("openline.tool.settled")
            assert settled["outcome"] == outcome and says in settled["item"]["error"]["message"]
            assert said(await caller.wait("response.done", spoken)) == "Sorry."
            assert (await caller.turn("hello"))["response"]["status"] == "completed"

    asyncio.run(story())


# ---------------------------------------------------------------------------------------------- handlers


def test_a_greeting_waits_for_somebody_to_hear_it(tmp_path: Path) -> None:
    """The session starts before its first client is attached; what is said then is not lost."""
    agent = spoken_agent()

    @agent.on("openline.session.started")
    async def greet(session: SessionHandle) -> None:
        await session.say("Workshop, good morning.")

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway, line(gateway.url) as caller:
            done = await caller.wait("response.done")
            assert said(done) == "Workshop, good morning."
            assert len(caller.audio()) > 0
            # Nobody greets a second time when the line is cut.
            await caller.drop()
            async with line(gateway.url, **again(caller)) as back:
                await back.turn("hello")
                greetings = [f for f in back.of("response.done") if "morning" in str(f)]
                assert not greetings

    asyncio.run(story())


def test_handlers_get_durable_facts_in_order_and_a_failing_one_harms_nobody(tmp_path: Path) -> None:
    agent = spoken_agent()
    echo(agent)
    told: list[str] = []

    @agent.on("openline.turn.committed")
    async def committed(turn: Turn, fact: Fact) -> None:
        told.append(turn.text)
        raise ValueError("mine")

    @agent.on("response.done")
    async def done(fact: Fact) -> None:
        told.append(fact.TYPE)

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway, line(gateway.url) as caller:
            for text in ("one", "two"):
                await caller.turn(text)
            await until(lambda: len(told) == 4)
            assert told == ["one", "response.done", "two", "response.done"]

    asyncio.run(story())


def test_a_handler_is_called_again_after_a_kill_and_not_after_it_ended(tmp_path: Path) -> None:
    """At least once: the killed one runs again at the restart, those that had ended do not."""
    notes = tmp_path / "notes"
    gateway = GatewayProcess(
        tmp_path / "data",
        ("handler_agent:agent", "--recognizer", "scripted", "--synthesizer", "tone"),
        folder=Path(__file__).parent,
        environment={"HANDLER_NOTES": str(notes)},
    )

    def lines() -> list[str]:
        return notes.read_text().split("\n")[:-1] if notes.exists() else []

    async def story() -> None:
        caller = await dial(gateway.url)
        await caller.ask("first", output_modalities=["text"])
        await until(lambda: len(lines()) == 2)
        await caller.wait("response.done")
        await caller.ask("second", output_modalities=["text"])
        await until(lambda: len(lines()) == 3)
        gateway.kill()
        await caller.wait_closed()
        gateway.start()
        await until(lambda: len(lines()) == 5)

    with gateway:
        asyncio.run(story())
        assert gateway.stop() == 0
    first, second = lines()[0].split()[1], lines()[2].split()[1]
    assert lines() == [
        f"begin {first}",
        f"end {first}",
        f"begin {second}",
        f"begin {second}",
        f"end {second}",
    ]


# ------------------------------------------------------------------------------------------ before_reply


@pytest.mark.parametrize("way", ["context", "instructions", "replaced", "dropped", "slow", "broken"])
def test_before_reply_changes_the_reply_or_is_gone_on_without(tmp_path: Path, way: str) -> None:
    agent = spoken_agent("what is the weather")
    model = echo(agent)

    @agent.before_reply
    async def prepare(turn: Turn, reply: Reply) -> None:
        assert turn.text == "what is the weather"
        match way:
            case "context":
                reply.add_context("It rains in Bremen.")
            case "instructions":
                reply.instructions = "Speak like a pirate."
            case "replaced":
                reply.replace_with("Look out of the window.")
            case "dropped":
                reply.drop()
            case "slow":
                reply.add_context("too late")
                await asyncio.sleep(5)
            case _:
                raise ValueError("mine")

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway, line(gateway.url) as caller:
            await caller.speak(UTTERANCE, pace=0.3)
            if way == "dropped":
                assert (await caller.wait("openline.reply.dropped"))["reason"] == "agent"
                assert (await caller.turn("typed"))["response"]["status"] == "completed"
                assert len(caller.of("response.created")) == 1
                return
            words = said(await caller.wait("response.done"))
            if way == "replaced":
                assert words == "Look out of the window." and not model.requests
                return
            texts = [item.text for item in model.requests[0].items]
            assert ("It rains in Bremen." in texts) == (way == "context")
            assert ("pirate" in model.requests[0].instructions) == (way == "instructions")
            assert "too late" not in texts
            # For this reply only.
            await caller.turn("and now")
            assert "It rains in Bremen." not in [item.text for item in model.requests[1].items]

    asyncio.run(story())


# ------------------------------------------------------------------------------------ acting on a session


def test_agent_code_interrupts_updates_speaks_and_hangs_up(tmp_path: Path) -> None:
    agent = spoken_agent()
    model = echo(agent)
    handles: list[SessionHandle] = []

    @agent.on("openline.session.started")
    async def keep(session: SessionHandle) -> None:
        handles.append(session)

    async def story() -> None:
        async with running(tmp_path / "data", agent) as gateway, line(gateway.url) as caller:
            await until(lambda: handles)
            (session,) = handles
            await session.say(" ".join(["word"] * 50))
            await caller.wait("response.output_audio.delta")
            await session.interrupt()
            cancelled = await caller.wait("response.done")
            assert cancelled["response"]["status"] == "cancelled"
            await session.interrupt()  # nothing runs: nothing happens
            await session.update(instructions="Speak like a pirate.", voice="cedar")
            updated = await caller.wait("session.updated")
            assert updated["session"]["instructions"] == "Speak like a pirate."
            await session.generate_reply(context="The tide is out.")
            await caller.wait("response.done")
            assert model.requests[-1].instructions == "Speak like a pirate."
            assert model.requests[-1].items[-1].text == "The tide is out."
            # Three at once: one after the other, in order.
            for text in ("one", "two", "three"):
                await session.say(text)
            assert [said(await caller.wait("response.done")) for _ in range(3)] == ["one", "two", "three"]
            await session.end("done")
            assert (await caller.wait("openline.session.ended"))["reason"] == "done"
            assert (await caller.wait_closed())[0] == 4410
            with pytest.raises(Exception, match="has ended"):
                await session.say("too late")

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------- drain


def test_sigterm_lets_running_replies_end_and_takes_no_new_calls(tmp_path: Path) -> None:
    gateway = GatewayProcess(tmp_path / "data", ("--model", "scripted"))

    async def story() -> Line:
        caller = await dial(gateway.url)
        idle = await dial(gateway.url)
        await caller.ask("say one two three four five six seven eight")
        await caller.wait("response.output_audio.delta")
        gateway.terminate()
        await asyncio.sleep(0.3)
        with pytest.raises(InvalidStatus) as refused:
            await dial_unheard(gateway.url)
        assert refused.value.response.status_code == 503
        done = await caller.wait("response.done")
        assert done["response"]["status"] == "completed" and "eight" in said(done)
        for one in (caller, idle):
            assert (await one.wait_closed())[0] == 4503
        return caller

    with gateway:
        caller = asyncio.run(story())
        assert gateway.wait() == 0
    for found in stories(tmp_path / "data").values():
        assert found.status == "detached", "it waits for its caller, for whoever runs next"
    assert not caller.of("error")


def test_sigterm_does_not_wait_for_a_reply_that_nobody_listens_to(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data", drain_s=30.0) as gateway:
            caller = await dial(gateway.url)
            await caller.ask("long")
            await caller.wait("response.output_audio.delta")
            await caller.drop()
            session = gateway.gateway.drivers[caller.opening["session_id"]].session
            await until(lambda: session.state.status == "detached")
            async with asyncio.timeout(5):
                await gateway.close()

    asyncio.run(story())
