"""Between a link's samples and the session's track, and what a link says that belongs to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.core import inputs as i
from openline.core.model import AudioRange, Usage
from openline.errors import LinkUnavailable
from openline.runtime.driver import SessionDriver
from openline.runtime.linkhost import GAPS_MAX, OPEN_TIMEOUT_S, TrackMap
from openline.testing.link_scripted import ScriptedLinkFactory, TurnScript
from openline.testing.scripts import ReplyPlan, scripted_silence, scripted_speech
from openline.testing.virtual_time import run_virtual
from openline.types import CallId, ConnectionId, ItemId, ResponseId
from runtime_gateway import Caller, LateRecordings, Recordings, ask, facts_of, house, speak


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


# -------------------------------------------------------------------------------------------- the gap map

STEPS = st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 2_000)), min_size=1, max_size=30)
"""(silence before it, samples) of each piece of audio."""


@given(STEPS)
def test_each_sample_of_the_link_has_its_place_on_the_track_and_back(steps: list[tuple[int, int]]) -> None:
    track_map, link, track = TrackMap(), 0, 0
    places: list[tuple[int, int]] = []
    for silence, samples in steps:
        track += silence
        if track_map.to_track(link) != track:
            track_map.gap(link, track)
        places += [(link, track), (link + samples - 1, track + samples - 1)]
        link, track = link + samples, track + samples
    for at_link, at_track in places:
        assert track_map.to_track(at_link) == at_track
        assert track_map.to_link(at_track) == at_link


@given(STEPS, st.lists(st.integers(0, 200_000), min_size=2, max_size=10))
def test_order_is_kept_both_ways_also_inside_gaps(steps: list[tuple[int, int]], asked: list[int]) -> None:
    track_map, link, track = TrackMap(), 0, 0
    for silence, samples in steps:
        track += silence
        if track_map.to_track(link) != track:
            track_map.gap(link, track)
        link, track = link + samples, track + samples
    asked.sort()
    there = [track_map.to_track(position) for position in asked]
    back = [track_map.to_link(position) for position in asked]
    assert there == sorted(there)
    assert back == sorted(back)
    assert all(track_map.to_link(track_map.to_track(position)) == position for position in asked)


@pytest.mark.parametrize(
    ("link", "track"),
    [(0, 0), (2_399, 2_399), (2_400, 87_600), (9_599, 94_799), (9_600, 94_800), (9_700, 94_900)],
)
def test_speech_that_began_with_a_gap_in_its_padding_began_behind_the_gap(link: int, track: int) -> None:
    known = TrackMap()
    known.gap(9_600, 94_800)
    assert known.start_to_track(link, 7_200) == track


def test_a_line_full_of_gaps_keeps_a_bounded_map() -> None:
    track_map = TrackMap()
    for number in range(GAPS_MAX * 2):
        track_map.gap(number * 10, number * 20)
    assert len(track_map._links) == GAPS_MAX
    assert track_map.to_track(10 * GAPS_MAX * 3) > 0


# ---------------------------------------------------------------------------------------------- late content


def test_content_for_no_open_item_is_counted_and_shown_to_nobody() -> None:
    async def story() -> None:
        async with house() as home:
            caller = Caller()
            driver = await home.call(caller)
            host = driver.link
            assert host is not None
            before = list(caller.told)
            unknown = ResponseId("resp_unknown")
            host.text_delta(unknown, 0, "late")
            host.audio_delta(unknown, 0, bytes(960), 4)
            host.call_delta(unknown, 1, "{}")
            host.message_finished(unknown, 0)
            host.response_finished(unknown, Usage(), "completed")
            await asyncio.sleep(0.1)
            assert (caller.told, bytes(caller.audio)) == (before, b"")
            assert host.late == 4

    run(story())


def test_after_a_cancel_what_a_deaf_model_still_says_is_dropped() -> None:
    async def story() -> None:
        plan = ReplyPlan(text="one two three four five six", failure="late_finish", chunk_delay_ms=100)
        async with house(links=ScriptedLinkFactory(lambda context: plan)) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "hello")
            await asyncio.sleep(0.3)
            (response,) = driver.session.state.responses
            driver.offer(i.CancelResponse(conn=caller.conn))
            heard = len(caller.audio)
            await asyncio.sleep(5)
            assert len(caller.audio) == heard
            names = facts_of(home.log, driver.session.state.session)
            assert names.count("response.done") == 1
            assert names[-1] != "response.output_item.added"
            assert response not in driver.session.state.responses

    run(story())


def test_a_link_that_says_everything_twice_changes_nothing() -> None:
    async def story() -> None:
        plans = [
            ReplyPlan(text="one", failure="finish_twice"),
            ReplyPlan(text="two", failure="message_finish_twice"),
            ReplyPlan(text="three", failure="unknown_response"),
        ]
        async with house(links=ScriptedLinkFactory(lambda context: plans[context.ordinal])) as home:
            driver = await home.call(Caller())
            for text in ("a", "b", "c"):
                ask(driver, text)
                await asyncio.sleep(3)
            names = facts_of(home.log, driver.session.state.session)
            assert names.count("response.done") == names.count("response.created") == 3
            assert names.count("response.output_item.done") == 3
            said = [item.text for item in driver.session.state.conversation() if item.role == "assistant"]
            assert said == ["one", "two", "three"]

    run(story())


def test_a_call_delta_of_an_item_that_is_gone_is_no_error() -> None:
    async def story() -> None:
        async with house() as home:
            driver = await home.call(Caller())
            assert driver.link is not None
            driver.link.call_started(ResponseId("resp_x"), 0, CallId("call_x"), "work")
            driver.link.call_finished(ResponseId("resp_x"), 0, "{}")
            assert not driver.is_stopped
            assert "openline.tool.requested" not in facts_of(home.log, driver.session.state.session)

    run(story())


# -------------------------------------------------------------------------------------------------- opening


def test_a_link_that_never_opens_counts_as_lost() -> None:
    async def story() -> None:
        async with house() as home:
            driver = await home.gateway.create("default", home.config())

            class Never:
                hears = False

                async def open(self, *_: object) -> None:
                    await asyncio.Event().wait()

                async def close(self) -> None: ...

            driver._link_factory = lambda session, config: Never()  # type: ignore[assignment]  # a stub of a link
            home.attach(driver, Caller())
            await asyncio.sleep(OPEN_TIMEOUT_S + 0.1)
            assert "openline.link.lost" in facts_of(home.log, driver.session.state.session)

    run(story())


def test_refused_for_good_is_told_and_not_tried_again() -> None:
    async def story() -> None:
        async with house(links=ScriptedLinkFactory(opens=["rejected"])) as home:
            caller = Caller()
            await home.call(caller)
            await asyncio.sleep(120)
            assert home.links.made == 1
            assert "error" in caller.names()

    run(story())


def test_unavailable_is_tried_again_after_longer_and_longer_waits() -> None:
    async def story() -> None:
        async with house(links=ScriptedLinkFactory(opens=["unavailable"] * 4)) as home:
            caller = Caller()
            driver = await home.call(caller)
            ask(driver, "say hello at last")
            await asyncio.sleep(0.2)
            assert home.links.made == 1
            await asyncio.sleep(20)
            assert home.links.made == 5
            assert driver.session.state.conversation()[-1].text == "hello at last"

    run(story())


async def speak_into_a_loss(
    driver: SessionDriver, text: str, *, ms: int, after_ms: int, is_known: bool
) -> None:
    """``text`` in real time; the link is lost ``after_ms`` into it. ``is_known``: it had told that somebody speaks."""
    audio = scripted_speech(text, ms) + scripted_silence(800)
    for number, at in enumerate(range(0, len(audio), 960)):
        if number == after_ms // 20:
            assert driver.link is not None and (driver.session.state.turn is not None) == is_known
            driver.link.lost(LinkUnavailable("the wire", cause="closed_1006"))
        driver.append_audio(audio[at : at + 960])
        await asyncio.sleep(0.02)
    await asyncio.sleep(5)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_who_is_in_mid_utterance_is_heard_to_the_end_by_the_next_link(is_recorded: bool) -> None:
    """B11, G12: the new link is given the speech from its beginning, and one turn with all its words comes of it."""

    async def story() -> None:
        recordings = LateRecordings() if is_recorded else None
        async with house(recordings=recordings) as home:
            driver = await home.call(Caller())
            await speak(driver, "before", ms=300)
            await asyncio.sleep(10)
            await speak_into_a_loss(driver, "one long sentence", ms=2_000, after_ms=1_000, is_known=True)
            heard = [item.text for item in driver.session.state.conversation() if item.role == "user"]
            assert heard == ["before", "one long sentence"]
            names = facts_of(home.log, driver.session.state.session)
            assert "openline.turn.continued" in names and "openline.turn.abandoned" not in names
            assert names.count("response.done") == 2

    run(story())


@pytest.mark.parametrize("is_recorded", [False, True])
def test_who_speaks_up_after_a_long_silence_while_links_fail_is_heard_from_the_first_word(
    is_recorded: bool,
) -> None:
    """B11: what nobody heard begins before the half minute that is given again; all within it is."""

    async def story() -> None:
        recordings = LateRecordings() if is_recorded else None
        factory = ScriptedLinkFactory(opens=["yes", "unavailable", "unavailable"])
        async with house(links=factory, recordings=recordings) as home:
            driver = await home.call(Caller())
            await speak(driver, "before", ms=300)
            await asyncio.sleep(40)
            assert driver.link is not None
            driver.link.lost(LinkUnavailable("the wire", cause="closed_1006"))
            await speak(driver, "is anybody there", ms=2_000)
            await asyncio.sleep(5)
            assert factory.made == 4
            heard = [item.text for item in driver.session.state.conversation() if item.role == "user"]
            assert heard == ["before", "is anybody there"]

    run(story())


class Undecided:
    """A detector that has heard the first word and does not yet say so, while the reply's words confirm all of it."""

    def __init__(self, link: Any) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None: ...

    def unconfirmed(self) -> int:
        return 0


