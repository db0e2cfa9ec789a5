"""A caller for the latency benchmarks: a microphone in real time, a loudspeaker in real time, one socket.

Written against the public protocol with ``websockets``; opted in (``openline=1``), so that it can report
playout and resume. The loudspeaker keeps the audio that has come and knows at any moment what is playing.
"""

from __future__ import annotations

import asyncio
import json
import time
import wave
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

FRAME_SAMPLES = 480
FRAME_S = 0.020
LOUD_LEVEL = 600
"""Amplitude of PCM16 above which a sample belongs to speech in our (clean, synthetic) recordings."""
REPORT_EVERY_S = 0.2

Event = dict[str, Any]


def read_wav(path: Path) -> array[int]:
    """PCM16 24 kHz mono, silence cut off at both ends, so that first and last sample are speech."""
    with wave.open(str(path)) as source:
        if source.getnchannels() != 1 or source.getsampwidth() != 2:
            raise ValueError(f"{path.name}: expected 16-bit mono")
        samples = array("h", source.readframes(source.getnframes()))
        rate = source.getframerate()
    if rate != 24_000:
        samples = _stretch(samples, rate)
    loud = [place for place, sample in enumerate(samples) if abs(sample) > LOUD_LEVEL]
    return samples[loud[0] : loud[-1] + 1]


def _stretch(samples: array[int], rate: int) -> array[int]:
    """Linear interpolation to 24 kHz: good enough to be recognised, and needs nothing installed."""
    count = len(samples) * 24_000 // rate - 2
    made = array("h", bytes(2 * count))
    for number in range(count):
        place, rest = divmod(number * rate, 24_000)
        made[number] = samples[place] + (samples[place + 1] - samples[place]) * rest // 24_000
    return made


class Caller:
    """``async with Caller(url) as caller``. ``arrived`` is called with each event and its monotonic time."""

    def __init__(self, url: str, *, microphone: bool = True) -> None:
        self.created: Event = {}
        self.last_event_id = ""
        self.speech_began_s = 0.0
        self.speech_ended_s = 0.0
        self.arrived: Callable[[Event, float], None] = _ignore
        self._url = url
        self._has_microphone = microphone
        self._tasks: list[asyncio.Task[None]] = []
        self._to_say = array("h")
        self._said = asyncio.Event()
        self._seen: list[tuple[Event, float]] = []
        self._news = asyncio.Event()
        self._socket: ClientConnection | None = None
        # The loudspeaker: audio of one item, playing since `_playing_since`.
        self._item = ""
        self._received_s = 0.0
        self._playing_since = 0.0

    async def __aenter__(self) -> Caller:
        self._socket = await connect(self._url, compression=None, max_size=None, ping_interval=None)
        self._note(await self._socket.recv(), time.monotonic())
        self.created = self._seen[0][0]
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._report())]
        if self._has_microphone:
            self._tasks.append(asyncio.create_task(self._microphone()))
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self.go_deaf()
        if self._socket is not None:
            await self._socket.close()

    async def cut(self) -> None:
        """Drop the connection without a closing handshake."""
        assert self._socket is not None
        await self.go_deaf()
        self._socket.transport.abort()

    async def go_deaf(self) -> None:
        """Stop listening, playing and speaking; ``send`` still works. What comes from now on is missed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def send(self, event: Event) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(event))

    async def ask(self, text: str) -> None:
        """A user message by text, and a reply to it."""
        await self.send(user_message(text))
        await self.send({"type": "response.create"})

    async def say(self, samples: array[int]) -> None:
        """Speak in real time; returns when the last frame has been sent. See ``speech_began_s/ended_s``."""
        self._said.clear()
        self._to_say = samples[:]
        self.speech_began_s = 0.0
        await self._said.wait()

    async def until(
        self, wanted: Callable[[Event], bool], *, since_s: float = 0.0, timeout_s: float = 20.0
    ) -> tuple[Event, float]:
        """The first event after ``since_s`` that is ``wanted``, seen already or still to come, and when it came."""
        async with asyncio.timeout(timeout_s):
            place = 0
            while True:
                for event, at in self._seen[place:]:
                    if at > since_s and wanted(event):
                        return event, at
                place = len(self._seen)
                self._news.clear()
                await self._news.wait()

    def is_playing(self, at_s: float) -> bool:
        return self.left_to_play_s(at_s) > 0

    def left_to_play_s(self, at_s: float) -> float:
        return max(0.0, self._playing_since + self._received_s - at_s) if self._item else 0.0

    def hush(self) -> None:
        """Stop the loudspeaker and forget what it had."""
        self._item = ""

    async def _listen(self) -> None:
        assert self._socket is not None
        async for message in self._socket:
            self._note(message, time.monotonic())

    def _note(self, message: str | bytes, now: float) -> None:
        event = json.loads(message)
        self.last_event_id = event.get("event_id", self.last_event_id)
        if event["type"] == "response.output_audio.delta":
            self._play(event, now)
            event["delta"] = ""  # a long run must not keep all audio
        self._seen.append((event, now))
        self._news.set()
        self.arrived(event, now)

    def _play(self, event: Event, now: float) -> None:
        length_s = len(b64decode(event["delta"])) / 48_000
        if event["item_id"] != self._item or not self.is_playing(now):
            # A new item, or the old one ran dry: what comes now is heard now.
            self._received_s = 0.0 if event["item_id"] != self._item else self._received_s
            self._playing_since = now - self._received_s
            self._item = event["item_id"]
        self._received_s += length_s

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if self._item:
                heard_s = min(time.monotonic() - self._playing_since, self._received_s)
                report = {
                    "type": "openline.playout",
                    "item_id": self._item,
                    "audio_end_ms": int(heard_s * 1000),
                }
                await self.send(report)

    async def _microphone(self) -> None:
        silence = bytes(2 * FRAME_SAMPLES)
        due = time.monotonic()
        while True:
            frame = self._to_say[:FRAME_SAMPLES].tobytes()
            is_last = 0 < len(self._to_say) <= FRAME_SAMPLES
            self._to_say = self._to_say[FRAME_SAMPLES:]
            pcm = frame + silence[len(frame) :]
            await self.send({"type": "input_audio_buffer.append", "audio": b64encode(pcm).decode()})
            now = time.monotonic()
            if frame:
                self.speech_began_s = self.speech_began_s or now
                self.speech_ended_s = now
            if is_last:
                self._said.set()
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))


def user_message(text: str) -> Event:
    content = [{"type": "input_text", "text": text}]
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": content},
    }


def is_type(*names: str) -> Callable[[Event], bool]:
    return lambda event: event["type"] in names


def _ignore(_event: Event, _at: float) -> None:
    """Nobody listens."""
