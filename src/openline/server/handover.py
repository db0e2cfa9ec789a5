"""The two protocols that a connection is handed to, each with the bounds that its library leaves open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from picows import WSAutoPingStrategy, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.api import WSProtocol  # type: ignore[attr-defined]  # not public: pinned, and held by tests
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from openline.server.problem import Reject, response_bytes
from openline.server.socket import ClientSocket
from openline.server.upgrade import MAX_HEAD_BYTES, Accept

# An adapter, not a logger: picows would make a child logger for each connection.
_picows_log = logging.LoggerAdapter(logging.getLogger("openline.server.picows"), {})
logging.getLogger("openline.server.picows").setLevel(logging.CRITICAL)  # it logs what we report ourselves


_picows_buffer_updated, _picows_get_buffer = WSProtocol.buffer_updated, WSProtocol.get_buffer
"""Looked up once: ``super()`` costs a sixth of what picows does with a frame, 50 times a second and session."""


PICOWS_BUFFER_MIN, PICOWS_RESERVE = 2048, 256
"""Of picows' read buffer, bytes: its least size, and what of it is never offered. Pinned, and held by a test."""


class WebSocketProtocol(WSProtocol):  # type: ignore[misc]  # picows ships no type for it
    """picows' protocol for one accepted socket; counts every byte for the heartbeat and reports its end."""

    __slots__ = ("_client", "_on_lost", "_size")

    def __init__(self, client: ClientSocket, accepted: Accept, on_lost: Callable[[], None]) -> None:
        self._client = client
        self._on_lost = on_lost
        self._size = max(accepted.limits.read_buffer_bytes, PICOWS_BUFFER_MIN) - PICOWS_RESERVE
        super().__init__(
            None,  # host and port: client side only
            None,  # path: client side only
            False,  # is_client_side
            lambda _request: WSUpgradeResponseWithListener(_switching(accepted), client),
            _picows_log,
            True,  # disconnect_on_exception
            None,  # handshake timeout: the whole handshake is fed to it at once
            False,  # auto-ping: one heartbeat serves all sockets
            20,
            20,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # auto-pong: ClientSocket answers, and bounds what it owes
            accepted.limits.max_frame_bytes,
            None,  # extra headers: client side only
            accepted.limits.read_buffer_bytes,
        )

    def get_buffer(self, size_hint: int) -> memoryview:
        """The free part of picows' buffer, but not all of it.

        picows doubles the buffer for good when a read fills more than nine tenths of it, which any backlog
        does: after one stall every connection would keep 32 KiB. Only a frame that does not fit may do that.
        """
        free: memoryview = _picows_get_buffer(self, size_hint)
        room = len(free)
        while room > self._size:
            self._size *= 2
        spare = room - self._size // 10
        # One byte less than all, so that what picows offers next shows that the buffer has grown.
        return free[: spare if spare >= PICOWS_RESERVE else room - 1]

    def buffer_updated(self, nbytes: int) -> None:
        client = self._client
        client.received_bytes += nbytes
        if client.is_broken:
            return  # picows is not told of these bytes, so the next ones overwrite them
        _picows_buffer_updated(self, nbytes)
        if self.transport.is_close_frame_sent:
            client.protocol_failed(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            super().connection_lost(exc)
        finally:
            self._on_lost()


def feed(protocol: WebSocketProtocol, data: bytes) -> None:
    """Replay bytes that were read before the hand-over, as a transport would deliver them."""
    view = memoryview(data)
    while view:
        buffer = protocol.get_buffer(len(view))
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        protocol.buffer_updated(count)
        view = view[count:]


def _switching(accepted: Accept) -> WSUpgradeResponse:
    headers = list(accepted.headers)
    if accepted.subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", accepted.subprotocol))
    response: WSUpgradeResponse = WSUpgradeResponse.create_101_response(headers)
    return response


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Seconds. ``head_timeout_s``: first byte of a later request to its complete head.

    ``stall_s``: a client that takes nothing of its response for this long is dropped (slow event streams).
    """

    head_timeout_s: float = 10.0
    keep_alive_s: float = 15.0
    stall_s: float = 30.0

    def config(self, app: ASGIApp) -> Config:
        """A loaded uvicorn configuration; only its protocol is used, not its server."""
        config = Config(
            app=app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self.keep_alive_s,  # type: ignore[arg-type]  # passed to call_later as it is
        )
        config.load()
        return config

    def server_state(self) -> ServerState:
        return ServerState()


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with bounds on heads and on clients that do not read.

    The parser under it collects a header of any length, waits for it for ever, and a response is held for
    a reader that never comes back.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        settings: HttpSettings,
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(config, state, {})
        self._settings = settings
        self._on_lost = on_lost
        self._head_bytes = 0
        self._is_in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            message = f"Expected a request head of at most {MAX_HEAD_BYTES} bytes."
            self._refuse(Reject(431, "head_too_large", message))

    def send_400_response(self, msg: str) -> None:
        self._refuse(Reject(400, "invalid_http", "Expected a valid HTTP/1.1 request."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_timer = self.loop.call_later(self._settings.head_timeout_s, self._head_too_slow)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        self._cancel_head_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True  # the next head begins with the next byte
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._settings.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_stall_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timer()
        self._cancel_stall_timer()
        try:
            super().connection_lost(exc)
        finally:
            self._on_lost()

    def _unsupported_upgrade_warning(self) -> None:
        """A handshake on a connection that was used for HTTP before: the application answers 426."""

    def _head_too_slow(self) -> None:
        self._head_timer = None
        seconds = self._settings.head_timeout_s
        self._refuse(Reject(408, "head_timeout", f"Expected the whole request head within {seconds:g} s."))

    def _refuse(self, reject: Reject) -> None:
        self._cancel_head_timer()
        if self.transport.is_closing():
            return
        if not self._is_answering():
            self.transport.write(response_bytes(reject))
        # else: a response is being written on this connection, and another in its middle would garble it
        self.transport.close()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._settings.stall_s, self.transport.abort)

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = (
            self.cycle
        )  # None before the first request, whatever its type says
        return cycle is not None and cycle.response_started and not cycle.response_complete

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
