"""What is old in conversations lies on disk: read as before, gone with its last reader, and a bad disk costs memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from openline.adapters.spool_files import SpoolFiles
from openline.core.history import BLOCK_ITEMS, PLAIN_ITEMS, History, Packed
from openline.core.model import Item, Part
from openline.runtime import shelf as shelf_module
from openline.runtime.shelf import SWEEP_EVERY_S, Shelf, ShelfFile
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId
from runtime_gateway import Caller, house, typed
from runtime_tape import Files, MemoryFile

Written = tuple[ShelfFile, int]


class Worker:
    """The writing thread in virtual time: ``delay_s`` for each write, or a pause until ``go``."""

    def __init__(self, delay_s: float = 0.01) -> None:
        self.delay_s = delay_s

    def __call__(self, work: Callable[[], Written]) -> asyncio.Future[Written]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Written] = loop.create_future()

        def run() -> None:
            try:
                future.set_result(work())
            except OSError as error:
                future.set_exception(error)

        loop.call_later(self.delay_s, run)
        return future


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


def told(count: int, text: str = "words of") -> History:
    known = History()
    for number in range(count):
        part = Part("input_text", f"{text} {number}")
        known.put(Item(ItemId(f"item_{number}"), "message", "user", "user", content=(part,)), known.last_id())
    return known


def in_memory(known: History) -> list[Packed]:
    return list(known.in_memory())


def test_a_sweep_moves_what_is_packed_and_nothing_else_changes() -> None:
    async def story() -> None:
        files = Files()
        shelf = Shelf(files, Worker())
        known, other, before = told(100), told(60, "others say"), told(100)
        blocks = len(in_memory(known)) + len(in_memory(other))
        assert blocks == 8
        assert await shelf.sweep([known, other]) == blocks
        assert in_memory(known) == in_memory(other) == []
        assert known == before
        assert other == told(60, "others say")
        assert len(files.opened) == 1
        assert await shelf.sweep([known, other]) == 0

    run(story())


def test_what_is_packed_later_follows_and_a_changed_old_block_stays_readable() -> None:
    async def story() -> None:
        shelf = Shelf(Files(), Worker())
        known = told(60)
        await shelf.sweep([known])
        old = ItemId("item_3")
        entry = known[old]
        known.replace(entry._replace(heard_ms=40))
        for number in range(60, 60 + BLOCK_ITEMS):
            known.put(Item(ItemId(f"item_{number}"), "message", "user", "user"), known.last_id())
        assert await shelf.sweep([known]) == 1
        assert known[old].heard_ms == 40
        assert len(known) == 60 + BLOCK_ITEMS

    run(story())


def test_a_change_while_the_thread_writes_is_kept() -> None:
    async def story() -> None:
        shelf = Shelf(Files(), Worker(delay_s=1.0))
        known = told(PLAIN_ITEMS + BLOCK_ITEMS)
        sweeping = asyncio.get_running_loop().create_task(shelf.sweep([known]))
        await asyncio.sleep(0.5)
        known.remove(ItemId("item_0"))
        await sweeping
        assert "item_0" not in known
        assert len(known) == PLAIN_ITEMS + BLOCK_ITEMS - 1

    run(story())


def test_a_file_is_followed_by_another_and_goes_with_the_last_conversation_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf_module, "FILE_BYTES", 1_000)

    async def story() -> None:
        files = Files()
        shelf = Shelf(files, Worker())
        first, second = told(200), told(200)
        await shelf.sweep([first])
        await shelf.sweep([second])
        assert [file.is_closed for file in files.opened] == [False, False]
        del first
        gc.collect()
        assert [file.is_closed for file in files.opened] == [True, False]
        assert second == told(200)

    run(story())


def test_a_sweep_takes_a_bounded_amount_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    known = told(400)
    most = sum(packed.size for packed in in_memory(known)) // 3
    monkeypatch.setattr(shelf_module, "SWEEP_BYTES", most)

    async def story() -> None:
        shelf = Shelf(Files(), Worker())
        rounds = [await shelf.sweep([known]) for _ in range(4)]
        assert all(rounds[:3])
        assert in_memory(known) == []
        assert known == told(400)

    run(story())


def test_a_disk_that_takes_nothing_costs_memory_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    class FullOnce(MemoryFile):
        def write(self, at: int, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    async def story() -> None:
        files = Files()
        files.fails = True
        shelf = Shelf(files, Worker())
        known = told(60)
        assert await shelf.sweep([known]) == 0
        assert await shelf.sweep([known]) == 0
        files.fails = False
        shelf._file = ShelfFile(FullOnce())
        assert await shelf.sweep([known]) == 0
        assert known == told(60)
        assert len(in_memory(known)) == 3
        assert await shelf.sweep([known]) == 3
        assert known == told(60)

    run(story())
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ["shelf: Read-only file system; old items stay in memory"], "once, not at each sweep"


def test_bytes_that_are_missing_are_an_error_and_no_other_conversation() -> None:
    async def story() -> None:
        files = Files()
        known = told(60)
        await Shelf(files, Worker()).sweep([known])
        files.opened[0].truncate()
        with pytest.raises(OSError, match="shorter than what was written"):
            list(known.values())

    run(story())


def test_it_works_with_files_of_the_disk(tmp_path: Path) -> None:
    async def story() -> None:
        known = told(300)
        await Shelf(SpoolFiles(tmp_path), Worker()).sweep([known])
        assert known == told(300)
        assert list(tmp_path.iterdir()) == [], "nothing that a crash could leave"

    run(story())


def test_a_gateway_puts_the_old_part_of_its_calls_away_and_answers_from_there() -> None:
    async def story() -> None:
        files = Files()
        async with house() as home:
            home.gateway.spawn(
                home.gateway._shelve(Shelf(files, Worker()))
            )  # as start() does, but for the thread
            driver = await home.call(Caller())
            for number in range(60):
                driver.offer(typed(f"words of {number}", f"item_{number}"))
            known = driver.session.state.entries
            assert len(in_memory(known)) == 3
            await asyncio.sleep(SWEEP_EVERY_S + 0.1)
            assert in_memory(known) == []
            item = driver.session.state.item(ItemId("item_1"))
            assert item is not None
            assert item.content[0].text == "words of 1"
            assert [len(file.data) > 0 for file in files.opened] == [True]

    run(story())
