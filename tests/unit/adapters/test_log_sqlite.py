"""What is SQLite's own: opening and refusing a directory, the schema, what hits the disk, bad callers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from openline.adapters.log_sqlite import SqliteLog, database
from openline.errors import DataDirectoryError, IllegalTransition, LogError, LogUnavailable
from openline.testing.check_log import own
from openline.types import SessionId


async def opened(folder: Path) -> SqliteLog:
    log = SqliteLog(folder)
    await log.open()
    return log


def use(folder: Path, story: Callable[[SqliteLog], Awaitable[None]]) -> None:
    """Run ``story`` on an opened log and close it."""

    async def whole() -> None:
        log = await opened(folder)
        await story(log)
        await log.close()

    asyncio.run(whole())


async def one_step(log: SqliteLog) -> None:
    owner = await own(log, "sess_one")
    owner.append()
    await owner.durable()


def test_a_second_gateway_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    async def second(_log: SqliteLog) -> None:
        with pytest.raises(
            DataDirectoryError, match=rf"another gateway \(pid {os.getpid()}\) holds .*--data"
        ):
            await SqliteLog(tmp_path).open()

    use(tmp_path, second)
    use(tmp_path, one_step)


def test_data_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    use(tmp_path, one_step)
    db = apsw.Connection(str(tmp_path / "log.sqlite"))
    db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(DataDirectoryError, match="newer Openline: its schema is version 999.*Upgrade"):
        asyncio.run(opened(tmp_path))
    db = apsw.Connection(str(tmp_path / "log.sqlite"))
    assert db.execute("SELECT count(*) FROM steps").fetchall() == [(1,)]
    db.close()


def test_the_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    db = apsw.Connection(str(tmp_path / "log.sqlite"))
    db.execute("CREATE TABLE theirs (x); PRAGMA user_version = 1")
    db.close()
    with pytest.raises(DataDirectoryError, match="another program"):
        asyncio.run(opened(tmp_path))


def test_what_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"this is not a database, but it is long enough to be read" * 20)
    with pytest.raises(DataDirectoryError, match="not a readable Openline log"):
        asyncio.run(opened(tmp_path))


def test_an_unwritable_directory_says_so(tmp_path: Path) -> None:
    """A file in the way fails for every user, root included."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="expected a writable data directory.*--data"):
        asyncio.run(opened(tmp_path / "file" / "data"))


def test_after_a_failed_open_the_directory_is_free(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataDirectoryError):
        asyncio.run(opened(tmp_path))
    (tmp_path / "log.sqlite").unlink()
    use(tmp_path, one_step)


def test_the_file_is_set_up_as_measured(tmp_path: Path) -> None:
    async def look(log: SqliteLog) -> None:
        await one_step(log)
        db = database.open_writer(database.Placement(tmp_path))
        pragmas = {
            name: db.pragma(name) for name in ("page_size", "journal_mode", "synchronous", "application_id")
        }
        db.close()
        assert pragmas == {
            "page_size": 16_384,
            "journal_mode": "wal",
            "synchronous": 2,
            "application_id": database.APPLICATION_ID,
        }
        assert (tmp_path / "reserve.bin").stat().st_size == database.RESERVE_BYTES

    use(tmp_path, look)
    # A clean close leaves one file: nothing in the WAL that a copy would miss.
    assert not (tmp_path / "log.sqlite-wal").exists()


def test_every_migration_is_one_version(tmp_path: Path) -> None:
    """Opening an empty directory ends at the version that the schema files count."""
    use(tmp_path, one_step)
    db = apsw.Connection(str(tmp_path / "log.sqlite"))
    assert db.pragma("user_version") == len(database.migrations()) >= 1
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert {"sessions", "steps", "wakeups", "kv", "meta"} <= names
    db.close()


def test_the_disk_itself_refuses_a_second_step_with_the_same_seq(tmp_path: Path) -> None:
    """The fence in the writer has a second line of defence in the unique index."""
    use(tmp_path, one_step)
    db = apsw.Connection(str(tmp_path / "log.sqlite"))
    with pytest.raises(apsw.ConstraintError):
        db.execute(
            "INSERT INTO steps SELECT pos + 1, session, first_seq, last_seq, epoch, at_ms, types, body FROM steps"
        )
    db.close()


