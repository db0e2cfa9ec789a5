"""Every store keeps the rules of the SessionLog port; and the suite notices a store that does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from openline.adapters.log_memory import MemoryLog
from openline.adapters.log_sqlite import SqliteLog
from openline.ports import SessionLog, StepRecord
from openline.testing.check_log import Shelf, check_log, log_checks
from openline.types import Seq, SessionId


def memory_shelf(_folder: Path) -> Shelf:
    kept: list[MemoryLog] = []

    def make(*, queue_items_max: int = 20_000) -> SessionLog:
        if not kept:
            kept.append(MemoryLog(queue_items_max=queue_items_max))
        return kept[0]

    return Shelf(make)


def sqlite_shelf(folder: Path) -> Shelf:
    def make(*, queue_items_max: int = 20_000) -> SessionLog:
        return SqliteLog(folder / "data", queue_items_max=queue_items_max)

    return Shelf(make)


SHELVES = {"memory": memory_shelf, "sqlite": sqlite_shelf}


@pytest.mark.parametrize("store", SHELVES)
@pytest.mark.parametrize("name", log_checks())
def test_the_store_keeps_the_rule(store: str, name: str, tmp_path: Path) -> None:
    asyncio.run(check_log(name, SHELVES[store](tmp_path)))


# ---- the suite can fail: broken stores, each caught by the check that is there for it


class ForgetsTheLast(MemoryLog):
    async def read(self, session: SessionId, *, after: Seq = Seq(0), limit: int = 1000) -> list[StepRecord]:
        return (await super().read(session, after=after, limit=limit))[:-1]


class IgnoresEpochs(MemoryLog):
    def _refusal(self, record: StepRecord, failure: Exception | None) -> Exception | None:
        return None


class TellsAtOnce(MemoryLog):
    def append(self, record: StepRecord) -> None:
        super().append(record)
        self.commit()


class NeverFull(MemoryLog):
    def __init__(self, *, queue_items_max: int) -> None:
        super().__init__(queue_items_max=queue_items_max * 100)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (ForgetsTheLast, "stores_what_was_appended"),
        (IgnoresEpochs, "a_wrong_seq_is_refused_with_what_follows"),
        (TellsAtOnce, "nothing_is_told_before_append_returns"),
        (NeverFull, "a_full_queue_pushes_back"),
    ],
)
def test_the_suite_notices(broken: type[MemoryLog], name: str) -> None:
    def make(*, queue_items_max: int = 20_000) -> SessionLog:
        return broken(queue_items_max=queue_items_max)

    with pytest.raises((AssertionError, TimeoutError)):
        asyncio.run(check_log(name, Shelf(make), deadline_s=0.5))
