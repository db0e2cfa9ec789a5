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
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from openline.adapters.llm_openai import THINK_S, Endpoint, asked_of, error_of, event_of, refused
from openline.errors import LinkError, LinkRejected, LinkUnavailable
from openline.ports import ModelDone, ModelEvent, ModelRequest
from openline.types import SessionId
from openline.wire import responses_client as wire
from openline.wire.items import JsonObject

log = logging.getLogger(__name__)

FRAME_MAX = 64 * 1024 * 1024
"""Bytes of one frame from the provider: a completed response repeats its whole output."""
EVENTS_MAX = 100_000
"""Events of one response that wait for their reader; more than any reply has."""
SESSIONS_MAX = 10_000
"""Chains that are remembered; a session that was forgotten sends its context once."""
THOUGHTS_MAX = 64
"""Calls of a session whose reasoning is kept for a context that must be sent whole."""
TRIES = 3
"""One, one more on a fresh socket, and one with the whole context."""


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """Seconds, unless it says otherwise.

    ``sockets_max``: most sockets of this node. ``lanes_per_socket``: 1 for servers without ``stream_id``;
    OpenAI runs 16 at once. ``rotate_s``: age at which a socket gets no new response (OpenAI cuts at 3,600).
    ``drain_s``: how long a cancelled response may still send before its socket is dropped; 0 drops at once.
    ``stall_s``: silence of the provider within a response that counts as a loss; ``think_s``: while it thinks.
    ``wait_s``: for a free lane.
    """

    sockets_max: int = 8
    lanes_per_socket: int = 1
    rotate_s: float = 55 * 60
    drain_s: float = 2.0
    stall_s: float = 60.0
    think_s: float = THINK_S
    open_s: float = 10.0
    wait_s: float = 30.0
    ping_s: float = 20.0
    store: bool = False
    encrypted_reasoning: bool = False


@dataclass(slots=True)
class Statistics:
    """Counters since start. ``sent_bytes``: of requests, without frame headers."""

    sockets_opened: int = 0
    responses: int = 0
    continued: int = 0
    whole: int = 0
    not_found: int = 0
    retried: int = 0
    dropped: int = 0
    sent_bytes: int = 0
    strays: int = 0


