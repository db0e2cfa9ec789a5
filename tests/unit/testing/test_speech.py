"""The twins do exactly what their docstrings say; their port's rules are in tests/conformance."""

from __future__ import annotations

import asyncio

import pytest

from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, WIRE_RATE
from openline.testing.speech import EnergyDetector, ScriptedRecognizer, ToneSynthesizer, samples_of, tone

FRAME = SPEECH_RATE // 50 * 2


def frames(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + FRAME] for at in range(0, len(pcm), FRAME)]


def test_energy_grows_linearly_and_saturates() -> None:
    detector = EnergyDetector(threshold=500)
    square = [bytes(1024), b"\xf4\x01" * 512, b"\xe8\x03" * 512, b"\xff\x7f" * 512]
    assert [detector.probability(frame) for frame in square] == pytest.approx([0.0, 0.5, 1.0, 1.0])


def test_partials_grow_a_word_per_100_ms_of_loud_audio() -> None:
    async def story() -> list[str]:
        recognizer = ScriptedRecognizer(["one two three four"])
        await recognizer.start()
        partials: list[str] = []
        stream = recognizer.stream(partials.append)
        for frame in frames(
            tone(300, 200, rate=SPEECH_RATE) + bytes(FRAME * 10) + tone(300, 100, rate=SPEECH_RATE)
        ):
            stream.push(frame)
            await asyncio.sleep(0)
        partials.append((await stream.finish()).text)
        return partials

    assert asyncio.run(story()) == ["one", "one two", "one two three", "one two three four"]


def test_texts_go_to_utterances_in_the_order_they_finish_and_cancelled_ones_take_none() -> None:
    async def story() -> tuple[list[str], list[str]]:
        recognizer = ScriptedRecognizer(["first", "second"], default="and again", slots=3)
        await recognizer.start()
        streams = [recognizer.stream(lambda text: None) for _ in range(3)]
        for stream in streams:
            stream.push(bytes(FRAME))
        await streams[0].cancel()
        texts = [(await streams[2].finish()).text, (await streams[1].finish()).text]
        last = recognizer.stream(lambda text: None)
        last.push(bytes(FRAME))
        return [*texts, (await last.finish()).text], recognizer.finished

    assert asyncio.run(story()) == (["first", "second", "and again"],) * 2


def test_a_scripted_error_is_raised_and_frees_the_slot() -> None:
    async def story() -> int:
        recognizer = ScriptedRecognizer(slots=1)
        recognizer.say(SpeechError("the engine died"))
        await recognizer.start()
        with pytest.raises(SpeechError, match="the engine died"):
            await recognizer.stream(lambda text: None).finish()
        return recognizer.free_slots

    assert asyncio.run(story()) == 1


def test_with_a_grammar_other_text_comes_out_empty() -> None:
    async def story() -> list[tuple[str, float | None]]:
        recognizer = ScriptedRecognizer(["yes", "maybe"])
        await recognizer.start()
        results = []
        for _ in range(2):
            stream = recognizer.stream(lambda text: None, grammar=("yes", "no"))
            stream.push(bytes(FRAME))
            results.append(await stream.finish())
        return [(result.text, result.confidence) for result in results]

    assert asyncio.run(story()) == [("yes", 1.0), ("", 0.0)]


def test_the_hum_marks_every_word_to_the_sample() -> None:
    async def story() -> list[tuple[int, int]]:
        synthesizer = ToneSynthesizer(ms_per_word=100, gap_ms=20, chunk_ms=50)
        await synthesizer.start()
        return [(len(c.pcm), c.text_end) async for c in synthesizer.speak("Well - I am, here!")]

    size = WIRE_RATE // 20 * 2
    assert asyncio.run(story()) == [
        (size, 0),
        (size, 4),
        (size, 4),
        (size, 8),
        (size, 8),
        (size, 12),
        (size, 12),
        (size, 18),
    ]


def test_words_are_loud_and_gaps_are_silent() -> None:
    async def story() -> bytes:
        synthesizer = ToneSynthesizer(ms_per_word=100, gap_ms=20)
        await synthesizer.start()
        return b"".join([chunk.pcm async for chunk in synthesizer.speak("one two")])

    samples = samples_of(asyncio.run(story()))
    assert len(samples) == 2 * WIRE_RATE // 10
    assert max(samples[:1_920]) > 7_000
    assert set(samples[1_920:2_400]) == {0}


def test_a_closed_hum_counts_as_cancelled_and_a_finished_one_does_not() -> None:
    async def story() -> tuple[int, int]:
        synthesizer = ToneSynthesizer()
        await synthesizer.start()
        cut = synthesizer.speak("one two three")
        await anext(cut)
        await cut.aclose()
        after_cut = synthesizer.cancelled
        async for _ in synthesizer.speak("one two three"):
            pass
        return after_cut, synthesizer.cancelled

    assert asyncio.run(story()) == (1, 1)


def test_the_hum_fails_when_told() -> None:
    async def story() -> None:
        synthesizer = ToneSynthesizer(fail_on="boom")
        await synthesizer.start()
        async for _ in synthesizer.speak("this goes boom"):
            pass

    with pytest.raises(SpeechError, match="told to fail"):
        asyncio.run(story())
