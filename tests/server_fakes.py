"""What the server's tests share: a gateway in memory, a session layer that writes down what it is told, and
a client that speaks WebSocket byte by byte, so that it can also speak it wrong."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from openline.errors import ClientProtocolError, SessionEnded, SessionNotFound
from openline.ports import SessionRow
from openline.server.api import create_app
from openline.server.auth import AuthPolicy
from openline.server.gateway_port import FeedLine, Readiness
from openline.server.listener import Listener, ListenerSettings, serve
from openline.server.metrics import Metric, value_of
from openline.server.secrets import StoredSecret, find_secret
from openline.server.socket import ClientSocket
from openline.server.upgrade import Accept, AcceptFunction, SocketLimits
from openline.types import Epoch, Seq, SessionId

NOW_MS = 1_790_000_000_000


class MemoryValues:
    """The store's small values."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], tuple[bytes, int]] = {}

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None:
        self.stored[space, key] = (value, expires_ms)

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
        value, expires_ms = self.stored.get((space, key), (None, 0))
        return None if expires_ms and now_ms >= expires_ms else value


@dataclass
class FakeRecording:
    data: bytes
    etag: str = "v1"
    is_closed: bool = False

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    async def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeSession:
    row: SessionRow
    lines: list[FeedLine] = field(default_factory=list)
    recording: FakeRecording | None = None


