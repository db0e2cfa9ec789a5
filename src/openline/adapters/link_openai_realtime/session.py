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
from typing import Any, Final, Protocol

from openline.adapters.link_openai_realtime.caller import SWITCH_S, CallerAudio, Pair
from openline.adapters.link_openai_realtime.formats import Formats
from openline.adapters.link_openai_realtime.items import Conversation
from openline.adapters.link_openai_realtime.replies import Replies
from openline.adapters.link_openai_realtime.socket import (
    FOR_NOW,
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
from openline.core.model import AudioFormat, Item, SessionConfig
from openline.core.value import replace
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

NO_CONVERSATION = ("conversation.", "response.create")
"""What a session that only writes down is not asked for: it has no history, and nobody answers."""


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


class Owner(Protocol):
    """The link that a session belongs to. ``lost`` is called at most once, never before ``open`` has returned and
    never after ``close``."""

    counts: Counter[str]

    def lost(self, session: ProviderSession, error: LinkError) -> None: ...

    def takes(self, session: ProviderSession) -> None:
        """Its ``input_format`` is another one now."""

    def speaks(self, session: ProviderSession, name: AudioFormat) -> None:
        """The format of the audio that the sink is given next."""


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
    """``audio`` takes what the caller says; ``turns``, ``replies`` and ``conversation`` are what becomes of it.

    ``kind`` transcription: turns are written down, and there is no more of a conversation than that.
    """

    __slots__ = (
        "_asked_at",
        "_commit_ids",
        "_config",
        "_counts",
        "_created",
        "_is_open",
        "_is_over",
        "_kind",
        "_loop",
        "_number",
        "_opening_id",
        "_owner",
        "_probe",
        "_probed_at",
        "_provider",
        "_settings",
        "_socket",
        "_updated",
        "_updates",
        "_was_told",
        "audio",
        "confirmed",
        "conversation",
        "replies",
        "turns",
    )

    def __init__(
        self, provider: Provider, sink: LinkSink, owner: Owner, formats: Formats, kind: upstream.Kind
    ) -> None:
        self._provider = provider
        self._kind = kind
        self._owner = owner
        self._counts = owner.counts
        self._loop = asyncio.get_running_loop()
        self._socket: Socket | None = None
        self._is_over = False
        self._is_open = False
        self._was_told = False
        """Whether the provider has said why it does not open."""
        self._created: asyncio.Future[None] = self._loop.create_future()
        self._updated: asyncio.Future[None] = self._loop.create_future()
        self._config = SessionConfig()
        self._settings: JsonObject = {}
        self._opening_id = ""
        self._updates: list[str] = []
        """Ids of session.update that are not answered yet."""
        self._commit_ids: set[str] = set()
        self._number = 0
        self._asked_at = 0.0
        self._probe = ""
        self._probed_at = 0.0
        self.confirmed = 0
        """Position of the caller's audio when the provider last said something that means anything."""
        self.conversation = Conversation(self._command, sink.conversation)
        self.turns = Turns(self.send, self._command, sink, self.conversation, kind)
        self.audio = CallerAudio(self, self.turns, formats, owner.counts, kind)
        self.replies = Replies(self._command, self.later, sink, self.conversation, self._speaks)

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
                address.to(self._kind), key, self._arrived, self._closed, provider.socket, provider.tls
            )
            self.audio.socket = self._socket
            async with asyncio.timeout(provider.handshake_s):
                await self._created
                waits_for = "session.updated"
                self._config = config
                self._configure()
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
            self._owner.lost(self, error)
            return
        for future in (self._created, self._updated):
            if not future.done():
                future.set_exception(error)
                future.exception()  # read here, so that the one nobody awaits is not reported as forgotten

    def later(self, seconds: float, do: Callable[[], None]) -> asyncio.TimerHandle:
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
            self._probe = self.update_session({"type": self._kind})
            self._probed_at = now
        elif now - socket.alive_at > limits.ping_s:
            socket.ping()

    def excuse(self, now: float) -> None:
        """Nobody looked at the line for a while: its silence counts from here."""
        if self._socket is not None:
            self._socket.alive_at = self._socket.heard_at = now

    # -- what goes

    def send(self, payload: bytes) -> None:
        if self._socket is not None:
            self._socket.send(payload)

    def _command(self, kind: str, **values: object) -> str:
        if self._kind == "transcription" and kind.startswith(NO_CONVERSATION):
            return ""
        self._number += 1
        event_id = f"ol_{self._number}"
        self.send(upstream.command(kind, event_id, **values))
        return event_id

    def update_session(self, session: JsonObject) -> str:
        event_id = self._command("session.update", session=session)
        self._updates.append(event_id)
        return event_id

    def _configure(self) -> None:
        """The first session.update: all settings, and the formats that may be asked for."""
        self.audio.open_with(self._config)
        self._settings = self._settings_with(self.audio.asked)
        self._opening_id = self.update_session(self._settings)

    def _settings_with(self, formats: Pair) -> JsonObject:
        config = replace(self._config, input_format=formats[0], output_format=formats[1])
        return upstream.session_settings(config, self._provider.transcription, self._kind)

    def update(self, config: SessionConfig) -> None:
        """Formats are changed by themselves, after the other settings."""
        self._config = config
        settings = self._settings_with(self.audio.asked)
        changes = upstream.changed_settings(self._settings, settings)
        self._settings = settings
        if changes:
            self.update_session(changes)
        self.audio.switch(config)

    def takes(self, formats: Pair) -> None:
        self.replies.format = formats[1]
        self._settings = self._settings_with(formats)

    def input_changed(self) -> None:
        self._owner.takes(self)

    def unanswered(self) -> None:
        name = self._provider.address.name
        message = f"{name}: no answer for {SWITCH_S:g} s to a change of formats; trying again."
        self._end(LinkUnavailable(message, cause="no_session_updated"))

    def _speaks(self, name: AudioFormat) -> None:
        self._owner.speaks(self, name)

    @property
    def may_dislike_formats(self) -> bool:
        """Whether an opening that failed may have failed for them: the provider was asked for some, and hung up
        without a word."""
        return not self._is_open and not self._was_told and self.audio.asked != ("pcm", "pcm")

    def recognize(self, item_id: ItemId, pcm: bytes) -> bool:
        heard = self._settings["audio"]
        assert isinstance(heard, dict)
        return self.audio.recognize(item_id, pcm, heard["input"]["turn_detection"])

    def commit(self, item_id: ItemId, start: int, end: int) -> None:
        self.audio.then(lambda: self._commit_ids.add(self.turns.commit(item_id, start, end)))

    def clear(self) -> None:
        self.audio.then(self.turns.clear)

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

    def _session_updated(self, event: upstream.SessionUpdated) -> None:
        told = upstream.kind_of(event.session)
        if not self._is_open and self._kind == "transcription" and told == "realtime":
            name = self._provider.address.name
            self._end(
                LinkRejected(f"{name}: made a realtime session of a transcription.", cause="other_session")
            )
            return
        event_id = self._updates.pop(0) if self._updates else ""
        self.audio.answered(event_id, upstream.formats_of(event.session), is_open=self._is_open)
        _settle(self._updated)

    def _arrived(self, payload: bytes | memoryview) -> bool:
        event = upstream.decode(payload)
        if type(event) is upstream.AudioDelta:  # All but a few are one of these two.
            self.replies.audio(event)
        elif type(event) is upstream.TranscriptDelta:
            self.replies.text(event)
        else:
            _HANDLERS[type(event)](self, event)
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
        if body.event_id is not None and body.event_id in self._updates:
            self._updates.remove(body.event_id)
        if self._refuses_formats(body, code, opens=opens):
            log.debug("%s: error '%s'", address.name, code)
        elif opens or is_permanent(body) or code == "session_expired":
            self._was_told = True
            self._end(error_of(address, body, opening=opens))
        elif body.event_id in self._commit_ids or code == "input_audio_buffer_commit_empty":
            self._commit_ids.discard(body.event_id or "")
            self.turns.commit_failed(code)
        elif code in HARMLESS or body.event_id == self._probe or self.replies.refused(body.event_id, code):
            log.debug("%s: error '%s'", address.name, code)
        else:
            log.warning("%s: error '%s' (%s)", address.name, code, upstream.word(body.param))

    def _refuses_formats(self, body: upstream.ErrorBody, code: str, *, opens: bool) -> bool:
        """An error that only means formats is none: the session goes on without them."""
        if is_permanent(body) or code in FOR_NOW or code in HARMLESS or not (opens or self._is_open):
            return False
        is_refusal = self.audio.refused(body.event_id, body.param or "", code, is_open=self._is_open)
        if is_refusal and body.event_id is None:
            self._updates.clear()  # Which of them it answers is not said.
        if is_refusal and not self._is_open:
            self._configure()
        return is_refusal


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# By type: a match statement would try up to twenty classes.
_HANDLERS: Final[dict[type, Callable[[ProviderSession, Any], None]]] = {
    upstream.TextDelta: lambda session, event: session.replies.text(event),
    upstream.TextDone: lambda session, event: session.replies.text_done(event),
    upstream.TranscriptDone: lambda session, event: session.replies.transcript_done(event),
    upstream.ItemAdded: lambda session, event: session.replies.added(event),
    upstream.ItemDone: lambda session, event: session.replies.item_done(event),
    upstream.ArgumentsDelta: lambda session, event: session.replies.arguments(event),
    upstream.ArgumentsDone: lambda session, event: session.replies.arguments_done(event),
    upstream.ResponseCreated: lambda session, event: session.replies.created(event),
    upstream.ResponseDone: lambda session, event: session.replies.done(event),
    upstream.SpeechStarted: lambda session, event: session.turns.started(event),
    upstream.SpeechStopped: lambda session, event: session.turns.stopped(event),
    upstream.Committed: lambda session, event: session.turns.committed(event),
    upstream.TranscriptionDelta: lambda session, event: session.turns.transcript_delta(event),
    upstream.TranscriptionCompleted: lambda session, event: session.turns.transcribed(event),
    upstream.TranscriptionFailed: lambda session, event: session.turns.transcription_failed(event),
    upstream.SessionCreated: lambda session, event: _settle(session._created),
    upstream.SessionUpdated: ProviderSession._session_updated,
    upstream.ErrorEvent: ProviderSession._error,
    upstream.Unusable: ProviderSession._unusable,
}
