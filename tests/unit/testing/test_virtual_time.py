"""The virtual loop jumps to the next timer, never sleeps, and says when nothing can happen any more."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from openline.testing.virtual_time import EPOCH_WALL_MS, Quiescent, VirtualClock, run_virtual


def test_an_hour_passes_at_once_and_timers_keep_their_order() -> None:
    async def story() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        loop.call_later(3600, seen.append, "hour")
        loop.call_later(0.5, seen.append, "half a second")
        await asyncio.sleep(7200)
        return seen, loop.time()

    began = time.monotonic()
    seen, virtual_s = run_virtual(story())
    assert seen == ["half a second", "hour"]
    assert virtual_s == 7200
    assert time.monotonic() - began < 1


def test_waiting_for_what_nobody_does_is_an_error_and_no_hang() -> None:
    async def story() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Quiescent, match="no ready callback, no timer"):
        run_virtual(story())


def test_a_timeout_counts_as_something_that_can_happen() -> None:
    async def story() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 30)
        return asyncio.get_running_loop().time()

    assert run_virtual(story()) == 30


def _order(seed: int | None) -> list[int]:
    async def story() -> list[int]:
        seen: list[int] = []

        async def one(number: int) -> None:
            await asyncio.sleep(0)
            seen.append(number)

        await asyncio.gather(*(one(number) for number in range(8)))
        return seen

    return run_virtual(story(), seed=seed)


def test_a_seed_gives_an_order_of_tasks_that_repeats() -> None:
    assert _order(None) == list(range(8))
    assert all(_order(seed) == _order(seed) for seed in range(5))
    assert len({tuple(_order(seed)) for seed in range(5)}) > 1


def test_a_seed_never_reorders_plain_callbacks() -> None:
    async def story() -> list[int]:
        seen: list[int] = []
        for number in range(20):
            asyncio.get_running_loop().call_soon(seen.append, number)
        await asyncio.sleep(1)
        return seen

    assert all(run_virtual(story(), seed=seed) == list(range(20)) for seed in range(10))


def test_the_clock_stands_still_while_a_thread_works() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        may_end = threading.Event()
        loop.call_later(5, lambda: None)
        work = loop.run_in_executor(None, may_end.wait, 5)
        loop.call_soon(may_end.set)
        assert await work
        return loop.time()

    assert run_virtual(story()) == 0


def test_an_error_in_a_callback_fails_the_run() -> None:
    async def story() -> None:
        asyncio.get_running_loop().call_soon(int, "not a number")
        await asyncio.sleep(1)

    with pytest.raises(ValueError, match="not a number"):
        run_virtual(story())


def test_the_wall_clock_steps_both_ways_and_the_monotonic_one_does_not() -> None:
    async def story() -> None:
        clock = VirtualClock()
        await asyncio.sleep(2)
        assert clock.now() == (2_000_000_000, EPOCH_WALL_MS + 2000)
        clock.step_wall(-3_600_000)
        assert clock.now() == (2_000_000_000, EPOCH_WALL_MS + 2000 - 3_600_000)
        clock.step_wall(7_200_000)
        await asyncio.sleep(1)
        assert clock.now() == (3_000_000_000, EPOCH_WALL_MS + 3000 + 3_600_000)

    run_virtual(story())
