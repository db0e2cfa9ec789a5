"""A client of ``/v1/realtime`` that keeps every frame it was sent, and can be cut in every way a line breaks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import websockets
from websockets.asyncio.client import ClientConnection, connect

from integration.gateway import Story
from openline.adapters.resample import Resampler
from openline.demo import phrases
from openline.types import ConnectionId, Epoch, Role, Seq
from openline.wire.frames import parse_event_id
from openline.wire.render import MAX_FRAMES, View, render

Frame = dict[str, Any]
PATIENCE_S = 20.0
FRAME_BYTES = 960
"""20 ms of PCM16 at 24 kHz."""


class Line:
    """One socket. ``frames`` is all that came, in order; ``wait`` looks through it and then at what comes."""

    def __init__(self, socket_: ClientConnection) -> None:
        self.socket = socket_
        self.frames: list[Frame] = []
        self.closed: tuple[int, str] | None = None
        self._news = asyncio.Condition()
        self._looked = 0
        self._ids = itertools.count(1)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for text in self.socket:
                async with self._news:
                    self.frames.append(json.loads(text))
                    self._news.notify_all()
        except (websockets.ConnectionClosed, OSError):
            pass
        finally:
            code = self.socket.close_code
            self.closed = (1006 if code is None else code, self.socket.close_reason or "")
            async with self._news:
                self._news.notify_all()

    # -- what came

    @property
    def opening(self) -> Frame:
        """What an opted-in client was told in session.created."""
        told: Frame = self.frames[0]["openline"]
        return told

    @property
    def last_id(self) -> str:
        return str(self.frames[-1]["event_id"])

    async def wait(
        self, type_: str, test: Callable[[Frame], bool] = lambda frame: True, *, patience: float = PATIENCE_S
    ) -> Frame:
        """The next frame of that type that passes; frames before it are passed over for good."""
        return await self.wait_any(
            lambda frame: frame["type"] == type_ and test(frame), type_, patience=patience
        )

    async def wait_any(
        self, test: Callable[[Frame], bool], what: str = "such frame", *, patience: float = PATIENCE_S
    ) -> Frame:
        try:
            async with asyncio.timeout(patience):
                while True:
                    while self._looked < len(self.frames):
                        frame = self.frames[self._looked]
                        self._looked += 1
                        if test(frame):
                            return frame
                    assert self.closed is None, f"closed {self.closed} while waiting for {what}; {self._tail}"
                    await self.news()
        except TimeoutError:
            raise AssertionError(f"no {what} within {patience} s; {self._tail}") from None

    @property
    def _tail(self) -> str:
        return f"last frames {[frame['type'] for frame in self.frames[-8:]]}"

    async def news(self) -> None:
        """Return when something came, or the line ended."""
        if self.closed is None:
            async with self._news:
                await self._news.wait()

    async def wait_closed(self, patience: float = PATIENCE_S) -> tuple[int, str]:
        async with asyncio.timeout(patience), self._news:
            await self._news.wait_for(lambda: self.closed is not None)
        assert self.closed is not None
        return self.closed

    def of(self, type_: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == type_]

    def audio(self) -> bytes:
        return b"".join(base64.b64decode(frame["delta"]) for frame in self.of("response.output_audio.delta"))

    # -- what goes

    async def send(self, type_: str, **values: object) -> str:
        """Send an event; the event_id it was given."""
        event_id = str(values.pop("event_id", f"event_{id(self):x}_{next(self._ids)}"))
        await self.socket.send(json.dumps({"type": type_, "event_id": event_id, **values}))
        return event_id

    async def write(self, text: str) -> None:
        """A user's message, without a reply to it."""
        content = [{"type": "input_text", "text": text}]
        await self.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": content}
        )

    async def ask(self, text: str, **response: object) -> None:
        """A user's message and the wish for a reply."""
        await self.write(text)
        await self.send("response.create", **({"response": response} if response else {}))

    async def turn(self, text: str) -> Frame:
        """Ask and wait for the end of the reply."""
        await self.ask(text)
        return await self.wait("response.done")

    async def append(self, pcm: bytes) -> None:
        audio = base64.b64encode(pcm).decode()
        await self.socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async def speak(self, pcm: bytes, *, pace: float = 1.0) -> None:
        """Send audio in frames of 20 ms; ``pace`` 1 is real time, 0 as fast as it goes."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        for start in range(0, len(pcm), FRAME_BYTES):
            await self.append(pcm[start : start + FRAME_BYTES])
            due += 0.02 * pace
            if pace:
                await asyncio.sleep(max(0.0, due - loop.time()))

    # -- how it ends

    async def close(self) -> None:
        await self.socket.close()
        await self._reader

    async def reset(self) -> None:
        """Cut it hard: an RST, and what was on its way is gone."""
        raw: socket.socket = self.socket.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.transport.abort()
        await self._reader

    async def drop(self) -> None:
        """Cut it at the TCP level without a close frame."""
        self.socket.transport.abort()
        await self._reader

    def freeze(self) -> None:
        """Half open: read nothing more, send nothing more, and do not say so. ``thaw_and_drop`` ends it."""
        self._reader.cancel()
        self.socket.transport.pause_reading()

    async def bury(self) -> None:
        """The end of a frozen line."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        self.socket.transport.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def line(url: str, **query: object) -> AsyncIterator[Line]:
    """A line to the gateway at ``url`` (http…); opted in unless ``openline=0``. Closed at the end."""
    opened = await dial(url, **query)
    try:
        yield opened
    finally:
        await opened.close()


