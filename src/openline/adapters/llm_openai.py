"""What the OpenAI-compatible language models share: where they are, and pieces as the port's events.

No third-party library here; ``llm_openai_responses`` (WebSocket) and ``llm_openai_http`` stand on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from openline.errors import ConfigError, LinkError, LinkNotOffered, LinkRejected, LinkUnavailable
from openline.ports import (
    ModelDone,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)
from openline.wire.responses_client import (
    Asked,
    CallEnd,
    CallPiece,
    End,
    Failed,
    Refusal,
    Text,
    Thought,
    ThoughtEnd,
    is_permanent,
    remedy,
)

THINK_S = 300.0
"""How long a model that has said that it thinks may be silent: hard questions take minutes, and half of a client's
usual ten (openai-python's timeout) is left for the answer."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A provider. ``url``: its base, such as ``https://api.openai.com/v1``; http, https, ws or wss.

    ``key`` is called at each connect, so that a changed key counts from the next one; "" sends none.
    ``model``: sent as it is; "" sends the session's model name.
    """

    url: str
    model: str = ""
    key: Callable[[], str] = str

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
            raise ConfigError(
                f"llm_url: expected http(s)://HOST/v1 or ws(s)://HOST/v1; got '{self.url}'.",
                hint="For Ollama: http://127.0.0.1:11434/v1",
            )

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def label(self) -> str:
        """How errors and the log name it."""
        return f"language model at {self.host}"

    def at(self, path: str, *, websocket: bool = False) -> str:
        """The URL of ``path`` under the base; a base that already ends in it is taken as it is."""
        parts = urlsplit(self.url)
        is_secure = parts.scheme in ("https", "wss")
        scheme = ("wss" if is_secure else "ws") if websocket else ("https" if is_secure else "http")
        base = parts.path.rstrip("/")
        full = base if base.endswith(f"/{path}") else f"{base}/{path}"
        return urlunsplit((scheme, parts.netloc, full, parts.query, ""))

    def headers(self) -> dict[str, str]:
        key = self.key()
        return {"Authorization": f"Bearer {key}"} if key else {}


def asked_of(
    request: ModelRequest, endpoint: Endpoint, *, store: bool = False, reasoning: bool = False
) -> Asked:
    return Asked(
        endpoint.model or request.model,
        request.instructions,
        request.tools,
        request.tool_choice,
        request.parallel_tool_calls,
        request.max_output_tokens,
        store,
        reasoning,
        request.text_format,
        request.options,
    )


def event_of(piece: Text | Refusal | Thought | ThoughtEnd | CallPiece | CallEnd | End) -> ModelEvent:
    match piece:
        case Thought(name, part, text, is_summary):
            return ReasoningDelta(name, part, text, is_summary)
        case ThoughtEnd(name, item):
            return ReasoningDone(name, item)
        case Text(text):
            return TextDelta(text)
        case Refusal(text):
            return RefusalDelta(text)
        case CallPiece(index, call_id, name, arguments):
            return ToolCallDelta(index, call_id, name, arguments)
        case CallEnd(index, call_id, name, arguments):
            return ToolCallDone(index, call_id, name, arguments)
        case End(usage, reason):
            return ModelDone(usage, reason)


def error_of(failed: Failed, endpoint: Endpoint) -> LinkError:
    """The provider's own words are left out: they may repeat what was said."""
    cause = failed.code or (f"HTTP {failed.status}" if failed.status else failed.kind or "no reason given")
    kind = LinkRejected if is_permanent(failed) else LinkUnavailable
    word = failed.code or (f"http_{failed.status}" if failed.status else failed.kind)
    return kind(f"{endpoint.label} refused the request: {cause}.", hint=remedy(failed), cause=word)


_NO_UPGRADE = frozenset({200, 204, 301, 302, 307, 308, 400, 403, 404, 405, 426, 501})
"""Answers to an upgrade of servers (and proxies) that know no WebSocket here. 403 too: accounts without the
feature get it. If it meant the key, the POST that is tried next says so."""
_NO_ROUTE = frozenset({404, 405, 426, 501})


def refused(status: int, endpoint: Endpoint, what: str, *, is_upgrade: bool = False) -> LinkError:
    """The answer to an upgrade or a POST was not what was asked for."""
    if status in (_NO_UPGRADE if is_upgrade else _NO_ROUTE):
        return LinkNotOffered(
            f"{endpoint.label} has no {what} (HTTP {status}).", hint="Check llm_url, or set llm_api."
        )
    return error_of(Failed("", status), endpoint)
