"""The upstream model link: OpenAI Realtime and every server that speaks it, by base URL and key.

``OpenAIRealtimeLink`` is a ``ModelLink`` that hears: audio goes up and comes down as it is. It keeps one
provider session at a time, judges it by what it receives, and renews it before the provider's cap at a
quiet moment. Reconnecting after a loss is the session's job (``LinkSink.lost``): it knows what was in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from openline.adapters.link_openai_realtime.caller import CallerAudio
from openline.adapters.link_openai_realtime.formats import Formats
from openline.adapters.link_openai_realtime.session import Provider, ProviderSession
from openline.adapters.link_openai_realtime.socket import (
    REFUSED_FOR_GOOD,
    Address,
    SocketSettings,
    may_not_know,
)
from openline.core.audio import BYTES_PER_MS, SAMPLES_PER_MS
from openline.core.model import AudioFormat, Item, SessionConfig
from openline.errors import LinkError
from openline.ports import CodecFactory, LinkSink, ModelLink, ResponseStart, Straight
from openline.types import ItemId, ResponseId, SessionId
from openline.wire import upstream

log = logging.getLogger("openline.link")

OPENAI_URL = "https://api.openai.com/v1"
TRANSCRIPTION = "gpt-4o-mini-transcribe"
HELD_MAX = 1_000
"""Commands kept while the link opens; a client that sends more in that time is not talking."""
SWAP_CHECK_S = 0.2
"""How often a quiet moment is looked for once a new connection stands ready."""
STARVED_S = 1.0
"""A look that comes so late judges nobody: the loop was busy, and what came meanwhile is not read yet."""
FILL_MS = 500
"""Silence beyond the window that ends a turn: detectors are not exact."""
OVERLAP_MS = 700
"""Audio that a renewed socket is given again, so that a word begun before the swap is heard from its start: so long
may a detector and the line need to say that somebody speaks. Of a turn that is over nothing is given again."""


Command = Callable[[ProviderSession], None]


@dataclass(frozen=True, slots=True)
class OpenAIRealtimeSettings:
    """Seconds. ``rotate_s``: age at which a new connection is opened beside the old one, which takes over at the
    next quiet moment; ``rotate_by_s``: from then on also while something plays or waits for its text, only not in a
    reply or in speech. Both stay below the provider's cap of 60 min. ``stall_s``: a response without a byte that
    means something; ``dead_s``: a line without one. ``probe_s``: caller audio that nothing answers; then the server
    is asked a question, and has as long again to answer it.
    """

    rotate_s: float = 55 * 60
    rotate_by_s: float = 58 * 60
    rotate_retry_s: float = 15
    handshake_s: float = 10
    stall_s: float = 10
    ping_s: float = 20
    probe_s: float = 5
    dead_s: float = 45
    check_s: float = 2
    transcription: str = TRANSCRIPTION
    socket: SocketSettings = field(default_factory=SocketSettings)


@dataclass(frozen=True, slots=True)
class _Standby:
    """The connection that will take over, and what it was given: the history then, and the settings."""

    session: ProviderSession
    config: SessionConfig
    items: tuple[Item, ...]
    born: float


class OpenAIRealtimeLink(ModelLink):
    """``counts``: events that were unknown, malformed, garbage, errors; frames of audio that were dropped."""

    __slots__ = (
        "_appended",
        "_audio",
        "_born",
        "_closing",
        "_config",
        "_due",
        "_formats",
        "_held",
        "_is_closed",
        "_is_playing",
        "_knows_transcription",
        "_last",
        "_preparing",
        "_provider",
        "_recent",
        "_recent_bytes",
        "_recent_format",
        "_recent_max",
        "_rotate_after",
        "_seen_position",
        "_session",
        "_settings",
        "_sink",
        "_standby",
        "_timer",
        "counts",
        "input_format",
        "output_format",
        "rotations",
        "straight",
    )

    hears = True

    def __init__(
        self, provider: Provider, settings: OpenAIRealtimeSettings, make_codec: CodecFactory | None = None
    ) -> None:
        self._provider = provider
        self._formats = Formats(make_codec, provider.address.name)
        self._knows_transcription: bool | None = None
        """Whether the provider has sessions that only write down; None until it was asked for one."""
        self._settings = settings
        self._sink: LinkSink | None = None
        self._session: ProviderSession | None = None
        self._audio: CallerAudio | None = None
        """That of the session: looked up once, not at each of 50 frames a second."""
        self._last: ProviderSession | None = None
        """The one that was lost, for what it had heard."""
        self._config = SessionConfig()
        self._recent: list[bytes] | None = None
        """The last of what was sent, once a connection is being prepared that will have to be given it."""
        self._recent_format: AudioFormat = "pcm"
        self._recent_bytes = 0
        self._recent_max = OVERLAP_MS * BYTES_PER_MS["pcm"]
        self._appended = 0
        """Samples given to this link before there was ``_audio``, or when there was none any more."""
        self._is_playing = False
        self._is_closed = False
        self._held: list[Command] | None = []
        """What the session did while the link was opening, in order; None from then on."""
        self._born = 0.0
        self._rotate_after = 0.0
        self._standby: _Standby | None = None
        self._preparing: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._due = 0.0
        self._seen_position = 0
        self._timer: asyncio.TimerHandle | None = None
        self.input_format: AudioFormat = "pcm"
        self.output_format: AudioFormat = "pcm"
        self.straight: Straight | None = None
        self.rotations = 0
        self.counts: Counter[str] = Counter()

    # -- life

    async def open(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> None:
        self._sink, self._config = sink, upstream.as_taken(config)
        born = asyncio.get_running_loop().time()
        session = await self._connect(sink, self._config, items)
        if self._is_closed:
            await session.close()
            return
        held, self._held = self._held or [], None
        for act in held:
            act(session)
        self._take(session, born)
        self._watch()
        sink.opened()

    async def _connect(self, sink: LinkSink, config: SessionConfig, items: Sequence[Item]) -> ProviderSession:
        """Raises LinkError. Where a provider does not know sessions that only write down, they are realtime sessions
        that nobody answers, and the log says so."""
        if config.purpose == "realtime" or self._knows_transcription is False:
            return await self._open(sink, config, items, "realtime")
        try:
            session = await self._open(sink, config, items, "transcription")
        except LinkError as error:
            if self._knows_transcription or not may_not_know(error):
                raise
            session = await self._open(sink, config, items, "realtime")
            self._knows_transcription = False
            log.warning(
                "%s: no transcription sessions there (%s); it is a realtime session that nobody answers",
                self._provider.address.name,
                error.cause,
            )
            return session
        self._knows_transcription = True
        return session

    async def _open(
        self, sink: LinkSink, config: SessionConfig, items: Sequence[Item], kind: upstream.Kind
    ) -> ProviderSession:
        """Raises LinkError. A provider that hangs up on formats it does not know is tried once more with PCM16."""
        session = ProviderSession(self._provider, sink, self, self._formats, kind)
        try:
            await session.open(config, items)
        except LinkError as error:
            is_silent = error.cause.startswith("no_session")  # And would be a second time, past all patience.
            if is_silent or error.cause in REFUSED_FOR_GOOD or not session.may_dislike_formats:
                raise
            self._formats.refuse_all(session.audio.asked)
            session = ProviderSession(self._provider, sink, self, self._formats, kind)
            await session.open(config, items)
        return session

    def _take(self, session: ProviderSession, born: float) -> None:
        """From here on audio goes to ``session``; what was kept goes there first."""
        position = self._position
        session.turns.begin_at(position, self._recent_samples())
        session.confirmed = session.audio.appended = position
        for data in self._recent or ():
            session.audio.replay(self._recent_format, data)
        self._forget_all_recent()
        self._leave()
        self._session, self._audio, self.straight = session, session.audio, session.audio.straight
        self._audio.may_go_straight = True
        self.input_format, self.output_format = session.audio.input_format, "pcm"
        self._born = born
        self._rotate_after = born + self._settings.rotate_s

    async def close(self) -> None:
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._preparing is not None and not self._preparing.done():
            self._preparing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._preparing
        self._drop_standby()
        session = self._session
        self._leave()
        if session is not None:
            await session.close()
        await asyncio.gather(*self._closing)

    def lost(self, session: ProviderSession, error: LinkError) -> None:
        if self._standby is not None and session is self._standby.session:
            log.warning("renewing failed: %s", error)
            self._standby = None
            self._rotate_later()
            return
        self._last = session
        self._leave()
        self._drop_standby()
        if self._timer is not None:
            self._timer.cancel()
        if self._sink is not None and not self._is_closed:
            self._sink.lost(error)

    def _leave(self) -> None:
        """No audio goes to the session any more."""
        if self._audio is not None:
            self._audio.may_go_straight = False
        self._appended = self._position
        self._session, self._audio, self.straight = None, None, None

    @property
    def _position(self) -> int:
        """Samples given to this link so far."""
        return self._appended if self._audio is None else self._audio.appended

    def takes(self, session: ProviderSession) -> None:
        if session is self._session:
            self.input_format = session.audio.input_format

    def speaks(self, session: ProviderSession, name: AudioFormat) -> None:
        if session is self._session:
            self.output_format = name

    def _drop_standby(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            self._close_behind(standby.session)

    def _close_behind(self, session: ProviderSession) -> None:
        """Nothing more is heard of it; its closing handshake is waited for by nobody but ``close``."""
        session.cut()
        closing = asyncio.get_running_loop().create_task(session.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # -- watching and renewing

    def _watch(self) -> None:
        """Look at the line now, and again in a while. A timer of the loop: no reply and no caller can keep it back."""
        loop, settings = asyncio.get_running_loop(), self._settings
        now = loop.time()
        is_starved = self._due != 0.0 and now - self._due > STARVED_S
        for session in (self._session, self._standby.session if self._standby is not None else None):
            if session is not None and is_starved:
                session.excuse(now)
            elif session is not None:
                session.check(now, settings)
        self._renew(now)
        self._fill()
        if self._session is not None and not self._is_closed:
            wait = settings.check_s if self._standby is None else min(SWAP_CHECK_S, settings.check_s)
            self._due = now + wait
            self._timer = loop.call_later(wait, self._watch)

    def _fill(self) -> None:
        """A client that stops sending in mid-utterance (muted, push to talk) has fallen silent, and the provider's
        detector only moves with audio: it is given the silence that ends a turn (failures.md A13)."""
        session, position = self._session, self._position
        is_starved, self._seen_position = position == self._seen_position, position
        detection = self._config.turn_detection
        if session is not None and detection is not None and is_starved and session.turns.is_speaking:
            session.audio.fill(detection.silence_duration_ms + FILL_MS)

    def _renew(self, now: float) -> None:
        """Before the provider's cap strikes: first a second connection with the history, then, in a quiet moment, the
        swap. The old one goes on meanwhile, and whatever it makes is added to what the new one knows."""
        session = self._session
        if session is None or self._is_closed or now < self._rotate_after:
            return
        if self._standby is None:
            if self._preparing is None or self._preparing.done():
                self._preparing = asyncio.get_running_loop().create_task(self._prepare())
        elif now - self._standby.born >= OVERLAP_MS / 1000 and self._is_quiet(session, now):
            self._swap(session, self._standby)

    def _is_quiet(self, session: ProviderSession, now: float) -> bool:
        """Whether nothing would be cut by a swap. Late in its life a session may not be choosy."""
        if session.replies.is_active or session.turns.is_speaking or session.audio.is_waiting:
            return False
        if self._config.turn_detection is None and session.turns.uncommitted:
            return False  # What the client has not committed yet is nowhere but in that session's buffer.
        is_late = now - self._born >= self._settings.rotate_by_s
        return is_late or (not self._is_playing and session.turns.is_settled)

    async def _prepare(self) -> None:
        assert self._sink is not None
        born = asyncio.get_running_loop().time()
        self._recent = self._recent or []
        if self._audio is not None:
            self._audio.may_go_straight = False
        config, items = self._config, tuple(self._sink.conversation())
        try:
            new = await self._connect(self._sink, config, items)
        except LinkError as error:
            # The old one still works: it goes on, and if it ends first the session reconnects.
            log.warning("renewing failed: %s", error)
            self._rotate_later()
            return
        if self._is_closed or self._session is None:
            await new.close()
            return
        self._standby = _Standby(new, config, items, born)

    def _rotate_later(self) -> None:
        self._forget_all_recent()
        if self._audio is not None:
            self._audio.may_go_straight = True
        self._rotate_after = asyncio.get_running_loop().time() + self._settings.rotate_retry_s

    def _swap(self, old: ProviderSession, standby: _Standby) -> None:
        """Tell the new connection what has happened since it was opened, and go over to it."""
        assert self._sink is not None
        items, known = tuple(self._sink.conversation()), len(standby.items)
        if items[:known] != standby.items:
            # Not only more was said: something was cut, deleted or answered. It is begun anew with the history now.
            self._drop_standby()
            return
        new, self._standby = standby.session, None
        if self._config != standby.config:
            new.update(self._config)
        new.conversation.rehydrate(items, known)
        self._forget_recent(old.turns.last_end)
        self._take(new, standby.born)
        self.rotations += 1
        log.info("%s: connection renewed", self._provider.address.name)
        self._close_behind(old)
        self._sink.renewed("age")

    def _do(self, act: Command) -> None:
        if self._session is not None:
            act(self._session)
        elif self._held is not None and len(self._held) < HELD_MAX:
            self._held.append(act)

    # -- audio up

    def append_audio(self, pcm: bytes, frame: bytes = b"") -> None:
        samples = len(pcm) >> 1
        self._count(samples)
        if self._recent is not None:
            self._keep("pcm", pcm)
        if self._audio is not None:
            self._audio.append("pcm", pcm, samples, frame)

    def _count(self, samples: int) -> None:
        if self._audio is None:
            self._appended += samples
        else:
            self._audio.appended += samples

    def replay_audio(self, pcm: bytes) -> None:
        samples = len(pcm) >> 1
        self._count(samples)
        if self._recent is not None:
            self._keep("pcm", pcm)
        if self._audio is not None:
            self._audio.append_again("pcm", pcm, samples)

    def append_encoded(self, data: bytes, samples: int, *, is_replay: bool = False) -> None:
        name = self.input_format
        self._count(samples)
        if self._recent is not None:
            self._keep(name, data)
        if self._audio is not None and is_replay:
            self._audio.append_again(name, data, samples)
        elif self._audio is not None:
            self._audio.append(name, data, samples)

    def _keep(self, name: AudioFormat, data: bytes) -> None:
        """One format is kept: a change forgets what came before it, which matters if a swap follows at once."""
        recent = self._recent
        assert recent is not None
        if name != self._recent_format:
            self._recent_format, self._recent_bytes = name, 0
            self._recent_max = OVERLAP_MS * BYTES_PER_MS[name]
            recent.clear()
        recent.append(data)
        self._recent_bytes += len(data)
        while self._recent_bytes > self._recent_max:
            self._recent_bytes -= len(recent.pop(0))

    def _recent_samples(self) -> int:
        return self._recent_bytes * SAMPLES_PER_MS // BYTES_PER_MS[self._recent_format]

    def _forget_recent(self, end: int) -> None:
        """Drop what of the last audio begins before position ``end``."""
        while self._recent and self._position - self._recent_samples() < end:
            self._recent_bytes -= len(self._recent.pop(0))

    def _forget_all_recent(self) -> None:
        self._recent, self._recent_bytes = None, 0

    def unconfirmed(self) -> int:
        session = self._session or self._last
        return 0 if session is None else max(0, self._position - session.confirmed)

    def commit_audio(self, item_id: ItemId, start: int, end: int) -> None:
        self._do(lambda session: session.commit(item_id, start, end))

    def clear_audio(self) -> None:
        if self._recent is not None:
            self._recent.clear()
            self._recent_bytes = 0
        self._do(lambda session: session.clear())

    def recognize(self, item_id: ItemId, pcm: bytes) -> bool:
        return self._session is not None and self._session.recognize(item_id, pcm)

    # -- the conversation

    def update(self, config: SessionConfig) -> None:
        config = self._config = upstream.as_taken(config)
        self._do(lambda session: session.update(config))

    def add_item(self, item: Item, previous: ItemId | None) -> None:
        self._do(lambda session: session.add(item, previous))

    def remove_item(self, item_id: ItemId) -> None:
        self._do(lambda session: session.conversation.remove(item_id))

    def truncate(self, item_id: ItemId, audio_end_ms: int, text: str) -> None:
        self._do(lambda session: session.truncate(item_id, audio_end_ms))

    # -- responses

    def start_response(self, start: ResponseStart) -> None:
        self._do(lambda session: session.start(start))

    def cancel_response(self, response: ResponseId) -> None:
        self._do(lambda session: session.replies.cancel(response))

    def named(self, response: ResponseId, output_index: int, item_id: ItemId) -> None:
        if self._session is not None:
            self._session.replies.named(response, output_index, item_id)

    def playing(self, is_playing: bool) -> None:
        self._is_playing = is_playing


class OpenAIRealtimeFactory:
    """Makes links to ``model`` at ``base_url`` (``https://host/v1``; http, ws and wss too).

    ``make_codec``: for providers that do not take a client's G.711; without it all audio is PCM16 there. ``api_key`` is called at each connect, so that a key can change while the gateway runs. ``tls`` None: the
    system's trust. Raises ConfigError for a URL that cannot be one.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: Callable[[], str],
        *,
        settings: OpenAIRealtimeSettings | None = None,
        tls: ssl.SSLContext | None = None,
        make_codec: CodecFactory | None = None,
    ) -> None:
        self._make_codec = make_codec
        self._settings = settings or OpenAIRealtimeSettings()
        address = Address.of(base_url, model)
        if tls is None and address.url.startswith("wss"):
            tls = ssl.create_default_context()  # once: reading the trust store takes tens of milliseconds
        self._provider = Provider(
            address,
            api_key,
            self._settings.transcription,
            self._settings.handshake_s,
            self._settings.socket,
            tls,
        )

    def __call__(self, session: SessionId, config: SessionConfig) -> OpenAIRealtimeLink:
        return OpenAIRealtimeLink(self._provider, self._settings, self._make_codec)
