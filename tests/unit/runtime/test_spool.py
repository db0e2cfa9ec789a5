"""Audio that waits on disk: nothing lost, nothing out of order, little in memory, and a bad disk costs no call."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openline.adapters.spool_files import SpoolFiles
from openline.runtime.playout import TAPE_MAX_MS
from openline.runtime.spool import NEAR_BYTES, RING_BYTES, Sound, SpoolDesk
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId, ResponseId
from runtime_tape import Files, SlowWorker, Tape, pcm


class Room:
    """A tape with a desk, its files and its slow thread."""

    def __init__(self, delay_s: float = 0.01) -> None:
        self.files = Files()
        self.worker = SlowWorker(delay_s)
        self.desk = SpoolDesk(self.files, self.worker, asyncio.get_running_loop())
        self.tape = Tape(self.desk)

    def bytes_in_memory(self) -> int:
        """Audio that the tape still refers to: unreleased, unplayed, and kept for a return."""
        tape = self.tape
        chunks = [entry for entry in tape._queue if isinstance(entry, Sound)]
        return sum(len(chunk.pcm or b"") for chunk in [*chunks, *tape._sent, *tape._kept])


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


def numbered(seconds: int) -> list[bytes]:
    """A piece of 100 ms for each tenth of a second, each with its own number in every sample."""
    return [pcm(100, number + 1) for number in range(seconds * 10)]


def test_a_minute_made_at_once_costs_a_tenth_of_a_megabyte_and_comes_out_whole() -> None:
    async def story() -> None:
        room = Room()
        pieces = numbered(60)
        item = room.tape.message("item_a")
        for piece in pieces:
            room.tape.add_audio(item, piece, 0)
        room.tape.finish(item)
        await asyncio.sleep(0.1)
        most = 0
        for _ in range(620):
            most = max(most, room.bytes_in_memory())
            await asyncio.sleep(0.1)
        assert most <= 100_000
        assert room.tape.listener.heard == b"".join(pieces)
        assert [cut.heard_ms for cut in room.tape.listener.cuts()] == [60_000]

    run(story())


def test_release_never_waits_for_a_disk_that_answers_within_a_tenth_of_a_second() -> None:
    async def story() -> None:
        room = Room(delay_s=0.1)
        room.tape.reply("item_a", 20_000)
        for _ in range(190):
            await asyncio.sleep(0.1)
            now = asyncio.get_running_loop().time()
            assert room.tape.listener.ms_by(now) >= min(20_000, now * 1000 + 475)

    run(story())


def test_a_disk_that_is_slower_than_speech_delays_audio_and_loses_none() -> None:
    async def story() -> None:
        room = Room(delay_s=2.0)
        pieces = numbered(10)
        item = room.tape.message("item_a")
        for piece in pieces:
            room.tape.add_audio(item, piece, 0)
        await asyncio.sleep(120)
        assert room.tape.listener.heard == b"".join(pieces)

    run(story())


def test_a_reply_of_half_a_second_needs_no_file() -> None:
    async def story() -> None:
        room = Room()
        room.tape.reply("item_a", 1_000)
        await asyncio.sleep(2)
        assert room.files.opened == []
        assert room.worker.rounds == 0

    run(story())


def test_a_clear_gives_the_file_its_space_back_and_the_next_reply_is_whole() -> None:
    async def story() -> None:
        room = Room()
        room.tape.reply("item_a", 30_000, mark=1)
        await asyncio.sleep(1)
        room.tape.clear(ResponseId("resp_1"))
        await asyncio.sleep(0.1)
        (file,) = room.files.opened
        assert not file.data
        room.tape.reply("item_b", 5_000, "resp_2", mark=2)
        await asyncio.sleep(6)
        assert room.tape.listener.heard.endswith(pcm(5_000, 2))
        assert not file.data
        assert room.bytes_in_memory() < 40_000

    run(story())


def test_clearing_one_of_two_waiting_replies_keeps_the_other_whole() -> None:
    async def story() -> None:
        room = Room()
        room.tape.reply("item_a", 3_000, "resp_1", mark=1)
        room.tape.reply("item_b", 3_000, "resp_2", mark=2)
        room.tape.reply("item_c", 3_000, "resp_3", mark=3)
        await asyncio.sleep(0.1)
        room.tape.clear(ResponseId("resp_2"))
        await asyncio.sleep(8)
        assert room.tape.listener.heard == pcm(3_000, 1) + pcm(3_000, 3)

    run(story())


def test_a_listener_that_comes_back_gets_the_rest_from_the_file() -> None:
    async def story() -> None:
        room = Room()
        room.tape.reply("item_a", 10_000)
        await asyncio.sleep(2)
        room.tape.unlisten(keep=True)
        before = len(room.tape.listener.heard)
        await asyncio.sleep(10)
        room.tape.listen(lead_ms=500)
        await asyncio.sleep(10)
        again = before - (10_000 * 48 - (len(room.tape.listener.heard) - before))
        assert 0 < again <= 600 * 48
        assert bytes(room.tape.listener.recorded) == pcm(10_000)

    run(story())


def test_an_unpaced_listener_is_given_the_file_as_fast_as_it_can_be_read() -> None:
    async def story() -> None:
        room = Room()
        room.tape.reply("item_a", 30_000)
        await asyncio.sleep(0.1)
        room.tape.listen(lead_ms=None)
        await asyncio.sleep(2)
        assert room.tape.listener.heard == pcm(30_000)
        assert "released" in room.tape.listener.names()

    run(story())


def test_the_ring_is_used_again_while_a_call_never_stops_talking() -> None:
    async def story() -> None:
        room = Room()
        room.tape.lead_ms = 500
        item = room.tape.message("item_a")
        for number in range(20):
            room.tape.say(item, 20_000, mark=number + 1, chunk_ms=200)
            await asyncio.sleep(19)
        await asyncio.sleep(60)
        expected = b"".join(pcm(20_000, number + 1) for number in range(20))
        assert room.tape.listener.heard == expected
        assert room.files.opened[0].longest <= RING_BYTES

    run(story())


@pytest.mark.parametrize("broken", ["open", "write", "truncate"])
def test_a_disk_that_takes_nothing_costs_memory_and_not_the_reply(broken: str) -> None:
    async def story() -> None:
        room = Room()
        room.files.fails = broken == "open"
        item = room.tape.message("item_a")
        room.tape.say(item, 2_000, mark=1)
        if broken != "open":
            await asyncio.sleep(0.1)
            room.files.opened[0].fails = {broken}
        room.tape.say(item, 5_000, mark=2)
        room.tape.finish(item)
        await asyncio.sleep(8)
        assert room.tape.listener.heard == pcm(2_000, 1) + pcm(5_000, 2)

    run(story())


def test_what_cannot_be_read_is_silence_and_the_reply_goes_on() -> None:
    async def story() -> None:
        room = Room()
        item = room.tape.reply("item_a", 5_000)
        await asyncio.sleep(0.1)
        room.files.opened[0].fails = {"read"}
        await asyncio.sleep(7)
        heard = room.tape.listener.heard
        assert len(heard) == 5_000 * 48
        assert heard.startswith(pcm(1_000))
        assert heard.endswith(bytes(1_000 * 48))
        assert [cut.item_id for cut in room.tape.listener.cuts()] == [item]

    run(story())


def test_the_end_of_a_call_closes_the_file_and_the_next_call_opens_another() -> None:
    async def story() -> None:
        room = Room()
        room.tape.reply("item_a", 5_000)
        await asyncio.sleep(1)
        room.tape.drop()
        await room.desk.close()
        assert room.files.opened[0].is_closed
        room.tape.reply("item_b", 5_000, "resp_2", mark=2)
        await asyncio.sleep(6)
        assert room.tape.listener.heard.endswith(pcm(5_000, 2))
        assert len(room.files.opened) == 2

    run(story())


def test_many_busy_sessions_share_the_rounds_of_one_thread() -> None:
    async def story() -> None:
        room = Room(delay_s=0.05)
        tapes = [Tape(room.desk) for _ in range(20)]
        for tape in tapes:
            tape.reply("item_a", 10_000)
        await asyncio.sleep(11)
        assert all(len(tape.listener.heard) == 10_000 * 48 for tape in tapes)
        # Some 20 reads for each of 20 sessions, and not 400 rounds.
        assert room.worker.rounds < 100

    run(story())


@settings(max_examples=60)
@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("say"), st.integers(1, 40)),
            st.tuples(st.just("wait"), st.integers(1, 30)),
            st.tuples(st.just("clear"), st.integers(0, 3)),
            st.tuples(st.just("away"), st.integers(1, 5)),
        ),
        max_size=25,
    ),
    delay_ms=st.integers(0, 400),
)
def test_with_a_spool_the_listener_hears_what_it_hears_without(
    moves: list[tuple[str, int]], delay_ms: int
) -> None:
    """Slow disks shift audio in time; which audio comes, and its order, stays."""

    async def story() -> None:
        room = Room(delay_s=delay_ms / 1000)
        tape, expected = room.tape, dict[str, bytes]()
        response, mark = 0, 0
        item: str = tape.message("item_0", "resp_0")
        for move, amount in moves:
            mark += 1
            if move == "say":
                tape.say(ItemId(item), amount * 100, mark=mark, chunk_ms=100)
                expected[item] = expected.get(item, b"") + pcm(amount * 100, mark)
            elif move == "wait":
                await asyncio.sleep(amount / 10)
            elif move == "clear":
                tape.clear(ResponseId(f"resp_{response}"))
                response += 1
                item = tape.message(f"item_{response}", f"resp_{response}")
            else:
                tape.unlisten(keep=False)
                await asyncio.sleep(amount / 10)
                tape.listen(lead_ms=500)
        await asyncio.sleep(200)
        heard: dict[str, bytes] = {}
        for _, name, data in tape.listener.audio:
            heard[name] = heard.get(name, b"") + data
        for spoken, whole in expected.items():
            assert whole.startswith(heard.get(spoken, b""))
        assert heard.get(item, b"") == expected.get(item, b"")
        assert room.bytes_in_memory() <= 40_000

    run(story())


def test_real_files_have_no_name_and_give_back_what_was_written(tmp_path: Path) -> None:
    make = SpoolFiles(tmp_path / "spool")
    file = make()
    assert list((tmp_path / "spool").iterdir()) == []
    file.write(4, b"wave")
    assert file.read(0, 100) == bytes(4) + b"wave"
    file.truncate()
    assert file.read(0, 100) == b""
    file.close()


def test_five_minutes_are_the_most_that_waits() -> None:
    assert RING_BYTES == TAPE_MAX_MS * 48
    assert NEAR_BYTES < 48_000
