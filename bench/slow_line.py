"""A line with a round-trip time, in front of a port of this machine: a TCP proxy that delays, and ramps up as TCP does.

Bytes arrive half a round trip after they are sent. With ``slow_start`` each direction also has a congestion
window as Linux has it: 10 segments at first (RFC 6928), doubled each round trip while more than half of it is used, and
halved for every retransmission timeout without traffic, down to 10 again (RFC 2861;
``tcp_slow_start_after_idle``, on by default). Not emulated: loss, bandwidth, jitter, handshakes, TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SEGMENT = 1_448
"""Payload of one segment on Ethernet with timestamps."""
FIRST_WINDOW = 10 * SEGMENT
MIN_RTO_S = 0.2
"""Linux: the timeout is the smoothed round trip plus at least this."""


@dataclass(slots=True)
class Shape:
    """What every connection is like from now on, those that are open too. Seconds."""

    rtt_s: float = 0.0
    slow_start: bool = True


@dataclass(slots=True)
class Counts:
    """Payload bytes since the start; ``up`` from the client."""

    up: int = 0
    down: int = 0


class Direction:
    """One way of one connection. ``send`` waits while the window is full."""

    def __init__(self, shape: Shape, writer: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
        self._shape = shape
        self._writer = writer
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._window = FIRST_WINDOW
        self._in_flight = 0
        self._sent_at = self._loop.time()
        self._acked = asyncio.Event()
        self._coming: deque[tuple[float, bytes]] = deque()

    async def send(self, data: bytes) -> None:
        if self._shape.slow_start:
            self._rest()
        at = 0
        while at < len(data):
            while self._shape.slow_start and self._window - self._in_flight < SEGMENT:
                self._acked.clear()
                await self._acked.wait()
            room = self._window - self._in_flight if self._shape.slow_start else len(data)
            piece = data[at : at + room]
            at += len(piece)
            self._put(piece)

    def _rest(self) -> None:
        """A window that was not used says nothing about the path any more."""
        idle, timeout = self._loop.time() - self._sent_at, self._shape.rtt_s + MIN_RTO_S
        while not self._in_flight and (idle := idle - timeout) > 0 and self._window > FIRST_WINDOW:
            self._window = max(FIRST_WINDOW, self._window // 2)

    def _put(self, piece: bytes) -> None:
        now = self._sent_at = self._loop.time()
        rtt_s = self._shape.rtt_s
        self._count(len(piece))
        self._in_flight += len(piece)
        self._coming.append((now + rtt_s / 2, piece))
        self._loop.call_at(now + rtt_s / 2, self._arrive)
        self._loop.call_at(now + rtt_s, self._ack, len(piece), self._in_flight)

    def _arrive(self) -> None:
        """In order whatever order equal timers fire in."""
        _, piece = self._coming.popleft()
        if not self._writer.is_closing():
            self._writer.write(piece)

    def _ack(self, size: int, flight: int) -> None:
        """``flight``: bytes under way when it was sent. A window more than twice that was no limit (tcp_cong)."""
        self._in_flight -= size
        if self._window < 2 * flight:
            self._window += size
        self._acked.set()


class SlowLine:
    """``await start()`` gives the port; connections to it go to ``target`` on loopback."""

    def __init__(self, target: int, shape: Shape) -> None:
        self._target = target
        self._shape = shape
        self.counts = Counts()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None, "start comes first"
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        up = Direction(self._shape, far_writer, self._up)
        down = Direction(self._shape, writer, self._down)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, up, far_writer, self._shape))
                    group.create_task(_pump(far_reader, down, writer, self._shape))
        except ExceptionGroup:
            pass  # A connection that was reset: both ends see it below.
        finally:
            self._tasks.discard(task)
            for end in (writer, far_writer):
                end.close()

    def _up(self, size: int) -> None:
        self.counts.up += size

    def _down(self, size: int) -> None:
        self.counts.down += size


async def _pump(
    reader: asyncio.StreamReader, way: Direction, writer: asyncio.StreamWriter, shape: Shape
) -> None:
    while data := await reader.read(256 * 1024):
        await way.send(data)
    await asyncio.sleep(shape.rtt_s / 2)
    if not writer.is_closing():
        writer.close()
