"""Cuts of the client's socket in live audio calls: what was shown before and after is the log, once, in order.

20 cuts here, 200 in ``make prove``, in parts of 20 over four callers. A line is reset, dropped without a close
frame, closed, or left half open: not read any more while the caller already talks on a new one.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from e2e.live_calls import Caller, call_gateway, in_audio_reply
from figures import figure, part_counts, parts
from integration.gateway import stories
from integration.line import Line

CUTS_A_PART = 20
CALLERS = 4
ALL_PARTS = figure("cuts", 20) // CUTS_A_PART
PARTS = parts("cuts", ALL_PARTS)
WAYS = ("reset", "half_open", "dropped", "closed", "half_open")


@pytest.mark.figure_cuts
@pytest.mark.timeout(90)
@pytest.mark.parametrize("part", PARTS)
def test_nothing_is_lost_or_doubled_when_the_line_is_cut(part: int, tmp_path: Path) -> None:
    part_counts("cuts", part, asyncio.run(cuts(part, tmp_path / "data")))


@pytest.mark.figure_cuts
def test_the_cuts_struck_where_they_should() -> None:
    counts = part_counts("cuts")
    assert counts["cuts"] == ALL_PARTS * CUTS_A_PART
    assert counts["in_reply"] >= counts["cuts"] / 3, counts
    assert counts["half_open"] >= counts["cuts"] / 4, counts


async def cuts(part: int, data: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    with call_gateway(data) as gateway:
        callers = [Caller(lambda: gateway.url, random.Random(part * 100 + n)) for n in range(CALLERS)]
        await asyncio.gather(*(live_through(caller, number, counts) for number, caller in enumerate(callers)))
        assert gateway.stop() == 0
    logs = stories(data)
    assert len(logs) == CALLERS
    for caller in callers:
        counts["frames"] += caller.check(logs[caller.session])
        counts["turns"] += caller.turns
    return counts


async def live_through(caller: Caller, number: int, counts: Counter[str]) -> None:
    await caller.connect()
    for cut in range(CUTS_A_PART // CALLERS):
        talking = asyncio.create_task(talk(caller))
        if cut % 2 == 0:
            async with asyncio.timeout(20):
                while not in_audio_reply(caller.line.frames):
                    await caller.line.news()
        await asyncio.sleep(caller.chance.uniform(0.0, 0.8))
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        counts["cuts"] += 1
        counts["in_reply"] += in_audio_reply(caller.line.frames)
        await break_and_come_back(caller, WAYS[(number + cut) % len(WAYS)], counts)
    await caller.proves_to_go_on()
    await caller.line.close()


async def talk(caller: Caller) -> None:
    while caller.line.closed is None:
        await caller.turn()


async def break_and_come_back(caller: Caller, way: str, counts: Counter[str]) -> None:
    old: Line = caller.line
    counts[way] += 1
    if way == "half_open":
        old.freeze()
        await asyncio.sleep(caller.chance.uniform(0.0, 0.5))
        await caller.connect()
        await old.bury()
        return
    await {"reset": old.reset, "dropped": old.drop, "closed": old.close}[way]()
    await asyncio.sleep(caller.chance.choice((0.0, 0.05, 0.3)))
    await caller.connect()
