"""Facts over HTTP as Server-Sent Events or newline-delimited JSON.

Pulled, never pushed: the next batch is asked for when the socket took the last one, so a slow reader holds
one batch and one write buffer, and the connection that stalls for good is dropped below (``handover``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Literal

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from openline.server.gateway_port import FeedLine
from openline.server.problem import Refusal, Reject

Form = Literal["sse", "ndjson"]
SSE_TYPE, NDJSON_TYPE = "text/event-stream", "application/x-ndjson"
COMMENT_INTERVAL_S = 15.0
"""A comment (SSE) or an empty line (NDJSON) after this long without a fact, so that proxies (60 s at nginx)
keep the line open and a reader that is gone is noticed."""
RETRY_MS = 1000
"""When a browser's EventSource comes back after a cut, with ``Last-Event-ID``."""
MAX_STREAMS = 512
"""Open streams of one gateway. Each holds a task, a batch and a write buffer: some 100 kB at worst."""


class Streams:
    """Makes stream responses and bounds how many are open."""

    def __init__(self, limit: int = MAX_STREAMS, comment_interval_s: float = COMMENT_INTERVAL_S) -> None:
        self.open = 0
        self.limit = limit
        self.comment_interval_s = comment_interval_s

    def admit(self) -> None:
        """Raises Refusal (503) when as many are open as may be. Call it before the source is opened."""
        if self.open >= self.limit:
            message = f"{self.limit} event streams are open, which is the limit."
            raise Refusal(Reject(503, "too_many_streams", message, headers=(("Retry-After", "5"),)))

    def response(self, source: AsyncIterator[Sequence[FeedLine]], form: Form) -> EventStream:
        """Stream ``source`` until it ends or the client goes; it is closed in every case."""
        return EventStream(self, source, form)


class EventStream(StreamingResponse):
    """One open stream."""

    def __init__(self, streams: Streams, source: AsyncIterator[Sequence[FeedLine]], form: Form) -> None:
        self._streams = streams
        self._source = source
        self._form = form
        self._pending: asyncio.Future[Sequence[FeedLine]] | None = None
        self._body = self._chunks()
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._body, media_type=SSE_TYPE if form == "sse" else NDJSON_TYPE, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._streams.open += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Here and not in the generator: there every await would be cancelled again, and the source
            # would be left to the garbage collector.
            self._streams.open -= 1
            await self._body.aclose()
            await self._close_source()

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        frame, comment = (_sse, b": alive\n\n") if self._form == "sse" else (_ndjson, b"\n")
        if self._form == "sse":
            yield b"retry: %d\n\n" % RETRY_MS
        while True:
            # Not wait_for: it would cancel the source each time the line is quiet.
            if self._pending is None:
                self._pending = asyncio.ensure_future(_next(self._source))
            done, _ = await asyncio.wait((self._pending,), timeout=self._streams.comment_interval_s)
            if not done:
                yield comment
                continue
            try:
                lines = self._pending.result()
            except StopAsyncIteration:
                return
            self._pending = None
            yield b"".join(frame(line) for line in lines)

    async def _close_source(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait((self._pending,))
            if not self._pending.cancelled():
                self._pending.exception()  # nobody is left to be told; this marks it as seen
        aclose = getattr(self._source, "aclose", None)
        if aclose is not None:
            await aclose()


async def _next(batches: AsyncIterator[Sequence[FeedLine]]) -> Sequence[FeedLine]:
    return await anext(batches)


def choose_form(accept: str) -> Form:
    """``text/event-stream`` asks for SSE, everything else gets NDJSON. Quality values are not weighed."""
    return "sse" if SSE_TYPE in accept.lower() else "ndjson"


def _sse(line: FeedLine) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (
        line.cursor.encode(),
        line.type.encode(),
        _one_line(line.body),
    )


def _ndjson(line: FeedLine) -> bytes:
    return _one_line(line.body) + b"\n"


def _one_line(body: bytes) -> bytes:
    # A raw line break in JSON can only be white space between tokens, and would end the event early.
    return body.replace(b"\r", b" ").replace(b"\n", b" ") if b"\n" in body or b"\r" in body else body
