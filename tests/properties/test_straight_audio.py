"""The caller's audio past the link host: whatever happens in between, all is as it would be by way of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from openline.core.model import Item, SessionConfig
from openline.errors import LinkUnavailable
from openline.ports import LinkSink, ModelLink
from openline.testing.virtual_time import run_virtual
from openline.types import SessionId
from runtime_gateway import Caller, Recordings, house

FRAME = 480
ACTS = st.lists(
    st.one_of(
        st.integers(1, 12),
        st.sampled_from(["pause", "refuse", "lose", "speak", "stop", "commit", "idle", "record"]),
    ),
    max_size=25,
)


class Ear(ModelLink):
    """Keeps what it is given. ``refuses``: so many frames that may not go straight."""

    hears = True

    def __init__(self, log: Log, *, is_straight: bool) -> None:
        self.log = log
        self.heard = bytearray()
        self.refuses = 0
        self.straight = self._straight if is_straight else None
        self.sink: LinkSink

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        self.sink = sink
        sink.opened()

    async def close(self) -> None: ...

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        self.heard += pcm

    def replay_audio(self, pcm: bytes) -> None:
        self.heard += pcm

    def _straight(self, pcm: bytes, samples: int, frame: bytes) -> bool:
        if self.refuses:
            self.refuses -= 1
            return False
        assert samples * 2 == len(pcm)
        self.log.straight += 1
        self.heard += pcm
        return True

    def unconfirmed(self) -> int:
        return 2 * FRAME

    def update(self, config: SessionConfig) -> None: ...


@dataclass
class Log:
    straight: int = 0
    told: list[object] = field(default_factory=list)


async def play(acts: list[int | str], *, is_straight: bool, is_recorded: bool) -> Log:
    random.seed(0)  # A new link comes after a delay that varies: both ways get the same ones.
    log, links, number = Log(), list[Ear](), 0

    def make(session: SessionId, config: SessionConfig) -> Ear:
        links.append(Ear(log, is_straight=is_straight))
        return links[-1]

    recordings = Recordings() if is_recorded else None
    async with house(links=make, recordings=recordings) as home:
        driver = await home.call(Caller())
        recorder = driver.recorder
        for act in [*acts, "wait", 5]:
            link = links[-1]
            position = len(link.heard) // 2
            match act:
                case int():
                    for _ in range(act):
                        number += 1
                        driver.append_audio(number.to_bytes(2, "little") * FRAME)
                        await asyncio.sleep(0.02)
                case "pause":
                    await asyncio.sleep(1)
                case "wait":  # for a link that was lost
                    await asyncio.sleep(60)
                case "refuse":
                    link.refuses = 1
                case "lose":
                    link.sink.lost(LinkUnavailable("gone", cause="cut"))
                    await asyncio.sleep(0.001)
                case "speak":
                    link.sink.speech_started(position)
                case "stop":
                    link.sink.speech_stopped(position)
                case "commit":
                    link.sink.turn_committed(max(0, position - FRAME), position)
                case "record":
                    driver.recorder = None if driver.recorder is not None else recorder
                case _:  # idle
                    await asyncio.sleep(0.01)
            state, host = driver.session.state, driver.link
            place = (driver.heard_until, driver.buffer_start, driver.unheard_from)
            log.told.append((place, state.seq, state.link.phase, state.link.epoch, state.turn is None))
            log.told.append(None if host is None else host._appended)
            log.told.append(driver.caller.read(max(0, driver.heard_until - 3 * FRAME), driver.heard_until))
        log.told.append([bytes(link.heard) for link in links])
        log.told.append(recordings.written if recordings else None)
    return log


@settings(max_examples=60)
@given(ACTS, st.booleans())
def test_nothing_tells_straight_audio_from_other(acts: list[int | str], is_recorded: bool) -> None:
    found: list[Log] = []

    async def both() -> None:
        for is_straight in (False, True):
            found.append(await play(acts, is_straight=is_straight, is_recorded=is_recorded))

    run_virtual(both())
    by_host, straight = found
    assert straight.told == by_host.told
    assert not by_host.straight and straight.straight, "it was worth it"
