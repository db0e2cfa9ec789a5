"""Speech recognition by PocketSphinx, in worker processes of its own.

The decoder holds the GIL for up to 240 ms at a time and takes about 100 MB, so it runs in processes
(``stt_pocketsphinx_worker``) that a pool admits utterances to. Here is only the pool: no audio is decoded
and nothing waits on the event loop. All audio of an utterance is kept until it ends (60 s at most), so a
worker that dies or hangs in the middle costs time and not the utterance: it is replaced and the audio is
given once more to another.

Parts: ``PocketSphinxRecognizer`` (the port), ``_Stream`` (an utterance), ``_Seat`` (a worker's place).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence

from openline.adapters.stt_pocketsphinx_worker import (
    AUDIO,
    BYTES_PER_SECOND,
    CANCEL,
    FAILED,
    FINISH,
    PARTIAL,
    PROGRESS,
    READY,
    RELEASED,
    RESULT,
    START,
    UNUSABLE,
    unpack_result,
)
from openline.adapters.worker_process import WorkerProcess
from openline.errors import SpeechError
from openline.ports import Transcript

WORKER_MODULE = "openline.adapters.stt_pocketsphinx_worker"
MAX_AUDIO_S = 60
"""Longest utterance, in seconds (the port's bound; 1.9 MB)."""
LAG_BYTES = BYTES_PER_SECOND
"""A worker this far behind that also reports nothing is stuck: it reports four times a second while it decodes."""
TRIES = 2
"""Workers that one utterance may wear out. An utterance that kills two is not given a third."""
MAX_FIRST_STARTS = 3
"""``start`` gives up on a worker that died so often before it was ready even once."""
MAX_BACKOFF_S = 8.0
"""Longest pause between two starts of a worker that dies before it is ready."""
INSTALL = "Install the speech extra: pip install 'openline[speech]'."


class PocketSphinxRecognizer:
    """``ports.Recognizer`` for US English over PocketSphinx and its bundled en-us model.

    workers: processes, and so utterances at once; about 100 MB and 0.5 s of start-up each.
    niceness: 0..19, added to the workers' own, so that decoding yields to the event loop.
    partial_interval_ms: least time between two partials of an utterance.
    finish_timeout_s: how long ``finish`` may take in all, waiting for a worker included.
    stall_timeout_s: silence after which a worker that owes something is killed and replaced.
    max_waiting: utterances that may wait for a worker (up to 1.9 MB each); more are refused.

    A worker that dies is replaced at once, one that dies while starting again and again with growing
    pauses, without end: the pool never stays half dead. No worker outlives this process.
    """

    name = "pocketsphinx"

    def __init__(
        self,
        *,
        workers: int = 2,
        niceness: int = 5,
        partial_interval_ms: int = 100,
        finish_timeout_s: float = 20.0,
        stall_timeout_s: float = 5.0,
        start_timeout_s: float = 30.0,
        max_waiting: int = 64,
        worker_module: str = WORKER_MODULE,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        self.finish_timeout_s = finish_timeout_s
        self.stall_timeout_s = stall_timeout_s
        self._start_timeout_s = start_timeout_s
        self._max_waiting = max_waiting
        arguments = (str(niceness), str(partial_interval_ms))
        self._seats = [_Seat(self, worker_module, arguments) for _ in range(workers)]
        self._waiting: deque[_Stream] = deque()
        self._last_ident = 0
        self._is_open = False
        self._watchdog: asyncio.TimerHandle | None = None
        self.replaced_workers = 0
        """Workers that died or were killed as stuck, since ``start``."""

    async def start(self) -> None:
        """Start all workers and wait until each has its model (0.5 s on an idle core). Call once.

        ``stream`` may be called while this runs: the utterance waits. Raises SpeechError when the wheel
        is missing or a worker is not ready in time; nothing is left running then, nor after cancellation.
        """
        self._is_open = True
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await asyncio.gather(*(seat.start() for seat in self._seats))
        except TimeoutError:
            await self.close()
            raise SpeechError(
                f"expected {len(self._seats)} recognizer workers within {self._start_timeout_s:g} s; not all came.",
                hint="Use fewer workers or a less busy machine.",
            ) from None
        except BaseException:
            await self.close()
            raise
        self._watch()

    async def close(self) -> None:
        """End all workers; utterances that are open fail with SpeechError. Idempotent."""
        self._is_open = False
        if self._watchdog is not None:
            self._watchdog.cancel()
        closed = SpeechError(
            "the recognizer was closed before this utterance ended.", hint="Start a new one."
        )
        while self._waiting:
            self._waiting.popleft().settle(closed)
        await asyncio.gather(*(seat.close(closed) for seat in self._seats))

    def stream(
        self, on_partial: Callable[[str], None], *, grammar: Sequence[str] = (), language: str = "en"
    ) -> _Stream:
        """Begin an utterance; see the port. Its text is lower case, or with a grammar the phrase as it was given.

        Words of ``grammar`` must be in the en-us dictionary (135,000 words, no digits): else ``finish``
        raises SpeechError. Raises SpeechError itself for another language than English, when too many
        utterances wait, or when the recognizer is not open.
        """
        if not self._is_open:
            raise SpeechError("the recognizer is not running.", hint="Await start() first.")
        if language.split("-")[0].lower() != "en":
            raise SpeechError(
                f"expected language 'en', got '{language[:16]}': PocketSphinx's bundled model is US English.",
                hint="Use another recognizer for it.",
            )
        if len(self._waiting) >= self._max_waiting:
            raise SpeechError(
                f"{self._max_waiting} utterances already wait for a recognizer worker.",
                hint="Raise the number of workers or admit fewer calls.",
            )
        self._last_ident = (self._last_ident % 0xFFFF_FFFF) + 1
        stream = _Stream(self, self._last_ident, on_partial, "\n".join(grammar))
        self._waiting.append(stream)
        self.admit()
        return stream

    @property
    def free_slots(self) -> int:
        return sum(seat.is_free for seat in self._seats)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [seat.worker.pid for seat in self._seats if seat.worker is not None]

    # -- for streams and seats

    def admit(self) -> None:
        """Give waiting utterances to free workers: those whose audio is complete first, they are the shortest."""
        for seat in self._seats:
            if not self._waiting:
                return
            if seat.is_free:
                stream = next((one for one in self._waiting if one.is_finishing), self._waiting[0])
                self._waiting.remove(stream)
                seat.begin(stream)

    def drop_waiting(self, stream: _Stream) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(stream)

    def lost(self, stream: _Stream) -> None:
        """The worker of ``stream`` is gone: start it over elsewhere, or give it up."""
        self.replaced_workers += 1
        if stream.is_over:
            stream.settle(None)
        elif stream.tries < TRIES and self._is_open:
            self._waiting.appendleft(stream)
        else:
            stream.settle(
                SpeechError(f"{stream.tries} recognizer workers died on this utterance.", hint="Ask again.")
            )

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        for seat in self._seats:
            seat.check(loop.time())
        self._watchdog = loop.call_later(self.stall_timeout_s / 4, self._watch)


class _Stream:
    """One utterance; ``ports.RecognizerStream``. It waits, then sits on a seat, then is over."""

    def __init__(
        self, pool: PocketSphinxRecognizer, ident: int, on_partial: Callable[[str], None], grammar: str
    ) -> None:
        self.ident = ident
        self.grammar = grammar
        self.audio = bytearray()
        self.seat: _Seat | None = None
        self.tries = 0
        self.is_finishing = False
        self.is_over = False
        self._pool = pool
        self._on_partial = on_partial
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()
        self._outcome: Transcript | SpeechError | None = None

    def push(self, pcm16k: bytes) -> None:
        """See the port. Raises SpeechError for odd lengths, past 60 s, and after ``finish`` or ``cancel``.

        Audio of an utterance that has failed meanwhile is dropped: ``finish`` tells why.
        """
        if len(pcm16k) % 2:
            raise SpeechError(
                f"expected whole PCM16 samples, got {len(pcm16k)} bytes.", hint="Cut at even offsets."
            )
        if isinstance(self._outcome, SpeechError) and not self.is_finishing:
            return
        if self.is_finishing or self.is_over:
            raise SpeechError("this utterance has ended; audio came after it.", hint="Begin a new stream.")
        if len(self.audio) + len(pcm16k) > MAX_AUDIO_S * BYTES_PER_SECOND:
            raise SpeechError(
                f"an utterance holds at most {MAX_AUDIO_S} s of audio.", hint="Finish it and go on."
            )
        self.audio += pcm16k
        if self.seat is not None:
            self.seat.send(AUDIO, pcm16k)

    async def finish(self) -> Transcript:
        """See the port. ``confidence`` is None without a grammar; with one, below 0.5 means other speech. If cancelled, so is the utterance."""
        has_failed = isinstance(self._outcome, SpeechError)
        if self.is_finishing or (self.is_over and not has_failed):
            raise SpeechError("this utterance was already finished or cancelled.", hint="Begin a new stream.")
        self.is_finishing = True
        if self.seat is not None:
            self.seat.send(FINISH)
        try:
            async with asyncio.timeout(self._pool.finish_timeout_s):
                await self._settled.wait()
        except TimeoutError:
            self._give_up()
            raise SpeechError(
                f"no transcript within {self._pool.finish_timeout_s:g} s of the end of the utterance.",
                hint="All workers are busy or stuck; raise their number.",
            ) from None
        except asyncio.CancelledError:
            self._give_up()
            raise
        if isinstance(self._outcome, Transcript):
            return self._outcome
        raise self._outcome or SpeechError("this utterance was cancelled.", hint="Begin a new stream.")

    async def cancel(self) -> None:
        """See the port. Returns when the slot is free again: at once, or when the worker let go (under 0.3 s)."""
        self._give_up()
        await self._settled.wait()

    def settle(self, outcome: Transcript | SpeechError | None) -> None:
        """The utterance is over and holds no seat any more."""
        self.seat = None
        self.is_over = True
        self.audio.clear()
        self._outcome = outcome
        self._settled.set()

    def partial(self, text: str) -> None:
        # By call_soon: an error of the caller's must not tear down the worker's pipe.
        self._loop.call_soon(self._tell_partial, text)

    def _tell_partial(self, text: str) -> None:
        if not self.is_over:
            self._on_partial(text)

    def _give_up(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self.seat is not None:
            self.seat.send(CANCEL)
        else:
            self._pool.drop_waiting(self)
            self.settle(None)


class _Seat:
    """A worker's place in the pool: keeps one worker alive there and at most one utterance on it."""

    def __init__(self, pool: PocketSphinxRecognizer, module: str, arguments: Sequence[str]) -> None:
        self._pool = pool
        self._module = module
        self._arguments = arguments
        self.worker: WorkerProcess | None = None
        self._stream: _Stream | None = None
        self._is_ready = False
        self._is_closed = False
        self._failed_starts = 0
        self._sent_bytes = self._heard_bytes = 0
        self._alive_at = 0.0
        self._first_ready: asyncio.Future[None] | None = None
        self._spawning: asyncio.Task[None] | None = None

    @property
    def is_free(self) -> bool:
        return self._is_ready and self._stream is None

    async def start(self) -> None:
        """Return when the first worker is ready. Raises SpeechError if it says that it never will be."""
        self._first_ready = asyncio.get_running_loop().create_future()
        self._spawning = asyncio.create_task(self._spawn(0.0))
        await self._first_ready

    async def close(self, reason: SpeechError) -> None:
        self._is_closed = True
        if self._spawning is not None:
            self._spawning.cancel()
            await asyncio.gather(self._spawning, return_exceptions=True)
        if self._first_ready is not None:
            self._first_ready.cancel()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.settle(None if stream.is_over else reason)
        if self.worker is not None:
            # A worker that decodes reads no input; killing it loses nothing.
            await self.worker.close(grace_s=0.2)

    def begin(self, stream: _Stream) -> None:
        self._stream = stream
        stream.seat = self
        stream.tries += 1
        self._sent_bytes = self._heard_bytes = 0
        self.send(START, stream.grammar.encode())
        if stream.audio:
            self.send(AUDIO, bytes(stream.audio))
        if stream.is_finishing:
            self.send(FINISH)

    def send(self, kind: int, payload: bytes = b"") -> None:
        assert self.worker is not None
        assert self._stream is not None
        if kind == AUDIO:
            self._sent_bytes += len(payload)
        else:
            self._alive_at = asyncio.get_running_loop().time()
        self.worker.send(kind, self._stream.ident, payload)

    def check(self, now: float) -> None:
        """Kill the worker if it owes something and has been silent for too long."""
        stream = self._stream
        if stream is None or self.worker is None:
            return
        owes = stream.is_finishing or stream.is_over or self._sent_bytes - self._heard_bytes > LAG_BYTES
        if not owes:
            self._alive_at = now
        elif now - self._alive_at > self._pool.stall_timeout_s:
            self.worker.kill()

    async def _spawn(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        try:
            self.worker = await WorkerProcess.spawn(
                self._module, self._arguments, self._on_frame, self._on_exit
            )
        except SpeechError as error:
            self._start_failed(error)
            self._on_exit()

    def _on_frame(self, kind: int, ident: int, payload: bytes) -> None:
        self._alive_at = asyncio.get_running_loop().time()
        stream = self._stream
        if kind == READY:
            self._is_ready = True
            self._failed_starts = 0
            if self._first_ready is not None and not self._first_ready.done():
                self._first_ready.set_result(None)
            self._pool.admit()
        elif kind == UNUSABLE:
            reason = payload.decode(errors="replace")
            self._start_failed(SpeechError(f"PocketSphinx cannot be loaded: {reason}.", hint=INSTALL))
        elif stream is None or ident != stream.ident:
            return
        elif kind == PARTIAL:
            stream.partial(payload.decode())
        elif kind == PROGRESS:
            self._heard_bytes = int.from_bytes(payload, "little")
        elif kind in (RESULT, RELEASED, FAILED):
            self._stream = None
            stream.settle(None if stream.is_over else _outcome(kind, payload))
            self._pool.admit()

    def _on_exit(self) -> None:
        was_ready, self._is_ready = self._is_ready, False
        self.worker = None
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.seat = None
            self._pool.lost(stream)
        if self._is_closed:
            return
        pause_s = 0.0 if was_ready else min(MAX_BACKOFF_S, 0.25 * 2**self._failed_starts)
        self._failed_starts += 1
        if self._failed_starts >= MAX_FIRST_STARTS:
            self._start_failed(
                SpeechError("recognizer workers die while they start.", hint="Run openline doctor.")
            )
        self._spawning = asyncio.get_running_loop().create_task(self._spawn(pause_s))
        self._pool.admit()

    def _start_failed(self, error: SpeechError) -> None:
        if self._first_ready is not None and not self._first_ready.done():
            self._first_ready.set_exception(error)


def _outcome(kind: int, payload: bytes) -> Transcript | SpeechError | None:
    if kind == RELEASED:
        return None
    if kind == FAILED:
        # The worker's message names dictionary words of the grammar at most, never what was heard.
        return SpeechError(
            f"the recognizer refused the utterance: {payload.decode()}.", hint="Change the grammar."
        )
    return Transcript(*unpack_result(payload), PocketSphinxRecognizer.name)
