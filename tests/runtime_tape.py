"""A playout in virtual time with a listener that writes down what it gets, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openline.core.model import Cut
from openline.runtime.playout import Playout, PlayoutHooks
from openline.runtime.spool import SpoolDesk
from openline.runtime.track import Track
from openline.types import ItemId, ResponseId

CHUNK_MS = 20.0


def pcm(ms: float, mark: int = 1) -> bytes:
    """``ms`` of audio (PCM16 24 kHz) whose every sample is ``mark``."""
    return mark.to_bytes(2, "little") * int(ms * 24)


@dataclass
class Listener:
    """What came out, with the second it came at. ``audio``: (at, item, pcm)."""

    audio: list[tuple[float, ItemId, bytes]] = field(default_factory=list)
    events: list[tuple[str, Any]] = field(default_factory=list)
    recorded: bytearray = field(default_factory=bytearray)

    @property
    def heard(self) -> bytes:
        return b"".join(data for _, _, data in self.audio)

    def ms_by(self, second: float) -> float:
        """Audio released up to ``second``."""
        return sum(len(data) for at, _, data in self.audio if at <= second + 1e-6) / 48

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def cuts(self) -> list[Cut]:
        return [cut for name, cut in self.events if name == "heard"]


class Tape(Playout):
    """A playout with its listener."""

    def __init__(self, desk: SpoolDesk | None = None, *, is_recorded: bool = False) -> None:
        """``is_recorded``: what was played can be had from the recording again, when a test lets it come."""
        loop = asyncio.get_running_loop()
        self.listener = got = Listener()
        self.is_recorded = is_recorded
        self.recalls: list[tuple[int, int, Callable[[bytes], None]]] = []

        def note(name: str) -> Callable[..., None]:
            return lambda *values: got.events.append((name, values[-1]))

        def audio(track: Track, data: bytes) -> None:
            got.audio.append((loop.time(), track.item, data))
            got.events.append(("audio", track.item))

        hooks = PlayoutHooks(
            note("text"),
            audio,
            note("finished"),
            note("released"),
            note("progress"),
            note("heard"),
            self._record,
            lambda start, end, came: self.recalls.append((start, end, came)),
            note("dropped"),
        )
        super().__init__(hooks, loop.time, loop, desk)

    def _record(self, track: Track, data: bytes, age_ms: float) -> int | None:
        at = len(self.listener.recorded) // 2
        self.listener.recorded.extend(data)
        return at if self.is_recorded else None

    def recall_all(self) -> None:
        """The disk has answered."""
        recalls, self.recalls = self.recalls, []
        for start, end, came in recalls:
            came(bytes(self.listener.recorded[2 * start : 2 * end]))

    def message(self, name: str, response: str = "resp_1") -> ItemId:
        item = ItemId(name)
        self.start(Track(ResponseId(response), item, 0, is_spoken=True))
        return item

    def say(self, item: ItemId, ms: float, text: str = "", mark: int = 1, chunk_ms: float = CHUNK_MS) -> None:
        """All of it at once, as a model does that is faster than speech."""
        if text:
            self.add_text(item, text)
        count = int(ms / chunk_ms)
        for number in range(count):
            self.add_audio(item, pcm(chunk_ms, mark), len(text) * (number + 1) // count)

    def reply(self, name: str, ms: float, response: str = "resp_1", text: str = "", mark: int = 1) -> ItemId:
        """A whole reply with its ends."""
        item = self.message(name, response)
        self.say(item, ms, text, mark)
        self.finish(item)
        self.finish_response(ResponseId(response))
        return item


class MemoryFile:
    """Port ``SpoolFile`` in memory. ``fails``: names of calls that raise."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.longest = 0
        self.fails: set[str] = set()
        self.is_closed = False
        self.truncations = 0

    def write(self, at: int, data: bytes) -> None:
        self._may_fail("write")
        if at > len(self.data):
            self.data += bytes(at - len(self.data))
        self.data[at : at + len(data)] = data
        self.longest = max(self.longest, len(self.data))

    def read(self, at: int, size: int) -> bytes:
        self._may_fail("read")
        return bytes(self.data[at : at + size])

    def truncate(self) -> None:
        self._may_fail("truncate")
        self.data.clear()
        self.truncations += 1

    def close(self) -> None:
        self.is_closed = True

    def _may_fail(self, name: str) -> None:
        if name in self.fails:
            raise OSError(28, "No space left on device")


class SlowWorker:
    """A thread that takes ``delay_s`` virtual seconds for each round; no real thread at all."""

    def __init__(self, delay_s: float = 0.01) -> None:
        self.delay_s = delay_s
        self.rounds = 0

    def __call__(self, work: Callable[[], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.rounds += 1

        def run() -> None:
            work()
            future.set_result(None)

        loop.call_later(self.delay_s, run)
        return future


class Files:
    """Opens memory files and remembers them."""

    def __init__(self) -> None:
        self.opened: list[MemoryFile] = []
        self.fails = False

    def __call__(self) -> MemoryFile:
        if self.fails:
            raise OSError(30, "Read-only file system")
        self.opened.append(MemoryFile())
        return self.opened[-1]
