"""The gateway: all sessions of one node. Opens and finds them, keeps them owned, lets them go, drains.

Start order: the store is open, then ``start`` takes over what the last process left, then the port opens.
Stop order is the reverse: ``drain`` (no new sessions, running replies end), connections closed, log flushed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import Item, Limits, SessionConfig
from openline.core.session import Session, StoredStep, conversation_at, origin_of
from openline.errors import ClientProtocolError, LogConflict, LogCorrupt, LogUnavailable, SessionNotFound
from openline.ports import (
    Clock,
    CodecFactory,
    LinkFactory,
    Recorder,
    Segment,
    SessionLog,
    SpoolFile,
    StepCodec,
)
from openline.runtime.agentport import AgentPort
from openline.runtime.deliveries import Deliveries, handled_to
from openline.runtime.driver import SessionDriver
from openline.runtime.looplag import LoopLag
from openline.runtime.shelf import SWEEP_EVERY_S, Shelf
from openline.runtime.spool import SpoolDesk
from openline.types import Seq, SessionId, TurnId

log = logging.getLogger(__name__)

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
WAKEUP_EVERY_S = 5.0
PRUNE_EVERY_S = 600.0
READ_BATCH = 2_000
LINEAGE_MAX = 256
"""Forks of forks that are followed. Each reads a log; a client that branches deeper starts a new chain."""
FORKS = "forks"
"""Where the store keeps which sessions go on from one: while there are any, that one may not be deleted."""
DRAIN_POLL_S = 0.05
LET_GO_S = 5.0
"""How long a session that is to be deleted may still be written down, or run a tool."""


class Recordings(Protocol):
    """Where recordings are kept."""

    def recorder(self, session: SessionId, on_segment: Callable[[Segment], None]) -> Recorder: ...

    async def read(self, session: SessionId, track: str, start: int, end: int) -> bytes:
        """PCM16 24 kHz of [start, end), silence where nothing was recorded; b"" if there is no such track."""

    async def length(self, session: SessionId, track: str) -> int:
        """Samples from the track's start to the end of what is on disk."""

    async def forget(self, session: SessionId) -> None:
        """Remove a session's recording, if there is one."""

    async def prune(self, older_than_ms: int, max_bytes: int, keep: Collection[SessionId]) -> list[SessionId]:
        """Remove recordings last written before ``older_than_ms``, then the oldest beyond ``max_bytes``."""


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """``sessions_max``: live sessions of this node; one more is refused. ``drain_s``: what SIGTERM grants replies."""

    node: str = "node-1"
    sessions_max: int = 2_000
    drain_s: float = 20.0
    record_days: int = 7
    record_max_bytes: int = 10 * 1024**3
    limits: Limits = field(default_factory=Limits)


