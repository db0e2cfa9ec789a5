"""The socket of the upstream link: picows' client, and what its failures mean.

Every way a connection can fail becomes a ``LinkError`` here that names the link, the cause and the remedy.
Nothing that a server wrote is quoted but a short code: it may repeat a key or what somebody said.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import cast
from urllib.parse import quote, urlsplit, urlunsplit

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

from openline.errors import ConfigError, LinkError, LinkRejected, LinkUnavailable
from openline.wire.upstream import ErrorBody, Kind, word

NO_CODE, ABNORMAL = 1005, 1006
_TEXT, _BINARY, _CONTINUATION, _CLOSE = (
    WSMsgType.TEXT,
    WSMsgType.BINARY,
    WSMsgType.CONTINUATION,
    WSMsgType.CLOSE,
)
CLOSE_DEADLINE_S = 2.0
WRITE_HIGH_BYTES = 256 * 1024
"""Unsent bytes (4 s of audio) above which caller audio is dropped: late audio is of no use to a turn. What an earlier
link was given, or none, is not (``CallerAudio``)."""
REFUSED_FOR_GOOD = frozenset(
    "invalid_api_key account_deactivated insufficient_quota credit_balance_exhausted billing_hard_limit_reached "
    "model_not_found invalid_model beta_api_shape_disabled unknown_key unauthorized permission_denied".split()
)
"""Error codes that another try cannot change (openai-protocols.md B.7)."""
FOR_NOW = frozenset("session_expired rate_limit_exceeded server_error session_limit_reached".split())
"""Codes that pass, whatever else is said beside them."""
_NOT_THE_KIND = frozenset("http_401 http_403 tls_untrusted not_a_websocket closed_4401".split())
"""Refusals that would be the same for a session of another kind."""

# An adapter, not a logger: picows would make a child logger for each connection, and it logs request heads.
_picows_log = logging.LoggerAdapter(logging.getLogger("openline.link.picows"), {})
logging.getLogger("openline.link.picows").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Realtime server is: ``url`` is what a socket connects to, ``scribe_url`` for a session that only writes
    down, ``name`` what people are told."""

    url: str
    name: str
    scribe_url: str = ""

    def to(self, kind: Kind) -> Address:
        return self if kind == "realtime" else replace(self, url=self.scribe_url)

    @classmethod
    def of(cls, base_url: str, model: str) -> Address:
        """``https://host/v1`` (or wss, http, ws; a query is kept) to its socket for ``model``.

        Raises ConfigError for anything else, and for a URL with a password in it.
        """
        parts = urlsplit(base_url)
        scheme = {"https": "wss", "http": "ws", "wss": "wss", "ws": "ws"}.get(parts.scheme)
        if scheme is None or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                "upstream_url: expected https://host/v1 (or http, wss, ws) without user and password.",
                hint="The key comes from the environment variable that upstream_key_env names.",
            )
        path = parts.path.rstrip("/")
        path = path if path.endswith("/realtime") else f"{path}/realtime"

        def at(query: str) -> str:
            asked = "&".join(part for part in (parts.query, query) if part)
            return urlunsplit((scheme, parts.netloc, path, asked, ""))

        return cls(
            at(f"model={quote(model, safe='')}"),
            f"model link openai/{model} at {parts.netloc}",
            at("intent=transcription"),  # and no model: that of the words is a setting (B.1)
        )


@dataclass(frozen=True, slots=True)
class Closed:
    """How a socket ended: the close code (1006: the line was cut), the server's reason."""

    code: int
    reason: str = ""


# ----------------------------------------------------------------------------------------- what failures mean


def is_permanent(body: ErrorBody) -> bool:
    """Whether an ``error`` means that trying again cannot help."""
    code = str(body.code or "")
    return code in REFUSED_FOR_GOOD or (body.type == "authentication_error" and code not in FOR_NOW)


def error_of(address: Address, body: ErrorBody, *, opening: bool = False) -> LinkError:
    """An ``error`` event that ends the link. ``opening``: a request that is wrong now stays wrong."""
    code = word(body.code or body.type)
    wrong = opening and body.type == "invalid_request_error" and code not in FOR_NOW
    where = f" ({word(body.param)})" if body.param else ""
    if wrong or is_permanent(body):
        return LinkRejected(f"{address.name}: refused with '{code}'{where}.", hint=_remedy(code), cause=code)
    return LinkUnavailable(f"{address.name}: failed with '{code}'{where}; trying again.", cause=code)


def _remedy(code: str) -> str:
    if "quota" in code or "billing" in code or "credit" in code:
        return "Check the account's balance and limits."
    if "model" in code:
        return "Check the model's name and that the key may use it."
    if "key" in code or "auth" in code or "account" in code:
        return "Check the API key."
    return "Check the session's settings (voice, tools, transcription model) against what this server takes."


