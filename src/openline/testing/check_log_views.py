"""Checks of the SessionLog port: the session list, the feed, wake-ups, values, deletion."""

from __future__ import annotations

import asyncio

from openline.errors import ClientProtocolError, LogConflict, SessionNotFound
from openline.ports import FeedEntry
from openline.testing.log_kit import Shelf, check, opened, own, raises

# -------------------------------------------------------------------------------------- sessions, the feed


@check
async def sessions_are_listed_newest_first(shelf: Shelf) -> None:
    log = await opened(shelf)
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


@check
async def the_feed_pages_by_cursor(shelf: Shelf) -> None:
    """Pages of any size give the same entries in the same order; cursors sort as text."""
    log = await opened(shelf)
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


@check
async def an_empty_feed_has_no_end(shelf: Shelf) -> None:
    log = await opened(shelf)
    assert await log.feed() == []
    assert await log.feed_end() == ""
    await log.close()


@check
async def the_feed_filters_by_type(shelf: Shelf) -> None:
    log = await opened(shelf)
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


@check
async def a_foreign_cursor_is_a_typed_error(shelf: Shelf) -> None:
    log = await opened(shelf)
    await raises(ClientProtocolError, log.feed(after="no cursor'; --"))
    await log.close()


@check
async def the_feed_is_stable_under_appends(shelf: Shelf) -> None:
    """A follower that pages while others append sees every step once, in its session's order."""
    log = await opened(shelf)
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


@check
async def on_feed_calls_until_stopped(shelf: Shelf) -> None:
    log = await opened(shelf)
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


@check
async def a_removed_sink_hears_nothing(shelf: Shelf) -> None:
    log = await opened(shelf)
    owner = await own(log, "sess_removed")
    owner.append()
    log.subscribe(owner.session, None)
    log.subscribe(owner.session, None)
    await log.flush()
    assert owner.told == []
    assert len(await log.read(owner.session)) == 1
    await log.close()


# --------------------------------------------------------------------------- wake-ups, values, deletion


@check
async def wakeups_are_due_in_order(shelf: Shelf) -> None:
    """None leaves the wake-up as it is, 0 clears it, a due one stays until an append changes it."""
    log = await opened(shelf)
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


@check
async def values_replace_and_expire(shelf: Shelf) -> None:
    log = await opened(shelf)
    assert await log.get_value("secrets", "a") is None
    await log.put_value("secrets", "a", b"one")
    await log.put_value("notes", "a", b"elsewhere")
    await log.put_value("secrets", "a", b"two", expires_ms=1000)
    assert await log.get_value("secrets", "a", now_ms=999) == b"two"
    assert await log.get_value("secrets", "a", now_ms=1000) is None
    assert await log.get_value("notes", "a", now_ms=10**12) == b"elsewhere"
    await log.close()


@check
async def a_deleted_session_is_gone(shelf: Shelf) -> None:
    """Also from the feed and the wake-ups; its feed positions are not used again; its id may be."""
    log = await opened(shelf)
    kept, gone = await own(log, "sess_kept"), await own(log, "sess_gone")
    kept.append()
    gone.append(wake_at_ms=1)
    await log.flush()
    end = await log.feed_end()
    await log.delete_session(gone.session)
    await raises(SessionNotFound, log.read(gone.session))
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