class Gateway:
    """Loop-bound. ``recordings`` None: recording is off. ``open_spool`` None: audio that waits, waits in memory,
    and so do old items of conversations.
    ``make_codec`` None: only for clients that speak PCM16."""

    def __init__(
        self,
        *,
        store: SessionLog,
        codec: StepCodec,
        clock: Clock,
        link_factory: LinkFactory,
        agent: AgentPort,
        settings: GatewaySettings,
        new_id: Callable[[], str],
        recordings: Recordings | None = None,
        open_spool: Callable[[], SpoolFile] | None = None,
        make_codec: CodecFactory | None = None,
    ) -> None:
        self.store = store
        self.codec = codec
        self.clock = clock
        self.agent = agent
        self.settings = settings
        self.recordings = recordings
        self.drivers: dict[SessionId, SessionDriver] = {}
        self.is_draining = False
        self.is_disk_full = False
        self._link_factory = link_factory
        self._new_id = new_id
        self._make_codec = make_codec
        self._desk: SpoolDesk | None = None
        self._shelf: Shelf | None = None
        self._spooler = ThreadPoolExecutor(1, thread_name_prefix="openline-spool")
        if open_spool is not None:
            loop = asyncio.get_running_loop()
            self._desk = SpoolDesk(open_spool, lambda work: loop.run_in_executor(self._spooler, work), loop)
            self._shelf = Shelf(open_spool, lambda work: loop.run_in_executor(self._spooler, work))
        self._opening: dict[SessionId, asyncio.Task[SessionDriver]] = {}
        self._deliveries: dict[SessionId, Deliveries] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._forking = asyncio.Lock()
        self.opened = 0
        self.lag = LoopLag(clock.seconds)
        self.relieved: set[Callable[[], None]] = set()
        """Called when the log takes input again: connections that hold commands register here."""
        store.on_relief(self._on_relief)

    # -- life

    async def start(self) -> int:
        """Take over every session that the last process left unparked; the number of them."""
        self.lag.start()
        left: list[SessionId] = []
        for status in ("live", "detached", "created"):
            rows = await self.store.sessions(tenant=None, status=status, limit=100_000)
            left += [row.session for row in rows]
        for session in left:
            try:
                await self.load(session)
            except Exception as error:  # one damaged session must not keep the others from coming back
                log.exception("session %s could not be taken over: %s", session, type(error).__name__)
        self.spawn(self._wake())
        if self._shelf is not None:
            self.spawn(self._shelve(self._shelf))
        if self.recordings is not None:
            self.spawn(self._prune(self.recordings))
        return len(left)

    def _on_relief(self) -> None:
        for callback in list(self.relieved):
            callback()

    def disk_full(self, is_full: bool) -> None:
        """Recording stops first, new sessions are refused next; the log keeps what space there is."""
        self.is_disk_full = is_full
        for driver in self.drivers.values():
            if is_full and driver.recorder is not None:
                recorder, driver.recorder = driver.recorder, None
                self.spawn(recorder.close())
            elif not is_full:
                self._record_again(driver)

    def begin_drain(self) -> None:
        self.is_draining = True

    async def drain(self) -> None:
        """Wait until no reply that somebody listens to is running, at most ``drain_s``."""
        self.begin_drain()
        try:
            async with asyncio.timeout(self.settings.drain_s):
                while any(self._is_replying(driver) for driver in self.drivers.values()):  # noqa: ASYNC110 - once a life
                    await asyncio.sleep(DRAIN_POLL_S)
        except TimeoutError:
            log.warning("drain: replies were still running after %s s", self.settings.drain_s)

    @staticmethod
    def _is_replying(driver: SessionDriver) -> bool:
        """A reply whose listener is gone is held until somebody comes back: no drain can wait for that."""
        return bool(driver.session.state.responses) and driver.session.state.has_talker

    async def close(self) -> None:
        """Stop all sessions as they are (the log has them) and flush. Connections are closed by then."""
        self.lag.stop()
        for task in list(self._tasks):
            task.cancel()
        for driver in list(self.drivers.values()):
            recorder = driver.recorder
            driver.stop()
            if recorder is not None:
                await recorder.close()
        if self._desk is not None:
            await self._desk.close()
        self._spooler.shutdown(wait=False)
        await self.store.flush()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- sessions

    def new_session_id(self) -> SessionId:
        return SessionId(self._new_id())

    async def create(
        self,
        tenant: str,
        config: SessionConfig,
        session: SessionId | None = None,
        origin: tuple[SessionId, Seq] | None = None,
    ) -> SessionDriver:
        """A new session, owned here. Raises ClientProtocolError when this node is full or draining.

        ``origin``: a fork of that session as it was after that fact; nothing is copied. Raises
        SessionNotFound when it is not there or another tenant's.
        """
        self._admit()
        session = session or self.new_session_id()
        return await self._once(session, self._create(tenant, config, session, origin))

    async def _create(
        self, tenant: str, config: SessionConfig, session: SessionId, origin: tuple[SessionId, Seq] | None
    ) -> SessionDriver:
        blank = Session()
        blank.state.inherited = inherited = await self.conversation_at(origin, tenant)
        epoch, _ = await self.store.acquire(session, self.settings.node, tenant=tenant, create=True)
        if origin is not None:
            await self._note_fork(origin[0], session)
        limits, agent = self.settings.limits, self.agent
        parent, parent_seq = origin or (SessionId(""), Seq(0))
        driver = self._drive(blank, session, Seq(0))
        driver.offer(
            i.OpenSession(
                session,
                tenant,
                epoch,
                self.settings.node,
                config,
                limits,
                agent.prepares_replies,
                driver.recorder is not None,
                parent=parent,
                parent_seq=parent_seq,
                parent_item=inherited[-1].id if inherited else None,
            )
        )
        self.opened += 1
        return driver

    async def conversation_at(self, origin: tuple[SessionId, Seq] | None, tenant: str) -> tuple[Item, ...]:
        """The conversation of a session as it was after a fact, through as many forks as lead there; none at None.

        Raises SessionNotFound for a log that is gone or another tenant's, LogCorrupt for a circle.
        """
        lineage: list[tuple[list[StoredStep], Seq]] = []
        while origin is not None:
            session, seq = origin
            if len(lineage) == LINEAGE_MAX:
                raise LogCorrupt(f"session {session}: expected at most {LINEAGE_MAX} forks of forks.")
            if (await self.store.session(session)).tenant != tenant:
                raise SessionNotFound(f"No session '{session}'.")
            steps = await self.read_steps(session)
            lineage.append((steps, seq))
            origin = origin_of(steps)
        items: tuple[Item, ...] = ()
        for steps, seq in reversed(lineage):
            items = conversation_at(steps, seq, items)
        return items

    async def _note_fork(self, parent: SessionId, child: SessionId) -> None:
        """Before the fork's first fact: a crash between the two leaves a name too many, never one too few."""
        async with self._forking:
            known = await self.store.get_value(FORKS, parent)
            children = known.decode().split(" ") if known else []
            await self.store.put_value(FORKS, parent, " ".join((*children, child)).encode())

    async def delete(self, session: SessionId, *, tenant: str) -> None:
        """Forget a session that nobody is connected to: its recording, its log and its rows. A running one is ended.

        Raises SessionNotFound, and ClientProtocolError when somebody is connected or when a fork of it, whose
        conversation begins in its log, is still there: delete that first. After a crash in the middle it is there
        without its recording, and can be deleted again.
        """
        if (await self.store.session(session)).tenant != tenant:
            raise SessionNotFound(f"No session '{session}'.")
        async with self._forking:
            known = await self.store.get_value(FORKS, session)
            for child in known.decode().split(" ") if known else []:
                if await self._exists(SessionId(child)):
                    message = (
                        f"Session '{child}' is a fork of '{session}' and needs its log; delete it first."
                    )
                    raise ClientProtocolError(message, code="session_has_forks")
            await self._let_go(session)
            if self.recordings is not None:
                await self.recordings.forget(session)
            await self.store.delete_session(session)

    async def _let_go(self, session: SessionId) -> None:
        """Out of memory with a session that nobody uses. Raises ClientProtocolError when somebody does."""
        driver = self.drivers.get(session)
        if driver is None:
            return
        if not driver.clients:
            if driver.session.state.status not in ("parked", "ended"):
                driver.offer(i.EndSession("deleted", cuts=driver.playout.cuts()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LET_GO_S):
                    await self._evict(driver)
        if session in self.drivers:
            message = (
                f"Session '{session}' is in use: somebody is connected, or a tool of it runs. End it first."
            )
            raise ClientProtocolError(message, code="session_in_use")

    async def _exists(self, session: SessionId) -> bool:
        try:
            await self.store.session(session)
        except SessionNotFound:
            return False
        return True

    async def stored(self, session: SessionId) -> tuple[Session, list[StoredStep]]:
        """A session as its log has it, and that log; nothing is taken over. Raises SessionNotFound, LogCorrupt."""
        row = await self.store.session(session)
        steps = await self.read_steps(session)
        return Session.rebuild(steps, await self.conversation_at(origin_of(steps), row.tenant)), steps

    async def attach_or_create(
        self, tenant: str, session: SessionId, config: SessionConfig
    ) -> tuple[SessionDriver, bool]:
        """The session that a client named, made if it does not exist; whether it existed."""
        if SESSION_ID.fullmatch(session) is None:
            message = "Expected 'session_id' to match [A-Za-z0-9_-]{8,64}."
            raise ClientProtocolError(message, code="invalid_value", param="session_id")
        try:
            return await self.load(session, tenant=tenant), True
        except SessionNotFound:
            return await self.create(tenant, config, session), False

    async def load(self, session: SessionId, *, tenant: str | None = None) -> SessionDriver:
        """The running session, or the stored one taken over. Raises SessionNotFound, also for another tenant."""
        driver = self.drivers.get(session)
        if driver is None:
            driver = await self._once(session, self._load(session, tenant))
        if tenant is not None and driver.session.state.tenant != tenant:
            raise SessionNotFound(f"No session '{session}'.")
        return driver

    async def _once(self, session: SessionId, work: Coroutine[Any, Any, SessionDriver]) -> SessionDriver:
        """Two clients that open one session at one moment get the same driver."""
        running = self._opening.get(session)
        if running is not None:
            work.close()
            return await asyncio.shield(running)
        task = asyncio.get_running_loop().create_task(work)
        self._opening[session] = task
        task.add_done_callback(lambda _: self._opening.pop(session, None))
        return await asyncio.shield(task)

    async def _load(self, session: SessionId, tenant: str | None) -> SessionDriver:
        row = await self.store.session(session)
        if tenant is not None and row.tenant != tenant:
            raise SessionNotFound(f"No session '{session}'.")
        rebuilt, steps = await self.stored(session)
        epoch, last_seq = await self.store.acquire(session, self.settings.node, tenant=row.tenant)
        if rebuilt.state.seq != last_seq:
            raise LogConflict(f"session {session}: another owner wrote while it was being read; try again.")
        done_to = await handled_to(self.store, session)
        recorded = await self.recordings.length(session, "caller") if self.recordings else 0
        driver = self._drive(rebuilt, session, done_to)
        driver.offer(i.TakeOwnership(epoch, self.settings.node, recorded))
        deliveries = self._deliveries[session]
        seq = 1
        for step in steps:
            deliveries.facts(Seq(seq), tuple(step.facts))
            seq += len(step.facts)
        return driver

    async def read_steps(self, session: SessionId, after: Seq = Seq(0)) -> list[StoredStep]:
        """The whole log of a session, decoded. Raises SessionNotFound, LogCorrupt."""
        steps: list[StoredStep] = []
        while records := await self.store.read(session, after=after, limit=READ_BATCH):
            steps += [self.codec.decode(record.body) for record in records]
            after = records[-1].last_seq
        return steps

    def _drive(self, session: Session, session_id: SessionId, done_to: Seq) -> SessionDriver:
        driver = SessionDriver(
            session,
            log_store=self.store,
            codec=self.codec,
            clock=self.clock,
            link_factory=self._link_factory,
            host=self,
            recorder=None,
            desk=self._desk,
            make_codec=self._make_codec,
        )
        if self.recordings is not None and not self.is_disk_full:
            driver.recorder = self.recordings.recorder(session_id, lambda s: self._segment(driver, s))
        self.drivers[session_id] = driver
        self._deliveries[session_id] = Deliveries(self.agent, self.store, driver, done_to)
        self.store.subscribe(session_id, driver)
        return driver

    def _admit(self) -> None:
        if self.is_draining:
            message = "The gateway is shutting down; connect again in a moment."
            raise ClientProtocolError(message, code="server_draining", kind="server_error")
        if self.is_disk_full:
            message = "The disk is full: this gateway takes no new sessions until there is space."
            raise ClientProtocolError(message, code="server_is_overloaded", kind="server_error")
        opening = sum(session not in self.drivers for session in self._opening)
        if len(self.drivers) + opening >= self.settings.sessions_max:
            message = f"This gateway takes at most {self.settings.sessions_max} sessions; try again later."
            raise ClientProtocolError(message, code="server_is_overloaded", kind="server_error")

    @staticmethod
    def _segment(driver: SessionDriver, segment: Segment) -> None:
        driver.offer(
            i.SegmentRecorded(segment.track, segment.start, segment.samples, segment.file, segment.sha256)
        )

    # -- what drivers need

    def run_tool(self, driver: SessionDriver, effect: e.RunTool) -> None:
        session = driver.session.state.session
        deliveries = self._deliveries[session]
        self.spawn(deliveries.run_tool(effect, lambda outcome: self._settle(session, outcome)))

    def _settle(self, session: SessionId, outcome: i.ToolSettled) -> None:
        driver = self.drivers.get(session)
        if driver is not None:
            driver.offer(outcome)

    def prepare_reply(self, driver: SessionDriver, turn: TurnId) -> None:
        driver.spawn(self._deliveries[driver.session.state.session].prepare(turn))

    def facts_durable(self, driver: SessionDriver, first_seq: Seq, facts: tuple[f.Fact, ...]) -> None:
        deliveries = self._deliveries.get(driver.session.state.session)
        if deliveries is not None:
            deliveries.facts(first_seq, facts)
        if any(isinstance(fact, f.SessionParked | f.SessionEnded) for fact in facts):
            self.spawn(self._evict(driver))

    def retire(self, driver: SessionDriver, error: Exception | None) -> None:
        session = driver.session.state.session
        if self.drivers.get(session) is driver:
            del self.drivers[session]
            self.store.subscribe(session, None)
            deliveries = self._deliveries.pop(session, None)
            if deliveries is not None:
                deliveries.close()
        if driver.recorder is not None and error is not None:
            self.spawn(driver.recorder.close())

    async def read_recording(self, driver: SessionDriver, track: str, start: int, end: int) -> bytes:
        if self.recordings is None:
            return b""
        session = driver.session.state.session
        if driver.recorder is not None:
            await driver.recorder.flush()
        if await self.recordings.length(session, track) < end:
            return b""
        return await self.recordings.read(session, track, start, end)

    # -- letting go

    async def _evict(self, driver: SessionDriver) -> None:
        """A parked or ended session leaves memory once nothing of it runs here any more."""
        if driver.recorder is not None:
            recorder, driver.recorder = driver.recorder, None
            await recorder.close()
            await self.store.flush()
        while not self._may_evict(driver):
            if driver.is_stopped or driver.session.state.status not in ("parked", "ended"):
                self._record_again(driver)
                return
            await asyncio.sleep(1.0)
        driver.stop()

    def _record_again(self, driver: SessionDriver) -> None:
        """Somebody came back before the session had left."""
        if driver.recorder is None and self.recordings is not None and not driver.is_stopped:
            session = driver.session.state.session
            driver.recorder = self.recordings.recorder(session, lambda s: self._segment(driver, s))

    def _may_evict(self, driver: SessionDriver) -> bool:
        state = driver.session.state
        if driver.is_stopped or state.status not in ("parked", "ended") or driver.clients:
            return False
        if any(call.phase == "started" and call.runner == "gateway" for call in state.tools.values()):
            return False
        deliveries = self._deliveries.get(state.session)
        return driver.durable_seq >= state.seq and (deliveries is None or deliveries.is_idle)

    # -- deadlines that outlive processes

    async def _wake(self) -> None:
        while True:
            try:
                await self._wake_due()
            except LogUnavailable:
                log.warning("wake-ups: the store is not available")
            await asyncio.sleep(WAKEUP_EVERY_S)

    async def _wake_due(self) -> None:
        for session in await self.store.due_wakeups(self.clock.now().wall_ms):
            driver = await self.load(session)
            driver.offer(i.TimePassed())
            if driver.session.state.status in ("parked", "ended"):
                self.spawn(self._evict(driver))

    async def _shelve(self, shelf: Shelf) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            await shelf.sweep([driver.session.state.entries for driver in self.drivers.values()])

    async def _prune(self, recordings: Recordings) -> None:
        settings = self.settings
        while True:
            oldest = self.clock.now().wall_ms - settings.record_days * 24 * 3600 * 1000
            try:
                removed = await recordings.prune(oldest, settings.record_max_bytes, set(self.drivers))
            except OSError as error:
                log.warning("recordings could not be pruned: %s", error.strerror)
            else:
                if removed:
                    log.info("removed %d recording(s) past their retention", len(removed))
            await asyncio.sleep(PRUNE_EVERY_S)

    def connections(self) -> int:
        return sum(len(driver.clients) for driver in self.drivers.values())

    def statistics(self) -> dict[str, int]:
        """Sessions by status, connections, and sessions opened since the start."""
        counts = {"live": 0, "detached": 0, "parked": 0, "created": 0, "ended": 0}
        for driver in self.drivers.values():
            counts[driver.session.state.status] = counts.get(driver.session.state.status, 0) + 1
        counts["connections"] = self.connections()
        counts["opened"] = self.opened
        return counts
