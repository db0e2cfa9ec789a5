"""The demo's caller: recorded speech into the line, the reply out of it, and all of it on the screen."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass

from openline.cli.audio import to_wire_rate
from openline.cli.client import Address, Call, Event, LineClosed
from openline.cli.playback import Playback
from openline.cli.talker import Talker
from openline.cli.terminal import clean
from openline.demo.phrases import Phrase, audio
from openline.demo.screen import Screen
from openline.errors import ConfigError
from openline.ports import SPEECH_RATE
from openline.wire.frames import parse_event_id
from openline.wire.render import MAX_FRAMES

REPLY_TIMEOUT_S = 20.0
PAUSE_S = 0.4
"""Before people answer."""
CHARACTERS_A_S = 17
"""How fast the embedded voice speaks, measured over its replies to the demo's questions."""
RECONNECT_S = 0.1
"""How often a caller without a line tries to get one."""


@dataclass(slots=True)
class Reply:
    """The agent's item that is being played."""

    item_id: str
    text: str = ""
    audio_ms: float = 0.0
    first_sound_ms: float | None = None
    """From the end of the caller's last word; None when it was no answer to one."""
    is_whole: bool = False


def spoken_part(text: str, ms: int) -> str:
    """About as many whole words of a reply as have been heard: the log knows better, this is for the eye."""
    count = ms * CHARACTERS_A_S // 1000
    if count >= len(text):
        return text
    return text[: text.rfind(" ", 0, count + 1) + 1].rstrip()


