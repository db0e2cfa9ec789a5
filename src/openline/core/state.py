"""The state of a session: the fold of its facts, and nothing else.

``evolve`` (in ``evolve.py``) is the only code that changes it. What the facts do not say is not in here, so that a session
rebuilt from its log is the session. Bounded: every table that could grow has a limit beside it, except
the conversation itself, of which all but the end is packed (``history.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from openline.core.history import History
from openline.core.idset import IdSet
from openline.core.model import (
    AudioFormat,
    AudioRange,
    Item,
    Limits,
    Part,
    ResponseRequest,
    SessionConfig,
    ToolSpec,
    Usage,
)
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, Seq, SessionId, TurnId

TOKENS_MAX = 16
"""Resume tokens remembered: a person has a few devices; each attach replaces the token it came with.

``predecessors``: by a new token the one it replaces, which is spent once the new one was shown."""
COMMANDS_MAX = 512
"""Command ids of opted-in clients remembered for deduplication across connections."""
SETTLED_TOOLS_MAX = 64
"""Settled calls kept until the next turn is committed; of others the id is known, the log has the rest."""


@dataclass(slots=True)
class Connection:
    conn: ConnectionId
    role: Role
    opted_in: bool
    strict: bool
    resumable: bool
    pacing_ms: int
    token_hash: str


@dataclass(slots=True)
class OpenTurn:
    """The user holds the floor. ``end`` is set once speech stopped. ``unheard``: a reply that this turn
    cancelled before anybody heard it, asked for again if the turn turns out to be noise. ``link_epoch``: the
    link that heard it last."""

    turn_id: TurnId
    item_id: ItemId
    start: int
    since_ns: int
    phase: str
    unheard: ResponseRequest | None
    link_epoch: int
    end: int | None = None


@dataclass(slots=True)
class Lull:
    """A reply has ended and nobody has spoken since. ``unplayed``: its spoken items that may still be playing."""

    since_ns: int
    unplayed: set[ItemId]


@dataclass(slots=True)
class Output:
    """One output item of a response that has no terminal fact yet. ``call_id``, ``name``: of a call, else empty.
    ``parts``: its content as it was begun, where the first part gets the text."""

    item_id: ItemId
    output_index: int
    kind: Literal["message", "call"]
    phase: str
    call_id: CallId
    name: str
    parts: tuple[Part, ...]
    text: str = ""
    audio_ms: int = 0
    heard_ms: int = 0


@dataclass(slots=True)
class Response:
    """``waits``: not yet asked of the link (no link, or a transcript is missing). ``active_ns``: last sign of life.
    ``outlived_link``: it was made whole on a link that is gone, and still plays."""

    response_id: ResponseId
    request: ResponseRequest
    modality: Literal["audio", "text"]
    voice: str
    max_output_tokens: int | None
    turn_id: TurnId | None
    attempt: int
    active_ns: int
    waits: bool
    phase: str
    output_format: AudioFormat
    outputs: dict[int, Output] = field(default_factory=dict)
    done: list[Item] = field(default_factory=list)
    usage: Usage = Usage()
    reason: str = "completed"
    outlived_link: bool = False

    @property
    def is_default(self) -> bool:
        return self.request.conversation == "auto"

    @property
    def was_heard(self) -> bool:
        """Anything of it reached a person or the world: audio played, text shown, a call made."""
        return bool(self.done) or any(
            output.heard_ms > 0 or (self.modality == "text" and output.text)
            for output in self.outputs.values()
        )


@dataclass(slots=True)
class ToolCall:
    call_id: CallId
    item_id: ItemId
    response_id: ResponseId
    name: str
    arguments: str
    runner: Literal["client", "gateway"]
    key: str
    recovery: Literal["retry", "verify", "ask"]
    timeout_ms: int
    phase: str
    is_in_conversation: bool
    attempt: int = 0


@dataclass(slots=True)
class Link:
    """``refused``: the code of a refusal for good that no new attempt has answered yet, and ``why``; at
    ``changed_ns`` it was opened or refused. ``missed``: committed items without text that an earlier link heard."""

    epoch: int = 0
    phase: str = "closed"
    attempt: int = 0
    hears: bool = False
    refused: str = ""
    why: str = ""
    changed_ns: int = 0
    missed: set[ItemId] = field(default_factory=set)


@dataclass(slots=True)
class State:
    session: SessionId = SessionId("")
    tenant: str = "default"
    epoch: Epoch = Epoch(0)
    node: str = ""
    seq: Seq = Seq(0)
    status: str = "new"
    config: SessionConfig = SessionConfig()
    limits: Limits = Limits()
    prepares_replies: bool = False
    is_recorded: bool = True
    created_ms: int = 0
    quiet_since_ns: int = 0
    """When the last talking client went away (or the session was made, or its owner changed)."""
    parked_until_ms: int = 0
    connections: dict[ConnectionId, Connection] = field(default_factory=dict)
    tokens: dict[str, Role] = field(default_factory=dict)
    predecessors: dict[str, str] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    link: Link = field(default_factory=Link)
    turn: OpenTurn | None = None
    untranscribed: dict[ItemId, tuple[TurnId, AudioRange, int]] = field(default_factory=dict)
    """Committed items whose text is still awaited: turn, audio, since (ns)."""
    untaken: list[ItemId] = field(default_factory=list)
    """Typed user items that no turn has taken yet."""
    preparing: tuple[TurnId, int] | None = None
    lull: Lull | None = None
    idle_turns: int = 0
    """Turns made of silence since somebody last said something."""
    entries: History = field(default_factory=History)
    responses: dict[ResponseId, Response] = field(default_factory=dict)
    held: list[ResponseRequest] = field(default_factory=list)
    tools: dict[CallId, ToolCall] = field(default_factory=dict)
    """Calls without an outcome, and those with one until the next turn takes the place of the reply to them."""
    past_calls: IdSet = field(default_factory=IdSet)
    """Every other call there was: its id is not used again."""
    tool_replies: int = 0
    """Replies to tool results since the last turn: the bound on a model that calls for ever."""
    has_spoken: bool = False
    turns: int = 0
    origin: tuple[SessionId, Seq] | None = None
    """Of a fork: the session it goes on from, and after which of its facts."""
    forked_after: ItemId | None = None
    inherited: tuple[Item, ...] = ()
    """Of a fork: the conversation at its origin. The one thing here that is not from the session's own facts:
    whoever rebuilds it reads it there. No decision looks at it, so that a log replays without its parent's."""

    # -- reading

    @property
    def active(self) -> Response | None:
        """The response that writes to the default conversation, until its terminal fact."""
        for response in self.responses.values():
            if response.is_default:
                return response
        return None

    @property
    def running(self) -> list[Response]:
        """Responses that the link was asked for and has not finished."""
        return [r for r in self.responses.values() if r.phase == "active" and not r.waits]

    @property
    def speaker(self) -> Connection | None:
        for connection in self.connections.values():
            if connection.role == "speaker":
                return connection
        return None

    @property
    def has_talker(self) -> bool:
        # A loop, not any(): it is asked in every step, and a generator costs more than what it looks at.
        for connection in self.connections.values():
            if connection.role != "observer":
                return True
        return False

    @property
    def speaks_unheard(self) -> bool:
        """Somebody is in mid-utterance, and the link that is open has not heard of it yet."""
        turn, link = self.turn, self.link
        return (
            turn is not None and turn.end is None and link.phase == "open" and turn.link_epoch != link.epoch
        )

    @property
    def to_recognize(self) -> tuple[ItemId, ...]:
        """What was said and has no text yet: a link that opens is asked for it first."""
        stopped = () if self.turn is None or self.turn.end is None else (self.turn.item_id,)
        return (*self.untranscribed, *stopped)

    def last_item_id(self) -> ItemId | None:
        return self.entries.last_id() or self.forked_after

    def is_taken(self, item_id: ItemId) -> bool:
        """The id names an item, or was told to clients as that of one to come."""
        coming = self.turn is not None and self.turn.item_id == item_id
        known = item_id in self.entries or item_id in self.untranscribed
        return coming or known or item_id == self.forked_after

    def item(self, item_id: ItemId) -> Item | None:
        """The item as heard, an inherited one too; for readers only."""
        entry = self.entries.get(item_id)
        if entry is not None:
            return entry.as_heard()
        return next((item for item in self.inherited if item.id == item_id), None)

    def is_call(self, call_id: CallId) -> bool:
        """A call of this id is known, or is being made."""
        made = (
            output.call_id for response in self.responses.values() for output in response.outputs.values()
        )
        return call_id in self.tools or call_id in made or call_id in self.past_calls

    def previous_of(self, item_id: ItemId) -> ItemId | None:
        return self.entries.previous_of(item_id) or self.forked_after

    def tool_spec(self, name: str, request: ResponseRequest | None = None) -> ToolSpec | None:
        tools = self.config.tools if request is None or request.tools is None else request.tools
        return next((tool for tool in tools if tool.name == name), None)

    def context(self, response: Response) -> Sequence[Item]:
        """The items a response sees, in order, as heard; its own open items are not among them."""
        request = response.request
        if request.has_input:
            return request.input + request.context
        own = [output.item_id for output in response.outputs.values()]
        return self.entries.context(own, self.inherited, request.context)

    def conversation(self) -> Sequence[Item]:
        """Every finished item, as heard: what a new link is given. A call that was cut is none."""
        return self.entries.context(before=self.inherited)
