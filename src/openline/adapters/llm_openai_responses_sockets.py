"""The sockets of one node to one provider: opened when asked for, shared by lanes, left before they are too old.

A lane is busy from ``take`` to ``freed``, and nothing that a response still sends may reach the next one of its lane:
one that is abandoned is waited for, and so is what follows a response that was steered, until it is known whether
anything does.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

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

from openline.adapters.llm_openai import THINK_S, Endpoint, refused
from openline.errors import LinkError, LinkRejected, LinkUnavailable
from openline.wire import responses_client as wire
from openline.wire.items import JsonObject
from openline.wire.responses_steer import Steering, steered_response

FRAME_MAX = 64 * 1024 * 1024
"""Bytes of one frame from the provider: a completed response repeats its whole output."""
EVENTS_MAX = 100_000
"""Events of one response that wait for their reader; more than any reply has."""


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """Seconds, unless it says otherwise.

    ``sockets_max``: most sockets of this node. ``lanes_per_socket``: 1 for servers without ``stream_id``;
    OpenAI runs 16 at once. ``rotate_s``: age at which a socket gets no new response (OpenAI cuts at 3,600).
    ``drain_s``: how long a cancelled response may still send before its socket is dropped; 0 drops at once.
    ``stall_s``: silence of the provider within a response that counts as a loss; ``think_s``: while it thinks.
    ``wait_s``: for a free lane. ``answer_s``: for the answer to a steer, and for what it leads to afterwards.
    """

    sockets_max: int = 8
    lanes_per_socket: int = 1
    rotate_s: float = 55 * 60
    drain_s: float = 2.0
    stall_s: float = 60.0
    think_s: float = THINK_S
    open_s: float = 10.0
    wait_s: float = 30.0
    answer_s: float = 5.0
    ping_s: float = 20.0
    store: bool = False
    encrypted_reasoning: bool = False


@dataclass(slots=True)
class Statistics:
    """Counters since start. ``sent_bytes``: of requests, without frame headers. ``steered``: inputs that a running
    response took; ``followed``: responses that the provider began by itself with such input, and we took over."""

    sockets_opened: int = 0
    responses: int = 0
    continued: int = 0
    whole: int = 0
    not_found: int = 0
    retried: int = 0
    dropped: int = 0
    sent_bytes: int = 0
    strays: int = 0
    steered: int = 0
    followed: int = 0


class Lane:
    """One response at a time. ``newest``: the response whose state the provider has ready here.

    ``steering``: what the running response was steered with, until it is known what became of that. ``follow``: the
    response is over, its reader too, and what the provider does with that input is waited for (the timer gives up).
    ``queued``: input that the provider keeps for the request that goes on from ``newest``.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        self.newest = ""
        self.is_busy = False
        self.events: asyncio.Queue[JsonObject | LinkError] | None = None
        self.drain: asyncio.TimerHandle | None = None
        self.steering: Steering | None = None
        self.follow: asyncio.TimerHandle | None = None
        self.queued: Steering | None = None
        self._watchers: set[asyncio.Future[None]] = set()

    async def until(self, holds: Callable[[], bool], limit_s: float) -> bool:
        """Wait for news about steering that make ``holds`` true, or the end of the socket; False: in vain."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + limit_s
        while not holds() and not self.connection.is_gone:
            news = loop.create_future()
            self._watchers.add(news)
            try:
                async with asyncio.timeout_at(ends_at):
                    await news
            except TimeoutError:
                break
            finally:
                self._watchers.discard(news)
        return holds()

    def tell(self) -> None:
        for news in self._watchers:
            if not news.done():
                news.set_result(None)

    def stop_timers(self) -> None:
        for timer in (self.drain, self.follow):
            if timer is not None:
                timer.cancel()
        self.drain = self.follow = None


class Connection(WSListener):
    """One socket. Every frame goes to the lane that its ``stream_id`` names."""

    def __init__(self, pool: Pool, lanes: int) -> None:
        self._pool = pool
        self._transport: WSTransport | None = None
        self._parts = bytearray()
        self._closed_with = 1006
        self.opened_at = asyncio.get_running_loop().time()
        self.is_gone = False
        self.is_retiring = False
        names = [""] if lanes == 1 else [f"lane-{number}" for number in range(lanes)]
        self.lanes = {name: Lane(self, name) for name in names}

    @property
    def is_idle(self) -> bool:
        return not any(lane.is_busy for lane in self.lanes.values())

    def send(self, payload: bytes) -> None:
        if self._transport is not None and not self.is_gone:
            self._transport.send(WSMsgType.TEXT, payload)

    def cancel(self, lane: Lane, response_id: str) -> None:
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
        lane = self._steered_lane(event) or (self.lanes.get(name) if isinstance(name, str) else None)
        if lane is None:
            if event.get("type") == "error":  # Of the whole connection: everything on it is answered by it.
                for each in self.lanes.values():
                    self._deliver(each, event)
            else:
                self._pool.statistics.strays += 1
            return
        self._deliver(lane, event)

    def _steered_lane(self, event: JsonObject) -> Lane | None:
        """The lane that an answer to a steer is about, which a refusal may not name."""
        previous = steered_response(event)
        is_nameless_error = event.get("type") == "error" and "stream_id" not in event
        if not previous and not is_nameless_error:
            return None
        for lane in self.lanes.values():
            steering = lane.steering or lane.queued
            if steering is not None and (
                steering.is_refused_by(event) if is_nameless_error else steering.response_id == previous
            ):
                return lane
        return None

    def _deliver(self, lane: Lane, event: JsonObject) -> None:
        steering = lane.steering or lane.queued
        if steering is not None and steering.hear(event):
            self._pool.decided(lane)
        elif lane.events is not None:
            if lane.events.qsize() < EVENTS_MAX:
                lane.events.put_nowait(event)
                lane.tell()
            else:
                self._lost(f"more than {EVENTS_MAX} events of one response")
        elif lane.drain is not None:
            if event.get("type") == "response.created":  # It was cancelled before it had a name.
                response = event.get("response")
                self.cancel(lane, str(response.get("id", "")) if isinstance(response, dict) else "")
            elif event.get("type") in wire.TERMINAL and not (steering and steering.is_open):
                self._pool.freed(lane)
        else:
            self._pool.statistics.strays += 1

    def _lost(self, why: str) -> None:
        if self.is_gone and self._transport is None:
            return
        self.is_gone = True
        error = LinkUnavailable(f"{self._pool.endpoint.label}: the socket was lost ({why}).")
        for lane in self.lanes.values():
            lane.stop_timers()
            if lane.events is not None:
                lane.events.put_nowait(error)
            lane.tell()
        transport, self._transport = self._transport, None
        if transport is not None and not transport.is_disconnected:
            transport.disconnect(graceful=False)
        self._pool.lost(self)


class Pool:
    """The node's sockets. A lane is taken for one response and given back, or dropped with its socket."""

    def __init__(self, endpoint: Endpoint, plan: SocketPlan) -> None:
        self.endpoint = endpoint
        self.plan = plan
        self.statistics = Statistics()
        self._connections: list[Connection] = []
        self._opening = 0
        self._news = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()
        self.is_closed = False

    async def take(self, newest: str) -> Lane:
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

    def _free(self, newest: str) -> Lane | None:
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

    async def _open(self) -> Connection:
        self._opening += 1
        secure = self.endpoint.at("responses", websocket=True)
        try:
            _, listener = await ws_connect(
                lambda: Connection(self, self.plan.lanes_per_socket),
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
        if not isinstance(listener, Connection):  # nor has it a listener when the line ends in the handshake
            raise _stranger(self.endpoint)
        self.statistics.sockets_opened += 1
        if not listener.is_gone:
            self._connections.append(listener)
        else:
            message = f"{self.endpoint.label}: accepted the socket and closed it at once."
            raise Again(LinkUnavailable(message))
        return listener

    def freed(self, lane: Lane) -> None:
        """Nothing of its last response comes any more."""
        lane.stop_timers()
        lane.is_busy = False
        lane.events = None
        lane.queued = lane.steering if lane.steering and lane.steering.fate == "queued" else None
        lane.steering = None
        self._retire_old()
        self._wake()

    def follow(self, lane: Lane) -> None:
        """A response that was steered is over: keep the lane for whoever takes over what follows, for a while."""
        loop = asyncio.get_running_loop()
        lane.follow = loop.call_later(self.plan.answer_s, self.leave, lane)

    def leave(self, lane: Lane) -> None:
        """Nobody takes over what follows: it is stopped, if it has begun or may begin."""
        steering, lane.newest = lane.steering, ""
        if steering is not None and (steering.is_open or (steering.successor and not steering.is_done)):
            self.abandon(lane, steering.successor)
        else:
            self.freed(lane)

    def decided(self, lane: Lane) -> None:
        """Something was said about input that a response was steered with; perhaps that nothing follows."""
        lane.tell()
        steering = lane.steering
        is_left = lane.drain is not None or lane.follow is not None
        if is_left and steering is not None and steering.is_over and steering.fate in ("none", "queued"):
            self.freed(lane)

    def abandon(self, lane: Lane, response_id: str) -> None:
        """Its reader is gone in the middle: stop the provider, and free the lane when it has."""
        lane.stop_timers()
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

    def drop(self, lane: Lane) -> None:
        """The provider would not stop: the socket goes, or only this lane when others are in use."""
        self.statistics.dropped += 1
        lane.drain = lane.steering = None
        connection = lane.connection
        connection.is_retiring = True
        others = [each for each in connection.lanes.values() if each is not lane and each.is_busy]
        if not others and connection in self._connections:
            self._connections.remove(connection)
            connection.close()
        else:
            lane.is_busy = False  # Its socket takes no new response, so nothing can be mistaken for one.
        self._wake()

    def lost(self, connection: Connection) -> None:
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


class Again(Exception):
    """Worth another try if nothing was said yet."""

    def __init__(self, error: LinkError) -> None:
        super().__init__(error.code)
        self.error = error


def with_lanes(plan: SocketPlan, lanes: int) -> SocketPlan:
    """The same plan over ``stream_id`` lanes; 16 is what OpenAI runs at once."""
    return replace(plan, lanes_per_socket=lanes)
