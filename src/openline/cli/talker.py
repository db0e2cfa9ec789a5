"""One side of a call: a microphone that never stops, a loudspeaker in real time, and a line that may be cut.

Used by ``talk`` and by the demo. What is shown is up to the ``on_event`` that is given.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable

from openline.cli.audio import FRAME_BYTES, FRAME_MS
from openline.cli.client import Address, Call, Event
from openline.cli.playback import Playback

SILENCE = bytes(FRAME_BYTES)


class Talker:
    """``on_event`` gets every event after the loudspeaker has acted on it; ``on_tick`` runs every 20 ms.

    ``say`` queues audio for the microphone; between two utterances it sends silence, as a real one does.
    ``has_microphone`` false: nothing is sent (typed calls). ``close`` in every case.
    """

    def __init__(
        self,
        address: Address,
        on_event: Callable[[Event], None],
        *,
        session_id: str = "",
        token: str = "",
        has_microphone: bool = True,
        play: Callable[[bytes], None] | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> None:
        self.call = Call(address, self._arrived, session_id=session_id, token=token)
        self.playback = Playback(time.monotonic, self._report, play)
        self.stopped: tuple[str, int] | None = None
        """Item and heard ms of the last barge-in."""
        self._on_event = on_event
        self._on_tick = on_tick or (lambda: None)
        self._has_microphone = has_microphone
        self._to_say: deque[bytes] = deque()
        self._said = asyncio.Event()
        self._said.set()
        self._is_quiet = asyncio.Event()
        self._clock: asyncio.Task[None] | None = None

    async def connect(self) -> Event:
        """Raises LineClosed, ConfigError. Also to come back after a cut."""
        created = await self.call.connect()
        if self._clock is None:
            self._clock = asyncio.get_running_loop().create_task(self._run())
            self._clock.add_done_callback(self._clock_ended)
        return created

    async def say(self, pcm: bytes) -> None:
        """Speak (PCM16 mono 24 kHz) at real-time pace; returns when the last frame has been sent."""
        self.speak(pcm)
        await self._said.wait()

    def speak(self, pcm: bytes) -> None:
        """The same without waiting."""
        for at in range(0, len(pcm), FRAME_BYTES):
            self._to_say.append(pcm[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\0"))
        self._said.clear()

    def cut(self) -> int:
        """Lose the line without a word; ms of audio that were here and not yet played."""
        self.call.abort()
        self._to_say.clear()
        self._said.set()
        return self.playback.cut()

    async def quiet(self) -> None:
        """Return when nothing is being played any more."""
        self._follow()
        await self._is_quiet.wait()

    def _follow(self) -> None:
        if self.playback.is_playing:
            self._is_quiet.clear()
        else:
            self._is_quiet.set()

    async def close(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.cancel()
            await asyncio.wait([clock])
        await self.call.close()
        if clock is not None and not clock.cancelled():
            clock.result()

    def _clock_ended(self, clock: asyncio.Task[None]) -> None:
        """A bug of ours in ``play`` or ``on_tick``: end all waiting, ``close`` raises it."""
        if not clock.cancelled():
            self.call.abort()

    async def _run(self) -> None:
        """The clock of microphone and loudspeaker. Absolute times: a late tick does not make all later ones late."""
        due = time.monotonic()
        while True:
            if self._has_microphone and self.call.is_open:
                frame = self._to_say.popleft() if self._to_say else SILENCE
                self.call.send_audio(frame)
                if not self._to_say:
                    self._said.set()
            self.playback.tick()
            self._follow()
            self._on_tick()
            due += FRAME_MS / 1000
            now = time.monotonic()
            if now - due > 1:  # the machine slept, or the line was away: do not send the past in a burst
                due = now
            await asyncio.sleep(max(0.0, due - now))

    def _arrived(self, event: Event) -> None:
        kind = event["type"]
        if kind == "response.output_audio.delta":
            self.playback.add(event["item_id"], b64decode(event["delta"]))
        elif kind == "response.output_audio.done":
            self.playback.end(event["item_id"])
        elif kind == "input_audio_buffer.speech_started":
            self.stopped = self.playback.clear()
        self._on_event(event)

    def _report(self, item_id: str, played_ms: int) -> None:
        self.call.send("openline.playout", item_id=item_id, audio_end_ms=played_ms)
