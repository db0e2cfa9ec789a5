"""The thread that owns the writing connection: transactions, the fence, the full disk, the fatal error.

Everything that writes goes through one queue in call order: steps, and jobs (ownership, values,
deletion). A batch is whatever queued while the last one was being committed. Nothing is reported
before its COMMIT has returned, which with ``synchronous=FULL`` is after the sync of the WAL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Literal, cast

import apsw

from openline.adapters.log_sqlite import database, queries
from openline.errors import LogConflict, LogCorrupt, LogError, LogUnavailable, OpenlineError, SessionNotFound
from openline.ports import StepRecord
from openline.types import Epoch, Seq, SessionId

logger = logging.getLogger(__name__)

BATCH_MAX = 2048
"""Entries in one transaction: bounds how long a commit takes (about 10 ms at 300 bytes)."""
ROWS_PER_STATEMENT = 32
"""Rows inserted by one statement, at most. SQLite is called without the GIL, and each call that comes back takes
it from the loop: up to a switch interval for the writer, a change of threads for every call. So a commit is as
few calls as can be, mostly one: an INSERT that begins, writes and commits by itself. 32: there is a prepared
statement for each number of rows, and an ordinary commit of 300 calls has five."""
FULL_RETRY_SECONDS = (0.05, 0.25)
"""Waits before the two retries on a full disk: enough for recording to stop and old files to go."""
RESTORE_SECONDS = 5.0
"""How often a full disk is looked at again."""
IDLE_CHECKPOINT_SECONDS = 2.0
"""Quiet time after which what is in the WAL goes into the database, so that a start has little to recover."""
LINGER_MORE = 4
"""So many times the wait for more, where the last commit had a few steps: they come faster than they are committed one
by one, and most of what a commit costs the loop's core does not depend on how many are in it. A single step waits no
longer, and many need not wait to be many."""
FEW_STEPS = range(2, 9)
HEADS_MAX = 50_000
"""Sessions whose last seq is kept in memory (about 200 bytes each); beyond that it is read again."""


@dataclass(slots=True)
class Job:
    """Work inside the transaction, at its place in the queue. ``settle`` gets the result after COMMIT.

    ``run`` may be called again after a rollback. An OpenlineError from it, or a value that SQLite cannot
    take, is its result and must come before it has written anything.
    """

    run: Callable[[Transaction], object]
    settle: Callable[[object, Exception | None], None]


@dataclass(slots=True)
class Outcome:
    """What one commit did, in order; delivered to the loop in one call."""

    sinks: list[tuple[SessionId, Seq | Exception]] = field(default_factory=list)
    jobs: list[tuple[Job, object, Exception | None]] = field(default_factory=list)
    taken: int = 0
    taken_bytes: int = 0
    steps: int = 0
    facts: int = 0
    refused: int = 0
    commit_ms: float = 0.0
    disk_is_full: bool | None = None
    fatal: LogError | None = None


@dataclass(slots=True)
class _Head:
    """Where a session's log ends and who may write there."""

    row: int
    epoch: int
    last_seq: int
    tenant: str
    status: str
    wake_at_ms: int


Entry = StepRecord | Job
Row = tuple[int, int, int, int, int, int, str, bytes]


