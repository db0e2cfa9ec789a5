"""``/v1/responses``: the OpenAI Responses API over the gateway's model, as WebSocket mode and as POST.

A lane (``stream_id``) is a queue: its responses run one after another, lanes run beside each other, at most
``IN_FLIGHT_MAX`` of a socket at once. A lane holds its newest response ready; with ``store: false`` that is
the only place where a conversation lives. How one response is made is in ``responses_makers``.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from openline.core.model import Problem
from openline.errors import ClientProtocolError, OpenlineError
from openline.ports import LanguageModel
from openline.runtime.gateway import Gateway
from openline.server.problem import Refusal, Reject
from openline.server.responses_makers import Emit, Held, Page, Running, StoredResponses, problem_of
from openline.server.responses_passing import Passing
from openline.server.socket import ClientSocket
from openline.types import SessionId
from openline.wire import responses_server as wire
from openline.wire.responses_input import ITEM_NOT_FOUND, input_list, input_objects
from openline.wire.responses_server import Create, Event

log = logging.getLogger("openline.server")

IN_FLIGHT_MAX = 16
"""Responses of one socket that run at once (openai-protocols.md A.4)."""
LANES_MAX = 32
"""Named lanes of one socket (A.4)."""
STEERS_MAX = 16
"""Inputs that wait to steer one response; the service names no number."""
WAITING_MAX = 256
"""Requests of one socket that wait; the service names no number, a client with more has lost count."""
LIFE_S = 3_600.0
"""Age at which a socket is ended with ``websocket_connection_limit_reached`` (A.1)."""
SLOW, RESTART = 4413, 1012
_STATUS = {ITEM_NOT_FOUND: 404}
"""Of error frames, where the code alone decides."""


class ResponsesApi:
    """What all connections share. ``life_s``: seconds; ``sockets`` are those open now."""

    def __init__(self, gateway: Gateway, model: LanguageModel, *, life_s: float = LIFE_S) -> None:
        self.gateway = gateway
        self.passing = Passing(gateway, model)
        self.life_s = life_s
        self.sockets: set[ResponsesConnection] = set()
        self.passing_made = 0
        self.stored_made = 0

    def check_draining(self) -> None:
        if self.gateway.is_draining:
            message = "The gateway is shutting down; connect again in a moment."
            raise ClientProtocolError(message, code="server_draining", kind="server_error")

    def close(self) -> None:
        """Tell every socket to come back: stock clients reconnect on 1012."""
        for socket in list(self.sockets):
            socket.end(RESTART, "service restart")

    async def make(
        self,
        asked: Create,
        parent: Held | None,
        stored: StoredResponses,
        emit: Emit,
        running: Running,
        *,
        is_fork: bool = False,
    ) -> Held | None:
        """One response; what can be continued. Raises ClientProtocolError before its first event, only."""
        self.check_draining()
        if asked.stores:
            self.stored_made += 1
            return await stored.make(asked, parent, emit, running)
        self.passing_made += 1
        items = parent.items if parent else ()
        if parent is not None and parent.session is not None:
            items = await stored.context(parent)
        goes_on = parent is not None and not is_fork and parent.session is None
        chain = parent.chain if parent and goes_on else SessionId(f"chain_{secrets.token_hex(12)}")
        return await self.passing.make(asked, chain, items, emit, running)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A response to make. ``steers``: it is made by the server, of input that steered the one before it."""

    asked: Create
    steers: tuple[_Steering, ...] = ()


@dataclass(frozen=True, slots=True)
class _Steering:
    """Input that was accepted; it ends in a successor's context, or is given back."""

    id: str
    steer: wire.Steer


@dataclass(eq=False)
class _Lane:
    """``steers``: accepted for the running response. ``pending``: for the one after the calls of ``newest``."""

    name: str
    newest: Held | None = None
    waiting: deque[_Wanted] = field(default_factory=deque)
    running: Running | None = None
    steers: list[_Steering] = field(default_factory=list)
    pending: tuple[_Steering, ...] = ()
    task: asyncio.Task[None] | None = None


