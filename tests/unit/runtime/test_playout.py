"""The tape: what is released when, what counts as heard, and what a drop, a cut or a return does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from openline.runtime.playout import ASSUMED_MARGIN_MS, CHUNK_MAX_MS, KEEP_MS, TAPE_MAX_MS
from openline.runtime.track import Marks
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId, ResponseId
from runtime_tape import Tape, pcm

RESPONSE = ResponseId("resp_1")


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


# ---------------------------------------------------------------------------------------------- pacing


@pytest.mark.parametrize("lead_ms", [100, 500, 1_000])
def test_a_reply_made_at_once_is_never_further_ahead_than_its_lead_and_never_late(lead_ms: int) -> None:
    async def story() -> None:
        tape = Tape()
        tape.lead_ms = lead_ms
        tape.reply("item_a", 4_000)
        for _ in range(39):
            await asyncio.sleep(0.1)
            now_ms = asyncio.get_running_loop().time() * 1000
            released = tape.listener.ms_by(now_ms / 1000)
            assert released <= now_ms + lead_ms + 1e-6
            assert released >= min(4_000, now_ms + lead_ms - 25)
        await asyncio.sleep(1)
        assert tape.listener.heard == pcm(4_000)

    run(story())


def test_a_second_in_one_piece_is_cut_so_that_it_can_be_paced() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.message("item_a")
        tape.add_audio(item, pcm(1_000), 7)
        assert tape.listener.ms_by(0) <= 500
        assert max(len(data) for _, _, data in tape.listener.audio) <= CHUNK_MAX_MS * 48
        await asyncio.sleep(1)
        assert tape.listener.heard == pcm(1_000)
        assert tape.cut_of(tape.tracks()[0]).text_end == 7

    run(story())


def test_a_lead_shorter_than_a_piece_still_lets_it_pass() -> None:
    async def story() -> None:
        tape = Tape()
        tape.lead_ms = 50
        item = tape.message("item_a")
        tape.add_audio(item, pcm(600), 0)
        await asyncio.sleep(0.65)
        assert tape.listener.heard == pcm(600)

    run(story())


def test_without_pacing_everything_leaves_at_once() -> None:
    async def story() -> None:
        tape = Tape()
        tape.listen(lead_ms=None)
        tape.reply("item_a", 3_000)
        assert tape.listener.ms_by(0) == 3_000
        assert tape.listener.names()[-1] == "released"

    run(story())


def test_text_audio_and_ends_of_an_item_keep_their_order_on_the_tape() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.message("item_a")
        tape.add_text(item, "one ")
        tape.add_audio(item, pcm(100), 4)
        tape.add_text(item, "two")
        tape.add_audio(item, pcm(100), 7)
        tape.finish(item)
        tape.finish_response(RESPONSE)
        await asyncio.sleep(1)
        assert tape.listener.names() == [
            "text", "audio", "text", "audio", "finished", "released", "heard",
        ]  # fmt: skip

    run(story())


def test_the_end_of_a_response_waits_for_its_last_audio_but_not_for_its_playing() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 2_000)
        await asyncio.sleep(1.4)
        assert "released" not in tape.listener.names()
        await asyncio.sleep(0.2)
        assert "released" in tape.listener.names()
        assert "heard" not in tape.listener.names()
        await asyncio.sleep(0.6)
        assert tape.listener.names()[-1] == "heard"

    run(story())


def test_an_item_without_audio_ends_when_its_text_was_shown() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.message("item_a")
        tape.add_text(item, "typed")
        tape.finish(item)
        tape.finish_response(RESPONSE)
        assert tape.listener.names() == ["text", "finished", "released"]
        assert not tape.is_playing

    run(story())


def test_a_checkpoint_comes_with_each_released_second() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 3_500)
        await asyncio.sleep(4)
        assert tape.listener.names().count("progress") == 3

    run(story())


def test_two_replies_one_after_the_other_are_two_items_heard_in_order() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 400, "resp_1", mark=1)
        tape.reply("item_b", 400, "resp_2", mark=2)
        await asyncio.sleep(1)
        assert tape.listener.heard == pcm(400, 1) + pcm(400, 2)
        assert [cut.item_id for cut in tape.listener.cuts()] == ["item_a", "item_b"]

    run(story())


# ---------------------------------------------------------------------------------- what counts as heard


def test_the_release_clock_says_what_was_heard() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 2_000, text="0123456789" * 2)
        await asyncio.sleep(1.0)
        (cut,) = tape.cuts()
        assert (cut.audio_ms, cut.source) == (2_000, "paced")
        assert cut.heard_ms == pytest.approx(1_000, abs=2)
        assert cut.text_end is not None
        assert cut.text_end == pytest.approx(10, abs=1)

    run(story())


def test_without_marks_nothing_is_said_about_where_the_text_was() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.message("item_a")
        tape.add_text(item, "some text")
        tape.add_audio(item, pcm(400), 0)
        await asyncio.sleep(0.2)
        assert tape.cuts()[0].text_end is None

    run(story())


def test_a_report_near_the_clock_or_beyond_counts_more_than_the_clock() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.reply("item_a", 2_000)
        await asyncio.sleep(1.0)
        assert tape.report(item, 700) is None
        assert (tape.cuts()[0].heard_ms, tape.cuts()[0].source) == (700, "reported")
        await asyncio.sleep(0.5)
        # An old report says less than the clock does by now.
        assert tape.cuts()[0].source == "paced"

    run(story())


def test_a_report_beyond_what_was_sent_is_not_believed() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.reply("item_a", 2_000)
        tape.report(item, 90_000)
        assert tape.cuts()[0].heard_ms <= 500

    run(story())


def test_a_report_of_the_whole_item_ends_it_once() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.reply("item_a", 400)
        await asyncio.sleep(0.3)
        cut = tape.report(item, 400)
        assert cut is not None
        assert (cut.heard_ms, cut.source) == (400, "reported")
        await asyncio.sleep(1)
        assert tape.listener.cuts() == []
        assert tape.report(item, 400) is None

    run(story())


def test_of_a_lost_listener_half_a_second_of_what_was_sent_counts_as_unheard() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 5_000)
        await asyncio.sleep(2.0)
        (cut,) = tape.unlisten(keep=True)
        assert cut.source == "assumed"
        assert cut.heard_ms == pytest.approx(2_500 - ASSUMED_MARGIN_MS, abs=25)

    run(story())


# -------------------------------------------------------------------------------------- going and coming


def test_a_listener_that_comes_back_hears_again_what_it_cannot_have_heard_and_nothing_twice() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 4_000)
        await asyncio.sleep(1.0)
        tape.unlisten(keep=True)
        before = len(tape.listener.heard)
        await asyncio.sleep(20)
        assert len(tape.listener.heard) == before
        tape.listen(lead_ms=500)
        await asyncio.sleep(5)
        again = len(tape.listener.heard) - 4_000 * 48
        assert 0 < again <= KEEP_MS * 48
        assert tape.listener.recorded == pcm(4_000)
        assert [cut.heard_ms for cut in tape.listener.cuts()] == [4_000]

    run(story())


async def speak_live(tape: Tape, ms: int) -> ItemId:
    """A model that speaks as fast as one hears; each sample tells its chunk."""
    item = tape.message("item_a")
    for number in range(1, ms // 20 + 1):
        tape.add_audio(item, pcm(20, number), 0)
        await asyncio.sleep(0.02)
    return item


def chunks(first: int, last: int) -> bytes:
    return b"".join(pcm(20, number) for number in range(first, last + 1))


def test_what_is_on_the_recording_is_had_from_there_for_a_listener_that_comes_back() -> None:
    async def story() -> None:
        tape = Tape(is_recorded=True)
        item = await speak_live(tape, 2_000)
        assert tape.recalls == []
        tape.unlisten(keep=True)
        tape.add_audio(item, pcm(20, 101), 0)
        before = len(tape.listener.heard)
        tape.listen(lead_ms=500)
        await asyncio.sleep(1)
        assert len(tape.listener.heard) == before  # the disk has not answered, and nothing overtakes
        tape.recall_all()
        await asyncio.sleep(1)
        assert tape.listener.heard[before:] == chunks(76, 101)

    run(story())


def test_a_line_that_drops_twice_before_the_disk_has_answered_hears_each_piece_once() -> None:
    async def story() -> None:
        tape = Tape(is_recorded=True)
        await speak_live(tape, 2_000)
        tape.unlisten(keep=True)
        tape.listen(lead_ms=500)
        tape.unlisten(keep=True)
        before = len(tape.listener.heard)
        tape.recall_all()
        tape.listen(lead_ms=500)
        await asyncio.sleep(1)
        first = tape.listener.heard[before]
        assert first in range(70, 77)
        assert tape.listener.heard[before:] == chunks(first, 100)

    run(story())


def test_what_the_disk_does_not_give_back_is_silence_of_its_length() -> None:
    async def story() -> None:
        tape = Tape(is_recorded=True)
        item = await speak_live(tape, 2_000)
        tape.unlisten(keep=True)
        tape.add_audio(item, pcm(20, 101), 0)
        tape.listen(lead_ms=500)
        before = len(tape.listener.heard)
        ((_, _, came),) = tape.recalls
        came(b"")
        await asyncio.sleep(1)
        assert tape.listener.heard[before:] == bytes(500 * 48) + pcm(20, 101)

    run(story())


def test_a_reply_that_is_cleared_while_the_disk_reads_does_not_come_back() -> None:
    async def story() -> None:
        tape = Tape(is_recorded=True)
        await speak_live(tape, 2_000)
        tape.unlisten(keep=True)
        tape.clear(ResponseId("resp_1"))
        before = len(tape.listener.heard)
        tape.listen(lead_ms=500)
        tape.recall_all()
        await asyncio.sleep(1)
        assert len(tape.listener.heard) == before

    run(story())


def test_an_unpaced_listener_that_goes_takes_nothing_more_until_it_is_back() -> None:
    async def story() -> None:
        tape = Tape()
        tape.listen(lead_ms=None)
        item = tape.message("item_a")
        tape.say(item, 100)
        tape.unlisten(keep=True)
        before = len(tape.listener.audio)
        tape.say(item, 400)
        assert len(tape.listener.audio) == before
        tape.listen(lead_ms=None)
        assert len(tape.listener.heard) >= 500 * 48

    run(story())


def test_played_to_nobody_all_goes_and_a_listener_who_comes_later_waits_for_none_of_it() -> None:
    async def story() -> None:
        tape = Tape()
        tape.unlisten(keep=False)
        tape.reply("item_a", 60_000)
        assert "released" in tape.listener.names()
        await asyncio.sleep(1)
        tape.listen(lead_ms=500)
        before = len(tape.listener.audio)
        tape.reply("item_b", 400, "resp_2", mark=2)
        assert b"".join(data for _, _, data in tape.listener.audio[before:]) == pcm(400, 2)

    run(story())


# ------------------------------------------------------------------------------------------ hold and clear


def test_a_held_tape_releases_nothing_and_goes_on_where_it_was() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 2_000)
        tape.hold(True)
        await asyncio.sleep(1)
        assert len(tape.listener.heard) == 500 * 48
        tape.hold(False)
        await asyncio.sleep(2)
        assert tape.listener.heard == pcm(2_000)

    run(story())


def test_after_clear_nothing_of_that_response_comes() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.reply("item_a", 2_000)
        await asyncio.sleep(0.3)
        tape.clear(RESPONSE)
        before = len(tape.listener.events)
        tape.add_audio(item, pcm(100), 0)
        tape.add_text(item, "late")
        tape.finish(item)
        await asyncio.sleep(3)
        assert tape.listener.events[before:] == []
        assert not tape.is_playing
        assert tape.queued_ms == 0

    run(story())


def test_clear_of_one_response_leaves_the_other() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 1_000, "resp_1", mark=1)
        tape.reply("item_b", 300, "resp_2", mark=2)
        tape.clear(RESPONSE)
        await asyncio.sleep(2)
        assert tape.listener.heard.endswith(pcm(300, 2))
        assert tape.listener.names()[-2:] == ["released", "heard"]

    run(story())


def test_the_reply_after_a_cleared_one_starts_at_once_with_a_full_lead() -> None:
    """What was cleared at the client is not played: the clock must not wait for it."""

    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 2_000, "resp_1", mark=1)
        await asyncio.sleep(0.2)
        tape.clear(RESPONSE)
        before = len(tape.listener.audio)
        tape.reply("item_b", 2_000, "resp_2", mark=2)
        assert len(tape.listener.audio[before:]) * 20 == 500
        await asyncio.sleep(0.1)
        (cut,) = tape.cuts()
        assert cut.heard_ms == pytest.approx(100, abs=2)

    run(story())


def test_drop_forgets_all_and_the_tape_can_be_used_again() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 2_000)
        tape.hold(True)
        tape.drop()
        assert (tape.is_playing, tape.queued_ms, tape.cuts()) == (False, 0, ())
        before = len(tape.listener.audio)
        tape.reply("item_b", 400, "resp_2")
        assert len(tape.listener.audio) - before == 20

    run(story())


def test_what_was_played_is_recorded_and_what_was_cleared_is_not() -> None:
    async def story() -> None:
        tape = Tape()
        tape.reply("item_a", 2_000)
        await asyncio.sleep(0.5)
        tape.clear(RESPONSE)
        assert len(tape.listener.recorded) == pytest.approx(500 * 48, abs=20 * 48)

    run(story())


# ------------------------------------------------------------------------------------------------ bounds


def test_past_five_minutes_audio_is_dropped_counted_and_said_in_sums() -> None:
    async def story() -> None:
        tape = Tape()
        item = tape.message("item_a")
        tape.say(item, TAPE_MAX_MS + 500, chunk_ms=100)
        assert tape.queued_ms <= TAPE_MAX_MS
        assert "dropped" not in tape.listener.names()
        tape.say(item, 25_000, chunk_ms=100)
        tape.finish(item)
        dropped = [value for name, value in tape.listener.events if name == "dropped"]
        assert dropped == [10_000, 10_000, 5_000]
        assert tape.tracks()[0].audio_ms == TAPE_MAX_MS + 500

    run(story())


def test_audio_of_an_unknown_item_is_nobodys() -> None:
    async def story() -> None:
        tape = Tape()
        tape.add_audio(ItemId("item_x"), pcm(100), 0)
        tape.add_text(ItemId("item_x"), "text")
        tape.finish(ItemId("item_x"))
        assert tape.report(ItemId("item_x"), 100) is None
        assert tape.listener.events == []

    run(story())


def test_marks_name_the_characters_spoken_by_a_moment() -> None:
    marks = Marks()
    assert marks.text_end_at(50) is None
    marks.add(100.0, 3)
    marks.add(200.0, 9)
    assert [marks.text_end_at(ms) for ms in (0, 98, 99, 150, 199, 900)] == [0, 0, 3, 3, 9, 9]
