"""A recording over HTTP, whole or one range of it (RFC 9110 section 14)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from openline.server.gateway_port import RecordingSource
from openline.server.problem import Refusal, Reject

CHUNK_BYTES = 64 * 1024
WAV = "audio/wav"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def choose_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of what is asked for; None for all of it.

    A header that is malformed or asks for several ranges is ignored, as it may be. Raises Refusal (416)
    for a range outside of the file.
    """
    match = _RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        wanted = int(match[2])
        first, last = max(0, size - wanted), size - 1
        is_outside = wanted == 0 or size == 0
    else:
        first = int(match[1])
        last = min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
        is_outside = first >= size
    if is_outside:
        message = f"Expected a range inside of the {size} bytes of the recording."
        raise Refusal(
            Reject(416, "range_not_satisfiable", message, headers=(("Content-Range", f"bytes */{size}"),))
        )
    return first, last


async def recording_response(request: Request, source: RecordingSource) -> Response:
    """Answers with ``source`` and closes it, whatever happens."""
    tag = f'"{source.etag}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
    try:
        known = [name.strip() for name in request.headers.get("if-none-match", "").split(",")]
        if tag in known:
            await source.close()
            return Response(status_code=304, headers=headers)
        if_range = request.headers.get("if-range")
        wanted = request.headers.get("range") if if_range in (None, tag) else None
        bounds = choose_range(wanted, source.size)
    except BaseException:
        await source.close()
        raise
    first, last = bounds if bounds is not None else (0, source.size - 1)
    headers["Content-Length"] = str(last - first + 1)
    if bounds is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{source.size}"
    return _RecordingStream(source, first, last, 206 if bounds is not None else 200, headers)


class _RecordingStream(StreamingResponse):
    def __init__(
        self, source: RecordingSource, first: int, last: int, status: int, headers: dict[str, str]
    ) -> None:
        self._source = source
        super().__init__(_chunks(source, first, last), status, headers, WAV)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.close()


async def _chunks(source: RecordingSource, first: int, last: int) -> AsyncGenerator[bytes, None]:
    position = first
    while position <= last:
        chunk = await source.read(position, min(CHUNK_BYTES, last + 1 - position))
        if not chunk:
            return  # cut short on disk: the client sees a body shorter than announced, which is the truth
        position += len(chunk)
        yield chunk
        # Neither a read from memory nor a send to a fast reader suspends; others want the loop too.
        await asyncio.sleep(0)