class ResponsesConnection:
    """A ``SocketHandler`` for WebSocket mode. Lives as long as its socket."""

    def __init__(self, socket: ClientSocket, api: ResponsesApi, tenant: str) -> None:
        self._socket = socket
        self._api = api
        self._stored = StoredResponses(api.gateway, tenant)
        self._lanes: dict[str, _Lane] = {"": _Lane("")}
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._life: asyncio.TimerHandle | None = None
        self._steer_frames = 0

    # -- the socket

    def on_open(self) -> None:
        self._api.sockets.add(self)
        loop = asyncio.get_running_loop()
        self._life = loop.call_later(self._api.life_s, self._reach_limit)

    def on_text(self, payload: bytes) -> None:
        try:
            event = wire.decode(payload)
            match event:
                case Create():
                    self._take(event)
                case wire.Cancel(response_id):
                    self._cancel(response_id)
                case wire.Steer():
                    self._steer(event)
                case wire.Ignored():
                    pass
        except ClientProtocolError as error:
            self._refuse(error, wire.stream_id_of(payload))

    def on_binary(self, payload: bytes) -> None:
        self._refuse(ClientProtocolError("Expected JSON text frames; got a binary one.", code="invalid_json"))

    def on_writable(self, is_writable: bool) -> None:
        """Backpressure is bounded by the socket's own backlog limit; nothing to do here."""

    def on_close(self, code: int, reason: str, clean: bool) -> None:
        self._api.sockets.discard(self)
        if self._life is not None:
            self._life.cancel()
        for lane in self._lanes.values():
            if lane.task is not None:
                lane.task.cancel()
        self._stored.close()

    def end(self, code: int, reason: str) -> None:
        self._socket.close(code, reason)

    def _reach_limit(self) -> None:
        minutes = self._api.life_s / 60
        message = (
            f"Responses websocket connection limit reached ({minutes:g} minutes). "
            "Create a new websocket connection to continue."
        )
        self._socket.send_text(wire.error_frame(Problem("websocket_connection_limit_reached", message)))
        self.end(1000, "connection limit reached")

    # -- lanes

    def _take(self, asked: Create) -> None:
        lane = self._lanes.get(asked.stream_id)
        if lane is None:
            if len(self._lanes) - 1 >= LANES_MAX:
                message = (
                    f"This WebSocket connection has reached its maximum number of distinct stream IDs ({LANES_MAX}). "
                    "Reuse an existing stream_id or open a new WebSocket connection."
                )
                raise ClientProtocolError(message, code="websocket_stream_limit_reached", param="stream_id")
            lane = self._lanes[asked.stream_id] = _Lane(asked.stream_id)
        if sum(len(each.waiting) for each in self._lanes.values()) >= WAITING_MAX:
            self._socket.close(SLOW, "too many requests at once")
            return
        lane.waiting.append(_Wanted(asked))
        if lane.task is None:
            lane.task = asyncio.get_running_loop().create_task(self._work(lane))

    def _cancel(self, response_id: str) -> None:
        """An unknown id is ignored: the response has ended meanwhile."""
        for lane in self._lanes.values():
            if lane.running is not None and response_id in ("", lane.running.response_id):
                lane.running.cancel()

    async def _work(self, lane: _Lane) -> None:
        """Until the lane is empty: one response after another."""
        while lane.waiting:
            async with self._slots:
                wanted = lane.waiting.popleft()
                lane.running = Running()
                await self._respond(lane, wanted, lane.running)
                self._follow(lane, wanted.asked, lane.running)
                lane.running = None
        lane.task = None

    async def _respond(self, lane: _Lane, wanted: _Wanted, running: Running) -> None:
        """Exactly one terminal event, or one error frame. A failed continuation evicts its parent here."""
        parent: Held | None = None
        asked = wanted.asked
        try:
            if asked.previous is not None:
                parent = await self._find(lane, asked.previous)
            asked = self._with_pending(lane, await self._stored.resolve(asked, parent))
            is_fork = parent is not None and parent is not lane.newest
            lane.newest = None if parent is lane.newest else lane.newest
            held = await self._api.make(asked, parent, self._stored, self._emit, running, is_fork=is_fork)
            lane.newest = held or (None if not is_fork else lane.newest)
        except ClientProtocolError as error:
            if not self._give_back(wanted.steers, lane):
                self._refuse(error, lane.name)
        except OpenlineError as error:
            log.warning("response refused: %s", error.code)
            self._fail(problem_of(error), lane.name)
        except Exception as error:  # the edge of a response: it fails, the connection goes on
            log.exception("response failed: %s", type(error).__name__)
            self._fail(
                Problem("server_error", "The gateway failed. Its log says why.", "server_error"), lane.name
            )

    # -- steering (A.7)

    def _steer(self, steer: wire.Steer) -> None:
        """New input for a running response: it ends at its next boundary, and the input follows."""
        lane = next(
            (
                each
                for each in self._lanes.values()
                if each.running and each.running.response_id == steer.previous
            ),
            None,
        )
        if steer.problem:
            self._steer_failed(steer, "invalid_input", steer.problem)
        elif lane is None or lane.running is None:
            done = any(
                each.newest and each.newest.response_id == steer.previous for each in self._lanes.values()
            )
            code = "response_already_completed" if done else "response_not_found"
            self._steer_failed(
                steer, code, "Only a response that is being made on this socket can be steered."
            )
        elif len(lane.steers) >= STEERS_MAX:
            message = f"At most {STEERS_MAX} inputs can wait for one response."
            self._steer_failed(steer, "too_many_pending_steers", message, lane)
        else:
            steering = _Steering(f"steer_{secrets.token_hex(12)}", steer)
            lane.steers.append(steering)
            self._socket.send_text(
                wire.steer_accepted(self._steer_number(), steering.id, steer.previous, lane.name)
            )
            lane.running.steer(steer.items, lambda code: self._returned(lane, steering, code))

    def _returned(self, lane: _Lane, steering: _Steering, code: str) -> None:
        """The model can do nothing with what was accepted; its response goes on."""
        if steering in lane.steers:
            lane.steers.remove(steering)
            self._steer_failed(steering.steer, code, "The model refused the input.", lane, steering.id)

    def _follow(self, lane: _Lane, asked: Create, running: Running) -> None:
        """The response is over: what steered it goes on from it, waits for its calls' outputs, or is given back."""
        steers, lane.steers = tuple(lane.steers), []
        if not steers:
            return
        if lane.newest is None or lane.newest.response_id != running.response_id:
            for one in steers:
                message = "The response that was steered has failed or was cancelled."
                self._steer_failed(one.steer, "response_not_active", message, lane, one.id)
        elif running.calls:
            lane.pending = steers
            for one in steers:
                number, previous = self._steer_number(), running.response_id
                frame = wire.steer_pending(number, one.id, previous, lane.name, running.calls)
                self._socket.send_text(frame)
        else:
            items = tuple(item for one in steers for item in one.steer.items)
            successor = replace(asked, items=items, previous=running.response_id, generates=True)
            lane.waiting.appendleft(_Wanted(successor, steers))

    def _with_pending(self, lane: _Lane, asked: Create) -> Create:
        """Outputs first: there are models that take nothing between a call and its output."""
        if not lane.pending or lane.newest is None or asked.previous != lane.newest.response_id:
            return asked
        steered = tuple(item for one in lane.pending for item in one.steer.items)
        lane.pending = ()
        outputs = tuple(item for item in asked.items if item.type == "function_call_output")
        rest = tuple(item for item in asked.items if item.type != "function_call_output")
        return replace(asked, items=(*outputs, *steered, *rest))

    def _give_back(self, steers: tuple[_Steering, ...], lane: _Lane) -> bool:
        """The successor could not be made; its input goes back. False: there is none, a client asked."""
        for one in steers:
            message = "The response that was to follow could not be made."
            self._steer_failed(one.steer, "successor_creation_failed", message, lane, one.id)
        return bool(steers)

    def _steer_failed(
        self, steer: wire.Steer, code: str, message: str, lane: _Lane | None = None, steer_id: str = ""
    ) -> None:
        name = lane.name if lane is not None else ""
        frame = wire.steer_failed(self._steer_number(), steer, code, message, steer_id, name)
        self._socket.send_text(frame)

    def _steer_number(self) -> int:
        self._steer_frames += 1
        return self._steer_frames - 1

    # -- what is known

    async def _find(self, lane: _Lane, previous: str) -> Held:
        for each in (lane, *self._lanes.values()):
            if each.newest is not None and each.newest.response_id == previous:
                return each.newest
        held = await self._stored.find(previous)
        if held is None:
            raise wire.not_found(previous)
        return held

    def _emit(self, event: Event) -> None:
        self._socket.send_text(event[1])

    def _refuse(self, error: ClientProtocolError, stream_id: str = "") -> None:
        problem = Problem(error.code, error.message, error.kind, error.param)
        status = _STATUS.get(error.code, 503 if error.kind == "server_error" else 400)
        self._socket.send_text(wire.error_frame(problem, status, stream_id))

    def _fail(self, problem: Problem, stream_id: str) -> None:
        self._socket.send_text(wire.error_frame(problem, 500, stream_id))


