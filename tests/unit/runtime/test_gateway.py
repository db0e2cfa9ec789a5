"""The gateway: one driver a session, found, taken over, woken, drained and let go."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from openline.adapters.log_memory import MemoryLog
from openline.core import inputs as i
from openline.core.model import Limits
from openline.core.value import replace
from openline.errors import ClientProtocolError, SessionNotFound
from openline.ports import SessionRow
from openline.runtime.driver import CLOSE_ELSEWHERE
from openline.testing.link_scripted import ScriptedLinkFactory
from openline.testing.scripts import ReplyPlan, play_list
from openline.testing.virtual_time import run_virtual
from openline.types import SessionId
from runtime_gateway import TENANT, Agent, Caller, House, Recordings, ask, facts_of, house, typed

NAME = SessionId("sess_of_mine")


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


# ------------------------------------------------------------------------------------------------ opening


def test_two_clients_that_open_a_session_at_one_moment_get_one_driver() -> None:
    async def story() -> None:
        async with house() as home:
            opened = await asyncio.gather(
                *(home.gateway.attach_or_create(TENANT, NAME, home.config()) for _ in range(5))
            )
            assert len({id(driver) for driver, _ in opened}) == 1
            assert home.gateway.opened == 1
            assert facts_of(home.log, NAME).count("openline.session.started") == 1

    run(story())


def test_two_clients_that_load_a_stored_session_at_one_moment_take_it_over_once() -> None:
    async def story() -> None:
        async with house() as home:
            driver, _ = await home.gateway.attach_or_create(TENANT, NAME, home.config())
            driver.stop()
            loaded = await asyncio.gather(*(home.gateway.load(NAME, tenant=TENANT) for _ in range(5)))
            assert len({id(driver) for driver in loaded}) == 1
            assert loaded[0].session.state.epoch == 2

    run(story())


@pytest.mark.parametrize("who", [0, 1])
def test_a_client_that_gives_up_waiting_does_not_spoil_the_opening_for_the_other(who: int) -> None:
    class SlowLog(MemoryLog):
        async def session(self, session: SessionId) -> SessionRow:
            await asyncio.sleep(1)
            return await super().session(session)

    async def story() -> None:
        async with house(log=SlowLog()) as home:
            made, _ = await home.gateway.attach_or_create(TENANT, NAME, home.config())
            made.stop()
            both = [asyncio.ensure_future(home.gateway.load(NAME)) for _ in range(2)]
            await asyncio.sleep(0.5)
            both[who].cancel()
            driver = await both[1 - who]
            assert home.gateway.drivers[NAME] is driver

    run(story())


@pytest.mark.parametrize("name", ["short", "x" * 65, "with space", "slash/es", "ünïcödé_ok", ""])
def test_a_session_id_that_is_none_is_refused(name: str) -> None:
    async def story() -> None:
        async with house() as home:
            with pytest.raises(ClientProtocolError) as refused:
                await home.gateway.attach_or_create(TENANT, SessionId(name), home.config())
            assert (refused.value.code, home.gateway.drivers) == ("invalid_value", {})

    run(story())


@pytest.mark.parametrize("is_running", [True, False])
def test_another_tenants_session_does_not_exist(is_running: bool) -> None:
    async def story() -> None:
        async with house() as home:
            driver, _ = await home.gateway.attach_or_create("acme", NAME, home.config())
            if not is_running:
                driver.stop()
            epoch = driver.session.state.epoch
            with pytest.raises(SessionNotFound):
                await home.gateway.load(NAME, tenant="other")
            with pytest.raises(SessionNotFound):
                await home.gateway.attach_or_create("other", NAME, home.config())
            again = await home.gateway.load(NAME, tenant="acme")
            assert again.session.state.epoch == epoch + (not is_running)

    run(story())


def test_one_session_too_many_is_refused_and_the_others_go_on() -> None:
    async def story() -> None:
        async with house(sessions_max=2) as home:
            first = await home.call(Caller())
            await home.call(Caller("conn_2"))
            with pytest.raises(ClientProtocolError, match="at most 2 sessions") as refused:
                await home.call(Caller("conn_3"))
            assert refused.value.code == "server_is_overloaded"
            ask(first, "say still here")
            await asyncio.sleep(2)
            assert first.session.state.conversation()[-1].text == "still here"

    run(story())


def test_many_at_once_do_not_slip_past_the_limit() -> None:
    async def story() -> None:
        async with house(sessions_max=3) as home:
            done = await asyncio.gather(*(home.call() for _ in range(10)), return_exceptions=True)
            assert sum(not isinstance(result, BaseException) for result in done) == 3
            assert len(home.gateway.drivers) == 3

    run(story())


# ------------------------------------------------------------------------------------------ crash and resume


def test_what_a_crashed_process_left_is_taken_over_at_the_start() -> None:
    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "hello")
            await asyncio.sleep(0.5)
            session = driver.session.state.session
            driver.playout.close()
            home.log.crash()
        next_home = House(log=home.log)
        await next_home.log.open()
        assert await next_home.gateway.start() == 1
        taken = next_home.gateway.drivers[session]
        await asyncio.sleep(0.01)
        assert taken.session.state.status == "detached"
        names = facts_of(home.log, session)
        assert names.count("response.done") == names.count("response.created")
        back = Caller("conn_back")
        next_home.attach(taken, back)
        await asyncio.sleep(3)
        assert taken.session.state.conversation()[-1].status == "completed"
        await next_home.gateway.close()

    run(story())


def test_one_session_that_cannot_be_read_keeps_no_other_from_coming_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> None:
        async with house() as home:
            bad = await home.call(Caller())
            good = await home.call(Caller("conn_2"))
            names = [driver.session.state.session for driver in (bad, good)]
            home.log.crash()
        steps = home.log._sessions[names[0]].steps
        steps[0] = replace(steps[0], body=b"not a step")
        next_home = House(log=home.log)
        await next_home.log.open()
        await next_home.gateway.start()
        assert set(next_home.gateway.drivers) == {names[1]}
        await next_home.gateway.close()

    run(story())
    assert "could not be taken over" in caplog.text


def test_closing_stops_every_call_and_the_log_has_all_of_it() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            callers = [Caller(f"conn_{number}") for number in range(3)]
            for caller in callers:
                ask(await home.call(caller), "hello", caller.name)
            sessions = list(home.gateway.drivers)
            seqs = [driver.session.state.seq for driver in home.gateway.drivers.values()]
            await home.gateway.close()
            assert [caller.closed() for caller in callers] == [[CLOSE_ELSEWHERE]] * 3
            assert [len(facts_of(home.log, session)) for session in sessions] == seqs
            assert home.gateway.drivers == {}
            assert recordings.open == 0

    run(story())


# ---------------------------------------------------------------------------------------------- letting go


def test_a_parked_session_leaves_memory_and_comes_back_when_it_is_asked_for() -> None:
    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            session = driver.session.state.session
            ask(driver, "say remember this")
            await asyncio.sleep(2)
            driver.detach(caller.conn, 1000, clean=True)
            await asyncio.sleep(2)
            assert home.gateway.drivers == {}
            again = await home.gateway.load(session, tenant=TENANT)
            assert again.session.state.conversation()[-1].text == "remember this"

    run(story())


def test_a_session_is_forgotten_with_its_recording_once_nobody_uses_it() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            caller = Caller()
            driver = await home.call(caller)
            session = driver.session.state.session
            with pytest.raises(ClientProtocolError, match="in use: somebody is connected"):
                await home.gateway.delete(session, tenant=TENANT)
            driver.detach(caller.conn, 1000, clean=True)
            with pytest.raises(SessionNotFound):
                await home.gateway.delete(session, tenant="another")
            # It waits for its caller to come back, or parks: neither need be waited for.
            assert session in home.gateway.drivers and not recordings.forgotten
            await home.gateway.delete(session, tenant=TENANT)
            assert recordings.forgotten == [session] and recordings.open == 0
            with pytest.raises(SessionNotFound):
                await home.gateway.load(session, tenant=TENANT)

    run(story())


def test_a_session_does_not_leave_memory_while_its_tool_runs() -> None:
    async def story() -> None:
        finish = asyncio.Event()

        async def slow(arguments: str) -> str:
            await finish.wait()
            return "42"

        async with house(agent=Agent({"slow": slow})) as home:
            caller = Caller()
            driver = await home.call(caller)
            session = driver.session.state.session
            ask(driver, "call slow")
            await asyncio.sleep(1)
            driver.detach(caller.conn, 1000, clean=True)
            await asyncio.sleep(20)
            assert session in home.gateway.drivers
            finish.set()
            await asyncio.sleep(3)
            assert session not in home.gateway.drivers
            names = facts_of(home.log, session)
            assert names.count("openline.tool.settled") == 1

    run(story())


def test_a_client_that_comes_back_while_the_session_is_leaving_keeps_it() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            caller = Caller()
            driver = await home.call(caller)
            session = driver.session.state.session
            driver.detach(caller.conn, 1000, clean=True)
            same = await home.gateway.load(session, tenant=TENANT)
            home.attach(same, Caller("conn_2"))
            await asyncio.sleep(10)
            assert home.gateway.drivers[session] is driver
            assert driver.recorder is not None
            assert recordings.open == 1

    run(story())


def test_a_detached_session_parks_after_its_window_by_itself() -> None:
    async def story() -> None:
        async with house(limits=Limits(resume_window_ms=5_000)) as home:
            caller = Caller()
            driver = await home.call(caller)
            session = driver.session.state.session
            driver.detach(caller.conn, 1006, clean=False)
            await asyncio.sleep(4)
            assert driver.session.state.status == "detached"
            await asyncio.sleep(4)
            assert "openline.session.parked" in facts_of(home.log, session)
            assert home.gateway.drivers == {}

    run(story())


def test_a_parked_session_is_woken_by_its_own_deadline_and_ended() -> None:
    async def story() -> None:
        async with house(limits=Limits(park_for_ms=60_000)) as home:
            caller = Caller()
            driver = await home.call(caller)
            session = driver.session.state.session
            driver.detach(caller.conn, 1000, clean=True)
            await asyncio.sleep(50)
            assert "openline.session.ended" not in facts_of(home.log, session)
            await asyncio.sleep(20)
            assert facts_of(home.log, session)[-1] == "openline.session.ended"
            assert home.gateway.drivers == {}
            assert await home.log.due_wakeups(home.clock.now().wall_ms + 10**9) == []

    run(story())


# --------------------------------------------------------------------------------------- drain, a full disk


def test_drain_takes_nobody_new_and_lets_running_replies_end() -> None:
    async def story() -> None:
        links = ScriptedLinkFactory(play_list([ReplyPlan(text="goodbye", audio_ms=3_000)]))
        async with house(links=links) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "hello")
            await asyncio.sleep(0.5)
            drain = asyncio.ensure_future(home.gateway.drain())
            await asyncio.sleep(0.1)
            assert not drain.done()
            with pytest.raises(ClientProtocolError) as refused:
                await home.gateway.create(TENANT, home.config())
            assert refused.value.code == "server_draining"
            await asyncio.sleep(3)
            assert drain.done()
            assert "response.done" in caller.names()

    run(story())


def test_a_reply_that_does_not_end_holds_the_drain_no_longer_than_granted() -> None:
    async def story() -> None:
        endless = ScriptedLinkFactory(
            lambda context: ReplyPlan(text="and so on", failure="stalls", audio_ms=60_000)
        )
        async with house(links=endless, drain_s=4.0) as home:
            driver = await home.call(Caller())
            ask(driver, "hello")
            await asyncio.sleep(0.5)
            began = asyncio.get_running_loop().time()
            await home.gateway.drain()
            assert asyncio.get_running_loop().time() - began == pytest.approx(4.0, abs=0.1)

    run(story())


def test_a_full_disk_ends_recording_then_admission_and_no_call() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            caller = Caller()
            driver = await home.call(caller)
            home.gateway.disk_full(True)
            await asyncio.sleep(0.1)
            assert (recordings.open, driver.recorder) == (0, None)
            with pytest.raises(ClientProtocolError, match="disk is full"):
                await home.gateway.create(TENANT, home.config())
            ask(driver, "say still here")
            await asyncio.sleep(2)
            assert driver.session.state.conversation()[-1].text == "still here"
            home.gateway.disk_full(False)
            assert recordings.open == 1
            await home.gateway.create(TENANT, home.config())

    run(story())


def test_statistics_count_sessions_and_connections() -> None:
    async def story() -> None:
        async with house() as home:
            driver = await home.call(Caller(), Caller("conn_2", "observer"))
            await home.call()
            counts = home.gateway.statistics()
            assert (counts["live"], counts["created"], counts["connections"]) == (1, 1, 2)
            driver.offer(i.EndSession("ended"))
            assert home.gateway.statistics()["ended"] == 1

    run(story())


def test_relief_of_the_log_reaches_those_who_hold_commands() -> None:
    async def story() -> None:
        log = MemoryLog(manual=True, queue_items_max=4)
        async with house(log=log) as home:
            told: list[str] = []
            home.gateway.relieved.add(lambda: told.append("relief"))
            driver = await home.call(Caller())
            for number in range(6):
                driver.offer(typed("x", f"item_{number}"))
            assert log.is_saturated
            assert told == []
            log.commit()
            assert told == ["relief"]

    run(story())
