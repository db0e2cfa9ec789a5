"""The one outbound queue of a connection, in stream order.

A frame leaves at once when nothing is before it and the log has what it needs; otherwise it waits its
turn. Nothing overtakes. Bounded in bytes: a log that stands still for so long that this fills up, or a
client that does not read, costs the connection, not the gateway's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from openline.types import Seq

HELD_BYTES_MAX = 8 * 1024 * 1024
"""Frames waiting for the disk: seconds of a busy session's audio, far more than any healthy commit takes."""


class Outbox:
    """``send`` never waits. ``on_full`` is called once, when the bound is passed; nothing is sent after it.

    ``send_all`` takes several frames at once, ``send_soon`` one that can wait for the next; without them it is
    ``send`` for each.
    """

    __slots__ = (
        *("_bytes", "_gate", "_held", "_is_full", "_mark", "_on_full", "_send", "_send_all", "_send_soon"),
        "held_max",
    )

    def __init__(
        self,
        send: Callable[[bytes], None],
        on_full: Callable[[], None],
        *,
        send_all: Callable[[Sequence[bytes]], None] | None = None,
        send_soon: Callable[[bytes], None] | None = None,
    ) -> None:
        self._send = send
        self._send_all = send_all
        self._send_soon = send_soon or send
        self._on_full = on_full
        self._held: list[tuple[Seq, bytes | Callable[[], None]]] = []
        self._mark = Seq(0)
        self._bytes = 0
        self._gate = True
        self._is_full = False
        self.held_max = 0

    def put(self, frame: bytes, needs: Seq = Seq(0)) -> None:
        """Send ``frame`` once everything before it has left and the durable mark is at least ``needs``."""
        if not self._gate and not self._held and needs <= self._mark:
            self._send(frame)
        elif not self._is_full:
            self._held.append((needs, frame))
            self._bytes += len(frame)
            self.held_max = max(self.held_max, self._bytes)
            if self._bytes > HELD_BYTES_MAX:
                self._is_full = True
                self._on_full()

    def put_soon(self, frame: bytes) -> None:
        """A frame that needs nothing and is mostly followed by another."""
        if not self._gate and not self._held:
            self._send_soon(frame)
        else:
            self.put(frame)

    def then(self, action: Callable[[], None], needs: Seq = Seq(0)) -> None:
        """Do ``action`` (close the socket) at its place in the stream."""
        if not self._gate and not self._held and needs <= self._mark:
            action()
        else:
            self._held.append((needs, action))

    def durable(self, mark: Seq) -> None:
        self._mark = mark
        if self._held and not self._gate:
            self._flush()

    def open(self, first: Iterable[tuple[Seq, bytes]] = ()) -> None:
        """Let the stream begin, with ``first`` before everything that was put so far."""
        self._held[:0] = first
        self._gate = False
        self._flush()

    def _flush(self) -> None:
        held = self._held
        while held and held[0][0] <= self._mark:
            ready: list[bytes] = []
            for needs, entry in held:
                if needs > self._mark or not isinstance(entry, bytes):
                    break
                ready.append(entry)
            if ready:
                del held[: len(ready)]
                self._bytes -= sum(map(len, ready))
                self._send_ready(ready)
            else:
                action = held.pop(0)[1]
                assert not isinstance(action, bytes)
                action()

    def _send_ready(self, frames: list[bytes]) -> None:
        if self._send_all is not None and len(frames) > 1:
            self._send_all(frames)
        else:
            for frame in frames:
                self._send(frame)

    def drop(self) -> None:
        """The socket is gone."""
        self._held.clear()
        self._bytes = 0
        self._gate = True