# -------------------------------------------------------------------------------------------------- HTTP

EVENTS_MAX = 100_000
"""Events of one POST that wait for a client that does not read."""


class Posted:
    """One ``POST /v1/responses``: ``open`` first, then ``events`` or ``whole``; ``close`` in every case."""

    def __init__(self, api: ResponsesApi, tenant: str, asked: Create) -> None:
        self._api = api
        self._asked = asked
        self._stored = StoredResponses(api.gateway, tenant)
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def open(self) -> None:
        """Start, and return with the first event. Raises what refuses the request."""
        self._task = asyncio.get_running_loop().create_task(self._make())
        first = await self._queue.get()
        if self._error is not None:
            raise self._error
        self._first = first

    async def _make(self) -> None:
        try:
            parent: Held | None = None
            if self._asked.previous is not None:
                parent = await self._stored.find(self._asked.previous)
                if parent is None:
                    raise wire.not_found(self._asked.previous)
            asked = await self._stored.resolve(self._asked, parent)
            await self._api.make(asked, parent, self._stored, self._emit, Running())
        except Exception as error:  # told to the client by open(), or it ends the stream
            if not isinstance(error, OpenlineError):
                log.exception("response failed: %s", type(error).__name__)
            self._error = error
        finally:
            self._queue.put_nowait(None)

    def _emit(self, event: Event) -> None:
        if self._queue.qsize() < EVENTS_MAX:
            self._queue.put_nowait(event)
        elif self._task is not None:
            self._task.cancel()

    async def events(self) -> AsyncIterator[Event]:
        event = self._first
        while event is not None:
            yield event
            event = await self._queue.get()
        if self._error is not None:
            problem = Problem("server_error", "The gateway failed. Its log says why.", "server_error")
            told: dict[str, object] = {"type": "error", "code": problem.code, "message": problem.message}
            yield "error", wire.encode({**told, "param": None, "sequence_number": 0})

    async def whole(self) -> bytes:
        """The response object after its end, JSON. Raises what made it fail."""
        last = b"{}"
        async for _, payload in self.events():
            last = payload
        if self._error is not None:
            raise self._error
        return wire.response_of(last)

    async def close(self) -> None:
        """Stop what still runs (the client is gone) and park its session."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._stored.close()


class PostedStream(StreamingResponse):
    """The events of a POST as server-sent events; a client that goes away stops its response."""

    def __init__(self, posted: Posted) -> None:
        self._posted = posted
        self._body = _frames(posted)
        super().__init__(self._body, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._body.aclose()
            await self._posted.close()


async def _frames(posted: Posted) -> AsyncGenerator[bytes, None]:
    async for kind, payload in posted.events():
        yield b"event: %b\ndata: %b\n\n" % (kind.encode(), payload)


async def answer_post(api: ResponsesApi, tenant: str, body: bytes) -> Response:
    """``POST /v1/responses``. Raises ClientProtocolError and other OpenlineErrors before the first byte."""
    asked = replace(wire.decode_body(body), stream_id="")
    posted = Posted(api, tenant, asked)
    is_streamed = False
    try:
        await posted.open()
        if asked.streams:
            is_streamed = True
            return PostedStream(posted)
        return Response(await posted.whole(), 200, {"Cache-Control": "no-store"}, "application/json")
    finally:
        if not is_streamed:
            await posted.close()


async def delete_stored(api: ResponsesApi, tenant: str, response_id: str) -> bytes:
    """``DELETE /v1/responses/{id}``. Raises Refusal: there is none of this tenant."""
    if not await StoredResponses(api.gateway, tenant).forget(response_id):
        raise _none_has_this_id()
    return wire.encode({"id": response_id, "object": "response", "deleted": True})


async def read_input(
    api: ResponsesApi, tenant: str, response_id: str, page: Page, *, sealed: bool = False
) -> bytes:
    """``GET /v1/responses/{id}/input_items``; ``sealed``: reasoning with its encrypted content.

    Raises Refusal: there is none of this tenant.
    """
    found = await StoredResponses(api.gateway, tenant).read_input(response_id)
    if found is None:
        raise _none_has_this_id()
    return input_list(*page.cut(input_objects(found, sealed=sealed)))


def _none_has_this_id() -> Refusal:
    return Refusal(Reject(404, "response_not_found", "No stored response has this id."))


async def read_stored(api: ResponsesApi, tenant: str, response_id: str, *, sealed: bool = False) -> bytes:
    """``GET /v1/responses/{id}``; ``sealed``: its reasoning with the encrypted content, also if it was not asked for
    then. Raises Refusal: there is none of this tenant."""
    found = await StoredResponses(api.gateway, tenant).read(response_id, sealed=sealed)
    if found is None:
        raise _none_has_this_id()
    return found
