"""The conformance suite of the SessionLog port: what every store must do, as named checks.

A store's tests give a ``Shelf``: a place for one log, empty at first, that hands out unopened logs on it.

    @pytest.mark.parametrize("name", log_checks())
    def test_store(name, tmp_path):
        asyncio.run(check_log(name, lambda: Shelf(lambda **limits: SqliteLog(tmp_path, **limits))))

A check raises AssertionError, with the rule that was broken. What a store cannot do is switched off by its
capabilities, which are thereby also its documentation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from openline.errors import ClientProtocolError, LogConflict, LogUnavailable, OpenlineError, SessionNotFound
from openline.ports import FeedEntry, SessionLog, StepRecord
from openline.types import Epoch, Seq, SessionId

DEADLINE_S = 20.0
"""A check that takes longer has hung."""


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
_CHECKS: dict[str, Check] = {}


def log_checks() -> list[str]:
    """The names of all checks."""
    return list(_CHECKS)


async def check_log(name: str, shelf: Shelf, *, deadline_s: float = DEADLINE_S) -> None:
    """Run one check on an empty shelf. Raises AssertionError, or TimeoutError after ``deadline_s`` seconds."""
    async with asyncio.timeout(deadline_s):
        await _CHECKS[name](shelf)


def _check(function: Check) -> Check:
    _CHECKS[getattr(function, "__name__", "")] = function
    return function


async def own(log: SessionLog, name: str, *, tenant: str = "default", node: str = "node_a") -> Owner:
    """Acquire (creating it if need be) and subscribe."""
    session = SessionId(name)
    owner = Owner(log, session)
    owner.epoch, last_seq = await log.acquire(session, node, tenant=tenant, create=True)
    owner.next_seq = last_seq + 1
    log.subscribe(session, owner)
    return owner


async def _opened(shelf: Shelf, **limits: int) -> SessionLog:
    log = shelf.make(**limits)
    await log.open()
    return log


def _seqs(records: list[StepRecord]) -> list[tuple[int, int]]:
    return [(record.first_seq, record.last_seq) for record in records]


async def _raises(expected: type[OpenlineError], work: Awaitable[object]) -> None:
    try:
        await work
    except expected:
        return
    raise AssertionError(f"expected {expected.__name__}; nothing was raised")


# ------------------------------------------------------------------------------------- appending, reading


@_check
async def stores_what_was_appended(shelf: Shelf) -> None:
    """Every field of a record comes back, bytes and types exactly."""
    log = await _opened(shelf)
    owner = await own(log, "sess_fields", tenant="acme")
    body = bytes(range(256))
    sent = owner.append("openline.turn.committed", "response.done", body=body, at_ms=1234, tenant="acme")
    await owner.durable()
    assert await log.read(owner.session) == [sent]
    await log.close()


@_check
async def keeps_a_gap_free_order(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_order")
    for number in range(300):
        owner.append(*["test.fact"] * (1 + number % 3))
    await owner.durable()
    seqs = _seqs(await log.read(owner.session))
    assert len(seqs) == 300
    assert seqs[0][0] == 1
    assert all(later[0] == earlier[1] + 1 for earlier, later in zip(seqs, seqs[1:], strict=False))
    assert seqs[-1][1] == 600
    await log.close()


@_check
async def nothing_is_told_before_append_returns(shelf: Shelf) -> None:
    """``append`` only reserves: the sink is called later, from the loop, never from inside it."""
    log = await _opened(shelf)
    owner = await own(log, "sess_later")
    owner.append()
    assert owner.told == []
    await owner.durable()
    await log.close()


@_check
async def durable_marks_only_grow(shelf: Shelf) -> None:
    """Marks rise in order, and what is reported is readable at that very moment."""
    log = await _opened(shelf)
    owners = [await own(log, f"sess_marks{number}") for number in range(5)]
    for round_ in range(20):
        for owner in owners:
            owner.append()
        if round_ % 4 == 0:
            await asyncio.sleep(0)
    for owner in owners:
        await owner.durable()
        marks = [told for told in owner.told if not isinstance(told, Exception)]
        assert marks == sorted(set(marks)), f"expected rising marks; got {marks}"
        assert (await log.read(owner.session))[-1].last_seq == owner.mark == 20
    await log.close()


@_check
async def only_durable_steps_are_readable(shelf: Shelf) -> None:
    """Whatever a reader sees beside running appends is a gap-free prefix of what was appended."""
    log = await _opened(shelf)
    owner = await own(log, "sess_prefix")
    seen = 0
    for _ in range(30):
        for _ in range(10):
            owner.append()
        records = await log.read(owner.session)
        assert _seqs(records) == [(seq, seq) for seq in range(1, len(records) + 1)]
        assert len(records) >= max(seen, 0)
        seen = len(records)
    await owner.durable()
    await log.close()


@_check
async def read_pages(shelf: Shelf) -> None:
    """``after`` inside a step of several facts gives that step again: its last seq is greater."""
    log = await _opened(shelf)
    owner = await own(log, "sess_pages")
    for _ in range(10):
        owner.append("a", "b", "c")
    await owner.durable()
    assert _seqs(await log.read(owner.session, limit=2)) == [(1, 3), (4, 6)]
    assert _seqs(await log.read(owner.session, after=Seq(3), limit=2)) == [(4, 6), (7, 9)]
    assert _seqs(await log.read(owner.session, after=Seq(4), limit=1)) == [(4, 6)]
    assert await log.read(owner.session, after=Seq(30)) == []
    await log.close()


@_check
async def unknown_sessions_are_not_found(shelf: Shelf) -> None:
    log = await _opened(shelf)
    nobody = SessionId("sess_nobody")
    await _raises(SessionNotFound, log.read(nobody))
    await _raises(SessionNotFound, log.session(nobody))
    await _raises(SessionNotFound, log.acquire(nobody, "node_a"))
    await _raises(SessionNotFound, log.delete_session(nobody))
    await _raises(SessionNotFound, log.feed(session=nobody))
    await log.close()


@_check
async def flush_waits_for_what_was_queued(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_flush")
    for _ in range(50):
        owner.append()
    await log.flush()
    assert owner.mark == 50
    await log.flush()
    await log.close()


# --------------------------------------------------------------------------------------------- the fence


@_check
async def acquire_counts_epochs(shelf: Shelf) -> None:
    """Each acquisition is the next epoch, and tells the last stored seq, with all that was queued before."""
    log = await _opened(shelf)
    session = SessionId("sess_epochs")
    assert await log.acquire(session, "node_a", create=True) == (1, 0)
    assert await log.acquire(session, "node_b") == (2, 0)
    owner = await own(log, session, node="node_c")
    assert owner.epoch == 3
    owner.append("a", "b")
    await owner.durable()
    assert await log.acquire(session, "node_d") == (4, 2)
    row = await log.session(session)
    assert (row.epoch, row.node, row.last_seq) == (4, "node_d", 2)
    await log.close()


@_check
async def a_stale_epoch_is_refused(shelf: Shelf) -> None:
    log = await _opened(shelf)
    old = await own(log, "sess_stale")
    old.append()
    await old.durable()
    await log.acquire(old.session, "node_b")
    old.append()
    assert isinstance(await old.is_refused(), LogConflict)
    assert old.mark == 1
    assert len(await log.read(old.session)) == 1
    await log.close()


@_check
async def a_stale_owner_does_not_harm_the_new_one(shelf: Shelf) -> None:
    log = await _opened(shelf)
    old = await own(log, "sess_zombie")
    epoch, last_seq = await log.acquire(old.session, "node_b")
    new = Owner(log, old.session, epoch, last_seq + 1)
    new.append()
    old.append()
    new.append()
    await log.flush()
    assert [record.epoch for record in await log.read(old.session)] == [2, 2]
    assert isinstance(await old.is_refused(), LogConflict)
    await log.close()


@_check
async def an_unacquired_session_is_refused(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = Owner(log, SessionId("sess_never"), Epoch(1))
    log.subscribe(owner.session, owner)
    owner.append()
    assert isinstance(await owner.is_refused(), LogConflict)
    await log.close()


@_check
async def an_epoch_never_given_is_refused(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_future")
    owner.append(epoch=Epoch(2))
    assert isinstance(await owner.is_refused(), LogConflict)
    await log.close()


@_check
async def a_wrong_seq_is_refused_with_what_follows(shelf: Shelf) -> None:
    """A gap closes the session to that epoch, also when a later record would fit; others are stored."""
    log = await _opened(shelf)
    broken, sound = await own(log, "sess_gap"), await own(log, "sess_sound")
    broken.append()
    sound.append()
    broken.append(first_seq=Seq(3))
    sound.append()
    broken.append(first_seq=Seq(2))
    sound.append()
    await sound.durable()
    assert isinstance(await broken.is_refused(), LogConflict)
    await log.flush()
    assert broken.mark == 1
    assert _seqs(await log.read(broken.session)) == [(1, 1)]
    assert _seqs(await log.read(sound.session)) == [(1, 1), (2, 2), (3, 3)]
    assert not sound.errors
    await log.close()


@_check
async def a_repeated_seq_is_refused(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_again")
    owner.append("a", "b")
    await owner.durable()
    for first_seq in (1, 2):
        owner.append("a", "b", first_seq=Seq(first_seq))
    assert isinstance(await owner.is_refused(), LogConflict)
    await log.flush()
    assert _seqs(await log.read(owner.session)) == [(1, 2)]
    await log.close()


@_check
async def acquiring_again_heals(shelf: Shelf) -> None:
    """All refusals of the old epoch are told before acquire returns; the new epoch is clean."""
    log = await _opened(shelf)
    owner = await own(log, "sess_heal")
    owner.append()
    owner.append(first_seq=Seq(7))
    owner.append()
    again = await own(log, owner.session)
    assert (again.epoch, again.next_seq) == (2, 2)
    assert [type(told) for told in owner.told] == [int, LogConflict]
    again.append()
    await again.durable()
    await log.flush()
    assert not again.errors
    assert _seqs(await log.read(owner.session)) == [(1, 1), (2, 2)]
    await log.close()


@_check
async def tenants_do_not_see_each_other(shelf: Shelf) -> None:
    log = await _opened(shelf)
    ours = await own(log, "sess_ours", tenant="acme")
    other = await own(log, "sess_other", tenant="globex")
    ours.append(tenant="acme")
    other.append(tenant="globex")
    await ours.durable()
    await other.durable()
    await _raises(SessionNotFound, log.acquire(ours.session, "node_b", tenant="globex"))
    await _raises(SessionNotFound, log.acquire(ours.session, "node_b", tenant="globex", create=True))
    assert [row.session for row in await log.sessions(tenant="acme")] == [ours.session]
    assert [entry.record.session for entry in await log.feed(tenant="globex")] == [other.session]
    assert (await log.session(ours.session)).epoch == 1
    await log.close()


# -------------------------------------------------------------------------------------- sessions, the feed


@_check
async def sessions_are_listed_newest_first(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owners = [await own(log, f"sess_list{number}") for number in range(5)]
    owners[1].append(status="parked", at_ms=77)
    owners[3].append(status="parked")
    owners[3].append(status="live")
    for owner in owners:
        await owner.durable()
    names = [owner.session for owner in reversed(owners)]
    assert [row.session for row in await log.sessions()] == names
    assert [row.session for row in await log.sessions(limit=2)] == names[:2]
    assert [row.session for row in await log.sessions(before=names[1], limit=2)] == names[2:4]
    (parked,) = await log.sessions(status="parked")
    assert (parked.session, parked.last_seq, parked.updated_ms) == (owners[1].session, 1, 77)
    assert (await log.session(owners[3].session)).status == "live"
    await log.close()


@_check
async def the_feed_pages_by_cursor(shelf: Shelf) -> None:
    """Pages of any size give the same entries in the same order; cursors sort as text."""
    log = await _opened(shelf)
    owners = [await own(log, f"sess_feed{number}") for number in range(3)]
    for number in range(30):
        owners[number % 3].append()
    await log.flush()
    whole = await log.feed()
    assert len(whole) == 30
    cursors = [entry.cursor for entry in whole]
    assert cursors == sorted(set(cursors))
    assert await log.feed_end() == cursors[-1]
    paged: list[FeedEntry] = []
    while page := await log.feed(after=paged[-1].cursor if paged else "", limit=7):
        paged += page
    assert paged == whole
    one = await log.feed(session=owners[1].session)
    assert [entry.record.first_seq for entry in one] == list(range(1, 11))
    await log.close()


@_check
async def an_empty_feed_has_no_end(shelf: Shelf) -> None:
    log = await _opened(shelf)
    assert await log.feed() == []
    assert await log.feed_end() == ""
    await log.close()


@_check
async def the_feed_filters_by_type(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_types")
    owner.append("openline.tool.started")
    owner.append("response.done", "openline.tool.settled")
    owner.append("openline.toolbox.opened")
    owner.append("response.done.extra")
    await owner.durable()

    async def found(*types: str) -> list[int]:
        return [entry.record.first_seq for entry in await log.feed(types=types)]

    assert await found("openline.tool.*") == [1, 2]
    assert await found("response.done") == [2]
    assert await found("openline.tool") == []
    assert await found("response.done.extra", "openline.tool.started") == [1, 5]
    assert await found("openline.*") == [1, 2, 4]
    assert await found("*") == [1, 2, 4, 5]
    assert await found("tool.started") == []
    await log.close()


@_check
async def a_foreign_cursor_is_a_typed_error(shelf: Shelf) -> None:
    log = await _opened(shelf)
    await _raises(ClientProtocolError, log.feed(after="no cursor'; --"))
    await log.close()


@_check
async def the_feed_is_stable_under_appends(shelf: Shelf) -> None:
    """A follower that pages while others append sees every step once, in its session's order."""
    log = await _opened(shelf)
    owners = [await own(log, f"sess_stable{number}") for number in range(8)]
    wake = asyncio.Event()
    stop = log.on_feed(wake.set)
    followed: list[FeedEntry] = []

    async def follow() -> None:
        while len(followed) < 400:
            wake.clear()
            page = await log.feed(after=followed[-1].cursor if followed else "", limit=13)
            followed.extend(page)
            if not page:
                await wake.wait()

    follower = asyncio.create_task(follow())
    for round_ in range(50):
        for owner in owners:
            owner.append()
        if round_ % 5 == 0:
            await log.flush()
    await follower
    stop()
    assert followed == await log.feed(limit=1000)
    for owner in owners:
        mine = [entry.record.first_seq for entry in followed if entry.record.session == owner.session]
        assert mine == list(range(1, 51))
    await log.close()


