"""SIGKILL of the gateway in live audio calls: what was shown is in the log, and every call goes on.

20 kills here, 200 in ``make prove``, in parts of 20: a part has a data directory and four callers of its own,
who live through all of its kills.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from e2e.live_calls import Caller, call_gateway, in_audio_reply, in_tool
from figures import figure, part_counts, parts
from integration.gateway import GatewayProcess, Story, stories
from integration.line import dial
from openline.core import facts as f

KILLS_A_PART = 20
CALLERS = 4
ALL_PARTS = figure("kills", 20) // KILLS_A_PART
PARTS = parts("kills", ALL_PARTS)
KINDS = ("reply", "any", "tool", "reply", "any")
"""At what moment the k-th kill of a part strikes."""


@pytest.mark.figure_kills
@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", PARTS)
def test_nothing_shown_is_lost_when_the_gateway_is_killed(part: int, tmp_path: Path) -> None:
    counts = asyncio.run(kills(part, tmp_path / "data"))
    part_counts("kills", part, counts)


@pytest.mark.figure_kills
def test_the_kills_struck_where_they_should() -> None:
    """Counted from the logs: what the session was doing in its last step before the kill."""
    counts = part_counts("kills")
    assert counts["kills"] == ALL_PARTS * KILLS_A_PART
    assert counts["in_reply"] >= 0.3 * counts["kills"], counts
    assert counts["in_tool"] >= 0.1 * counts["kills"], counts


async def kills(part: int, data: Path) -> Counter[str]:
    chance = random.Random(part)
    counts: Counter[str] = Counter()
    with call_gateway(data, "--resume-window-ms", "4000") as gateway:
        callers = [Caller(lambda: gateway.url, random.Random(part * 100 + n)) for n in range(CALLERS)]
        abandoned = await dial(gateway.url)
        await abandoned.turn("Hello there.")
        for caller in callers:
            await caller.connect()
        for number in range(KILLS_A_PART):
            await one_kill(gateway, callers, KINDS[number % len(KINDS)], chance)
            counts["kills"] += 1
        await asyncio.gather(*(caller.proves_to_go_on() for caller in callers))
        for caller in callers:
            await caller.line.close()
        lost = str(abandoned.opening["session_id"])
        async with asyncio.timeout(15):
            while stories(data)[lost].status != "parked":
                await asyncio.sleep(0.2)
        assert gateway.stop() == 0
    logs = stories(data)
    assert len(logs) == CALLERS + 1
    for caller in callers:
        counts["frames"] += caller.check(logs[caller.session])
        counts["turns"] += caller.turns
    counts.update(states_at_kills([logs[caller.session] for caller in callers]))
    return counts


async def one_kill(gateway: GatewayProcess, callers: list[Caller], kind: str, chance: random.Random) -> None:
    """All talk; at the moment of that kind the process dies, starts again, and all come back."""
    talking = [asyncio.create_task(talk(caller)) for caller in callers]
    try:
        async with asyncio.timeout(15):
            while not strikes(kind, callers):
                await asyncio.sleep(0.005)
        await asyncio.sleep(chance.uniform(0.0, {"reply": 0.8, "tool": 0.5}.get(kind, 1.5)))
        await asyncio.to_thread(gateway.kill)
    finally:
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
    for caller in callers:
        await caller.line.wait_closed()
    await asyncio.to_thread(gateway.start)
    for caller in callers:
        await caller.connect()


async def talk(caller: Caller) -> None:
    await asyncio.sleep(caller.chance.uniform(0, 0.3))
    while caller.line.closed is None:
        await caller.turn()


def strikes(kind: str, callers: list[Caller]) -> bool:
    match kind:
        case "reply":
            return any(in_audio_reply(caller.line.frames) for caller in callers)
        case "tool":
            return any(in_tool(caller.line.frames) for caller in callers)
        case _:
            return True


def states_at_kills(logs: list[Story]) -> Counter[str]:
    """Kills at which at least one call was inside an audio reply, and between a tool's start and its outcome.

    The epochs of a part's sessions end together: the k-th change of owner in each log is the k-th kill.
    """
    found: Counter[str] = Counter()
    replying: set[int] = set()
    in_tools: set[int] = set()
    for log in logs:
        kill = -1
        sounding: set[str] = set()
        running: set[str] = set()
        for _, _, fact in log.facts:
            match fact:
                case f.SessionOwned():
                    if kill >= 0 and sounding:
                        replying.add(kill)
                    if kill >= 0 and running:
                        in_tools.add(kill)
                    kill += 1
                case f.OutputItemAdded(item=item) if item.type == "message":
                    sounding.add(item.id)
                case f.OutputItemDone(item=item):
                    sounding.discard(item.id)
                case f.ToolStarted(call_id=call):
                    running.add(call)
                case f.ToolSettled(call_id=call):
                    running.discard(call)
    found["in_reply"], found["in_tool"] = len(replying), len(in_tools)
    return found
