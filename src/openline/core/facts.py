"""What has happened: the persisted vocabulary. Frozen, append-only, past tense.

Names are OpenAI Realtime GA names where the protocol has a word and ``openline.*`` where it has none.
A fact holds all that its wire frames need: rendering is a pure function of one fact (``wire.render``).
``CLASS`` says what a reader may rely on: ``commit`` facts wait for the disk before they are shown,
``effect`` facts also before their effect leaves, ``note`` facts are bookkeeping that no client waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from openline.core.model import (
    AudioFormat,
    AudioRange,
    HeardSource,
    Item,
    Limits,
    OutputRef,
    Problem,
    ResponseRequest,
    SessionConfig,
    Usage,
)
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, Seq, SessionId, TurnId

FactClass = Literal["commit", "effect", "note"]


@dataclass(frozen=True, slots=True)
class Fact:
    """Base of all facts. ``TYPE`` is its name in code, log, feed and handlers."""

    TYPE: ClassVar[str] = ""
    CLASS: ClassVar[FactClass] = "commit"


# ---------------------------------------------------------------------------------------------- session


@dataclass(frozen=True, slots=True)
class SessionStarted(Fact):
    TYPE: ClassVar[str] = "openline.session.started"
    session: SessionId
    tenant: str
    config: SessionConfig
    limits: Limits
    prepares_replies: bool
    recorded: bool
    version: int


@dataclass(frozen=True, slots=True)
class SessionOwned(Fact):
    """``epoch`` has begun on ``node``. Durations that were running start again from here."""

    TYPE: ClassVar[str] = "openline.session.owned"
    epoch: Epoch
    node: str


@dataclass(frozen=True, slots=True)
class SessionForked(Fact):
    """The conversation goes on from that of ``parent`` as it was after its fact ``parent_seq``.

    By reference: the items stay in the parent's log alone. ``last_item``: the last of them, None for none.
    """

    TYPE: ClassVar[str] = "openline.session.forked"
    CLASS: ClassVar[FactClass] = "note"
    parent: SessionId
    parent_seq: Seq
    last_item: ItemId | None


@dataclass(frozen=True, slots=True)
class SessionUpdated(Fact):
    TYPE: ClassVar[str] = "session.updated"
    config: SessionConfig
    conn: ConnectionId
    command: str


@dataclass(frozen=True, slots=True)
class SessionParked(Fact):
    """No client and no link; ``until_ms`` (Unix ms): when it ends by itself. The after-call point."""

    TYPE: ClassVar[str] = "openline.session.parked"
    reason: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class SessionEnded(Fact):
    TYPE: ClassVar[str] = "openline.session.ended"
    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionAttached(Fact):
    TYPE: ClassVar[str] = "openline.connection.attached"
    conn: ConnectionId
    role: Role
    opted_in: bool
    strict: bool
    resumable: bool
    pacing_ms: int
    token_hash: str
    replaces: str


@dataclass(frozen=True, slots=True)
class ConnectionDetached(Fact):
    TYPE: ClassVar[str] = "openline.connection.detached"
    conn: ConnectionId
    reason: Literal["closed", "lost", "replaced", "crash", "ended"]
    code: int


@dataclass(frozen=True, slots=True)
class LinkOpened(Fact):
    TYPE: ClassVar[str] = "openline.link.opened"
    CLASS: ClassVar[FactClass] = "note"
    link_epoch: int
    model: str
    hears: bool = False


@dataclass(frozen=True, slots=True)
class LinkLost(Fact):
    """``why``: what ended it, in a word (``closed_1011``, ``stalled``, ``invalid_api_key``)."""

    TYPE: ClassVar[str] = "openline.link.lost"
    link_epoch: int
    code: str
    permanent: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class LinkRenewed(Fact):
    """The link went over to a new connection by itself, with the whole history, before the old one could end."""

    TYPE: ClassVar[str] = "openline.link.renewed"
    CLASS: ClassVar[FactClass] = "note"
    link_epoch: int
    why: str


@dataclass(frozen=True, slots=True)
class LinkRequested(Fact):
    """A new link is being opened; ``attempt`` counts tries since one last proved healthy."""

    TYPE: ClassVar[str] = "openline.link.requested"
    CLASS: ClassVar[FactClass] = "note"
    link_epoch: int
    attempt: int


# ------------------------------------------------------------------------------------------------- turns


@dataclass(frozen=True, slots=True)
class SpeechStarted(Fact):
    TYPE: ClassVar[str] = "input_audio_buffer.speech_started"
    turn_id: TurnId
    item_id: ItemId
    start: int
    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped(Fact):
    TYPE: ClassVar[str] = "input_audio_buffer.speech_stopped"
    turn_id: TurnId
    item_id: ItemId
    end: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class InputCleared(Fact):
    TYPE: ClassVar[str] = "input_audio_buffer.cleared"
    conn: ConnectionId
    command: str


@dataclass(frozen=True, slots=True)
class TurnCommitted(Fact):
    """The deterministic point: the user's turn is final and agents may act.

    ``prepares``: agent code is asked first what the reply should know.
    ``item``: the user's spoken item with its transcript (None until transcribed, for a manual commit).
    ``text_items``: for a typed turn, the items it is made of; ``item`` is None then.
    """

    TYPE: ClassVar[str] = "openline.turn.committed"
    turn_id: TurnId
    text: str | None
    confidence: float | None
    item: Item | None
    previous_item_id: ItemId | None
    text_items: tuple[ItemId, ...]
    conn: ConnectionId
    prepares: bool


@dataclass(frozen=True, slots=True)
class TurnTranscribed(Fact):
    """The text of a turn that was committed before it was known. ``failed``: a reason, or empty."""

    TYPE: ClassVar[str] = "openline.turn.transcribed"
    turn_id: TurnId
    item_id: ItemId
    text: str
    confidence: float | None
    audio_ms: int
    failed: str


@dataclass(frozen=True, slots=True)
class TurnAbandoned(Fact):
    """An open turn ended without an item. ``reason``: no_speech | crash | timeout | cleared | error | link_lost |
    ended."""

    TYPE: ClassVar[str] = "openline.turn.abandoned"
    turn_id: TurnId
    item_id: ItemId
    reason: str


@dataclass(frozen=True, slots=True)
class TurnContinued(Fact):
    """A new link hears the turn that its user began on a lost one."""

    TYPE: ClassVar[str] = "openline.turn.continued"
    CLASS: ClassVar[FactClass] = "note"
    turn_id: TurnId
    item_id: ItemId
    link_epoch: int


@dataclass(frozen=True, slots=True)
class InputTimedOut(Fact):
    """Nobody has spoken for the idle timeout since a reply was played: the silence becomes the user's turn.

    The range is on the input track; its item follows in the turn commit.
    """

    TYPE: ClassVar[str] = "input_audio_buffer.timeout_triggered"
    item_id: ItemId
    audio_start_ms: int
    audio_end_ms: int


# ------------------------------------------------------------------------------------------------- items


@dataclass(frozen=True, slots=True)
class ItemCreated(Fact):
    """A finished item put into the conversation by a client, agent code or a tool."""

    TYPE: ClassVar[str] = "conversation.item.created"
    item: Item
    previous_item_id: ItemId | None
    conn: ConnectionId
    command: str


@dataclass(frozen=True, slots=True)
class ItemDeleted(Fact):
    TYPE: ClassVar[str] = "conversation.item.deleted"
    item_id: ItemId
    conn: ConnectionId
    command: str


@dataclass(frozen=True, slots=True)
class ItemTruncated(Fact):
    TYPE: ClassVar[str] = "conversation.item.truncated"
    item_id: ItemId
    content_index: int
    audio_end_ms: int
    conn: ConnectionId
    command: str


@dataclass(frozen=True, slots=True)
class ItemHeard(Fact):
    """How much of a spoken item was heard; the last one of an item counts.

    ``text_end``: characters of the generated text. ``estimated``: cut in proportion, not by a mark.
    """

    TYPE: ClassVar[str] = "openline.item.heard"
    item_id: ItemId
    audio_end_ms: int
    text_end: int
    source: HeardSource
    estimated: bool


# --------------------------------------------------------------------------------------------- responses


@dataclass(frozen=True, slots=True)
class ResponseHeld(Fact):
    """A reply on our own initiative that waits for the active response to end."""

    TYPE: ClassVar[str] = "openline.response.held"
    CLASS: ClassVar[FactClass] = "note"
    request: ResponseRequest


@dataclass(frozen=True, slots=True)
class ReplyDropped(Fact):
    """The reply to a committed turn will not come: agent code dropped it, or the user spoke again."""

    TYPE: ClassVar[str] = "openline.reply.dropped"
    turn_id: TurnId
    reason: str


@dataclass(frozen=True, slots=True)
class ResponseCreated(Fact):
    """``config`` values that the wire echoes are resolved here, so that rendering needs no state."""

    TYPE: ClassVar[str] = "response.created"
    response_id: ResponseId
    request: ResponseRequest
    modality: Literal["audio", "text"]
    voice: str
    max_output_tokens: int | None
    turn_id: TurnId | None
    attempt: int
    conn: ConnectionId
    command: str
    output_format: AudioFormat = "pcm"


@dataclass(frozen=True, slots=True)
class OutputItemAdded(Fact):
    """An output item began. ``previous_item_id`` None with ``is_in_conversation`` false: out of band."""

    TYPE: ClassVar[str] = "response.output_item.added"
    response_id: ResponseId
    output_index: int
    item: Item
    modality: Literal["audio", "text"]
    previous_item_id: ItemId | None
    is_in_conversation: bool


@dataclass(frozen=True, slots=True)
class OutputItemProgressed(Fact):
    """A checkpoint, about once a second; a crash settles the item from the last one."""

    TYPE: ClassVar[str] = "openline.item.progressed"
    CLASS: ClassVar[FactClass] = "note"
    item_id: ItemId
    text: str
    audio_ms: int
    heard_ms: int


@dataclass(frozen=True, slots=True)
class OutputItemDone(Fact):
    """``item`` holds the generated text; ``shown_end`` (characters) cuts what clients are shown of it.

    ``audio_ms``: audio generated. Completed items are shown whole (``shown_end`` None).
    """

    TYPE: ClassVar[str] = "response.output_item.done"
    response_id: ResponseId
    output_index: int
    item: Item
    modality: Literal["audio", "text"]
    previous_item_id: ItemId | None
    is_in_conversation: bool
    audio_ms: int
    shown_end: int | None


@dataclass(frozen=True, slots=True)
class ResponseGenerated(Fact):
    TYPE: ClassVar[str] = "openline.response.generated"
    CLASS: ClassVar[FactClass] = "note"
    response_id: ResponseId
    usage: Usage
    reason: str


@dataclass(frozen=True, slots=True)
class ResponseDone(Fact):
    """The one terminal fact of a response. ``output``: its items as clients were shown them."""

    TYPE: ClassVar[str] = "response.done"
    response_id: ResponseId
    status: Literal["completed", "cancelled", "incomplete", "failed"]
    reason: str
    problem: Problem | None
    output: tuple[Item, ...]
    modality: Literal["audio", "text"]
    voice: str
    max_output_tokens: int | None
    metadata: tuple[tuple[str, str], ...]
    is_in_conversation: bool
    usage: Usage
    output_format: AudioFormat = "pcm"


# ------------------------------------------------------------------------------------------------- tools


@dataclass(frozen=True, slots=True)
class ToolRequested(Fact):
    TYPE: ClassVar[str] = "openline.tool.requested"
    call_id: CallId
    item_id: ItemId
    name: str
    runner: Literal["client", "gateway"]
    key: str


@dataclass(frozen=True, slots=True)
class ToolStarted(Fact):
    """Written before the tool runs. ``key`` is the same for every attempt."""

    TYPE: ClassVar[str] = "openline.tool.started"
    CLASS: ClassVar[FactClass] = "effect"
    call_id: CallId
    attempt: int
    epoch: Epoch
    key: str


@dataclass(frozen=True, slots=True)
class ToolSettled(Fact):
    """The one outcome of a call. ``item``: its item as it now stands in the conversation (mcp_call), or None."""

    TYPE: ClassVar[str] = "openline.tool.settled"
    CLASS: ClassVar[FactClass] = "effect"
    call_id: CallId
    attempt: int
    outcome: Literal["succeeded", "failed", "cancelled", "unknown"]
    item: Item | None
    previous_item_id: ItemId | None


# --------------------------------------------------------------------------------------- media, liveness


@dataclass(frozen=True, slots=True)
class SegmentRecorded(Fact):
    TYPE: ClassVar[str] = "openline.recording.segment"
    CLASS: ClassVar[FactClass] = "note"
    track: str
    start: int
    samples: int
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class MediaDropped(Fact):
    TYPE: ClassVar[str] = "openline.media.dropped"
    CLASS: ClassVar[FactClass] = "note"
    lane: str
    dropped_ms: int
    policy: str


@dataclass(frozen=True, slots=True)
class SilenceExceeded(Fact):
    """The session should have spoken and was silent past its budget. ``action``: retry | give_up."""

    TYPE: ClassVar[str] = "openline.silence.exceeded"
    response_id: ResponseId | None
    waited_ms: int
    action: Literal["retry", "give_up"]


ALL_FACTS: tuple[type[Fact], ...] = (
    SessionStarted,
    SessionOwned,
    SessionUpdated,
    SessionParked,
    SessionEnded,
    ConnectionAttached,
    ConnectionDetached,
    LinkRequested,
    LinkOpened,
    LinkLost,
    LinkRenewed,
    SpeechStarted,
    SpeechStopped,
    InputCleared,
    TurnCommitted,
    TurnTranscribed,
    TurnAbandoned,
    TurnContinued,
    ItemCreated,
    ItemDeleted,
    ItemTruncated,
    ItemHeard,
    ResponseHeld,
    ReplyDropped,
    ResponseCreated,
    OutputItemAdded,
    OutputItemProgressed,
    OutputItemDone,
    ResponseGenerated,
    ResponseDone,
    ToolRequested,
    ToolStarted,
    ToolSettled,
    SegmentRecorded,
    MediaDropped,
    SilenceExceeded,
    SessionForked,
    InputTimedOut,
)
FACTS: dict[str, type[Fact]] = {kind.TYPE: kind for kind in ALL_FACTS}
"""Every fact by its name. Append only: logs of every release hold these names."""

__all__ = ["ALL_FACTS", "FACTS", "AudioRange", "Fact", "FactClass", "OutputRef"] + [
    kind.__name__ for kind in ALL_FACTS
]