class Caller:
    """``connect``, then ``say`` and wait. ``shown`` has every frame of a fact, for the check at the end."""

    def __init__(self, address: Address, screen: Screen) -> None:
        self.screen = screen
        self.shown: list[tuple[int, int, int, str]] = []
        """Epoch, seq, n and type of each frame that was rendered from a fact, in the order of arrival."""
        self.said = ""
        """What the agent said last, whole."""
        self.interrupted_ms: float | None = None
        """From the caller's first loud sample to the loudspeaker's silence, at the last barge-in."""
        self._talker = Talker(address, self._arrived, on_tick=self._tick)
        self._reply: Reply | None = None
        self._committed_at = 0
        self._next_title = ""
        self._position_ms = 0
        self._word_ended_s: float | None = None
        self._word_began_s: float | None = None
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # -- the line

    @property
    def session(self) -> str:
        return self.line.session_id

    @property
    def line(self) -> Call:
        return self._talker.call

    @property
    def playback(self) -> Playback:
        return self._talker.playback

    async def connect(self) -> Event:
        return await self._talker.connect()

    async def come_back(self) -> tuple[Event, float]:
        """Try until the line is there again: session.created, and how long it took in ms."""
        started = time.monotonic()
        while True:
            try:
                created = await self._talker.connect()
                return created, (time.monotonic() - started) * 1000
            except (ConfigError, LineClosed):
                if time.monotonic() - started > REPLY_TIMEOUT_S:
                    raise
                await asyncio.sleep(RECONNECT_S)

    def cut(self) -> str:
        """Lose the line; what had been heard of the reply that was playing."""
        self._position_ms = self.playback.position_ms
        self._talker.cut()
        return self._put_away()

    def lost(self) -> str:
        """The other side is gone: the same, seen from here."""
        self._position_ms = self.playback.position_ms
        self.playback.cut()
        return self._put_away()

    def _put_away(self) -> str:
        """The reply goes on after the cut, on a line of its own."""
        reply, self._reply = self._reply, None
        self.screen.term.settle()
        return spoken_part(clean(reply.text), self._position_ms) if reply is not None else ""

    async def close(self) -> None:
        await self._talker.close()

    # -- talking

    async def say(self, phrase: Phrase, *, title: str = "") -> int:
        """Speak a recording to its end; the place in the stream of events where it began.

        ``title``: of an act that begins with this, shown once the reply before it has been interrupted.
        """
        self._next_title = title
        mark = self.line.mark()
        self._word_ended_s, self._word_began_s = None, time.monotonic()
        await self._talker.say(to_wire_rate(audio(phrase), SPEECH_RATE))
        self._word_ended_s = time.monotonic()
        return mark

    async def committed(self, mark: int) -> Event:
        """The turn that was spoken since ``mark``. Raises TimeoutError when nothing was understood."""
        return await self.line.wait_for(
            lambda e: e["type"] == "openline.turn.committed", since=mark, timeout_s=REPLY_TIMEOUT_S
        )

    async def hears(self, ms: int) -> None:
        """Wait until so much of a reply has been played."""
        await self.until(lambda: self._reply is not None and self.playback.position_ms >= ms)

    async def hears_all(self) -> str:
        """Wait for the end of the answer to the last turn, replies to tool results included; its words."""
        mark = self._committed_at
        while True:
            done = await self.line.wait_for(
                lambda e: e["type"] == "response.done", since=mark, timeout_s=REPLY_TIMEOUT_S
            )
            calls = [item for item in done["response"]["output"] if item["type"] == "mcp_call"]
            if not calls:
                break
            mark = self.line.mark()
        await self.until(lambda: not self.playback.is_playing)
        await asyncio.sleep(PAUSE_S)
        return self.said

    async def until(self, holds: Callable[[], bool], timeout_s: float = REPLY_TIMEOUT_S) -> None:
        """Wait for something that only the clock changes. Raises TimeoutError."""
        if holds():
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((holds, future))
        try:
            await asyncio.wait_for(future, timeout_s)
        finally:
            self._waiting = [waiter for waiter in self._waiting if waiter[1] is not future]

    # -- what comes

    def _arrived(self, event: Event) -> None:
        place = parse_event_id(event.get("event_id", ""))
        if place is not None and place[2] < MAX_FRAMES:
            self.shown.append((*place, event["type"]))
        handler = _EVENTS.get(event["type"])
        if handler is not None:
            handler(self, event)

    def _audio(self, event: Event) -> None:
        reply = self._begin(event["item_id"])
        reply.audio_ms += len(b64decode(event["delta"])) / 48
        if reply.first_sound_ms is None and self._word_ended_s is not None:
            reply.first_sound_ms = (time.monotonic() - self._word_ended_s) * 1000
            self._word_ended_s = None

    def _words(self, event: Event) -> None:
        self._begin(event["item_id"]).text += event["delta"]

    def _partial_item(self, event: Event) -> None:
        """After a resume: the text of an item so far, in place of what was missed."""
        self._begin(event["item_id"]).text = event["text"]

    def _begin(self, item_id: str) -> Reply:
        if self._reply is None or self._reply.item_id != item_id:
            self._reply = Reply(item_id)
        return self._reply

    def _audio_done(self, event: Event) -> None:
        if self._reply is not None and self._reply.item_id == event["item_id"]:
            self._reply.is_whole = True

    def _speech_started(self, event: Event) -> None:
        reply, self._reply = self._reply, None
        if reply is not None and self._talker.stopped is not None:
            self._interrupted(reply, self._talker.stopped[1])
        if self._next_title:
            self.screen.title(self._next_title)
            self._next_title = ""

    def _interrupted(self, reply: Reply, heard_ms: int) -> None:
        began = self._word_began_s
        self.interrupted_ms = (time.monotonic() - began) * 1000 if began is not None else None
        self.screen.say("agent", f"“{spoken_part(clean(reply.text), heard_ms)} —")
        silent = f"; silent {self.interrupted_ms:.0f} ms after the caller began" if began is not None else ""
        self.screen.note(f"stopped at {heard_ms / 1000:.1f} s{silent}")

    def _heard_partial(self, event: Event) -> None:
        self.screen.live("caller", f"{clean(event['text'])} ▏")

    def _turn_committed(self, event: Event) -> None:
        self._committed_at = self.line.mark()
        if event.get("text"):
            self.screen.say("caller", f"“{clean(event['text'])}”", strong=True)
        waited = (time.monotonic() - self._word_ended_s) * 1000 if self._word_ended_s is not None else 0
        self.screen.note(f"turn committed as fact {event['seq']}, {waited:.0f} ms after the last word")

    def _tool_requested(self, event: Event) -> None:
        self.screen.say(
            "tool",
            f"{event['name']} is called by the {event['runner']}",
            f"fact {event['seq']}, on disk before it runs",
        )

    def _tool_settled(self, event: Event) -> None:
        output = clean(str((event.get("item") or {}).get("output") or ""))
        self.screen.say("tool", f"{event['outcome']}: {output}" if output else str(event["outcome"]))

    def _error(self, event: Event) -> None:
        self.screen.say("line", f"error: {event['error']['message']}")

    # -- the clock

    def _tick(self) -> None:
        reply, playback = self._reply, self.playback
        if reply is not None and (reply.text or reply.audio_ms):
            if reply.is_whole and not playback.is_playing:
                self._finish(reply)
            else:
                ms = playback.position_ms
                self.screen.live("agent", spoken_part(clean(reply.text), ms), f"▶ {ms / 1000:4.1f} s  ")
        for holds, future in self._waiting:
            if not future.done() and holds():
                future.set_result(None)

    def _finish(self, reply: Reply) -> None:
        self._reply, self.said = None, reply.text
        self.screen.say("agent", f"“{clean(reply.text)}”")
        first = f"; first sound after {reply.first_sound_ms:.0f} ms" if reply.first_sound_ms else ""
        self.screen.note(f"heard to its end{first}")


_EVENTS: dict[str, Callable[[Caller, Event], None]] = {
    "response.output_audio.delta": Caller._audio,
    "response.output_audio_transcript.delta": Caller._words,
    "response.output_audio.done": Caller._audio_done,
    "openline.item.partial": Caller._partial_item,
    "input_audio_buffer.speech_started": Caller._speech_started,
    "openline.turn.partial": Caller._heard_partial,
    "openline.turn.committed": Caller._turn_committed,
    "openline.tool.requested": Caller._tool_requested,
    "openline.tool.settled": Caller._tool_settled,
    "error": Caller._error,
}