@pytest.mark.parametrize("is_recorded", [False, True])
def test_speech_that_no_link_had_told_of_yet_is_heard_from_its_first_word(is_recorded: bool) -> None:
    """B11: what the model said last does not show that it had heard who began to speak into it."""

    async def story() -> None:
        recordings = LateRecordings() if is_recorded else None
        async with house(recordings=recordings) as home:
            driver = await home.call(Caller())
            await speak(driver, "before", ms=300)
            await asyncio.sleep(10)
            assert driver.link is not None
            driver.link.link = cast(Any, Undecided(driver.link.link))
            await speak_into_a_loss(driver, "the first word", ms=1_500, after_ms=240, is_known=False)
            heard = [item.text for item in driver.session.state.conversation() if item.role == "user"]
            assert heard == ["before", "the first word"]

    run(story())


class StuckRecordings(Recordings):
    """A disk that takes what it is given, and answers nobody."""

    async def flush(self) -> None:
        await asyncio.Event().wait()


def test_a_recording_that_nobody_can_read_holds_up_the_call_for_a_moment_only() -> None:
    """Of the turn that was to be recognised again its end is told; who speaks meanwhile is heard."""

    async def story() -> None:
        factory = ScriptedLinkFactory(turns=TurnScript(final_delay_ms=60_000))
        async with house(links=factory, recordings=StuckRecordings()) as home:
            driver = await home.call(Caller())
            await speak(driver, "before", ms=300)
            assert driver.session.state.to_recognize and driver.link is not None
            driver.link.lost(LinkUnavailable("the wire", cause="closed_1006"))
            await asyncio.sleep(1)
            assert driver.session.state.link.phase == "open"
            await speak(driver, "are you there", ms=1_000)
            assert home.link.audio_bytes == 0, "what was said before goes first"
            await asyncio.sleep(5)
            assert home.link.audio_bytes == 1_700 * 48
            names = facts_of(home.log, driver.session.state.session)
            assert names.count("openline.turn.abandoned") == 1

    run(story())


