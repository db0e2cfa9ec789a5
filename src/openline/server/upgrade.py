"""What a request head asks for: an upgrade to WebSocket, or plain HTTP. Pure: bytes in, values out.

``listener`` feeds it; the gateway's decision function gets an UpgradeRequest and answers Accept or Reject.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, unquote

from starlette.datastructures import Headers

from openline.server.problem import Reject

if TYPE_CHECKING:
    from openline.server.socket import ClientSocket, SocketHandler

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers together, bytes. Neighbours: picows 16 KiB, nginx 8–32 KiB, Node 16 KiB."""
MAX_HEADERS = 100
MAX_QUERY_FIELDS = 50
HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A WebSocket handshake that is well formed (RFC 6455 section 4.2.1) and not yet answered.

    ``headers`` is case-insensitive; ``getlist`` gives repeated ones. ``query`` keeps repeated and blank
    fields. ``subprotocols``: as offered, in order; some of them carry keys, so never log or echo the list.
    ``peer``: address and port as the socket sees them (a proxy's, behind a proxy).
    """

    path: str
    query: Mapping[str, list[str]]
    headers: Headers
    subprotocols: tuple[str, ...]
    peer: tuple[str, int]
    is_secure: bool = False

    def query_one(self, name: str) -> str | None:
        """The last value of a query field, or None."""
        values = self.query.get(name)
        return values[-1] if values else None


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Bounds of one WebSocket. Bytes and seconds.

    ``max_frame_bytes`` bounds a frame and a message assembled from fragments; the realtime door sets the
    size of the largest ``input_audio_buffer.append``. ``read_buffer_bytes`` is held by every
    idle connection (performance.md §1: 4 KiB costs no throughput); it doubles when a frame needs more.
    ``write_high_bytes``/``write_low_bytes``: where ``is_writable`` turns false and true again.
    ``max_backlog_bytes``: unsent bytes at which a client that does not read is closed with 4413.
    ``close_deadline_s``: how long a close handshake may take before the socket is aborted.
    """

    max_frame_bytes: int = 16 * 1024 * 1024
    read_buffer_bytes: int = 4096
    write_high_bytes: int = 256 * 1024
    write_low_bytes: int = 64 * 1024
    max_backlog_bytes: int = 16 * 1024 * 1024
    close_deadline_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Accept:
    """Open the WebSocket. ``handler`` is called with the new socket before the 101 is written, so that it
    has bound everything when the first frame arrives, which may be in the same read. It must not send.

    ``subprotocol`` must be one of those offered, or None.
    """

    handler: Callable[[ClientSocket], SocketHandler]
    subprotocol: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    limits: SocketLimits = field(default_factory=SocketLimits)


Decision = Accept | Reject
AcceptFunction = Callable[[UpgradeRequest], Decision | Awaitable[Decision]]


class Head(NamedTuple):
    """A parsed request head; ``websocket_key`` is set iff the request is a sound WebSocket handshake."""

    request: UpgradeRequest
    websocket_key: str


def read_head(head: bytes, peer: tuple[str, int], *, is_secure: bool) -> Head | Reject | None:
    """Judge a complete request head (without the blank line).

    None: not an upgrade to WebSocket, an HTTP server is to answer (also when it is malformed).
    Reject: an upgrade that cannot be granted. Head: a handshake for the decision function.
    """
    request_line, _, rest = head.partition(b"\r\n")
    parts = request_line.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
        return None
    headers = _read_headers(rest)
    if headers is None or headers.get("upgrade", "").strip().lower() != "websocket":
        return None
    method, target, version = parts
    if method != b"GET" or version != b"HTTP/1.1":
        return Reject(400, "invalid_handshake", "Expected a WebSocket handshake as 'GET … HTTP/1.1'.")
    refused = _refuse_handshake(headers)
    if refused is not None:
        return refused
    raw_path, _, raw_query = target.decode("latin-1").partition("?")
    try:
        query = parse_qs(raw_query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        return Reject(400, "invalid_query", f"Expected at most {MAX_QUERY_FIELDS} query fields.")
    request = UpgradeRequest(
        path=unquote(raw_path),
        query=query,
        headers=headers,
        subprotocols=tuple(_list_header(headers, "sec-websocket-protocol")),
        peer=peer,
        is_secure=is_secure,
    )
    return Head(request, headers["sec-websocket-key"].strip())


def canonical_head(websocket_key: str) -> bytes:
    """The handshake as picows is given it: only what it checks.

    It refuses ``Connection: keep-alive, Upgrade`` (which Firefox sends) and logs heads when debugging, so
    the client's own head, with its keys, does not reach it.
    """
    return (
        "GET / HTTP/1.1\r\nHost: openline\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {websocket_key}\r\n\r\n"
    ).encode("ascii")


def _read_headers(rest: bytes) -> Headers | None:
    raw: list[tuple[bytes, bytes]] = []
    for line in rest.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or len(raw) >= MAX_HEADERS:
            return None
        raw.append((name.lower(), value.strip(b" \t")))
    return Headers(raw=raw)


def _list_header(headers: Headers, name: str) -> list[str]:
    """A comma-separated header, its repeated lines joined (RFC 9110 section 5.3)."""
    joined = ",".join(headers.getlist(name))
    return [part.strip() for part in joined.split(",") if part.strip()]


def _refuse_handshake(headers: Headers) -> Reject | None:
    if "upgrade" not in (token.lower() for token in _list_header(headers, "connection")):
        return Reject(400, "invalid_handshake", "Expected 'Connection: Upgrade' beside 'Upgrade: websocket'.")
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
        return Reject(400, "invalid_handshake", "A WebSocket handshake has no body; send none.")
    if headers.get("sec-websocket-version") != "13":
        return Reject(
            426,
            "unsupported_websocket_version",
            "Expected 'Sec-WebSocket-Version: 13'.",
            headers=(("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")),
        )
    try:
        key = b64decode(headers.get("sec-websocket-key", "").strip().encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        key = b""
    if len(key) != 16:
        return Reject(400, "invalid_handshake", "Expected 'Sec-WebSocket-Key' with 16 bytes in base64.")
    return None
