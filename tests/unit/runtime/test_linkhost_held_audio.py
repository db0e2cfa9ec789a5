"""What a caller says while a link opens is heard once it is open, at its own place in the track."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from openline.core import inputs as i
from openline.core.model import AudioRange
from openline.runtime.linkhost import HELD_MAX_MS, LinkHost
from openline.types import ItemId

FRAME = bytes(960)


class SlowLink:
    """A link that opens when it is told to; keeps what it was given. One buffer for all that it hears, as a provider
    has: what is to be recognised takes the place of what is in it."""

    hears = True
    input_format = "pcm"
    straight = None

    def __init__(self) -> None:
        self.may_open = asyncio.Event()
        self.heard = bytearray()
        self.late = bytearray()
        self.recognized: list[tuple[str, bytes]] = []

    async def open(self, sink: Any, config: object, items: object) -> None:
        await self.may_open.wait()
        sink.opened()

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        self.heard += pcm

    def replay_audio(self, pcm: bytes) -> None:
        self.heard += pcm
        self.late += pcm

    def recognize(self, item_id: str, pcm: bytes) -> bool:
        self.heard.clear()
        self.recognized.append((item_id, pcm))
        return True


class Driver:
    """As much of a driver as a link host asks of it."""

    def __init__(self) -> None:
        state = SimpleNamespace(
            session="sess_test",
            config=SimpleNamespace(model="test"),
            conversation=lambda: (),
            speaks_unheard=False,
            to_recognize=(),
        )
        self.session = SimpleNamespace(state=state)
        self.codecs = SimpleNamespace(last_to_link=lambda: b"")
        self.offered: list[i.Input] = []
        self.heard_until = self.kept_from = self.buffer_start = 0
        self.unheard_from: int | None = None
        self.link: LinkHost | None = None
        self.caller = SimpleNamespace(straight=None, position=0)
        self.disk = asyncio.Event()
        self.disk.set()
        self._tasks: list[asyncio.Task[None]] = []

    def offer(self, input_: i.Input) -> None:
        self.offered.append(input_)

    def leave_straight(self) -> None:
        if self.caller.straight is not None:
            self.caller.straight = None
            assert self.link is not None
            self.link.in_step(self.caller.position)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def caller_audio(self, start: int, end: int) -> bytes:
        await self.disk.wait()
        return b"".join(numbered(number) for number in range(start // 480, end // 480))

    async def settled(self) -> None:
        await asyncio.gather(*self._tasks)


async def opening(link: SlowLink, driver: Driver) -> LinkHost:
    host = LinkHost(cast(Any, driver), 1)
    host.open(cast(Any, lambda session, config: link), 0.0)
    await asyncio.sleep(0)
    return host


def numbered(number: int) -> bytes:
    return number.to_bytes(2, "little") * 480


def test_audio_from_before_the_opening_comes_first_and_in_order() -> None:
    async def story() -> None:
        link, driver = SlowLink(), Driver()
        host = await opening(link, driver)
        for number in range(3):
            host.append(numbered(number), 480 * number, 480 * (number + 1))
        assert not link.heard
        link.may_open.set()
        while not driver.offered:
            await asyncio.sleep(0)
        assert isinstance(driver.offered[0], i.LinkOpened)
        host.append(numbered(3), 480 * 3, 480 * 4)
        assert bytes(link.heard) == b"".join(numbered(number) for number in range(4))
        assert bytes(link.late) == b"".join(numbered(number) for number in range(3)), (
            "none of it may be dropped"
        )
        assert host.map.to_track(480 * 2) == 480 * 2

    asyncio.run(story())


def test_a_link_that_takes_for_ever_keeps_the_newest_half_minute() -> None:
    async def story() -> None:
        link, driver = SlowLink(), Driver()
        host = await opening(link, driver)
        count = HELD_MAX_MS // 20 + 50
        for number in range(count):
            host.append(numbered(number), 480 * number, 480 * (number + 1))
        link.may_open.set()
        while not driver.offered:
            await asyncio.sleep(0)
        assert len(link.heard) == HELD_MAX_MS * 48
        assert bytes(link.heard[:2]) == numbered(50)[:2]
        assert host.map.to_track(0) == 480 * 50, "what was dropped leaves a gap, not a shift"

    asyncio.run(story())


def test_what_went_straight_waits_too_while_earlier_audio_is_recognised() -> None:
    async def story() -> None:
        driver, link = Driver(), SlowLink()
        host = driver.link = LinkHost(cast(Any, driver), 1)
        host.open(cast(Any, lambda session, config: link), 0)
        link.may_open.set()
        while not driver.offered:
            await asyncio.sleep(0)
        host.append(numbered(10), 4800, 5280)
        driver.caller = SimpleNamespace(straight=link.append_audio, position=480 * 13)  # two frames more
        assert host._appended == 480 * 3
        driver.disk.clear()
        host.transcribe(ItemId("item_old"), AudioRange(0, 480 * 3))
        assert driver.caller.straight is None, "one buffer: it is cleared for what is recognised"
        host.append(numbered(13), 480 * 13, 480 * 14)
        assert bytes(link.heard) == numbered(10)
        driver.disk.set()
        await driver.settled()
        assert link.recognized and bytes(link.heard) == numbered(13)
        assert host._appended == 480 * 4 and host.map.to_track(480 * 3) == 480 * 13

    asyncio.run(story())


EARLIER, NOW = AudioRange(0, 480 * 3), 480 * 5
"""A turn whose text was lost with an earlier link, and where the caller began to speak since."""


async def opened(driver: Driver, host: LinkHost, link: SlowLink) -> None:
    """Two frames of what is being said are held when the link opens."""
    for number in (7, 8):
        host.append(numbered(number), 480 * number, 480 * (number + 1))
    driver.heard_until = 480 * 9
    link.may_open.set()
    while not driver.offered:
        await asyncio.sleep(0)


Story = Callable[[Driver, LinkHost, SlowLink], Awaitable[None]]


async def asked_late(driver: Driver, host: LinkHost, link: SlowLink) -> None:
    """The step that asks for the text is durable only after the link has opened."""
    await opened(driver, host, link)
    for _ in range(5):
        await asyncio.sleep(0)
    host.transcribe(ItemId("item_old"), EARLIER)


async def read_late(driver: Driver, host: LinkHost, link: SlowLink) -> None:
    """The disk takes its time."""
    driver.disk.clear()
    await opened(driver, host, link)
    host.transcribe(ItemId("item_old"), EARLIER)
    for _ in range(5):
        await asyncio.sleep(0)
    driver.disk.set()


@pytest.mark.parametrize("begin", [asked_late, read_late])
@pytest.mark.parametrize("unheard_from", [None, NOW])
def test_earlier_audio_is_recognised_before_what_is_said_now_is_given(
    begin: Story, unheard_from: int | None
) -> None:
    """B11, G12: else the first word of who speaks into the loss is cleared away with the provider's buffer."""

    async def story() -> None:
        link, driver = SlowLink(), Driver()
        driver.session.state.config.turn_detection = object()
        driver.session.state.to_recognize = ("item_old",)
        driver.unheard_from = unheard_from
        host = await opening(link, driver)
        await begin(driver, host, link)
        await driver.settled()
        assert [item for item, _ in link.recognized] == ["item_old"]
        frames = (
            [7, 8] if unheard_from is None else list(range(9))
        )  # with the time to detect who speaks before it
        assert bytes(link.heard) == b"".join(map(numbered, frames))

    asyncio.run(story())


def test_what_is_said_while_a_recording_is_read_waits_for_it() -> None:
    """A client commits what only an earlier link has heard; it goes on speaking meanwhile."""

    async def story() -> None:
        link, driver = SlowLink(), Driver()
        driver.session.state.config.turn_detection = None
        host = await opening(link, driver)
        await opened(driver, host, link)
        assert bytes(link.heard) == numbered(7) + numbered(8)
        driver.disk.clear()
        host.transcribe(ItemId("item_new"), AudioRange(0, 480 * 9))
        for number in (9, 10):
            host.append(numbered(number), 480 * number, 480 * (number + 1))
        driver.disk.set()
        await driver.settled()
        assert link.recognized == [("item_new", b"".join(map(numbered, range(9))))]
        assert bytes(link.heard) == numbered(9) + numbered(10)
        host.append(numbered(11), 480 * 11, 480 * 12)
        assert bytes(link.heard[-2:]) == numbered(11)[-2:]

    asyncio.run(story())
