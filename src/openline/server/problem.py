"""A refusal, in the form that every OpenAI client reads, for HTTP and for a WebSocket that was not opened.

Pure. Nothing here may carry a key, a token, a transcript or a tool argument: name ids instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from openline.errors import (
    ClientProtocolError,
    LogUnavailable,
    OpenlineError,
    OwnershipLost,
    SessionEnded,
    SessionNotFound,
)

_KIND_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class Reject:
    """An answer that refuses: an HTTP status with ``{"error": {message, type, code, param}}``.

    ``kind`` is the OpenAI error type; "" derives it from the status. ``headers`` are added as they are.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    kind: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> bytes:
        """The response body, JSON in UTF-8."""
        return error_body(self.kind or kind_of(self.status), self.code, self.message, self.param)


class Refusal(Exception):
    """Raised by HTTP handlers to answer with a Reject; caught by the application, never by callers."""

    def __init__(self, reject: Reject) -> None:
        super().__init__(reject.code)
        self.reject = reject


def kind_of(status: int) -> str:
    """The OpenAI error type for a status that has no better one."""
    return _KIND_BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_body(kind: str, code: str, message: str, param: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "code": code, "param": param}})


def reject_for(error: OpenlineError) -> Reject:
    """Which answer an error of ours gets. What is not listed is our own fault: 500 without its text."""
    match error:
        case ClientProtocolError(code="session_in_use" | "session_has_forks"):
            return Reject(409, error.code, str(error))
        case ClientProtocolError(code="item_not_found"):
            return Reject(404, error.code, str(error), error.param, error.kind)
        case ClientProtocolError():
            return Reject(400, error.code, str(error), error.param, error.kind)
        case SessionNotFound():
            return Reject(404, error.code, str(error))
        case SessionEnded():
            return Reject(409, error.code, str(error))
        case OwnershipLost():
            return Reject(409, error.code, str(error))
        case LogUnavailable():
            return Reject(503, error.code, str(error), headers=(("Retry-After", "1"),))
        case _:
            return Reject(500, error.code, "The gateway failed. Its log says why.")


def response_bytes(reject: Reject) -> bytes:
    """A whole HTTP/1.1 response that ends the connection, for places where no HTTP server runs yet."""
    body = reject.body()
    try:
        phrase = HTTPStatus(reject.status).phrase
    except ValueError:
        phrase = "Error"
    lines = [
        f"HTTP/1.1 {reject.status} {phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
        *(f"{name}: {value}" for name, value in reject.headers),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
