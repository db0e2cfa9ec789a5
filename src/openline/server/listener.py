"""One listening port for WebSocket and HTTP.

A connection starts with a small protocol that reads the request head (bounded in bytes and time), then
gives the transport away for good: to picows for a WebSocket handshake that the gateway's decision function
accepted, to uvicorn's HTTP protocol for everything else. Neither picows nor uvicorn promises the classes
used here (``WSProtocol``, ``HttpToolsProtocol``): both are pinned, and tests hold what we rely on.
TLS, where it is on, ends at the transport, before any of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket as sockets
import ssl as tls
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import aiofastnet
from starlette.types import ASGIApp

from openline.errors import ConfigError
from openline.server.handover import BoundedHttp, HttpSettings, WebSocketProtocol, feed
from openline.server.heartbeat import Heartbeat
from openline.server.problem import Reject, response_bytes
from openline.server.socket import ClientSocket, LateSends
from openline.server.upgrade import (
    HEAD_END,
    MAX_HEAD_BYTES,
    Accept,
    AcceptFunction,
    Decision,
    Head,
    canonical_head,
    read_head,
)

log = logging.getLogger("openline.server")

REFUSAL_TIMEOUT_S = 1.0
"""How long a connection above the limit may take to say anything, before it is closed without an answer."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Seconds and counts. ``head_timeout_s``: connect to complete head, TLS handshake apart.

    ``max_connections`` bounds all connections together; one more is answered 503 and closed.
    """

    head_timeout_s: float = 10.0
    tls_handshake_timeout_s: float = 10.0
    max_connections: int = 10_000
    backlog: int = 512
    ping_interval_s: float = 20.0
    dead_after_s: float = 60.0
    http: HttpSettings = field(default_factory=HttpSettings)


async def serve(
    app: ASGIApp,
    accept: AcceptFunction,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl: tls.SSLContext | None = None,
    settings: ListenerSettings | None = None,
) -> Listener:
    """Listen on ``host``:``port`` (0: any free one, the same for every address of the host).

    ``accept`` decides on each WebSocket handshake that is well formed; it may be a coroutine function.
    Everything else goes to ``app``. Raises ConfigError when the address cannot be bound. Works on asyncio
    and uvloop loops.
    """
    listener = Listener(app, accept, settings or ListenerSettings())
    await listener.open(host, port, ssl)
    return listener


def server_tls(cert: Path, key: Path) -> tls.SSLContext:
    """A server context (TLS 1.2 or newer) from PEM files. Raises ConfigError, naming the file that is wrong."""
    for name, path in (("tls-cert", cert), ("tls-key", key)):
        if not path.is_file():
            raise ConfigError(f"{name}: expected a PEM file, found none at '{path}'.")
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    context.minimum_version = tls.TLSVersion.TLSv1_2
    # Without ALPN some clients assume HTTP/2 on TLS; a WebSocket handshake needs 1.1.
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key)
    except (tls.SSLError, OSError) as error:
        raise ConfigError(
            f"tls-cert, tls-key: '{cert}' and '{key}' are not a PEM certificate and its key ({error.__class__.__name__})."
        ) from error
    return context


class Listener:
    """A bound port and its connections. Made by ``serve``."""

    def __init__(self, app: ASGIApp, accept: AcceptFunction, settings: ListenerSettings) -> None:
        self.settings = settings
        self.accept = accept
        self.heartbeat = Heartbeat(settings.ping_interval_s, settings.dead_after_s)
        self.late_sends = LateSends()
        self.http_state = settings.http.server_state()
        self.http_config = settings.http.config(app)
        self.port = 0
        self.refused_connections = 0
        """Connections turned away because ``max_connections`` was reached."""
        self._servers: list[asyncio.AbstractServer] = []
        self._transports: dict[asyncio.Transport, Connection | None] = {}
        """None: handed over, so its Connection is not kept."""
        self._websockets: set[asyncio.Transport] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closing = False

    @property
    def connections(self) -> int:
        """Open connections of every kind."""
        return len(self._transports)

    @property
    def websockets(self) -> int:
        return len(self._websockets)

    async def open(self, host: str, port: int, ssl: tls.SSLContext | None) -> None:
        for sock in _bind(host, port):
            self.port = sock.getsockname()[1]
            # aiofastnet is what picows' own server listens with: its transports save picows a copy.
            server = await aiofastnet.create_server(
                asyncio.get_running_loop(),
                lambda: Connection(self),
                sock=sock,
                backlog=self.settings.backlog,
                ssl=ssl,
                ssl_handshake_timeout=self.settings.tls_handshake_timeout_s if ssl is not None else None,
            )
            self._servers.append(server)

    def close(self) -> None:
        """Stop accepting. WebSockets and running requests go on; idle keep-alive connections are closed."""
        if self._is_closing:
            return
        self._is_closing = True
        for server in self._servers:
            server.close()
        for http in list(self.http_state.connections):
            http.shutdown()
        for connection in list(self._transports.values()):
            if connection is not None:
                connection.close_if_silent()

    async def wait_closed(self) -> None:
        """Return once ``close`` was called and the last connection and request have ended. Bound it, then ``abort``.

        Cancelling leaves the listener as it is.
        """
        for server in self._servers:
            await server.wait_closed()
        await self._idle.wait()
        while self.http_state.tasks:
            # A handler whose client is gone may still be closing what it reads from.
            await asyncio.wait(set(self.http_state.tasks))

    def abort(self) -> None:
        """Drop every connection at once, replies in the middle included."""
        self.close()
        for transport in list(self._transports):
            transport.abort()

    # -- the connections' side

    def admits(self) -> bool:
        return not self._is_closing and len(self._transports) < self.settings.max_connections

    def joined(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transports[transport] = connection
        self._idle.clear()

    def handed_over(self, transport: asyncio.Transport, *, is_websocket: bool) -> None:
        self._transports[transport] = None
        if is_websocket:
            self._websockets.add(transport)

    def left(self, transport: asyncio.Transport) -> None:
        self._websockets.discard(transport)
        self._transports.pop(transport, None)
        if not self._transports:
            self._idle.set()


class Connection(asyncio.Protocol):
    """A connection until it is known what it wants. Gives its transport away, or answers and closes."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._decision: asyncio.Task[None] | None = None
        self._is_settled = False
        self._is_overload = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: aiofastnet's and uvloop's transports have the methods, but not the base class.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        listener = self._listener
        loop = asyncio.get_running_loop()
        if not listener.admits():
            # Answered with the first bytes: closing with bytes unread would reset the line, answer included.
            listener.refused_connections += 1
            self._is_overload = True
            self._timer = loop.call_later(REFUSAL_TIMEOUT_S, self._too_slow)
            return
        listener.joined(transport, self)
        self._timer = loop.call_later(listener.settings.head_timeout_s, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._is_settled:
            return
        if self._is_overload:
            reason = "The gateway has reached its number of connections, or is closing."
            self._answer(Reject(503, "overloaded", reason, headers=(("Retry-After", "1"),)))
            return
        self._received += data
        if self._decision is not None:
            # A client may send its first frames behind the handshake; what is here already is kept.
            return
        end = self._received.find(HEAD_END)
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._received) > MAX_HEAD_BYTES):
            self._answer(
                Reject(431, "head_too_large", f"Expected a request head of at most {MAX_HEAD_BYTES} bytes.")
            )
        elif end >= 0:
            self._head_complete(end)
        elif not _may_be_http(self._received):
            self._answer(Reject(400, "not_http", "Expected an HTTP/1.1 request; TLS is off on this port."))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        if self._decision is not None:
            self._decision.cancel()
        if self._transport is not None:
            self._listener.left(self._transport)

    def close_if_silent(self) -> None:
        """On shutdown: a connection that has not asked for anything yet is not worth waiting for."""
        if not self._is_settled and not self._received and self._transport is not None:
            self._settle()
            self._transport.close()

    # -- inside

    def _settle(self) -> None:
        self._is_settled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_complete(self, end: int) -> None:
        assert self._transport is not None
        outcome = read_head(bytes(self._received[:end]), self._peer(), is_secure=self._is_secure())
        match outcome:
            case None:
                self._give_to_http()
            case Reject():
                self._answer(outcome)
            case Head():
                self._decide(outcome, end + len(HEAD_END))

    def _decide(self, head: Head, rest_at: int) -> None:
        try:
            result = self._listener.accept(head.request)
        except Exception as error:  # the edge: a broken decision must refuse, not hang
            self._decision_failed(error)
            return
        if inspect.isawaitable(result):
            assert self._transport is not None
            self._transport.pause_reading()
            self._decision = asyncio.ensure_future(self._await_decision(result, head, rest_at))
        else:
            self._apply(result, head, rest_at)

    async def _await_decision(self, result: Awaitable[Decision], head: Head, rest_at: int) -> None:
        try:
            decision = await result
        except Exception as error:  # the edge: a broken decision must refuse, not hang
            self._decision_failed(error)
            return
        if not self._is_settled and self._transport is not None:
            self._transport.resume_reading()
            self._apply(decision, head, rest_at)

    def _decision_failed(self, error: Exception) -> None:
        log.error("handshake: the decision failed with %s", type(error).__name__, exc_info=True)
        self._answer(Reject(500, "internal_error", "The gateway failed. Its log says why."))

    def _apply(self, decision: Decision, head: Head, rest_at: int) -> None:
        if isinstance(decision, Reject):
            self._answer(decision)
            return
        try:
            self._give_to_websocket(decision, head, rest_at)
        except Exception as error:  # the handler factory is the session layer's
            self._decision_failed(error)
            if self._transport is not None and not self._transport.is_closing():
                self._transport.abort()  # it failed after the hand-over: there is nobody to answer for it

    def _give_to_websocket(self, accepted: Accept, head: Head, rest_at: int) -> None:
        transport = self._transport
        assert transport is not None
        offered = head.request.subprotocols
        assert accepted.subprotocol is None or accepted.subprotocol in offered, "select only what was offered"
        client = ClientSocket(accepted.limits, self._listener.heartbeat, self._listener.late_sends)
        client.bind(accepted.handler(client))
        listener = self._listener  # Not by self: this connection's head and its decision are done with.
        protocol = WebSocketProtocol(client, accepted, lambda: listener.left(transport))
        self._settle()
        self._listener.handed_over(transport, is_websocket=True)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        feed(protocol, canonical_head(head.websocket_key) + bytes(self._received[rest_at:]))
        self._received = bytearray()

    def _give_to_http(self) -> None:
        transport = self._transport
        assert transport is not None
        listener = self._listener
        protocol = BoundedHttp(
            listener.http_config,
            listener.http_state,
            listener.settings.http,
            lambda: listener.left(transport),
        )
        self._settle()
        listener.handed_over(transport, is_websocket=False)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        received, self._received = bytes(self._received), bytearray()
        protocol.data_received(received)

    def _answer(self, reject: Reject) -> None:
        if self._is_settled:
            return
        self._settle()
        self._received = bytearray()
        assert self._transport is not None
        self._transport.write(response_bytes(reject))
        self._transport.close()
        # A peer that never reads would keep a closing transport for ever.
        transport = self._transport
        asyncio.get_running_loop().call_later(self._listener.settings.head_timeout_s, transport.abort)

    def _too_slow(self) -> None:
        if not self._received and self._transport is not None:
            # Browsers open spare connections and leave them silent: nothing was asked, nothing is answered.
            self._settle()
            self._transport.close()
            return
        seconds = self._listener.settings.head_timeout_s
        self._answer(Reject(408, "head_timeout", f"Expected the whole request head within {seconds:g} s."))

    def _peer(self) -> tuple[str, int]:
        assert self._transport is not None
        name = self._transport.get_extra_info("peername")
        return (str(name[0]), int(name[1])) if name else ("", 0)

    def _is_secure(self) -> bool:
        assert self._transport is not None
        return self._transport.get_extra_info("ssl_object") is not None


