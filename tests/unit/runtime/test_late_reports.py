"""A player that is behind our clock: its last word counts, those before it do not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from openline.core.facts import ItemHeard
from openline.runtime.driver import LAST_WORD_S, SessionDriver
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId
from runtime_gateway import Caller, ask, house

Reports = Callable[[SessionDriver, ItemId, int], Awaitable[None]]


def heard_after(reports: Reports) -> list[tuple[int, str]]:
    """(ms short of the whole, source) of each heard fact of a reply that had been played whole by our clock."""
    found: list[tuple[int, str]] = []

    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "say a few words to me please")
            while not (facts := [fact for fact in caller.shown if isinstance(fact, ItemHeard)]):
                await asyncio.sleep(0.02)
            item = facts[0].item_id
            whole = driver.session.state.entries[item].audio_ms
            await reports(driver, item, whole)
            await asyncio.sleep(2 * LAST_WORD_S)
            for fact in caller.shown:
                if isinstance(fact, ItemHeard):
                    found.append((whole - fact.audio_end_ms, fact.source))

    run_virtual(story())
    return found


def test_a_player_that_only_lags_cuts_nothing() -> None:
    async def lag(driver: SessionDriver, item: ItemId, whole: int) -> None:
        for short in (400, 150, 0):
            driver.report_playout(item, whole - short)
            await asyncio.sleep(0.25)

    assert heard_after(lag) == [(0, "paced")]


def test_a_player_that_stopped_is_believed() -> None:
    async def stop(driver: SessionDriver, item: ItemId, whole: int) -> None:
        for short in (400, 300):
            driver.report_playout(item, whole - short)
            await asyncio.sleep(0.25)

    assert heard_after(stop) == [(0, "paced"), (300, "reported")]


@pytest.mark.parametrize("ms", [0, 50_000])
def test_no_report_makes_more_of_a_reply_than_there_was(ms: int) -> None:
    async def report(driver: SessionDriver, item: ItemId, whole: int) -> None:
        driver.report_playout(item, whole + ms)

    assert all(short == 0 for short, _ in heard_after(report))


def test_a_report_for_what_was_never_said_changes_nothing() -> None:
    async def report(driver: SessionDriver, item: ItemId, whole: int) -> None:
        driver.report_playout(ItemId("item_of_nobody"), 100)

    assert heard_after(report) == [(0, "paced")]
