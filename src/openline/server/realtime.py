"""``/v1/realtime``: one client connection, between its socket and its session.

From the socket: events become inputs of the session, in the order in which they came. To the socket:
facts are rendered and wait in the outbox until they are durable; partials and audio follow in stream
order. What belongs to the connection alone (session.created, errors, receipts) is made here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from openline.core import inputs as i
from openline.core.facts import Fact, TurnTranscribed
from openline.core.model import AudioRange, Item, Problem, SessionConfig
from openline.core.value import replace
from openline.errors import ClientProtocolError, OpenlineError, SessionEnded
from openline.ports import ReasoningDelta
from openline.runtime.driver import SessionDriver
from openline.runtime.gateway import Gateway
from openline.server.admission import Admission
from openline.server.outbox import Outbox
from openline.server.socket import ClientSocket
from openline.server.upgrade import UpgradeRequest
from openline.server.wishes import PACING_DEFAULT_MS, Wishes
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, Seq, TurnId
from openline.wire import client_events as c
from openline.wire import frames
from openline.wire.envelope import decode_facts
from openline.wire.items import to_item
from openline.wire.render import MAX_FRAMES, View, render
from openline.wire.requests import to_request
from openline.wire.server_tools import shown_in, without_server_tools
from openline.wire.session_config import to_config

log = logging.getLogger("openline.server")

FATAL, UNAUTHORIZED, ENDED, ELSEWHERE, SLOW = 4000, 4401, 4410, 4503, 4413
PENDING_MAX = 10_000
"""Commands held while a session is being opened or the log is saturated: a burst, not a backlog."""
BUFFER_MAX_MS = 60_000
"""An uncommitted input buffer counts back at most so far: what the recognizer keeps (runtime.ears)."""
RATE = 24_000


@dataclass(frozen=True, slots=True)
class _Since:
    """Where a returning client goes on: after frame ``seen`` of fact ``seq``. ``told``: what it is told first."""

    seq: Seq
    seen: int
    told: tuple[tuple[Seq, bytes], ...] = ()


def token_hash(token: str) -> str:
    """What is stored of a resume token: SHA-256, hex."""
    return hashlib.sha256(token.encode()).hexdigest() if token else ""


class RealtimeConnection:
    """A ``SocketHandler`` for the socket and a ``Client`` for the runtime. Lives as long as its socket."""

    __slots__ = (
        *("_admission", "_attached_seq", "_driver", "_gateway", "_hear", "_ids", "_is_closed", "_outbox"),
        *(
            "_pending",
            "_request",
            "_retrievals",
            "_shown",
            "_shows_server_tools",
            "_socket",
            "_task",
            "_token",
        ),
        *("_view", "_wishes", "conn", "opted_in", "pacing_ms", "role"),
    )

    def __init__(
        self, socket: ClientSocket, gateway: Gateway, admission: Admission, request: UpgradeRequest
    ) -> None:
        self.conn = ConnectionId(f"conn_{secrets.token_hex(8)}")
        self.role: Role = "speaker"
        self.pacing_ms: int | None = PACING_DEFAULT_MS
        self.opted_in = admission.openline
        self._socket = socket
        self._gateway = gateway
        self._admission = admission
        self._request = request
        self._wishes: Wishes | None = None
        self._driver: SessionDriver | None = None
        self._hear: Callable[[bytes, bytes], None] | None = None
        """Where a speaker's audio goes once it is attached."""
        self._view: View | None = None
        self._shows_server_tools = self.opted_in
        self._outbox = Outbox(
            socket.send_text,
            self._overflowed,
            send_all=socket.send_texts,
            send_soon=socket.send_text_soon,
        )
        self._ids = frames.EventIds(Epoch(0))
        self._shown = Seq(0)
        self._token = ""
        self._attached_seq: Seq | None = None
        self._pending: list[c.ClientEvent] = []
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None
        self._retrievals: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------ the socket opens

    def on_open(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._begin())

    async def _begin(self) -> None:
        try:
            if self._admission.is_beta:
                message = (
                    "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."
                )
                raise ClientProtocolError(message, code="beta_api_shape_disabled")
            self._wishes = Wishes.of(self._request)
            driver = await self._find_session(self._wishes)
            if not self._is_closed:
                await self._attach(driver, self._wishes)
        except ClientProtocolError as error:
            self._refuse(error)
        except SessionEnded as error:
            self._refuse(ClientProtocolError(error.message, code="session_ended"), ENDED)
        except OpenlineError as error:
            log.warning("connection %s refused: %s", self.conn, error.code)
            self._refuse(ClientProtocolError(error.message, code=error.code, kind="server_error"))
        except Exception as error:  # the edge of a connection: it is closed, the gateway goes on
            log.exception("connection %s failed: %s", self.conn, type(error).__name__)
            self._socket.close(1011, "internal error")
        finally:
            self._task = None

    async def _find_session(self, wishes: Wishes) -> SessionDriver:
        principal = self._admission.principal
        config = self._first_config(wishes)
        if wishes.session_id is None:
            return await self._gateway.create(principal.tenant, config)
        if principal.kind == "resume":
            driver = await self._gateway.load(wishes.session_id, tenant=principal.tenant)
        else:
            driver, _ = await self._gateway.attach_or_create(principal.tenant, wishes.session_id, config)
        state = driver.session.state
        if state.status == "ended":
            raise SessionEnded("The session has ended; connect without 'session_id' for a new one.")
        known = state.tokens.get(token_hash(self._admission.resume_token))
        if principal.kind == "resume" and known != wishes.role:
            raise ClientProtocolError("The token is for another role.", code="invalid_token", param="token")
        return driver

    def _first_config(self, wishes: Wishes) -> SessionConfig:
        config = self._gateway.agent.config
        if wishes.model:
            config = replace(config, model=wishes.model)
        secret = self._admission.principal.session
        if secret:
            config = to_config(config, msgspec.json.decode(secret, type=dict[str, object]), may_retype=True)
        elif wishes.transcribes:
            config = replace(config, purpose="transcription")
        return config

    async def _attach(self, driver: SessionDriver, wishes: Wishes) -> None:
        state = driver.session.state
        self._driver = driver
        self._hear = driver.caller.append if wishes.role == "speaker" else None
        self.role, self.pacing_ms = wishes.role, wishes.pacing_ms
        self._shows_server_tools = self.opted_in or wishes.server_tools
        self._ids = frames.EventIds(state.epoch)
        transcribes = state.config.purpose == "transcription"
        self._view = View(
            self.opted_in, self.conn, self.role, wishes.strict, state.session, transcribes=transcribes
        )
        self._token = secrets.token_urlsafe(24)
        self._outbox.durable(driver.durable_seq)
        before = Seq(state.seq)
        driver.make_way(self.role)
        partials = self._partials(before)
        resumable = self.opted_in
        attach = i.Attach(
            self.conn,
            self.role,
            self.opted_in,
            wishes.strict,
            resumable,
            -1 if self.pacing_ms is None else self.pacing_ms,
            token_hash(self._token),
            token_hash(self._admission.resume_token),
        )
        driver.attach(self, attach)
        if self.conn not in driver.session.state.connections:
            raise SessionEnded("The session has ended; connect without 'session_id' for a new one.")
        since = await self._since(wishes, before)
        # Its id says what the client had before it: whoever is cut right after it comes back with that.
        created = self._created(wishes, self._ids.next(since.seq, since.seen))
        first = [(self._attached_seq or Seq(0), created)]
        if wishes.after is not None and self.opted_in:
            first += [*since.told, *await self._missed(since, before), *partials]
        self._outbox.open(first)
        self._gateway.relieved.add(self._drain_pending)
        self._drain_pending()

    def _created(self, wishes: Wishes, event_id: str) -> bytes:
        assert self._driver is not None and self._view is not None
        state = self._driver.session.state
        lost: tuple[str, ...] = ()
        opening = frames.Opening(state.session, state.epoch, self._token, self.role, wishes.after_text, lost)
        return frames.session_created(event_id, state.config, self._view, opening)

    async def _since(self, wishes: Wishes, before: Seq) -> _Since:
        """Where a client goes on. What it saw beyond the end of an epoch is void: it goes on from that end."""
        if wishes.after is None or not self.opted_in:
            return _Since(before, MAX_FRAMES - 1)
        assert self._driver is not None
        state, store = self._driver.session.state, self._gateway.store
        epoch, seq, n = wishes.after
        await store.flush()
        end = before
        if epoch <= state.epoch and seq <= before:
            at = await store.read(state.session, after=Seq(max(0, seq - 1)), limit=1)
            if seq == 0 or epoch == state.epoch or at[0].epoch <= epoch:
                return _Since(seq, frames.last_seen(n))
            end = await self._end_of(epoch)
        rewound = frames.rewound(self._ids.next(end), epoch, end)
        return _Since(end, MAX_FRAMES - 1, ((Seq(0), rewound),))

    async def _end_of(self, epoch: Epoch) -> Seq:
        """The last seq that was stored under ``epoch`` or before it."""
        assert self._driver is not None
        end = Seq(0)
        while records := await self._gateway.store.read(self._driver.session.state.session, after=end):
            for record in records:
                if record.epoch > epoch:
                    return end
                end = record.last_seq
        return end

    async def _missed(self, since: _Since, before: Seq) -> list[tuple[Seq, bytes]]:
        """What a returning client has not seen: the rest of the fact it stopped in, then every fact up to its attach."""
        assert self._driver is not None and self._view is not None
        found: list[tuple[Seq, bytes]] = []
        after = Seq(max(0, since.seq - 1))
        while records := await self._gateway.store.read(self._driver.session.state.session, after=after):
            for record in records:
                for offset, fact in enumerate(decode_facts(record.body)):
                    at = Seq(record.first_seq + offset)
                    if since.seq <= at <= before:
                        shown = render(fact, epoch=record.epoch, seq=at, view=self._view)
                        found += [
                            (at, frame) for index, frame in shown if at > since.seq or index > since.seen
                        ]
            after = records[-1].last_seq
            if after >= before:
                break
        return found

    def _partials(self, before: Seq) -> list[tuple[Seq, bytes]]:
        """The text so far of items that are still being made: the whole, in place of what was missed.

        Taken before the attachment, after which each piece comes as a delta of its own.
        """
        assert self._driver is not None
        found: list[tuple[Seq, bytes]] = []
        for track in self._driver.playout.tracks():
            is_sent_again = self.role == "speaker" and track.resumed_ms is not None
            if track.shown and (is_sent_again or not track.is_finished):
                values: dict[str, object] = {"response_id": track.response, "item_id": track.item}
                values["text"] = track.shown
                if track.resumed_ms is not None:
                    values["audio_start_ms"] = track.resumed_ms
                event_id = self._ids.next(before)
                frame = {"type": "openline.item.partial", "event_id": event_id, **values}
                found.append((Seq(0), msgspec.json.encode(frame)))
        return found

    def _refuse(self, error: ClientProtocolError, code: int = FATAL) -> None:
        """Fatal: the error, then the close that names it (openai-protocols.md B.7)."""
        if self._is_closed:
            return
        problem = Problem(error.code, error.message, error.kind, error.param)
        self._socket.send_text(frames.error_frame(self._ids.next(Seq(0)), problem, error.event_id))
        self._socket.close(code, f"{error.kind}.{error.code}")

    # --------------------------------------------------------------------------------- events of the client

    def on_text(self, payload: bytes) -> None:
        try:
            event = c.decode(payload, opted_in=self.opted_in)
        except ClientProtocolError as error:
            self._reject(error)
            return
        if type(event) is c.AppendAudio:
            if self._hear is not None and len(event.audio) % 2 == 0:
                self._hear(event.audio, payload)
            else:
                self._append(event)
        elif self._driver is None or self._pending or self._gateway.store.is_saturated:
            self._hold(event)
        else:
            self._dispatch(event)

    def on_binary(self, payload: bytes) -> None:
        message = "Expected JSON text frames with base64 audio; got a binary frame."
        self._reject(ClientProtocolError(message, code="invalid_event"))

    def on_writable(self, is_writable: bool) -> None:
        """Backpressure is bounded by the socket's own backlog limit; nothing to do here."""

    def on_close(self, code: int, reason: str, clean: bool) -> None:
        self._is_closed = True
        self._gateway.relieved.discard(self._drain_pending)
        self._outbox.drop()
        self._pending.clear()
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._retrievals is not None:
            self._retrievals.cancel()
        if self._driver is not None:
            is_clean = clean and code in (1000, 1001, 1005)
            self._driver.detach(self.conn, code, is_clean)

    def _append(self, event: c.AppendAudio) -> None:
        if self.role != "speaker":
            message = f"A connection with role '{self.role}' sends no audio; attach with role=speaker."
            self._reject(ClientProtocolError(message, code="invalid_event", event_id=event.event_id))
        elif self._driver is None:
            self._hold(event)
        elif len(event.audio) % 2 and self._driver.session.state.config.input_format == "pcm":
            self._reject(c.odd_audio(event))
        else:
            self._driver.append_audio(event.audio)

    def _hold(self, event: c.ClientEvent) -> None:
        if len(self._pending) < PENDING_MAX:
            self._pending.append(event)
        else:
            self._socket.close(SLOW, "too many events at once")

    def _drain_pending(self) -> None:
        while self._pending and not self._is_closed and not self._gateway.store.is_saturated:
            event = self._pending.pop(0)
            if type(event) is c.AppendAudio:
                self._append(event)
            else:
                self._dispatch(event)

    def _dispatch(self, event: c.ClientEvent) -> None:
        driver = self._driver
        assert driver is not None
        command = event.event_id or ""
        if self.opted_in and command and driver.session.knows_command(command):
            self.receipt(command, "duplicate")
            return
        try:
            if self.role == "observer" and not isinstance(event, c.RetrieveItem):
                message = "An observer only watches; attach with role=texter or role=speaker to act."
                raise ClientProtocolError(message, code="invalid_event", event_id=event.event_id)
            _HANDLERS[type(event)](self, driver, event)
        except ClientProtocolError as error:
            self._reject(error)

    def _reject(self, error: ClientProtocolError) -> None:
        self.error(error.event_id or "", Problem(error.code, error.message, error.kind, error.param))
        if self.opted_in and error.event_id:
            self.receipt(error.event_id, "rejected")

    # -- one function for each event

    def _update(self, driver: SessionDriver, event: c.UpdateSession) -> None:
        strict = self._view is not None and self._view.strict
        current = driver.session.state.config
        config = to_config(current, event.session, strict=strict, event_id=event.event_id)
        driver.offer(i.UpdateConfig(config, self.conn, event.event_id or ""))

    def _commit(self, driver: SessionDriver, event: c.CommitBuffer) -> None:
        end = driver.heard_until
        start = max(driver.buffer_start, end - BUFFER_MAX_MS * RATE // 1000)
        driver.offer(i.CommitAudio(AudioRange(start, end), self.conn, event.event_id or ""))

    def _clear(self, driver: SessionDriver, event: c.ClearBuffer) -> None:
        driver.offer(i.ClearAudio(self.conn, event.event_id or ""))

    def _create_item(self, driver: SessionDriver, event: c.CreateItem) -> None:
        strict = self._view is not None and self._view.strict
        item = to_item(event.item, strict=strict, event_id=event.event_id)
        driver.offer(i.CreateItem(item, event.previous_item_id, self.conn, event.event_id or ""))

    def _delete(self, driver: SessionDriver, event: c.DeleteItem) -> None:
        driver.offer(i.DeleteItem(ItemId(event.item_id), self.conn, event.event_id or ""))

    def _truncate(self, driver: SessionDriver, event: c.TruncateItem) -> None:
        driver.offer(
            i.TruncateItem(
                ItemId(event.item_id),
                event.content_index,
                event.audio_end_ms,
                self.conn,
                event.event_id or "",
            )
        )

    def _create_response(self, driver: SessionDriver, event: c.CreateResponse) -> None:
        strict = self._view is not None and self._view.strict
        request = to_request(
            event.response, driver.session.state.item, strict=strict, event_id=event.event_id
        )
        driver.offer(i.CreateResponse(request, self.conn, event.event_id or ""))

    def _cancel(self, driver: SessionDriver, event: c.CancelResponse) -> None:
        response = ResponseId(event.response_id) if event.response_id else None
        cuts = driver.playout.cuts()
        driver.offer(i.CancelResponse(response, cuts, "client_cancelled", self.conn, event.event_id or ""))

    def _clear_output(self, driver: SessionDriver, event: c.ClearOutput) -> None:
        """WebRTC and SIP only: a WebSocket client holds its own output; what we hold is not released yet."""

    def _playout(self, driver: SessionDriver, event: c.ReportPlayout) -> None:
        driver.report_playout(ItemId(event.item_id), event.audio_end_ms)

    def _end(self, driver: SessionDriver, event: c.EndSession) -> None:
        cuts = driver.playout.cuts()
        driver.offer(i.EndSession(event.reason or "client", self.conn, event.event_id or "", cuts))

    def _retrieve(self, driver: SessionDriver, event: c.RetrieveItem) -> None:
        item = driver.session.state.item(ItemId(event.item_id))
        if item is None:
            message = f"Error retrieving item: the item with id '{event.item_id}' does not exist."
            raise ClientProtocolError(
                message, code="item_retrieve_invalid_item_id", param="item_id", event_id=event.event_id
            )
        audio = item.content[0].audio if item.content else None
        if audio is None:
            self._send_retrieved(item, b"")
        else:
            before = self._retrievals
            self._retrievals = asyncio.get_running_loop().create_task(
                self._retrieve_audio(item, audio, before)
            )

    async def _retrieve_audio(self, item: Item, audio: AudioRange, before: asyncio.Task[None] | None) -> None:
        """One after the other, so that answers come in the order of the questions."""
        if before is not None:
            await asyncio.wait([before])
        assert self._driver is not None
        pcm = await self._driver.caller_audio(audio.start, audio.end)
        given = self._driver.session.state.config.input_format
        if given != "pcm":
            codec = self._driver.codecs.fresh(given)
            pcm = codec.encode(pcm) + codec.flush()
        self._send_retrieved(item, pcm)

    def _send_retrieved(self, item: Item, pcm: bytes) -> None:
        assert self._view is not None
        encoded = base64.b64encode(pcm).decode()
        self._partial(frames.item_retrieved(self._ids.next(self._shown), item, self._view, encoded))

    # -------------------------------------------------------------------------------- what the runtime shows

    def show(self, epoch: Epoch, first_seq: Seq, facts: Sequence[Fact]) -> None:
        assert self._view is not None
        if self._attached_seq is None:
            self._attached_seq = Seq(first_seq + len(facts) - 1)
        for offset, fact in enumerate(facts):
            seq = Seq(first_seq + offset)
            seen = fact if self._shows_server_tools else self._without_server_tools(fact)
            if seen is not None:
                for _, frame in render(seen, epoch=epoch, seq=seq, view=self._view):
                    self._outbox.put(frame, seq)
            if type(fact) is TurnTranscribed:
                self._view.words.pop(fact.item_id, None)
            self._shown = seq

    def _without_server_tools(self, fact: Fact) -> Fact | None:
        # The runtime shows a step's facts right after it: the conversation stands as they left it.
        assert self._driver is not None
        return without_server_tools(fact, shown_in(self._driver.session.state))

    def durable(self, mark: Seq) -> None:
        self._outbox.durable(mark)

    def _partial(self, frame: bytes) -> None:
        self._outbox.put(frame)

    def text_delta(self, response: ResponseId, item: ItemId, index: int, text: str, spoken: bool) -> None:
        if spoken:  # its audio comes behind it
            frame = frames.transcript_delta(self._ids.next(self._shown), response, item, index, text)
            self._outbox.put_soon(frame)
        else:
            self._partial(frames.text_delta(self._ids.next(self._shown), response, item, index, text))

    def audio_delta(self, response: ResponseId, item: ItemId, index: int, pcm: bytes) -> None:
        self._outbox.put(frames.audio_delta(self._ids.next(self._shown), response, item, index, pcm))

    def call_delta(
        self, response: ResponseId, item: ItemId, index: int, call_id: CallId, arguments: str, ours: bool
    ) -> None:
        if ours and not self._shows_server_tools:
            return
        own = None if ours else call_id
        self._partial(
            frames.arguments_delta(self._ids.next(self._shown), response, item, index, own, arguments)
        )

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        """Realtime has no events for it."""

    def user_partial(self, turn: TurnId, item: ItemId, text: str) -> None:
        if self.opted_in:
            self._partial(frames.user_partial(self._ids.next(self._shown), turn, item, text))

    def transcript_partial(self, turn: TurnId, item: ItemId, text: str) -> None:
        assert self._view is not None
        words = self._view.words
        told = words.get(item, "")
        if self.opted_in or not self._view.transcribes:
            self.user_partial(turn, item, text)
        elif text.startswith(told) and text != told:  # A new link begins again: until it has caught up.
            words[item] = text
            self._partial(
                frames.transcription_delta(self._ids.next(self._shown), item, text.removeprefix(told))
            )

    def error(self, command: str, problem: Problem) -> None:
        self._partial(frames.error_frame(self._ids.next(self._shown), problem, command or None))

    def receipt(self, command: str, outcome: str) -> None:
        kind = cast('Literal["accepted", "rejected", "duplicate"]', outcome)
        self._outbox.put(frames.receipt(self._ids.next(self._shown), command, kind, self._shown), self._shown)

    def resend_item(self, item: Item, previous: ItemId | None) -> None:
        assert self._view is not None
        if previous is not None and not self._shows_server_tools:
            assert self._driver is not None
            previous = shown_in(self._driver.session.state)(previous)
        ids = (self._ids.next(self._shown), self._ids.next(self._shown))
        for frame in frames.item_resent(ids, item, previous, self._view):
            self._partial(frame)

    def close(self, code: int, reason: str) -> None:
        """At its place in the stream: what was said before it is sent first."""
        if code == ELSEWHERE and not self.opted_in:
            code = 1012  # Service restart: stock SDKs take 4503 for a final close.
        if self._driver is not None and self._driver.is_stopped:
            self._socket.close(code, reason)
        else:
            self._outbox.then(lambda: self._socket.close(code, reason), self._shown)

    def _overflowed(self) -> None:
        self._socket.close(SLOW, "slow consumer")


_HANDLERS: dict[type[c.ClientEvent], Callable[..., None]] = {
    c.UpdateSession: RealtimeConnection._update,
    c.CommitBuffer: RealtimeConnection._commit,
    c.ClearBuffer: RealtimeConnection._clear,
    c.CreateItem: RealtimeConnection._create_item,
    c.DeleteItem: RealtimeConnection._delete,
    c.TruncateItem: RealtimeConnection._truncate,
    c.CreateResponse: RealtimeConnection._create_response,
    c.CancelResponse: RealtimeConnection._cancel,
    c.ClearOutput: RealtimeConnection._clear_output,
    c.ReportPlayout: RealtimeConnection._playout,
    c.EndSession: RealtimeConnection._end,
    c.RetrieveItem: RealtimeConnection._retrieve,
}