def _may_be_http(received: bytearray) -> bool:
    """A method starts with a capital; a leading blank line is allowed (RFC 9112 section 2.2)."""
    start = received.lstrip(b"\r\n")[:1]
    return not start or start.isupper()


def _bind(host: str, port: int) -> list[sockets.socket]:
    """One listening socket for each address of ``host``, all on the same port."""
    try:
        found = sockets.getaddrinfo(
            host or None, port, type=sockets.SOCK_STREAM, flags=sockets.AI_PASSIVE
        )  # a configured address, at start: it may block
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"host: expected an address or a name that resolves; got '{host}'.") from error
    bound: list[sockets.socket] = []
    errors: list[OSError] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        sock: sockets.socket | None = None
        with contextlib.ExitStack() as undo:
            try:
                sock = sockets.socket(family, kind, protocol)
                undo.callback(sock.close)
                sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
                if family == sockets.AF_INET6:
                    sock.setsockopt(sockets.IPPROTO_IPV6, sockets.IPV6_V6ONLY, 1)
                taken = bound[0].getsockname()[1] if bound else port
                sock.bind((address[0], taken, *address[2:]))
            except OSError as error:
                errors.append(error)
                continue
            undo.pop_all()
        sock.setblocking(False)
        bound.append(sock)
    if not bound:
        why = errors[0].strerror if errors else "no address"
        raise ConfigError(
            f"host, port: cannot listen on {host}:{port} ({why}).",
            hint="Choose another --port, or 0 for a free one.",
        )
    return bound
