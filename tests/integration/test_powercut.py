"""The real SqliteLog on a disk that loses power, lies, fills up or fails.

`make prove` runs the full figure. One cut again: OPENLINE_POWER_CUT_SEED=17.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import pytest

from figures import figure, part_counts
from openline.adapters.log_sqlite import SqliteLog
from openline.errors import LogConflict, LogError, LogUnavailable, OpenlineError
from openline.testing.check_log import Owner, own
from openline.testing.powercut import PowerCutDisk
from openline.types import SessionId

CUTS = figure("power", 40)
ONE_SEED = os.environ.get("OPENLINE_POWER_CUT_SEED")
SESSIONS = 6


@dataclass
class Acknowledged:
    """What was reported durable before the power went."""

    marks: dict[SessionId, int] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)


async def write_until_cut(disk: PowerCutDisk, folder: Path, dice: random.Random) -> Acknowledged:
    """Run a busy log into the cut."""
    acknowledged = Acknowledged()
    dead = asyncio.Event()
    log = SqliteLog(
        folder, vfs=disk.name, linger_s=0, checkpoint_pages=12, on_fatal=lambda _error: dead.set()
    )
    owners: list[Owner] = []
    try:
        await log.open()
        for number in range(SESSIONS):
            owners.append(await own(log, f"sess_cut{number}"))
        while not dead.is_set():
            for _ in range(dice.randrange(1, 30)):
                dice.choice(owners).append(
                    *["t"] * dice.randrange(1, 4), body=dice.randbytes(dice.randrange(900))
                )
            if dice.random() < 0.1:
                key = f"k{len(acknowledged.values)}"
                await log.put_value("cut", key, b"v")
                acknowledged.values.append(key)
            await asyncio.sleep(0)
            if dice.random() < 0.3:
                await log.flush()
    except LogError:
        pass  # the power went while something was awaited
    acknowledged.marks = {owner.session: owner.mark for owner in owners}
    await log.close()
    return acknowledged


async def verify(folder: Path, acknowledged: Acknowledged) -> None:
    """Everything acknowledged is there, each session is a gap-free prefix, and the log can be used."""
    log = SqliteLog(folder)
    await log.open()
    for session, mark in acknowledged.marks.items():
        records = await log.read(session, limit=100_000)
        seq = 0
        for record in records:
            assert record.first_seq == seq + 1, f"{session}: {record.first_seq} follows {seq}"
            seq = record.last_seq
        assert seq >= mark, f"{session}: seq {mark} was acknowledged; the log ends at {seq}"
        owner = await own(log, session)
        owner.append()
        await owner.durable()
    for key in acknowledged.values:
        assert await log.get_value("cut", key) == b"v", f"value {key} was acknowledged and is gone"
    await log.close()
    check = apsw.Connection(str(folder / "log.sqlite"))
    assert check.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    check.close()


def cut_once(folder: Path, seed: int, *, lying: bool = False) -> Acknowledged:
    """One cut at a random operation, then the check of what is left. AssertionError, LogError: data lost."""
    dice = random.Random(seed)
    disk = PowerCutDisk(f"powercut-{seed}-{lying}", lying=lying)
    try:
        # Opening takes about 60 operations; with 12 pages a checkpoint comes every few commits.
        disk.cut_after(dice.randrange(1, 700))
        acknowledged = asyncio.run(write_until_cut(disk, folder / "before", dice))
        disk.survive(folder / "after", seed)
        asyncio.run(verify(folder / "after", acknowledged))
    finally:
        disk.unregister()
    return acknowledged


@pytest.mark.figure_power
# SQLite meets the dead disk once more where apsw has nobody to raise to; the oracle reads what survived.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(60 + CUTS)
def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seeds = [int(ONE_SEED)] if ONE_SEED else range(CUTS)
    facts = 0
    for seed in seeds:
        try:
            facts += sum(cut_once(tmp_path / str(seed), seed).marks.values())
        except (AssertionError, OpenlineError) as error:
            pytest.fail(f"OPENLINE_POWER_CUT_SEED={seed} pytest {__file__}\n{error}")
    part_counts("power", 0, {"cuts": len(seeds), "acknowledged_facts": facts, "lost": 0})
    assert ONE_SEED or facts > 10 * CUTS, "the cuts came too early to prove anything"


def test_a_disk_that_lies_about_syncs_is_noticed(tmp_path: Path) -> None:
    """The harness can fail: without real syncs acknowledged facts get lost, and the check says so."""
    noticed = 0
    for seed in range(10):
        try:
            cut_once(tmp_path / str(seed), seed, lying=True)
        except (AssertionError, OpenlineError):
            noticed += 1
    assert noticed >= 5


def test_a_failed_sync_is_fatal(tmp_path: Path) -> None:
    """Nothing is acknowledged, on_fatal is called once, and everything after is refused."""
    disk = PowerCutDisk("failing-sync")

    async def story() -> None:
        fatal: list[LogError] = []
        log = SqliteLog(tmp_path, vfs=disk.name, on_fatal=fatal.append)
        await log.open()
        owner = await own(log, "sess_sync")
        owner.append()
        await owner.durable()
        disk.fail_syncs()
        owner.append()
        assert isinstance(await owner.is_refused(), LogUnavailable)
        disk.fail_syncs(False)
        assert owner.mark == 1
        with pytest.raises(LogUnavailable):
            owner.append()
        with pytest.raises(LogUnavailable):
            await log.acquire(owner.session, "node_b")
        assert len(fatal) == 1
        await log.flush()
        await log.close()

    try:
        asyncio.run(story())
    finally:
        disk.unregister()


def test_a_failed_sync_in_a_checkpoint_is_fatal_too(tmp_path: Path) -> None:
    """SQLite hides it when the checkpoint runs inside COMMIT; here it must not be."""
    disk = PowerCutDisk("failing-checkpoint")

    async def story() -> None:
        fatal = asyncio.Event()
        log = SqliteLog(tmp_path, vfs=disk.name, on_fatal=lambda _error: fatal.set(), checkpoint_pages=10_000)
        await log.open()
        owner = await own(log, "sess_sync")
        owner.append()
        await owner.durable()
        disk.fail_syncs()
        # Quiet for the idle checkpoint, which then meets the failing disk.
        await asyncio.wait_for(fatal.wait(), 10)
        assert owner.mark == 1
        with pytest.raises(LogUnavailable):
            owner.append()
        await log.close()

    try:
        asyncio.run(story())
    finally:
        disk.unregister()


def test_a_full_disk_refuses_then_lets_sessions_end(tmp_path: Path) -> None:
    """Told at once, two retries, refused with nothing half stored; then the reserve takes the endings."""
    reserve = tmp_path / "reserve.bin"
    limit = [400_000]
    disk = PowerCutDisk("full", capacity=lambda: limit[0] + (0 if reserve.exists() else 1 << 20))

    async def story() -> None:
        said: list[bool] = []
        log = SqliteLog(tmp_path, vfs=disk.name, on_disk_full=said.append)
        await log.open()
        owner = await own(log, "sess_disk")
        while not owner.errors:
            owner.append(body=b"x" * 10_000)
            await log.flush()
        assert isinstance(owner.errors[0], LogUnavailable)
        assert not isinstance(owner.errors[0], LogConflict)
        assert (said, log.disk_is_full) == ([True], True)
        assert not reserve.exists()
        stored = await log.read(owner.session)
        assert stored[-1].last_seq == owner.mark

        with pytest.raises(LogUnavailable):
            await log.acquire(SessionId("sess_new"), "node_a", create=True)
        again = await own(log, owner.session)
        assert again.next_seq == owner.mark + 1
        again.append("openline.session.ended", status="ended")
        await again.durable()
        assert (await log.session(owner.session)).status == "ended"
        await log.close()

    try:
        asyncio.run(story())
    finally:
        disk.unregister()


def test_a_retry_finds_space_that_was_freed(tmp_path: Path) -> None:
    """When recording stops and old files go between the retries, nobody is refused."""
    limit = [600_000]
    disk = PowerCutDisk("relieved", capacity=lambda: limit[0])

    async def story() -> None:
        def make_room(is_full: bool) -> None:
            if is_full:
                limit[0] = 1 << 30

        log = SqliteLog(tmp_path, vfs=disk.name, on_disk_full=make_room)
        await log.open()
        owner = await own(log, "sess_room")
        for _ in range(60):
            owner.append(body=b"x" * 10_000)
        await owner.durable()
        assert limit[0] == 1 << 30
        assert (tmp_path / "reserve.bin").exists()
        await log.close()

    try:
        asyncio.run(story())
    finally:
        disk.unregister()
