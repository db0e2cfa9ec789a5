"""A session's one timer: rings when the earliest of its deadlines has passed.

Every step says anew when that is, and mostly only puts it off. So a timer that runs is left alone and looks again
when it fires: to cancel one and set another at each step costs more than a look that comes to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openline.ports import Clock
from openline.types import Now

LONGEST_S = 3_600.0
"""Rings at least so often while a deadline stands: a loop's timer for weeks is nothing to rely on."""
LATE_S = 0.001
"""So much after the deadline, so that it has passed on a clock of whole milliseconds too."""


class Alarm:
    """``ring`` is called on ``loop`` when what was set last has come, and an hour after it was set if it is further
    off. Not thread-safe."""

    __slots__ = ("_clock", "_due", "_loop", "_ring", "_set_for", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._ring = ring
        self._due: int | None = None
        self._set_for = 0
        """The deadline that the running timer was set for; never later than the one that counts."""
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: int | None, now: Now) -> None:
        """``due``: monotonic ns, in place of what was set before; None: there is no deadline."""
        self._due = due
        if self._timer is not None:
            if due is not None and due >= self._set_for:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = max(0.0, (due - now.mono_ns) / 1e9) + LATE_S
            self._set_for = due
            self._timer = self._loop.call_later(min(delay, LONGEST_S), self._look)

    def cancel(self) -> None:
        """Nothing rings any more, until it is set again."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        due, now = self._due, self._clock.now()
        if due is not None and due > max(self._set_for, now.mono_ns):
            self.set(due, now)
        else:
            self._ring()
