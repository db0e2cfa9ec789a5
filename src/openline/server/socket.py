"""One client's WebSocket as the session layer sees it: callbacks in, ``send_text`` and ``close`` out.

A thin skin over picows: it adds what picows leaves to its user (assembling fragments, the close
handshake with a deadline, answering pings, backpressure as a flag) and nothing else. The way of a text
frame through here is one function without await, task or queue: every hop costs more than JSON does
(performance.md §8). A write to the kernel costs more than all else of a frame together, so frames that
leave in the same turn of the loop may share one (``send_texts``, ``send_text_soon``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from openline.errors import IllegalTransition
from openline.server.heartbeat import Heartbeat
from openline.server.upgrade import SocketLimits

log = logging.getLogger("openline.server")

NORMAL, PROTOCOL_ERROR, NO_CODE, ABNORMAL = 1000, 1002, 1005, 1006
INVALID_TEXT, TOO_BIG, INTERNAL = 1007, 1009, 1011
HEARTBEAT_LOST, SLOW_CONSUMER = 4408, 4413
MAX_REASON_BYTES = 123
"""RFC 6455 section 5.5: a control frame carries 125 bytes, two of them the code."""
FRAMES_PER_WRITE = 16
"""Frames joined for one write, at most: bounds the copy, and what waits in ``send_text_soon``."""

_TEXT, _BINARY, _CONTINUATION = WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION
_PING, _CLOSE = WSMsgType.PING, WSMsgType.CLOSE


class SocketHandler(Protocol):
    """What the session layer is told. Synchronous, on the loop, never after ``on_close``.

    An exception out of a handler closes this socket with 1011 and is logged by its type; the gateway goes on.
    """

    def on_open(self) -> None:
        """The 101 is written: sending is allowed from here on. Called exactly once, before any frame."""

    def on_text(self, payload: bytes) -> None:
        """A whole text message, valid UTF-8, at most ``max_frame_bytes`` long."""

    def on_binary(self, payload: bytes) -> None: ...

    def on_writable(self, is_writable: bool) -> None:
        """The unsent bytes passed the high mark (False) or fell below the low one again (True)."""

    def on_close(self, code: int, reason: str, clean: bool) -> None:
        """The socket is gone. Exactly once for every socket that opened.

        ``code``: what this side closed with, if it did so first; else the peer's (1005: it gave none);
        1006: the line was cut. ``clean``: the close handshake was completed.
        """


class LateSends:
    """Ends each turn of the loop in which a socket was given something to send soon. Shared by all sockets."""

    __slots__ = ("_sockets",)

    def __init__(self) -> None:
        self._sockets: list[ClientSocket] = []

    def add(self, socket: ClientSocket) -> None:
        if not self._sockets:
            asyncio.get_running_loop().call_soon(self._send)
        self._sockets.append(socket)

    def _send(self) -> None:
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.flush()


class ClientSocket(WSListener):
    """The socket itself. Made by the listener; lives until ``on_close`` has been called.

    Not thread-safe: loop only. No method waits.
    """

    __slots__ = (
        "_closed_with",
        "_closing",
        "_deadline",
        "_fragments",
        "_fragments_kind",
        "_handler",
        "_heartbeat",
        "_is_open",
        "_is_reading",
        "_late",
        "_late_pong",
        "_limits",
        "_on_text",
        "_send",
        "_transport",
        "_waiting",
        "is_broken",
        "is_writable",
        "received_bytes",
    )

    def __init__(self, limits: SocketLimits, heartbeat: Heartbeat, late: LateSends | None = None) -> None:
        self._limits = limits
        self._heartbeat = heartbeat
        self._late = late or LateSends()
        self._waiting: list[bytes] = []
        """Frames that leave with the next one, or when the turn of the loop ends."""
        self._handler: SocketHandler | None = None
        self._transport: WSTransport | None = None
        self._on_text: Callable[[bytes], None] = _refuse
        self._send: Callable[[WSMsgType, bytes], None] = _refuse_send
        self._is_open = False
        self._is_reading = True
        self._closing: tuple[int, str] | None = None
        """What we close with; set once, and nothing is delivered or sent after it."""
        self._closed_with: tuple[int, str] | None = None
        """What the peer's close frame said."""
        self._deadline: asyncio.TimerHandle | None = None
        self._fragments: bytearray | None = None
        self._fragments_kind: WSMsgType = _TEXT
        self._late_pong: bytes | None = None
        self.is_broken = False
        """True after a frame that could not be parsed: no byte behind it has a meaning."""
        self.is_writable = True
        self.received_bytes = 0
        """Bytes that came over the WebSocket, frame headers and unfinished frames included."""

    def bind(self, handler: SocketHandler) -> None:
        """Say who listens. Before the 101 is written, because the first frame may come in the same read."""
        assert self._handler is None, "a socket has one handler for its whole life"
        self._handler = handler
        self._on_text = handler.on_text

    # -- the session layer's side

    @property
    def is_open(self) -> bool:
        """True from ``on_open`` until a close frame was sent or received, or the line broke."""
        return self._is_open and self._closing is None and self._closed_with is None

    @property
    def is_reading(self) -> bool:
        return self._is_reading

    @property
    def write_backlog(self) -> int:
        """Bytes that the kernel has not taken yet. 0 once the socket is gone."""
        if self._transport is None or self._transport.is_disconnected:
            return 0
        return self._transport.underlying_transport.get_write_buffer_size()

    def send_text(self, payload: bytes) -> None:
        """Send one text message (UTF-8, not checked). Never waits; dropped once the socket is closing.

        What the kernel does not take is kept in memory: heed ``is_writable``. A client that leaves more
        than ``max_backlog_bytes`` unread is closed with 4413. Before ``on_open``: IllegalTransition.
        """
        if self._waiting:
            self._waiting.append(payload)
            self.flush()
            return
        self._send(_TEXT, payload)
        if not self.is_writable:
            self._check_backlog()

    def send_texts(self, payloads: Sequence[bytes]) -> None:
        """``send_text`` of each, in order, in as few writes as can be."""
        self._waiting += payloads
        self.flush()

    def send_text_soon(self, payload: bytes) -> None:
        """``send_text``, in its place in the stream, but with the next frame, or when this turn of the loop ends.

        For a frame that is mostly followed by another: the words of a chunk of audio.
        """
        if not self._waiting:
            if not self._is_open:
                self.send_text(payload)  # which drops it, or says that it is too early
                return
            self._late.add(self)
        self._waiting.append(payload)
        if len(self._waiting) >= FRAMES_PER_WRITE:
            self.flush()

    def flush(self) -> None:
        """Send what waits in ``send_text_soon`` now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        transport = self._transport
        if len(waiting) < 2 or transport is None:
            for payload in waiting:
                self._send(_TEXT, payload)
        # The same conditions as in picows' send, which this goes around.
        elif self._send is not _drop and not transport.is_close_frame_sent and not transport.is_disconnected:
            for at in range(0, len(waiting), FRAMES_PER_WRITE):
                transport.underlying_transport.write(_frames(waiting[at : at + FRAMES_PER_WRITE]))
        if not self.is_writable:
            self._check_backlog()

    def _check_backlog(self) -> None:
        if self.write_backlog > self._limits.max_backlog_bytes:
            self.close(SLOW_CONSUMER, "slow consumer")

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Begin the close handshake; after ``close_deadline_s`` without an answer the socket is aborted.

        ``code``: 1000–1014 or 3000–4999. ``reason`` is cut to 123 bytes of UTF-8 and must hold nothing
        secret. Idempotent: the first code counts. ``on_close`` follows in every case. Nothing is
        delivered after this but ``on_close``. Before ``on_open``: IllegalTransition.
        """
        if self._transport is None:
            raise IllegalTransition("expected an open socket to close; reject the upgrade instead")
        assert 1000 <= code <= 1014 or 3000 <= code <= 4999, f"{code} may not be sent (RFC 6455 section 7.4)"
        self.flush()  # before the question: it closes by itself when the backlog is full
        if self._closing is not None or self._transport.is_disconnected:
            return
        self._closing = (code, reason)
        self._send = _drop
        if self._closed_with is None:
            self._transport.send_close(cast(WSCloseCode, code), _cut(reason))
            self._start_deadline()

    def abort(self) -> None:
        """Drop the line at once, without a close frame. ``on_close`` follows in a later turn of the loop."""
        if self._transport is not None:
            self._send = _drop
            self._transport.disconnect(graceful=False)

    def pause_reading(self) -> None:
        """Stop taking bytes from the kernel; frames that are already here are still delivered."""
        if self._is_reading and self._transport is not None and not self._transport.is_disconnected:
            self._is_reading = False
            self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading and self._transport is not None and not self._transport.is_disconnected:
            self._is_reading = True
            self._transport.underlying_transport.resume_reading()

    # -- the heartbeat's side

    def ping(self) -> None:
        """Behind a backlog a ping says nothing and only adds to it."""
        if self._transport is not None and self.is_writable and self.is_open:
            self._transport.send_ping()

    def expire(self) -> None:
        if self._closing is None and self._closed_with is None:
            log.info("client socket: nothing received within the heartbeat limit, closing with 4408")
            self.close(HEARTBEAT_LOST, "heartbeat")

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        assert self._handler is not None, "bind() comes before the handshake"
        self._transport = transport
        self._send = transport.send
        self._is_open = True
        transport.underlying_transport.set_write_buffer_limits(
            high=self._limits.write_high_bytes, low=self._limits.write_low_bytes
        )
        self._heartbeat.add(self)
        try:
            self._handler.on_open()
        except Exception as error:  # the edge of a session: it ends, the gateway goes on
            self._handler_failed(error)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if (
            kind is _TEXT
            and frame.fin
            and self._fragments is None
            and self._closing is None
            and self._closed_with is None
            and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
        ):
            payload = frame.get_payload_as_bytes()
            # isascii is the fast way through for audio, which is all base64.
            if payload.isascii():
                try:
                    self._on_text(payload)
                except Exception as error:  # the edge of a session: it ends, the gateway goes on
                    self._handler_failed(error)
            else:
                self._deliver(kind, payload)
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            # No extension is negotiated, so these bits have no meaning (RFC 6455 section 5.2).
            self.close(PROTOCOL_ERROR, "reserved bits set")
            return
        if kind is _CLOSE:
            self._peer_closes(transport, frame)
        elif kind is _PING:
            self._answer_ping(transport, frame.get_payload_as_bytes())
        elif kind is _TEXT or kind is _BINARY or kind is _CONTINUATION:
            self._assemble(kind, frame)
        # A pong needs nothing: its bytes were counted as they came.

    def protocol_failed(self, transport: WSTransport) -> None:
        """picows has sent a close frame. If it did so on its own (1002, 1007, 1009), what still comes is noise.

        It tells its listener nothing, goes on parsing (and hands out the very frame that was too large),
        and would wait for ever for a peer that does not read.
        """
        sent = transport.close_handshake.sent
        if self._closing is None and self._closed_with is None and sent is not None:
            self._closing = (int(sent.code.value), sent.reason)
            self._send = _drop
            self.is_broken = True
            self._start_deadline()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._heartbeat.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._send = _drop
        self._is_open = False
        self._fragments = None
        handler, self._handler = self._handler, None
        self._on_text = _refuse
        if handler is None:
            return
        code, reason, clean = self._outcome(transport)
        try:
            handler.on_close(code, reason, clean)
        except Exception as error:  # nothing is left to close; the report must not be lost
            log.error("client socket: on_close failed with %s", type(error).__name__, exc_info=True)

    def pause_writing(self) -> None:
        self._set_writable(False)

    def resume_writing(self) -> None:
        if self._late_pong is not None and self._transport is not None:
            payload, self._late_pong = self._late_pong, None
            self._transport.send_pong(payload)
        self._set_writable(True)

    # -- inside

    def _deliver(self, kind: WSMsgType, payload: bytes) -> None:
        if self._handler is None or self._closing is not None or self._closed_with is not None:
            return
        try:
            if kind is _TEXT:
                if not payload.isascii() and not _is_utf8(payload):
                    self.close(INVALID_TEXT, "invalid UTF-8")
                    return
                self._on_text(payload)
            else:
                self._handler.on_binary(payload)
        except Exception as error:  # the edge of a session: it ends, the gateway goes on
            self._handler_failed(error)

    def _assemble(self, kind: WSMsgType, frame: WSFrame) -> None:
        is_first = kind is not _CONTINUATION
        if is_first == (self._fragments is not None):
            self.close(PROTOCOL_ERROR, "fragments out of order")
            return
        if is_first and frame.fin:
            self._deliver(kind, frame.get_payload_as_bytes())
            return
        if self._fragments is None:
            self._fragments = bytearray()
            self._fragments_kind = kind
        if len(self._fragments) + frame.payload_size > self._limits.max_frame_bytes:
            self._fragments = bytearray()  # frees the memory; later fragments of it are dropped by close()
            self.close(TOO_BIG, f"message over {self._limits.max_frame_bytes} bytes")
            return
        if self._closing is None:
            self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            payload, self._fragments = bytes(self._fragments), None
            self._deliver(self._fragments_kind, payload)

    def _answer_ping(self, transport: WSTransport, payload: bytes) -> None:
        # picows' own auto-pong would let a client that pings and never reads grow our memory without end.
        # Answering only the latest ping is allowed (RFC 6455 section 5.5.3).
        if self.is_writable:
            transport.send_pong(payload)
        else:
            self._late_pong = payload

    def _peer_closes(self, transport: WSTransport, frame: WSFrame) -> None:
        self.flush()
        payload = frame.get_payload_as_bytes()
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else NO_CODE
        self._closed_with = (code, payload[2:].decode("utf-8", "replace"))
        self._send = _drop
        if self._closing is None:
            answer = NORMAL if code == NO_CODE else code
            transport.send_close(cast(WSCloseCode, answer), payload[2:])
        # The server closes first (RFC 6455 section 7.1.1). What is still unsent gets until the deadline.
        self._start_deadline()
        transport.disconnect()

    def _outcome(self, transport: WSTransport) -> tuple[int, str, bool]:
        if self._closing is not None:
            return (*self._closing, self._closed_with is not None)
        if self._closed_with is not None:
            return (*self._closed_with, True)
        return ABNORMAL, "", False

    def _handler_failed(self, error: Exception) -> None:
        log.error("client socket: handler failed with %s", type(error).__name__, exc_info=True)
        if self._transport is not None and not self._transport.is_disconnected:
            self.close(INTERNAL, "internal error")

    def _set_writable(self, is_writable: bool) -> None:
        self.is_writable = is_writable
        if self._handler is None or not self._is_open:
            return
        try:
            self._handler.on_writable(is_writable)
        except Exception as error:  # the edge of a session: it ends, the gateway goes on
            self._handler_failed(error)

    def _start_deadline(self) -> None:
        if self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._limits.close_deadline_s, self._abort_late)

    def _abort_late(self) -> None:
        if self._transport is not None:
            self._transport.disconnect(graceful=False)


def _refuse(payload: bytes) -> None:
    raise IllegalTransition("a frame came for a socket that has no handler")


def _refuse_send(kind: WSMsgType, payload: bytes) -> None:
    raise IllegalTransition("expected on_open before the first send; got a send from the handler factory")


def _frames(payloads: Sequence[bytes]) -> bytes:
    """Whole text frames as a server writes them: not masked (RFC 6455 section 5.2)."""
    parts: list[bytes] = []
    for payload in payloads:
        size = len(payload)
        if size < 126:
            parts.append(bytes((0x81, size)))
        elif size < 1 << 16:
            parts.append(b"\x81\x7e" + size.to_bytes(2, "big"))
        else:
            parts.append(b"\x81\x7f" + size.to_bytes(8, "big"))
        parts.append(payload)
    return b"".join(parts)


def _drop(kind: WSMsgType, payload: bytes) -> None:
    """The socket is closing: nobody will read this."""


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cut(reason: str) -> bytes:
    return reason.encode()[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode()
