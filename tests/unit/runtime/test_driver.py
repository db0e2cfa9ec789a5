"""The driver: persist before perform, media past everything, one step at a time, and crash-only."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from openline.core import inputs as i
from openline.core.model import Limits, ResponseRequest
from openline.errors import LogConflict, LogUnavailable
from openline.runtime.caller_track import GAP_MS
from openline.runtime.driver import CLOSE_ELSEWHERE
from openline.testing.link_scripted import ScriptedLinkFactory
from openline.testing.scripts import ReplyPlan, play_list, scripted_silence
from openline.testing.virtual_time import run_virtual
from runtime_gateway import Agent, Caller, House, Recordings, ask, facts_of, house, speak, typed


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


async def live(home: House, caller: Caller) -> Any:
    """A call whose attach is durable and whose link is open; from here on the test commits."""
    driver = await home.call(caller)
    for _ in range(4):
        home.log.commit()
        await asyncio.sleep(0.01)
    assert driver.session.state.link.phase == "open"
    caller.told.clear()
    return driver


def one_long_reply(**plan: Any) -> ScriptedLinkFactory:
    return ScriptedLinkFactory(play_list([ReplyPlan(text="a long reply", audio_ms=4_000, **plan)]))


# -------------------------------------------------------------------------------- persist before perform


def test_a_client_is_shown_nothing_before_it_is_durable() -> None:
    async def story() -> None:
        async with house(manual=True) as home:
            caller = Caller()
            driver = await live(home, caller)
            driver.offer(typed("hello"))
            await asyncio.sleep(1)
            assert caller.names() == []
            home.log.commit()
            assert caller.names() == ["conversation.item.created"]

    run(story())


def test_the_model_is_not_asked_before_the_wish_is_durable() -> None:
    async def story() -> None:
        async with house(manual=True) as home:
            caller = Caller()
            driver = await live(home, caller)
            ask(driver, "hello")
            await asyncio.sleep(1)
            assert home.asked() == []
            home.log.commit()
            assert home.asked() == ["add_item", "start_response"]

    run(story())


def test_a_tool_does_not_run_before_it_is_written_that_it_will() -> None:
    async def story() -> None:
        ran: list[str] = []

        async def order(arguments: str) -> str:
            ran.append(arguments)
            return "done"

        async with house(manual=True, agent=Agent({"order": order})) as home:
            caller = Caller()
            driver = await live(home, caller)
            ask(driver, 'call order with {"n": 1}')
            home.log.commit()
            await asyncio.sleep(0.5)
            assert any(call.phase == "started" for call in driver.session.state.tools.values())
            assert ran == []
            home.log.commit()
            await asyncio.sleep(0.5)
            assert ran == ['{"n": 1}']

    run(story())


def test_audio_goes_on_while_the_disk_does_not() -> None:
    async def story() -> None:
        async with house(manual=True, links=one_long_reply()) as home:
            caller = Caller()
            driver = await live(home, caller)
            ask(driver, "hello")
            home.log.commit()
            await asyncio.sleep(2)
            assert len(caller.audio) > 2_000 * 48
            assert "response.output_item.added" not in caller.names()
            home.log.commit()
            assert "response.output_item.added" in caller.names()

    run(story())


def test_silence_at_an_interruption_does_not_wait_for_the_disk() -> None:
    async def story() -> None:
        async with house(manual=True, links=one_long_reply()) as home:
            caller = Caller()
            driver = await live(home, caller)
            ask(driver, "hello")
            home.log.commit()
            await asyncio.sleep(0.5)
            driver.offer(i.CancelResponse(conn=caller.conn))
            heard = len(caller.audio)
            await asyncio.sleep(2)
            assert len(caller.audio) == heard
            assert not driver.playout.is_playing

    run(story())


def test_effects_of_several_steps_are_performed_in_the_order_of_the_steps() -> None:
    async def story() -> None:
        async with house(manual=True) as home:
            caller = Caller()
            driver = await live(home, caller)
            driver.offer(typed("one", "item_1"))
            driver.offer(typed("two", "item_2"))
            driver.offer(i.CreateResponse(ResponseRequest(), conn=caller.conn))
            driver.offer(i.DeleteItem(next(iter(driver.session.state.entries)), conn=caller.conn))
            home.log.commit()
            assert home.asked() == ["add_item", "add_item", "start_response", "remove_item"]

    run(story())


def test_a_response_sees_the_conversation_of_the_step_that_asked_for_it() -> None:
    async def story() -> None:
        seen: list[str] = []

        def script(context: Any) -> ReplyPlan:
            seen.append(context.last_user_text)
            return ReplyPlan(text="ok")

        async with house(manual=True, links=ScriptedLinkFactory(script)) as home:
            caller = Caller()
            driver = await live(home, caller)
            ask(driver, "the question")
            driver.offer(typed("typed after it", "item_after"))
            home.log.commit()
            await asyncio.sleep(0.1)
            assert seen == ["the question"]

    run(story())


# ------------------------------------------------------------------------------------------- crash-only


@pytest.mark.parametrize("error", [LogUnavailable("the disk is full"), LogConflict("another owner wrote")])
def test_a_refused_step_stops_the_driver_and_sends_its_clients_to_resume(error: Exception) -> None:
    async def story() -> None:
        async with house(manual=True) as home:
            caller = Caller()
            driver = await live(home, caller)
            durable = facts_of(home.log, driver.session.state.session)
            ask(driver, "hello")
            home.log.fail_next(error)
            home.log.commit()
            assert driver.is_stopped
            assert caller.told == [("close", CLOSE_ELSEWHERE)]
            assert home.asked() == []
            assert driver.offer(typed("more", "item_more")) is None
            assert driver.session.state.session not in home.gateway.drivers
            assert facts_of(home.log, driver.session.state.session) == durable
            again = await home.gateway.load(driver.session.state.session)
            assert list(again.session.state.entries) == []

    run(story())


def test_a_step_that_raises_stops_the_driver_too(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            driver.offer(i.Heard(None))  # type: ignore[arg-type]  # an input that cannot be
            assert driver.is_stopped
            assert caller.closed() == [CLOSE_ELSEWHERE]

    run(story())
    assert "rebuilding from its log" in caplog.text


def test_after_the_stop_nothing_moves_any_more() -> None:
    async def story() -> None:
        async with house(links=one_long_reply()) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "hello")
            await asyncio.sleep(0.5)
            driver.stop()
            before, heard = list(caller.told), len(caller.audio)
            await asyncio.sleep(60)
            assert (caller.told, len(caller.audio)) == (before, heard)
            assert not home.link.is_open

    run(story())


def test_an_input_given_in_the_middle_of_a_step_waits_for_its_end() -> None:
    async def story() -> None:
        async with house() as home:
            driver_box: list[Any] = []

            class Eager(Caller):
                is_done = False

                def show(self, epoch: Any, first_seq: Any, facts: Any) -> None:
                    super().show(epoch, first_seq, facts)
                    if any(fact.TYPE == "conversation.item.created" for fact in facts) and not self.is_done:
                        self.is_done = True
                        assert driver_box[0].offer(typed("from within", "item_within")) is None

            caller = Eager()
            driver = await home.call(caller)
            driver_box.append(driver)
            driver.offer(typed("outer", "item_outer"))
            assert list(driver.session.state.entries) == ["item_outer", "item_within"]

    run(story())


# ---------------------------------------------------------------------------------------- time and links


def test_a_model_that_never_answers_is_given_up_by_the_drivers_own_alarm() -> None:
    async def story() -> None:
        silent = ScriptedLinkFactory(lambda context: ReplyPlan(failure="never_answers"))
        async with house(links=silent, limits=Limits(silence_budget_ms=3_000)) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "hello")
            await asyncio.sleep(6.1)
            names = facts_of(home.log, driver.session.state.session)
            assert names.count("openline.silence.exceeded") == 2
            assert names[-1] == "response.done"
            assert driver.session.state.responses == {}

    run(story())


def test_a_model_that_begins_late_and_stalls_is_given_up_by_what_it_said_last() -> None:
    """Each sign of life puts the deadline off, and the one that counts is that of the last."""

    async def story() -> None:
        plan = ReplyPlan(text="one two three four", first_delay_ms=2_000, failure="stalls", fail_at_chunk=1)
        links = ScriptedLinkFactory(lambda context: plan)
        async with house(links=links, limits=Limits(silence_budget_ms=3_000)) as home:
            driver = await home.call(Caller())
            ask(driver, "hello")

            def told() -> int:
                names = facts_of(home.log, driver.session.state.session)
                return names.count("openline.silence.exceeded")

            await asyncio.sleep(3.5)
            assert told() == 0, "it said something two seconds ago"
            await asyncio.sleep(4)
            assert told() == 1

    run(story())


@pytest.mark.parametrize(("chunk_delay_ms", "steps"), [(40, 1), (1, 2)])
def test_a_reply_that_left_as_it_was_made_ends_in_one_step(chunk_delay_ms: int, steps: int) -> None:
    """A model that is faster than its listener has made a reply long before all of it has left."""

    async def story() -> None:
        plan = ReplyPlan(text="one two three four five six seven eight", chunk_delay_ms=chunk_delay_ms)
        async with house(links=ScriptedLinkFactory(lambda context: plan)) as home:
            driver = await home.call(Caller())
            ask(driver, "hello")
            await asyncio.sleep(10)
            records = home.log._sessions[driver.session.state.session].steps
            ends = [
                record
                for record in records
                if {"openline.response.generated", "response.done"} & {*record.types}
            ]
            assert len(ends) == steps

    run(story())


def test_a_lost_link_is_opened_again_and_the_reply_nobody_heard_is_asked_for_again() -> None:
    async def story() -> None:
        plans = [ReplyPlan(text="lost", failure="lost", fail_at_chunk=0), ReplyPlan(text="it again")]
        async with house(links=ScriptedLinkFactory(lambda context: plans.pop(0))) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "say it again")
            await asyncio.sleep(5)
            assert home.links.made == 2
            assert driver.session.state.conversation()[-1].text == "it again"

    run(story())


def test_what_a_lost_link_still_says_is_counted_and_not_believed() -> None:
    async def story() -> None:
        async with house() as home:
            driver = await home.call(Caller())
            host = driver.link
            assert host is not None
            home.link.lose()
            host.speech_started(480)
            host.user_partial("late")
            host.speech_stopped(960)
            host.turn_final(None, "late", 1.0, 480, 960)
            host.lost(RuntimeError("late"))
            await asyncio.sleep(1)
            names = facts_of(home.log, driver.session.state.session)
            assert not [name for name in names if name.startswith(("input_audio_buffer", "openline.turn"))]
            assert names.count("openline.link.lost") == 1
            assert host.late == 2
            assert driver.link is not host

    run(story())


# ------------------------------------------------------------------------------------------------- audio


def test_caller_audio_is_recorded_where_it_was_said_and_gaps_are_silence() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            driver = await home.call(Caller())
            for _ in range(5):
                driver.append_audio(scripted_silence(20))
                await asyncio.sleep(0.02)
            await asyncio.sleep(5)
            driver.append_audio(scripted_silence(20))
            starts = [start for track, start, _ in recordings.written if track == "caller"]
            assert starts[:5] == [starts[0] + 480 * number for number in range(5)]
            assert starts[5] - starts[4] == pytest.approx(5.1 * 24_000, abs=GAP_MS * 24)
            assert driver.heard_until == starts[5] + 480

    run(story())


def test_a_frame_that_is_only_late_moves_nothing() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            driver = await home.call(Caller())
            for pause in (0.02, 0.12, 0.0, 0.0, 0.0, 0.02):
                driver.append_audio(scripted_silence(20))
                await asyncio.sleep(pause)
            starts = [start for track, start, _ in recordings.written if track == "caller"]
            assert starts == [starts[0] + 480 * number for number in range(6)]

    run(story())


def test_a_spoken_turn_becomes_a_turn_and_a_reply_that_is_heard() -> None:
    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            await speak(driver, "say good morning")
            await asyncio.sleep(5)
            names = facts_of(home.log, driver.session.state.session)
            for name in ("input_audio_buffer.speech_started", "openline.turn.committed", "response.done"):
                assert names.count(name) == 1
            assert driver.session.state.conversation()[-1].text == "good morning"
            assert list(driver.session.state.entries.values())[-1].source == "paced"

    run(story())


def test_speech_into_a_reply_cuts_it_to_what_was_heard() -> None:
    async def story() -> None:
        words = " ".join(f"word{number}" for number in range(1, 31))
        links = ScriptedLinkFactory(play_list([ReplyPlan(text=words, audio_ms=10_000)]))
        async with house(links=links) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "talk")
            await asyncio.sleep(3)
            await speak(driver, "say stop", ms=400)
            await asyncio.sleep(5)
            cut = driver.session.state.conversation()[1]
            assert cut.status == "incomplete"
            assert cut.text and len(cut.text) < len(words) // 2
            assert words.startswith(cut.text)

    run(story())


def test_only_the_speaker_gets_audio_and_texters_get_its_words() -> None:
    async def story() -> None:
        async with house() as home:
            caller, texter = Caller(), Caller("conn_2", "texter")
            driver = await home.call(caller, texter)
            ask(driver, "say hello there")
            await asyncio.sleep(2)
            assert caller.audio
            assert not texter.audio
            assert "".join(value for name, value in texter.told if name == "text") == "hello there"

    run(story())


def test_with_texters_only_a_spoken_reply_does_not_wait_for_ears() -> None:
    async def story() -> None:
        async with house(links=one_long_reply()) as home:
            texter = Caller("conn_2", "texter")
            driver = await home.call(texter)
            ask(driver, "hello", "conn_2")
            await asyncio.sleep(1)
            assert "response.done" in texter.names()

    run(story())


def test_a_speaker_that_drops_out_and_returns_hears_the_rest() -> None:
    async def story() -> None:
        async with house(links=one_long_reply()) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "hello")
            await asyncio.sleep(1)
            driver.detach(caller.conn, 1006, clean=False)
            before = len(caller.audio)
            back = Caller("conn_2")
            await asyncio.sleep(5)
            home.attach(driver, back, resumable=True)
            await asyncio.sleep(6)
            assert "response.done" in back.names()
            whole = 4_000 * 48
            assert whole <= before + len(back.audio) <= whole + 600 * 48

    run(story())


def test_a_report_that_ends_an_item_is_a_fact_with_its_source() -> None:
    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "say a few words to me please")
            await asyncio.sleep(1.2)
            item = driver.playout.tracks()[0].item
            track = driver.playout.tracks()[0]
            await asyncio.sleep(0.4)
            driver.report_playout(item, int(track.audio_ms))
            assert driver.session.state.entries[item].source == "reported"

    run(story())