class _Lane:
    """One response at a time. ``newest``: the response whose state the provider has ready here."""

    def __init__(self, connection: _Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.newest = ""
        self.is_busy = False
        self.events: asyncio.Queue[JsonObject | LinkError] | None = None
        self.drain: asyncio.TimerHandle | None = None


class _Connection(WSListener):
    """One socket. Every frame goes to the lane that its ``stream_id`` names."""

    def __init__(self, pool: _Pool, lanes: int) -> None:
        self._pool = pool
        self._transport: WSTransport | None = None
        self._parts = bytearray()
        self._closed_with = 1006
        self.opened_at = asyncio.get_running_loop().time()
        self.is_gone = False
        self.is_retiring = False
        names = [""] if lanes == 1 else [f"lane-{number}" for number in range(lanes)]
        self.lanes = {name: _Lane(self, name) for name in names}

    @property
    def is_idle(self) -> bool:
        return not any(lane.is_busy for lane in self.lanes.values())

    def send(self, payload: bytes) -> None:
        if self._transport is not None and not self.is_gone:
            self._transport.send(WSMsgType.TEXT, payload)

    def cancel(self, lane: _Lane, response_id: str) -> None:
        more = {"stream_id": lane.name} if lane.name else {}
        self.send(wire.encode({"type": "response.cancel", "response_id": response_id, **more}))

    def close(self) -> None:
        self.is_gone = True
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    # -- picows' side

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self._closed_with = int.from_bytes(payload[:2], "big") or 1005
            transport.disconnect()
        elif kind is WSMsgType.TEXT and frame.fin:
            self._arrived(frame.get_payload_as_bytes())
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._parts += frame.get_payload_as_memoryview()
            if len(self._parts) > FRAME_MAX:
                self._lost("a message without end")
            elif frame.fin:
                payload, self._parts = bytes(self._parts), bytearray()
                self._arrived(payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._lost(f"closed with {self._closed_with}")

    # -- inside

    def _arrived(self, payload: bytes) -> None:
        try:
            event = wire.decode(payload)
        except ValueError:
            self._lost("it sent something that is no JSON object")
            return
        name = event.get("stream_id", "")
        lane = self.lanes.get(name) if isinstance(name, str) else None
        if lane is None:
            if event.get("type") == "error":  # Of the whole connection: everything on it is answered by it.
                for each in self.lanes.values():
                    self._deliver(each, event)
            else:
                self._pool.statistics.strays += 1
            return
        self._deliver(lane, event)

    def _deliver(self, lane: _Lane, event: JsonObject) -> None:
        if lane.events is not None:
            if lane.events.qsize() < EVENTS_MAX:
                lane.events.put_nowait(event)
            else:
                self._lost(f"more than {EVENTS_MAX} events of one response")
        elif lane.drain is not None:
            if event.get("type") == "response.created":  # It was cancelled before it had a name.
                response = event.get("response")
                self.cancel(lane, str(response.get("id", "")) if isinstance(response, dict) else "")
            elif event.get("type") in wire.TERMINAL:
                lane.drain.cancel()
                lane.drain = None
                self._pool.freed(lane)
        else:
            self._pool.statistics.strays += 1

    def _lost(self, why: str) -> None:
        if self.is_gone and self._transport is None:
            return
        self.is_gone = True
        error = LinkUnavailable(f"{self._pool.endpoint.label}: the socket was lost ({why}).")
        for lane in self.lanes.values():
            if lane.drain is not None:
                lane.drain.cancel()
                lane.drain = None
            if lane.events is not None:
                lane.events.put_nowait(error)
        transport, self._transport = self._transport, None
        if transport is not None and not transport.is_disconnected:
            transport.disconnect(graceful=False)
        self._pool.lost(self)


class _Pool:
    """The node's sockets. A lane is taken for one response and given back, or dropped with its socket."""

    def __init__(self, endpoint: Endpoint, plan: SocketPlan) -> None:
        self.endpoint = endpoint
        self.plan = plan
        self.statistics = Statistics()
        self._connections: list[_Connection] = []
        self._opening = 0
        self._news = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()
        self.is_closed = False

    async def take(self, newest: str) -> _Lane:
        """The lane that holds ``newest`` ready if it is free, else any free one, else a new socket's.

        Raises LinkRejected or LinkUnavailable. Cancellation leaves nothing taken.
        """
        try:
            async with asyncio.timeout(self.plan.wait_s):
                while not self.is_closed:
                    lane = self._free(newest)
                    if lane is None and len(self._connections) + self._opening < self.plan.sockets_max:
                        lane = next(iter((await self._open()).lanes.values()))
                        if lane.is_busy:
                            continue
                    if lane is not None:
                        lane.is_busy = True
                        return lane
                    async with self._news:
                        await self._news.wait()
        except TimeoutError:
            message = f"{self.endpoint.label}: no free lane within {self.plan.wait_s:g} s."
            raise LinkUnavailable(message, hint="Raise the number of sockets or lanes.") from None
        raise LinkUnavailable(f"{self.endpoint.label}: the model is closed.")

    def _free(self, newest: str) -> _Lane | None:
        self._retire_old()
        free = [
            lane
            for connection in self._connections
            if not connection.is_retiring
            for lane in connection.lanes.values()
            if not lane.is_busy
        ]
        # Its own lane first; then one that holds nobody's chain, so that no other session loses its own.
        return min(
            free, key=lambda lane: (not newest or lane.newest != newest, bool(lane.newest)), default=None
        )

    def _retire_old(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            if now - connection.opened_at >= self.plan.rotate_s:
                connection.is_retiring = True
            if connection.is_retiring and connection.is_idle:
                self._connections.remove(connection)
                connection.close()

    async def _open(self) -> _Connection:
        self._opening += 1
        secure = self.endpoint.at("responses", websocket=True)
        try:
            _, listener = await ws_connect(
                lambda: _Connection(self, self.plan.lanes_per_socket),
                secure,
                ssl_context=ssl.create_default_context() if secure.startswith("wss") else None,
                extra_headers=self.endpoint.headers(),
                websocket_handshake_timeout=self.plan.open_s,
                max_frame_size=FRAME_MAX,
                max_redirects=0,
                enable_auto_ping=True,
                auto_ping_idle_timeout=self.plan.ping_s,
                auto_ping_reply_timeout=self.plan.ping_s,
            )
        except WSHandshakeError as error:
            status = int(error.response.status) if error.response is not None else 0
            what = "Responses WebSocket mode"
            raise refused(status, self.endpoint, what, is_upgrade=True) from None
        except (OSError, TimeoutError) as error:
            raise _unreachable(self.endpoint, error) from None
        except (
            WSError,
            LookupError,
            ValueError,
        ):  # picows raises the plain ones where an answer is not even HTTP
            raise _stranger(self.endpoint) from None
        finally:
            self._opening -= 1
        if not isinstance(listener, _Connection):  # nor has it a listener when the line ends in the handshake
            raise _stranger(self.endpoint)
        self.statistics.sockets_opened += 1
        if not listener.is_gone:
            self._connections.append(listener)
        else:
            message = f"{self.endpoint.label}: accepted the socket and closed it at once."
            raise _Again(LinkUnavailable(message))
        return listener

    def freed(self, lane: _Lane) -> None:
        """Nothing of its last response comes any more."""
        lane.is_busy = False
        lane.events = None
        self._retire_old()
        self._wake()

    def abandon(self, lane: _Lane, response_id: str) -> None:
        """Its reader is gone in the middle: stop the provider, and free the lane when it has."""
        lane.events = None
        connection = lane.connection
        if connection.is_gone:
            return
        if self.plan.drain_s <= 0:
            self.drop(lane)
            return
        if response_id:
            connection.cancel(lane, response_id)
        loop = asyncio.get_running_loop()
        lane.drain = loop.call_later(self.plan.drain_s, self.drop, lane)

    def drop(self, lane: _Lane) -> None:
        """The provider would not stop: the socket goes, or only this lane when others are in use."""
        self.statistics.dropped += 1
        lane.drain = None
        connection = lane.connection
        connection.is_retiring = True
        others = [each for each in connection.lanes.values() if each is not lane and each.is_busy]
        if not others and connection in self._connections:
            self._connections.remove(connection)
            connection.close()
        else:
            lane.is_busy = False  # Its socket takes no new response, so nothing can be mistaken for one.
        self._wake()

    def lost(self, connection: _Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        self._wake()

    def _wake(self) -> None:
        async def wake() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.get_running_loop().create_task(wake())
        self._wakers.add(task)
        task.add_done_callback(self._wakers.discard)

    def close(self) -> None:
        self.is_closed = True
        for connection in list(self._connections):
            connection.close()
        self._connections.clear()
        self._wake()


def _stranger(endpoint: Endpoint) -> LinkError:
    return LinkUnavailable(
        f"{endpoint.label}: what answers is not HTTP, or hung up.",
        hint="Check llm_url and its port.",
        cause="not_http",
    )


def _unreachable(endpoint: Endpoint, error: OSError) -> LinkError:
    if isinstance(error, ssl.SSLError):
        message = f"{endpoint.label}: TLS failed ({error.reason or type(error).__name__})."
        return LinkRejected(message, hint="Check the certificate, and http against https in llm_url.")
    cause = error.strerror or type(error).__name__
    return LinkUnavailable(f"{endpoint.label} cannot be reached ({cause}).", hint="Is it running?")


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
        self._pool: _Pool | None = None
        self._sessions: OrderedDict[SessionId, _Memory] = OrderedDict()

    @property
    def statistics(self) -> Statistics:
        return self._pool.statistics if self._pool is not None else Statistics()

    async def start(self) -> None:
        """Nothing is opened yet: the first request does, and says what is wrong."""
        self._pool = _Pool(self._endpoint, self._plan)

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
            except _Again as again:
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

    async def _one(self, pool: _Pool, turn: _Turn) -> AsyncGenerator[ModelEvent, None]:
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

    def _request(self, lane: _Lane, turn: _Turn, chain: wire.Chain | None) -> bytes:
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
                raise _Again(event)
            for piece in turn.reader.feed(event):
                if isinstance(piece, wire.Failed):
                    raise _Refused(piece)
                yield event_of(piece)

    def _remember(self, lane: _Lane, turn: _Turn) -> None:
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

    def _settle_refusal(
        self, pool: _Pool, lane: _Lane, failed: wire.Failed, chain: wire.Chain | None
    ) -> None:
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
            return _Again(error)
        if failed.code == wire.LIMIT_REACHED or (failed.code == wire.NOT_FOUND and chain is not None):
            return _Again(error)
        return error


class _Refused(Exception):
    def __init__(self, failed: wire.Failed) -> None:
        super().__init__(failed.code)
        self.failed = failed


class _Again(Exception):
    """Worth another try if nothing was said yet."""

    def __init__(self, error: LinkError) -> None:
        super().__init__(error.code)
        self.error = error


def with_lanes(plan: SocketPlan, lanes: int) -> SocketPlan:
    """The same plan over ``stream_id`` lanes; 16 is what OpenAI runs at once."""
    return replace(plan, lanes_per_socket=lanes)
