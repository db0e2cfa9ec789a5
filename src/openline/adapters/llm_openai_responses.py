"""Responses over WebSocket: few persistent sockets for all sessions, and only what is new on each turn.

A **lane** is one ordered stream of responses on a socket: the unnamed one, or with ``lanes_per_socket``
over 1 the named ones of the server (``stream_id``). One response is in flight on a lane. A session's chain
(its last response) lives on the lane that made it; it goes on there, or anywhere if the provider stores.
Where that cannot be, or what the session remembers differs from what the provider holds (a reply was cut
to what was heard), the whole context is sent once and a new chain begins.

A lost socket is opened again for the request that meets it, once, and only if nothing was said yet. The
cap on a connection's life is met before it strikes: an old socket takes no new response and is closed when
its last one ends.

A running response can be **steered**, where the server does that. It then begins the next response by itself; the
session's next request has the same input, so it takes that response over instead of asking. Whatever goes wrong on
the way (the input comes back, the socket is lost, the request is another one), the next request sends its input
itself, and what the server may still make of the first copy is stopped or was on a socket that is gone.
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
from openline.core.model import Item
from openline.core.value import replace
from openline.errors import LinkError, LinkUnavailable
from openline.ports import NOT_OFFERED, ModelDone, ModelEvent, ModelRequest, SteerAnswer
from openline.types import ResponseId, SessionId
from openline.wire import responses_client as wire
from openline.wire import responses_steer as steers
from openline.wire.items import JsonObject

log = logging.getLogger(__name__)

SESSIONS_MAX = 10_000
"""Chains that are remembered; a session that was forgotten sends its context once."""
THOUGHTS_MAX = 64
"""Calls of a session whose reasoning is kept for a context that must be sent whole."""
TRIES = 3
"""One, one more on a fresh socket, and one with the whole context."""
MODELS_MAX = 1_000
"""Models that are remembered as not to be steered; one beyond is asked again, and says so again."""


@dataclass(frozen=True, slots=True)
class _Follow:
    """A response that was steered and is over. ``asked``: with what it was asked, the context aside; the provider
    makes what follows with the same."""

    lane: Lane
    steering: steers.Steering
    asked: ModelRequest


@dataclass(slots=True)
class _Memory:
    """What is known of one session: the provider's chain, and thoughts to give back with a whole context.

    ``follow``: what may come behind the chain's last response. ``queued``: input of ours that the provider has, and
    will put in front of what goes on from there.
    """

    chain: wire.Chain | None = None
    reasoning: dict[str, list[JsonObject]] = field(default_factory=dict)
    follow: _Follow | None = None
    queued: steers.Steering | None = None


@dataclass(slots=True)
class _Turn:
    """One generation while it runs: what goes out, and what has come. ``reasons``: with the reasoning that the
    conversation has, until the provider says that it cannot read it. ``news`` is set when it has a name, or ends."""

    request: ModelRequest
    known: list[JsonObject]
    memory: _Memory
    reader: wire.Reader = field(default_factory=wire.Reader)
    warms: bool = False
    reasons: bool = True
    lane: Lane | None = None
    steering: steers.Steering | None = None
    is_over: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def may_end_here(self) -> bool:
        """It is steered, and was lost: what was said stands, and what steers it goes on from there."""
        return self.steering is not None and self.steering.is_waiting and not self.reader.has_calls

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
        self._turns: dict[tuple[SessionId, ResponseId], _Turn] = {}
        self._unsteerable: set[str] = set()

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
        key = request.session, request.response_id
        self._turns[key] = turn
        try:
            for attempt in range(1, TRIES + 1):
                turn.reader, turn.steering = wire.Reader(), None
                try:
                    async with aclosing(self._one(pool, turn)) as events:
                        async for event in events:
                            yield event
                    return
                except Again as again:
                    if turn.may_end_here:
                        yield ModelDone(reason="steered")
                        return
                    if turn.reader.has_output or attempt == TRIES:
                        raise again.error from None
                    pool.statistics.retried += 1
                    log.info("%s: asked again after %s", self._endpoint.label, again.error.code)
        finally:
            turn.is_over = True
            turn.news.set()
            if self._turns.get(key) is turn:
                del self._turns[key]

    def _memory(self, session: SessionId) -> _Memory:
        memory = self._sessions.setdefault(session, _Memory())
        self._sessions.move_to_end(session)
        if len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return memory

    async def _one(self, pool: Pool, turn: _Turn) -> AsyncGenerator[ModelEvent, None]:
        """One try on one lane. The chain is forgotten until this response is known to be whole."""
        chain = turn.memory.chain
        followed = await self._taken_over(pool, turn)
        lane = followed or await pool.take(chain.response_id if chain else "")
        turn.memory.chain, turn.lane = None, lane
        events = lane.events = (followed and followed.events) or asyncio.Queue[JsonObject | LinkError]()
        is_whole = False
        try:
            if followed is None:
                lane.connection.send(self._request(lane, turn, chain))
            async with aclosing(self._read(turn, events)) as pieces:
                async for event in pieces:
                    is_whole = isinstance(event, ModelDone)
                    if is_whole:
                        self._remember(lane, turn)
                        self._leave(pool, lane, turn)
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

    def _leave(self, pool: Pool, lane: Lane, turn: _Turn) -> None:
        """The response is whole. What steered it may go on there: the session's next request looks after that."""
        steering = lane.steering
        if steering is None or not steering.is_waiting:
            pool.freed(lane)
            return
        steering.is_over = True
        turn.memory.follow = _Follow(lane, steering, _settings(turn.request))
        pool.follow(lane)
        pool.decided(lane)

    async def _taken_over(self, pool: Pool, turn: _Turn) -> Lane | None:
        """The lane where the provider makes what this request asks for already. None: it is to be asked."""
        follow, turn.memory.follow = turn.memory.follow, None
        if follow is None:
            return None
        lane, steering = follow.lane, follow.steering
        if (
            lane.follow is not None
        ):  # Its timer ends this wait, and stops what follows if we are cancelled in it.
            await lane.until(lambda: not steering.is_open, self._plan.answer_s)
        if lane.follow is not None and self._is_same(follow, turn):
            lane.stop_timers()
            lane.steering = None
            pool.statistics.followed += 1
            return lane
        if lane.follow is not None:
            pool.leave(lane)
        if steering.fate == "queued":
            turn.memory.queued = steering
        return None

    def _is_same(self, follow: _Follow, turn: _Turn) -> bool:
        """The provider's successor has the context that is asked for, and is made as it is asked to be."""
        new = wire.continuation(turn.memory.chain, turn.known) or []
        return (
            follow.steering.fate == "begun"
            and not turn.warms
            and follow.asked == _settings(turn.request)
            and wire.without_reasoning(new) == follow.steering.applied
        )

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
            new = self._unsent(lane, turn, wire.continuation(chain, turn.known))
        lane.queued = turn.memory.queued = None
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

    def _unsent(self, lane: Lane, turn: _Turn, new: list[JsonObject] | None) -> list[JsonObject] | None:
        """``new`` without the input that the provider has from a steer and puts in front of it by itself."""
        queued = turn.memory.queued
        if new is None or queued is None or queued.fate == "none":
            return new
        if lane.queued is not queued:
            return None  # It would go where the provider has it too; a new chain does not.
        return steers.without(new, queued.entries("queued")) or None

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
            pieces = turn.reader.feed(event)
            turn.news.set()
            for piece in pieces:
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
        is_cut = reader.reason not in ("completed", "steered")
        if is_cut or not reader.response_id or wire.pending_outputs(turn.known):
            return  # Cut: we cannot say what it holds. Pending: the real result could not follow its stand-in.
        lane.newest = reader.response_id
        turn.memory.chain = wire.chain_of(reader.response_id, [*turn.known, *reader.outputs])

    # -- steering

    async def steer(self, request: ModelRequest, items: tuple[Item, ...]) -> SteerAnswer:
        """Port ``SteerableModel``. Once a model was refused for good (``steering_not_supported``, or a server that
        knows no such event, or answers nothing within ``answer_s``) this node never asks for it again."""
        model = self._endpoint.model or request.model
        turn = self._turns.get((request.session, request.response_id))
        if model in self._unsteerable:
            return NOT_OFFERED
        lane = await self._begun(turn) if turn is not None else None
        if turn is None or lane is None:
            return SteerAnswer("refused", "response_not_active")
        if turn.steering is None:
            turn.steering = lane.steering = steers.Steering(turn.reader.response_id)
        entries = wire.entries(items)
        one = turn.steering.add(entries)
        lane.connection.send(wire.encode(steers.steer_event(turn.reader.response_id, entries)))
        is_answered = await lane.until(lambda: one.state != "sent", self._plan.answer_s)
        if is_answered and one.state != "refused":
            self.statistics.steered += 1
            return SteerAnswer("accepted")
        if is_answered and one.code not in (steers.NOT_SUPPORTED, steers.UNKNOWN_EVENT):
            return SteerAnswer("refused", one.code)
        if not is_answered and lane.connection.is_gone:
            return SteerAnswer("unknown")
        log.info("%s takes no input for a running response of %s", self._endpoint.label, model)
        if len(self._unsteerable) < MODELS_MAX:
            self._unsteerable.add(model)
        return NOT_OFFERED if is_answered else SteerAnswer("unknown")

    async def _begun(self, turn: _Turn) -> Lane | None:
        """The turn's lane once the provider has named its response; None when it is over."""
        while not turn.is_over and not (turn.lane is not None and turn.reader.response_id):
            turn.news.clear()
            await turn.news.wait()
        return None if turn.is_over or turn.reader.is_over else turn.lane

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


def _settings(request: ModelRequest) -> ModelRequest:
    """Everything of a request but which one it is and what was said so far."""
    return replace(request, response_id=ResponseId(""), items=())
