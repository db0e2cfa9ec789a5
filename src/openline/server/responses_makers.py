"""How a response of ``/v1/responses`` is made: what both ways share, and as part of a session.

``responses_passing`` (``store: false``) asks the model and remembers the conversation for as long as the
connection does; nothing of it reaches the log. ``StoredResponses`` (``store: true``) drives a session: one
chain is one session, its input items and responses are facts, and a voice client may take it over.
A fork is a new session whose conversation begins in its parent's log, by reference.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from openline.core import facts as f
from openline.core import inputs as i
from openline.core.facts import Fact
from openline.core.model import Item, Problem, SessionConfig, Usage
from openline.core.session import StoredStep
from openline.core.value import replace
from openline.errors import ClientProtocolError, LinkRejected, OpenlineError, SessionNotFound
from openline.ports import ReasoningDelta
from openline.runtime.driver import SessionDriver
from openline.runtime.gateway import Gateway
from openline.server.outbox import Outbox
from openline.server.responses_items import References, note_reasoning, public_item
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, Seq, SessionId, TurnId
from openline.wire import responses_server as wire
from openline.wire.model_options import SEALED_OPTIONS, shown
from openline.wire.responses_server import Create, Event, ResponseWriter

log = logging.getLogger("openline.server")

SPACE = "responses"
"""Where the store keeps which session a response is in: ids only, no content."""
ATTACHED_MAX = 32
"""Sessions that one socket keeps attached; the oldest idle one is parked first."""

Emit = Callable[[Event], None]
GiveBack = Callable[[str], None]


class _Row(msgspec.Struct):
    """Under a response's id in ``SPACE``."""

    session: SessionId
    last: str
    seq: Seq


@dataclass(frozen=True, slots=True)
class Held:
    """A response that can be continued. ``session``: where it is stored, or None: then ``items`` is all of it.

    ``chain`` names the conversation to the model. ``seq``, ``last``: the session's last fact and item when
    it ended: where a fork goes on from.
    """

    response_id: str
    chain: SessionId
    items: tuple[Item, ...] = ()
    session: SessionId | None = None
    last: str = ""
    seq: Seq = Seq(0)


@dataclass(slots=True)
class Running:
    """A response being made. ``cancel`` and ``steer`` may be called at any time.

    ``steer`` ends it at its next boundary, so that what steers it can follow: at once while it only speaks, by
    itself once it has begun a call (half a call is none), and where the model is steered itself whenever that says.
    Its second argument is called, with a code, when the model can do nothing with the input.
    ``calls``: when it is over, its whole ones.
    """

    response_id: str = ""
    cancel: Callable[[], None] = lambda: None
    steer: Callable[[tuple[Item, ...], GiveBack], None] = lambda items, give_back: None
    calls: tuple[tuple[str, str], ...] = ()


def public_id(session: SessionId, response_id: ResponseId) -> str:
    """A session's response as clients of this API know it: the session's own ids are unique only within it."""
    return f"resp_{session.removeprefix('sess_')}_{response_id.removeprefix('resp_')}"


def now_s(gateway: Gateway) -> int:
    return gateway.clock.now().wall_ms // 1000


def send_all(emit: Emit, events: Sequence[Event]) -> None:
    for event in events:
        emit(event)


def note_failure(response_id: str, error: Exception) -> None:
    if isinstance(error, OpenlineError):
        log.warning("response %s failed: %s", response_id, error.code)
    else:
        log.exception("response %s failed: %s", response_id, type(error).__name__)


def problem_of(error: Exception) -> Problem:
    """What a client is told of a model that failed: a code of the protocol, and no more."""
    if isinstance(error, LinkRejected):
        return Problem(
            "server_error", "The gateway's model refused the request; its log says why.", "server_error"
        )
    return Problem("server_error", "The gateway's model is not available now; try again.", "server_error")


# ------------------------------------------------------------------------------------------- store: true


@dataclass(frozen=True, slots=True)
class _Ended:
    """A session's response after its terminal fact, which is durable, and what is still to be sent of it.

    ``place``: where the conversation goes on after it.
    """

    done: f.ResponseDone
    events: list[Event]
    place: _Row