def error_of_close(address: Address, closed: Closed, *, opening: bool = False) -> LinkError:
    """A close by the server. Fatal ones say ``<type>.<code>`` in their reason (B.7).

    1008 while opening is a refusal; later it is a loss like others, and the next open will tell.
    """
    kind, _, code = closed.reason.partition(".")
    body = ErrorBody(type=word(kind), code=word(code)) if code else ErrorBody()
    if closed.code in (4000, 4401, 3000, 1008) and (
        is_permanent(body) or (kind == "invalid_request_error" and word(code) not in FOR_NOW)
    ):
        return LinkRejected(
            f"{address.name}: closed with {closed.code} '{word(code)}'.", hint=_remedy(code), cause=word(code)
        )
    cause = f"closed_{closed.code}"
    if opening and closed.code in (1008, 4401):
        return LinkRejected(
            f"{address.name}: closed with {closed.code} before the session began.",
            hint="Check the API key, the model's name and the URL.",
            cause=cause,
        )
    when = "before the session began" if opening else "in mid-session"
    return LinkUnavailable(f"{address.name}: closed with {closed.code} {when}; trying again.", cause=cause)


def may_not_know(error: LinkError) -> bool:
    """Whether an opening may have failed because the server has no sessions of the kind that was asked for, and not
    for a key, an account or a line: then another kind is worth a try."""
    cause = error.cause
    if isinstance(error, LinkRejected):
        models = ("model_not_found", "invalid_model")
        return cause in models or cause not in REFUSED_FOR_GOOD | _NOT_THE_KIND
    return cause.startswith(("closed_", "no_session")) or cause in ("http_500", "http_501")


def error_of_connect(address: Address, error: Exception) -> LinkError:
    """What kept a socket from opening."""
    match error:
        case WSInvalidStatusError():
            return _error_of_status(address, int(error.response.status) if error.response else 0)
        case ssl.SSLCertVerificationError():
            return LinkRejected(
                f"{address.name}: its TLS certificate is not trusted ({word(error.verify_message)}).",
                hint="Check the URL; for a private authority set SSL_CERT_FILE.",
                cause="tls_untrusted",
            )
        case ssl.SSLError():
            return LinkUnavailable(
                f"{address.name}: the TLS handshake failed ({word(error.reason)}).",
                hint="Check that the URL's scheme is what the server speaks.",
                cause="tls_failed",
            )
        case TimeoutError():
            return LinkUnavailable(
                f"{address.name}: no answer in time.",
                hint="Check the URL and the network.",
                cause="no_answer",
            )
        case WSError():
            return LinkRejected(
                f"{address.name}: what answers is not a WebSocket server.",
                hint="Check the URL and its port.",
                cause="not_a_websocket",
            )
        case LookupError() | ValueError():
            return LinkUnavailable(
                f"{address.name}: what answers is not HTTP, or hung up.",
                hint="Check the URL and its port.",
                cause="not_http",
            )
        case _:
            return LinkUnavailable(
                f"{address.name}: cannot connect ({type(error).__name__}).",
                hint="Check the URL, and that the server runs.",
                cause="cannot_connect",
            )


def _error_of_status(address: Address, status: int) -> LinkError:
    cause = f"http_{status}"
    if status in (401, 403):
        message = f"{address.name}: refused with HTTP {status}."
        return LinkRejected(message, hint="Check the API key.", cause=cause)
    if status in (408, 425, 429) or status >= 500:
        return LinkUnavailable(f"{address.name}: HTTP {status}; trying again.", cause=cause)
    return LinkRejected(
        f"{address.name}: expected a WebSocket, got HTTP {status}.",
        hint="Check the URL: it is the part before /realtime, mostly ending in /v1.",
        cause=cause,
    )


# ------------------------------------------------------------------------------------------------- the socket


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """Seconds and bytes. ``max_frame_bytes``: the protocol's own append is at most 15 MiB."""

    connect_s: float = 10.0
    max_frame_bytes: int = 16 * 1024 * 1024
    read_buffer_bytes: int = 4096


