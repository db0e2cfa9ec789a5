"""A message connection in memory that can be slow, cut and half open, in any loop's time.

``EmulatedLine`` joins two ``LineEnd``s. Messages keep their order and their borders, as on a
WebSocket; a cut takes effect at a message or at a byte, and a message of which not every byte came
through never arrives. What this does not model: bandwidth, and packets of one message apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

ABNORMAL = 1006
"""What WebSocket code reports when the line went away without a closing handshake (RFC 6455 §7.1.5)."""


class Scheduler(Protocol):
    """The part of an asyncio loop that doubles need; a virtual loop satisfies it too."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object: ...


@dataclass(frozen=True, slots=True)
class LineCondition:
    """What the line does to what is sent into one direction. None: no such cut.

    ``delay_s``: one way. ``cut_after_messages`` N: message N + 1 never arrives. ``cut_after_bytes`` N:
    the message that holds byte N + 1 never arrives. ``half_open``: that cut tells neither side (no FIN).
    """

    delay_s: float = 0.0
    cut_after_messages: int | None = None
    cut_after_bytes: int | None = None
    half_open: bool = False


class LineEnd:
    """One side. Set ``on_message`` and ``on_close`` before anything can arrive.

    ``on_message(data)`` gets each whole message in order. ``on_close(code)`` is called at most once:
    with the other side's code, or ABNORMAL after a cut that is not half open.
    """

    def __init__(self, line: EmulatedLine, condition: LineCondition) -> None:
        self._line = line
        self._condition = condition
        self.on_the_way: deque[Callable[[], None]] = deque()
        """What this side has sent and the line has not delivered yet; the line's own business."""
        self._arrived: deque[bytes] = deque()
        self._close_code: int | None = None
        self._is_reading = True
        self._told_close = False
        self.on_message: Callable[[bytes], None] = _nothing
        self.on_close: Callable[[int], None] = _nothing
        self.sent_messages = 0
        self.sent_bytes = 0
        self.in_flight_bytes = 0
        """Bytes sent by this side that the other has not taken: what fills up at a slow reader."""

    @property
    def is_open(self) -> bool:
        """Whether this side believes so; true for ever on a half-open line."""
        return not self._told_close

    def send(self, data: bytes) -> None:
        """Hand a message to the line. Never waits; silently lost if the line is cut, as with TCP."""
        if self._told_close:
            return
        self.sent_messages += 1
        self.sent_bytes += len(data)
        self.in_flight_bytes += len(data)
        if self._is_past_the_cut():
            self._line.cut(half_open=self._condition.half_open)
            return
        self._line.carry(self, lambda: self._peer._arrive(data))

    def close(self, code: int = 1000) -> None:
        """Close cleanly: what was sent before still arrives, then the other side hears ``code``. Idempotent."""
        if self._told_close:
            return
        self._told_close = True
        self._line.carry(self, lambda: self._peer._hear_close(code))

    def pause_reading(self) -> None:
        """Become a slow reader: messages wait, and the sender's ``in_flight_bytes`` grows."""
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._drain()

    @property
    def delay_s(self) -> float:
        return self._condition.delay_s

    @property
    def _peer(self) -> LineEnd:
        return self._line.right if self is self._line.left else self._line.left

    def _is_past_the_cut(self) -> bool:
        messages, in_bytes = self._condition.cut_after_messages, self._condition.cut_after_bytes
        return (messages is not None and self.sent_messages > messages) or (
            in_bytes is not None and self.sent_bytes > in_bytes
        )

    def _arrive(self, data: bytes) -> None:
        self._arrived.append(data)
        self._drain()

    def _drain(self) -> None:
        # A handler may pause, close or cut in the middle: look again before each message.
        while self._arrived and self._is_reading and not self._told_close:
            data = self._arrived.popleft()
            self._peer.in_flight_bytes -= len(data)
            self.on_message(data)
        if self._close_code is not None and not self._arrived:
            self._tell_close(self._close_code)

    def _hear_close(self, code: int) -> None:
        self._close_code = code
        self._drain()

    def _tell_close(self, code: int) -> None:
        if not self._told_close:
            self._told_close = True
            self.on_close(code)

    def _break(self) -> None:
        """The line is gone: what waits unread is lost with it."""
        self._arrived.clear()
        self._tell_close(ABNORMAL)


class EmulatedLine:
    """Two ends, ``left`` (client, by habit) and ``right`` (server), in the time of ``scheduler``.

    ``left_to_right`` and ``right_to_left`` are the conditions of what each side sends.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        left_to_right: LineCondition = LineCondition(),
        right_to_left: LineCondition = LineCondition(),
    ) -> None:
        self._scheduler = scheduler
        self.is_cut = False
        self.left = LineEnd(self, left_to_right)
        self.right = LineEnd(self, right_to_left)

    def cut(self, *, half_open: bool = False) -> None:
        """Lose the line now, with everything on its way. Half open: neither side is told, sends vanish.

        Otherwise both sides hear ABNORMAL after their delay. Idempotent; the first cut decides.
        """
        if self.is_cut:
            return
        self.is_cut = True
        if not half_open:
            for end in (self.left, self.right):
                self._scheduler.call_later(end.delay_s, end._break)

    def carry(self, sender: LineEnd, deliver: Callable[[], None]) -> None:
        """Deliver after the sender's delay, in order, unless the line is cut by then."""
        # asyncio's timers of one moment come in no promised order, so each takes the oldest of a queue.
        sender.on_the_way.append(deliver)
        self._scheduler.call_later(sender.delay_s, lambda: self._deliver_next(sender))

    def _deliver_next(self, sender: LineEnd) -> None:
        deliver = sender.on_the_way.popleft()
        if not self.is_cut:
            deliver()


def _nothing(_value: object) -> None:
    """Stands for a handler that was not set."""