class Texter:
    """A ``Client`` of one session that makes responses one after another and hears only of its own."""

    def __init__(self, driver: SessionDriver, created_at: Callable[[], int]) -> None:
        self.conn = ConnectionId(f"conn_{secrets.token_hex(8)}")
        self.role: Role = "texter"
        self.pacing_ms: int | None = None
        self.driver = driver
        self._created_at = created_at
        self._outbox = Outbox(self._leave, self._full)
        self._waiting: deque[Event] = deque()
        self._asked: Create | None = None
        self._emit: Emit = lambda event: None
        self._writer: ResponseWriter | None = None
        self._current: ResponseId | None = None
        self._running = Running()
        self._ended: asyncio.Future[_Ended] | None = None
        self.is_gone = False

    def attach(self) -> None:
        self._outbox.durable(self.driver.durable_seq)
        self.driver.attach(self, i.Attach(self.conn, "texter"))
        self._outbox.open()

    def detach(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self._outbox.drop()
            self.driver.detach(self.conn, 1000, True)

    async def respond(self, asked: Create, emit: Emit, running: Running) -> _Ended | None:
        """One response, with its end.

        None: the session went away in the middle, and the client was told by ``response.failed``. Raises
        ClientProtocolError when the session refuses it. Cancellation cancels the response.
        """
        self._asked, self._emit, self._running = asked, emit, running
        self._ended = asyncio.get_running_loop().create_future()
        running.cancel, running.steer = self._cancel, self._steer
        try:
            self.driver.offer(i.CreateResponse(asked.request(), self.conn))
            if self.driver.is_stopped:
                self._fail("server_error", "The session moved; ask again.")
            return await self._ended
        except ClientProtocolError as error:
            if self._writer is None:
                raise
            problem = Problem("server_error", error.message, "server_error")
            send_all(emit, self._writer.done("failed", problem=problem))
            return None
        except asyncio.CancelledError:
            self._cancel()
            raise
        finally:
            self._ended = self._writer = self._current = None

    def _cancel(self) -> None:
        if self._current is not None and not self.driver.is_stopped:
            cuts = self.driver.playout.cuts()
            self.driver.offer(i.CancelResponse(self._current, cuts, "client_cancelled", self.conn))

    def _steer(self, items: tuple[Item, ...], give_back: GiveBack) -> None:
        """Cut here, and never steered at the provider: what that begins by itself no step would explain."""
        response = self.driver.session.state.responses.get(self._current) if self._current else None
        if (
            response is None
            or self.driver.is_stopped
            or any(o.kind == "call" for o in response.outputs.values())
        ):
            return
        cuts = self.driver.playout.cuts()
        self.driver.offer(i.CancelResponse(response.response_id, cuts, "steered", self.conn))

    # -- what the runtime shows

    def show(self, epoch: Epoch, first_seq: Seq, facts: Sequence[Fact]) -> None:
        for offset, fact in enumerate(facts):
            self._show(fact, Seq(first_seq + offset))

    def _show(self, fact: Fact, seq: Seq) -> None:
        writer = self._writer
        if isinstance(fact, f.ResponseCreated) and fact.conn == self.conn and self._asked is not None:
            state = self.driver.session.state
            self._current = fact.response_id
            public = public_id(state.session, fact.response_id)
            self._writer = ResponseWriter(public, self._asked, self._created_at(), state.config.model)
            self._running.response_id = public
            self._put(self._writer.created(), seq)
        elif writer is None or getattr(fact, "response_id", None) != self._current:
            return
        elif isinstance(fact, f.OutputItemAdded):
            item = public_item(self.driver.session.state.session, fact.item)
            for reasoning in item.reasoning:
                self._put(writer.reasoning_done(reasoning), seq)
            if item.type == "message":
                started = writer.message_started(fact.output_index, item.id, is_refusal=item.is_refusal)
                self._put(started, seq)
            else:
                call_id = item.call_id or item.id
                self._put(writer.call_started(fact.output_index, item.id, call_id, item.name), seq)
        elif isinstance(fact, f.OutputItemDone):
            item = fact.item
            done = writer.message_done if item.type == "message" else writer.call_done
            text = item.text if item.type == "message" else item.arguments
            self._put(done(fact.output_index, text, item.status), seq)
        elif isinstance(fact, f.ResponseDone):
            last = _end(writer, fact)
            self._running.calls = tuple(writer.calls())
            state, ended = self.driver.session.state, self._ended
            place = _Row(state.session, state.last_item_id() or "", seq)
            self._outbox.then(lambda: _resolve(ended, _Ended(fact, last, place)), seq)

    def _put(self, events: Sequence[Event], needs: Seq = Seq(0)) -> None:
        for event in events:
            self._waiting.append(event)
            self._outbox.put(event[1], needs)

    def _leave(self, payload: bytes) -> None:
        self._emit(self._waiting.popleft())

    def durable(self, mark: Seq) -> None:
        self._outbox.durable(mark)

    def text_delta(self, response: ResponseId, item: ItemId, index: int, text: str, spoken: bool) -> None:
        if self._writer is not None and response == self._current:
            self._put(self._writer.text(index, text))

    def call_delta(
        self, response: ResponseId, item: ItemId, index: int, call_id: CallId, arguments: str, ours: bool
    ) -> None:
        if self._writer is not None and response == self._current:
            self._put(self._writer.call_delta(index, arguments))

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        if self._writer is not None and response == self._current:
            self._put(self._writer.reasoning(delta.id, delta.part, delta.text, is_summary=delta.is_summary))

    def audio_delta(self, response: ResponseId, item: ItemId, index: int, pcm: bytes) -> None: ...

    def user_partial(self, turn: TurnId, item: ItemId, text: str) -> None: ...

    def transcript_partial(self, turn: TurnId, item: ItemId, text: str) -> None: ...

    def receipt(self, command: str, outcome: str) -> None: ...

    def resend_item(self, item: Item, previous: ItemId | None) -> None: ...

    def error(self, command: str, problem: Problem) -> None:
        if problem.code != "response_cancel_not_active":
            self._fail(problem.code, problem.message)

    def close(self, code: int, reason: str) -> None:
        self.is_gone = True
        self._fail("server_error", "The session ended or moved; continue from the last response.")

    def _full(self) -> None:
        self._fail("server_error", "The log does not keep up; try again.")

    def _fail(self, code: str, message: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(ClientProtocolError(message, code=code))


def _end(writer: ResponseWriter, fact: f.ResponseDone) -> list[Event]:
    """A session's terminal fact in the words that this protocol has for it."""
    status, problem = fact.status, fact.problem
    if status == "failed" or (
        status == "incomplete" and fact.reason not in ("max_output_tokens", "content_filter")
    ):
        message = problem.message if problem is not None else "The response ended early."
        return writer.done(
            "failed", usage=fact.usage, problem=Problem("server_error", message, "server_error")
        )
    if fact.reason == "steered":
        return writer.done("incomplete", "steered", fact.usage)
    return writer.done(status, fact.reason, fact.usage)


def _resolve(future: asyncio.Future[_Ended] | None, value: _Ended) -> None:
    if future is not None and not future.done():
        future.set_result(value)


class StoredResponses:
    """The stored chains of one connection (or one POST). ``close`` parks their sessions.

    What the store knows of a response is its session and the session's last item then: enough to find its
    context in the log, on any node and after any restart. A response of another tenant is not found.
    """

    def __init__(self, gateway: Gateway, tenant: str) -> None:
        self._gateway = gateway
        self._tenant = tenant
        self._attached: OrderedDict[SessionId, Texter] = OrderedDict()
        self._busy: set[SessionId] = set()
        self._choosing = asyncio.Lock()
        """Two lanes that continue one response at one moment: one goes on in its session, the other forks."""

    async def find(self, response_id: str) -> Held | None:
        value = await self._gateway.store.get_value(SPACE, self._key(response_id))
        if not value:  # None, or forgotten
            return None
        row = msgspec.json.decode(value, type=_Row)
        return Held(response_id, row.session, session=row.session, last=row.last, seq=row.seq)

    async def resolve(self, asked: Create, parent: Held | None) -> Create:
        """With the stored items that it refers to. Raises ClientProtocolError: one is not there, or another's."""
        if not asked.given:
            return asked
        known: frozenset[ItemId] = frozenset()
        if parent is not None and parent.session is not None:
            known = frozenset(item.id for item in await self.context(parent))

        async def is_kept(session: SessionId, response: ResponseId) -> bool:
            return await self.find(public_id(session, response)) is not None

        return await References(self._gateway, self._tenant, is_kept).resolve(asked, known)

    def _key(self, response_id: str) -> str:
        return f"{self._tenant}/{response_id}"

    async def context(self, held: Held) -> tuple[Item, ...]:
        """The conversation up to a stored response. Raises ClientProtocolError when it is no longer there."""
        assert held.session is not None
        try:
            return await self._gateway.conversation_at((held.session, held.seq), self._tenant)
        except SessionNotFound:
            raise wire.not_found(held.response_id) from None

    async def make(self, asked: Create, parent: Held | None, emit: Emit, running: Running) -> Held | None:
        """Make one response in its session; what can be continued, or None when it failed or was cancelled."""
        async with self._choosing:
            texter = await self._texter(asked, parent)
            session = texter.driver.session.state.session
            self._busy.add(session)
        try:
            for item in asked.items:
                texter.driver.offer(i.CreateItem(item, None, texter.conn))
            if not asked.generates:
                return await self._warm(asked, texter, emit)
            ended = await texter.respond(asked, emit, running)
            if ended is None:
                return None
        finally:
            self._busy.discard(session)
        done = ended.done
        held = await self._keep(public_id(session, done.response_id), ended.place)
        await note_reasoning(self._gateway, self._tenant, session, done.output)
        send_all(emit, ended.events)
        return held if done.status in ("completed", "incomplete") or done.reason == "steered" else None

    async def _warm(self, asked: Create, texter: Texter, emit: Emit) -> Held:
        """The items are in the log; nothing is asked of the model."""
        model = texter.driver.session.state.config.model
        writer = ResponseWriter(f"resp_{secrets.token_hex(16)}", asked, now_s(self._gateway), model)
        send_all(emit, writer.created())
        await self._gateway.store.flush()
        state = texter.driver.session.state
        place = _Row(state.session, state.last_item_id() or "", texter.driver.durable_seq)
        held = await self._keep(writer.response_id, place)
        send_all(emit, writer.done("completed", usage=Usage()))
        return held

    async def _keep(self, response_id: str, place: _Row) -> Held:
        await self._gateway.store.put_value(SPACE, self._key(response_id), msgspec.json.encode(place))
        return Held(response_id, place.session, session=place.session, last=place.last, seq=place.seq)

    async def _texter(self, asked: Create, parent: Held | None) -> Texter:
        """Attached to the session to go on in: the parent's, or a new one with its items."""
        config = replace(self._gateway.agent.config, model=asked.model or self._gateway.agent.config.model)
        if parent is None:
            return self._attach(await self._gateway.create(self._tenant, config))
        if parent.session is None:
            message = "A stored response cannot continue one that was not stored; send the whole input."
            raise ClientProtocolError(message, code=wire.NOT_FOUND, param="previous_response_id")
        texter = self._attached.get(parent.session)
        if texter is None or texter.is_gone:
            try:
                driver = await self._gateway.load(parent.session, tenant=self._tenant)
            except SessionNotFound:
                raise wire.not_found(parent.response_id) from None
            goes_on = _goes_on(driver, parent)
            return self._attach(driver) if goes_on else await self._fork(parent, config)
        if parent.session in self._busy or not _goes_on(texter.driver, parent):
            return await self._fork(parent, config)
        self._attached.move_to_end(parent.session)
        return texter

    async def _fork(self, parent: Held, config: SessionConfig) -> Texter:
        assert parent.session is not None
        try:
            driver = await self._gateway.create(self._tenant, config, origin=(parent.session, parent.seq))
        except SessionNotFound:
            raise wire.not_found(parent.response_id) from None
        return self._attach(driver)

    def _attach(self, driver: SessionDriver) -> Texter:
        texter = Texter(driver, lambda: now_s(self._gateway))
        texter.attach()
        self._attached[driver.session.state.session] = texter
        for session in [s for s in self._attached if s not in self._busy][
            : len(self._attached) - ATTACHED_MAX
        ]:
            self._attached.pop(session).detach()
        return texter

    async def forget(self, response_id: str) -> bool:
        """Its id is nobody's any more; the session that it is part of stays. False: there is none."""
        if await self.find(response_id) is None:
            return False
        await self._gateway.store.put_value(SPACE, self._key(response_id), b"")
        return True

    async def read_input(self, response_id: str) -> list[Item] | None:
        """The items of the request that made it, oldest first; None when there is none of this tenant."""
        steps = await self._steps_of(response_id)
        if steps is None:
            return None
        session = steps[1].session
        assert session is not None
        return [public_item(session, item) for item in _input_of(*steps, response_id)]

    async def _steps_of(self, response_id: str) -> tuple[list[StoredStep], Held] | None:
        held = await self.find(response_id)
        if held is None or held.session is None:
            return None
        await self._gateway.store.flush()
        try:
            return await self._gateway.read_steps(held.session), held
        except SessionNotFound:
            return None

    def close(self) -> None:
        for texter in self._attached.values():
            texter.detach()
        self._attached.clear()

    async def read(self, response_id: str, *, sealed: bool = False) -> bytes | None:
        """The response object as it is stored, JSON; None when there is none of this tenant."""
        found = await self._steps_of(response_id)
        return None if found is None else _read_back(*found, response_id, sealed=sealed)


def _goes_on(driver: SessionDriver, parent: Held) -> bool:
    """Nothing was added since: the chain goes on in this session, anything else is a fork."""
    state = driver.session.state
    return state.status != "ended" and state.active is None and (state.last_item_id() or "") == parent.last


def _input_of(steps: Sequence[StoredStep], held: Held, response_id: str) -> list[Item]:
    """What was put into the session between the response before it and itself (or its warm-up's end)."""
    items: list[Item] = []
    seq = 0
    for step in steps:
        for fact in step.facts:
            seq += 1
            if isinstance(fact, f.ItemCreated):
                items.append(fact.item)
            elif isinstance(fact, f.ResponseCreated) and held.session is not None:
                if public_id(held.session, fact.response_id) == response_id:
                    return items
            elif isinstance(fact, f.ResponseDone):
                items = []
            if seq == held.seq:
                return items
    return items


@dataclass(frozen=True, slots=True)
class Page:
    """Which items of a list are asked for."""

    limit: int = 20
    is_newest_first: bool = True
    after: str = ""

    @classmethod
    def of(cls, limit: str | None, order: str | None, after: str | None) -> Page:
        """Raises ClientProtocolError for values that are none."""
        if order not in (None, "asc", "desc"):
            raise ClientProtocolError(
                "Expected 'order' to be asc or desc.", code="invalid_value", param="order"
            )
        count = int(limit) if limit is not None and limit.isascii() and limit.isdigit() else None
        if limit is not None and (count is None or not 1 <= count <= 100):
            raise ClientProtocolError("Expected 'limit' to be 1 to 100.", code="invalid_value", param="limit")
        return cls(20 if count is None else count, order != "asc", after or "")

    def cut(self, items: Sequence[dict[str, object]]) -> tuple[list[dict[str, object]], bool]:
        """The page, and whether there is more after it. Raises ClientProtocolError: nothing has the id ``after``."""
        ordered = list(reversed(items)) if self.is_newest_first else list(items)
        if self.after:
            ids = [item.get("id") for item in ordered]
            if self.after not in ids:
                raise ClientProtocolError(
                    "No input item has the id 'after'.", code="invalid_value", param="after"
                )
            ordered = ordered[ids.index(self.after) + 1 :]
        return ordered[: self.limit], len(ordered) > self.limit


def _read_back(steps: Sequence[StoredStep], held: Held, response_id: str, *, sealed: bool) -> bytes:
    assert held.session is not None
    session = held.session
    created: f.ResponseCreated | None = None
    created_ms = 0
    model = ""
    for step in steps:
        for fact in step.facts:
            if isinstance(fact, f.SessionStarted):
                model = fact.config.model
            elif isinstance(fact, f.ResponseCreated) and public_id(session, fact.response_id) == response_id:
                created, created_ms = fact, step.now.wall_ms
            elif isinstance(fact, f.ResponseDone) and created and fact.response_id == created.response_id:
                request = created.request
                asked = Create(
                    (),
                    instructions=request.instructions or None,
                    tools=request.tools or (),
                    tool_choice=request.tool_choice or '"auto"',
                    max_output_tokens=request.max_output_tokens,
                    metadata=request.metadata,
                    parallel_tool_calls=request.parallel_tool_calls is not False,
                    options=SEALED_OPTIONS if sealed else request.model_options,
                    echo=shown(request.model_options, request.text_format),
                )
                writer = ResponseWriter(response_id, asked, created_ms // 1000, model)
                wire.output_items([public_item(session, item) for item in fact.output], writer)
                last = _end(writer, fact)[-1]
                return wire.response_of(last[1])
    warm = ResponseWriter(response_id, Create(()), created_ms // 1000, model)
    return wire.encode(warm.response("completed", usage=Usage()))
