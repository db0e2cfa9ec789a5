"""The twin's own controls: when things become durable, failures on request, a crash."""

from __future__ import annotations

import asyncio

import pytest

from openline.adapters.log_memory import MemoryLog
from openline.errors import LogConflict, LogUnavailable
from openline.testing.check_log import own


async def opened(*, manual: bool = False) -> MemoryLog:
    log = MemoryLog(manual=manual)
    await log.open()
    return log


def test_by_hand_nothing_is_durable_before_commit() -> None:
    async def story() -> None:
        log = await opened(manual=True)
        owner = await own(log, "sess_manual")
        owner.append()
        await asyncio.sleep(0)
        assert owner.told == []
        assert await log.read(owner.session) == []
        log.commit()
        assert owner.told == [1]
        assert len(await log.read(owner.session)) == 1

    asyncio.run(story())


def test_by_hand_flush_waits_for_the_commit() -> None:
    async def story() -> None:
        log = await opened(manual=True)
        owner = await own(log, "sess_manual")
        owner.append()
        flushed = asyncio.ensure_future(log.flush())
        await asyncio.sleep(0)
        assert not flushed.done()
        log.commit()
        await flushed

    asyncio.run(story())


def test_by_hand_a_takeover_fences_what_is_still_queued() -> None:
    async def story() -> None:
        log = await opened(manual=True)
        owner = await own(log, "sess_manual")
        owner.append()
        assert await log.acquire(owner.session, "node_b") == (2, 0)
        log.commit()
        assert isinstance(owner.errors[0], LogConflict)

    asyncio.run(story())


def test_by_default_durable_on_the_next_iteration() -> None:
    async def story() -> None:
        log = await opened()
        owner = await own(log, "sess_auto")
        owner.append()
        assert owner.told == []
        await asyncio.sleep(0)
        assert owner.told == [1]

    asyncio.run(story())


def test_a_failure_refuses_one_commit_and_closes_its_sessions() -> None:
    async def story() -> None:
        log = await opened(manual=True)
        owner, other = await own(log, "sess_fails"), await own(log, "sess_later")
        owner.append()
        log.fail_next(LogUnavailable("on request"))
        log.commit()
        owner.append()
        other.append()
        log.commit()
        assert [type(told) for told in owner.told] == [LogUnavailable, LogUnavailable]
        assert other.told == [1]
        again = await own(log, owner.session)
        assert again.next_seq == 1
        again.append()
        log.commit()
        assert again.told == [1]

    asyncio.run(story())


def test_a_crash_loses_what_was_not_durable_and_tells_nobody() -> None:
    async def story() -> None:
        log = await opened(manual=True)
        owner = await own(log, "sess_crash")
        owner.append()
        log.commit()
        owner.append()
        log.crash()
        with pytest.raises(LogUnavailable):
            owner.append()
        await log.open()
        assert owner.told == [1]
        assert await log.acquire(owner.session, "node_b") == (2, 1)
        assert len(await log.read(owner.session)) == 1

    asyncio.run(story())
