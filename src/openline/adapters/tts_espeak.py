"""Speech synthesis by eSpeak NG, in a process of its own (``tts_espeak_worker``).

The engine is GPL and its wheel (``espeakng-loader``) an extra; no line of it runs in this process. It is
fast enough (a sentence in a few milliseconds) that one process serves all sessions in turn, sentence by
sentence. Here is only the queue: requests out, chunks in.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from openline.adapters.tts_espeak_worker import (
    CANCEL,
    CHUNK,
    DONE,
    FAILED,
    MARK,
    READY,
    SPEAK,
    UNUSABLE,
    Request,
)
from openline.adapters.worker_process import WorkerProcess
from openline.errors import SpeechError
from openline.ports import Speech

WORKER_MODULE = "openline.adapters.tts_espeak_worker"
BASE_WORDS_A_MINUTE = 165
"""Speed 1.0. eSpeak's own default is 175; 165 was understood better by our recognizer and by us."""
RATE_RANGE = (80, 450)
"""What eSpeak NG takes, in words a minute."""
PIECE_CHARACTERS = 300
"""Longest text given to the engine at once: about 20 s, 1 MB of audio. Longer text goes in pieces, the next
when the one before it has been taken, so an unread reply holds no more than this."""
MAX_BACKOFF_S = 8.0
INSTALL = "Install the voice extra: pip install 'openline[voice-espeak]'."


@dataclass(frozen=True, slots=True)
class Voice:
    """An engine voice: language and variant, pitch and pitch range (0..100), factor on the speed."""

    engine_name: str
    pitch: int = 50
    range: int = 50
    tempo: float = 1.0


VOICES = {
    "marin": Voice("en-us+f3", 52, 55),
    "cedar": Voice("en-us+m3", 42, 50),
    "alloy": Voice("en-us+f2", 46, 45),
    "ash": Voice("en-us+m1", 40, 45),
    "ballad": Voice("en-gb-x-rp+m2", 48, 60, 0.95),
    "coral": Voice("en-us+f4", 56, 60),
    "echo": Voice("en-us+m4", 46, 50),
    "fable": Voice("en-gb-x-rp+f2", 50, 55),
    "nova": Voice("en-us+f5", 54, 55, 1.05),
    "onyx": Voice("en-us+m7", 32, 40, 0.95),
    "sage": Voice("en-us+f1", 48, 45, 0.95),
    "shimmer": Voice("en-us+f5", 58, 60),
    "verse": Voice("en-us+m2", 50, 60),
}
"""OpenAI's voice names, each with a voice of its own; they are stand-ins, not imitations."""
DEFAULT_VOICE = "marin"


