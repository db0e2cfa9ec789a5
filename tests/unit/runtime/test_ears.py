"""The listening half: where turns begin and end, what the recognizer is given, and nobody's words lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from openline.adapters.resample import Resampler
from openline.core.floor import STARVED_MS
from openline.core.model import EAGERNESS_SILENCE_MS, SessionConfig, TurnDetection
from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, WIRE_RATE, Transcript
from openline.runtime.ears import KEEP_IDLE_MS, KEEP_TURN_MS, Ears, Kept
from openline.testing.sinks import RecordingSink
from openline.testing.speech import EnergyDetector, ScriptedRecognizer, tone
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId

FRAME_MS = 20


class SlowRecognizer(ScriptedRecognizer):
    """Takes ``takes_s`` for the final text; keeps the audio that each utterance was given."""

    def __init__(self, *texts: str, takes_s: float = 0.0) -> None:
        super().__init__(texts)
        self.takes_s = takes_s
        self.heard: list[bytearray] = []
        self.cancelled = 0
        self.refuses: set[str] = set()

    def stream(
        self, on_partial: Callable[[str], None], *, grammar: Sequence[str] = (), language: str = "en"
    ) -> Any:
        if "stream" in self.refuses:
            raise SpeechError("the recognizer is not running.")
        owner, inner, heard = self, super().stream(on_partial, grammar=grammar), bytearray()
        self.heard.append(heard)

        class Stream:
            def push(self, pcm16k: bytes) -> None:
                if "push" in owner.refuses:
                    raise SpeechError("an utterance holds at most 60 s of audio.")
                heard.extend(pcm16k)
                inner.push(pcm16k)

            async def finish(self) -> Transcript:
                await asyncio.sleep(owner.takes_s)
                return await inner.finish()

            async def cancel(self) -> None:
                owner.cancelled += 1
                await inner.cancel()

        return Stream()


class Line:
    """A caller's line to a pair of ears, in virtual real time."""

    def __init__(self, *texts: str, takes_s: float = 0.0) -> None:
        self.sink = RecordingSink()
        self.recognizer = SlowRecognizer(*texts, takes_s=takes_s)
        self.tasks: set[asyncio.Task[None]] = set()
        self.ears = Ears(
            self.sink,
            self.recognizer,
            EnergyDetector(),
            Resampler(WIRE_RATE, SPEECH_RATE),
            spawn=self._spawn,
        )
        self.sent = 0

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def start(self, detection: TurnDetection | None = TurnDetection()) -> Line:
        await self.recognizer.start()
        self.configure(detection)
        return self

    def configure(self, detection: TurnDetection | None) -> None:
        self.ears.configure(SessionConfig(turn_detection=detection))

    async def say(self, ms: int) -> None:
        await self._send(tone(300, ms, rate=WIRE_RATE))

    async def silence(self, ms: int) -> None:
        await self._send(bytes(ms * 48))

    async def _send(self, pcm: bytes) -> None:
        for start in range(0, len(pcm), FRAME_MS * 48):
            self.ears.append(pcm[start : start + FRAME_MS * 48])
            self.sent += FRAME_MS
            await asyncio.sleep(FRAME_MS / 1000)

    def said(self, *without: str) -> list[Any]:
        return [event for event in self.sink.events if event[0] not in ("user_partial", *without)]