class Transaction:
    """One batch on its way into the database. Made anew for each attempt."""

    def __init__(self, writer: Writer, db: apsw.Connection) -> None:
        self.db = db
        self.outcome = Outcome()
        self._writer = writer
        self._rows: list[Row] = []
        self._marks: dict[SessionId, Seq] = {}
        self._refused: set[SessionId] = set()
        self._status: dict[int, str] = {}
        self._wakeups: dict[int, int] = {}

    def add(self, record: StepRecord) -> None:
        """Stage a step, or refuse it and with it its session's later ones."""
        error = self._check(record)
        if error is not None:
            self._refuse(record.session, error)
            return
        head = self._writer.heads[record.session]
        last_seq = record.last_seq
        head.last_seq = last_seq
        types = queries.pack_types(record.types)
        pos = self._writer.take_pos()
        self._rows.append(
            (pos, head.row, record.first_seq, last_seq, record.epoch, record.at_ms, types, record.body)
        )
        self._marks[record.session] = last_seq
        self.outcome.steps += 1
        self.outcome.facts += len(record.types)
        # Every step says both, one in a hundred changes them. If this attempt fails, the heads are forgotten.
        if record.status is not None and record.status != head.status:
            self._status[head.row] = head.status = record.status
        if record.wake_at_ms is not None and record.wake_at_ms != head.wake_at_ms:
            self._wakeups[head.row] = head.wake_at_ms = record.wake_at_ms

    def run(self, job: Job) -> None:
        self.write()
        try:
            result = job.run(self)
        except (OpenlineError, TypeError, ValueError, OverflowError) as error:
            # The last three: SQLite could not take a value. That is this caller's bug and nobody else's.
            self.outcome.jobs.append((job, None, error))
        else:
            self.outcome.jobs.append((job, result, None))

    def write(self) -> None:
        """Send what is staged to the database."""
        rows, self._rows = self._rows, []
        for at in range(0, len(rows), ROWS_PER_STATEMENT):
            part = rows[at : at + ROWS_PER_STATEMENT]
            self.db.execute(_INSERT[len(part)], [value for row in part for value in row])
        for row, status in self._status.items():
            self.db.execute("UPDATE sessions SET status = ? WHERE id = ?", (status, row))
        for row, wake_at_ms in self._wakeups.items():
            if wake_at_ms:
                self.db.execute("INSERT OR REPLACE INTO wakeups VALUES (?, ?)", (row, wake_at_ms))
            else:
                self.db.execute("DELETE FROM wakeups WHERE session = ?", (row,))
        self._status.clear()
        self._wakeups.clear()

    @property
    def is_one_statement(self) -> bool:
        """``write`` is a single INSERT, which SQLite commits by itself if nobody has begun a transaction."""
        return 0 < len(self._rows) <= ROWS_PER_STATEMENT and not self._status and not self._wakeups

    def finish(self) -> Outcome:
        self.outcome.sinks.extend(self._marks.items())
        return self.outcome

    def head(self, session: SessionId) -> _Head | None:
        """The session's head, from memory or from the database."""
        heads = self._writer.heads
        head = heads.get(session)
        if head is None:
            row = self.db.execute(
                "SELECT id, epoch, coalesce((SELECT max(last_seq) FROM steps WHERE session = s.id), 0), tenant, "
                "status, coalesce((SELECT wake_at_ms FROM wakeups WHERE session = s.id), 0) "
                "FROM sessions s WHERE name = ?",
                (session,),
            ).fetchone()
            if row is None:
                return None
            head = heads[session] = _Head(*cast(tuple[int, int, int, str, str, int], row))
        return head

    # ---- jobs

    def acquire(
        self, session: SessionId, node: str, tenant: str, create: bool, now_ms: int
    ) -> tuple[Epoch, Seq]:
        head = self.head(session)
        if head is not None and head.tenant != tenant:
            head = None
            create = False
        if head is None and not create:
            raise SessionNotFound(f"expected a stored session of tenant {tenant}; got {session}.")
        if head is None:
            if self._writer.disk_is_full:
                # What is left belongs to the sessions that have to end.
                raise LogUnavailable("the disk is full: no new session.", hint="Free some space.")
            self.db.execute(
                "INSERT INTO sessions (name, tenant, epoch, node, status, created_ms) "
                "VALUES (?, ?, 1, ?, 'created', ?)",
                (session, tenant, node, now_ms),
            )
            head = _Head(self.db.last_insert_rowid(), 1, 0, tenant, "created", 0)
            self._writer.heads[session] = head
        else:
            self.db.execute(
                "UPDATE sessions SET epoch = ?, node = ? WHERE id = ?", (head.epoch + 1, node, head.row)
            )
            head.epoch += 1
        self._writer.broken.pop(session, None)
        return Epoch(head.epoch), Seq(head.last_seq)

    def delete(self, session: SessionId) -> None:
        head = self.head(session)
        if head is None:
            raise SessionNotFound(f"expected a stored session; got {session}.")
        # What is deleted is overwritten with zeros: its owner may have asked for it to be forgotten.
        self.db.execute("PRAGMA secure_delete = ON")
        self.db.execute("DELETE FROM steps WHERE session = ?", (head.row,))
        self.db.execute("DELETE FROM wakeups WHERE session = ?", (head.row,))
        self.db.execute("DELETE FROM sessions WHERE id = ?", (head.row,))
        # A position is never used twice, or a consumer whose cursor is past it would miss the new step.
        self.db.execute("INSERT OR REPLACE INTO meta VALUES ('next_pos', ?)", (self._writer.next_pos,))
        self.db.execute("PRAGMA secure_delete = OFF")
        self._writer.forgets = "now"
        del self._writer.heads[session]
        self._writer.broken.pop(session, None)

    def put_value(self, space: str, key: str, value: bytes, expires_ms: int) -> None:
        self.db.execute("INSERT OR REPLACE INTO kv VALUES (?, ?, ?, ?)", (space, key, value, expires_ms))

    # ---- the fence

    def _check(self, record: StepRecord) -> Exception | None:
        session = record.session
        head = self.head(session)
        if head is None:
            return LogConflict(
                f"append to {session}: expected a session that was acquired; it is not stored."
            )
        if record.epoch != head.epoch:
            return LogConflict(
                f"append to {session}: expected epoch {head.epoch}, got {record.epoch}.",
                hint="Another owner has taken it over: step down.",
            )
        broken = self._writer.broken.get(session)
        if broken is not None and broken[0] == record.epoch:
            return broken[1]
        if record.first_seq != head.last_seq + 1:
            error = LogConflict(
                f"append to {session}: expected seq {head.last_seq + 1}, got {record.first_seq}.",
                hint="Acquire it again and rebuild from the log.",
            )
            self._writer.broken[session] = (head.epoch, error)
            return error
        return None

    def _refuse(self, session: SessionId, error: Exception) -> None:
        self.outcome.refused += 1
        if session in self._refused:
            return
        self._refused.add(session)
        mark = self._marks.pop(session, None)
        if mark is not None:
            self.outcome.sinks.append((session, mark))
        self.outcome.sinks.append((session, error))