class FakeGateway:
    """GatewayPort in memory. Facts are added with ``add_fact``; followers wake at once."""

    def __init__(self, auth: AuthPolicy | None = None) -> None:
        self.auth = auth or AuthPolicy()
        self.version = "0.0.test"
        self.values = MemoryValues()
        self.time_ms = NOW_MS
        self.found: dict[tuple[str, SessionId], FakeSession] = {}
        self.feed_lines: list[tuple[str, SessionId, FeedLine]] = []
        self.said: list[tuple[SessionId, str, bool]] = []
        self.not_ready: tuple[str, ...] = ()
        self.resume_tokens: dict[tuple[str, str], str] = {}
        self.open_iterators = 0
        self.batches_read = 0
        self._changed = asyncio.Condition()

    # -- set up

    def add_session(self, session: str, tenant: str = "default", status: str = "live") -> FakeSession:
        row = SessionRow(
            SessionId(session), tenant, Epoch(1), "node-a", Seq(0), status, NOW_MS + len(self.found), NOW_MS
        )
        made = FakeSession(row)
        self.found[tenant, SessionId(session)] = made
        return made

    def add_fact(self, session: str, type: str, body: bytes = b"{}", tenant: str = "default") -> None:
        lines = self.found[tenant, SessionId(session)].lines
        lines.append(FeedLine(str(len(lines) + 1), type, body))
        self.feed_lines.append(
            (tenant, SessionId(session), FeedLine(f"c{len(self.feed_lines) + 1:06d}", type, body))
        )

    async def notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # -- GatewayPort

    def now_ms(self) -> int:
        return self.time_ms

    def random_bytes(self, count: int) -> bytes:
        return bytes(range(count))

    def readiness(self) -> Readiness:
        return Readiness(not self.not_ready, self.not_ready)

    def metrics(self) -> Sequence[Metric]:
        return [value_of("openline_sessions", "gauge", "Sessions that are live.", len(self.found))]

    def realtime_session(self, session: bytes) -> bytes:
        if b"bad" in session:
            raise ClientProtocolError("Unknown parameter: 'session.bad'.", code="unknown_parameter")
        return b'{"type":"realtime","object":"realtime.session","id":"sess_1"}'

    async def client_secret(self, secret: str) -> StoredSecret | None:
        return await find_secret(self.values, secret, self.time_ms)

    async def resume_tenant(self, session_id: str, token: str) -> str | None:
        return self.resume_tokens.get((session_id, token))

    async def sessions(
        self, tenant: str, *, status: str | None, limit: int, before: str
    ) -> Sequence[SessionRow]:
        rows = sorted(
            (made.row for (owner, _), made in self.found.items() if owner == tenant),
            key=lambda row: -row.created_ms,
        )
        rows = [row for row in rows if status is None or row.status == status]
        names = [row.session for row in rows]
        start = names.index(SessionId(before)) + 1 if before in names else 0
        return rows[start : start + limit]

    async def session(self, tenant: str, session: SessionId) -> bytes:
        return b'{"id":"%b"}' % self._get(tenant, session).row.session.encode()

    async def facts(
        self, tenant: str, session: SessionId, *, after: Seq, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        made = self._get(tenant, session)
        return self._follow(lambda at: made.lines[at:], int(after), follow)

    async def feed(
        self, tenant: str, *, after: str, types: Sequence[str], session: SessionId | None, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        if after and not after.startswith("c"):
            raise ClientProtocolError("Expected a cursor of the feed.", code="invalid_cursor", param="after")

        def wanted(at: int) -> list[FeedLine]:
            return [
                line
                for owner, name, line in self.feed_lines[at:]
                if owner == tenant and session in (None, name) and (not types or line.type in types)
            ]

        return self._follow(wanted, int(after[1:] or 0) if after else 0, follow)

    async def _follow(
        self, read: Callable[[int], list[FeedLine]], at: int, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        self.open_iterators += 1
        try:
            while True:
                lines = read(at)[:100]
                if lines:
                    at = int(lines[-1].cursor.removeprefix("c"))
                    self.batches_read += 1
                    yield lines
                elif not follow:
                    return
                else:
                    async with self._changed:
                        await self._changed.wait()
        finally:
            self.open_iterators -= 1

    async def transcript(self, tenant: str, session: SessionId) -> bytes:
        self._get(tenant, session)
        return b'{"items":[]}'

    async def recording(self, tenant: str, session: SessionId) -> FakeRecording | None:
        return self._get(tenant, session).recording

    async def end_session(self, tenant: str, session: SessionId, reason: str) -> bytes:
        made = self._get(tenant, session)
        if made.row.status == "ended":
            raise SessionEnded(f"session {session} has ended.")
        return b'{"status":"ended","reason":"%b"}' % reason.encode()

    async def delete_session(self, tenant: str, session: SessionId) -> None:
        made = self._get(tenant, session)
        if made.row.status == "live":
            raise ClientProtocolError(f"Session '{session}' is in use.", code="session_in_use")
        del self.found[tenant, session]

    async def say(self, tenant: str, session: SessionId, text: str, *, interrupt: bool) -> bytes:
        self._get(tenant, session)
        self.said.append((session, text, interrupt))
        return b'{"accepted":true}'

    def _get(self, tenant: str, session: SessionId) -> FakeSession:
        made = self.found.get((tenant, session))
        if made is None:
            raise SessionNotFound(f"session {session} does not exist.")
        return made


Told = tuple[Any, ...]


class Recorder:
    """A session layer that writes down what it is told, and does what a test tells it."""

    def __init__(self, socket: ClientSocket) -> None:
        self.socket = socket
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.texts: list[bytes] = []
        self.on_message: Callable[[bytes], None] | None = None

    def on_open(self) -> None:
        self.told.put_nowait(("open",))

    def on_text(self, payload: bytes) -> None:
        self.texts.append(payload)
        if self.on_message is not None:
            self.on_message(payload)
        self.told.put_nowait(("text", payload))

    def on_binary(self, payload: bytes) -> None:
        self.told.put_nowait(("binary", payload))

    def on_writable(self, is_writable: bool) -> None:
        self.told.put_nowait(("writable", is_writable))

    def on_close(self, code: int, reason: str, clean: bool) -> None:
        self.told.put_nowait(("close", code, reason, clean))

    async def next(self, kind: str) -> Told:
        """The next thing of this kind; what comes before it is skipped."""
        while True:
            told = await self.told.get()
            if told[0] == kind:
                return told


class Sockets:
    """Accepts every handshake with a Recorder; ``next`` gives them in order."""

    def __init__(self, **limits: Any) -> None:
        self.limits = SocketLimits(**limits)
        self.opened: asyncio.Queue[Recorder] = asyncio.Queue()
        self.prepare: Callable[[Recorder], None] = lambda recorder: None

    def __call__(self, request: object) -> Accept:
        def handler(socket: ClientSocket) -> Recorder:
            recorder = Recorder(socket)
            self.prepare(recorder)
            self.opened.put_nowait(recorder)
            return recorder

        return Accept(handler, limits=self.limits)

    async def next(self) -> Recorder:
        return await self.opened.get()


@asynccontextmanager
async def listening(
    accept: AcceptFunction,
    gateway: FakeGateway | None = None,
    tls: ssl.SSLContext | None = None,
    app: Any = None,
    **settings: Any,
) -> AsyncIterator[Listener]:
    """A listener on a free loopback port; it must end when its connections have."""
    application = app or create_app(gateway or FakeGateway())
    listener = await serve(application, accept, "127.0.0.1", 0, tls, ListenerSettings(**settings))
    try:
        yield listener
    finally:
        listener.abort()
        async with asyncio.timeout(5):
            await listener.wait_closed()
        assert listener.connections == 0
        assert len(listener.heartbeat) == 0, "a socket that is gone must leave the heartbeat"


HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: " + base64.b64encode(b"0123456789abcdef") + b"\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One client frame."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size = len(payload)
    flag = 0x80 if masked else 0
    if size < 126:
        head = bytes([first, flag | size])
    elif size < 65536:
        head = bytes([first, flag | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, flag | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class RawClient:
    """A WebSocket client without manners: it answers nothing by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, first: bytes = HANDSHAKE) -> RawClient:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        client = cls(reader, writer)
        if first:
            writer.write(first)
        return client

    @classmethod
    async def connect(cls, port: int, behind: bytes = b"") -> RawClient:
        """Shake hands, with ``behind`` in the same write as the handshake."""
        client = await cls.open(port, HANDSHAKE + behind)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101"), head
        return client

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_frame(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(size)

    async def read_close(self) -> int:
        """The code of the next close frame; other frames are skipped."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big")

    async def rest(self) -> bytes:
        """Everything until the server closes; b"" when it resets the line."""
        try:
            return await self.reader.read(-1)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


LOOPS = ("asyncio", "uvloop")


def run_on(loop: str, main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on the loop named; skipped, with the reason, where that is not installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        try:
            import uvloop
        except ImportError:
            main.close()
            pytest.skip("uvloop is not installed (extra 'fast')")
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