@pytest.mark.parametrize("why", ["too long", "not on disk"])
def test_an_utterance_that_cannot_be_given_again_is_given_up_and_the_call_goes_on(why: str) -> None:
    async def story() -> None:
        recordings = Recordings() if why == "not on disk" else None
        async with house(recordings=recordings) as home:
            driver = await home.call(Caller())
            audio = scripted_speech("endless", 33_000 if why == "too long" else 1_000)
            for at in range(0, len(audio), 960):
                driver.append_audio(audio[at : at + 960])
                await asyncio.sleep(0.02)
            assert driver.link is not None and driver.session.state.turn is not None
            driver.link.lost(LinkUnavailable("the wire"))
            await asyncio.sleep(5)
            assert driver.session.state.turn is None
            await speak(driver, "hello again")
            await asyncio.sleep(5)
            assert [i.text for i in driver.session.state.conversation() if i.role == "user"] == [
                "hello again"
            ]
            names = facts_of(home.log, driver.session.state.session)
            assert names.count("openline.turn.abandoned") == 1

    run(story())


def test_a_turn_that_was_cleared_while_its_link_opened_leaves_nothing_held() -> None:
    async def story() -> None:
        async with house() as home:
            driver = await home.call(Caller())
            await speak(driver, "never mind", ms=300, pause_ms=0)
            assert driver.link is not None
            driver.link.lost(LinkUnavailable("the wire"))
            driver.offer(i.ClearAudio(ConnectionId("conn_1")))
            assert driver.session.state.turn is None
            await asyncio.sleep(2)
            await speak(driver, "something else")
            await asyncio.sleep(5)
            heard = [item.text for item in driver.session.state.conversation() if item.role == "user"]
            assert heard[-1] == "something else"

    run(story())


# ---------------------------------------------------------------------------------------- a manual commit


def test_a_committed_range_that_this_link_never_heard_is_recognised_from_the_recording() -> None:
    async def story() -> None:
        recordings = Recordings()
        async with house(recordings=recordings) as home:
            driver = await home.call(Caller())
            asked: list[tuple[str, int]] = []
            recordings.stored["caller"] = bytes(48_000)

            def recognize(item: str, pcm: bytes) -> bool:
                asked.append((item, len(pcm)))
                return True

            setattr(home.link, "recognize", recognize)  # noqa: B010 - the scripted link has none
            assert driver.link is not None
            driver.link.transcribe(ItemId("item_1"), AudioRange(1_000, 9_000))
            await asyncio.sleep(0.1)
            assert asked == [("item_1", 16_000)]

    run(story())