def _insert(rows: int) -> str:
    return f"INSERT INTO steps VALUES {', '.join(['(?, ?, ?, ?, ?, ?, ?, ?)'] * rows)}"  # noqa: S608  constants only


_INSERT = {size: _insert(size) for size in range(1, ROWS_PER_STATEMENT + 1)}


class Writer:
    """The thread and what only it may touch. ``put`` and ``stop`` are called from the loop's thread.

    ``deliver`` is called on the writer thread with each Outcome and passes it to the loop.
    """

    def __init__(
        self,
        place: database.Placement,
        deliver: Callable[[Outcome], None],
        *,
        linger_s: float,
        checkpoint_pages: int,
        wall_ms: Callable[[], int],
    ) -> None:
        self._place = place
        self._deliver = deliver
        self._linger_s = linger_s
        self._checkpoint_pages = checkpoint_pages
        self._wall_ms = wall_ms
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        """None only wakes the thread."""
        self._stopping = False
        self._taken = 0
        """Entries of the last batch."""
        self._fatal: LogError | None = None
        self._wal_pages = 0
        self._reserve = database.Reserve(place.folder)
        self._restore_at = 0.0
        self.thread: threading.Thread | None = None
        self.heads: dict[SessionId, _Head] = {}
        self.broken: dict[SessionId, tuple[int, Exception]] = {}
        self.next_pos = 1
        self.disk_is_full = False
        self.forgets: Literal["", "now", "later"] = ""
        """The WAL may still hold what was deleted; when it is to be emptied."""

    def start(self, opened: Callable[[Exception | None], None]) -> None:
        """Start the thread; ``opened`` is called on it once, with what went wrong or None."""
        self.thread = threading.Thread(target=self._main, args=(opened,), name="openline-log", daemon=True)
        self.thread.start()

    def put(self, entry: Entry) -> None:
        self._queue.put(entry)

    def stop(self) -> None:
        """Commit what is queued, checkpoint, close, end the thread."""
        self._stopping = True
        self._queue.put(None)

    def take_pos(self) -> int:
        pos = self.next_pos
        self.next_pos = pos + 1
        return pos

    # ---- the thread

    def _main(self, opened: Callable[[Exception | None], None]) -> None:
        lock = db = None
        try:
            lock = database.DirectoryLock.take(self._place.folder)
            db = database.open_writer(self._place)
            self._prepare(db)
        except Exception as error:  # whatever it is, open() raises it: no other place could
            if db is not None:
                self._close(db)
            if lock is not None:
                lock.release()
            opened(database.unusable(self._place, error) if isinstance(error, apsw.Error) else error)
            return
        opened(None)
        try:
            self._work(db)
        finally:
            self._shut(db)
            lock.release()

    def _prepare(self, db: apsw.Connection) -> None:
        row = db.execute(
            "SELECT max(coalesce((SELECT max(pos) FROM steps), 0) + 1, "
            "coalesce((SELECT value FROM meta WHERE key = 'next_pos'), 1))"
        ).fetchone()
        self.next_pos = cast(tuple[int], row)[0]
        db.execute("DELETE FROM kv WHERE expires_ms != 0 AND expires_ms <= ?", (self._wall_ms(),))
        if not self._reserve.create():
            self._found_full()

    def _work(self, db: apsw.Connection) -> None:
        queue = self._queue
        while not self._stopping or not queue.empty():
            try:
                first = queue.get(timeout=IDLE_CHECKPOINT_SECONDS)
            except Empty:
                self._idle(db)
                continue
            if first is None:
                continue
            if self._linger_s and not self._stopping:
                time.sleep(self._linger_s * (LINGER_MORE if self._taken in FEW_STEPS else 1))
            batch = self._take(first)
            self._taken = len(batch)
            self._commit(db, batch)
            # Counted here and not by a WAL hook, which SQLite would call in the middle of each commit, with the GIL.
            self._wal_pages += db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE, True)[0]
            if self._wal_pages >= self._checkpoint_pages:
                self._checkpoint(db)
            if self.forgets == "now":
                self._forget(db)

    def _take(self, first: Entry) -> list[Entry]:
        queue, batch = self._queue, [first]
        for _ in range(min(queue.qsize(), BATCH_MAX - 1)):
            entry = queue.get_nowait()
            if entry is not None:
                batch.append(entry)
        return batch

    def _commit(self, db: apsw.Connection, batch: list[Entry]) -> None:
        began = time.perf_counter()
        outcome = self._try_batch(db, batch)
        outcome.commit_ms = (time.perf_counter() - began) * 1000
        outcome.taken = len(batch)
        outcome.taken_bytes = sum(entry_bytes(entry) for entry in batch)
        if self.disk_is_full and outcome.steps:
            self._look_for_space()
        outcome.disk_is_full = self.disk_is_full
        self._deliver(outcome)
        if len(self.heads) > HEADS_MAX:
            self.heads.clear()

    def _try_batch(self, db: apsw.Connection, batch: list[Entry]) -> Outcome:
        if self._fatal is not None:
            return self._refuse_all(batch, self._fatal)
        for wait_s in (*FULL_RETRY_SECONDS, None):
            try:
                return self._attempt(db, batch)
            except apsw.FullError:
                self._roll_back(db)
                self._found_full()
                if wait_s is not None:
                    time.sleep(wait_s)
            except Exception as error:  # any other failure of a commit: what is on the disk is unknown
                self._roll_back(db)
                return self._die(batch, error)
        self._reserve.spend()
        return self._refuse_all(
            batch, LogUnavailable("the disk is full: nothing was stored.", hint="Free some space.")
        )

    def _attempt(self, db: apsw.Connection, batch: list[Entry]) -> Outcome:
        transaction = Transaction(self, db)
        for entry in batch:
            if isinstance(entry, StepRecord):
                transaction.add(entry)
            else:
                if not db.in_transaction:
                    db.execute("BEGIN IMMEDIATE")
                transaction.run(entry)
        # The fence of ``add`` reads what only this thread writes: it needs no transaction around it.
        if not db.in_transaction and not transaction.is_one_statement:
            db.execute("BEGIN IMMEDIATE")
        transaction.write()
        if db.in_transaction:
            db.execute("COMMIT")
        return transaction.finish()

    def _roll_back(self, db: apsw.Connection) -> None:
        """Forget the attempt. Most errors have rolled back already, so a failure here says nothing new."""
        self.heads.clear()
        if db.in_transaction:
            try:
                db.execute("ROLLBACK")
            except apsw.Error as error:
                logger.warning("log: rollback failed: %s", type(error).__name__)

    def _refuse_all(self, batch: list[Entry], error: LogError) -> Outcome:
        """Nothing of the batch is stored: each of its sessions is told once and closed to this epoch."""
        outcome = Outcome()
        told: set[SessionId] = set()
        for entry in batch:
            if isinstance(entry, Job):
                outcome.jobs.append((entry, None, error))
                continue
            outcome.refused += 1
            known = self.broken.get(entry.session)
            if known is None or known[0] < entry.epoch:
                self.broken[entry.session] = (entry.epoch, error)
            if entry.session not in told:
                told.add(entry.session)
                outcome.sinks.append((entry.session, error))
        return outcome

    def _die(self, batch: list[Entry], error: Exception) -> Outcome:
        """A failed sync may have dropped pages that the kernel now calls clean: never write again."""
        name = type(error).__name__
        logger.critical("log: commit failed (%s): refusing everything from here on", name)
        if isinstance(error, apsw.ConstraintError | apsw.CorruptError | LogCorrupt):
            self._fatal = LogCorrupt(f"the log at {self._place.folder} is damaged ({name}).", hint="Restart.")
        else:
            self._fatal = LogUnavailable(
                f"a write to the log at {self._place.folder} failed ({name}).",
                hint="Check the disk, then restart the gateway.",
            )
        self._fatal.__cause__ = error
        outcome = self._refuse_all(batch, self._fatal)
        outcome.fatal = self._fatal
        return outcome

    # ---- checkpoints and space

    def _checkpoint(self, db: apsw.Connection, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
        """Move committed pages from the WAL into the database. A sync that fails here is fatal, too."""
        self._wal_pages = 0
        if self._fatal is not None:
            return
        try:
            db.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.LockedError):
            pass  # a reader still needs the old pages: the next checkpoint gets them
        except apsw.FullError:
            self._found_full()
        except apsw.Error as error:
            outcome = self._die([], error)
            self._deliver(outcome)

    def _forget(self, db: apsw.Connection) -> None:
        """Empty the WAL, so that nothing of what was deleted is in a file. A reader may need it: then once more when
        it is quiet. Nobody is waited for, as live calls are."""
        db.set_busy_timeout(0)
        self._checkpoint(db, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        db.set_busy_timeout(database.BUSY_MS)
        self.forgets = "later" if self._place.wal_bytes() else ""

    def _idle(self, db: apsw.Connection) -> None:
        if self.forgets:
            self._forget(db)
        elif self._wal_pages:
            self._checkpoint(db)
        if self.disk_is_full:
            self._look_for_space()
            self._deliver(Outcome(disk_is_full=self.disk_is_full))

    def _found_full(self) -> None:
        if not self.disk_is_full:
            logger.error("log: the disk is full")
            self.disk_is_full = True
            self._restore_at = time.monotonic() + RESTORE_SECONDS
            # Told at once, not with the outcome: recording must stop while the batch is still retried.
            self._deliver(Outcome(disk_is_full=True))

    def _look_for_space(self) -> None:
        now = time.monotonic()
        if now < self._restore_at:
            return
        self._restore_at = now + RESTORE_SECONDS
        if self._reserve.restore():
            logger.warning("log: the disk has space again")
            self.disk_is_full = False

    def _shut(self, db: apsw.Connection) -> None:
        self._checkpoint(db, apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._close(db)

    def _close(self, db: apsw.Connection) -> None:
        try:
            db.close()
        except apsw.Error as error:
            logger.warning("log: close failed: %s", type(error).__name__)


def entry_bytes(entry: Entry) -> int:
    """What an entry counts in the queue: its body, and about what the objects around it take."""
    return len(entry.body) + 512 if isinstance(entry, StepRecord) else 512
