"""``LoadLink``: the model for load benchmarks. Replies in real time, cheaply, and stamps what it emits.

All sessions share one timer wheel (no task, no timer per session). Every audio chunk carries the
moment at which it was *due* (CLOCK_MONOTONIC, ns, little endian) in its first 8 bytes, so that the
client's arrival time minus the stamp is the delay added by the whole gateway: loop lag, rendering,
pacing, send queue and kernel. Some text deltas carry the same as ``~`` and 11 hex digits of
microseconds. The caller's audio carries its send time in the same way; what it took to get here is
counted in ``LoadStatistics``. It stands for an upstream socket and has none: its cost is the
gateway's own work without the upstream leg, and a result must say so.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from openline.core.model import Item, SessionConfig, Usage
from openline.errors import ConfigError
from openline.ports import LinkSink, ModelLink, ResponseStart
from openline.testing.emulated_net import Scheduler
from openline.testing.histogram import Histogram
from openline.testing.scripts import RATE, Heard, ScriptedEars
from openline.types import CallId, ItemId, ResponseId, SessionId

STAMP_BYTES = 8
TICK_NS = 5_000_000
"""Resolution of the wheel: 8 slots in a 40 ms chunk, so at most 1/8 of the sessions are due together."""
_MICROSECONDS_MASK = (1 << 44) - 1
TIMED_EVERY = 8
"""One frame of the callers in so many is timed: the double must not cost what it measures."""
_STALE_NS = 60_000_000_000
"""A stamp further away than this is no stamp (a client that sends ordinary audio)."""
WRITE_EVERY_NS = 250_000_000
BODIES = 16


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load, from the model's side. ``tool_every`` N: each N-th turn begins with a tool call; 0: never.

    ``texts_per_audio``: text deltas with each audio chunk. ``mark_every``: each so-many-th text delta is a
    time mark. ``silence_ms`` 0: as the session's turn detection says.
    """

    reply_ms: int = 3000
    delta_ms: int = 40
    texts_per_audio: int = 1
    mark_every: int = 5
    tool_every: int = 2
    start_ms: int = 60
    silence_ms: int = 0

    @classmethod
    def parse(cls, text: str) -> LoadPlan:
        """``reply_ms=3000,tool_every=2``; "" is the default. Raises ConfigError with the names allowed."""
        names = [field.name for field in fields(cls)]
        values: dict[str, int] = {}
        for pair in filter(None, text.split(",")):
            name, _, value = pair.partition("=")
            if name not in names or not value.isdigit():
                raise ConfigError(
                    f"load model: expected NAME=NUMBER with NAME of {', '.join(names)}; got {pair!r}"
                )
            values[name] = int(value)
        plan = cls(**values)
        if plan.delta_ms * 1_000_000 % TICK_NS or plan.delta_ms == 0:
            raise ConfigError(f"load model: expected delta_ms to be a multiple of 5; got {plan.delta_ms}")
        return plan


class LoadStatistics:
    """Counters over all load links of the process; written to ``path`` (JSON) four times a second of traffic.

    ``at_ns`` in the file is the monotonic time of that writing: rates are taken between two of them.
    ``up``: one caller's frame in eight is timed and counts for eight.
    """

    __slots__ = (
        *(
            "_path",
            "chunks_down",
            "finished",
            "frames_up",
            "responses",
            "texts_down",
            "turns",
            "up",
            "written_ns",
        ),
    )

    def __init__(self, path: Path | None = None) -> None:
        self.up = Histogram()
        self.frames_up = 0
        self.chunks_down = 0
        self.texts_down = 0
        self.turns = 0
        self.responses = 0
        self.finished = 0
        self._path = path
        self.written_ns = 0

    def snapshot(self) -> dict[str, object]:
        names = ("frames_up", "chunks_down", "texts_down", "turns", "responses", "finished")
        counts = {name: getattr(self, name) for name in names}
        return {"at_ns": self.written_ns, **counts, "up": self.up.sparse()}

    def write_if_due(self, now_ns: int) -> None:
        if self._path is None or now_ns - self.written_ns < WRITE_EVERY_NS:
            return
        self.written_ns = now_ns
        # Replaced in one go: the harness must never read half a file.
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self.snapshot()))
        fresh.replace(self._path)


