"""``vad.VAD`` of LiveKit Agents as voice detectors.

The port asks for one number at once; their streams give events later, on an event loop. The streams therefore run on
a loop in a thread of its own, and ``probability`` waits there for the answer to its frame: exact for any frame size
that clients send, for a few hops between threads (measured in docs/howto/own-model.md). A plugin that
answers too late three times in a row is no longer waited for: its newest answer counts, one frame late.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from livekit import rtc
from livekit.agents import vad

from openline.errors import ConfigError, SpeechError
from openline.ports import SPEECH_RATE, ClosableDetector

log = logging.getLogger(__name__)

WAIT_S = 0.02
"""For one frame's answer: less than a frame lasts, or a late plugin would hold up the whole gateway."""
FIRST_WAIT_S = 0.25
"""The first one may still be loading."""
MISSES_MAX = 3
RETRY_S = 1.0
FRAME_SAMPLES = 512
"""Where a plugin names no interval between 10 and 100 ms of its own."""


class PluginDetectors:
    """Makes a detector for each call: what ``Agent(vad=…)`` takes. Raises ConfigError for what is no ``vad.VAD``.

    The thread lives while a detector does.
    """

    def __init__(self, plugin: vad.VAD) -> None:
        if not isinstance(plugin, vad.VAD):
            raise ConfigError(
                f"detects: expected a VAD of livekit.agents; got '{type(plugin).__name__}'.",
                hint="Make the plugin first, such as livekit.plugins.silero.VAD.load().",
            )
        self._plugin = plugin
        self._loop: _LoopThread | None = None
        self.running: set[PluginDetector] = set()

    def __call__(self) -> PluginDetector:
        if self._loop is None:
            self._loop = _LoopThread()
        detector = PluginDetector(self._plugin, self._loop, self._closed)
        self.running.add(detector)
        return detector

    def close(self) -> None:
        """End all detectors and wait for the thread, at most 5 s. Not needed where each is closed."""
        thread = self._loop
        for detector in list(self.running):
            detector.close()
        if thread is not None:
            thread.join(5.0)

    def _closed(self, detector: PluginDetector) -> None:
        self.running.discard(detector)
        if not self.running and self._loop is not None:
            self._loop.end()
            self._loop = None


class PluginDetector(ClosableDetector):
    """One session's stream. ``frame_samples``: the plugin's own interval, so that one frame has one answer."""

    def __init__(self, plugin: vad.VAD, loop: _LoopThread, closed: Callable[[PluginDetector], None]) -> None:
        samples = round(plugin.capabilities.update_interval * SPEECH_RATE)
        self.frame_samples = samples if 160 <= samples <= 1_600 else FRAME_SAMPLES
        self._label = f"voice detector {type(plugin).__module__}.{type(plugin).__name__}"
        self._plugin = plugin
        self._loop = loop
        self._closed = closed
        self._stream: _Stream | None = _Stream(plugin, loop)
        self._value = 0.0
        self._misses = 0
        self._failed_at = float("-inf")

    def probability(self, frame: bytes) -> float:
        """See the port. A stream that failed is logged, and begun anew a second later; 0.0 until it answers."""
        if len(frame) != 2 * self.frame_samples:
            raise SpeechError(
                f"{self._label}: expected a frame of {2 * self.frame_samples} bytes, got {len(frame)}."
            )
        stream = self._running()
        if stream is not None:
            stream.push(rtc.AudioFrame(frame, SPEECH_RATE, 1, self.frame_samples))
            self._take_answers(stream)
        return self._value

    def reset(self) -> None:
        """A new stream: not every plugin forgets all on its own ``flush``."""
        self._let_go()
        self._value = 0.0

    def close(self) -> None:
        self._let_go()
        self._closed(self)

    def _running(self) -> _Stream | None:
        if self._stream is not None and self._stream.is_dead:
            log.error("%s: its stream ended (%s)", self._label, self._stream.why)
            self._let_go()
            self._value, self._failed_at = 0.0, time.monotonic()
        if self._stream is None and time.monotonic() - self._failed_at >= RETRY_S:
            self._stream = _Stream(self._plugin, self._loop)
        return self._stream

    def _take_answers(self, stream: _Stream) -> None:
        is_waited_for = self._misses < MISSES_MAX
        until = time.monotonic() + (WAIT_S if stream.has_answered else FIRST_WAIT_S)
        try:
            while stream.owed > 0:
                wait_s = max(0.0, until - time.monotonic()) if is_waited_for else 0.0
                self._value = stream.answers.get(wait_s > 0, wait_s or None)
                stream.owed -= 1
                stream.has_answered = True
        except queue.Empty:
            self._misses += is_waited_for
            if is_waited_for and self._misses == MISSES_MAX:
                log.warning("%s: slower than %g s a frame; its answers count late", self._label, WAIT_S)
        else:
            self._misses = self._misses if not is_waited_for else 0

    def _let_go(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


class _Stream:
    """A stream of the plugin's on the thread's loop. Methods without underscore are for the session's side."""

    def __init__(self, plugin: vad.VAD, loop: _LoopThread) -> None:
        self.answers: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.owed = 0
        """Frames without an answer so far."""
        self.has_answered = False
        self.is_dead = False
        self.why = ""
        self._loop = loop
        self._stream: vad.VADStream | None = None
        self._task: asyncio.Task[None] | None = None
        loop.call(self._open, plugin)

    def push(self, frame: rtc.AudioFrame) -> None:
        self.owed += 1
        self._loop.call(self._push, frame)

    def close(self) -> None:
        self._loop.call(self._close)

    def _open(self, plugin: vad.VAD) -> None:
        try:
            self._stream = plugin.stream()
        except Exception as error:  # a plugin may raise anything; the session's side must hear of it
            self.why, self.is_dead = type(error).__name__, True
            self.answers.put(0.0)  # wakes who waits for one
            return
        self._task = self._loop.spawn(self._follow(self._stream))

    def _push(self, frame: rtc.AudioFrame) -> None:
        if self._stream is not None and not self.is_dead:
            with contextlib.suppress(RuntimeError):  # it has ended; ``_follow`` says so
                self._stream.push_frame(frame)

    def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _follow(self, stream: vad.VADStream) -> None:
        has_numbers = False
        try:
            async for event in stream:
                if event.type == vad.VADEventType.INFERENCE_DONE:
                    has_numbers = True
                    self.answers.put(min(1.0, max(0.0, float(event.probability))))
                elif not has_numbers:  # a plugin that only says when speech begins and ends
                    self.answers.put(1.0 if event.type == vad.VADEventType.START_OF_SPEECH else 0.0)
            self.why = "without an error"
        except Exception as error:  # as above
            self.why = type(error).__name__
        finally:
            self.is_dead = True
            self.answers.put(0.0)  # as above
            await stream.aclose()


class _LoopThread:
    """A thread that runs an event loop, from now until ``end``."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="livekit-vad", daemon=True)
        self._thread.start()
        self._started.wait()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the stream with it
            self._loop.call_soon_threadsafe(function, *arguments)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """On the thread only."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def end(self) -> None:
        self.call(self._over.set)

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._started.set()
        await self._over.wait()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5.0)
