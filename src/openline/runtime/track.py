"""One output item on its way to a listener: what of it was made, shown, released, and how its words lie on its audio."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from openline.core.audio import BYTES_PER_MS
from openline.core.model import AudioFormat
from openline.types import ItemId, ResponseId


class Marks:
    """How far the text was spoken after so much of an item's audio, as the model says it: one mark a chunk, so they
    are sixteen bytes each and no objects."""

    __slots__ = ("_ends_ms", "_text_ends")

    def __init__(self) -> None:
        self._ends_ms = array("d")
        self._text_ends = array("q")

    def add(self, end_ms: float, text_end: int) -> None:
        """Later audio than any before it."""
        self._ends_ms.append(end_ms)
        self._text_ends.append(text_end)

    def text_end_at(self, heard_ms: float) -> int | None:
        """Characters spoken by then; None without marks. A mark counts a millisecond early: times are rounded."""
        if not self._ends_ms:
            return None
        passed = bisect_right(self._ends_ms, heard_ms + 1)
        return self._text_ends[passed - 1] if passed else 0


@dataclass(slots=True)
class Track:
    """One output item on the tape, in the format of its listener, whose arithmetic is done in that format's own
    bytes. ``start``: tape position of its first released audio; -1 before that."""

    response: ResponseId
    item: ItemId
    index: int
    is_spoken: bool
    text: str = ""
    shown: str = ""
    audio_ms: float = 0.0
    released_ms: float = 0.0
    start: float = -1.0
    is_finished: bool = False
    reported_ms: int | None = None
    resumed_ms: int | None = None
    """Where its audio went on for a listener that came back; None if nobody did."""
    marks: Marks = field(default_factory=Marks)
    checkpoint_ms: float = 0.0
    format: AudioFormat = "pcm"

    @property
    def bytes_per_ms(self) -> int:
        return BYTES_PER_MS[self.format]
