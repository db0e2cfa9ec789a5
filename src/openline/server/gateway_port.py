"""What the HTTP API asks of the gateway. The runtime implements it; tests have a fake.

Everything is scoped by tenant: a session of another tenant is not found. Facts arrive rendered (CloudEvents
1.0 JSON, one line each): the API frames them as SSE or NDJSON and never looks inside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from openline.ports import SessionRow
from openline.server.admission import CredentialLookup
from openline.server.auth import AuthPolicy
from openline.server.metrics import Metric
from openline.server.secrets import ValueStore
from openline.types import Seq, SessionId


@dataclass(frozen=True, slots=True)
class FeedLine:
    """One fact as it leaves. ``cursor``: where to go on after it (a seq for one session, opaque text for the feed).

    ``body``: CloudEvents JSON without line breaks.
    """

    cursor: str
    type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons``: one sentence each for what stands in the way; empty when ready."""

    is_ready: bool
    reasons: tuple[str, ...] = ()


class RecordingSource(Protocol):
    """A recording rendered as one WAV file. Its bytes do not change while it is open."""

    @property
    def size(self) -> int:
        """Bytes of the whole file, header included."""

    @property
    def etag(self) -> str:
        """Changes when the bytes do; without quotes."""

    async def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the file."""

    async def close(self) -> None: ...


class GatewayPort(CredentialLookup, Protocol):
    """All coroutines may raise SessionNotFound, SessionEnded, LogUnavailable or ClientProtocolError."""

    @property
    def version(self) -> str:
        """Of Openline, as ``openline --version`` says it."""

    @property
    def auth(self) -> AuthPolicy: ...

    @property
    def values(self) -> ValueStore: ...

    def now_ms(self) -> int:
        """Unix milliseconds."""

    def random_bytes(self, count: int) -> bytes:
        """From the system's secure source."""

    def readiness(self) -> Readiness: ...

    def metrics(self) -> Sequence[Metric]: ...

    def realtime_session(self, session: bytes) -> bytes:
        """A caller's session object made full (id, defaults), JSON. Raises ClientProtocolError."""

    async def sessions(
        self, tenant: str, *, status: str | None, limit: int, before: str
    ) -> Sequence[SessionRow]:
        """Newest first; ``before`` is a session id to page from, "" for the newest."""

    async def session(self, tenant: str, session: SessionId) -> bytes:
        """One session's state as a JSON object."""

    async def facts(
        self, tenant: str, session: SessionId, *, after: Seq, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        """Batches of durable facts after ``after``, in order. Errors are raised here, not by the iterator.

        ``follow``: goes on with what becomes durable, until the session ends, its log is deleted or the
        gateway drains. The iterator reads on only when it is asked: a slow reader holds one batch. Closing
        it frees everything.
        """

    async def feed(
        self, tenant: str, *, after: str, types: Sequence[str], session: SessionId | None, follow: bool
    ) -> AsyncIterator[Sequence[FeedLine]]:
        """The same over all sessions, after an opaque cursor; ``types`` empty = all, ``x.*`` = a prefix.

        Raises ClientProtocolError (``invalid_cursor``) for a cursor that is not one.
        """

    async def transcript(self, tenant: str, session: SessionId) -> bytes:
        """What was said and heard, as a JSON object."""

    async def recording(self, tenant: str, session: SessionId) -> RecordingSource | None:
        """None when there is none (recording off, or past its retention). The caller closes it."""

    async def end_session(self, tenant: str, session: SessionId, reason: str) -> bytes:
        """End it; returns its state (JSON) once the end is durable. Raises SessionEnded if it already was."""

    async def delete_session(self, tenant: str, session: SessionId) -> None:
        """Forget it: log, rows and recording. Returns when that is durable.

        Raises ClientProtocolError ``session_in_use``, or ``session_has_forks``: those need its log.
        """

    async def say(self, tenant: str, session: SessionId, text: str, *, interrupt: bool) -> bytes:
        """Have the agent say ``text``; returns a JSON receipt once the request is durable."""
