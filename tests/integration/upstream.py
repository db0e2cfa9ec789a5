"""A link to the fake provider with a session that names items: what the tests of the upstream link share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from openline.adapters.g711 import codec_of
from openline.adapters.link_openai_realtime import (
    OpenAIRealtimeFactory,
    OpenAIRealtimeLink,
    OpenAIRealtimeSettings,
    SocketSettings,
)
from openline.adapters.resample import Resampler
from openline.core.model import AudioRange, Item, Part, ResponseRequest, SessionConfig
from openline.core.value import replace
from openline.errors import LinkError
from openline.ports import ResponseStart
from openline.testing.fake_realtime import FakeConnection, FakeRealtime
from openline.testing.sinks import RecordingSink
from openline.types import ItemId, ResponseId, SessionId, TurnId

FAST = OpenAIRealtimeSettings(
    handshake_s=0.3, stall_s=0.15, dead_s=0.4, ping_s=0.05, check_s=0.02, socket=SocketSettings(connect_s=0.5)
)
PATIENT = OpenAIRealtimeSettings(check_s=0.02)
MANUAL = SessionConfig(turn_detection=None)
LOUD = b"\x00\x40" * 480
QUIET = bytes(960)


class Caller(RecordingSink):
    """A sink that names items as a session does, and can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Item] = []
        self.error: Exception | None = None
        self.link: OpenAIRealtimeLink | None = None
        self.names_items = True

    def conversation(self) -> tuple[Item, ...]:
        return tuple(self.items)

    def lost(self, error: Exception) -> None:
        super().lost(error)
        self.error = error

    def turn_committed(self, start: int, end: int) -> None:
        self.events.append(("turn_committed", start, end))
        if self.names_items:
            self.add(spoken(f"item_turn{len(self.items)}", start, end))

    def add(self, item: Item, previous: str | None = None) -> None:
        """As the session has it: behind ``previous``; without, a typed one in front and a spoken one at the end."""
        ids = [known.id for known in self.items]
        end = len(ids) if item.turn_id is not None else 0
        self.items.insert(ids.index(ItemId(previous)) + 1 if previous in ids else end, item)
        assert self.link is not None
        self.link.add_item(item, ItemId(previous) if previous else None)

    def message_started(self, response: ResponseId, output_index: int, **more: Any) -> None:
        super().message_started(response, output_index, **more)
        self._name(response, output_index)

    def call_started(
        self, response: ResponseId, output_index: int, call_id: Any, name: str, **more: Any
    ) -> None:
        self.events.append(("call_started", response, output_index, call_id, name))
        self._name(response, output_index)

    def _name(self, response: ResponseId, index: int) -> None:
        assert self.link is not None
        self.link.named(response, index, ItemId(f"item_{response}_{index}"))

    def has(self, name: str) -> bool:
        return any(event[0] == name for event in self.events)

    def of(self, name: str) -> list[tuple[object, ...]]:
        return [event for event in self.events if event[0] == name]


def typed(ident: str, text: str) -> Item:
    return Item(ItemId(ident), "message", "user", "user", content=(Part("input_text", text),))


def spoken(ident: str, start: int, end: int, text: str | None = None) -> Item:
    part = Part("input_audio", text, AudioRange(start, end))
    return Item(ItemId(ident), "message", "user", "user", content=(part,), turn_id=TurnId(f"turn_{ident}"))


def ask(ident: str, config: SessionConfig = MANUAL, **request: Any) -> ResponseStart:
    return ResponseStart(ResponseId(ident), ResponseRequest(**request), config, ())


async def until(test: Callable[[], object], *, patience: float = 3.0) -> None:
    """A real socket has no event to wait for on the other side: look until it is so."""
    async with asyncio.timeout(patience):
        while not test():
            await asyncio.sleep(0.002)


class Scene:
    """A fake provider, a link to it and the link's session."""

    def __init__(self, fake: FakeRealtime, settings: OpenAIRealtimeSettings) -> None:
        self.fake = fake
        self.key = "sk-test"
        self.factory = OpenAIRealtimeFactory(
            fake.url, "gpt-realtime", lambda: self.key, settings=settings, make_codec=codec_of(Resampler)
        )
        self.sink = Caller()
        self.link = self.factory(SessionId("sess_1"), MANUAL)
        self.sink.link = self.link

    async def open(self, config: SessionConfig = MANUAL, items: tuple[Item, ...] = ()) -> FakeConnection:
        self.sink.items = list(items)
        await self.link.open(self.sink, config, items)
        return self.fake.latest

    async def done(self, count: int = 1) -> None:
        await until(lambda: len(self.sink.of("response_finished")) >= count)

    async def lost(self) -> LinkError:
        await until(lambda: self.sink.error)
        assert isinstance(self.sink.error, LinkError)
        return self.sink.error


Story = Callable[["Scene"], Coroutine[Any, Any, None]]


def story(do: Story, settings: OpenAIRealtimeSettings = PATIENT) -> Callable[[], None]:
    async def run() -> None:
        async with FakeRealtime() as fake:
            scene = Scene(fake, settings)
            try:
                await do(scene)
            finally:
                await scene.link.close()

    return lambda: asyncio.run(run())


def play(do: Story, **settings: float) -> None:
    """Run a story; ``settings`` are those of the link, in seconds."""
    given: Any = settings
    story(do, replace(PATIENT, **given))()


def speak(scene: Scene, *, frames: int = 10, silence: int = 30) -> None:
    for _ in range(frames):
        scene.link.append_audio(LOUD)
    for _ in range(silence):
        scene.link.append_audio(QUIET)