def run(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


def samples(ms: float) -> int:
    return int(ms * 24)


# -------------------------------------------------------------------------------------------------- turns


def test_a_turn_begins_before_its_first_voice_and_ends_at_its_last() -> None:
    async def story() -> None:
        line = await Line("hello").start()
        await line.silence(1_000)
        await line.say(800)
        await line.silence(700)
        started, stopped, final = line.said()
        assert started == ("speech_started", pytest.approx(samples(1_000 - 300), abs=samples(64)))
        assert stopped == ("speech_stopped", pytest.approx(samples(1_800), abs=samples(64)))
        assert final[:3] == ("turn_final", None, "hello")
        assert final[3:] == (started[1], stopped[1])

    run(story())


def test_the_recognizer_is_given_the_pre_roll_too() -> None:
    async def story() -> None:
        line = await Line("hello").start()
        await line.silence(1_000)
        await line.say(600)
        await line.silence(700)
        (heard,) = line.recognizer.heard
        # 300 ms of padding, the word, and the silence that ended it.
        assert len(heard) / 32 == pytest.approx(300 + 600 + 500, abs=100)

    run(story())


def test_partials_come_while_the_caller_speaks() -> None:
    async def story() -> None:
        line = await Line("one two three four").start()
        await line.say(1_500)
        assert ("user_partial", "one two") in line.sink.events
        assert ("speech_stopped",) not in [event[:1] for event in line.sink.events]

    run(story())


def test_a_click_is_no_turn() -> None:
    async def story() -> None:
        line = await Line("never").start()
        await line.say(40)
        await line.silence(1_000)
        assert line.said() == []
        assert line.recognizer.heard == []

    run(story())


def test_a_sound_while_the_agent_speaks_holds_it_and_lets_it_go_on() -> None:
    async def story() -> None:
        line = await Line("never").start()
        line.ears.playing(True)
        await line.say(100)
        await line.silence(1_000)
        assert line.said() == [("speech_paused", True), ("speech_paused", False)]

    run(story())


@pytest.mark.parametrize("eagerness", ["low", "medium", "high", "auto"])
def test_semantic_vad_waits_as_long_as_its_eagerness_says(eagerness: Any) -> None:
    async def story() -> None:
        line = await Line("hello").start(TurnDetection("semantic_vad", eagerness=eagerness))
        await line.say(500)
        began = line.sent
        while not line.said("speech_started"):
            await line.silence(FRAME_MS)
        assert line.sent - began == pytest.approx(EAGERNESS_SILENCE_MS[eagerness], abs=80)

    run(story())


def test_a_change_of_settings_in_mid_turn_keeps_the_turn() -> None:
    async def story() -> None:
        line = await Line("hello").start()
        await line.say(500)
        line.configure(TurnDetection(silence_duration_ms=1_500))
        await line.silence(1_000)
        assert [event[0] for event in line.said()] == ["speech_started"]
        await line.silence(1_000)
        assert [event[0] for event in line.said()] == ["speech_started", "speech_stopped", "turn_final"]

    run(story())


def test_detection_switched_on_later_counts_from_the_start_of_the_line() -> None:
    async def story() -> None:
        line = await Line("hello").start(None)
        await line.silence(5_000)
        line.configure(TurnDetection())
        await line.silence(1_000)
        await line.say(500)
        await line.silence(700)
        assert line.said()[0] == ("speech_started", pytest.approx(samples(5_700), abs=samples(64)))
        assert len(line.recognizer.heard[0]) / 32 == pytest.approx(300 + 500 + 500, abs=100)

    run(story())


# --------------------------------------------------------------------------------- while one is decided on


def test_who_goes_on_while_the_last_turn_is_decided_on_is_heard_from_the_beginning() -> None:
    async def story() -> None:
        line = await Line("first", "second", takes_s=1.0).start()
        await line.say(500)
        await line.silence(600)
        await line.say(2_000)
        await line.silence(2_000)
        texts = [event[2] for event in line.said() if event[0] == "turn_final"]
        assert texts == ["first", "second"]
        second = line.said()[3]
        assert second == ("speech_started", pytest.approx(samples(1_100 - 300), abs=samples(64)))
        assert len(line.recognizer.heard[1]) / 32 == pytest.approx(300 + 2_000 + 500, abs=100)

    run(story())


def test_a_short_word_while_the_last_turn_is_decided_on_is_not_lost() -> None:
    async def story() -> None:
        line = await Line("first", "yes", takes_s=2.0).start()
        await line.say(500)
        await line.silence(600)
        await line.say(400)
        await line.silence(5_000)
        names = [event[0] for event in line.said()]
        assert names == ["speech_started", "speech_stopped", "turn_final"] * 2
        assert line.said()[5][2] == "yes"
        assert line.said()[5][4] - line.said()[5][3] == pytest.approx(samples(700), abs=samples(64))

    run(story())


def test_two_short_words_in_that_time_are_one_turn() -> None:
    async def story() -> None:
        line = await Line("first", "yes please", takes_s=3.0).start()
        await line.say(500)
        await line.silence(600)
        for _ in range(2):
            await line.say(300)
            await line.silence(600)
        await line.silence(8_000)
        finals = [event for event in line.said() if event[0] == "turn_final"]
        assert [event[2] for event in finals] == ["first", "yes please"]
        assert finals[1][4] - finals[1][3] == pytest.approx(samples(300 + 300 + 600 + 300), abs=samples(96))

    run(story())


# ----------------------------------------------------------------------------------------------- no audio


def test_audio_that_stops_in_mid_word_ends_the_turn() -> None:
    async def story() -> None:
        line = await Line("cut off").start()
        await line.say(500)
        await asyncio.sleep((500 + STARVED_MS) / 1000 + 0.1)
        assert [event[0] for event in line.said()] == ["speech_started", "speech_stopped", "turn_final"]

    run(story())


def test_a_closed_line_says_nothing_more() -> None:
    async def story() -> None:
        line = await Line("late", takes_s=1.0).start()
        await line.say(500)
        line.ears.close()
        before = list(line.sink.events)
        await asyncio.sleep(5)
        assert line.sink.events == before
        assert line.recognizer.cancelled == 1
        assert line.recognizer.free_slots == 2

    run(story())


# ------------------------------------------------------------------------------------- ends by the client


def test_a_committed_buffer_is_recognised_as_its_item() -> None:
    async def story() -> None:
        line = await Line("typed by mouth").start(None)
        await line.silence(500)
        await line.say(1_000)
        line.ears.commit(ItemId("item_1"), samples(500), samples(1_500))
        await asyncio.sleep(0.1)
        assert line.said() == [
            ("turn_final", "item_1", "typed by mouth", samples(500), samples(1_500)),
        ]
        assert len(line.recognizer.heard[0]) / 32 == pytest.approx(1_000, abs=30)

    run(story())


def test_a_commit_in_mid_speech_ends_detection_of_that_speech() -> None:
    async def story() -> None:
        line = await Line("by hand").start()
        await line.say(500)
        line.ears.commit(ItemId("item_1"), 0, samples(500))
        await line.silence(2_000)
        assert [event[0] for event in line.said()] == ["speech_started", "turn_final"]
        assert line.recognizer.cancelled == 1

    run(story())


def test_a_commit_takes_also_what_was_said_while_the_last_turn_was_decided_on() -> None:
    async def story() -> None:
        line = await Line("first", "by hand", takes_s=2.0).start()
        await line.say(500)
        await line.silence(600)
        await line.say(400)
        line.ears.commit(ItemId("item_1"), samples(1_100), samples(1_500))
        await line.silence(6_000)
        names = [event[:3] for event in line.said() if event[0] in ("speech_started", "turn_final")]
        assert len(names) == 3
        assert sorted(event[2] for event in names[1:]) == ["by hand", "first"]

    run(story())


def test_clear_forgets_what_is_being_said() -> None:
    async def story() -> None:
        line = await Line("never").start()
        await line.say(500)
        line.ears.clear()
        await line.silence(2_000)
        assert [event[0] for event in line.said()] == ["speech_started"]
        assert line.recognizer.cancelled == 1

    run(story())


# ------------------------------------------------------------------------------------ a recognizer that fails


def test_a_recognizer_that_fails_at_the_end_fails_the_turn_by_its_code() -> None:
    async def story() -> None:
        line = await Line().start()
        line.recognizer.say(SpeechError("the worker died"))
        await line.say(500)
        await line.silence(700)
        assert line.said()[-1] == ("turn_failed", None, SpeechError.code)

    run(story())


@pytest.mark.parametrize("refuses", ["stream", "push"])
def test_a_recognizer_that_takes_no_audio_fails_the_turn_and_the_next_one_is_heard(
    refuses: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        line = await Line("heard").start()
        line.recognizer.refuses = {refuses}
        await line.say(500)
        await line.silence(700)
        assert [event[0] for event in line.said()] == ["speech_started", "turn_failed"]
        line.recognizer.refuses = set()
        await line.say(500)
        await line.silence(700)
        assert line.said()[-1][:3] == ("turn_final", None, "heard")

    run(story())
    assert {"stream": "is not running", "push": "at most 60 s"}[refuses] in caplog.text


@pytest.mark.parametrize("refuses", ["stream", "push"])
def test_a_committed_item_that_cannot_be_recognised_fails_by_name(refuses: str) -> None:
    async def story() -> None:
        line = await Line().start(None)
        await line.say(500)
        line.recognizer.refuses = {refuses}
        line.ears.commit(ItemId("item_1"), 0, samples(500))
        await asyncio.sleep(0.1)
        assert line.said() == [("turn_failed", "item_1", SpeechError.code)]

    run(story())


# ------------------------------------------------------------------------------------------------- memory


def test_memory_is_bounded_in_silence_in_speech_and_without_detection() -> None:
    async def story() -> None:
        line = await Line("x").start()
        kept = line.ears._kept
        await line.silence(10_000)
        assert len(kept._data) <= (KEEP_IDLE_MS + 1_000) * 32
        line.configure(None)
        for _ in range(10):
            line.ears.append(bytes(20_000 * 48))
        assert len(kept._data) <= (KEEP_TURN_MS + 1_000) * 32

    run(story())


def test_what_was_kept_is_addressed_by_its_place_on_the_line() -> None:
    kept = Kept()
    for number in range(100):
        kept.add(number.to_bytes(2, "little") * 320)
    assert kept.end == samples(2_000)
    assert kept.slice(samples(500), samples(520)) == (25).to_bytes(2, "little") * 320
    kept.trim(500)
    assert kept.slice(samples(1_980), samples(2_000)) == (99).to_bytes(2, "little") * 320
    assert kept.slice(0, samples(100)) == b""
    assert kept.slice(samples(1_000), samples(3_000))[:2] == (75).to_bytes(2, "little")
