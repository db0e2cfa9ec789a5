"""The speaking half of the pipeline: language model, sentences, synthesizer. One ``Reply`` per response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from openline.core.model import Usage
from openline.errors import OpenlineError, for_log
from openline.ports import (
    LanguageModel,
    LinkSink,
    ModelDone,
    ModelEvent,
    ModelRequest,
    RefusalDelta,
    ResponseStart,
    Synthesizer,
    TextDelta,
)
from openline.runtime.context import within
from openline.runtime.fold import Fold
from openline.runtime.sentences import Sentences
from openline.types import ResponseId, SessionId

log = logging.getLogger(__name__)

AHEAD_MS = 2_000
"""Synthesized audio that may wait for release: more only costs memory, the voice is far faster than speech."""
SENTENCES_MAX = 64
"""Sentences that may wait for the voice; the language model is held back beyond that."""


class Reply:
    """Makes one response. ``run`` ends with ``response_finished``, or silently when cancelled."""

    def __init__(
        self,
        start: ResponseStart,
        sink: LinkSink,
        session: SessionId,
        model: LanguageModel,
        voice: Synthesizer,
    ) -> None:
        self._start = start
        self._sink = sink
        self._session = session
        self._model = model
        self._voice = voice
        self._response: ResponseId = start.response_id
        self._is_spoken = (start.request.modality or start.config.modality) == "audio"
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue(SENTENCES_MAX)
        self._cutter = Sentences()
        self._fold = Fold(self._response, sink, is_spoken=self._is_spoken)
        self._done = ModelDone(Usage())

    async def run(self) -> None:
        reason = "completed"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._think())
                if self._is_spoken:
                    group.create_task(self._speak())
            reason = self._done.reason
        except ExceptionGroup as failures:
            error = next((e for e in failures.exceptions if isinstance(e, OpenlineError)), None)
            if error is None:
                log.exception("reply failed", exc_info=failures)
            else:
                log.warning("reply of session %s failed: %s", self._session, for_log(error))
            reason = f"failed:{error.code if error else 'internal_error'}"
        self._sink.response_finished(self._response, self._done.usage, reason)

    # -- the language model

    async def _think(self) -> None:
        async with aclosing(self._events()) as events:
            async for event in events:
                await self._follow(event)
        if self._is_spoken:
            for piece in self._cutter.flush():
                await self._sentences.put(piece)
            await self._sentences.put(None)
        else:
            self._fold.end_message()

    async def _events(self) -> AsyncGenerator[ModelEvent, None]:
        start = self._start
        request, config = start.request, start.config
        if request.verbatim is not None:
            yield TextDelta(request.verbatim)
            yield ModelDone()
            return
        asked = ModelRequest(
            self._session,
            self._response,
            config.instructions if request.instructions is None else request.instructions,
            within(start.items, config.context_limit, config.context_retained),
            config.tools if request.tools is None else request.tools,
            config.tool_choice if request.tool_choice is None else request.tool_choice,
            config.parallel_tool_calls
            if request.parallel_tool_calls is None
            else request.parallel_tool_calls,
            request.max_output_tokens or config.max_output_tokens,
            config.model,
            request.text_format,
            request.model_options,
        )
        async with aclosing(self._model.generate(asked)) as events:
            async for event in events:
                yield event

    async def _follow(self, event: ModelEvent) -> None:
        self._fold.follow(event)
        match event:
            case TextDelta(text) | RefusalDelta(text) if self._is_spoken:
                for piece in self._cutter.push(text):
                    await self._sentences.put(piece)
            case ModelDone():
                self._done = event
            case _:
                pass

    # -- the voice

    async def _speak(self) -> None:
        offset = 0
        while (piece := await self._sentences.get()) is not None:
            assert self._fold.message is not None
            self._sink.text_delta(self._response, self._fold.message, piece)
            if piece.strip():
                await self._synthesize(piece, offset)
            offset += len(piece)
        self._fold.end_message()

    async def _synthesize(self, piece: str, offset: int) -> None:
        assert self._fold.message is not None
        request, config = self._start.request, self._start.config
        voice = request.voice or config.voice
        # A piece begins with the blank that ended the last one; the mark counts from the piece's start.
        text = piece.strip()
        lead = len(piece) - len(piece.lstrip())
        async with aclosing(self._voice.speak(text, voice=voice, speed=config.speed)) as chunks:
            async for chunk in chunks:
                end = offset + lead + chunk.text_end
                self._sink.audio_delta(self._response, self._fold.message, chunk.pcm, end)
                while (ahead := self._sink.buffered_ms() - AHEAD_MS) > 0:  # noqa: ASYNC110 - the wait is known, there is no event
                    await asyncio.sleep(ahead / 1000)
