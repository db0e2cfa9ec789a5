"""One socket to a provider with all that belongs to it: the handshake, the frames, what they mean.

A link that renews its connection makes a second one of these, and swaps.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openline.adapters.link_openai_realtime.items import BYTES_PER_MS, Conversation
from openline.adapters.link_openai_realtime.replies import Replies
from openline.adapters.link_openai_realtime.socket import (
    Address,
    Closed,
    Socket,
    SocketSettings,
    connect,
    error_of,
    error_of_close,
    is_permanent,
)
from openline.adapters.link_openai_realtime.turns import Turns
from openline.core.model import Item, SessionConfig
from openline.errors import LinkError, LinkRejected, LinkUnavailable
from openline.ports import LinkSink, ResponseStart
from openline.types import ItemId
from openline.wire import upstream
from openline.wire.items import JsonObject

log = logging.getLogger("openline.link")

HARMLESS = frozenset(
    "response_cancel_not_active item_truncate_invalid_item_id item_delete_invalid_item_id "
    "item_create_duplicate_item_id".split()
)
"""Errors about what is over already: cancel and done cross on the line (failures.md F3, D12)."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Where and how to connect. ``api_key`` is asked at each connect and may raise LinkError; "" sends none.

    ``transcription``: the model that writes down what users say, unless the session names one.
    """

    address: Address
    api_key: Callable[[], str]
    transcription: str
    handshake_s: float
    socket: SocketSettings
    tls: ssl.SSLContext | None = None


class Patience(Protocol):
    """Seconds; see ``OpenAIRealtimeSettings``."""

    @property
    def stall_s(self) -> float: ...

    @property
    def dead_s(self) -> float: ...

    @property
    def ping_s(self) -> float: ...

    @property
    def probe_s(self) -> float: ...


class ProviderSession:
    """``lost`` is called at most once, never before ``open`` has returned and never after ``close``."""

    def __init__(
        self,
        provider: Provider,
        sink: LinkSink,
        lost: Callable[[ProviderSession, LinkError], None],
        counts: Counter[str],
    ) -> None:
        self._provider = provider
        self._lost = lost
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._socket: Socket | None = None
        self._is_over = False
        self._is_open = False
        self._created: asyncio.Future[None] = self._loop.create_future()
        self._updated: asyncio.Future[None] = self._loop.create_future()
        self._settings: JsonObject = {}
        self._opening_id = ""
        self._commit_ids: set[str] = set()
        self._number = 0
        self._asked_at = 0.0
        self._probe = ""
        self._probed_at = 0.0
        self.confirmed = 0
        """Position of the caller's audio when the provider last said something that means anything."""
        self.conversation = Conversation(self._command, sink.conversation)
        self.turns = Turns(self._send, self._command, sink, self.conversation)
        self.replies = Replies(self._command, self._later, sink, self.conversation)
        replies, turns = self.replies, self.turns
        # By type: the match statement would try up to twenty classes for an audio delta.
        self._handlers: dict[type, Callable[..., None]] = {
            upstream.AudioDelta: replies.audio,
            upstream.TranscriptDelta: replies.text,
            upstream.TextDelta: replies.text,
            upstream.TextDone: replies.text_done,
            upstream.TranscriptDone: replies.transcript_done,
            upstream.ItemAdded: replies.added,
            upstream.ItemDone: replies.item_done,
            upstream.ArgumentsDelta: replies.arguments,
            upstream.ArgumentsDone: replies.arguments_done,
            upstream.ResponseCreated: replies.created,
            upstream.ResponseDone: replies.done,
            upstream.SpeechStarted: turns.started,
            upstream.SpeechStopped: turns.stopped,
            upstream.Committed: turns.committed,
            upstream.TranscriptionDelta: turns.transcript_delta,
            upstream.TranscriptionCompleted: turns.transcribed,
            upstream.TranscriptionFailed: turns.transcription_failed,
            upstream.SessionCreated: lambda event: _settle(self._created),
            upstream.SessionUpdated: lambda event: _settle(self._updated),
            upstream.ErrorEvent: self._error,
            upstream.Unusable: self._unusable,
        }

    # -- life

    async def open(self, config: SessionConfig, items: Sequence[Item]) -> None:
        """Connect, wait for the session, configure it, give it the history. Raises LinkError.

        If cancelled the socket is dropped.
        """
        provider = self._provider
        address = provider.address
        key = provider.api_key()
        waits_for = "session.created"
        try:
            self._socket = await connect(
                address, key, self._arrived, self._closed, provider.socket, provider.tls
            )
            async with asyncio.timeout(provider.handshake_s):
                await self._created
                waits_for = "session.updated"
                self._settings = upstream.session_settings(config, provider.transcription)
                self._opening_id = self._command("session.update", session=self._settings)
                self.conversation.rehydrate(items)
                await self._updated
        except TimeoutError:
            self.abort()
            raise LinkUnavailable(
                f"{address.name}: expected '{waits_for}' within {provider.handshake_s:g} s; got none.",
                hint="Check that the URL is a Realtime server of the GA protocol.",
                cause=f"no_{waits_for.replace('.', '_')}",
            ) from None
        except BaseException:
            self.abort()
            raise
        self._is_open = True

    async def close(self) -> None:
        self.cut()
        if self._socket is not None:
            await self._socket.close()

    def cut(self) -> None:
        """Nothing it says is heard any more."""
        self._is_over = True
        if self._socket is not None:
            self._socket.cut()

    def abort(self) -> None:
        self._is_over = True
        if self._socket is not None:
            self._socket.abort()
        for future in (self._created, self._updated):
            future.cancel()

    def _closed(self, closed: Closed) -> None:
        self._end(error_of_close(self._provider.address, closed, opening=not self._is_open))

    def _end(self, error: LinkError) -> None:
        """The session is over: ``open`` raises, or the owner is told."""
        if self._is_over:
            return
        if self._is_open:
            self.cut()
            if self._socket is not None:
                self._socket.abort()
            self._lost(self, error)
            return
        for future in (self._created, self._updated):
            if not future.done():
                future.set_exception(error)
                future.exception()  # read here, so that the one nobody awaits is not reported as forgotten

    def _later(self, seconds: float, do: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, lambda: None if self._is_over else do())

    # -- judging it

    def check(self, now: float, limits: Patience) -> None:
        """Judge by received bytes; ping a quiet line. ``now`` on the loop's clock."""
        socket = self._socket
        if socket is None or self._is_over:
            return
        name = self._provider.address.name
        heard_at = socket.heard_at
        waited = now - max(heard_at, self._asked_at)
        is_probed = self._probed_at > heard_at
        if now - socket.alive_at > limits.dead_s:
            message = f"{name}: nothing received for {limits.dead_s:g} s; trying again."
            self._end(LinkUnavailable(message, cause="line_silent"))
        elif self.replies.is_active and waited > limits.stall_s:
            # A server that answers pings and nothing else is dead to the caller (failures.md B, C).
            message = f"{name}: stalled for {limits.stall_s:g} s in a response; trying again."
            self._end(LinkUnavailable(message, cause="stalled"))
        elif is_probed and now - self._probed_at > limits.probe_s:
            message = f"{name}: no answer for {limits.probe_s:g} s while the caller is heard; trying again."
            self._end(LinkUnavailable(message, cause="deaf"))
        elif not is_probed and now - heard_at > limits.probe_s and self.turns.position > self.confirmed:
            # Somebody may be talking to a server that only answers pings: ask it something.
            self._probe = self._command("session.update", session={"type": "realtime"})
            self._probed_at = now
        elif now - socket.alive_at > limits.ping_s:
            socket.ping()

    def excuse(self, now: float) -> None:
        """Nobody looked at the line for a while: its silence counts from here."""
        if self._socket is not None:
            self._socket.alive_at = self._socket.heard_at = now

    # -- what goes

    def _send(self, payload: bytes) -> None:
        if self._socket is not None:
            self._socket.send(payload)

    def _command(self, kind: str, **values: object) -> str:
        self._number += 1
        event_id = f"ol_{self._number}"
        self._send(upstream.command(kind, event_id, **values))
        return event_id

    def update(self, config: SessionConfig) -> None:
        settings = upstream.session_settings(config, self._provider.transcription)
        changes = upstream.changed_settings(self._settings, settings)
        self._settings = settings
        if changes:
            self._command("session.update", session=changes)

    def append(self, pcm: bytes) -> None:
        socket = self._socket
        if socket is not None and socket.is_writable:
            self.turns.sent(len(pcm) // 2)
            socket.send(upstream.append_audio(pcm))
        else:
            self._counts["dropped_audio"] += 1
            self.turns.skip(len(pcm) // 2)

    def append_again(self, pcm: bytes) -> None:
        """Audio that an earlier socket was given: it comes all at once, and waits where the line is full."""
        self.turns.sent(len(pcm) // 2)
        self._send(upstream.append_audio(pcm))

    def fill(self, ms: int) -> None:
        """Silence that nobody sent."""
        self.turns.filled(ms * BYTES_PER_MS // 2)
        self._send(upstream.append_audio(bytes(ms * BYTES_PER_MS)))

    def replay(self, pcm: bytes) -> None:
        """Audio that was counted already."""
        self._send(upstream.append_audio(pcm))

    def commit(self, item_id: ItemId, start: int, end: int) -> None:
        self._commit_ids.add(self.turns.commit(item_id, start, end))

    def recognize(self, item_id: ItemId, pcm: bytes) -> bool:
        heard = self._settings["audio"]
        assert isinstance(heard, dict)
        return self.turns.recognize(item_id, pcm, heard["input"]["turn_detection"])

    def add(self, item: Item, previous: ItemId | None) -> None:
        if not self.turns.adopt(item):
            self.conversation.add(item, previous)

    def truncate(self, item_id: ItemId, audio_end_ms: int) -> None:
        self.replies.made_so_far(item_id)
        self.conversation.truncate(item_id, audio_end_ms)

    def start(self, start: ResponseStart) -> None:
        self._asked_at = self._loop.time()
        self.replies.start(start)

    # -- what comes

    def _arrived(self, payload: bytes | memoryview) -> bool:
        event = upstream.decode(payload)
        self._handlers[type(event)](event)
        if type(event) is upstream.Unusable and event.why == "garbage":
            return False
        self.confirmed = self.turns.position
        return True

    def _unusable(self, event: upstream.Unusable) -> None:
        self._counts[event.why] += 1
        if event.why != "unknown":
            log.debug("%s: %s event %s", self._provider.address.name, event.why, event.type)
        if event.why == "garbage" and not self._created.done():
            self._end(
                LinkRejected(
                    f"{self._provider.address.name}: expected session.created, got what is no event.",
                    hint="Check the URL: this is not a Realtime server of the GA protocol.",
                    cause="not_realtime",
                )
            )

    def _error(self, event: upstream.ErrorEvent) -> None:
        body = event.body
        code = upstream.word(body.code or body.type)
        self._counts["errors"] += 1
        address = self._provider.address
        opens = not self._is_open and body.event_id in (None, self._opening_id)
        if opens or is_permanent(body) or code == "session_expired":
            self._end(error_of(address, body, opening=opens))
        elif body.event_id in self._commit_ids or code == "input_audio_buffer_commit_empty":
            self._commit_ids.discard(body.event_id or "")
            self.turns.commit_failed(code)
        elif code in HARMLESS or body.event_id == self._probe or self.replies.refused(body.event_id, code):
            log.debug("%s: error '%s'", address.name, code)
        else:
            log.warning("%s: error '%s' (%s)", address.name, code, upstream.word(body.param))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
