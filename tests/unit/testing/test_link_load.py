"""The load link streams at its rate from one wheel, stamps when chunks were due, and counts what came up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from openline.core.model import Item, ResponseRequest, SessionConfig, TurnDetection
from openline.errors import ConfigError
from openline.ports import ModelLink, ResponseStart
from openline.testing.histogram import Histogram, bucket, bucket_top_us
from openline.testing.link_load import LoadLinkFactory, LoadPlan
from openline.testing.scripts import LOUD
from openline.testing.sinks import RecordingSink
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId, ResponseId, SessionId

CONFIG = SessionConfig(turn_detection=TurnDetection(silence_duration_ms=200))


class StampSink(RecordingSink):
    """Also keeps, for each chunk, when it came and when it says it was due."""

    def __init__(self) -> None:
        super().__init__()
        self.delays_ns: list[int] = []
        self.times_ms: list[float] = []

    def audio_delta(self, response: ResponseId, output_index: int, pcm: bytes, text_end: int) -> None:
        super().audio_delta(response, output_index, pcm, text_end)
        now_s = asyncio.get_running_loop().time()
        self.delays_ns.append(round(now_s * 1e9) - int.from_bytes(pcm[:8], "little"))
        self.times_ms.append(round(now_s * 1000, 3))


def _clock_ns() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def _start(number: int = 1, items: tuple[Item, ...] = ()) -> ResponseStart:
    return ResponseStart(ResponseId(f"resp_{number}"), ResponseRequest(), CONFIG, items)


async def _opened(factory: LoadLinkFactory, name: str = "sess_1") -> tuple[ModelLink, StampSink]:
    link, sink = factory(SessionId(name), CONFIG), StampSink()
    await link.open(sink, CONFIG, ())
    return link, sink


def test_a_reply_streams_in_real_time_with_words_and_ends_with_its_last_chunk() -> None:
    async def story() -> None:
        factory = LoadLinkFactory(LoadPlan(reply_ms=400, tool_every=0), clock_ns=_clock_ns)
        link, sink = await _opened(factory)
        link.start_response(_start())
        await asyncio.sleep(2)
        assert sink.times_ms[0] == 0, "the first chunk does not wait for the wheel"
        gaps = [b - a for a, b in zip(sink.times_ms[1:], sink.times_ms[2:], strict=False)]
        assert gaps == pytest.approx([40] * 8)
        assert len(sink.audio[ResponseId("resp_1")]) == 400 * 48
        assert max(sink.delays_ns) < 1_000_000
        assert sink.text[ResponseId("resp_1")].count("~") == 2, "each fifth delta and the last are marks"
        assert sink.names() == ["opened", "message_started", "message_finished", "response_finished"]

    run_virtual(story())


def test_a_loop_that_was_late_shows_in_the_stamps() -> None:
    async def story() -> None:
        late_ns = 0
        factory = LoadLinkFactory(
            LoadPlan(reply_ms=200, tool_every=0), clock_ns=lambda: _clock_ns() + late_ns
        )
        link, sink = await _opened(factory)
        link.start_response(_start())
        await asyncio.sleep(0.02)
        late_ns = 100_000_000
        await asyncio.sleep(1)
        assert len(sink.delays_ns) == 5
        assert min(sink.delays_ns[1:]) < -50_000_000, "stamped when due: before the clock that jumped"

    run_virtual(story())


def test_many_sessions_share_one_wheel_and_a_cancel_stops_one_of_them() -> None:
    async def story() -> None:
        factory = LoadLinkFactory(LoadPlan(reply_ms=1000, tool_every=0), clock_ns=_clock_ns)
        pairs = [await _opened(factory, f"sess_{number}") for number in range(50)]
        for number, (link, _sink) in enumerate(pairs):
            link.start_response(_start(number))
            await asyncio.sleep(0.003)
        pairs[7][0].cancel_response(ResponseId("resp_7"))
        await pairs[8][0].close()
        await asyncio.sleep(3)
        finished = [sink.names()[-1] == "response_finished" for _link, sink in pairs]
        assert finished == [number not in (7, 8) for number in range(50)]
        assert factory.statistics.finished == 48
        pairs[0][0].start_response(_start(99))
        await asyncio.sleep(3)
        assert len(pairs[0][1].audio[ResponseId("resp_99")]) == 48_000, "the wheel turns again after a rest"

    run_virtual(story())


def test_each_nth_turn_is_a_tool_call_and_its_output_is_answered_with_speech() -> None:
    async def story() -> None:
        factory = LoadLinkFactory(LoadPlan(reply_ms=40, tool_every=2), clock_ns=_clock_ns)
        link, sink = await _opened(factory)
        output = Item(ItemId("item_1"), "function_call_output", "tool", call_id="call_2", output="7")
        for number, items in enumerate(((), (), (output,), ()), 1):
            link.start_response(_start(number, items))
            await asyncio.sleep(1)
        speaking = [response for response in sink.audio]
        assert speaking == ["resp_1", "resp_3", "resp_4"]
        assert sink.names().count("call_finished") == 1

    run_virtual(story())


def test_stamped_frames_are_timed_and_their_mark_makes_turns(tmp_path: Path) -> None:
    def frame(is_loud: bool) -> bytes:
        return (
            (_clock_ns() - 3_000_000).to_bytes(8, "little")
            + (LOUD if is_loud else 0).to_bytes(2, "little")
            + bytes(950)
        )

    async def story() -> None:
        path = tmp_path / "load.json"
        factory = LoadLinkFactory(LoadPlan(reply_ms=40), clock_ns=_clock_ns, statistics_path=path)
        link, sink = await _opened(factory)
        for number in range(40):
            await asyncio.sleep(0.02)
            link.append_audio(frame(number < 10))
        link.commit_audio(ItemId("item_1"), 0, 9600)
        link.start_response(_start())
        await asyncio.sleep(1)
        assert sink.names()[1:5] == ["speech_started", "speech_stopped", "turn_final", "turn_final"]
        assert sink.events[2] == ("speech_stopped", 10 * 480)
        assert factory.statistics.up.total == 40
        assert factory.statistics.up.percentile_ms(99) == pytest.approx(3, rel=0.03)
        assert json.loads(path.read_text())["frames_up"] == 40

    run_virtual(story())


def test_a_plan_is_read_from_text_and_a_wrong_one_says_what_is_allowed() -> None:
    assert LoadPlan.parse("") == LoadPlan()
    assert LoadPlan.parse("reply_ms=100,tool_every=0") == LoadPlan(reply_ms=100, tool_every=0)
    for wrong in ("speed=3", "reply_ms=fast", "reply_ms", "delta_ms=7", "delta_ms=0"):
        with pytest.raises(ConfigError, match="expected"):
            LoadPlan.parse(wrong)


def test_histogram_buckets_hold_what_they_say_and_err_by_three_percent_at_most() -> None:
    for us in [*range(2000), *(3**power for power in range(7, 19))]:
        top = bucket_top_us(bucket(us))
        assert us <= top <= us * (1 + 1 / 32)
    counted = Histogram()
    for us in range(1, 1001):
        counted.add_ns(us * 1000)
    earlier = Histogram.of_sparse(counted.sparse())
    assert counted.percentile_ms(50) == pytest.approx(0.5, rel=0.04)
    assert counted.percentile_ms(100) == pytest.approx(1.0, rel=0.04)
    counted.add_ns(-5)
    assert counted.since(earlier).sparse() == {"0": 1}
    assert Histogram().percentile_ms(99) is None
    with pytest.raises(ValueError, match="expected 900"):
        Histogram([1])
