"""``tts.TTS`` of LiveKit Agents as a synthesizer.

Audio of any rate and channels becomes PCM16 mono at 24 kHz. Marks are the plugin's own word times where it has them
(``aligned_transcript``), else estimated from the usual pace of speech; the last one is always exact. Voice and speed
are the plugin's settings: theirs cannot be changed for one sentence, so what the session names is not followed.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import tts
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT

from openline.adapters.livekit_plugins.plugin import Surroundings, label_of, once, speech_error
from openline.adapters.resample import Resampler
from openline.errors import SpeechError
from openline.ports import WIRE_RATE, Speech, Synthesizer

CHUNK_BYTES = WIRE_RATE * 2 * 40 // 1000
"""40 ms."""
LEAST_BYTES = WIRE_RATE * 2 * 20 // 1000
CHARACTERS_A_SECOND = 15.0
"""English at an even pace: about 150 words a minute."""
AUDIO_MAX_BYTES = 300 * WIRE_RATE * 2
"""One sentence; a service that goes on for longer is broken."""


class PluginSynthesizer(Synthesizer):
    """``stall_s``: seconds of silence within a sentence, and to connect. The plugin is closed with this.

    Raises ConfigError for what is no ``tts.TTS``.
    """

    def __init__(self, plugin: tts.TTS[Any], *, stall_s: float = 15.0) -> None:
        self.label = label_of("voice", plugin, tts.TTS, "speaks")
        self.name: str = plugin.label
        self._plugin = plugin
        self._stall_s = stall_s
        self._around = Surroundings()

    async def start(self) -> None:
        await self._around.open()

    async def close(self) -> None:
        await self._around.close(self._plugin.aclose)

    async def speak(self, text: str, *, voice: str = "", speed: float = 1.0) -> AsyncGenerator[Speech, None]:
        """Raises SpeechError: refused, broken off, silent, or no audio for words."""
        if not self._around.is_open:
            raise SpeechError(f"{self.label}: not running.", hint="Await start() first.")
        if not re.search(r"\w", text):
            return
        marks, pending, sent = Marks(text), bytearray(), 0
        stream = self._around.call(self._plugin.synthesize, text, conn_options=once(self._stall_s))
        track = Track()
        try:
            while (audio := await self._next(stream)) is not None:
                pending += track.convert(audio.frame)
                marks.learn(audio.frame.userdata.get(USERDATA_TIMED_TRANSCRIPT) or ())
                # One chunk is held back: the last one carries the exact mark.
                while len(pending) >= 2 * CHUNK_BYTES:
                    sent += CHUNK_BYTES
                    yield Speech(bytes(pending[:CHUNK_BYTES]), marks.at(sent / (WIRE_RATE * 2)))
                    del pending[:CHUNK_BYTES]
                if sent > AUDIO_MAX_BYTES:
                    raise SpeechError(f"{self.label}: over 300 s for one sentence.")
        finally:
            await stream.aclose()
        pending += track.flush()
        if not pending and not sent:
            raise SpeechError(f"{self.label}: no audio for words.")
        while len(pending) >= 2 * CHUNK_BYTES:
            sent += CHUNK_BYTES
            yield Speech(bytes(pending[:CHUNK_BYTES]), marks.at(sent / (WIRE_RATE * 2)))
            del pending[:CHUNK_BYTES]
        yield Speech(bytes(pending).ljust(LEAST_BYTES, b"\0"), len(text))

    async def _next(self, stream: tts.ChunkedStream) -> tts.SynthesizedAudio | None:
        try:
            async with asyncio.timeout(self._stall_s):
                return await anext(stream, None)
        except Exception as error:
            raise speech_error(self.label, error) from None


class Track:
    """The frames of one sentence as PCM16 mono 24 kHz."""

    def __init__(self) -> None:
        self._rate = 0
        self._resampler: Resampler | None = None

    def convert(self, frame: rtc.AudioFrame) -> bytes:
        if self._resampler is None:
            self._rate = frame.sample_rate
            self._resampler = Resampler(frame.sample_rate, WIRE_RATE)
        if frame.sample_rate != self._rate:
            raise SpeechError(
                f"expected audio of one rate in a sentence; got {self._rate} and {frame.sample_rate} Hz."
            )
        pcm = bytes(frame.data)
        if frame.num_channels > 1:
            samples = np.frombuffer(pcm, dtype="<i2").reshape(-1, frame.num_channels)
            pcm = np.rint(samples.mean(axis=1)).astype("<i2").tobytes()
        return self._resampler.convert(pcm)

    def flush(self) -> bytes:
        return self._resampler.flush() if self._resampler is not None else b""


class Marks:
    """How many characters of ``text`` have been spoken after some seconds: always behind a whole word."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [match.end() for match in re.finditer(r"\S+", text)]
        self._timed: list[tuple[float, int]] = []
        self._found = 0

    def learn(self, words: Any) -> None:
        """Word times as ``TimedString``; those that are not in the text, or have no time, are passed over."""
        for word in words:
            spoken, end_s = str(word).strip(), word.end_time
            at = self._text.find(spoken, self._found) if spoken else -1
            if at < 0 or not isinstance(end_s, float | int):
                continue
            self._found = at + len(spoken)
            self._timed.append((float(end_s), self._ends[bisect_left(self._ends, self._found)]))

    def at(self, seconds: float) -> int:
        if self._timed:
            ends = (end for end_s, end in self._timed if end_s <= seconds)
        else:
            ends = (end for end in self._ends[:-1] if end <= seconds * CHARACTERS_A_SECOND)
        return max(ends, default=0)
