"""Twins of the speech adapters: deterministic, in memory, with no wheel to install.

They keep the rules of their ports (``testing.check_speech`` runs over twin and real one alike), so a
pipeline that works with them needs no other code for the real engines. None of them sleeps or has a thread.
"""

from __future__ import annotations

import asyncio
import math
import re
import sys
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, WIRE_RATE, Speech, Transcript

MAX_AUDIO_BYTES = 60 * SPEECH_RATE * 2
PARTIAL_EVERY_BYTES = SPEECH_RATE * 2 // 10
"""The twin's clock is the audio itself: a partial at most every 100 ms of it."""


def samples_of(pcm: bytes) -> array[int]:
    """PCM16 little-endian bytes as numbers."""
    samples = array("h")
    samples.frombytes(pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def tone(frequency_hz: float, duration_ms: float, *, rate: int, amplitude: int = 8_000) -> bytes:
    """PCM16 mono of a sine that starts at zero; ``amplitude`` 0..32767."""
    count = round(rate * duration_ms / 1000)
    turn = 2 * math.pi * frequency_hz / rate
    samples = array("h", (round(amplitude * math.sin(turn * n)) for n in range(count)))
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


class EnergyDetector:
    """``ports.VoiceDetector`` by loudness alone: anything louder than ``threshold`` counts as speech.

    threshold: root mean square of a frame (0..32767) at which the probability is 0.5; it grows linearly from 0
    in silence to 1 at twice the threshold. 500 is a quiet voice; digital silence gives 0.
    """

    frame_samples = 512

    def __init__(self, *, threshold: float = 500.0) -> None:
        self._threshold = threshold

    def probability(self, frame: bytes) -> float:
        if len(frame) != 2 * self.frame_samples:
            raise SpeechError(f"expected a frame of {2 * self.frame_samples} bytes, got {len(frame)}.")
        samples = samples_of(frame)
        loudness = math.sqrt(sum(sample * sample for sample in samples) / len(samples))
        return min(1.0, loudness / (2 * self._threshold))

    def reset(self) -> None:
        """Nothing to forget: each frame is judged alone."""


class ScriptedRecognizer:
    """``ports.Recognizer`` that says what the script says: one text per utterance, in the order they finish.

    script: texts, or SpeechError objects to raise. When it is used up, ``default`` is the answer.
    slots: utterances at once; more are admitted as others end.

    Partials are deterministic: one word more for each 100 ms of audio that is loud enough to be speech, so the
    text grows while the caller talks and stands still while not. Cancelled utterances use up no text.
    With ``grammar`` a text that is not one of its phrases comes out as "" with confidence 0, as in life.
    """

    name = "scripted"

    def __init__(
        self, script: Iterable[str | SpeechError] = (), *, default: str = "", slots: int = 2, loud: int = 500
    ) -> None:
        self._script: deque[str | SpeechError] = deque(script)
        self._default = default
        self._slots = slots
        self.loud = loud
        self._is_open = False
        self._running: list[_ScriptedStream] = []
        self._waiting: deque[_ScriptedStream] = deque()
        self.finished: list[str] = []
        """Texts given out so far, for tests to look at."""

    async def start(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        for stream in [*self._running, *self._waiting]:
            stream.end()
            self.release(stream)

    def say(self, *texts: str | SpeechError) -> None:
        """Append to the script."""
        self._script.extend(texts)

    def stream(
        self, on_partial: Callable[[str], None], *, grammar: Sequence[str] = (), language: str = "en"
    ) -> _ScriptedStream:
        if not self._is_open:
            raise SpeechError("the recognizer is not running.", hint="Await start() first.")
        if language.split("-")[0].lower() != "en":
            raise SpeechError(f"expected language 'en', got '{language[:16]}'.")
        stream = _ScriptedStream(self, on_partial, tuple(grammar))
        self._waiting.append(stream)
        self._admit()
        return stream

    @property
    def free_slots(self) -> int:
        return self._slots - len(self._running)

    # -- for streams

    def next_text(self) -> str:
        """What the next utterance to finish will be, without taking it; "" where an error is scripted."""
        upcoming = self._script[0] if self._script else self._default
        return upcoming if isinstance(upcoming, str) else ""

    def take_text(self) -> str:
        text = self._script.popleft() if self._script else self._default
        if isinstance(text, SpeechError):
            raise text
        return text

    def release(self, stream: _ScriptedStream) -> None:
        if stream in self._running:
            self._running.remove(stream)
        elif stream in self._waiting:
            self._waiting.remove(stream)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            stream = self._waiting.popleft()
            self._running.append(stream)
            stream.admitted.set()


class _ScriptedStream:
    def __init__(
        self, recognizer: ScriptedRecognizer, on_partial: Callable[[str], None], grammar: tuple[str, ...]
    ) -> None:
        self.admitted = asyncio.Event()
        self._recognizer = recognizer
        self._on_partial = on_partial
        self._grammar = grammar
        self._bytes = self._loud_bytes = self._told_bytes = 0
        self._partial = ""
        self._is_over = False

    def push(self, pcm16k: bytes) -> None:
        if len(pcm16k) % 2:
            raise SpeechError(f"expected whole PCM16 samples, got {len(pcm16k)} bytes.")
        if self._is_over:
            raise SpeechError("this utterance has ended; audio came after it.", hint="Begin a new stream.")
        if self._bytes + len(pcm16k) > MAX_AUDIO_BYTES:
            raise SpeechError("an utterance holds at most 60 s of audio.", hint="Finish it and go on.")
        self._bytes += len(pcm16k)
        samples = samples_of(pcm16k)
        if samples and max(max(samples), -min(samples)) > self._recognizer.loud:
            self._loud_bytes += len(pcm16k)
        if self._bytes - self._told_bytes >= PARTIAL_EVERY_BYTES:
            self._told_bytes = self._bytes
            asyncio.get_running_loop().call_soon(self._tell)

    async def finish(self) -> Transcript:
        if self._is_over:
            raise SpeechError("this utterance was already finished or cancelled.", hint="Begin a new stream.")
        self._is_over = True
        try:
            await self.admitted.wait()
            text = self._recognizer.take_text()
        finally:
            self._recognizer.release(self)
        if self._bytes == 0:
            text = ""
        self._recognizer.finished.append(text)
        if not self._grammar:
            return Transcript(text, None, self._recognizer.name)
        fits = text in self._grammar
        return Transcript(text if fits else "", 1.0 if fits else 0.0, self._recognizer.name)

    async def cancel(self) -> None:
        self.end()
        self._recognizer.release(self)

    def end(self) -> None:
        """Stop here; a ``finish`` that waits for its slot raises."""
        self._is_over = True

    def _tell(self) -> None:
        if self._is_over or not self.admitted.is_set():
            return
        words = self._recognizer.next_text().split()
        text = " ".join(words[: self._loud_bytes // PARTIAL_EVERY_BYTES])
        if text and text != self._partial:
            self._partial = text
            self._on_partial(text)


class ToneSynthesizer:
    """``ports.Synthesizer`` that hums: ``ms_per_word`` of a tone for each word, marks exact to the sample.

    Each word has a pitch of its own and is ``gap_ms`` of silence shorter than its share, so that words can
    be told apart by eye and by a loudness detector. Chunks are ``chunk_ms`` long, the last one may be shorter.
    ``fail_on``: raise SpeechError for a text that contains it, to test what happens then.
    """

    name = "tone"

    def __init__(
        self, *, ms_per_word: int = 200, gap_ms: int = 40, chunk_ms: int = 60, fail_on: str = ""
    ) -> None:
        self._ms_per_word = ms_per_word
        self._gap_ms = gap_ms
        self._chunk_bytes = WIRE_RATE * chunk_ms // 1000 * 2
        self._fail_on = fail_on
        self._is_open = False
        self.spoken: list[str] = []
        """Texts that were asked for, for tests to look at."""
        self.cancelled = 0
        """Iterators that were closed before their last chunk."""

    async def start(self) -> None:
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False

    def duration_ms(self, text: str, *, speed: float = 1.0) -> float:
        """How long ``text`` will take, in milliseconds."""
        return len(_words(text)) * round(self._ms_per_word / speed)

    async def speak(self, text: str, *, voice: str = "", speed: float = 1.0) -> AsyncGenerator[Speech, None]:
        if not self._is_open:
            raise SpeechError("the synthesizer is not running.", hint="Await start() first.")
        self.spoken.append(text)
        if self._fail_on and self._fail_on in text:
            raise SpeechError("the synthesizer was told to fail.")
        words = _words(text)
        word_ms = round(self._ms_per_word / min(4.0, max(0.25, speed)))
        audio = b"".join(self._word(number, word_ms) for number in range(len(words)))
        word_bytes = WIRE_RATE * word_ms // 1000 * 2
        is_done = False
        try:
            for start in range(0, len(audio), self._chunk_bytes):
                end = min(start + self._chunk_bytes, len(audio))
                complete = end // word_bytes
                text_end = len(text) if end == len(audio) else words[complete - 1].end() if complete else 0
                is_done = end == len(audio)
                yield Speech(audio[start:end], text_end)
                # A real engine lets the loop run between chunks; a pipeline must not rely on getting all at once.
                await asyncio.sleep(0)
        finally:
            self.cancelled += bool(audio) and not is_done

    def _word(self, number: int, word_ms: int) -> bytes:
        loud_ms = max(1, word_ms - self._gap_ms)
        hum = tone(220 + 40 * (number % 8), loud_ms, rate=WIRE_RATE)
        return hum + bytes(WIRE_RATE * word_ms // 1000 * 2 - len(hum))


def _words(text: str) -> list[re.Match[str]]:
    """Runs of non-space with a letter or digit in them: what a mark can stand behind."""
    return [match for match in re.finditer(r"\S+", text) if any(c.isalnum() for c in match.group())]