class EspeakSynthesizer:
    """``ports.Synthesizer`` over eSpeak NG: English (US and British), PCM16 24 kHz, chunks of 60 ms.

    The engine process is started by ``start``, started again when it dies, and never outlives this one.
    A sentence whose engine dies before its first chunk is tried once more; after that it fails.
    """

    name = "espeak"

    def __init__(self, *, start_timeout_s: float = 20.0, worker_module: str = WORKER_MODULE) -> None:
        self._start_timeout_s = start_timeout_s
        self._module = worker_module
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._utterances: dict[int, _Utterance] = {}
        self._last_ident = 0
        self._failed_starts = 0
        self._is_open = False

    async def start(self) -> None:
        """Start the engine and wait until it is ready (about 0.2 s). Call once.

        Raises SpeechError when the wheel is missing or the engine does not come; nothing is left running.
        """
        self._is_open = True
        self._begin_start(0.0)
        try:
            await self._engine()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the engine; sentences that are being spoken fail with SpeechError. Idempotent."""
        self._is_open = False
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._ready is not None:
            self._ready.cancel()
        for utterance in self._utterances.values():
            utterance.put(SpeechError("the synthesizer was closed.", hint="Start it again."))
        if self._worker is not None:
            await self._worker.close(grace_s=0.2)

    @property
    def worker_pids(self) -> list[int]:
        """Process id of the engine, if it runs now."""
        return [self._worker.pid] if self._worker is not None else []

    async def speak(self, text: str, *, voice: str = "", speed: float = 1.0) -> AsyncGenerator[Speech, None]:
        """See the port. ``voice``: a key of ``VOICES``; any other name gets the default voice.

        ``speed`` 0.25–4.0 (held to 80–450 words a minute). Text without a letter or digit yields nothing.
        The last chunk ends with the pause of the sentence and, like all others, holds whole 20 ms frames.
        """
        start = 0
        for piece in pieces(text):
            if any(character.isalnum() for character in piece):
                async with aclosing(self._speak_piece(piece, _request(piece, voice, speed))) as chunks:
                    async for speech in chunks:
                        yield Speech(speech.pcm, start + speech.text_end)
            start += len(piece)

    async def _speak_piece(self, text: str, request: Request) -> AsyncGenerator[Speech, None]:
        for is_last_try in (False, True):
            has_spoken = False
            try:
                async with aclosing(self._synthesize(request)) as chunks:
                    async for speech in chunks:
                        has_spoken = True
                        yield speech
            except _EngineDied:
                if has_spoken or is_last_try:
                    raise SpeechError(
                        "the synthesizer's engine died.", hint="Say the sentence again."
                    ) from None
                continue
            if not has_spoken:
                raise SpeechError(
                    f"the synthesizer made no audio of {len(text)} characters.", hint="Use text in English."
                )
            return

    async def _synthesize(self, request: Request) -> AsyncGenerator[Speech, None]:
        worker = await self._engine()
        self._last_ident = (self._last_ident % 0xFFFF_FFFF) + 1
        ident = self._last_ident
        utterance = self._utterances[ident] = _Utterance()
        is_done = False
        try:
            worker.send(SPEAK, ident, request.pack())
            while (speech := await utterance.next()) is not None:
                yield speech
            is_done = True
        finally:
            del self._utterances[ident]
            if not is_done:
                # Chunks that are still on their way carry this ident and are dropped on arrival.
                worker.send(CANCEL, ident)

    async def _engine(self) -> WorkerProcess:
        """The running engine; waits for one that is being started."""
        if not self._is_open or self._ready is None:
            raise SpeechError("the synthesizer is not running.", hint="Await start() first.")
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await asyncio.shield(self._ready)
        except TimeoutError:
            raise SpeechError(
                f"the synthesizer's engine did not start within {self._start_timeout_s:g} s.",
                hint="Run openline doctor.",
            ) from None
        if self._worker is None:
            raise _EngineDied
        return self._worker

    def _begin_start(self, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        # Nobody may be waiting for it when it fails; that is no error of the loop's.
        self._ready.add_done_callback(lambda ready: ready.cancelled() or ready.exception())
        self._starting = loop.create_task(self._start_engine(pause_s))

    async def _start_engine(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        try:
            self._worker = await WorkerProcess.spawn(self._module, (), self._on_frame, self._on_exit)
        except SpeechError as error:
            self._fail_start(error)
            self._on_exit()

    def _on_frame(self, kind: int, ident: int, payload: bytes) -> None:
        if kind == READY:
            self._failed_starts = 0
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
            return
        if kind == UNUSABLE:
            reason = payload.decode(errors="replace")
            self._fail_start(SpeechError(f"eSpeak NG cannot be loaded: {reason}.", hint=INSTALL))
            return
        utterance = self._utterances.get(ident)
        if utterance is None:
            return
        if kind == CHUNK:
            (text_end,) = MARK.unpack_from(payload)
            utterance.put(Speech(payload[MARK.size :], text_end))
        elif kind == DONE:
            utterance.put(None)
        elif kind == FAILED:
            reason = payload.decode(errors="replace")
            utterance.put(SpeechError(f"the synthesizer failed: {reason}.", hint="Use another voice."))

    def _on_exit(self) -> None:
        self._worker = None
        for utterance in self._utterances.values():
            utterance.put(_EngineDied())
        if not self._is_open:
            return
        pause_s = 0.0 if self._failed_starts == 0 else min(MAX_BACKOFF_S, 0.25 * 2**self._failed_starts)
        self._failed_starts += 1
        if self._failed_starts > 2:
            self._fail_start(
                SpeechError("the synthesizer's engine dies at once.", hint="Run openline doctor.")
            )
        if self._ready is None or self._ready.done():
            self._begin_start(pause_s)
        else:
            # Those who wait for the engine go on waiting for the next one.
            self._starting = asyncio.get_running_loop().create_task(self._start_engine(pause_s))

    def _fail_start(self, error: SpeechError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)


class _EngineDied(Exception):
    """The engine's process is gone; never leaves this module."""


class _Utterance:
    """What has come for one sentence and was not yet taken; bounded by the length of a piece."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Speech | Exception | None] = asyncio.Queue()

    def put(self, item: Speech | Exception | None) -> None:
        self._queue.put_nowait(item)

    async def next(self) -> Speech | None:
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item


def pieces(text: str) -> list[str]:
    """``text`` cut behind clause marks or spaces into parts of at most 300 characters; joined they are ``text``."""
    parts = []
    while len(text) > PIECE_CHARACTERS:
        head = text[:PIECE_CHARACTERS]
        borders = [match.end() for match in re.finditer(r"[.!?;:,]\s+", head)] or [head.rfind(" ") + 1]
        cut = borders[-1] or PIECE_CHARACTERS
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text]


def _request(text: str, voice: str, speed: float) -> Request:
    chosen = VOICES.get(voice.lower(), VOICES[DEFAULT_VOICE])
    rate = BASE_WORDS_A_MINUTE * chosen.tempo * min(4.0, max(0.25, speed))
    low, high = RATE_RANGE
    # A NUL would end the text for the engine and the voice for our own packing; a lone surrogate (a model cut
    # a character in half) has no encoding. One character for one keeps the positions of the marks.
    clean = text.replace("\0", " ").encode(errors="replace").decode()
    return Request(int(min(high, max(low, rate))), chosen.pitch, chosen.range, chosen.engine_name, clean)