async def dial(url: str, **query: object) -> Line:
    """As ``line``, for those who end it themselves. Waits for session.created."""
    opened = await dial_unheard(url, **query)
    await opened.wait("session.created")
    return opened


async def dial_unheard(url: str, **query: object) -> Line:
    """``key``: an API key. Everything else goes into the URL."""
    words = {"model": "test", "openline": 1, **query}
    key = words.pop("key", "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    place = f"{url.replace('http', 'ws', 1)}/v1/realtime?{urlencode(words)}"
    # Pings of the client would be one more thing that happens at its own time.
    return Line(
        await connect(
            place,
            additional_headers=headers,
            max_size=None,
            ping_interval=None,
            close_timeout=2,
            compression=None,
        )
    )


def again(last: Line) -> dict[str, object]:
    """The query with which a client takes up its session where ``last`` ended."""
    told = last.opening
    return {"session_id": told["session_id"], "token": told["token"], "after": last.last_id}


# ------------------------------------------------------------------------------------------- what it heard


def spoken(name: str) -> bytes:
    """A caller's recording of the demo as PCM16 24 kHz; ``name`` of a phrase, or a fact such as "tiger seven"."""
    known = phrases.load()
    facts = {fact.value: fact.statement for fact in known.facts}
    phrase = facts.get(name) or known.by_name(name)
    resampler = Resampler(16_000, 24_000)
    return resampler.convert(phrases.audio(phrase)) + resampler.flush()


def silence(ms: int) -> bytes:
    return bytes(ms * 48)


Place = tuple[int, int, int]


def place_of(frame: Frame) -> Place:
    place = parse_event_id(frame["event_id"])
    assert place is not None, f"{frame['type']} has the id {frame['event_id']}"
    return place


def durable_frames(frames: Sequence[Frame]) -> list[tuple[Place, Frame]]:
    """Those rendered from facts: commit and effect class."""
    return [(place_of(frame), frame) for frame in frames if place_of(frame)[2] < MAX_FRAMES]


def rendered(story: Story, role: Role = "speaker", *, opted_in: bool = True) -> list[tuple[Place, Frame]]:
    """Every frame that the log means for such a client, in order."""
    view = View(opted_in, ConnectionId("any"), role, False, story.session)
    return [
        ((epoch, seq, n), json.loads(text))
        for seq, epoch, fact in story.facts
        for n, text in render(fact, epoch=Epoch(epoch), seq=Seq(seq), view=view)
    ]


def check_nothing_lost_or_doubled(story: Story, sockets: Sequence[Sequence[Frame]], *, whole: bool) -> int:
    """What one client was sent over ``sockets``, one after the other, is what the log says, once and in order.

    From its first fact frame to its last; ``whole``: to the end of the log. The number of frames compared.
    """
    seen = [entry for frames in sockets for entry in durable_frames(frames)]
    assert not any(frame["type"] == "openline.session.rewound" for frames in sockets for frame in frames), (
        "something was shown that the log does not have"
    )
    if not seen:
        return 0
    meant = rendered(story)
    places = [place for place, _ in meant]
    assert seen[0][0] in places, f"{seen[0][0]} was shown and is not in the log"
    begin = places.index(seen[0][0])
    end = len(meant) if whole else begin + len(seen)
    assert [place for place, _ in seen] == places[begin:end], _difference(seen, places[begin:end])
    for (place, got), (_, frame) in zip(seen, meant[begin:end], strict=True):
        assert got == frame, f"{place}: {got['type']} differs from the log"
    return len(seen)


def _difference(seen: Sequence[tuple[Place, Frame]], meant: Sequence[Place]) -> str:
    got = [place for place, _ in seen]
    doubled = sorted({place for place in got if got.count(place) > 1})
    missing = [place for place in meant if place not in got]
    unknown = [(place, frame["type"]) for place, frame in seen if place not in meant]
    return f"doubled {doubled[:5]}, missing {missing[:5]}, not in the log {unknown[:5]}, {len(got)} seen"
