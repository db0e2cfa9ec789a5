"""The emulated line: order, delay, cuts at a message or byte, half-open lines, slow readers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from openline.testing.emulated_net import ABNORMAL, EmulatedLine, LineCondition, LineEnd
from openline.testing.virtual_time import run_virtual


@dataclass
class Ear:
    """Keeps what one end heard, with the virtual time."""

    end: LineEnd
    messages: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    closes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end.on_message = self._message
        self.end.on_close = self.closes.append

    def _message(self, data: bytes) -> None:
        self.messages.append(data)
        self.times.append(asyncio.get_running_loop().time())


def _line(
    up: LineCondition = LineCondition(), down: LineCondition = LineCondition()
) -> tuple[EmulatedLine, Ear, Ear]:
    line = EmulatedLine(asyncio.get_running_loop(), left_to_right=up, right_to_left=down)
    return line, Ear(line.left), Ear(line.right)


def test_messages_arrive_in_order_after_the_delay_and_a_close_comes_last() -> None:
    async def story() -> None:
        line, client, server = _line(LineCondition(delay_s=0.02), LineCondition(delay_s=0.03))
        line.left.send(b"one")
        line.left.send(b"two")
        line.left.close(4410)
        line.left.send(b"after the close")
        line.right.send(b"reply")
        await asyncio.sleep(1)
        assert (server.messages, server.times, server.closes) == ([b"one", b"two"], [0.02, 0.02], [4410])
        assert client.messages == [] and client.closes == [], "a side that closed hears nothing more"

    run_virtual(story())


@pytest.mark.parametrize("half_open", [False, True])
def test_a_cut_at_a_byte_loses_the_message_that_holds_it(half_open: bool) -> None:
    async def story() -> None:
        line, client, server = _line(down=LineCondition(cut_after_bytes=7, half_open=half_open))
        line.right.send(b"whole")
        await asyncio.sleep(0.1)
        line.right.send(b"torn")
        line.right.send(b"never")
        line.left.send(b"into the void")
        await asyncio.sleep(1)
        assert client.messages == [b"whole"] and server.messages == []
        assert client.closes == server.closes == ([] if half_open else [ABNORMAL])
        assert line.left.is_open is half_open

    run_virtual(story())


def test_a_cut_after_a_message_takes_what_is_on_its_way() -> None:
    async def story() -> None:
        line, _client, server = _line(LineCondition(delay_s=0.5, cut_after_messages=2))
        line.left.send(b"1")
        await asyncio.sleep(0.6)
        line.left.send(b"2")
        line.left.send(b"3")
        await asyncio.sleep(5)
        assert server.messages == [b"1"]
        assert server.closes == [ABNORMAL]

    run_virtual(story())


def test_a_slow_reader_fills_the_sender_and_gets_everything_once_it_reads() -> None:
    async def story() -> None:
        line, client, _server = _line()
        line.left.pause_reading()
        for number in range(100):
            line.right.send(b"%03d" % number)
        line.right.close(1000)
        await asyncio.sleep(1)
        assert client.messages == [] and client.closes == [] and line.right.in_flight_bytes == 300
        line.left.resume_reading()
        assert client.messages == [b"%03d" % number for number in range(100)]
        assert client.closes == [1000] and line.right.in_flight_bytes == 0

    run_virtual(story())


def test_a_cut_that_is_half_open_by_hand_and_only_the_first_cut_counts() -> None:
    async def story() -> None:
        line, client, server = _line()
        line.cut(half_open=True)
        line.cut()
        line.left.send(b"lost")
        await asyncio.sleep(60)
        assert server.messages == [] and client.closes == server.closes == []

    run_virtual(story())
