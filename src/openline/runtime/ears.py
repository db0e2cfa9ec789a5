"""The listening half of the pipeline: resample, voice activity, the floor, the recognizer.

One per link. Positions are samples (24 kHz) appended since the link was opened. Audio is kept only as
long as it may still be needed: a second while nobody speaks, the open turn while somebody does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from openline.core.floor import STARVED_MS, Floor, FloorSettings, Hold, Release, Started, Stopped
from openline.core.model import SessionConfig
from openline.errors import OpenlineError, for_log
from openline.ports import (
    SPEECH_RATE,
    WIRE_RATE,
    LinkSink,
    Recognizer,
    RecognizerStream,
    Resample,
    VoiceDetector,
)
from openline.types import ItemId

log = logging.getLogger(__name__)

KEEP_IDLE_MS = 1_000
"""Audio kept while nobody speaks: the pre-roll of a turn (padding plus the time to decide)."""
KEEP_TURN_MS = 60_000
"""Audio kept of an open turn or an uncommitted buffer; a longer one is recognised from its last minute."""


class Kept:
    """The recent past of the input as 16 kHz PCM, addressed by 24 kHz positions."""

    __slots__ = ("_data", "_start")

    def __init__(self) -> None:
        self._data = bytearray()
        self._start = 0

    def add(self, pcm16k: bytes) -> None:
        self._data += pcm16k

    @property
    def end(self) -> int:
        return (self._start + len(self._data) // 2) * WIRE_RATE // SPEECH_RATE

    def slice(self, start: int, end: int) -> bytes:
        """What is kept of [start, end) in 24 kHz positions, as 16 kHz PCM."""
        low = max(0, start * SPEECH_RATE // WIRE_RATE - self._start)
        high = max(0, end * SPEECH_RATE // WIRE_RATE - self._start)
        return bytes(self._data[low * 2 : high * 2])

    def trim(self, keep_ms: int) -> None:
        surplus = len(self._data) - keep_ms * SPEECH_RATE // 1000 * 2
        # Moving the rest costs a copy: do it seldom.
        if surplus > SPEECH_RATE:
            del self._data[:surplus]
            self._start += surplus // 2


class Ears:
    def __init__(
        self,
        sink: LinkSink,
        recognizer: Recognizer,
        detector: VoiceDetector,
        resample: Resample,
        *,
        grammar: Sequence[str] = (),
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._sink = sink
        self._recognizer = recognizer
        self._detector = detector
        self._resample = resample
        self._grammar = grammar
        self._spawn = spawn
        self._kept = Kept()
        self._frame_bytes = detector.frame_samples * 2
        self._pending = bytearray()
        self._fed = 0
        self._floor: Floor | None = None
        self._stream: RecognizerStream | None = None
        self._is_deciding = False
        self._late: tuple[int, int | None] | None = None
        """Speech that began, and perhaps ended, while the turn before it is being decided on."""
        self._starved: asyncio.TimerHandle | None = None
        self._is_closed = False

    # -- control

    def configure(self, config: SessionConfig) -> None:
        """Follow the session's turn detection; a change in mid-turn keeps the turn."""
        detection = config.turn_detection
        if detection is None:
            self._drop_stream()
            self._forget_speech()
            self._floor = None
            return
        if self._floor is None:
            # Frames are counted again only from here; the line is older than that.
            self._pending.clear()
            self._fed = self._kept.end
        settings = FloorSettings(detection.threshold, detection.wait_ms, detection.prefix_padding_ms)
        if self._floor is None:
            self._floor = Floor(settings)
        else:
            self._floor.settings = settings

    def playing(self, is_playing: bool) -> None:
        if self._floor is not None:
            self._floor.is_playing = is_playing

    def clear(self) -> None:
        self._drop_stream()
        self._forget_speech()
        self._kept.trim(0)

    def _forget_speech(self) -> None:
        """Also lets go on what was held while it was undecided, or the agent would stay silent."""
        self._late = None
        if self._floor is not None:
            for event in self._floor.reset():
                self._follow(event)

    def close(self) -> None:
        self._is_closed = True
        self._cancel_starved()
        self._drop_stream()

    # -- audio

    def append(self, pcm: bytes) -> None:
        """Caller audio (24 kHz). VAD runs here, at about 70 µs a frame: less than a thread hop costs."""
        pcm16k = self._resample.convert(pcm)
        self._kept.add(pcm16k)
        floor = self._floor
        if floor is None:
            self._kept.trim(KEEP_TURN_MS)
            return
        self._pending += pcm16k
        while len(self._pending) >= self._frame_bytes:
            frame = bytes(self._pending[: self._frame_bytes])
            del self._pending[: self._frame_bytes]
            start = self._fed
            self._fed += self._detector.frame_samples * WIRE_RATE // SPEECH_RATE
            if self._stream is not None:
                self._push(frame)
            for event in floor.frame(start, self._fed, self._detector.probability(frame)):
                self._follow(event)
        idle = floor.state == "idle" and not self._is_deciding
        self._kept.trim(KEEP_IDLE_MS if idle else KEEP_TURN_MS)
        self._watch(floor)

    def _push(self, frame: bytes) -> None:
        assert self._stream is not None
        try:
            self._stream.push(frame)
        except OpenlineError as error:
            # The turn must end: the session would wait for it, and say nothing, for as long as the call lasts.
            self._drop_stream()
            self._fail(None, error)

    def _fail(self, item_id: ItemId | None, error: OpenlineError) -> None:
        log.warning("an utterance was not recognised: %s", for_log(error))
        self._sink.turn_failed(item_id, error.code)

    def _follow(self, event: object) -> None:
        match event:
            case Hold():
                self._sink.speech_paused(True)
            case Release():
                self._sink.speech_paused(False)
            case Started(start):
                if self._is_deciding:
                    # The last turn is still being recognised: the session hears of this one after it.
                    self._late = (self._late[0] if self._late else start, None)
                else:
                    self._begin(start)
            case Stopped(start, end):
                self._end(start, end)

    def _begin(self, start: int) -> None:
        self._sink.speech_started(start)
        self._open_stream(start)

    def _open_stream(self, start: int) -> None:
        try:
            self._stream = self._recognizer.stream(self._partial, grammar=self._grammar)
        except OpenlineError as error:
            self._fail(None, error)
            return
        self._push(self._kept.slice(start, self._fed))

    def _partial(self, text: str) -> None:
        if text and not self._is_closed:
            self._sink.user_partial(text)

    def _end(self, start: int, end: int) -> None:
        if self._late is not None:
            self._late = (self._late[0], end)
            return
        if self._stream is None:
            return  # The recognizer failed in the midst of it, and the session knows.
        stream, self._stream = self._stream, None
        self._is_deciding = True
        self._sink.speech_stopped(end)
        self._spawn(self._decide(stream, None, start, end))

    async def _decide(self, stream: RecognizerStream, item_id: ItemId | None, start: int, end: int) -> None:
        """Wait for the final text and say it. Cancelled (link closed): the slot is freed, nothing is said."""
        try:
            result = await stream.finish()
        except OpenlineError as error:
            self._fail(item_id, error)
        except asyncio.CancelledError:
            await stream.cancel()
            raise
        else:
            self._sink.turn_final(item_id, result.text, result.confidence, start, end)
        finally:
            if item_id is None:
                self._is_deciding = False
                self._take_up_late()

    def _take_up_late(self) -> None:
        late, self._late = self._late, None
        if late is None or self._is_closed:
            return
        start, end = late
        self._begin(start)
        if end is not None:
            self._end(start, end)

    # -- turns that the client ends itself

    def commit(self, item_id: ItemId, start: int, end: int) -> None:
        self._drop_stream()
        self._forget_speech()
        self.recognize(item_id, self._kept.slice(start, end), start, end)
        self._kept.trim(KEEP_IDLE_MS)

    def recognize(self, item_id: ItemId, pcm16k: bytes, start: int, end: int) -> None:
        stream = None
        try:
            stream = self._recognizer.stream(self._partial, grammar=self._grammar)
            stream.push(pcm16k)
        except OpenlineError as error:
            if stream is not None:
                self._spawn(stream.cancel())
            self._fail(item_id, error)
            return
        self._spawn(self._decide(stream, item_id, start, end))

    def _drop_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            self._spawn(stream.cancel())

    # -- a muted or dead line

    def _watch(self, floor: Floor) -> None:
        """While somebody may be speaking, audio that stops coming ends the turn (failures.md A13)."""
        self._cancel_starved()
        if floor.state != "idle":
            delay = (floor.settings.silence_ms + STARVED_MS) / 1000
            self._starved = asyncio.get_running_loop().call_later(delay, self._on_starved)

    def _cancel_starved(self) -> None:
        if self._starved is not None:
            self._starved.cancel()
            self._starved = None

    def _on_starved(self) -> None:
        self._starved = None
        if self._floor is not None:
            for event in self._floor.starved():
                self._follow(event)