class LoadWheel:
    """Calls every stream once per ``delta_ms``, in ticks of 5 ms, from one timer; sleeps when none streams.

    A late loop catches up tick by tick, as a provider's chunks would come out of the socket.
    """

    def __init__(
        self,
        delta_ms: int,
        *,
        scheduler: Scheduler | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.clock_ns = clock_ns
        self._scheduler = scheduler
        self._slots: list[list[_Stream]] = [[] for _ in range(delta_ms * 1_000_000 // TICK_NS)]
        self._tick = 0
        self._due_ns = 0
        self._streams = 0

    def add(self, stream: _Stream) -> None:
        """Begin with the tick after this moment, then once per ``delta_ms``."""
        if self._streams == 0:
            self._due_ns = self.clock_ns() + TICK_NS
            self._schedule()
        self._streams += 1
        self._slots[self._tick % len(self._slots)].append(stream)

    def _schedule(self) -> None:
        if self._scheduler is None:
            self._scheduler = asyncio.get_running_loop()
        # Whole milliseconds, upwards: a loop that counts in them (uvloop) takes less than half of one for no time
        # at all, and would call again and again until the moment has come, all the time that the gateway has left.
        late_ms = -(-(self._due_ns - self.clock_ns()) // 1_000_000)
        self._scheduler.call_later(max(0, late_ms) / 1000, self._turn)

    def _turn(self) -> None:
        now = self.clock_ns()
        while self._due_ns <= now:
            place = self._tick % len(self._slots)
            before = self._slots[place]
            # Streams that begin during the tick belong to the next one, so the list is not the one we walk.
            self._slots[place] = []
            self._tick += 1
            going = [stream for stream in before if stream.advance(self._due_ns)]
            self._slots[place] += going
            self._streams += len(going) - len(before)
            self._due_ns += TICK_NS
        if self._streams:
            self._schedule()


@dataclass(slots=True)
class _Stream:
    """One reply on its way out."""

    link: LoadLink
    response: ResponseId
    left: int
    number: int = 0
    characters: int = 0

    def advance(self, due_ns: int) -> bool:
        """Emit the chunk that was due; False when it was the last, or nobody wants it any more."""
        return self.link.emit(self, due_ns)


class LoadLink(ModelLink):
    __slots__ = (
        *(
            "_asked",
            "_detects",
            "_ears",
            "_padding",
            "_plan",
            "_push",
            "_shared",
            "_sink",
            "_statistics",
            "_stream",
        ),
    )

    def __init__(self, shared: LoadLinkFactory) -> None:
        self._shared = shared
        self._plan = shared.plan
        self._sink: LinkSink | None = None
        self._ears = ScriptedEars(
            start_ms=self._plan.start_ms, silence_ms=self._plan.silence_ms or 200, mark_offset=STAMP_BYTES
        )
        self._push = self._ears.push
        self._statistics = shared.statistics
        self._detects = True
        self._padding = 0
        self._stream: _Stream | None = None
        self._asked = 0

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        self._sink = sink
        self.update(config)
        sink.opened()

    async def close(self) -> None:
        self._sink = None
        self._stream = None

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        statistics = self._statistics
        statistics.frames_up = count = statistics.frames_up + 1
        # Moved on now and then: sessions come round in one order, and the same ones must not be taken each time.
        if (count + (count >> 11)) % TIMED_EVERY == 0:
            delay = self._shared.clock_ns() - int.from_bytes(pcm[:STAMP_BYTES], "little")
            if 0 <= delay < _STALE_NS:
                statistics.up.add_ns(delay, TIMED_EVERY)
        heard = self._push(pcm)
        if heard is not None and self._detects and self._sink is not None:
            self._hear(heard, self._sink)

    def _hear(self, heard: Heard, sink: LinkSink) -> None:
        if heard.kind == "started":
            sink.speech_started(max(0, heard.at - self._padding))
        elif heard.kind == "stopped":
            self._shared.statistics.turns += 1
            sink.speech_stopped(heard.at)
            sink.turn_final(None, "what the caller said", 0.9, max(0, heard.onset - self._padding), heard.at)

    def commit_audio(self, item_id: ItemId, start: int, end: int) -> None:
        self._ears.forget()
        self._shared.statistics.turns += 1
        if self._sink is not None:
            self._sink.turn_final(item_id, "what the caller said", 0.9, start, end)

    def clear_audio(self) -> None:
        self._ears.forget()

    def update(self, config: SessionConfig) -> None:
        detection = config.turn_detection
        self._detects = detection is not None
        if detection is not None:
            self._padding = detection.prefix_padding_ms * RATE // 1000
            self._ears.silence_ms = self._plan.silence_ms or detection.silence_duration_ms

    def add_item(self, item: Item, previous: ItemId | None) -> None:
        """The load model remembers nothing: its replies do not depend on what was said."""

    def remove_item(self, item_id: ItemId) -> None:
        """See add_item."""

    def truncate(self, item_id: ItemId, audio_end_ms: int, text: str) -> None:
        """See add_item."""

    def playing(self, is_playing: bool) -> None:
        """See add_item: speech is speech, whatever plays."""

    def start_response(self, start: ResponseStart) -> None:
        sink = self._sink
        if sink is None:
            return
        self._shared.statistics.responses += 1
        is_answer = bool(start.items) and start.items[-1].type == "function_call_output"
        if not is_answer:
            self._asked += 1
            if self._plan.tool_every and self._asked % self._plan.tool_every == 0:
                self._shared.soon(lambda: self._call_tool(start.response_id))
                return
        stream = _Stream(self, start.response_id, max(1, self._plan.reply_ms // self._plan.delta_ms))
        self._stream = stream
        self._shared.soon(lambda: self._begin(stream))

    def cancel_response(self, response: ResponseId) -> None:
        if self._stream is not None and self._stream.response == response:
            self._stream = None

    def _call_tool(self, response: ResponseId) -> None:
        sink = self._sink
        if sink is None:
            return
        arguments = '{"part":"M8x40","count":12}'
        sink.call_started(response, 0, CallId(f"call_{response.removeprefix('resp_')}"), "lookup")
        for begin in range(0, len(arguments), 9):
            sink.call_delta(response, 0, arguments[begin : begin + 9])
        sink.call_finished(response, 0, arguments)
        self._finish(response, sink)

    def _begin(self, stream: _Stream) -> None:
        """The first chunk leaves at once, so that the reply's delay is the gateway's and not the wheel's."""
        if self._sink is None or self._stream is not stream:
            return
        self._sink.message_started(stream.response, 0)
        if self.emit(stream, self._shared.clock_ns()):
            self._shared.wheel.add(stream)

    def emit(self, stream: _Stream, due_ns: int) -> bool:
        """Send one chunk with its words; True while there is more to come."""
        sink = self._sink
        if sink is None or self._stream is not stream:
            return False
        plan, statistics, response = self._plan, self._statistics, stream.response
        stream.left = left = stream.left - 1
        number, characters = stream.number, stream.characters
        for _ in range(plan.texts_per_audio):
            number += 1
            is_marked = left == 0 or number % plan.mark_every == 0
            text = f"~{due_ns // 1000 & _MICROSECONDS_MASK:011x}" if is_marked else "so "
            characters += len(text)
            sink.text_delta(response, 0, text)
        stream.number, stream.characters = number, characters
        pcm = due_ns.to_bytes(STAMP_BYTES, "little") + self._shared.bodies[number % BODIES]
        sink.audio_delta(response, 0, pcm, characters)
        statistics.texts_down += plan.texts_per_audio
        statistics.chunks_down += 1
        if due_ns - statistics.written_ns >= WRITE_EVERY_NS:
            statistics.write_if_due(due_ns)
        if left > 0:
            return True
        sink.message_finished(stream.response, 0)
        self._finish(stream.response, sink)
        return False

    def _finish(self, response: ResponseId, sink: LinkSink) -> None:
        self._stream = None
        self._shared.statistics.finished += 1
        sink.response_finished(response, Usage(input_tokens=100, output_tokens=50), "completed")


class LoadLinkFactory:
    """Makes load links that share wheel, PCM and statistics. ``statistics_path``: see LoadStatistics."""

    def __init__(
        self,
        plan: LoadPlan = LoadPlan(),
        *,
        statistics_path: Path | None = None,
        scheduler: Scheduler | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.plan = plan
        self.clock_ns = clock_ns
        self.statistics = LoadStatistics(statistics_path)
        self.wheel = LoadWheel(plan.delta_ms, scheduler=scheduler, clock_ns=clock_ns)
        self.bodies = _noise_bodies(plan.delta_ms)
        self._scheduler = scheduler

    def __call__(self, session: SessionId, config: SessionConfig) -> ModelLink:
        return LoadLink(self)

    def soon(self, do: Callable[[], None]) -> None:
        """Never inside the caller: a real link's answers come from the socket, in a later turn of the loop."""
        (self._scheduler or asyncio.get_running_loop()).call_later(0, do)


def _noise_bodies(delta_ms: int) -> tuple[bytes, ...]:
    """Quiet noise, ``BODIES`` chunks: digital silence would make the recorder's and the network's work too light."""
    chance = random.Random(8)
    samples = delta_ms * RATE // 1000 - STAMP_BYTES // 2
    return tuple(
        array("h", (chance.randrange(-3000, 3000) for _ in range(samples))).tobytes() for _ in range(BODIES)
    )
