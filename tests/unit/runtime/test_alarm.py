"""When a session's timer rings, with deadlines that come, go and are put off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openline.runtime.alarm import LONGEST_S, Alarm
from openline.testing.virtual_time import VirtualClock, run_virtual

SECOND = 1_000_000_000


def rings(*, after_s: float, say: Callable[[Alarm, VirtualClock], None]) -> list[float]:
    """When it rang (seconds from the start) within ``after_s``, as the one who sets it says."""
    heard: list[float] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        clock, began = VirtualClock(), loop.time()
        alarm = Alarm(loop, clock, lambda: heard.append(round(loop.time() - began, 2)))
        say(alarm, clock)
        await asyncio.sleep(after_s)

    run_virtual(story())
    return heard


def at(clock: VirtualClock, seconds: float) -> int:
    return clock.now().mono_ns + int(seconds * SECOND)


def later(seconds: float, do: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, do)


def test_it_rings_once_when_the_deadline_has_passed() -> None:
    assert rings(after_s=10, say=lambda alarm, clock: alarm.set(at(clock, 3), clock.now())) == [3.0]


def test_a_deadline_that_has_passed_rings_at_once() -> None:
    assert rings(after_s=10, say=lambda alarm, clock: alarm.set(at(clock, -3), clock.now())) == [0.0]


def test_a_deadline_that_is_put_off_rings_when_the_last_one_has_passed() -> None:
    def say(alarm: Alarm, clock: VirtualClock) -> None:
        for second in range(5):
            later(second, lambda: alarm.set(at(clock, 3), clock.now()))

    assert rings(after_s=20, say=say) == [7.0]


def test_a_deadline_that_comes_nearer_rings_earlier() -> None:
    def say(alarm: Alarm, clock: VirtualClock) -> None:
        alarm.set(at(clock, 8), clock.now())
        later(1, lambda: alarm.set(at(clock, 2), clock.now()))

    assert rings(after_s=20, say=say) == [3.0]


def test_one_that_was_put_off_and_then_comes_nearer_again_rings_in_time() -> None:
    def say(alarm: Alarm, clock: VirtualClock) -> None:
        alarm.set(at(clock, 2), clock.now())
        later(1, lambda: alarm.set(at(clock, 8), clock.now()))
        later(4, lambda: alarm.set(at(clock, 1), clock.now()))

    assert rings(after_s=20, say=say) == [5.0]


def test_without_a_deadline_it_is_silent() -> None:
    def say(alarm: Alarm, clock: VirtualClock) -> None:
        alarm.set(at(clock, 3), clock.now())
        later(1, lambda: alarm.set(None, clock.now()))

    assert rings(after_s=10, say=say) == []


def test_cancelled_it_is_silent_also_when_the_deadline_was_put_off() -> None:
    def say(alarm: Alarm, clock: VirtualClock) -> None:
        alarm.set(at(clock, 3), clock.now())
        alarm.set(at(clock, 5), clock.now())
        later(1, alarm.cancel)

    assert rings(after_s=10, say=say) == []


def test_one_for_next_week_looks_every_hour() -> None:
    week = 7 * 86_400

    def say(alarm: Alarm, clock: VirtualClock) -> None:
        alarm.set(at(clock, week), clock.now())

    assert rings(after_s=LONGEST_S + 1, say=say) == [LONGEST_S]
