"""Responses and Chat Completions over HTTP: for every OpenAI-compatible server that has no socket mode.

Each turn sends its whole context. Needs the extra ``openai`` (httpx). Connections are kept alive between
turns; cancelling closes the one in use at once, which is how such servers are told to stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

import httpx

from openline.adapters.llm_openai import THINK_S, Endpoint, asked_of, error_of, event_of, refused
from openline.errors import LinkRejected, LinkUnavailable
from openline.ports import ModelEvent, ModelRequest
from openline.wire import responses_client as wire
from openline.wire.chat_client import ChatReader, chat_body
from openline.wire.items import JsonObject

ERROR_BYTES_MAX = 64 * 1024
LINE_BYTES_MAX = 64 * 1024 * 1024
"""One event: a completed response repeats its whole output."""
CONNECTIONS_MAX = 256


class HttpModel:
    """Port ``LanguageModel``. ``api``: which of the two is spoken. Loop-bound; shared by all sessions.

    ``connect_s``, ``stall_s``, ``think_s``: seconds for a connection, of silence within a reply, and while it thinks.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        api: Literal["responses", "chat"],
        *,
        connect_s: float = 10.0,
        stall_s: float = 60.0,
        think_s: float = THINK_S,
    ) -> None:
        self.name = f"{api}-http"
        self._endpoint = endpoint
        self._api = api
        self._stall_s, self._think_s = stall_s, think_s
        self._timeout = httpx.Timeout(stall_s, connect=connect_s, read=max(stall_s, think_s))
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
        # The environment's proxies and .netrc are not ours to read: settings say where the model is.
        self._client = httpx.AsyncClient(timeout=self._timeout, limits=limits, trust_env=False)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream one reply. Raises LinkRejected, LinkUnavailable. ``aclose`` closes the connection at once."""
        reasons = self._api == "responses" and any(item.reasoning for item in request.items)
        try:
            async with aclosing(self._once(request, reasons=reasons)) as events:
                async for event in events:
                    yield event
        except LinkRejected as error:
            if not reasons or error.cause != wire.UNREADABLE:
                raise
            # Refused before its first event: it is asked again without what it cannot read.
            async with aclosing(self._once(request, reasons=False)) as events:
                async for event in events:
                    yield event

    async def _once(self, request: ModelRequest, *, reasons: bool) -> AsyncGenerator[ModelEvent, None]:
        reader = wire.Reader() if self._api == "responses" else ChatReader(request.response_id)
        async with aclosing(self._events(self._body(request, reasons=reasons))) as events:
            while (event := await self._next(events, reader)) is not None:
                for piece in reader.feed(event) if event else _finish(reader):
                    if isinstance(piece, wire.Failed):
                        raise error_of(piece, self._endpoint)
                    yield event_of(piece)
        if not reader.is_over:
            raise LinkUnavailable(f"{self._endpoint.label}: the reply broke off before its end.")

    async def _next(
        self, events: AsyncGenerator[JsonObject, None], reader: wire.Reader | ChatReader
    ) -> JsonObject | None:
        limit_s = self._think_s if isinstance(reader, wire.Reader) and reader.is_thinking else self._stall_s
        try:
            async with asyncio.timeout(limit_s):
                return await anext(events, None)
        except TimeoutError:
            message = f"{self._endpoint.label} was silent for {limit_s:g} s in a response."
            raise LinkUnavailable(message, hint="Is it running?") from None

    async def _events(self, body: JsonObject) -> AsyncGenerator[JsonObject, None]:
        """Every event's JSON; at the end of the stream an empty object."""
        client, endpoint = self._client, self._endpoint
        if client is None:
            raise LinkUnavailable(f"{endpoint.label}: the model was not started.")
        path = "responses" if self._api == "responses" else "chat/completions"
        headers = {**endpoint.headers(), "Content-Type": "application/json", "Accept": "text/event-stream"}
        content = wire.encode(body)
        try:
            async with client.stream("POST", endpoint.at(path), content=content, headers=headers) as response:
                await self._check(response, path)
                async with aclosing(self._lines(response)) as lines:
                    async for line in lines:
                        if line == "[DONE]":
                            break
                        yield self._decode(line)
                yield {}
        except httpx.HTTPError as error:
            raise LinkUnavailable(
                f"{endpoint.label}: the request failed ({type(error).__name__}).", hint="Is it running?"
            ) from None

    def _body(self, request: ModelRequest, *, reasons: bool) -> JsonObject:
        asked, known = asked_of(request, self._endpoint), wire.entries(request.items, reasoning=reasons)
        if self._api == "chat":
            return chat_body(asked, known)
        return wire.body(asked, [*wire.readable(known), *wire.pending_outputs(known)], None, {"stream": True})

    async def _check(self, response: httpx.Response, path: str) -> None:
        if response.status_code != 200:
            raise await self._refusal(response, path)
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise LinkRejected(
                f"{self._endpoint.label}: expected text/event-stream; got '{kind[:40]}'.",
                hint="Is llm_url the base of an OpenAI-compatible API (often ending in /v1)?",
            )

    async def _refusal(self, response: httpx.Response, path: str) -> Exception:
        text = b""
        async for chunk in response.aiter_bytes():
            text += chunk
            if len(text) > ERROR_BYTES_MAX:
                break
        try:
            failed = wire.failure(wire.decode(text))
        except ValueError:
            failed = wire.Failed("")
        if not failed.code or failed.code == "unknown_path":
            return refused(response.status_code, self._endpoint, f"POST /{path}")
        return error_of(wire.Failed(failed.code, response.status_code, failed.kind), self._endpoint)

    async def _lines(self, response: httpx.Response) -> AsyncGenerator[str, None]:
        """The data of each server-sent event; several data lines of one event are joined."""
        data: list[str] = []
        size = 0
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
                size += len(line)
                if size > LINE_BYTES_MAX:
                    raise LinkUnavailable(f"{self._endpoint.label}: an event of over {LINE_BYTES_MAX} bytes.")
            elif not line and data:
                yield "\n".join(data)
                data, size = [], 0
        if data:
            yield "\n".join(data)

    def _decode(self, line: str) -> JsonObject:
        try:
            return wire.decode(line)
        except ValueError:
            message = f"{self._endpoint.label}: it sent an event that is no JSON object."
            raise LinkUnavailable(message) from None


def _finish(reader: wire.Reader | ChatReader) -> list[wire.Piece]:
    return reader.finish() if isinstance(reader, ChatReader) else []
