"""The loop's lag, on a loop that is late when the test says so."""

from __future__ import annotations

import asyncio

import pytest

from openline.runtime.looplag import EVERY_S, KEEP, LoopLag
from openline.testing.virtual_time import VirtualTimeLoop, run_virtual


def block(ms: float) -> None:
    """Something holds the loop for ``ms``: nothing else runs meanwhile."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.pass_time(ms / 1000)


def test_a_loop_that_keeps_time_has_no_lag() -> None:
    async def story() -> None:
        lag = LoopLag(asyncio.get_running_loop().time)
        assert lag.quantiles(0.5, 1.0) == (0.0, 0.0)
        lag.start()
        await asyncio.sleep(10)
        assert lag.quantiles(0.5, 0.99, 1.0) == pytest.approx((0.0, 0.0, 0.0), abs=0.01)
        lag.stop()

    run_virtual(story())


def test_one_block_in_a_hundred_shows_at_the_top_only() -> None:
    async def story() -> None:
        lag = LoopLag(asyncio.get_running_loop().time)
        lag.start()
        for _ in range(5):
            await asyncio.sleep(EVERY_S * 100)
            block(EVERY_S * 1000 + 40)
        await asyncio.sleep(EVERY_S * 10)
        half, most, top = lag.quantiles(0.5, 0.9, 1.0)
        assert (half, most) == pytest.approx((0.0, 0.0), abs=0.01)
        assert top == pytest.approx(40, abs=21)
        lag.stop()

    run_virtual(story())


def test_a_minute_later_it_is_forgotten_and_memory_is_bounded() -> None:
    async def story() -> None:
        lag = LoopLag(asyncio.get_running_loop().time)
        lag.start()
        await asyncio.sleep(1)
        block(500)
        await asyncio.sleep(1)
        assert lag.quantiles(1.0)[0] > 400
        await asyncio.sleep(KEEP * EVERY_S + 1)
        assert lag.quantiles(1.0) == pytest.approx((0.0,), abs=0.01)
        assert len(lag._notes) == KEEP
        lag.stop()

    run_virtual(story())


def test_after_stop_nothing_is_left_on_the_loop() -> None:
    async def story() -> None:
        lag = LoopLag(asyncio.get_running_loop().time)
        lag.start()
        lag.stop()
        await asyncio.sleep(1)
        assert len(lag._notes) == 0

    run_virtual(story())
