"""MemoryLog: the twin of the SessionLog port. Same rules as the real stores, no disk, faults on request."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openline.core.value import replace
from openline.errors import (
    ClientProtocolError,
    IllegalTransition,
    LogConflict,
    LogUnavailable,
    SessionNotFound,
)
from openline.ports import AppendSink, FeedEntry, LogStatistics, SessionRow, StepRecord
from openline.types import Epoch, Seq, SessionId

CURSOR_DIGITS = 19
ENTRY_BYTES = 512
"""What a queued record counts beside its body; the same as in the SQLite store."""


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class _Session:
    row: int
    tenant: str
    epoch: Epoch
    node: str
    created_ms: int
    status: str = "created"
    wake_at_ms: int = 0
    steps: list[StepRecord] = field(default_factory=list)
    broken: Exception | None = None
    """Why everything of the current epoch is refused, once something of it was."""

    @property
    def last_seq(self) -> Seq:
        return self.steps[-1].last_seq if self.steps else Seq(0)


class MemoryLog:
    """A SessionLog in memory.

    By default what was appended is durable on the next iteration of the loop. With ``manual`` nothing is
    durable before ``commit()``: acquiring, values and deletion then take effect at once, without
    committing what is queued before them, as if another process had done them. ``close`` keeps
    everything; ``crash`` forgets what was not durable; after either, ``open`` goes on with what is there.
    """

    def __init__(
        self,
        *,
        manual: bool = False,
        queue_items_max: int = 20_000,
        queue_bytes_max: int = 64 << 20,
        wall_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._manual = manual
        self._items_max = queue_items_max
        self._bytes_max = queue_bytes_max
        self._wall_ms = wall_ms
        self._sessions: dict[SessionId, _Session] = {}
        self._feed: list[tuple[int, StepRecord]] = []
        self._values: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._positions = 0
        self._rows = 0
        self._queue: deque[StepRecord] = deque()
        self._commit_scheduled: asyncio.Handle | None = None
        self._flushes: list[asyncio.Future[None]] = []
        self._failures: deque[Exception] = deque()
        self._sinks: dict[SessionId, AppendSink] = {}
        self._feed_callbacks: dict[object, Callable[[], None]] = {}
        self._relief: list[Callable[[], None]] = []
        self._saturated = False
        self._is_open = False
        self._statistics = LogStatistics()

    # ---- for tests

    def commit(self) -> None:
        """Make everything queued durable (or refused), and tell the sinks before this returns."""
        self._commit_scheduled = None
        batch, self._queue = self._queue, deque()
        failure = self._failures.popleft() if batch and self._failures else None
        self._statistics.queue_items = self._statistics.queue_bytes = 0
        told: list[tuple[SessionId, Seq | Exception]] = []
        steps = 0
        for record in batch:
            error = self._refusal(record, failure)
            if error is None:
                self._store(record)
                steps += 1
                told.append((record.session, record.last_seq))
            else:
                self._statistics.refused += 1
                told.append((record.session, error))
        self._statistics.commits += steps > 0
        self._tell(told)
        flushes, self._flushes = self._flushes, []
        for flush in flushes:
            if not flush.done():
                flush.set_result(None)
        if steps:
            for callback in tuple(self._feed_callbacks.values()):
                callback()
        self._relieve()

    def fail_next(self, error: Exception) -> None:
        """The next commit with something in it stores nothing; its sessions are refused with ``error``.

        Called n times, the next n commits fail.
        """
        self._failures.append(error)

    def crash(self) -> None:
        """Lose what is not durable, tell nobody, and be closed: what a killed process leaves."""
        self._queue.clear()
        self._sinks.clear()
        self._feed_callbacks.clear()
        self._relief.clear()
        self._stop()

    # ---- the port

    async def open(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        if self._is_open:
            self.commit()
            self._stop()

    async def acquire(
        self, session: SessionId, node: str, *, tenant: str = "default", create: bool = False
    ) -> tuple[Epoch, Seq]:
        self._settle_queue()
        found = self._sessions.get(session)
        if found is None and create:
            self._rows += 1
            self._sessions[session] = _Session(self._rows, tenant, Epoch(1), node, self._wall_ms())
            return Epoch(1), Seq(0)
        if found is None or found.tenant != tenant:
            raise SessionNotFound(f"expected a stored session of tenant {tenant}; got {session}.")
        found.epoch = Epoch(found.epoch + 1)
        found.node = node
        found.broken = None
        return found.epoch, found.last_seq

    def subscribe(self, session: SessionId, sink: AppendSink | None) -> None:
        if sink is None:
            self._sinks.pop(session, None)
        else:
            self._sinks[session] = sink

    def append(self, record: StepRecord) -> None:
        self._require_open()
        if not record.types:
            raise IllegalTransition(f"append to {record.session}: expected a step with facts; got none.")
        statistics = self._statistics
        items = statistics.queue_items + 1
        size = statistics.queue_bytes + len(record.body) + ENTRY_BYTES
        if items > self._items_max or size > self._bytes_max:
            raise LogUnavailable(
                f"the log's queue is full: {statistics.queue_items} of {self._items_max} items.",
                hint="Stop taking input while is_saturated; then acquire the session again.",
            )
        statistics.queue_items, statistics.queue_bytes = items, size
        statistics.queue_items_max = max(statistics.queue_items_max, items)
        if items > self._items_max * 0.5 or size > self._bytes_max * 0.5:
            self._saturated = True
        self._queue.append(record)
        if not self._manual and self._commit_scheduled is None:
            self._commit_scheduled = asyncio.get_running_loop().call_soon(self.commit)

    @property
    def is_saturated(self) -> bool:
        return self._saturated

    def on_relief(self, callback: Callable[[], None]) -> None:
        self._relief.append(callback)

    async def flush(self) -> None:
        """With ``manual`` this waits for the test's ``commit``."""
        if not self._queue:
            return
        flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append(flushed)
        await flushed

    async def read(self, session: SessionId, *, after: Seq = Seq(0), limit: int = 1000) -> list[StepRecord]:
        found = self._require(session)
        return [record for record in found.steps if record.last_seq > after][:limit]

    async def sessions(
        self, *, tenant: str | None = "default", status: str | None = None, limit: int = 100, before: str = ""
    ) -> list[SessionRow]:
        self._require_open()
        bound = self._require(SessionId(before)).row if before else self._rows + 1
        rows = [
            _row(name, found)
            for name, found in self._sessions.items()
            if tenant in (None, found.tenant) and found.row < bound and status in (None, found.status)
        ]
        return rows[::-1][:limit]

    async def session(self, session: SessionId) -> SessionRow:
        return _row(session, self._require(session))

    async def feed(
        self,
        *,
        after: str = "",
        limit: int = 500,
        types: Sequence[str] = (),
        session: SessionId | None = None,
        tenant: str | None = None,
    ) -> list[FeedEntry]:
        if session is not None:
            self._require(session)
        self._require_open()
        start = _decode_cursor(after)
        entries: list[FeedEntry] = []
        for position, record in self._feed:
            if (
                position <= start
                or session not in (None, record.session)
                or tenant not in (None, record.tenant)
            ):
                continue
            if types and not any(_matches(wanted, record.types) for wanted in types):
                continue
            if len(entries) == limit:
                break
            entries.append(FeedEntry(_encode_cursor(position), record))
        return entries

    async def feed_end(self) -> str:
        self._require_open()
        return _encode_cursor(self._feed[-1][0]) if self._feed else ""

    def on_feed(self, callback: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._feed_callbacks[key] = callback

        def stop() -> None:
            self._feed_callbacks.pop(key, None)

        return stop

    async def due_wakeups(self, now_ms: int, *, limit: int = 100) -> list[SessionId]:
        self._require_open()
        due = sorted(
            (found.wake_at_ms, found.row, name)
            for name, found in self._sessions.items()
            if 0 < found.wake_at_ms <= now_ms
        )
        return [name for _wake, _row, name in due[:limit]]

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None:
        self._settle_queue()
        self._values[space, key] = (value, expires_ms)

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
        self._require_open()
        value, expires_ms = self._values.get((space, key), (None, 0))
        return value if expires_ms == 0 or expires_ms > now_ms else None

    async def delete_session(self, session: SessionId) -> None:
        self._settle_queue()
        self._require(session)
        del self._sessions[session]
        self._feed = [(position, record) for position, record in self._feed if record.session != session]

    def statistics(self) -> LogStatistics:
        return self._statistics

    # ---- inside

    def _refusal(self, record: StepRecord, failure: Exception | None) -> Exception | None:
        """Why this record cannot be stored, or None. The rules of the fence, in one place."""
        found = self._sessions.get(record.session)
        if found is None:
            return LogConflict(f"append to {record.session}: expected a session that was acquired.")
        if record.epoch != found.epoch:
            return LogConflict(
                f"append to {record.session}: expected epoch {found.epoch}, got {record.epoch}.",
                hint="Another owner has taken it over: step down.",
            )
        if found.broken is None:
            if failure is not None:
                found.broken = failure
            elif record.first_seq != found.last_seq + 1:
                found.broken = LogConflict(
                    f"append to {record.session}: expected seq {found.last_seq + 1}, got {record.first_seq}.",
                    hint="Acquire it again and rebuild from the log.",
                )
        return found.broken

    def _store(self, record: StepRecord) -> None:
        found = self._sessions[record.session]
        if record.status is not None:
            found.status = record.status
        if record.wake_at_ms is not None:
            found.wake_at_ms = record.wake_at_ms
        stored = replace(record, status=None, wake_at_ms=None, tenant=found.tenant)
        self._positions += 1
        found.steps.append(stored)
        self._feed.append((self._positions, stored))
        self._statistics.appended_steps += 1
        self._statistics.appended_facts += len(record.types)

    def _tell(self, told: list[tuple[SessionId, Seq | Exception]]) -> None:
        """Each session hears its last durable seq once, then at most one refusal."""
        marks = {session: told for session, told in told if not isinstance(told, Exception)}
        errors: dict[SessionId, Exception] = {}
        for session, outcome in told:
            if isinstance(outcome, Exception):
                errors.setdefault(session, outcome)
        for session, mark in marks.items():
            if sink := self._sinks.get(session):
                sink.appended(mark)
        for session, error in errors.items():
            if sink := self._sinks.get(session):
                sink.refused(error)

    def _relieve(self) -> None:
        statistics = self._statistics
        if self._saturated and statistics.queue_items < self._items_max * 0.25:
            self._saturated = False
            for callback in tuple(self._relief):
                callback()

    def _settle_queue(self) -> None:
        """What came before an acquire, a value or a deletion is stored before it."""
        self._require_open()
        if not self._manual and self._queue:
            if self._commit_scheduled is not None:
                self._commit_scheduled.cancel()
            self.commit()

    def _stop(self) -> None:
        self._is_open = False
        self._saturated = False
        self._statistics.queue_items = self._statistics.queue_bytes = 0
        if self._commit_scheduled is not None:
            self._commit_scheduled.cancel()
            self._commit_scheduled = None

    def _require_open(self) -> None:
        if not self._is_open:
            raise LogUnavailable("the log is not open: await open() first.")

    def _require(self, session: SessionId) -> _Session:
        self._require_open()
        found = self._sessions.get(session)
        if found is None:
            raise SessionNotFound(f"expected a stored session; got {session}, which this log does not hold.")
        return found


def _row(name: SessionId, found: _Session) -> SessionRow:
    return SessionRow(
        session=name,
        tenant=found.tenant,
        epoch=found.epoch,
        node=found.node,
        last_seq=found.last_seq,
        status=found.status,
        created_ms=found.created_ms,
        updated_ms=found.steps[-1].at_ms if found.steps else found.created_ms,
    )


def _matches(wanted: str, types: tuple[str, ...]) -> bool:
    if wanted == "*":
        return True
    if wanted.endswith(".*"):
        return any(type_.startswith(wanted[:-1]) for type_ in types)
    return wanted in types


def _encode_cursor(position: int) -> str:
    return f"{position:0{CURSOR_DIGITS}d}"


def _decode_cursor(cursor: str) -> int:
    if not cursor:
        return 0
    if len(cursor) != CURSOR_DIGITS or not cursor.isascii() or not cursor.isdigit():
        raise ClientProtocolError(
            f"expected a cursor that this store gave out; got {cursor[:40]!r}.",
            code="invalid_cursor",
            param="after",
        )
    return int(cursor)
