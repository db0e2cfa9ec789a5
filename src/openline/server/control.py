"""The control API's side of the gateway: ``GatewayPort`` over sessions, store and recordings."""

from __future__ import annotations

import asyncio
import os
import secrets as chance
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import Item, ResponseRequest
from openline.core.state import State
from openline.errors import ClientProtocolError, LogError, OpenlineError, SessionEnded, SessionNotFound
from openline.ports import SessionLog, SessionRow, StepRecord
from openline.runtime.gateway import Gateway
from openline.server.auth import AuthPolicy
from openline.server.gateway_port import FeedLine, Readiness, RecordingSource
from openline.server.metrics import Metric, Sample, value_of
from openline.server.realtime import token_hash
from openline.server.secrets import StoredSecret, find_secret
from openline.types import Seq, SessionId
from openline.wire.envelope import decode_facts, encode_fact_json, fact_type
from openline.wire.items import item_object
from openline.wire.session_config import session_object, to_config

BATCH = 500


class WavSource(Protocol):
    async def wav(self, session: SessionId) -> Path | None: ...


class ControlApi:
    """Implements ``GatewayPort``. ``recordings`` None: recording is off."""

    def __init__(
        self, gateway: Gateway, auth: AuthPolicy, version: str, recordings: WavSource | None
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._version = version
        self._recordings = recordings
        self._started = time.monotonic()

    @property
    def version(self) -> str:
        return self._version

    @property
    def auth(self) -> AuthPolicy:
        return self._auth

    @property
    def values(self) -> SessionLog:
        return self._gateway.store

    def now_ms(self) -> int:
        return self._gateway.clock.now().wall_ms

    def random_bytes(self, count: int) -> bytes:
        return chance.token_bytes(count)

    def readiness(self) -> Readiness:
        reasons: list[str] = []
        if self._gateway.is_draining:
            reasons.append("The gateway is shutting down.")
        if self._gateway.store.is_saturated:
            reasons.append("The log is saturated: commands wait for the disk.")
        if self._gateway.is_disk_full:
            reasons.append("The disk is full: recording has stopped and new sessions are refused.")
        return Readiness(not reasons, tuple(reasons))

    def metrics(self) -> Sequence[Metric]:
        counts = self._gateway.statistics()
        log = self._gateway.store.statistics()
        rows = [
            value_of("openline_uptime_seconds", "gauge", "Since start.", time.monotonic() - self._started),
            value_of("openline_connections", "gauge", "Attached clients.", counts["connections"]),
            value_of("openline_sessions_opened_total", "counter", "New sessions.", counts["opened"]),
            value_of("openline_log_steps_total", "counter", "Steps appended.", log.appended_steps),
            value_of("openline_log_facts_total", "counter", "Facts appended.", log.appended_facts),
            value_of("openline_log_commits_total", "counter", "Group commits.", log.commits),
            value_of("openline_log_refused_total", "counter", "Appends refused.", log.refused),
            value_of("openline_log_queue_items", "gauge", "Steps not yet durable.", log.queue_items),
            value_of("openline_log_queue_items_max", "gauge", "Highest so far.", log.queue_items_max),
            value_of("openline_log_commit_ms_max", "gauge", "Slowest commit, ms.", log.commit_ms_max),
        ]
        for status in ("live", "detached", "parked"):
            rows.append(
                value_of(
                    f"openline_sessions_{status}",
                    "gauge",
                    f"Sessions in memory that are {status}.",
                    counts[status],
                )
            )
        shares = (0.5, 0.99, 1.0)
        lags = zip(shares, self._gateway.lag.quantiles(*shares), strict=True)
        samples = tuple(Sample(lag, (("quantile", str(share)),)) for share, lag in lags)
        rows.append(
            Metric("openline_loop_lag_ms", "gauge", "How late the loop ran, last minute, ms.", samples)
        )
        return rows

    # -- credentials

    async def client_secret(self, secret: str) -> StoredSecret | None:
        return await find_secret(self._gateway.store, secret, self.now_ms())

    async def resume_tenant(self, session_id: str, token: str) -> str | None:
        """Checked against the log without taking the session over: an unknown caller may cost no more than a read."""
        try:
            state = await self._state(None, SessionId(session_id))
        except (SessionNotFound, LogError):
            return None
        return state.tenant if token_hash(token) in state.tokens else None

    def realtime_session(self, session: bytes) -> bytes:
        patch: dict[str, object] = {"type": "realtime"}
        if session.strip():
            patch |= msgspec.json.decode(session, type=dict[str, object])
        config = to_config(self._gateway.agent.config, patch, may_retype=True)
        return session_object(config, self._gateway.new_session_id())

    # -- sessions

    async def sessions(
        self, tenant: str, *, status: str | None, limit: int, before: str
    ) -> Sequence[SessionRow]:
        return await self._gateway.store.sessions(tenant=tenant, status=status, limit=limit, before=before)

    async def _state(self, tenant: str | None, session: SessionId) -> State:
        """The state of a session, running or stored; nothing is taken over."""
        driver = self._gateway.drivers.get(session)
        if driver is not None:
            state = driver.session.state
        else:
            state = (await self._gateway.stored(session))[0].state
        if tenant is not None and state.tenant != tenant:
            raise SessionNotFound(f"No session '{session}'.")
        return state

    async def session(self, tenant: str, session: SessionId) -> bytes:
        state = await self._state(tenant, session)
        row = await self._gateway.store.session(session)
        return msgspec.json.encode(describe(state, row))

    async def transcript(self, tenant: str, session: SessionId) -> bytes:
        state = await self._state(tenant, session)
        items = [transcript_line(state, item) for item in state.conversation()]
        return msgspec.json.encode({"id": session, "status": state.status, "items": items})

    async def end_session(self, tenant: str, session: SessionId, reason: str) -> bytes:
        driver = await self._gateway.load(session, tenant=tenant)
        if driver.session.state.status == "ended":
            raise SessionEnded(f"Session '{session}' has already ended.")
        driver.offer(i.EndSession(reason or "api", cuts=driver.playout.cuts()))
        await self._gateway.store.flush()
        return await self.session(tenant, session)

    async def delete_session(self, tenant: str, session: SessionId) -> None:
        await self._gateway.delete(session, tenant=tenant)

    async def say(self, tenant: str, session: SessionId, text: str, *, interrupt: bool) -> bytes:
        driver = await self._gateway.load(session, tenant=tenant)
        if interrupt and driver.session.state.active is not None:
            driver.offer(i.CancelResponse(None, driver.playout.cuts()))
        step = driver.offer(i.CreateResponse(ResponseRequest(verbatim=text, origin="agent")))
        if step is None or step.is_rejected:
            raise ClientProtocolError("Too many replies are waiting already.", code="rate_limit_exceeded")
        await self._gateway.store.flush()
        held = any(isinstance(fact, f.ResponseHeld) for fact in step.facts)
        return msgspec.json.encode({"id": session, "accepted": True, "held": held, "seq": step.last_seq})

    # -- facts

    async def facts(
        self, tenant: str, session: SessionId, *, after: Seq, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        row = await self._gateway.store.session(session)
        if row.tenant != tenant:
            raise SessionNotFound(f"No session '{session}'.")
        return self._session_lines(session, after, follow)

    async def _session_lines(
        self, session: SessionId, after: Seq, follow: bool
    ) -> AsyncGenerator[Sequence[FeedLine], None]:
        store, bell = self._gateway.store, asyncio.Event()
        stop = store.on_feed(bell.set)
        try:
            while True:
                bell.clear()
                records = await store.read(session, after=after, limit=BATCH)
                for record in records:
                    lines = [line for line in self._lines(record, "") if int(line.cursor) > after]
                    after = record.last_seq
                    if lines:
                        yield lines
                    if follow and f.SessionEnded.TYPE in record.types:
                        return
                if not records:
                    if not follow:
                        return
                    await bell.wait()
        except SessionNotFound:
            return  # Deleted while it was followed.
        finally:
            stop()

    async def feed(
        self, tenant: str, *, after: str, types: Sequence[str], session: SessionId | None, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        if after == "now":
            after = await self._gateway.store.feed_end()
        try:
            await self._gateway.store.feed(after=after, limit=1, tenant=tenant)
        except LogError:
            raise
        except (ValueError, OpenlineError) as error:
            message = "Expected 'after' to be a cursor of this feed."
            raise ClientProtocolError(message, code="invalid_cursor", param="after") from error
        return self._feed_lines(tenant, after, types, session, follow)

    async def _feed_lines(
        self, tenant: str, after: str, types: Sequence[str], session: SessionId | None, follow: bool
    ) -> AsyncGenerator[Sequence[FeedLine], None]:
        store, bell = self._gateway.store, asyncio.Event()
        stop = store.on_feed(bell.set)
        try:
            while True:
                bell.clear()
                entries = await store.feed(
                    after=after, limit=BATCH, types=types, session=session, tenant=tenant
                )
                for entry in entries:
                    lines = self._lines(entry.record, entry.cursor, before=after)
                    after = entry.cursor
                    yield [line for line in lines if _matches(line.type, types)]
                if not entries:
                    if not follow:
                        return
                    await bell.wait()
        finally:
            stop()

    def _lines(self, record: StepRecord, cursor: str, before: str = "") -> list[FeedLine]:
        """The facts of a step. A reader that stops within a step gets the step again (``before``): at least once."""
        facts = decode_facts(record.body)
        lines: list[FeedLine] = []
        for offset, fact in enumerate(facts):
            seq = Seq(record.first_seq + offset)
            body = encode_fact_json(
                fact,
                seq=seq,
                epoch=record.epoch,
                session=record.session,
                at_ms=record.at_ms,
                node=self._gateway.settings.node,
                causation=f"{record.session}/{record.first_seq}" if offset else "",
            )
            own = str(seq) if not cursor else (cursor if offset == len(facts) - 1 else before)
            lines.append(FeedLine(own, fact_type(fact), body))
        return lines

    # -- recordings

    async def recording(self, tenant: str, session: SessionId) -> RecordingSource | None:
        row = await self._gateway.store.session(session)
        if row.tenant != tenant:
            raise SessionNotFound(f"No session '{session}'.")
        path = await self._recordings.wav(session) if self._recordings is not None else None
        return FileSource(path) if path is not None else None


class FileSource:
    """A temporary file that is removed when it is closed (``RecordingSource``)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        stat = os.fstat(self._file.fileno())
        self._size = stat.st_size

    @property
    def size(self) -> int:
        return self._size

    @property
    def etag(self) -> str:
        return f"{self._size:x}"

    async def read(self, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(os.pread, self._file.fileno(), length, offset)

    async def close(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _matches(kind: str, types: Sequence[str]) -> bool:
    return not types or any(kind == t or (t.endswith("*") and kind.startswith(t[:-1])) for t in types)


def describe(state: State, row: SessionRow) -> dict[str, object]:
    """A session as the API shows it: what it is doing, without what was said."""
    active = state.active
    return {
        "id": state.session,
        "status": state.status,
        "tenant": state.tenant,
        "epoch": state.epoch,
        "node": state.node,
        "last_seq": row.last_seq,
        "created_ms": state.created_ms,
        "updated_ms": row.updated_ms,
        "parked_until_ms": state.parked_until_ms or None,
        "turns": state.turns,
        "items": len(state.entries),
        "connections": [
            {"id": c.conn, "role": c.role, "opted_in": c.opted_in} for c in state.connections.values()
        ],
        "link": {"epoch": state.link.epoch, "phase": state.link.phase},
        "open_turn": state.turn.turn_id if state.turn else None,
        "active_response": active.response_id if active else None,
        "held_responses": len(state.held),
        "tools": [
            {"call_id": c.call_id, "name": c.name, "runner": c.runner, "phase": c.phase, "attempt": c.attempt}
            for c in state.tools.values()
        ],
        "model": state.config.model,
        "modality": state.config.modality,
        "recorded": state.is_recorded,
        "forked_from": None if state.origin is None else {"session": state.origin[0], "seq": state.origin[1]},
    }


def transcript_line(state: State, item: Item) -> dict[str, object]:
    """An item as it was heard, with its author and how that is known."""
    entry = state.entries.get(item.id)  # None: inherited by a fork; how it was heard is in its own log.
    line: dict[str, object] = {"author": item.author, **item_object(item)}
    audio = item.content[0].audio if item.content else None
    if audio is not None:
        line["audio_start_ms"], line["audio_end_ms"] = audio.start_ms, audio.end_ms
    if entry is not None and entry.source:
        line["heard"] = {"audio_end_ms": entry.heard_ms, "of_ms": entry.audio_ms, "source": entry.source}
    return line
