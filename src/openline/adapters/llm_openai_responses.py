"""Responses over WebSocket: few persistent sockets for all sessions, and only what is new on each turn.

A **lane** is one ordered stream of responses on a socket: the unnamed one, or with ``lanes_per_socket``
over 1 the named ones of the server (``stream_id``). One response is in flight on a lane. A session's chain
(its last response) lives on the lane that made it; it goes on there, or anywhere if the provider stores.
Where that cannot be, or what the session remembers differs from what the provider holds (a reply was cut
to what was heard), the whole context is sent once and a new chain begins.

A lost socket is opened again for the request that meets it, once, and only if nothing was said yet. The
cap on a connection's life is met before it strikes: an old socket takes no new response and is closed when
its last one ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from openline.adapters.llm_openai import Endpoint, asked_of, error_of, event_of
from openline.adapters.llm_openai_responses_sockets import Again, Lane, Pool, SocketPlan, Statistics
from openline.errors import LinkError, LinkUnavailable
from openline.ports import ModelDone, ModelEvent, ModelRequest
from openline.types import SessionId
from openline.wire import responses_client as wire
from openline.wire.items import JsonObject

log = logging.getLogger(__name__)

SESSIONS_MAX = 10_000
"""Chains that are remembered; a session that was forgotten sends its context once."""
THOUGHTS_MAX = 64
"""Calls of a session whose reasoning is kept for a context that must be sent whole."""
TRIES = 3
"""One, one more on a fresh socket, and one with the whole context."""


@dataclass(slots=True)
class _Memory:
    """What is known of one session: the provider's chain, and thoughts to give back with a whole context."""

    chain: wire.Chain | None = None
    reasoning: dict[str, list[JsonObject]] = field(default_factory=dict)


@dataclass(slots=True)
class _Turn:
    """One generation while it runs: what goes out, and what has come. ``reasons``: with the reasoning that the
    conversation has, until the provider says that it cannot read it."""

    request: ModelRequest
    known: list[JsonObject]
    memory: _Memory
    reader: wire.Reader = field(default_factory=wire.Reader)
    warms: bool = False
    reasons: bool = True

    def sent(self, entries: Sequence[JsonObject]) -> list[JsonObject]:
        return wire.readable(entries) if self.reasons else wire.without_reasoning(entries)