@_check
async def on_feed_calls_until_stopped(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_notify")
    calls: list[int] = []
    stop = log.on_feed(lambda: calls.append(1))
    owner.append()
    await log.flush()
    assert calls == [1]
    stop()
    stop()
    owner.append()
    await log.flush()
    assert calls == [1]
    await log.close()


@_check
async def a_removed_sink_hears_nothing(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_removed")
    owner.append()
    log.subscribe(owner.session, None)
    log.subscribe(owner.session, None)
    await log.flush()
    assert owner.told == []
    assert len(await log.read(owner.session)) == 1
    await log.close()


# --------------------------------------------------------------------------- wake-ups, values, deletion


@_check
async def wakeups_are_due_in_order(shelf: Shelf) -> None:
    """None leaves the wake-up as it is, 0 clears it, a due one stays until an append changes it."""
    log = await _opened(shelf)
    late, early, never = [await own(log, f"sess_wake{number}") for number in range(3)]
    late.append(wake_at_ms=2000)
    early.append(wake_at_ms=1000)
    never.append(wake_at_ms=500)
    never.append(wake_at_ms=0)
    early.append()
    await log.flush()
    assert await log.due_wakeups(999) == []
    assert await log.due_wakeups(1000) == [early.session]
    assert await log.due_wakeups(5000) == [early.session, late.session]
    assert await log.due_wakeups(5000, limit=1) == [early.session]
    early.append(wake_at_ms=9000)
    await log.flush()
    assert await log.due_wakeups(5000) == [late.session]
    await log.close()


@_check
async def values_replace_and_expire(shelf: Shelf) -> None:
    log = await _opened(shelf)
    assert await log.get_value("secrets", "a") is None
    await log.put_value("secrets", "a", b"one")
    await log.put_value("notes", "a", b"elsewhere")
    await log.put_value("secrets", "a", b"two", expires_ms=1000)
    assert await log.get_value("secrets", "a", now_ms=999) == b"two"
    assert await log.get_value("secrets", "a", now_ms=1000) is None
    assert await log.get_value("notes", "a", now_ms=10**12) == b"elsewhere"
    await log.close()


@_check
async def a_deleted_session_is_gone(shelf: Shelf) -> None:
    """Also from the feed and the wake-ups; its feed positions are not used again; its id may be."""
    log = await _opened(shelf)
    kept, gone = await own(log, "sess_kept"), await own(log, "sess_gone")
    kept.append()
    gone.append(wake_at_ms=1)
    await log.flush()
    end = await log.feed_end()
    await log.delete_session(gone.session)
    await _raises(SessionNotFound, log.read(gone.session))
    assert [entry.record.session for entry in await log.feed()] == [kept.session]
    assert await log.due_wakeups(10) == []
    assert [row.session for row in await log.sessions()] == [kept.session]
    gone.append()
    assert isinstance(await gone.is_refused(), LogConflict)
    again = await own(log, gone.session)
    assert (again.epoch, again.next_seq) == (1, 1)
    again.append()
    await log.flush()
    (entry,) = await log.feed(after=end)
    assert entry.record.session == again.session, "a consumer past the deleted steps must see the new one"
    await log.close()


# ------------------------------------------------------------------------------ fullness, closing, counting


def _is_saturated(log: SessionLog) -> bool:
    """Read afresh: a type checker takes a property that was once true for true ever after."""
    return log.is_saturated


@_check
async def a_full_queue_pushes_back(shelf: Shelf) -> None:
    """Saturated above the high mark, refused at the limit, relieved below the low mark."""
    if not shelf.capabilities.bounded_queue:
        return
    log = await _opened(shelf, queue_items_max=100)
    owner = await own(log, "sess_full")
    relieved = asyncio.Event()
    log.on_relief(relieved.set)
    assert not _is_saturated(log)
    refused = False
    for _ in range(101):
        record = owner.record()
        try:
            log.append(record)
        except LogUnavailable:
            refused = True
            break
        owner.next_seq += 1
    # No await since the first append: nothing can have been settled yet.
    assert refused
    assert owner.next_seq == 101
    assert _is_saturated(log)
    await owner.durable()
    await relieved.wait()
    assert not _is_saturated(log)
    owner.append()
    await owner.durable()
    assert len(await log.read(owner.session)) == 101
    assert log.statistics().queue_items_max == 100
    await log.close()


@_check
async def closing_flushes(shelf: Shelf) -> None:
    """Everything appended is told before close returns; afterwards nothing is taken."""
    log = await _opened(shelf)
    owner = await own(log, "sess_close")
    for _ in range(100):
        owner.append()
    await log.close()
    assert owner.mark == 100
    taken = True
    try:
        owner.append()
    except LogUnavailable:
        taken = False
    assert not taken, "expected LogUnavailable from an append to a closed log"
    await _raises(LogUnavailable, log.acquire(owner.session, "node_b"))
    await _raises(LogUnavailable, log.read(owner.session))
    await log.flush()
    await log.close()


@_check
async def reopening_keeps_everything(shelf: Shelf) -> None:
    if not shelf.capabilities.keeps_data:
        return
    log = await _opened(shelf)
    owner, deleted = await own(log, "sess_reopen", tenant="acme"), await own(log, "sess_tail")
    for _ in range(20):
        owner.append("a", "b", status="parked", wake_at_ms=5, tenant="acme")
    deleted.append()
    await log.put_value("notes", "x", b"y")
    steps, row = await log.read(owner.session), await log.session(owner.session)
    feed, end = await log.feed(session=owner.session), await log.feed_end()
    await log.delete_session(deleted.session)
    await log.close()

    log = await _opened(shelf)
    assert await log.read(owner.session) == steps
    assert await log.session(owner.session) == row
    assert await log.feed() == feed
    assert await log.get_value("notes", "x") == b"y"
    assert await log.due_wakeups(5) == [owner.session]
    again = await own(log, owner.session, tenant="acme")
    assert (again.epoch, again.next_seq) == (2, 41)
    again.append()
    await again.durable()
    (entry,) = await log.feed(after=end)
    assert entry.record.first_seq == 41, "positions of deleted steps must not come back after a restart"
    await log.close()


@_check
async def statistics_count(shelf: Shelf) -> None:
    log = await _opened(shelf)
    owner = await own(log, "sess_count")
    owner.append("a", "b")
    owner.append("a")
    assert log.statistics().queue_items >= 2
    await owner.durable()
    owner.append(first_seq=Seq(9))
    await log.flush()
    counted = log.statistics()
    assert (counted.appended_steps, counted.appended_facts, counted.refused) == (2, 3, 1)
    assert counted.commits >= 1
    assert (counted.queue_items, counted.queue_bytes) == (0, 0)
    await log.close()


@_check
async def a_cancelled_wait_leaves_the_log_sound(shelf: Shelf) -> None:
    """Cancelling acquire or put_value hurts nobody; at worst the epoch has grown."""
    log = await _opened(shelf)
    owner = await own(log, "sess_cancel")
    for _ in range(5):
        task = asyncio.create_task(log.acquire(owner.session, "node_b"))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    again = await own(log, owner.session)
    assert again.epoch >= 2
    again.append()
    await again.durable()
    await log.close()
