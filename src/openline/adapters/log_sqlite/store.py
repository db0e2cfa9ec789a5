"""SqliteLog: the SessionLog port on one SQLite file. This file is the event loop's side of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import TypeVar

import apsw

from openline.adapters.log_sqlite import database, queries
from openline.adapters.log_sqlite.writer import Job, Outcome, Transaction, Writer, entry_bytes
from openline.errors import IllegalTransition, LogError, LogUnavailable
from openline.ports import AppendSink, FeedEntry, LogStatistics, SessionRow, StepRecord
from openline.types import Epoch, Seq, SessionId

QUEUE_ITEMS_MAX = 20_000
"""Two seconds at 10,000 steps a second: far above any commit, far below what hurts memory (20 MB)."""
QUEUE_BYTES_MAX = 64 << 20
HIGH_SHARE = 0.5
"""Share of a queue limit above which ``is_saturated`` holds; below LOW_SHARE it is relieved."""
LOW_SHARE = 0.25
LINGER_S = 0.0005
"""How long a batch may grow before it is taken. At 10,000 facts/s on two cores, 0 / 0.5 / 1 / 2 ms gave p99
7.0 / 3.1 / 5.0 / 12.8 ms at 58 / 41 / 34 / 29 % of a core (bench/log_append.py): each commit hands the GIL over
a few times, so fewer, larger commits also disturb the loop less."""
CHECKPOINT_PAGES = 1000
"""WAL length at which it is moved into the database: 16 MB of 16 KiB pages."""
READERS = 2

T = TypeVar("T")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteLog:
    """A SessionLog in ``data_dir`` (made if it is not there). One process at a time.

    ``on_fatal`` is called once, on the loop, when a commit or a sync failed: from then on everything is
    refused with LogUnavailable, and the process must end. ``on_disk_full`` is called with True when a
    commit found the disk full (stop recording, take no new sessions) and with False when there is space
    again. ``queue_items_max`` and ``queue_bytes_max`` are the hard limits of what is not yet durable.
    ``vfs`` and ``checkpoint_pages`` are for tests; with a ``vfs``, reads run on the writer thread.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        queue_items_max: int = QUEUE_ITEMS_MAX,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        on_fatal: Callable[[LogError], None] | None = None,
        on_disk_full: Callable[[bool], None] | None = None,
        linger_s: float = LINGER_S,
        checkpoint_pages: int = CHECKPOINT_PAGES,
        vfs: str = "",
        wall_ms: Callable[[], int] = _wall_ms,
    ) -> None:
        self._place = database.Placement(Path(data_dir), vfs)
        self._items_max = queue_items_max
        self._bytes_max = queue_bytes_max
        self._on_fatal = on_fatal
        self._on_disk_full = on_disk_full
        self._wall_ms = wall_ms
        self._writer = Writer(
            self._place,
            self._deliver_from_thread,
            linger_s=linger_s,
            checkpoint_pages=checkpoint_pages,
            wall_ms=wall_ms,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reader = local()
        self._reader_connections: list[apsw.Connection] = []
        self._refusal = "the log is not open: await open() first."
        self._sinks: dict[SessionId, AppendSink] = {}
        self._feed: dict[object, Callable[[], None]] = {}
        self._relief: list[Callable[[], None]] = []
        self._saturated = False
        self._disk_is_full = False
        self._statistics = LogStatistics()

    # ---- opening and closing

    async def open(self) -> None:
        assert self._loop is None, "a SqliteLog is opened once; make another"
        loop = self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = loop.create_future()

        def report(error: Exception | None) -> None:
            loop.call_soon_threadsafe(_settle, opened, None, error)

        self._writer.start(report)
        # Shielded: the thread opens whether or not the caller still waits, and close() must find it.
        await asyncio.shield(opened)
        self._refusal = ""
        if not self._place.vfs:
            self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="openline-log-read")

    async def close(self) -> None:
        """Flush, checkpoint, close. If cancelled, the writer still finishes in the background."""
        if self._loop is None:
            return
        if self._ended is None:
            self._refusal = "the log is closed."
            self._ended = asyncio.ensure_future(asyncio.to_thread(self._stop_threads))
        await asyncio.shield(self._ended)
        # What the writer delivered last is in the loop's queue before the future's own callback.

    def _stop_threads(self) -> None:
        if self._readers is not None:
            self._readers.shutdown()
        for connection in self._reader_connections:
            connection.close()
        self._writer.stop()
        if self._writer.thread is not None:
            self._writer.thread.join()

    # ---- ownership and appending

    async def acquire(
        self, session: SessionId, node: str, *, tenant: str = "default", create: bool = False
    ) -> tuple[Epoch, Seq]:
        """See the port. If cancelled, ownership may have been taken: the epoch may have grown."""
        now_ms = self._wall_ms()
        return await self._job(lambda at: at.acquire(session, node, tenant, create, now_ms))

    def subscribe(self, session: SessionId, sink: AppendSink | None) -> None:
        if sink is None:
            self._sinks.pop(session, None)
        else:
            self._sinks[session] = sink

    def append(self, record: StepRecord) -> None:
        if self._refusal:
            raise LogUnavailable(self._refusal)
        if not record.types:
            raise IllegalTransition(f"append to {record.session}: expected a step with facts; got none.")
        if type(record.body) is not bytes:
            raise IllegalTransition(f"append to {record.session}: expected bytes; got {type(record.body)}.")
        statistics = self._statistics
        items = statistics.queue_items + 1
        size = statistics.queue_bytes + entry_bytes(record)
        if items > self._items_max or size > self._bytes_max:
            raise LogUnavailable(
                f"the log's queue is full: {statistics.queue_items} of {self._items_max} items, "
                f"{statistics.queue_bytes} of {self._bytes_max} bytes.",
                hint="Stop taking input while is_saturated; then acquire the session again.",
            )
        self._count(items, size)
        self._writer.put(record)

    def _count(self, items: int, size: int) -> None:
        statistics = self._statistics
        statistics.queue_items = items
        statistics.queue_bytes = size
        if items > statistics.queue_items_max:
            statistics.queue_items_max = items
        if items > self._items_max * HIGH_SHARE or size > self._bytes_max * HIGH_SHARE:
            self._saturated = True

    @property
    def is_saturated(self) -> bool:
        return self._saturated

    @property
    def disk_is_full(self) -> bool:
        """True from the first commit that found no space until there is clearly some again."""
        return self._disk_is_full

    def on_relief(self, callback: Callable[[], None]) -> None:
        self._relief.append(callback)

    async def flush(self) -> None:
        if not self._refusal:
            try:
                await self._job(lambda _at: None)
            except LogUnavailable:
                pass  # everything before it was refused, too: settled, which is all that was asked

    # ---- reading

    async def read(self, session: SessionId, *, after: Seq = Seq(0), limit: int = 1000) -> list[StepRecord]:
        return await self._read(lambda db: queries.read(db, session, after, limit))

    async def sessions(
        self, *, tenant: str | None = "default", status: str | None = None, limit: int = 100, before: str = ""
    ) -> list[SessionRow]:
        return await self._read(lambda db: queries.sessions(db, tenant, status, limit, before))

    async def session(self, session: SessionId) -> SessionRow:
        return await self._read(lambda db: queries.session(db, session))

    async def feed(
        self,
        *,
        after: str = "",
        limit: int = 500,
        types: Sequence[str] = (),
        session: SessionId | None = None,
        tenant: str | None = None,
    ) -> list[FeedEntry]:
        return await self._read(lambda db: queries.feed(db, after, limit, types, session, tenant))

    async def feed_end(self) -> str:
        return await self._read(queries.feed_end)

    def on_feed(self, callback: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._feed[key] = callback

        def stop() -> None:
            self._feed.pop(key, None)

        return stop

    async def due_wakeups(self, now_ms: int, *, limit: int = 100) -> list[SessionId]:
        return await self._read(lambda db: queries.due_wakeups(db, now_ms, limit))

    # ---- values and deletion

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None:
        await self._job(lambda at: at.put_value(space, key, value, expires_ms))

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
        return await self._read(lambda db: queries.get_value(db, space, key, now_ms))

    async def delete_session(self, session: SessionId) -> None:
        await self._job(lambda at: at.delete(session))

    def statistics(self) -> LogStatistics:
        return self._statistics

    # ---- between the threads

    async def _job(self, run: Callable[[Transaction], T]) -> T:
        if self._refusal:
            raise LogUnavailable(self._refusal)
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[T] = loop.create_future()
        job = Job(run, lambda result, error: _settle(settled, result, error))
        # Jobs count in the queue, but are never refused for its length: they are awaited one by one.
        self._count(self._statistics.queue_items + 1, self._statistics.queue_bytes + entry_bytes(job))
        self._writer.put(job)
        return await settled

    async def _read(self, query: Callable[[apsw.Connection], T]) -> T:
        if self._place.vfs:
            return await self._job(lambda at: query(at.db))
        if self._readers is None or self._ended is not None:
            raise LogUnavailable(self._refusal)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._run_query, query)

    def _run_query(self, query: Callable[[apsw.Connection], T]) -> T:
        connection: apsw.Connection | None = getattr(self._reader, "connection", None)
        try:
            if connection is None:
                connection = self._reader.connection = database.open_reader(self._place)
                self._reader_connections.append(connection)
            return query(connection)
        except apsw.Error as error:
            raise LogUnavailable(
                f"reading the log at {self._place.folder} failed ({type(error).__name__}).",
                hint="Check the disk.",
            ) from error

    def _deliver_from_thread(self, outcome: Outcome) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcome)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    def _deliver(self, outcome: Outcome) -> None:
        """Tell everyone what one commit did. Runs on the loop, once a commit."""
        self._account(outcome)
        sinks = self._sinks
        for session, told in outcome.sinks:
            sink = sinks.get(session)
            if sink is None:
                continue
            try:
                if isinstance(told, Exception):
                    sink.refused(told)
                else:
                    sink.appended(told)
            except Exception as fault:  # one session's bug must not cost the others their outcome
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"the sink of session {session} failed", "exception": fault}
                )
        for job, result, error in outcome.jobs:
            job.settle(result, error)
        if outcome.steps:
            for callback in tuple(self._feed.values()):
                callback()
        if outcome.fatal is not None:
            self._refusal = str(outcome.fatal)
            if self._on_fatal is not None:
                self._on_fatal(outcome.fatal)
        is_full = outcome.disk_is_full
        if is_full is not None and is_full != self._disk_is_full:
            self._disk_is_full = is_full
            if self._on_disk_full is not None:
                self._on_disk_full(is_full)
        self._relieve()

    def _account(self, outcome: Outcome) -> None:
        statistics = self._statistics
        statistics.queue_items -= outcome.taken
        statistics.queue_bytes -= outcome.taken_bytes
        statistics.appended_steps += outcome.steps
        statistics.appended_facts += outcome.facts
        statistics.refused += outcome.refused
        if outcome.steps:
            statistics.commits += 1
            statistics.commit_ms_last = outcome.commit_ms
            statistics.commit_ms_max = max(statistics.commit_ms_max, outcome.commit_ms)

    def _relieve(self) -> None:
        if not self._saturated:
            return
        statistics = self._statistics
        if statistics.queue_items >= self._items_max * LOW_SHARE:
            return
        if statistics.queue_bytes >= self._bytes_max * LOW_SHARE:
            return
        self._saturated = False
        for callback in self._relief:
            callback()


def _settle(future: asyncio.Future[T], result: object, error: Exception | None) -> None:
    if future.done():  # its caller was cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]  # a Job's result has its run's type
