"""A slice of the tool-call benchmark: every candidate goes through the conversation; no time is asserted."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bench import tool_calls
from bench.load_file import all_loads
from bench.slow_line import FIRST_WINDOW, SEGMENT, Direction, Shape
from openline.testing.virtual_time import run_virtual

Json = dict[str, Any]


@pytest.mark.slow  # processes
def test_every_candidate_makes_the_calls_and_only_http_grows() -> None:
    load = next(load for load in all_loads() if load.name == "tool_calls")
    measured = tool_calls.measure(load, is_quick=True)
    row, counted = measured["rtt_10"], measured["bytes"]
    expected = set(tool_calls.CANDIDATES) - ({"http2"} - counted.keys())
    assert set(counted) == expected
    for name in expected:
        assert row[name]["turns"] == 5 and row[name]["model_s"] > 0, name
        assert row[name]["transport_s"] >= 5 * 0.01, f"{name} is faster than the line"
    for name in ("openline", "openline_stored", "socket"):
        assert counted[name]["growth"] == pytest.approx(1, abs=0.05), name
    assert counted["http1"]["growth"] > 2


class Far:
    """A writer that notes when it was given how much."""

    def __init__(self) -> None:
        self.got: list[tuple[float, int]] = []

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.got.append((round(asyncio.get_running_loop().time(), 6), len(data)))


def sent(*bursts: tuple[float, int], slow_start: bool = True) -> list[tuple[float, int]]:
    """What arrives over 100 ms when each burst (pause before it, bytes) is sent."""

    async def story() -> list[tuple[float, int]]:
        far = Far()
        way = Direction(Shape(0.1, slow_start), cast(asyncio.StreamWriter, far), lambda size: None)
        began = asyncio.get_running_loop().time()
        for pause, size in bursts:
            await asyncio.sleep(pause)
            await way.send(b"x" * size)
        await asyncio.sleep(1)
        return [(round(at - began, 6), size) for at, size in far.got]

    return run_virtual(story())


def test_a_line_takes_half_a_round_trip() -> None:
    assert sent((0, 1_000), (0.01, 500)) == [(0.05, 1_000), (0.06, 500)]


def test_a_line_changes_under_an_open_connection() -> None:
    """Openline keeps its socket from one row of the benchmark to the next."""

    async def story() -> list[tuple[float, int]]:
        far, shape = Far(), Shape(0.1)
        way = Direction(shape, cast(asyncio.StreamWriter, far), lambda size: None)
        began = asyncio.get_running_loop().time()
        await way.send(b"x")
        await asyncio.sleep(1)
        shape.rtt_s = 0.4
        await way.send(b"x")
        await asyncio.sleep(1)
        return [(round(at - began, 6), size) for at, size in far.got]

    assert run_virtual(story()) == [(0.05, 1), (1.2, 1)]


def test_a_window_of_ten_segments_doubles_each_round_trip() -> None:
    arrivals = sent((0, 7 * FIRST_WINDOW))
    assert arrivals == [(0.05, FIRST_WINDOW), (0.15, 2 * FIRST_WINDOW), (0.25, 4 * FIRST_WINDOW)]
    assert sent((0, 7 * FIRST_WINDOW), slow_start=False) == [(0.05, 7 * FIRST_WINDOW)]


def test_a_window_that_rests_is_halved_for_each_timeout() -> None:
    """300 ms: the round trip and 200 ms. After a pause of two the window of 8 is one of 4, 2 and so on."""
    busy = (0.0, 7 * FIRST_WINDOW)
    assert sent(busy, (0.15, 8 * FIRST_WINDOW))[-1][1] == 8 * FIRST_WINDOW, "no rest, no loss"
    after = [size for _, size in sent(busy, (0.75, 8 * FIRST_WINDOW))[3:]]
    assert after[0] == 2 * FIRST_WINDOW
    long = [size for _, size in sent(busy, (30, 2 * FIRST_WINDOW))[3:]]
    assert long[0] == FIRST_WINDOW


def test_small_messages_do_not_widen_it() -> None:
    arrivals = sent(*[(0.2, SEGMENT)] * 20, (0.2, 2 * FIRST_WINDOW))
    assert arrivals[20][1] == FIRST_WINDOW
