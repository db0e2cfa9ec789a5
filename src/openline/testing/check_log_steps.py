"""Checks of the SessionLog port: appending, reading, the fence, fullness, closing."""

from __future__ import annotations

import asyncio

from openline.errors import LogConflict, LogUnavailable, SessionNotFound
from openline.ports import SessionLog
from openline.testing.log_kit import Owner, Shelf, check, opened, own, raises, seqs_of
from openline.types import Epoch, Seq, SessionId

# ------------------------------------------------------------------------------------- appending, reading


@check
async def stores_what_was_appended(shelf: Shelf) -> None:
    """Every field of a record comes back, bytes and types exactly."""
    log = await opened(shelf)
    owner = await own(log, "sess_fields", tenant="acme")
    body = bytes(range(256))
    sent = owner.append("openline.turn.committed", "response.done", body=body, at_ms=1234, tenant="acme")
    await owner.durable()
    assert await log.read(owner.session) == [sent]
    await log.close()


@check
async def keeps_a_gap_free_order(shelf: Shelf) -> None:
    log = await opened(shelf)
    owner = await own(log, "sess_order")
    for number in range(300):
        owner.append(*["test.fact"] * (1 + number % 3))
    await owner.durable()
    seqs = seqs_of(await log.read(owner.session))
    assert len(seqs) == 300
    assert seqs[0][0] == 1
    assert all(later[0] == earlier[1] + 1 for earlier, later in zip(seqs, seqs[1:], strict=False))
    assert seqs[-1][1] == 600
    await log.close()


@check
async def nothing_is_told_before_append_returns(shelf: Shelf) -> None:
    """``append`` only reserves: the sink is called later, from the loop, never from inside it."""
    log = await opened(shelf)
    owner = await own(log, "sess_later")
    owner.append()
    assert owner.told == []
    await owner.durable()
    await log.close()


@check
async def durable_marks_only_grow(shelf: Shelf) -> None:
    """Marks rise in order, and what is reported is readable at that very moment."""
    log = await opened(shelf)
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


@check
async def only_durable_steps_are_readable(shelf: Shelf) -> None:
    """Whatever a reader sees beside running appends is a gap-free prefix of what was appended."""
    log = await opened(shelf)
    owner = await own(log, "sess_prefix")
    seen = 0
    for _ in range(30):
        for _ in range(10):
            owner.append()
        records = await log.read(owner.session)
        assert seqs_of(records) == [(seq, seq) for seq in range(1, len(records) + 1)]
        assert len(records) >= max(seen, 0)
        seen = len(records)
    await owner.durable()
    await log.close()


@check
async def read_pages(shelf: Shelf) -> None:
    """``after`` inside a step of several facts gives that step again: its last seq is greater."""
    log = await opened(shelf)
    owner = await own(log, "sess_pages")
    for _ in range(10):
        owner.append("a", "b", "c")
    await owner.durable()
    assert seqs_of(await log.read(owner.session, limit=2)) == [(1, 3), (4, 6)]
    assert seqs_of(await log.read(owner.session, after=Seq(3), limit=2)) == [(4, 6), (7, 9)]
    assert seqs_of(await log.read(owner.session, after=Seq(4), limit=1)) == [(4, 6)]
    assert await log.read(owner.session, after=Seq(30)) == []
    await log.close()


@check
async def unknown_sessions_are_not_found(shelf: Shelf) -> None:
    log = await opened(shelf)
    nobody = SessionId("sess_nobody")
    await raises(SessionNotFound, log.read(nobody))
    await raises(SessionNotFound, log.session(nobody))
    await raises(SessionNotFound, log.acquire(nobody, "node_a"))
    await raises(SessionNotFound, log.delete_session(nobody))
    await raises(SessionNotFound, log.feed(session=nobody))
    await log.close()


@check
async def flush_waits_for_what_was_queued(shelf: Shelf) -> None:
    log = await opened(shelf)
    owner = await own(log, "sess_flush")
    for _ in range(50):
        owner.append()
    await log.flush()
    assert owner.mark == 50
    await log.flush()
    await log.close()


# --------------------------------------------------------------------------------------------- the fence


@check
async def acquire_counts_epochs(shelf: Shelf) -> None:
    """Each acquisition is the next epoch, and tells the last stored seq, with all that was queued before."""
    log = await opened(shelf)
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


@check
async def a_stale_epoch_is_refused(shelf: Shelf) -> None:
    log = await opened(shelf)
    old = await own(log, "sess_stale")
    old.append()
    await old.durable()
    await log.acquire(old.session, "node_b")
    old.append()
    assert isinstance(await old.is_refused(), LogConflict)
    assert old.mark == 1
    assert len(await log.read(old.session)) == 1
    await log.close()


