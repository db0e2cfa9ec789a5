"""The loudspeaker of a client: plays in real time, knows what has been heard, stops at once.

No device of its own: what is due is handed to ``play``, which may write a file, a sound card or nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

BYTES_A_MS = 48
"""PCM16 mono at 24,000 samples a second."""
REPORT_MS = 200
"""Played audio between two reports: what a gateway can be wrong by about a listener that is lost."""
ENDED_MAX = 8
"""Items whose end is remembered, in case a gateway sends the rest of one again after a cut."""


@dataclass(slots=True)
class _Item:
    item_id: str
    base_ms: float
    """Position in the item of the first byte of ``pcm``."""
    played_ms: float
    pcm: bytearray = field(default_factory=bytearray)
    reported_ms: int = 0
    is_whole: bool = False

    @property
    def total_ms(self) -> float:
        return self.base_ms + len(self.pcm) / BYTES_A_MS


class Playback:
    """``clock``: monotonic seconds. ``report(item_id, played_ms)`` goes to the gateway as openline.playout.

    ``tick`` must be called often (20 ms); it plays what is due since the last one. Silence is not played.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        report: Callable[[str, int], None],
        play: Callable[[bytes], None] | None = None,
    ) -> None:
        self.played_ms = 0.0
        """All audio played so far, of all items."""
        self._clock = clock
        self._report = report
        self.on_play = play or (lambda pcm: None)
        self._items: deque[_Item] = deque()
        self._ended: dict[str, float] = {}
        self._last = clock()

    def add(self, item_id: str, pcm: bytes) -> None:
        """PCM16 mono 24 kHz, to be played behind what came before it."""
        if not self._items:
            self._last = self._clock()
        found = next((item for item in self._items if item.item_id == item_id), None)
        if found is None:
            base = self._ended.pop(item_id, 0.0)
            found = _Item(item_id, base, base)
            self._items.append(found)
        found.pcm += pcm

    def end(self, item_id: str) -> None:
        """No more audio comes for this item: its end is reported when it has been played."""
        for item in self._items:
            if item.item_id == item_id:
                item.is_whole = True
        self.tick()

    def tick(self) -> None:
        now = self._clock()
        due_ms, self._last = (now - self._last) * 1000, now
        while self._items:
            item = self._items[0]
            start = item.played_ms
            item.played_ms = min(item.total_ms, start + due_ms)
            due_ms -= item.played_ms - start
            self.played_ms += item.played_ms - start
            self.on_play(bytes(item.pcm[_offset(item, start) : _offset(item, item.played_ms)]))
            is_over = item.is_whole and item.played_ms >= item.total_ms
            if is_over or item.played_ms - item.reported_ms >= REPORT_MS:
                item.reported_ms = int(item.played_ms)
                self._report(item.item_id, item.reported_ms)
            if not is_over:
                return
            self._forget(self._items.popleft())

    def clear(self) -> tuple[str, int] | None:
        """Stop now: the item that was playing and the ms of it that were heard, which are reported; or None."""
        self.tick()
        if not self._items:
            return None
        item = self._items[0]
        self._items.clear()
        self._report(item.item_id, int(item.played_ms))
        return item.item_id, int(item.played_ms)

    def cut(self) -> int:
        """The line is gone: drop what was not played, since it is sent again on resume. Ms that were dropped."""
        self.tick()
        dropped = sum(item.total_ms - item.played_ms for item in self._items)
        for item in self._items:
            self._forget(item)
        self._items.clear()
        return int(dropped)

    def _forget(self, item: _Item) -> None:
        self._ended[item.item_id] = item.played_ms
        while len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    @property
    def is_playing(self) -> bool:
        return bool(self._items)

    @property
    def position_ms(self) -> int:
        """Of the item that is playing; 0 when none is."""
        return int(self._items[0].played_ms) if self._items else 0


def _offset(item: _Item, ms: float) -> int:
    return int((ms - item.base_ms) * BYTES_A_MS) // 2 * 2
