"""How late the loop is: the one number that tells whether this process still keeps real time.

A timer every 20 ms, as audio frames come, notes how much later than asked it ran. About 50 wake-ups of
10 µs a second: small enough to be always on.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable

EVERY_S = 0.020
KEEP = 3_000
"""Notes kept: the last minute."""


class LoopLag:
    """``start`` on the loop to be watched, ``stop`` before it ends. Numbers are ms.

    ``seconds``: a monotonic clock that is read, not the loop's own: that one may stand still for a whole round.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._notes = array("f")
        self._next = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._arm(self._loop)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def quantiles(self, *shares: float) -> tuple[float, ...]:
        """The lag that this share of the last minute's notes did not pass, each; 0 before the first note."""
        ordered = sorted(self._notes)
        if not ordered:
            return tuple(0.0 for _ in shares)
        return tuple(ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = self._seconds() + EVERY_S
        self._timer = loop.call_later(EVERY_S, self._note)

    def _note(self) -> None:
        assert self._loop is not None
        late_ms = max(0.0, (self._seconds() - self._due) * 1000)
        if len(self._notes) < KEEP:
            self._notes.append(late_ms)
        else:
            self._notes[self._next] = late_ms
            self._next = (self._next + 1) % KEEP
        self._arm(self._loop)
