"""Plugins of LiveKit Agents keep the rules of our ports: OpenAI's against fake servers, Silero's own model offline.

Run by ``make test-plugins``, in an environment that has them; skipped elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("livekit.agents", reason="livekit-agents is not installed (make test-plugins)")
pytest.importorskip(
    "livekit.plugins.openai", reason="livekit-plugins-openai is not installed (make test-plugins)"
)
pytest.importorskip(
    "livekit.plugins.silero", reason="livekit-plugins-silero is not installed (make test-plugins)"
)

from livekit.agents import stt, vad
from livekit.plugins import openai, silero
from openai import AsyncOpenAI

from openline.adapters.livekit_plugins import detects, hears, speaks, thinks
from openline.demo.phrases import audio, load
from openline.ports import SPEECH_RATE
from openline.testing.check_llm import PART_TOOL, check_language_model
from openline.testing.check_speech import check_detector, check_recognizer, check_synthesizer
from openline.testing.fake_audio import FakeAudio
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import Json, Reply
from openline.testing.speech import tone

HUM = tone(300, 1_000, rate=SPEECH_RATE)


def obedient(body: Json) -> Reply:
    """Calls when it is made to, speaks otherwise."""
    if body.get("tool_choice", "auto") in ("auto", "none"):
        return Reply("one two three four")
    return Reply(calls=((PART_TOOL.name, '{"part": "hinge"}'),))


def test_the_openai_plugin_is_a_language_model() -> None:
    async def check() -> None:
        async with FakeProvider(obedient, key="k") as provider:
            await check_language_model(
                lambda: thinks(openai.LLM(model="m", base_url=provider.url, api_key="k"))
            )

    asyncio.run(check())


def test_the_openai_plugin_is_a_recognizer() -> None:
    async def check() -> None:
        # The client is given, for the plugin does not close its own.
        async with (
            FakeAudio("hello there", key="k") as fake,
            AsyncOpenAI(base_url=fake.url, api_key="k") as own,
        ):
            await check_recognizer(
                lambda: hears(openai.STT(client=own), slots=2),
                pcm=HUM,
                text="hello there",
            )

    asyncio.run(check())


def test_the_openai_plugin_is_a_synthesizer() -> None:
    async def check() -> None:
        async with FakeAudio(key="k") as fake:
            await check_synthesizer(
                lambda: speaks(openai.TTS(base_url=fake.url, api_key="k", response_format="pcm")),
                has_speed=False,
            )

    asyncio.run(check())


def test_the_silero_plugin_is_a_voice_detector() -> None:
    detectors = detects(silero.VAD.load())
    try:
        check_detector(detectors, speech=audio(load().by_name("about")))
    finally:
        detectors.close()


class Streaming(stt.STT[Any]):
    """A plugin that listens along: a word of ``words`` for each 200 ms of audio, all of them at the end."""

    def __init__(self, words: str, *, stays_open: bool = False) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.words, self.stays_open = words, stays_open
        self.open = 0

    async def _recognize_impl(self, *arguments: Any, **named: Any) -> stt.SpeechEvent:
        raise AssertionError("a plugin that streams is used as one")

    def stream(self, *, language: Any = "", conn_options: Any) -> stt.RecognizeStream:
        return _StreamOfWords(stt=self, conn_options=conn_options)


class _StreamOfWords(stt.RecognizeStream):
    async def _run(self) -> None:
        plugin = self._stt
        assert isinstance(plugin, Streaming)
        plugin.open += 1
        words, heard_s, told = plugin.words.split(), 0.0, 0
        try:
            async for frame in self._input_ch:
                heard_s += getattr(frame, "duration", 0.0)
                if (count := min(len(words) - 1, int(heard_s / 0.2))) > told:
                    told = count
                    self._say(stt.SpeechEventType.INTERIM_TRANSCRIPT, " ".join(words[:count]))
            self._say(stt.SpeechEventType.FINAL_TRANSCRIPT, " ".join(words), confidence=0.75)
            if plugin.stays_open:
                await asyncio.Event().wait()
        finally:
            plugin.open -= 1

    def _say(self, kind: stt.SpeechEventType, text: str, confidence: float = 0.0) -> None:
        data = stt.SpeechData("en", text, confidence=confidence)  # type: ignore[arg-type]  # theirs turns it into its type
        self._event_ch.send_nowait(stt.SpeechEvent(kind, alternatives=[data]))


@pytest.mark.parametrize("stays_open", [False, True])
def test_a_plugin_that_streams_is_a_recognizer(stays_open: bool) -> None:
    made: list[Streaming] = []

    def make() -> Any:
        made.append(Streaming("what time is it", stays_open=stays_open))
        return hears(made[-1], slots=2, linger_s=0.05)

    asyncio.run(check_recognizer(make, pcm=HUM, text="what time is it"))
    assert made[-1].open == 0, "no stream is left open"


def test_a_detector_whose_plugin_only_says_when_speech_begins_and_ends_follows_it() -> None:
    class Edges(vad.VAD):
        def __init__(self) -> None:
            super().__init__(capabilities=vad.VADCapabilities(update_interval=0.032))

        def stream(self) -> vad.VADStream:
            return _EdgeStream(self)

    class _EdgeStream(vad.VADStream):
        async def _main_task(self) -> None:
            kinds = [vad.VADEventType.START_OF_SPEECH, vad.VADEventType.END_OF_SPEECH]
            count = 0
            async for _ in self._input_ch:
                count += 1
                if count in (10, 20):
                    self._event_ch.send_nowait(vad.VADEvent(kinds[count // 10 - 1], 0, 0.0, 0.0, 0.0))

    detectors = detects(Edges())
    try:
        detector = detectors()
        values = [paced(detector.probability) for _ in range(30)]
    finally:
        detectors.close()
    assert values[:9] == [0.0] * 9 and values[11:19] == [1.0] * 8 and values[21:] == [0.0] * 9


def paced(probability: Callable[[bytes], float]) -> float:
    """One frame, with a moment for the other thread, as a call has between frames."""
    value = probability(bytes(1_024))
    time.sleep(0.005)
    return value
