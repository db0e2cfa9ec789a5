"""``stt.STT`` of LiveKit Agents as a recognizer.

A plugin that streams listens along and gives partial texts; one that does not is given the whole utterance when it is
over. The plugin's own settings count: a grammar is not passed on (theirs have none), and a language only where it is
not the port's default. Two or more final pieces of one utterance are joined by a blank.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from livekit import rtc
from livekit.agents import stt

from openline.adapters.livekit_plugins.plugin import Surroundings, label_of, once, speech_error
from openline.errors import ConfigError, SpeechError
from openline.ports import SPEECH_RATE, Recognizer, RecognizerStream, Transcript

AUDIO_MAX_BYTES = 60 * SPEECH_RATE * 2
"""The port's bound on one utterance."""
PARTIAL_EVERY_S = 0.1
LANGUAGE = "en"
"""The port's default, which stands for "nobody has said"."""


class PluginRecognizer(Recognizer):
    """``slots``: utterances at once; others wait with their audio. The plugin is closed with this.

    ``timeout_s``: from the end of an utterance to its text. ``linger_s``: how long a streaming plugin that has given
    a final text may keep its stream open before that text is taken. Raises ConfigError for what is no ``stt.STT``.
    """

    def __init__(
        self, plugin: stt.STT[Any], *, slots: int = 32, timeout_s: float = 15.0, linger_s: float = 0.5
    ) -> None:
        self.label = label_of("recognizer", plugin, stt.STT, "hears")
        if isinstance(plugin, stt.StreamAdapter):
            raise ConfigError(
                "hears: expected the recognizer itself; got a StreamAdapter around it.",
                hint="The pipeline cuts utterances already: pass what the adapter wraps.",
            )
        self.name: str = plugin.label
        self.plugin = plugin
        self.around = Surroundings()
        self.timeout_s, self.linger_s = timeout_s, linger_s
        self.gate = asyncio.Semaphore(slots)
        self.running: set[_Utterance] = set()
        self._slots = slots

    async def start(self) -> None:
        await self.around.open()

    async def close(self) -> None:
        for utterance in list(self.running):
            await utterance.cancel()
        await self.around.close(self.plugin.aclose)

    def stream(
        self, on_partial: Callable[[str], None], *, grammar: Sequence[str] = (), language: str = LANGUAGE
    ) -> RecognizerStream:
        if not self.around.is_open:
            raise SpeechError(f"{self.label}: not running.", hint="Await start() first.")
        kind = _Live if self.plugin.capabilities.streaming else _Whole
        utterance = kind(self, on_partial, {} if language == LANGUAGE else {"language": language})
        self.running.add(utterance)
        return utterance

    @property
    def free_slots(self) -> int:
        return max(0, self._slots - len(self.running))


class _Utterance(RecognizerStream):
    """What both kinds share: the port's rules. ``_text`` runs in a task of its own, so that ``cancel`` ends it."""

    def __init__(
        self, owner: PluginRecognizer, on_partial: Callable[[str], None], options: dict[str, str]
    ) -> None:
        self._owner = owner
        self._on_partial = on_partial
        self._options = options
        self._size = 0
        self._is_over = False
        self._task: asyncio.Task[Transcript] | None = None

    def push(self, pcm16k: bytes) -> None:
        if self._is_over:
            raise SpeechError(f"{self._owner.label}: the utterance is over.")
        if len(pcm16k) % 2 or self._size + len(pcm16k) > AUDIO_MAX_BYTES:
            raise SpeechError(f"{self._owner.label}: expected whole samples, and at most 60 s of them.")
        if pcm16k:
            self._size += len(pcm16k)
            self._take(_frame(pcm16k))

    async def finish(self) -> Transcript:
        if self._is_over:
            raise SpeechError(f"{self._owner.label}: the utterance is over.")
        self._is_over = True
        try:
            if not self._size:
                return Transcript("", None, self._owner.name)
            self._end()
            self._task = self._task or asyncio.create_task(self._text())
            return await self._task
        except SpeechError:
            raise
        except Exception as error:
            raise speech_error(self._owner.label, error) from None
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        self._is_over = True
        self._owner.running.discard(self)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # seen; ``finish`` has told it, or nobody asks any more

    def _take(self, frame: rtc.AudioFrame) -> None: ...

    def _end(self) -> None: ...

    async def _text(self) -> Transcript:
        raise NotImplementedError