@check
async def a_stale_owner_does_not_harm_the_new_one(shelf: Shelf) -> None:
    log = await opened(shelf)
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


@check
async def an_unacquired_session_is_refused(shelf: Shelf) -> None:
    log = await opened(shelf)
    owner = Owner(log, SessionId("sess_never"), Epoch(1))
    log.subscribe(owner.session, owner)
    owner.append()
    assert isinstance(await owner.is_refused(), LogConflict)
    await log.close()


@check
async def an_epoch_never_given_is_refused(shelf: Shelf) -> None:
    log = await opened(shelf)
    owner = await own(log, "sess_future")
    owner.append(epoch=Epoch(2))
    assert isinstance(await owner.is_refused(), LogConflict)
    await log.close()


@check
async def a_wrong_seq_is_refused_with_what_follows(shelf: Shelf) -> None:
    """A gap closes the session to that epoch, also when a later record would fit; others are stored."""
    log = await opened(shelf)
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
    assert seqs_of(await log.read(broken.session)) == [(1, 1)]
    assert seqs_of(await log.read(sound.session)) == [(1, 1), (2, 2), (3, 3)]
    assert not sound.errors
    await log.close()


@check
async def a_repeated_seq_is_refused(shelf: Shelf) -> None:
    log = await opened(shelf)
    owner = await own(log, "sess_again")
    owner.append("a", "b")
    await owner.durable()
    for first_seq in (1, 2):
        owner.append("a", "b", first_seq=Seq(first_seq))
    assert isinstance(await owner.is_refused(), LogConflict)
    await log.flush()
    assert seqs_of(await log.read(owner.session)) == [(1, 2)]
    await log.close()


@check
async def acquiring_again_heals(shelf: Shelf) -> None:
    """All refusals of the old epoch are told before acquire returns; the new epoch is clean."""
    log = await opened(shelf)
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
    assert seqs_of(await log.read(owner.session)) == [(1, 1), (2, 2)]
    await log.close()


@check
async def tenants_do_not_see_each_other(shelf: Shelf) -> None:
    log = await opened(shelf)
    ours = await own(log, "sess_ours", tenant="acme")
    other = await own(log, "sess_other", tenant="globex")
    ours.append(tenant="acme")
    other.append(tenant="globex")
    await ours.durable()
    await other.durable()
    await raises(SessionNotFound, log.acquire(ours.session, "node_b", tenant="globex"))
    await raises(SessionNotFound, log.acquire(ours.session, "node_b", tenant="globex", create=True))
    assert [row.session for row in await log.sessions(tenant="acme")] == [ours.session]
    assert [row.session for row in await log.sessions(tenant=None)] == [other.session, ours.session]
    assert [entry.record.session for entry in await log.feed(tenant="globex")] == [other.session]
    assert (await log.session(ours.session)).epoch == 1
    await log.close()


# ------------------------------------------------------------------------------ fullness, closing, counting


def _is_saturated(log: SessionLog) -> bool:
    """Read afresh: a type checker takes a property that was once true for true ever after."""
    return log.is_saturated


@check
async def a_full_queue_pushes_back(shelf: Shelf) -> None:
    """Saturated above the high mark, refused at the limit, relieved below the low mark."""
    if not shelf.capabilities.bounded_queue:
        return
    log = await opened(shelf, queue_items_max=100)
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


@check
async def closing_flushes(shelf: Shelf) -> None:
    """Everything appended is told before close returns; afterwards nothing is taken."""
    log = await opened(shelf)
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
    await raises(LogUnavailable, log.acquire(owner.session, "node_b"))
    await raises(LogUnavailable, log.read(owner.session))
    await log.flush()
    await log.close()


@check
async def reopening_keeps_everything(shelf: Shelf) -> None:
    if not shelf.capabilities.keeps_data:
        return
    log = await opened(shelf)
    owner, deleted = await own(log, "sess_reopen", tenant="acme"), await own(log, "sess_tail")
    for _ in range(20):
        owner.append("a", "b", status="parked", wake_at_ms=5, tenant="acme")
    deleted.append()
    await log.put_value("notes", "x", b"y")
    steps, row = await log.read(owner.session), await log.session(owner.session)
    feed, end = await log.feed(session=owner.session), await log.feed_end()
    await log.delete_session(deleted.session)
    await log.close()

    log = await opened(shelf)
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


@check
async def statistics_count(shelf: Shelf) -> None:
    log = await opened(shelf)
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


@check
async def a_cancelled_wait_leaves_the_log_sound(shelf: Shelf) -> None:
    """Cancelling acquire or put_value hurts nobody; at worst the epoch has grown."""
    log = await opened(shelf)
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
