"""Every error that Openline raises on purpose, in one tree.

The type says whose fault it is, ``code`` is stable and safe to match on, ``hint`` says what to do,
``retryable`` is decided where the reason is known. No message holds a transcript, audio, a key or a
tool argument: put such values nowhere, name their ids instead.

    OpenlineError
    ├── ConfigError              a wrong setting or command line; names setting, value, allowed values
    ├── ClientProtocolError      a client broke the protocol; carries the wire code and param
    ├── LinkError                a model link failed
    │   ├── LinkRejected         permanently (bad key, unknown model): do not retry
    │   │   └── LinkNotOffered   the server does not speak this protocol: another one may work
    │   └── LinkUnavailable      for now: retry with backoff
    ├── SpeechError              a recognizer, synthesizer or voice-activity detector failed
    ├── SessionError
    │   ├── SessionNotFound
    │   ├── SessionEnded
    │   └── OwnershipLost        another owner has written: step down, never retry the append
    ├── LogError
    │   ├── LogConflict          stale epoch or wrong expected seq; nothing of that session was stored
    │   ├── LogUnavailable       the store cannot be reached or is full; retryable
    │   ├── LogCorrupt           fatal: a stored record does not decode or a sequence has a gap
    │   └── DataDirectoryError   unwritable, locked by another gateway, or of a newer version
    ├── ToolError                a tool failed, timed out or does not exist
    ├── ReplayMismatch           a log does not replay: names the first step that differs
    └── IllegalTransition        our own bug: fails loudly, is never retried
"""

from __future__ import annotations


class OpenlineError(Exception):
    """Base of all. ``str(error)`` is for people: expected, got, do this."""

    code: str = "openline_error"
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class ConfigError(OpenlineError):
    code = "config_invalid"


class ClientProtocolError(OpenlineError):
    """What a client sent cannot be used; the session goes on.

    ``code`` and ``param`` are the OpenAI Realtime error fields and go to the client as they are.
    ``event_id`` is the client's own id of the offending event, when it could be read.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        param: str | None = None,
        event_id: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.event_id = event_id
        self.kind = kind


class LinkError(OpenlineError):
    """``cause``: what happened, in one word that is safe to show to anybody (``closed_1011``, ``http_401``,
    ``stalled``, a provider's own short code). "" where nothing more is known than ``code`` says."""

    code = "link_failed"

    def __init__(self, message: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class LinkRejected(LinkError):
    code = "link_rejected"


class LinkNotOffered(LinkRejected):
    code = "link_not_offered"


class LinkUnavailable(LinkError):
    code = "link_unavailable"
    retryable = True


class SpeechError(OpenlineError):
    code = "speech_failed"


def for_log(error: BaseException) -> str:
    """What an operator may read of an error. The messages of links and of speech parts name the server, the cause
    and the remedy, and hold nothing that anybody said; those of other errors may, so only their kind is told."""
    return str(error) if isinstance(error, (LinkError, SpeechError)) else type(error).__name__


class SessionError(OpenlineError):
    code = "session_error"


class SessionNotFound(SessionError):
    code = "session_not_found"


class SessionEnded(SessionError):
    code = "session_ended"


class OwnershipLost(SessionError):
    code = "ownership_lost"


class LogError(OpenlineError):
    code = "log_error"


class LogConflict(LogError):
    code = "log_conflict"


class LogUnavailable(LogError):
    code = "log_unavailable"
    retryable = True


class LogCorrupt(LogError):
    code = "log_corrupt"


class DataDirectoryError(LogError):
    code = "data_directory"


class ToolError(OpenlineError):
    code = "tool_failed"


class ReplayMismatch(OpenlineError):
    """``seq`` is the first fact sequence of the step that differs (0 when the step had none)."""

    code = "replay_mismatch"

    def __init__(self, message: str, *, seq: int) -> None:
        super().__init__(message)
        self.seq = seq


class IllegalTransition(OpenlineError):
    code = "illegal_transition"
