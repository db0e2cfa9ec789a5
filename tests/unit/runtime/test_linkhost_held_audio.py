"""What a caller says while a link opens is heard once it is open, at its own place in the track."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from openline.core import inputs as i
from openline.runtime.linkhost import HELD_MAX_MS, LinkHost

FRAME = bytes(960)


class SlowLink:
    """A link that opens when it is told to; keeps what it was given."""

    hears = True
    input_format = "pcm"

    def __init__(self) -> None:
        self.may_open = asyncio.Event()
        self.heard = bytearray()

    async def open(self, sink: Any, config: object, items: object) -> None:
        await self.may_open.wait()
        sink.opened()

    def append_audio(self, pcm: bytes) -> None:
        self.heard += pcm


class Driver:
    """As much of a driver as a link host asks of it."""

    def __init__(self) -> None:
        state = SimpleNamespace(
            session="sess_test",
            config=SimpleNamespace(model="test"),
            conversation=lambda: (),
            speaks_unheard=False,
        )
        self.session = SimpleNamespace(state=state)
        self.offered: list[i.Input] = []
        self.heard_until = 0
        self.unheard_from: int | None = None

    def offer(self, input_: i.Input) -> None:
        self.offered.append(input_)


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