def test_a_damaged_log_stops_the_store(tmp_path: Path) -> None:
    """A row that the writer did not write, at the place where it writes next: fatal, and said once."""

    async def story() -> None:
        fatal: list[LogError] = []
        log = SqliteLog(tmp_path, on_fatal=fatal.append)
        await log.open()
        await one_step(log)
        owner = await own(log, "sess_one")
        intruder = apsw.Connection(str(tmp_path / "log.sqlite"))
        intruder.execute("INSERT INTO steps SELECT pos + 1, session, 2, 2, 9, 0, ' x ', x'00' FROM steps")
        intruder.close()
        owner.append()
        await owner.is_refused()
        assert [error.code for error in fatal] == ["log_corrupt"]
        with pytest.raises(LogUnavailable):
            owner.append()
        await log.close()

    asyncio.run(story())


def test_a_bad_value_is_its_callers_problem_only(tmp_path: Path) -> None:
    async def story(log: SqliteLog) -> None:
        owner = await own(log, "sess_sound")
        with pytest.raises(UnicodeEncodeError):
            await log.acquire("sess_\ud800", "node", create=True)  # type: ignore[arg-type]  # on purpose
        with pytest.raises(IllegalTransition):
            owner.log.append(owner.record(body="text"))  # type: ignore[arg-type]  # on purpose
        with pytest.raises(IllegalTransition):
            owner.log.append(owner.record(types=()))
        owner.append()
        await owner.durable()

    use(tmp_path, story)


def test_one_sinks_failure_does_not_cost_the_others_their_mark(tmp_path: Path) -> None:
    class Broken:
        def appended(self, last_seq: int) -> None:
            raise RuntimeError("a bug of this session")

        def refused(self, error: Exception) -> None: ...

    async def story(log: SqliteLog) -> None:
        seen: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: seen.append(context["message"])
        )
        bad, good = await own(log, "sess_bad"), await own(log, "sess_good")
        log.subscribe(bad.session, Broken())
        bad.append()
        good.append()
        await good.durable()
        assert seen == ["the sink of session sess_bad failed"]

    use(tmp_path, story)


def test_expired_values_are_gone_after_a_restart(tmp_path: Path) -> None:
    async def put(log: SqliteLog) -> None:
        await log.put_value("secrets", "old", b"1", expires_ms=1000)
        await log.put_value("secrets", "kept", b"2")

    async def look(log: SqliteLog) -> None:
        assert await log.get_value("secrets", "old", now_ms=0) is None
        assert await log.get_value("secrets", "kept") == b"2"

    use(tmp_path, put)
    use(tmp_path, look)


def test_commits_are_grouped(tmp_path: Path) -> None:
    async def story(log: SqliteLog) -> None:
        owners = [await own(log, f"sess_group{number}") for number in range(50)]
        for _ in range(40):
            for owner in owners:
                owner.append()
        for owner in owners:
            await owner.durable()
        counted = log.statistics()
        assert counted.appended_steps == 2000
        assert counted.commits < 100

    use(tmp_path, story)


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_what_is_deleted_is_in_no_file(tmp_path: Path) -> None:
    said = b"nobody else must ever read this. " * 300

    async def story(log: SqliteLog) -> None:
        for name in ("sess_gone", "sess_kept"):
            owner = await own(log, name)
            for _ in range(20):
                owner.append(body=said + name.encode())
            await owner.durable()
        assert b"sess_gone" in bytes_of(tmp_path)
        await log.delete_session(SessionId("sess_gone"))
        await log.flush()  # The WAL is emptied before the writer takes anything else.
        left = bytes_of(tmp_path)
        assert b"sess_gone" not in left and left.count(said + b"sess_kept") == 20

    use(tmp_path, story)


def test_a_reader_in_the_way_is_not_waited_for_and_the_wal_is_emptied_later(tmp_path: Path) -> None:
    async def story(log: SqliteLog) -> None:
        gone = await own(log, "sess_gone")
        gone.append(body=b"nobody else must ever read this")
        await gone.durable()
        reader = database.open_reader(database.Placement(tmp_path))
        reading = reader.execute("SELECT 1 FROM steps")
        next(reading)
        began = time.monotonic()
        await log.delete_session(gone.session)
        await one_step(log)
        assert time.monotonic() - began < database.BUSY_MS / 1000 / 2, "calls wait for no reader"
        reading.close()
        reader.close()

    use(tmp_path, story)
    assert b"nobody else must ever" not in bytes_of(tmp_path)


def test_closing_at_once_and_twice(tmp_path: Path) -> None:
    async def story() -> None:
        never_opened = SqliteLog(tmp_path)
        await never_opened.close()
        log = await opened(tmp_path)
        await asyncio.gather(log.close(), log.close())
        with pytest.raises(LogUnavailable):
            await log.put_value("a", "b", b"c")

    asyncio.run(story())
