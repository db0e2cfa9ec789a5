"""What a running gateway does about memory, so that no caller hears of it.

**Garbage.** Reference counts free what a call leaves; the collector is for the rare cycle. Left to itself it looks
over the young objects whenever 700 more were made than freed, and where calls come and go that is seldom: some 12,000
objects had gathered each time, and a look took 3 to 9 ms, once or twice a second at 200 calls, with every call
waiting (29 November 2026, CPython 3.11). So twenty times a second what is there is set aside, which costs
microseconds however much it is; automatic looks then find few objects, and mostly none is due. What was set aside is
looked over when nobody is connected. While somebody is, memory is counted every five minutes, and looked over if it
has grown by more than calls and their items account for: what agent code leaves in cycles cannot fill the memory, and
a gateway whose code leaves none is never stopped for it.

**Holes.** After a stall the heap is full of holes where audio waited, and the C library returns only what lies at
its end.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import time
from collections.abc import Callable

SET_ASIDE_EVERY_S = 0.05
QUIET_EVERY_S = 60.0
"""Between two whole looks while nobody is connected: one takes some 40 ms for what 300 calls left."""
BUSY_EVERY_S = 300.0
"""Between two counts while somebody is."""
GROWN_BLOCKS = 300_000
"""So many more pieces of memory than after the last look (some 20 MB) are reason for one while calls go on, which all
wait for it: 89 ms with 150. It does not ask whether calls came or went: one long call whose tools leave cycles must not
fill the memory. A call holds some 830 pieces (29 November 2026), so 360 new ones are reason too."""
GIVE_BACK_EVERY_S = 10.0
"""How often free memory goes back to the system; a search takes up to a millisecond with a hundred calls."""


class Garbage:
    """Python's collector, used when it disturbs least. ``begin`` once, then ``tick`` every SET_ASIDE_EVERY_S.

    ``connections``: how many are open now; ``opened``: sessions opened since the start. One a process.
    """

    def __init__(
        self,
        connections: Callable[[], int],
        opened: Callable[[], int],
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._opened = opened
        self._seconds = seconds
        self._looked_s = self._counted_s = seconds()
        self._opened_then = opened()
        self._kept_then = 0
        """Pieces of memory in use when the last look had ended. Not what is set aside: to count that takes 10 to 20 ms."""

    def begin(self) -> None:
        """What the start made lives as long as the process: it is set aside for good."""
        gc.freeze()
        gc.enable()
        self._kept_then = sys.getallocatedblocks()

    def tick(self) -> None:
        if self._is_due():
            gc.unfreeze()
            gc.collect()
            self._looked_s = self._counted_s = self._seconds()
            self._opened_then = self._opened()
            self._kept_then = sys.getallocatedblocks()
        gc.freeze()

    def _is_due(self) -> bool:
        now_s = self._seconds()
        if self._connections() == 0:
            wait_s = QUIET_EVERY_S if self._opened() != self._opened_then else BUSY_EVERY_S
            return now_s - self._looked_s >= wait_s
        if now_s - self._counted_s < BUSY_EVERY_S:
            return False
        self._counted_s = now_s
        return sys.getallocatedblocks() - self._kept_then > GROWN_BLOCKS

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(SET_ASIDE_EVERY_S)
            self.tick()


async def give_back() -> None:
    """Until cancelled. Only the GNU C library can; with another this ends at once."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    while trim is not None:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        await asyncio.to_thread(trim, 0)
