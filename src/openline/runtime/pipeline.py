"""The pipeline link: speech in, voice activity, recognizer, language model, synthesizer, speech out.

A ``ModelLink`` made of ports, so that the session cannot tell it from a speech-to-speech model.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from openline.core.model import Item, SessionConfig
from openline.ports import (
    SPEECH_RATE,
    WIRE_RATE,
    LanguageModel,
    LinkSink,
    ModelLink,
    Recognizer,
    Resample,
    ResponseStart,
    Synthesizer,
    VoiceDetector,
)
from openline.runtime.ears import Ears
from openline.runtime.voice import Reply
from openline.types import ItemId, ResponseId, SessionId

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineParts:
    """What a pipeline is made of. Recognizer, model and synthesizer are shared by all sessions; the
    detector is lent per link, the resampler made per link. ``grammar``: if given, only these phrases
    are recognised."""

    recognizer: Recognizer
    model: LanguageModel
    synthesizer: Synthesizer
    take_detector: Callable[[], Awaitable[VoiceDetector]]
    return_detector: Callable[[VoiceDetector], None]
    make_resampler: Callable[[int, int], Resample]
    grammar: tuple[str, ...] = ()


class PipelineLink(ModelLink):
    """``close`` cancels what runs; afterwards the sink is not called again."""

    def __init__(self, session: SessionId, parts: PipelineParts) -> None:
        self._session = session
        self._parts = parts
        self._tasks: set[asyncio.Task[Any]] = set()
        self._replies: dict[ResponseId, asyncio.Task[None]] = {}
        self._ears: Ears | None = None
        self._sink: LinkSink | None = None
        self._detector: VoiceDetector | None = None

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        parts = self._parts
        self._sink = sink
        self._detector = await parts.take_detector()
        self._ears = Ears(
            sink,
            parts.recognizer,
            self._detector,
            parts.make_resampler(WIRE_RATE, SPEECH_RATE),
            grammar=parts.grammar,
            spawn=self._spawn,
        )
        self._ears.configure(config)
        sink.opened()

    async def close(self) -> None:
        if self._ears is not None:
            self._ears.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        if self._detector is not None:
            detector, self._detector = self._detector, None
            self._parts.return_detector(detector)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("pipeline task failed", exc_info=task.exception())

    # -- listening

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        if self._ears is not None:
            self._ears.append(pcm)

    def commit_audio(self, item_id: ItemId, start: int, end: int) -> None:
        if self._ears is not None:
            self._ears.commit(item_id, start, end)

    def clear_audio(self) -> None:
        if self._ears is not None:
            self._ears.clear()

    def recognize(self, item_id: ItemId, pcm: bytes) -> bool:
        if self._ears is None:
            return False
        pcm16k = self._parts.make_resampler(WIRE_RATE, SPEECH_RATE).convert(pcm)
        self._ears.recognize(item_id, pcm16k, 0, len(pcm) // 2)
        return True

    def update(self, config: SessionConfig) -> None:
        if self._ears is not None:
            self._ears.configure(config)

    def playing(self, is_playing: bool) -> None:
        if self._ears is not None:
            self._ears.playing(is_playing)

    # -- the conversation is given with each response: nothing to keep here

    def add_item(self, item: Item, previous: ItemId | None) -> None: ...

    def remove_item(self, item_id: ItemId) -> None: ...

    def truncate(self, item_id: ItemId, audio_end_ms: int, text: str) -> None: ...

    # -- speaking

    def start_response(self, start: ResponseStart) -> None:
        assert self._sink is not None, "open comes first"
        reply = Reply(start, self._sink, self._session, self._parts.model, self._parts.synthesizer)
        task = self._spawn(reply.run())
        self._replies[start.response_id] = task
        task.add_done_callback(lambda _: self._replies.pop(start.response_id, None))

    def cancel_response(self, response: ResponseId) -> None:
        task = self._replies.pop(response, None)
        if task is not None:
            task.cancel()


class PipelineFactory:
    """Makes pipeline links; the parts are started and stopped by whoever owns them."""

    def __init__(self, parts: PipelineParts) -> None:
        self._parts = parts

    def __call__(self, session: SessionId, config: SessionConfig) -> ModelLink:
        return PipelineLink(session, self._parts)
