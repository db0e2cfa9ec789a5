"""What has happened: the persisted vocabulary. Frozen, append-only, past tense.

Names are OpenAI Realtime GA names where the protocol has a word and ``openline.*`` where it has none.
A fact holds all that its wire frames need: rendering is a pure function of one fact (``wire.render``).
``CLASS`` says what a reader may rely on: ``commit`` facts wait for the disk before they are shown,
``effect`` facts also before their effect leaves, ``note`` facts are bookkeeping that no client waits for.
"""

from __future__ import annotations

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
from openline.core.value import Value
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, Seq, SessionId, TurnId

FactClass = Literal["commit", "effect", "note"]


class Fact(Value, frozen=True):
    """Base of all facts. ``TYPE`` is its name in code, log, feed and handlers."""

    TYPE: ClassVar[str] = ""
    CLASS: ClassVar[FactClass] = "commit"


# ---------------------------------------------------------------------------------------------- session


class SessionStarted(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.session.started"
    session: SessionId
    tenant: str
    config: SessionConfig
    limits: Limits
    prepares_replies: bool
    recorded: bool
    version: int


class SessionOwned(Fact, frozen=True):
    """``epoch`` has begun on ``node``. Durations that were running start again from here."""

    TYPE: ClassVar[str] = "openline.session.owned"
    epoch: Epoch
    node: str


class SessionForked(Fact, frozen=True):
    """The conversation goes on from that of ``parent`` as it was after its fact ``parent_seq``.

    By reference: the items stay in the parent's log alone. ``last_item``: the last of them, None for none.
    """

    TYPE: ClassVar[str] = "openline.session.forked"
    CLASS: ClassVar[FactClass] = "note"
    parent: SessionId
    parent_seq: Seq
    last_item: ItemId | None


class SessionUpdated(Fact, frozen=True):
    TYPE: ClassVar[str] = "session.updated"
    config: SessionConfig
    conn: ConnectionId
    command: str


class SessionParked(Fact, frozen=True):
    """No client and no link; ``until_ms`` (Unix ms): when it ends by itself. The after-call point."""

    TYPE: ClassVar[str] = "openline.session.parked"
    reason: str
    until_ms: int


class SessionEnded(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.session.ended"
    reason: str


class ConnectionAttached(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.connection.attached"
    conn: ConnectionId
    role: Role
    opted_in: bool
    strict: bool
    resumable: bool
    pacing_ms: int
    token_hash: str
    replaces: str


class ConnectionDetached(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.connection.detached"
    conn: ConnectionId
    reason: Literal["closed", "lost", "replaced", "crash", "ended"]
    code: int


class LinkOpened(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.link.opened"
    CLASS: ClassVar[FactClass] = "note"
    link_epoch: int
    model: str
    hears: bool = False


class LinkLost(Fact, frozen=True):
    """``why``: what ended it, in a word (``closed_1011``, ``stalled``, ``invalid_api_key``)."""

    TYPE: ClassVar[str] = "openline.link.lost"
    link_epoch: int
    code: str
    permanent: bool
    why: str = ""


class LinkRenewed(Fact, frozen=True):
    """The link went over to a new connection by itself, with the whole history, before the old one could end."""

    TYPE: ClassVar[str] = "openline.link.renewed"
    CLASS: ClassVar[FactClass] = "note"
    link_epoch: int
    why: str


class LinkRequested(Fact, frozen=True):
    """A new link is being opened; ``attempt`` counts tries since one last proved healthy."""

    TYPE: ClassVar[str] = "openline.link.requested"
    CLASS: ClassVar[FactClass] = "note"
    link_epoch: int
    attempt: int


# ------------------------------------------------------------------------------------------------- turns


class SpeechStarted(Fact, frozen=True):
    TYPE: ClassVar[str] = "input_audio_buffer.speech_started"
    turn_id: TurnId
    item_id: ItemId
    start: int
    audio_start_ms: int


class SpeechStopped(Fact, frozen=True):
    TYPE: ClassVar[str] = "input_audio_buffer.speech_stopped"
    turn_id: TurnId
    item_id: ItemId
    end: int
    audio_end_ms: int


class InputCleared(Fact, frozen=True):
    TYPE: ClassVar[str] = "input_audio_buffer.cleared"
    conn: ConnectionId
    command: str


class TurnCommitted(Fact, frozen=True):
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


class TurnTranscribed(Fact, frozen=True):
    """The text of a turn that was committed before it was known. ``failed``: a reason, or empty."""

    TYPE: ClassVar[str] = "openline.turn.transcribed"
    turn_id: TurnId
    item_id: ItemId
    text: str
    confidence: float | None
    audio_ms: int
    failed: str


class TurnAbandoned(Fact, frozen=True):
    """An open turn ended without an item. ``reason``: no_speech | crash | timeout | cleared | error | link_lost |
    ended."""

    TYPE: ClassVar[str] = "openline.turn.abandoned"
    turn_id: TurnId
    item_id: ItemId
    reason: str


class TurnContinued(Fact, frozen=True):
    """A new link hears the turn that its user began on a lost one."""

    TYPE: ClassVar[str] = "openline.turn.continued"
    CLASS: ClassVar[FactClass] = "note"
    turn_id: TurnId
    item_id: ItemId
    link_epoch: int


class InputTimedOut(Fact, frozen=True):
    """Nobody has spoken for the idle timeout since a reply was played: the silence becomes the user's turn.

    The range is on the input track; its item follows in the turn commit.
    """

    TYPE: ClassVar[str] = "input_audio_buffer.timeout_triggered"
    item_id: ItemId
    audio_start_ms: int
    audio_end_ms: int


# ------------------------------------------------------------------------------------------------- items


class ItemCreated(Fact, frozen=True):
    """A finished item put into the conversation by a client, agent code or a tool."""

    TYPE: ClassVar[str] = "conversation.item.created"
    item: Item
    previous_item_id: ItemId | None
    conn: ConnectionId
    command: str


class ItemDeleted(Fact, frozen=True):
    TYPE: ClassVar[str] = "conversation.item.deleted"
    item_id: ItemId
    conn: ConnectionId
    command: str


class ItemTruncated(Fact, frozen=True):
    TYPE: ClassVar[str] = "conversation.item.truncated"
    item_id: ItemId
    content_index: int
    audio_end_ms: int
    conn: ConnectionId
    command: str


class ItemHeard(Fact, frozen=True):
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


class ResponseHeld(Fact, frozen=True):
    """A reply on our own initiative that waits for the active response to end."""

    TYPE: ClassVar[str] = "openline.response.held"
    CLASS: ClassVar[FactClass] = "note"
    request: ResponseRequest


class ReplyDropped(Fact, frozen=True):
    """The reply to a committed turn will not come: agent code dropped it, or the user spoke again."""

    TYPE: ClassVar[str] = "openline.reply.dropped"
    turn_id: TurnId
    reason: str


class ResponseCreated(Fact, frozen=True):
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


class OutputItemAdded(Fact, frozen=True):
    """An output item began. ``previous_item_id`` None with ``is_in_conversation`` false: out of band."""

    TYPE: ClassVar[str] = "response.output_item.added"
    response_id: ResponseId
    output_index: int
    item: Item
    modality: Literal["audio", "text"]
    previous_item_id: ItemId | None
    is_in_conversation: bool


class OutputItemProgressed(Fact, frozen=True):
    """A checkpoint, about once a second; a crash settles the item from the last one."""

    TYPE: ClassVar[str] = "openline.item.progressed"
    CLASS: ClassVar[FactClass] = "note"
    item_id: ItemId
    text: str
    audio_ms: int
    heard_ms: int


class OutputItemDone(Fact, frozen=True):
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


class ResponseGenerated(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.response.generated"
    CLASS: ClassVar[FactClass] = "note"
    response_id: ResponseId
    usage: Usage
    reason: str


class ResponseDone(Fact, frozen=True):
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


class ToolRequested(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.tool.requested"
    call_id: CallId
    item_id: ItemId
    name: str
    runner: Literal["client", "gateway"]
    key: str


class ToolStarted(Fact, frozen=True):
    """Written before the tool runs. ``key`` is the same for every attempt."""

    TYPE: ClassVar[str] = "openline.tool.started"
    CLASS: ClassVar[FactClass] = "effect"
    call_id: CallId
    attempt: int
    epoch: Epoch
    key: str


class ToolSettled(Fact, frozen=True):
    """The one outcome of a call. ``item``: its item as it now stands in the conversation (mcp_call), or None."""

    TYPE: ClassVar[str] = "openline.tool.settled"
    CLASS: ClassVar[FactClass] = "effect"
    call_id: CallId
    attempt: int
    outcome: Literal["succeeded", "failed", "cancelled", "unknown"]
    item: Item | None
    previous_item_id: ItemId | None


# --------------------------------------------------------------------------------------- media, liveness


class SegmentRecorded(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.recording.segment"
    CLASS: ClassVar[FactClass] = "note"
    track: str
    start: int
    samples: int
    file: str
    sha256: str


class MediaDropped(Fact, frozen=True):
    TYPE: ClassVar[str] = "openline.media.dropped"
    CLASS: ClassVar[FactClass] = "note"
    lane: str
    dropped_ms: int
    policy: str


class SilenceExceeded(Fact, frozen=True):
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
