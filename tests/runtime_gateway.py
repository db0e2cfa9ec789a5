"""A gateway with a log that commits when the test says so, a scripted model, and clients that write down what
they are told and when it was durable. All in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from openline.adapters.log_memory import MemoryLog
from openline.core import inputs as i
from openline.core.facts import Fact
from openline.core.model import Item, Limits, Part, Problem, ResponseRequest, SessionConfig, ToolSpec
from openline.core.session import Step
from openline.errors import ToolError
from openline.ports import ReasoningDelta, Segment
from openline.runtime.driver import SessionDriver
from openline.runtime.gateway import Gateway, GatewaySettings
from openline.testing.link_scripted import ScriptedLink, ScriptedLinkFactory
from openline.testing.scripts import scripted_silence, scripted_speech
from openline.testing.virtual_time import VirtualClock
from openline.types import CallId, ConnectionId, Epoch, ItemId, Now, ResponseId, Role, Seq, SessionId, TurnId
from openline.wire.envelope import StoredStep, decode_step, encode_step

TENANT = "default"


class Codec:
    def encode(self, step: Step, now: Now) -> bytes:
        return encode_step(step.input, now, step.facts, step.effects)

    def decode(self, body: bytes) -> StoredStep:
        return decode_step(body)


@dataclass
class Caller:
    """A client. ``told``: (name, value) in order; facts wait in ``_waiting`` until their seq is durable."""

    name: str = "conn_1"
    role: Role = "speaker"
    pacing_ms: int | None = 500
    told: list[tuple[str, Any]] = field(default_factory=list)
    audio: bytearray = field(default_factory=bytearray)
    shown: list[Fact] = field(default_factory=list)
    """Every fact it was shown, durable or not."""
    mark: int = 0
    _waiting: list[tuple[int, Fact]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.conn = ConnectionId(self.name)

    def show(self, epoch: Epoch, first_seq: Seq, facts: Sequence[Fact]) -> None:
        self.shown += facts
        self._waiting += [(first_seq + offset, fact) for offset, fact in enumerate(facts)]
        self.durable(Seq(self.mark))

    def durable(self, mark: Seq) -> None:
        self.mark = max(self.mark, mark)
        while self._waiting and self._waiting[0][0] <= self.mark:
            self.told.append((self._waiting.pop(0)[1].TYPE, ""))

    def text_delta(self, response: ResponseId, item: ItemId, index: int, text: str, spoken: bool) -> None:
        self.told.append(("text", text))

    def audio_delta(self, response: ResponseId, item: ItemId, index: int, pcm: bytes) -> None:
        self.audio += pcm

    def call_delta(
        self, response: ResponseId, item: ItemId, index: int, call_id: CallId, arguments: str, ours: bool
    ) -> None:
        self.told.append(("call_delta", arguments))

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        self.told.append(("reasoning", delta.text))

    def user_partial(self, turn: TurnId, item: ItemId, text: str) -> None:
        self.told.append(("partial", text))

    def transcript_partial(self, turn: TurnId, item: ItemId, text: str) -> None:
        self.told.append(("transcript", (item, text)))

    def error(self, command: str, problem: Problem) -> None:
        self.told.append(("error", problem.code))

    def receipt(self, command: str, outcome: str) -> None:
        self.told.append(("receipt", outcome))

    def resend_item(self, item: Item, previous: ItemId | None) -> None:
        self.told.append(("resend", item.id))

    def close(self, code: int, reason: str) -> None:
        self.told.append(("close", code))

    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def closed(self) -> list[int]:
        return [value for name, value in self.told if name == "close"]


Tool = Callable[[str], Awaitable[str]]


@dataclass
class Agent:
    """Agent code: ``tools`` by name; every fact it handles is in ``handled``. ``slow``: handlers wait for it."""

    tool_functions: dict[str, Tool] = field(default_factory=dict)
    wants: tuple[str, ...] = ()
    handled: list[tuple[int, str]] = field(default_factory=list)
    fails_on: set[str] = field(default_factory=set)
    gate: asyncio.Event | None = None
    prepare: Callable[[TurnId], Awaitable[ResponseRequest | None]] | None = None
    attempts: list[tuple[str, int]] = field(default_factory=list)
    config: SessionConfig = SessionConfig()
    timeout_ms: int = 30_000

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return tuple(
            ToolSpec(name, runner="gateway", timeout_ms=self.timeout_ms) for name in self.tool_functions
        )

    @property
    def prepares_replies(self) -> bool:
        return self.prepare is not None

    def handles(self, fact_type: str) -> bool:
        return fact_type in self.wants

    async def handle(self, driver: SessionDriver, seq: Seq, fact: Fact) -> None:
        if self.gate is not None:
            await self.gate.wait()
        self.handled.append((seq, fact.TYPE))
        if fact.TYPE in self.fails_on:
            raise ValueError("agent code has a bug")

    async def prepare_reply(self, driver: SessionDriver, turn: TurnId) -> ResponseRequest | None:
        assert self.prepare is not None
        return await self.prepare(turn)

    async def run_tool(
        self, driver: SessionDriver, call_id: CallId, key: str, attempt: int, name: str, arguments: str
    ) -> str:
        self.attempts.append((key, attempt))
        if name not in self.tool_functions:
            raise ToolError(f"There is no tool '{name}'.")
        return await self.tool_functions[name](arguments)


class Recordings:
    """Recordings in memory: ``written`` has (track, start, bytes)."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int, int]] = []
        self.open = 0
        self.stored: dict[str, bytes] = {}
        self.pruned = 0
        self.forgotten: list[SessionId] = []

    def recorder(self, session: SessionId, on_segment: Callable[[Segment], None]) -> Recordings:
        self.open += 1
        return self

    def write(self, track: str, start: int, pcm: bytes) -> bool:
        self.written.append((track, start, len(pcm)))
        return True

    async def flush(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        self.open -= 1

    async def read(self, session: SessionId, track: str, start: int, end: int) -> bytes:
        return self.stored.get(track, b"")[start * 2 : end * 2]

    async def length(self, session: SessionId, track: str) -> int:
        return len(self.stored.get(track, b"")) // 2

    async def forget(self, session: SessionId) -> None:
        self.forgotten.append(session)

    async def prune(self, older_than_ms: int, max_bytes: int, keep: object) -> list[SessionId]:
        self.pruned += 1
        return []


class LateRecordings(Recordings):
    """They are on disk a fifth of a second late, as a recorder's are, or when somebody asks for them."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, int, bytes]] = []

    def write(self, track: str, start: int, pcm: bytes) -> bool:
        self._waiting.append((track, start, pcm))
        asyncio.get_running_loop().call_later(0.2, self._write_one)
        return super().write(track, start, pcm)

    async def flush(self) -> None:
        while self._waiting:
            self._write_one()

    def _write_one(self) -> None:
        if self._waiting:
            self.store(*self._waiting.pop(0))

    def store(self, track: str, start: int, pcm: bytes) -> None:
        kept = self.stored.get(track, b"")
        self.stored[track] = kept[: 2 * start].ljust(2 * start, b"\0") + pcm


class House:
    """The gateway and everything around it. ``manual``: nothing is durable before ``log.commit()``."""

    def __init__(
        self,
        *,
        manual: bool = False,
        agent: Agent | None = None,
        links: ScriptedLinkFactory | None = None,
        recordings: Recordings | None = None,
        log: MemoryLog | None = None,
        **settings: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.log = log or MemoryLog(manual=manual, wall_ms=lambda: self.clock.now().wall_ms)
        self.agent = agent or Agent()
        self.links = links or ScriptedLinkFactory()
        self.recordings = recordings
        self._made = 0
        limits = settings.pop("limits", Limits())
        make_codec = settings.pop("make_codec", None)
        self.gateway = Gateway(
            store=self.log,
            codec=Codec(),
            clock=self.clock,
            link_factory=self.links,
            agent=self.agent,
            settings=GatewaySettings(limits=limits, **settings),
            new_id=self._new_id,
            recordings=recordings,
            make_codec=make_codec,
        )

    def _new_id(self) -> str:
        self._made += 1
        return f"sess_{self._made:08d}"

    def config(self) -> SessionConfig:
        return SessionConfig(tools=self.agent.tools)

    async def call(self, *callers: Caller) -> SessionDriver:
        """A new session with these clients; with a log of its own pace the link is open."""
        driver = await self.gateway.create(TENANT, self.config())
        for caller in callers:
            self.attach(driver, caller)
        await asyncio.sleep(0.001)
        return driver

    @staticmethod
    def attach(driver: SessionDriver, caller: Caller, **more: Any) -> None:
        driver.attach(caller, i.Attach(caller.conn, caller.role, **more))

    @property
    def link(self) -> ScriptedLink:
        return self.links.links[-1]

    def asked(self) -> list[str]:
        """What the newest link was asked for, without the conversation's upkeep."""
        return [call.method for call in self.link.calls if call.method not in ("open", "playing", "update")]


@asynccontextmanager
async def house(**options: Any) -> AsyncIterator[House]:
    """A started gateway; closed at the end, as a process would."""
    made = House(**options)
    await made.log.open()
    await made.gateway.start()
    try:
        yield made
    finally:
        if made.log._is_open:
            made.log.commit()
        await made.gateway.close()


def typed(text: str, name: str = "item_typed", conn: str = "conn_1") -> i.CreateItem:
    item = Item(ItemId(name), "message", "user", "user", content=(Part("input_text", text),))
    return i.CreateItem(item, conn=ConnectionId(conn))


def ask(driver: SessionDriver, text: str, conn: str = "conn_1") -> None:
    """A typed turn: the item and the wish for a reply."""
    count = len(driver.session.state.entries)
    driver.offer(typed(text, f"item_typed_{count}", conn))
    driver.offer(i.CreateResponse(ResponseRequest(), conn=ConnectionId(conn)))


async def speak(driver: SessionDriver, text: str, ms: int = 500, pause_ms: int = 700) -> None:
    """Say ``text`` in real (virtual) time, then be silent."""
    audio = scripted_speech(text, ms) + scripted_silence(pause_ms)
    for start in range(0, len(audio), 960):
        driver.append_audio(audio[start : start + 960])
        await asyncio.sleep(0.02)


def facts_of(log: MemoryLog, session: SessionId) -> list[str]:
    """The types of a session's durable facts, in order."""
    found = log._sessions.get(session)
    return [name for record in (found.steps if found else []) for name in record.types]
