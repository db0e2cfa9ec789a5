"""What the adapters over LiveKit's plugins share: the surroundings that a plugin expects, and its errors as ours.

A plugin that was given no HTTP session asks for "the job's", through a context variable of LiveKit's. There is no
job here: ``Surroundings`` opens one session for each wrapped plugin and runs the plugin's calls where it is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

from livekit.agents import APIConnectionError, APIConnectOptions, APIError, APIStatusError, APITimeoutError
from livekit.agents.utils import http_context

from openline.errors import ConfigError, LinkError, LinkRejected, LinkUnavailable, SpeechError
from openline.wire.responses_client import Failed, is_permanent

T = TypeVar("T")


def once(timeout_s: float) -> APIConnectOptions:
    """One attempt. Plugins log their retries with the provider's words, which may repeat what was said."""
    return APIConnectOptions(max_retry=0, timeout=timeout_s)


def label_of(kind: str, plugin: Any, expected: type[Any], call: str) -> str:
    """How errors name it. Raises ConfigError when ``plugin`` is not what ``call`` takes."""
    if not isinstance(plugin, expected):
        raise ConfigError(
            f"{call}: expected a {expected.__name__} of livekit.agents; got '{type(plugin).__name__}'.",
            hint="Make the plugin first, such as livekit.plugins.openai.STT().",
        )
    model = str(plugin.model)
    return f"{kind} {plugin.label}" + (f" ({model})" if model not in ("", "unknown") else "")


class Surroundings:
    """Around one plugin, from ``open`` to ``close``. Loop-bound."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._holder: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._context is not None

    async def open(self) -> None:
        ready: asyncio.Future[Context] = asyncio.get_running_loop().create_future()
        self._over.clear()
        self._holder = asyncio.create_task(self._hold(ready))
        either: list[asyncio.Future[Any]] = [self._holder, ready]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._holder  # raises what went wrong
        self._context = ready.result()

    async def close(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the plugin by its own ``aclose``, then its HTTP session. Idempotent."""
        if self._holder is None:
            return
        holder, self._holder = self._holder, None
        try:
            # A plugin that cannot be closed must not keep the gateway from closing.
            with contextlib.suppress(Exception):
                await self.run(aclose())
        finally:
            self._context = None
            self._over.set()
            await holder

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """``function``; the tasks that it starts see the HTTP session as well."""
        assert self._context is not None
        return self._context.copy().run(function, *arguments, **named)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """``work``, as a task that ends with the caller."""
        assert self._context is not None
        return await asyncio.get_running_loop().create_task(work, context=self._context.copy())

    async def _hold(self, ready: asyncio.Future[Context]) -> None:
        # A task of its own: what is entered must be left in the same context.
        async with http_context.open():
            ready.set_result(copy_context())
            await self._over.wait()


# ------------------------------------------------------------------------------------------------- errors


@dataclass(frozen=True, slots=True)
class _Told:
    what: str
    hint: str
    cause: str
    is_for_good: bool = False


_HINTS = {
    401: "Check the key that the plugin was given.",
    403: "Check the key that the plugin was given, and what it may do.",
    404: "Check the URL and the model that the plugin was given.",
    429: "The provider's rate limit or credit is used up; its own console says which.",
}
_UNREACHED = "Is the service up, and the URL right that the plugin was given?"


def speech_error(label: str, error: Exception) -> SpeechError:
    told = _told(error)
    return SpeechError(f"{label}: {told.what}.", hint=told.hint)


def link_error(label: str, error: Exception) -> LinkError:
    told = _told(error)
    kind = LinkRejected if told.is_for_good else LinkUnavailable
    return kind(f"{label}: {told.what}.", hint=told.hint, cause=told.cause)


def _told(error: Exception) -> _Told:
    """Type, status and short code only: the texts of plugins repeat requests, and with them what was said."""
    match error:
        case APIStatusError():
            status, code = error.status_code, _code_of(error.body)
            what = "refused" + (f" with HTTP {status}" if status > 0 else "") + (f" ({code})" if code else "")
            for_good = not error.retryable or is_permanent(Failed(code, max(0, status)))
            hint = _HINTS.get(status, "The provider's own log says more.")
            return _Told(what, hint, code or f"http_{status}", for_good)
        case APITimeoutError():
            return _Told("no answer in time", _UNREACHED, "timeout")
        case APIConnectionError():
            root = _root_of(error)
            return _Told(f"the connection failed ({type(root).__name__})", _UNREACHED, "connection")
        case APIError():
            return _Told("the plugin gave up (APIError)", "", "api_error", not error.retryable)
        case TimeoutError():
            return _Told("silent for too long", _UNREACHED, "stalled")
        case _:
            hint = "The fault is in the plugin or in how it was made."
            return _Told(f"the plugin failed ({type(error).__name__})", hint, "plugin_failed")


def _code_of(body: object) -> str:
    """A provider's short code, where it gave one that is safe to show."""
    if isinstance(body, dict):
        inner = body.get("error")
        code = (inner if isinstance(inner, dict) else body).get("code")
        if isinstance(code, str) and re.fullmatch(r"[a-z0-9_.-]{1,64}", code):
            return code
    return ""


def _root_of(error: BaseException) -> BaseException:
    for _ in range(10):  # a chain may be a ring
        if error.__cause__ is None:
            return error
        error = error.__cause__
    return error
