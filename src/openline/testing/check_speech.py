"""What every voice detector, recognizer and synthesizer must do: one suite for twins and real adapters.

Each ``check_…`` takes a factory and raises AssertionError with a sentence when a rule of the port is broken.
They are plain coroutines and functions, so that an adapter outside of this repository can use them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, WIRE_RATE, Recognizer, Speech, Synthesizer, VoiceDetector

T = TypeVar("T")
FRAME_20_MS = SPEECH_RATE // 50 * 2
WAIT_S = 10.0
"""No wait of a check is longer; an adapter that needs more has a fault of its own."""


def check_detector(make: Callable[[], VoiceDetector], *, speech: bytes) -> None:
    """``speech``: PCM16 16 kHz, at least 1 s, in which this detector must hear a voice."""
    detector = make()
    size = 2 * detector.frame_samples
    assert 160 <= detector.frame_samples <= 1_600, "a frame is 10 to 100 ms"

    def run(pcm: bytes) -> list[float]:
        return [
            detector.probability(pcm[at : at + size]) for at in range(0, len(pcm) - len(pcm) % size, size)
        ]

    silence = run(bytes(SPEECH_RATE))
    assert max(silence) < 0.3, f"silence is no speech, got {max(silence):.2f}"
    heard = run(speech)
    assert all(0.0 <= value <= 1.0 for value in [*silence, *heard]), "a probability is within 0..1"
    assert max(heard) > 0.5, f"speech is heard, got at most {max(heard):.2f}"
    detector.reset()
    assert run(bytes(SPEECH_RATE)) == silence, "after reset nothing is remembered"
    detector.reset()
    again = make()
    first = [again.probability(speech[at : at + size]) for at in range(0, 10 * size, size)]
    assert run(speech[: 10 * size]) == first, "two detectors do not share state"
    try:
        detector.probability(bytes(size - 2))
    except SpeechError:
        return
    raise AssertionError("a frame of the wrong length is refused with SpeechError")


async def check_recognizer(
    make: Callable[[], Recognizer], *, pcm: bytes, text: str, grammar: tuple[str, ...] = ()
) -> None:
    """``pcm`` (PCM16 16 kHz) must be recognized as ``text`` whenever it is asked, with ``grammar``."""
    recognizer = make()
    try:
        recognizer.stream(_ignore, grammar=grammar)
    except SpeechError:
        pass
    else:
        raise AssertionError("stream before start is refused with SpeechError")
    await recognizer.start()
    try:
        slots = recognizer.free_slots
        assert slots >= 1, "after start there is a free slot"
        await _check_one_utterance(recognizer, pcm, text, grammar)
        await _check_bad_pushes(recognizer, pcm, grammar)
        await _check_more_than_slots(recognizer, pcm, text, grammar)
        await _check_cancel(recognizer, pcm, text, grammar)
        await _check_empty(recognizer, grammar)
        assert recognizer.free_slots == slots, "every utterance gave its slot back"
        open_one = recognizer.stream(_ignore, grammar=grammar)
    finally:
        await recognizer.close()
    await recognizer.close()  # idempotent
    await open_one.cancel()  # never raises, not even now


async def _check_one_utterance(
    recognizer: Recognizer, pcm: bytes, text: str, grammar: tuple[str, ...]
) -> None:
    loop_threads: set[bool] = set()
    loop = asyncio.get_running_loop()
    partials: list[str] = []

    def on_partial(partial: str) -> None:
        loop_threads.add(asyncio.get_running_loop() is loop)
        partials.append(partial)

    stream = recognizer.stream(on_partial, grammar=grammar)
    for at in range(0, len(pcm), FRAME_20_MS):
        stream.push(pcm[at : at + FRAME_20_MS])
        await asyncio.sleep(0)
    result = await _soon(stream.finish())
    count = len(partials)
    assert result.text == text, "the recognizer did not find the words it was given"
    assert result.confidence is None or 0.0 <= result.confidence <= 1.0, "confidence is 0..1 or None"
    assert loop_threads <= {True}, "partials come on the caller's loop"
    await asyncio.sleep(0.05)
    assert len(partials) == count, "no partial after the result"
    try:
        await stream.finish()
    except SpeechError:
        pass
    else:
        raise AssertionError("a second finish is refused with SpeechError")
    await stream.cancel()  # after finish: harmless


async def _check_bad_pushes(recognizer: Recognizer, pcm: bytes, grammar: tuple[str, ...]) -> None:
    stream = recognizer.stream(_ignore, grammar=grammar)
    try:
        for bad in (b"\0", bytes(61 * SPEECH_RATE * 2)):
            try:
                stream.push(bad)
            except SpeechError:
                continue
            raise AssertionError("odd lengths and more than 60 s are refused with SpeechError")
    finally:
        await stream.cancel()


async def _check_more_than_slots(
    recognizer: Recognizer, pcm: bytes, text: str, grammar: tuple[str, ...]
) -> None:
    streams = [recognizer.stream(_ignore, grammar=grammar) for _ in range(recognizer.free_slots + 2)]
    assert recognizer.free_slots == 0, "running utterances take up slots"
    for stream in streams:
        stream.push(pcm)
    results = await asyncio.gather(*(_soon(stream.finish()) for stream in streams))
    assert [result.text for result in results] == [text] * len(streams), "waiting utterances lose no audio"


async def _check_cancel(recognizer: Recognizer, pcm: bytes, text: str, grammar: tuple[str, ...]) -> None:
    slots = recognizer.free_slots
    partials: list[str] = []
    stream = recognizer.stream(partials.append, grammar=grammar)
    assert recognizer.free_slots == slots - 1, "an utterance holds a slot from its start"
    stream.push(pcm)
    await _soon(stream.cancel())
    count = len(partials)
    await stream.cancel()  # idempotent
    assert recognizer.free_slots == slots, "cancel gives the slot back"
    await asyncio.sleep(0.05)
    assert len(partials) == count, "a cancelled utterance says nothing more"
    waiting = [recognizer.stream(_ignore, grammar=grammar) for _ in range(slots + 1)]
    for one in reversed(waiting):
        await _soon(one.cancel())
    task_stream = recognizer.stream(_ignore, grammar=grammar)
    task_stream.push(pcm)
    task = asyncio.create_task(task_stream.finish())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await _soon(task_stream.cancel())
    assert recognizer.free_slots == slots, "a cancelled finish gives the slot back"
    after = recognizer.stream(_ignore, grammar=grammar)
    after.push(pcm)
    assert (await _soon(after.finish())).text == text, "nothing of a cancelled utterance is in the next"


async def _check_empty(recognizer: Recognizer, grammar: tuple[str, ...]) -> None:
    empty = recognizer.stream(_ignore, grammar=grammar)
    assert (await _soon(empty.finish())).text == "", "no audio, no words"


async def check_synthesizer(make: Callable[[], Synthesizer], *, has_speed: bool = True) -> None:
    """``has_speed`` False: for engines whose speed cannot be set for one sentence, and whose page says so."""
    synthesizer = make()
    try:
        await _all(synthesizer.speak("Too early."))
    except SpeechError:
        pass
    else:
        raise AssertionError("speak before start is refused with SpeechError")
    await synthesizer.start()
    try:
        await _check_marks(synthesizer)
        await _check_stop(synthesizer)
        await _check_voices(synthesizer)
        if has_speed:
            await _check_speed(synthesizer)
        texts = [f"Sentence number {n} of several at once." for n in range(4)]
        spoken = await asyncio.gather(*(_all(synthesizer.speak(text)) for text in texts))
        for text, chunks in zip(texts, spoken, strict=True):
            assert chunks[-1].text_end == len(text), "sentences of several sessions do not mix"
    finally:
        await synthesizer.close()
    await synthesizer.close()  # idempotent


async def _check_marks(synthesizer: Synthesizer) -> None:
    text = "The first train leaves at ten, doesn't it? Track 27, please."
    chunks = await _all(synthesizer.speak(text))
    sizes = [len(chunk.pcm) * 1000 // (2 * WIRE_RATE) for chunk in chunks]
    assert all(20 <= size <= 100 for size in sizes), f"a chunk is 20 to 100 ms, got {sorted(set(sizes))}"
    assert all(len(chunk.pcm) % 2 == 0 for chunk in chunks), "whole samples"
    marks = [chunk.text_end for chunk in chunks]
    assert marks == sorted(marks), "marks never fall"
    assert marks[-1] == len(text), "the last mark is the end of the text"
    inside = [mark for mark in marks if 0 < mark < len(text)]
    assert len(set(inside)) >= 6, "marks grow word by word"
    assert all(text[mark].isspace() for mark in inside), "a mark stands behind a whole word"
    share = marks[len(marks) // 2] / len(text)
    assert 0.2 < share < 0.8, f"half of the audio is about half of the text, got {share:.2f}"
    assert await _all(synthesizer.speak(" \u2026 ")) == [], "no words, no audio, no error"
    assert await _all(synthesizer.speak("")) == []


async def _check_stop(synthesizer: Synthesizer) -> None:
    text = "This sentence is cut short in the middle, " + "because somebody else begins to talk " * 4
    chunks = synthesizer.speak(text)
    await _soon(anext(chunks))
    await _soon(chunks.aclose())
    again = await _all(synthesizer.speak("Short."))
    once_more = await _all(synthesizer.speak("Short."))
    assert [(len(one.pcm), one.text_end) for one in again] == [(len(o.pcm), o.text_end) for o in once_more], (
        "nothing of a stopped sentence is in the next"
    )


async def _check_voices(synthesizer: Synthesizer) -> None:
    for voice in ("marin", "cedar", "no-such-voice"):
        spoken = await _all(synthesizer.speak("One two three four five six.", voice=voice))
        assert spoken, "every voice name speaks"


async def _check_speed(synthesizer: Synthesizer) -> None:
    text = "One two three four five six."
    slow, fast = [
        len(b"".join(c.pcm for c in await _all(synthesizer.speak(text, speed=s)))) for s in (0.7, 1.5)
    ]
    assert fast < slow, "a higher speed takes less time"


async def _all(chunks: AsyncIterator[Speech]) -> list[Speech]:
    async def collect() -> list[Speech]:
        return [chunk async for chunk in chunks]

    return await _soon(collect())


async def _soon(awaitable: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaitable, WAIT_S)


def _ignore(text: str) -> None:
    """A partial nobody looks at."""
