"""A client of ``/v1/realtime``: one call over as many sockets as it takes. Public protocol only.

Opted in (``openline=1``): resume by session id, token and the last event id seen; playout reports; partials.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from openline.errors import ConfigError, OpenlineError

Event = dict[str, Any]
"""One server event, as JSON has it."""
HISTORY_MAX = 4_000
"""Events remembered for ``wait_for`` (audio deltas are not): an hour of talk."""
FRAME_MAX = 16 << 20
DEFAULT_URL = "http://127.0.0.1:8765"


class LineClosed(OpenlineError):
    """The socket is gone. ``status``: the WebSocket close code; 1006 when the line was cut."""

    code = "line_closed"

    def __init__(self, status: int, reason: str = "") -> None:
        super().__init__(f"the line was closed with {status} {reason}".strip() + ".")
        self.status = status


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is. ``url``: ``http(s)://host:port`` without a path; ``key``: API key or ""."""

    url: str = DEFAULT_URL
    key: str = ""

    @classmethod
    def of(cls, text: str, key: str = "") -> Address:
        """Takes http, https, ws and wss, with or without ``/v1`` at the end. Raises ConfigError."""
        parts = urlsplit(text if "://" in text else f"http://{text}")
        scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
        if scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--url: expected http(s)://host:port; got '{text}'.")
        return cls(f"{scheme}://{parts.netloc}", key)

    def realtime(self, query: dict[str, str]) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/v1/realtime?{urlencode(query)}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


