"""SIGKILL of a process that appends, again and again, on the same directory. OPENLINE_LOG_KILLS sets how often."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from openline.adapters.log_sqlite import SqliteLog
from openline.errors import DataDirectoryError
from openline.types import SessionId

KILLS = int(os.environ.get("OPENLINE_LOG_KILLS", "4"))
CHILD = Path(__file__).with_name("kill_log_child.py")


def run_and_kill(folder: Path, seed: int, after_lines: int) -> dict[str, int]:
    """Start a child on ``folder``, kill it after that many acknowledgements; the highest mark per session."""
    command = [sys.executable, str(CHILD), str(folder), str(seed)]
    marks: dict[str, int] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            # Read to the end: what still is in the pipe was acknowledged before the kill.
            for number, line in enumerate(child.stdout):
                session, seq = line.split()
                marks[session] = int(seq)
                if number == 0 and seed == 0:
                    asyncio.run(is_refused_while_it_runs(folder, child.pid))
                if number == after_lines:
                    child.kill()
        finally:
            child.kill()
    assert marks.pop("ready", None) == 0, "the child did not start"
    return marks


async def is_refused_while_it_runs(folder: Path, pid: int) -> None:
    second = SqliteLog(folder)
    with pytest.raises(DataDirectoryError, match=f"another gateway \\(pid {pid}\\)"):
        await second.open()
    await second.close()


async def verify(folder: Path, marks: dict[str, int]) -> None:
    log = SqliteLog(folder)
    await log.open()
    for session, mark in marks.items():
        seq = 0
        for record in await log.read(SessionId(session), limit=1_000_000):
            assert record.first_seq == seq + 1, f"{session}: {record.first_seq} follows {seq}"
            seq = record.last_seq
        assert seq >= mark, f"{session}: {mark} was acknowledged, the log ends at {seq}"
    await log.close()


@pytest.mark.timeout(60 + 2 * KILLS)
def test_a_killed_process_leaves_everything_it_acknowledged(tmp_path: Path) -> None:
    marks: dict[str, int] = {}
    for kill in range(KILLS):
        after = random.Random(kill).randrange(1, 3000)
        marks.update(run_and_kill(tmp_path, kill, after))
        asyncio.run(verify(tmp_path, marks))
    print(f"{KILLS} kills, {sum(marks.values())} acknowledged facts, 0 lost")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_directory_locked(tmp_path: Path) -> None:
    """A gateway that was killed may leave forked workers behind; the next one must be able to start."""

    async def opened() -> SqliteLog:
        log = SqliteLog(tmp_path)
        await log.open()
        return log

    async def story() -> None:
        log = await opened()
        hold, release = os.pipe()
        started, start = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(release)
            os.write(start, b".")
            os.read(hold, 1)
            os._exit(0)
        await asyncio.to_thread(os.read, started, 1)
        os.close(hold)
        await log.close()
        again = await opened()
        await again.close()
        for descriptor in (release, started, start):
            os.close(descriptor)
        await asyncio.to_thread(os.waitpid, child, 0)

    asyncio.run(story())
