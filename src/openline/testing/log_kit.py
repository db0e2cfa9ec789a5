"""What the checks of the SessionLog port are made of: the place for a log, an owner, the list of checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from openline.errors import OpenlineError
from openline.ports import SessionLog, StepRecord
from openline.types import Epoch, Seq, SessionId


@dataclass(frozen=True, slots=True)
class Capabilities:
    """``keeps_data``: a log closed and opened again has everything. ``bounded_queue``: takes
    ``queue_items_max`` and refuses what exceeds it."""

    keeps_data: bool = True
    bounded_queue: bool = True


class MakeLog(Protocol):
    def __call__(self, *, queue_items_max: int = ...) -> SessionLog: ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """One place for a log. ``make`` gives an unopened log on it; the earlier one has been closed."""

    make: MakeLog
    capabilities: Capabilities = Capabilities()


@dataclass(slots=True)
class Owner:
    """A session's owner as the checks need it: appends, and notes what it is told."""

    log: SessionLog
    session: SessionId
    epoch: Epoch = Epoch(0)
    next_seq: int = 1
    told: list[Seq | Exception] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def appended(self, last_seq: Seq) -> None:
        self.told.append(last_seq)
        self.changed.set()

    def refused(self, error: Exception) -> None:
        self.told.append(error)
        self.changed.set()

    @property
    def mark(self) -> int:
        """The highest seq that it was told to be durable."""
        return max((told for told in self.told if not isinstance(told, Exception)), default=0)

    @property
    def errors(self) -> list[Exception]:
        return [told for told in self.told if isinstance(told, Exception)]

    def record(self, *types: str, body: bytes = b"", at_ms: int = 1, **more: object) -> StepRecord:
        """The step that would follow the last one appended; ``more`` overrides fields."""
        fields: dict[str, object] = {
            "session": self.session,
            "epoch": self.epoch,
            "first_seq": Seq(self.next_seq),
            "types": types or ("test.fact",),
            "body": body or f"{self.session}/{self.next_seq}".encode(),
            "at_ms": at_ms,
        }
        return StepRecord(**{**fields, **more})  # type: ignore[arg-type]  # the fields are listed above

    def append(self, *types: str, body: bytes = b"", at_ms: int = 1, **more: object) -> StepRecord:
        record = self.record(*types, body=body, at_ms=at_ms, **more)
        self.log.append(record)
        self.next_seq = record.last_seq + 1
        return record

    async def durable(self) -> None:
        """Return once everything it appended is durable; AssertionError when something was refused."""
        while self.mark < self.next_seq - 1:
            assert not self.errors, f"expected {self.session} to be stored; refused: {self.errors}"
            self.changed.clear()
            await self.changed.wait()

    async def is_refused(self) -> Exception:
        while not self.errors:
            self.changed.clear()
            await self.changed.wait()
        return self.errors[0]


Check = Callable[[Shelf], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[getattr(function, "__name__", "")] = function
    return function


async def own(log: SessionLog, name: str, *, tenant: str = "default", node: str = "node_a") -> Owner:
    """Acquire (creating it if need be) and subscribe."""
    session = SessionId(name)
    owner = Owner(log, session)
    owner.epoch, last_seq = await log.acquire(session, node, tenant=tenant, create=True)
    owner.next_seq = last_seq + 1
    log.subscribe(session, owner)
    return owner


async def opened(shelf: Shelf, **limits: int) -> SessionLog:
    log = shelf.make(**limits)
    await log.open()
    return log


def seqs_of(records: list[StepRecord]) -> list[tuple[int, int]]:
    return [(record.first_seq, record.last_seq) for record in records]


async def raises(expected: type[OpenlineError], work: Awaitable[object]) -> None:
    try:
        await work
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}; nothing was raised")
