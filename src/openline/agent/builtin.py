"""Tools that every agent may use: time, timer, note, arithmetic. Plain typed functions.

What they need from outside comes in a ``ToolContext``, which the runtime makes for each call; it is no part
of a tool's schema. All are safe to run again under the same key, so their recovery policy is ``retry``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Protocol
from weakref import WeakValueDictionary
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from openline.agent.arithmetic import evaluate
from openline.errors import ToolError
from openline.types import CallId, Now, SessionId

MAX_NOTES = 200
"""Notes of one session; they are one stored value, and a list nobody can listen to is no use."""
MAX_NOTE = 2_000
"""Characters of one note."""
MAX_TIMER_S = 7 * 24 * 3600
"""As long as a session is parked by default; a later timer would find nobody."""
NOTES_SPACE = "notes"


class ValueStore(Protocol):
    """Durable small values; ``ports.SessionLog`` is one."""

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None: ...

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer to be fired at ``due_ms`` (Unix milliseconds). ``key`` is the call's idempotency key: one timer
    for it, however often the call runs."""

    session: SessionId
    key: str
    due_ms: int
    label: str


class Notebook:
    """Notes of sessions in a value store: one value a session, changed under a lock of that session.

    One per process and store: the lock is what keeps two notes taken at once.
    """

    def __init__(self, values: ValueStore) -> None:
        self._values = values
        self._locks: WeakValueDictionary[SessionId, asyncio.Lock] = WeakValueDictionary()

    async def add(self, session: SessionId, key: str, text: str, at_ms: int) -> int:
        """Store a note and return how many there are. The same ``key`` again changes nothing.

        Raises ToolError when the session has MAX_NOTES, LogUnavailable from the store. If cancelled, the note
        may or may not be stored.
        """
        lock = self._locks.setdefault(session, asyncio.Lock())
        async with lock:
            notes = await self._read(session)
            if all(note.key != key for note in notes):
                if len(notes) >= MAX_NOTES:
                    raise ToolError(f"notes: expected at most {MAX_NOTES} in a session; all are used.")
                notes.append(_Note(key, text, at_ms))
                await self._values.put_value(NOTES_SPACE, session, msgspec.json.encode(notes))
            return len(notes)

    async def all(self, session: SessionId) -> list[str]:
        """The notes, oldest first."""
        return [note.text for note in await self._read(session)]

    async def _read(self, session: SessionId) -> list[_Note]:
        found = await self._values.get_value(NOTES_SPACE, session)
        return msgspec.json.decode(found, type=list[_Note]) if found is not None else []


class _Note(msgspec.Struct, frozen=True):
    key: str
    text: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a built-in tool may use in one call.

    ``key`` is the call's idempotency key, stable across attempts. ``start_timer`` makes a timer durable and
    returns; it is called on the session's loop, and firing is the runtime's part. ``timezone`` is an IANA name.
    """

    session: SessionId
    call_id: CallId
    key: str
    now: Now
    notebook: Notebook
    start_timer: Callable[[Timer], None]
    timezone: str = "UTC"


def get_time(context: ToolContext, timezone: str | None = None) -> str:
    """The current time and date.

    timezone: IANA name like Europe/Berlin; the session's own if it is left out.
    """
    moment = _local(context, context.now.wall_ms, timezone)
    return f"It is {moment:%H:%M} on {moment:%A}, {moment.day} {moment:%B %Y}, {timezone or context.timezone} time."


async def set_timer(
    seconds: Annotated[int, msgspec.Meta(ge=1, le=MAX_TIMER_S)],
    context: ToolContext,
    label: Annotated[str, msgspec.Meta(max_length=100)] = "",
) -> str:
    """Set a timer, alarm or reminder that rings after some seconds.

    seconds: How long from now, in seconds.
    label: What it is called.
    """
    # Async without a wait: plain functions run in a thread, and the callback belongs to the loop.
    due_ms = context.now.wall_ms + seconds * 1000
    context.start_timer(Timer(context.session, context.key, due_ms, label))
    called = f" called {label}" if label else ""
    return f"The timer{called} is set for {_duration(seconds)}. It is due at {_local(context, due_ms, None):%H:%M:%S}."


async def take_note(
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NOTE)], context: ToolContext
) -> str:
    """Write down a note.

    text: What to write down.
    """
    count = await context.notebook.add(context.session, context.key, text, context.now.wall_ms)
    return "I wrote that down." if count == 1 else f"I wrote that down. There are {count} notes now."


async def list_notes(context: ToolContext) -> list[str]:
    """Read out all notes."""
    return await context.notebook.all(context.session)


def calculate(expression: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]) -> int | float:
    """Work out an arithmetic expression: a sum, product, division, power or percentage.

    expression: Digits and signs or words, like 2 * (3 + 4) or twelve times seven.
    """
    return evaluate(expression)


BUILTIN_TOOLS: tuple[Callable[..., object], ...] = (get_time, set_timer, take_note, list_notes, calculate)


def _local(context: ToolContext, wall_ms: int, timezone: str | None) -> datetime:
    name = timezone or context.timezone
    if name.upper() in ("UTC", "GMT", "Z"):  # also where no zone data is installed
        return datetime.fromtimestamp(wall_ms / 1000, UTC)
    try:
        return datetime.fromtimestamp(wall_ms / 1000, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ToolError(
            "timezone: expected an IANA name that is known here, like Europe/Berlin; got another.",
            hint="Leave it out to use the session's own.",
        ) from error


def _duration(seconds: int) -> str:
    """``90`` is "1 minute and 30 seconds"."""
    parts: list[str] = []
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
