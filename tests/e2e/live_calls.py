"""Callers on live audio calls who come back after every cut, and keep every frame of every socket."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import websockets

from integration.gateway import GatewayProcess, Story
from integration.line import (
    Frame,
    Line,
    again,
    check_nothing_lost_or_doubled,
    dial,
    place_of,
    silence,
)
from openline.testing.speech import tone
from openline.wire.render import MAX_FRAMES

UTTERANCE = tone(220, 400, rate=24_000) + silence(700)
FOLDER = Path(__file__).parent
TURN_S = 20.0


def call_gateway(data: Path, *arguments: str) -> GatewayProcess:
    fixed = ("call_agent:agent", "--recognizer", "scripted", "--log-level", "warning")
    return GatewayProcess(data, (*fixed, *arguments), folder=FOLDER)


def in_audio_reply(frames: list[Frame]) -> bool:
    """The last response on this socket has begun to sound and has not ended."""
    for frame in reversed(frames):
        if frame["type"] == "response.done":
            return False
        if frame["type"] == "response.output_audio.delta":
            return True
    return False


def in_tool(frames: list[Frame]) -> bool:
    for frame in reversed(frames):
        if frame["type"] == "openline.tool.settled":
            return False
        if frame["type"] == "openline.tool.started":
            return True
    return False


@dataclass
class Caller:
    """One session over as many sockets as it takes. ``url`` gives the gateway's address of the moment."""

    url: Callable[[], str]
    chance: random.Random
    lines: list[Line] = field(default_factory=list)
    turns: int = 0
    is_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def line(self) -> Line:
        return self.lines[-1]

    @property
    def session(self) -> str:
        return str(self.lines[0].opening["session_id"])

    async def connect(self) -> Line:
        """The first line, or the next one, from where the last one ended."""
        query = again(self.line) if self.lines else {}
        self.lines.append(await dial(self.url(), **query))
        return self.line

    async def turn(self) -> None:
        """Say something and hear the reply out, or barge in. A broken line ends it early."""
        try:
            await self.whole_turn()
        except (websockets.ConnectionClosed, BrokenLine):
            await self.line.wait_closed()

    async def whole_turn(self) -> None:
        """Raises BrokenLine or ConnectionClosed when the line breaks in the middle."""
        line = self.line
        began = len(line.frames)
        await line.speak(UTTERANCE, pace=0.2)
        await self._until(lambda frames: any(f["type"] == "response.created" for f in frames[began:]))
        if self.chance.random() < 0.5:
            await self._until(lambda frames: in_audio_reply(frames) or _is_quiet(frames))
            await asyncio.sleep(self.chance.uniform(0.0, 0.5))
            return  # the next utterance is the barge-in
        await self._until(_is_quiet)
        self.turns += 1

    async def _until(self, test: Callable[[list[Frame]], bool]) -> None:
        line = self.line
        async with asyncio.timeout(TURN_S):
            while not test(line.frames):
                if line.closed is not None:
                    raise BrokenLine
                await line.news()

    async def proves_to_go_on(self) -> None:
        """Speak, be answered with sound or a tool, and stop the answer: on the line as it is now."""
        line = self.line
        began = len(line.frames)
        await line.speak(UTTERANCE, pace=0.2)
        await self._until(lambda frames: any(f["type"] == "response.created" for f in frames[began:]))
        await self._until(lambda frames: in_audio_reply(frames[began:]) or _is_quiet(frames))
        await line.send("response.cancel")
        await self._until(_is_quiet)

    def check(self, story: Story) -> int:
        """What this caller was sent against the log; the number of durable frames compared."""
        sockets = [line.frames for line in self.lines]
        for frames in sockets:
            check_texts(frames)
        return check_nothing_lost_or_doubled(story, sockets, whole=False)


class BrokenLine(Exception):
    """The line ended while something was still to come."""


def _is_quiet(frames: list[Frame]) -> bool:
    """Every reply that began has ended, and no tool runs whose result is still to be spoken to."""
    open_ = {f["response"]["id"] for f in frames if f["type"] == "response.created"}
    open_ -= {f["response"]["id"] for f in frames if f["type"] == "response.done"}
    kinds = Counter(frame["type"] for frame in frames)
    return not open_ and not in_tool(frames) and kinds["response.done"] > 0


def check_texts(frames: list[Frame]) -> None:
    """Partials of one socket: what an item's text grew to is the text it ends with.

    A text that began before this socket is known from its ``openline.item.partial`` on.
    """
    texts: dict[str, str] = {}
    is_live = False
    for frame in frames:
        kind = frame["type"]
        if kind == "openline.connection.attached":
            is_live = True
        elif kind == "openline.item.partial":
            texts[frame["item_id"]] = frame["text"]
        elif kind == "response.output_audio_transcript.delta":
            texts[frame["item_id"]] = texts.get(frame["item_id"], "") + frame["delta"]
        elif kind == "response.output_audio_transcript.done" and is_live and frame["item_id"] in texts:
            grown, final = texts[frame["item_id"]], frame["transcript"]
            # An item that was cut ends with what was heard of it, which is less than what was sent.
            assert grown.startswith(final) or final.startswith(grown), f"{frame['item_id']}: its text differs"
            assert len(final) <= len(grown), f"{frame['item_id']}: text came that was never a delta"


def durable_count(lines: list[Line]) -> int:
    return sum(place_of(frame)[2] < MAX_FRAMES for line in lines for frame in line.frames)