class _Whole(_Utterance):
    """For plugins that do not stream."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._frames: list[rtc.AudioFrame] = []

    def _take(self, frame: rtc.AudioFrame) -> None:
        self._frames.append(frame)

    async def _text(self) -> Transcript:
        owner = self._owner
        async with owner.gate, asyncio.timeout(owner.timeout_s):
            work = owner.plugin.recognize(self._frames, conn_options=once(owner.timeout_s), **self._options)
            event = await owner.around.run(work)
        best = event.alternatives[:1]
        return Transcript(" ".join(found.text.strip() for found in best), _confidence(best), owner.name)


class _Live(_Utterance):
    """For plugins that listen along. The stream opens when a slot is free; audio waits until then."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._waiting: list[rtc.AudioFrame] = []
        self._stream: stt.RecognizeStream | None = None
        self._deadline = asyncio.timeout(None)
        self._finals: list[stt.SpeechData] = []
        self._interim = ""
        self._said_at = float("-inf")
        self._task = asyncio.create_task(self._text())

    def _take(self, frame: rtc.AudioFrame) -> None:
        if self._task is not None and self._task.done() and (error := self._task.exception()) is not None:
            assert isinstance(error, Exception)
            raise (
                error if isinstance(error, SpeechError) else speech_error(self._owner.label, error)
            ) from None
        if self._stream is None:
            self._waiting.append(frame)
            return
        with contextlib.suppress(RuntimeError):  # it has just ended; the next push, or the end, says how
            self._stream.push_frame(frame)

    def _end(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already; its task says how
                self._stream.end_input()
            self._give_time()

    async def _text(self) -> Transcript:
        owner = self._owner
        async with owner.gate:
            stream = owner.around.call(
                owner.plugin.stream, conn_options=once(owner.timeout_s), **self._options
            )
            try:
                self._stream = stream
                for frame in self._waiting:
                    stream.push_frame(frame)
                self._waiting.clear()
                await self._listen(stream)
            finally:
                await stream.aclose()
        text = " ".join(found.text.strip() for found in self._finals if found.text.strip())
        return Transcript(text, _confidence(self._finals), owner.name)

    async def _listen(self, stream: stt.RecognizeStream) -> None:
        """Until the plugin ends its stream, or is given up on. Some keep theirs open after the last text."""
        try:
            async with self._deadline:
                if self._is_over:
                    self._end()
                async for event in stream:
                    self._hear(event)
            if not self._is_over:
                raise SpeechError(f"{self._owner.label}: its stream ended before the utterance did.")
        except TimeoutError:
            if not (self._deadline.expired() and self._is_complete):
                raise

    def _hear(self, event: stt.SpeechEvent) -> None:
        best = event.alternatives[0] if event.alternatives else None
        if best is not None and event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
            self._finals.append(best)
            self._interim = ""
        elif best is not None:
            self._interim = best.text.strip()
        if self._is_over:
            self._give_time()
        now = asyncio.get_running_loop().time()
        if best is not None and now - self._said_at >= PARTIAL_EVERY_S:
            self._said_at = now
            self._on_partial(
                " ".join([*(found.text.strip() for found in self._finals), self._interim]).strip()
            )

    @property
    def _is_complete(self) -> bool:
        return bool(self._finals) and not self._interim

    def _give_time(self) -> None:
        wait_s = self._owner.linger_s if self._is_complete else self._owner.timeout_s
        self._deadline.reschedule(asyncio.get_running_loop().time() + wait_s)


def _frame(pcm16k: bytes) -> rtc.AudioFrame:
    return rtc.AudioFrame(pcm16k, SPEECH_RATE, 1, len(pcm16k) // 2)


def _confidence(found: Sequence[stt.SpeechData]) -> float | None:
    """The least sure piece counts. 0.0 is what plugins leave that have none."""
    least = min((piece.confidence for piece in found), default=0.0)
    return min(1.0, least) if least > 0 else None
