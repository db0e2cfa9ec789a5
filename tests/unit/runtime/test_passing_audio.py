"""A telephone's audio before a link that takes it: as it came, and decoded only where somebody needs that."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from openline.adapters.g711 import G711Codec, compress, expand
from openline.adapters.resample import Resampler
from openline.core import inputs as i
from openline.core.model import AudioFormat, Item, SessionConfig
from openline.core.value import replace
from openline.errors import LinkUnavailable
from openline.ports import AudioCodec, LinkSink, ModelLink
from openline.runtime.driver import SessionDriver
from openline.testing.virtual_time import run_virtual
from openline.types import ConnectionId, SessionId
from runtime_gateway import TENANT, Caller, House, Recordings, house

FRAME = compress("pcmu", b"\x00\x20" * 160)
"""20 ms, loud and steady."""


class Counting(G711Codec):
    """A codec that says how much was decoded."""

    decoded = 0

    def decode(self, data: bytes) -> bytes:
        type(self).decoded += len(data)
        return super().decode(data)


def make_codec(name: AudioFormat) -> AudioCodec:
    assert name != "pcm"
    return Counting(name, Resampler)


class Telephone(ModelLink):
    """Takes µ-law; keeps all that it is given, and how far that moved it."""

    hears = True

    def __init__(self) -> None:
        self.input_format: AudioFormat = "pcmu"
        self.pieces: list[tuple[bytes, int, bool]] = []
        self.pcm = bytearray()
        self.sink: LinkSink
        self.unheard = 0

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        self.sink = sink
        sink.opened()

    async def close(self) -> None: ...

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        self.pcm += pcm

    def append_encoded(self, data: bytes, samples: int, *, is_replay: bool = False) -> None:
        self.pieces.append((data, samples, is_replay))

    def unconfirmed(self) -> int:
        return self.unheard

    def update(self, config: SessionConfig) -> None: ...


class Telephones:
    def __init__(self) -> None:
        self.links: list[Telephone] = []

    def __call__(self, session: SessionId, config: SessionConfig) -> Telephone:
        self.links.append(Telephone())
        return self.links[-1]


def run(story: Coroutine[Any, Any, None]) -> None:
    Counting.decoded = 0
    run_virtual(story)


async def call(home: House, caller: Caller) -> SessionDriver:
    driver = await home.gateway.create(TENANT, replace(home.config(), input_format="pcmu"))
    home.attach(driver, caller)
    await asyncio.sleep(0.001)
    return driver


async def speak(driver: SessionDriver, frames: int) -> None:
    for _ in range(frames):
        driver.append_audio(FRAME)
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("is_recorded", [False, True])
def test_it_is_decoded_only_where_it_is_recorded(is_recorded: bool) -> None:
    async def story() -> None:
        links, recordings = Telephones(), Recordings() if is_recorded else None
        async with house(links=links, recordings=recordings, make_codec=make_codec) as home:
            driver = await call(home, Caller())
            await speak(driver, 50)
            (link,) = links.links
            assert [data for data, _, _ in link.pieces] == [FRAME] * 50 and not link.pcm
            moved = sum(samples for _, samples, _ in link.pieces)
            if is_recorded:
                assert Counting.decoded == 50 * 160
                assert abs(moved - 50 * 480) < 72, "what a filter holds comes with the next frame"
            else:
                assert Counting.decoded == 0
                assert moved == driver.heard_until == 50 * 480

    run(story())


def test_a_link_that_takes_it_no_more_is_given_pcm_from_the_next_frame() -> None:
    async def story() -> None:
        links = Telephones()
        async with house(links=links, make_codec=make_codec) as home:
            driver = await call(home, Caller())
            await speak(driver, 5)
            links.links[0].input_format = "pcm"
            await speak(driver, 5)
            assert len(links.links[0].pieces) == 5
            assert abs(len(links.links[0].pcm) // 2 - 5 * 480) < 72
            links.links[0].input_format = "pcma"
            await speak(driver, 5)
            assert len(links.links[0].pieces) == 10
            samples = memoryview(expand("pcma", links.links[0].pieces[-1][0])).cast("h")
            assert abs(samples[len(samples) // 2] - 0x2000) < 500

    run(story())


def test_what_a_lost_link_did_not_hear_is_given_to_the_next_from_what_was_kept_as_it_came() -> None:
    async def story() -> None:
        links = Telephones()
        async with house(links=links, make_codec=make_codec) as home:
            driver = await call(home, Caller())
            await speak(driver, 40)
            links.links[0].unheard = 25 * 480
            assert Counting.decoded == 0
            links.links[0].sink.lost(LinkUnavailable("gone", cause="closed_1011"))
            driver.offer(i.CreateResponse(ConnectionId("conn_1"), "evt_1"))
            await asyncio.sleep(5)
            new = links.links[-1]
            again = b"".join(data for data, _, is_replay in new.pieces if is_replay)
            assert len(links.links) == 2 and abs(len(again) - 40 * 160) <= 48, "and 700 ms before it, if kept"
            samples = memoryview(expand("pcmu", again)).cast("h")
            assert abs(samples[len(samples) // 2] - 0x2000) < 500
            assert len(again) > 40 * 160, "with what the encoder held of it"
            before = Counting.decoded
            await speak(driver, 5)
            assert Counting.decoded == before and [data for data, _, _ in new.pieces[-5:]] == [FRAME] * 5

    run(story())