class Socket(WSListener):
    """One WebSocket to a provider. ``on_text`` gets whole messages, of either kind, and says whether they meant
    anything; ``on_closed`` comes exactly once.

    Loop only. After ``cut`` or ``close`` neither is called. A message may lie in picows' read buffer: it is
    good only until ``on_text`` returns.
    """

    __slots__ = (
        "_is_over",
        "_max_bytes",
        "_now",
        "_on_closed",
        "_on_text",
        "_parts",
        "_told",
        "_transport",
        "alive_at",
        "heard_at",
        "is_writable",
        "send",
    )

    def __init__(
        self,
        on_text: Callable[[bytes | memoryview], bool],
        on_closed: Callable[[Closed], None],
        max_bytes: int,
    ) -> None:
        self._on_text = on_text
        self._on_closed = on_closed
        self._max_bytes = max_bytes
        self._transport: WSTransport | None = None
        self._parts: bytearray | None = None
        self._told: Closed | None = None
        self._is_over = False
        self.send: Callable[[bytes], object] = _drop
        """One text message; dropped once the socket is gone (``on_closed`` has said so or will). A field and no
        method: picows' own function, with nothing of ours between."""
        self.is_writable = True
        self._now = asyncio.get_running_loop().time
        self.heard_at = self._now()
        """When the last byte of content came: neither pongs nor garbage count, they say nothing of the model."""
        self.alive_at = self.heard_at
        """When anything came at all."""

    async def close(self) -> None:
        """Close with a handshake, bounded; nothing is delivered any more."""
        transport = self._transport
        self.cut()
        if transport is None or transport.is_disconnected:
            return
        transport.send_close(WSCloseCode.OK)
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await transport.wait_disconnected()
        except TimeoutError:
            pass
        finally:
            transport.disconnect(graceful=False)

    def cut(self) -> None:
        """Deliver nothing more."""
        self._is_over = True

    def abort(self) -> None:
        """Drop the line at once."""
        self.cut()
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def ping(self) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_ping()

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.send = partial(transport.send, _TEXT)
        transport.underlying_transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        self.alive_at = now = self._now()
        if (kind is _TEXT or kind is _BINARY) and frame.fin:
            # As _deliver; this is the way of every delta.
            if not self._is_over and self._on_text(frame.get_payload_as_memoryview()):
                self.heard_at = now
        elif kind is _CLOSE:
            payload = frame.get_payload_as_bytes()
            code = int.from_bytes(payload[:2], "big") or NO_CODE
            self._told = Closed(code, payload[2:].decode("utf-8", "replace"))
            if not transport.is_close_frame_sent:
                transport.send_close(cast("WSCloseCode", 1000))
            transport.disconnect()
        elif kind is _TEXT or kind is _BINARY or kind is _CONTINUATION:
            self._assemble(transport, frame)

    def _assemble(self, transport: WSTransport, frame: WSFrame) -> None:
        parts = self._parts = bytearray() if self._parts is None else self._parts
        if len(parts) + frame.payload_size > self._max_bytes:
            self._told = Closed(1009, "message too big")
            transport.disconnect(graceful=False)
            return
        parts += frame.get_payload_as_memoryview()
        if frame.fin:
            self._parts = None
            self._deliver(bytes(parts))

    def _deliver(self, payload: bytes | memoryview) -> None:
        if not self._is_over and self._on_text(payload):
            self.heard_at = self.alive_at

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.send = _drop
        if self._is_over:
            return
        self._is_over = True
        told = self._told
        # None when no close frame went either way, whatever picows' types say.
        sent = getattr(transport.close_handshake, "sent", None)
        if told is None and sent is not None:
            # picows closed by itself: a frame it cannot take (too large, not UTF-8, not the protocol).
            told = Closed(int(sent.code.value), "")
        self._on_closed(told or Closed(ABNORMAL))

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True


def _drop(payload: bytes) -> None:
    """Not open yet, or gone: nobody will read this."""


def credentials(address: Address, key: str) -> dict[str, str]:
    """Azure takes its own keys under a name of its own; a token of its identity service (a JWT) is a bearer's."""
    host = urlsplit(address.url).hostname or ""
    if host.endswith(".azure.com") and not key.startswith("eyJ"):
        return {"api-key": key}
    return {"Authorization": f"Bearer {key}"}


async def connect(
    address: Address,
    key: str,
    on_text: Callable[[bytes | memoryview], bool],
    on_closed: Callable[[Closed], None],
    settings: SocketSettings,
    tls: ssl.SSLContext | None,
) -> Socket:
    """Open a socket. Raises LinkRejected or LinkUnavailable; if cancelled, the line is dropped.

    ``tls`` None: the system's trust. No redirect is followed: it would carry the key elsewhere.
    """
    made: list[Socket] = []

    def listener() -> Socket:
        made.append(Socket(on_text, on_closed, settings.max_frame_bytes))
        return made[-1]

    try:
        async with asyncio.timeout(settings.connect_s):
            await ws_connect(
                listener,
                address.url,
                ssl_context=(tls or ssl.create_default_context()) if address.url.startswith("wss") else None,
                extra_headers=credentials(address, key) if key else None,
                websocket_handshake_timeout=None,
                max_frame_size=settings.max_frame_bytes,
                max_redirects=0,
                read_buffer_init_size=settings.read_buffer_bytes,
                logger_name=_picows_log,
            )
    except (WSError, OSError, TimeoutError, LookupError, ValueError) as error:
        # picows raises the plain ones where an answer is not even HTTP.
        raise error_of_connect(address, error) from None
    except BaseException:
        for socket in made:
            socket.abort()
        raise
    if not made:  # picows returns without a listener when the line ends in the middle of the handshake
        raise error_of_connect(address, LookupError())
    return made[-1]