class Call:
    """One session. ``connect`` again after a cut goes on where it stopped.

    ``on_event`` is called on the loop for each event, at once; ``wait_for`` waits for one that matches.
    ``session_id`` and ``token`` are known after the first ``connect``. One loop, one task may wait at a time
    or many; all are told of a close by LineClosed.
    """

    def __init__(
        self,
        address: Address,
        on_event: Callable[[Event], None] | None = None,
        *,
        session_id: str = "",
        token: str = "",
        role: str = "speaker",
    ) -> None:
        self.address = address
        self.session_id = session_id
        self.token = token
        self.role = role
        self.last_event_id = ""
        self.created: Event = {}
        self.is_open = False
        self.on_closed: Callable[[int], None] = lambda status: None
        self._on_event = on_event or (lambda event: None)
        self._transport: WSTransport | None = None
        self._seen: deque[tuple[int, Event]] = deque(maxlen=HISTORY_MAX)
        self._count = 0
        self._waiting: list[tuple[Callable[[Event], bool], asyncio.Future[Event]]] = []
        self._closed: tuple[int, str] | None = None

    async def connect(self, *, timeout_s: float = 10.0) -> Event:
        """Open the line; ``session.created``. With a session id and a token it resumes, after the last event seen.

        Raises LineClosed (refused, by its close code or HTTP status) and ConfigError (nobody listens there).
        """
        query = {"openline": "1"}
        if self.session_id:
            query["session_id"] = self.session_id
        if self.role != "speaker":
            query["role"] = self.role
        if self.token and self.last_event_id:
            query["after"] = self.last_event_id
        headers = dict(self.address.headers)
        if self.token:
            headers["Openline-Resume"] = self.token
        self._closed, mark = None, self.mark()
        try:
            await ws_connect(
                lambda: _Listener(self),
                self.address.realtime(query),
                ssl_context=ssl.create_default_context() if self.address.url.startswith("https") else None,
                extra_headers=headers,
                websocket_handshake_timeout=timeout_s,
                max_frame_size=FRAME_MAX,
            )
        except WSInvalidStatusError as error:
            raise _refused(error) from None
        except WSError as error:
            raise LineClosed(1006, f"(the handshake failed: {type(error).__name__})") from None
        except OSError as error:
            raise ConfigError(
                f"no gateway answers at {self.address.url} ({error.strerror or type(error).__name__}).",
                hint="Start one with 'openline serve', or pass --url.",
            ) from None
        first = await self.wait_for(
            lambda e: e["type"] in ("session.created", "error"), since=mark, timeout_s=timeout_s
        )
        if first["type"] == "error":
            raise LineClosed(4000, first["error"]["message"])
        self.created = first
        opening = first.get("openline", {})
        self.session_id = opening.get("session_id", first["session"]["id"])
        self.token = opening.get("token", self.token)
        return first

    def mark(self) -> int:
        """A place in the stream of events, for ``wait_for(since=…)``."""
        return self._count

    def seen(self, match: Callable[[Event], bool], *, since: int = 0) -> list[Event]:
        return [event for number, event in self._seen if number >= since and match(event)]

    async def wait_for(
        self, match: Callable[[Event], bool], *, since: int | None = None, timeout_s: float = 30.0
    ) -> Event:
        """The first event that matches, of those after ``since`` (None: from now on).

        Raises LineClosed when the socket goes first, TimeoutError.
        """
        if since is not None:
            for event in self.seen(match, since=since):
                return event
        if self._closed is not None:
            raise LineClosed(*self._closed)
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        waiter = (match, future)
        self._waiting.append(waiter)
        try:
            return await asyncio.wait_for(future, timeout_s)
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def send(self, kind: str, **values: object) -> None:
        """Send one client event; nothing once the line is closed (the caller learns that by LineClosed)."""
        if self.is_open and self._transport is not None:
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode({"type": kind, **values}))

    def send_audio(self, pcm: bytes) -> None:
        """PCM16 mono 24 kHz. msgspec writes bytes as base64, which is what the protocol wants."""
        self.send("input_audio_buffer.append", audio=pcm)

    def abort(self) -> None:
        """Cut the line: no close frame, as a lost network does."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        """Close with a handshake; returns when the socket is gone."""
        transport, self._transport = self._transport, None
        if transport is None or transport.is_disconnected:
            return
        transport.send_close(WSCloseCode.OK)
        try:
            async with asyncio.timeout(2):
                await transport.wait_disconnected()
        except TimeoutError:
            transport.disconnect(graceful=False)

    # -- the socket's side

    def opened(self, transport: WSTransport) -> None:
        self._transport, self.is_open = transport, True

    def arrived(self, payload: bytes) -> None:
        event: Event = msgspec.json.decode(payload)
        self.last_event_id = event.get("event_id", self.last_event_id)
        if event["type"] != "response.output_audio.delta":
            self._seen.append((self._count, event))
        self._count += 1
        self._on_event(event)
        for waiter in list(self._waiting):
            match, future = waiter
            if not future.done() and match(event):
                future.set_result(event)

    def gone(self, transport: WSTransport, status: int, reason: str) -> None:
        if self._transport is not None and transport is not self._transport:
            return
        self.is_open = False
        self._closed = (status, reason)
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(LineClosed(status, reason))
        self.on_closed(status)


def _refused(error: WSInvalidStatusError) -> OpenlineError:
    """What the gateway said instead of 101; its own words, when it sent any."""
    status = int(error.response.status) if error.response is not None else 0
    try:
        message = str(msgspec.json.decode(error.raw_body or b"")["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        message = f"the gateway answered {status} instead of opening the line."
    if status in (401, 403):
        return ConfigError(message, hint="Pass --key, or set OPENLINE_KEY.")
    return LineClosed(1006, f"({status}: {message.rstrip('.')})")


class _Listener(WSListener):
    def __init__(self, call: Call) -> None:
        self._call = call
        self._parts = bytearray()
        self._closed = (1006, "")

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._call.opened(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT and frame.fin:
            self._call.arrived(frame.get_payload_as_bytes())
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._parts += frame.get_payload_as_memoryview()
            if frame.fin:
                payload, self._parts = bytes(self._parts), bytearray()
                self._call.arrived(payload)
        elif frame.msg_type is WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self._closed = (
                int.from_bytes(payload[:2], "big") or 1005,
                payload[2:].decode("utf-8", "replace"),
            )
            if not transport.is_close_frame_sent:
                transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._call.gone(transport, *self._closed)
