"""What the URL of ``/v1/realtime`` asks for: which session, where it goes on, in what role, how fast (DESIGN §5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from openline.errors import ClientProtocolError
from openline.server.upgrade import UpgradeRequest
from openline.types import Epoch, Role, Seq, SessionId
from openline.wire import frames

PACING_DEFAULT_MS = 500
"""Output audio is released so far ahead of the listener's clock (DESIGN §4)."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """``pacing_ms`` None: everything at once. ``after_text``: ``after`` as the client wrote it."""

    session_id: SessionId | None
    after: tuple[Epoch, Seq, int] | None
    after_text: str | None
    role: Role
    pacing_ms: int | None
    strict: bool
    model: str
    server_tools: bool
    transcribes: bool

    @classmethod
    def of(cls, request: UpgradeRequest) -> Wishes:
        """Raises ClientProtocolError for a value that is not one of those allowed."""
        role = request.query_one("role") or "speaker"
        if role not in ("speaker", "texter", "observer"):
            raise _invalid("role", "speaker, texter or observer")
        after_text = request.query_one("after")
        after = frames.parse_event_id(after_text) if after_text else None
        if after_text and after is None:
            raise _invalid("after", "an event_id such as 'evt_1_42_0'")
        intent = request.query_one("intent")
        if intent not in (None, "transcription"):
            raise _invalid("intent", "transcription, or none")
        return cls(
            SessionId(request.query_one("session_id") or "") or None,
            after,
            after_text,
            cast(Role, role),
            _pacing(request.query_one("pacing")),
            request.query_one("errors") == "strict",
            request.query_one("model") or "",
            _server_tools(request.query_one("server_tools")),
            intent is not None,
        )


def _invalid(name: str, expected: str) -> ClientProtocolError:
    return ClientProtocolError(f"Invalid '{name}': expected {expected}.", code="invalid_value", param=name)


def _pacing(text: str | None) -> int | None:
    if text is None:
        return PACING_DEFAULT_MS
    if text == "off":
        return None
    if not text.isdecimal() or not 20 <= int(text) <= 60_000:
        raise _invalid("pacing", "'off' or milliseconds from 20 to 60000")
    return int(text)


def _server_tools(text: str | None) -> bool:
    if text not in (None, "shown"):
        raise _invalid("server_tools", "'shown', or nothing")
    return text is not None