class ResponsesModel:
    """Port ``LanguageModel`` over Responses WebSocket mode. Loop-bound; shared by all sessions of a node."""

    name = "responses-ws"

    def __init__(self, endpoint: Endpoint, plan: SocketPlan | None = None) -> None:
        self._endpoint = endpoint
        self._plan = plan or SocketPlan()
        self._pool: Pool | None = None
        self._sessions: OrderedDict[SessionId, _Memory] = OrderedDict()

    @property
    def statistics(self) -> Statistics:
        return self._pool.statistics if self._pool is not None else Statistics()

    async def start(self) -> None:
        """Nothing is opened yet: the first request does, and says what is wrong."""
        self._pool = Pool(self._endpoint, self._plan)

    async def close(self) -> None:
        """Close every socket; running generations fail with LinkUnavailable. Idempotent."""
        if self._pool is not None:
            self._pool.close()

    async def warm_up(self, request: ModelRequest) -> None:
        """Let the provider prepare ``request``'s context without an answer (``generate: false``).

        The next request of the session then sends only what is new. Raises LinkError.
        """
        async with aclosing(self._tries(request, warms=True)) as events:
            async for _ in events:
                pass

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Stream one reply. Raises LinkRejected, LinkUnavailable.

        ``aclose`` sends ``response.cancel`` and frees the caller at once; the lane is free again when the
        provider has stopped, and its socket is dropped if it does not within ``drain_s``.
        """
        async with aclosing(self._tries(request, warms=False)) as events:
            async for event in events:
                yield event

    async def _tries(self, request: ModelRequest, *, warms: bool) -> AsyncGenerator[ModelEvent, None]:
        pool = self._pool
        if pool is None:
            raise LinkUnavailable(f"{self._endpoint.label}: the model was not started.")
        turn = _Turn(
            request, wire.entries(request.items, reasoning=True), self._memory(request.session), warms=warms
        )
        for attempt in range(1, TRIES + 1):
            turn.reader = wire.Reader()
            try:
                async with aclosing(self._one(pool, turn)) as events:
                    async for event in events:
                        yield event
                return
            except Again as again:
                if turn.reader.has_output or attempt == TRIES:
                    raise again.error from None
                pool.statistics.retried += 1
                log.info("%s: asked again after %s", self._endpoint.label, again.error.code)

    def _memory(self, session: SessionId) -> _Memory:
        memory = self._sessions.setdefault(session, _Memory())
        self._sessions.move_to_end(session)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return memory

    async def _one(self, pool: Pool, turn: _Turn) -> AsyncGenerator[ModelEvent, None]:
        """One try on one lane. The chain is forgotten until this response is known to be whole."""
        chain = turn.memory.chain
        lane = await pool.take(chain.response_id if chain else "")
        turn.memory.chain = None
        events = lane.events = asyncio.Queue[JsonObject | LinkError]()
        is_whole = False
        try:
            lane.connection.send(self._request(lane, turn, chain))
            async with aclosing(self._read(turn, events)) as pieces:
                async for event in pieces:
                    is_whole = isinstance(event, ModelDone)
                    if is_whole:
                        self._remember(lane, turn)
                        pool.freed(lane)
                    if not turn.warms:
                        yield event
        except _Refused as refusal:
            is_whole = True  # The provider is done with it: an error frame is an end.
            self._settle_refusal(pool, lane, refusal.failed, chain)
            raise self._verdict(refusal.failed, chain, turn) from None
        finally:
            if not is_whole:
                # A store keeps the chain whatever becomes of this try; else it is gone with its lane.
                turn.memory.chain = chain if self._plan.store else None
                pool.abandon(lane, turn.reader.response_id)

    def _request(self, lane: Lane, turn: _Turn, chain: wire.Chain | None) -> bytes:
        pool = self._pool
        assert pool is not None
        asked = asked_of(
            turn.request,
            self._endpoint,
            store=self._plan.store,
            reasoning=self._plan.encrypted_reasoning,
        )
        new = None
        if chain is not None and (self._plan.store or lane.newest == chain.response_id):
            new = wire.continuation(chain, turn.known)
        more: JsonObject = {"type": "response.create"}
        if lane.name:
            more["stream_id"] = lane.name
        if turn.warms:
            more["generate"] = False
        pending = wire.pending_outputs(turn.known)
        if chain is not None and new is not None:
            body = wire.body(asked, [*turn.sent(new), *pending], chain.response_id, more)
            pool.statistics.continued += 1
        else:
            whole = wire.with_reasoning(turn.known, turn.memory.reasoning)
            body = wire.body(asked, [*turn.sent(whole), *pending], None, more)
            pool.statistics.whole += 1
        lane.newest = ""
        payload = wire.encode(body)
        pool.statistics.responses += 1
        pool.statistics.sent_bytes += len(payload)
        return payload

    async def _read(
        self, turn: _Turn, events: asyncio.Queue[JsonObject | LinkError]
    ) -> AsyncGenerator[ModelEvent, None]:
        while not turn.reader.is_over:
            limit_s = self._plan.think_s if turn.reader.is_thinking else self._plan.stall_s
            try:
                async with asyncio.timeout(limit_s):
                    event = await events.get()
            except TimeoutError:
                message = f"{self._endpoint.label} was silent for {limit_s:g} s in a response."
                raise LinkUnavailable(message) from None
            if isinstance(event, LinkError):
                raise Again(event)
            for piece in turn.reader.feed(event):
                if isinstance(piece, wire.Failed):
                    raise _Refused(piece)
                yield event_of(piece)

    def _remember(self, lane: Lane, turn: _Turn) -> None:
        reader = turn.reader
        if self._pool is not None:
            self._pool.statistics.strays += reader.strays
        turn.memory.reasoning.update(reader.reasoning)
        while len(turn.memory.reasoning) > THOUGHTS_MAX:
            turn.memory.reasoning.pop(next(iter(turn.memory.reasoning)))
        is_cut = reader.reason != "completed"
        if is_cut or not reader.response_id or wire.pending_outputs(turn.known):
            return  # Cut: we cannot say what it holds. Pending: the real result could not follow its stand-in.
        lane.newest = reader.response_id
        turn.memory.chain = wire.chain_of(reader.response_id, [*turn.known, *reader.outputs])

    def _settle_refusal(self, pool: Pool, lane: Lane, failed: wire.Failed, chain: wire.Chain | None) -> None:
        if failed.code == wire.LIMIT_REACHED:
            lane.connection.is_retiring = True
        if failed.code == wire.NOT_FOUND:
            pool.statistics.not_found += 1
        pool.freed(lane)

    def _verdict(self, failed: wire.Failed, chain: wire.Chain | None, turn: _Turn) -> Exception:
        error = error_of(failed, self._endpoint)
        if failed.code == wire.UNREADABLE and turn.reasons:
            turn.reasons = False
            turn.memory.reasoning.clear()
            return Again(error)
        if failed.code == wire.LIMIT_REACHED or (failed.code == wire.NOT_FOUND and chain is not None):
            return Again(error)
        return error


class _Refused(Exception):
    def __init__(self, failed: wire.Failed) -> None:
        super().__init__(failed.code)
        self.failed = failed
