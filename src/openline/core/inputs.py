"""What happened outside: everything that can be given to ``Session.handle``.

Frozen values. An input that leads to a fact is stored with it, so that a replay can hand it in again;
what was accumulated outside (text, audio counts, a recognizer's result) arrives here whole.
``conn`` and ``command`` name the connection and the client's own event id; both are empty for agent code.
"""

from __future__ import annotations

from typing import Literal

from openline.core.model import (
    AudioRange,
    Cut,
    HeardSource,
    Item,
    Limits,
    Problem,
    ResponseRequest,
    SessionConfig,
    Usage,
)
from openline.core.value import Value
from openline.types import CallId, ConnectionId, Epoch, ItemId, ResponseId, Role, Seq, SessionId, TurnId

# ------------------------------------------------------------------------------------------- ownership


class OpenSession(Value, frozen=True):
    """A new session, owned by ``node`` under ``epoch``. First input of every log, exactly once.

    ``parent`` not empty: a fork, whose conversation goes on from the parent's as it was after its fact
    ``parent_seq``, with ``parent_item`` the last item there.
    """

    session: SessionId
    tenant: str
    epoch: Epoch
    node: str
    config: SessionConfig
    limits: Limits = Limits()
    prepares_replies: bool = False
    recorded: bool = True
    version: int = 1
    parent: SessionId = SessionId("")
    parent_seq: Seq = Seq(0)
    parent_item: ItemId | None = None


class TakeOwnership(Value, frozen=True):
    """A (new) owner has rebuilt the session from its log: settle what the old one left open."""

    epoch: Epoch
    node: str
    recorded_until: int = 0
    """Input samples that the recording holds, from the track's start; 0: nothing can be recognised again."""


# ----------------------------------------------------------------------------------------- connections


class Attach(Value, frozen=True):
    """A client is attached. ``token_hash``: SHA-256 of the resume token it now holds; ``replaces``: of the
    one it came with (empty: none). ``resumable``: an abnormal close keeps the session detached for it."""

    conn: ConnectionId
    role: Role = "speaker"
    opted_in: bool = False
    strict: bool = False
    resumable: bool = False
    pacing_ms: int = 500
    token_hash: str = ""
    replaces: str = ""


class Detach(Value, frozen=True):
    """A connection is gone. ``clean``: a close handshake with 1000/1001. ``cuts``: output still playing there."""

    conn: ConnectionId
    code: int = 1006
    clean: bool = False
    cuts: tuple[Cut, ...] = ()


class EndSession(Value, frozen=True):
    reason: str
    conn: ConnectionId = ConnectionId("")
    command: str = ""
    cuts: tuple[Cut, ...] = ()


class TimePassed(Value, frozen=True):
    """The wake-up that the last step asked for (or any later moment). ``heard_until``: where on the input track
    (samples) that moment is; 0 where nobody can say."""

    heard_until: int = 0


# ------------------------------------------------------------------------------------ commands of clients


class UpdateConfig(Value, frozen=True):
    """``config`` is the whole effective configuration after the merge (the merge is the wire's)."""

    config: SessionConfig
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class CreateItem(Value, frozen=True):
    """``previous``: "root" puts it first, None puts it last."""

    item: Item
    previous: str | None = None
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class DeleteItem(Value, frozen=True):
    item_id: ItemId
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class TruncateItem(Value, frozen=True):
    item_id: ItemId
    content_index: int
    audio_end_ms: int
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class CommitAudio(Value, frozen=True):
    """The client ends its turn itself. ``audio``: what the input buffer holds since the last commit or clear."""

    audio: AudioRange
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class ClearAudio(Value, frozen=True):
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class CreateResponse(Value, frozen=True):
    request: ResponseRequest
    conn: ConnectionId = ConnectionId("")
    command: str = ""


class CancelResponse(Value, frozen=True):
    """``response_id`` None: the active one. ``cuts``: what of it was heard. ``reason`` goes into status_details."""

    response_id: ResponseId | None = None
    cuts: tuple[Cut, ...] = ()
    reason: Literal["client_cancelled", "turn_detected", "steered"] = "client_cancelled"
    conn: ConnectionId = ConnectionId("")
    command: str = ""


# --------------------------------------------------------------------------------- the floor and the link


class LinkOpened(Value, frozen=True):
    """``hears``: the model takes audio itself, so a reply need not wait for the turn's text."""

    link_epoch: int
    model: str = ""
    hears: bool = False


class LinkLost(Value, frozen=True):
    """``permanent``: reopening cannot help. ``cuts``: output that was playing and is cut by it. ``why``: one word."""

    link_epoch: int
    code: str
    permanent: bool = False
    cuts: tuple[Cut, ...] = ()
    why: str = ""


class LinkRenewed(Value, frozen=True):
    """The link goes on over a new connection; nothing was cut. ``why``: what it avoided (``age``)."""

    link_epoch: int
    why: str


class SpeechStarted(Value, frozen=True):
    """The user took the floor at input sample ``start``; ``cuts``: output not yet fully played."""

    link_epoch: int
    start: int
    cuts: tuple[Cut, ...] = ()


class SpeechStopped(Value, frozen=True):
    link_epoch: int
    end: int


class TurnFinal(Value, frozen=True):
    """A turn's text. ``item_id`` None: the open turn of the turn detector; else a manually committed item.

    ``text`` None: the turn is over and its text will follow for the item it became (links that hear).
    """

    link_epoch: int
    text: str | None
    confidence: float | None
    audio: AudioRange
    item_id: ItemId | None = None


class TurnFailed(Value, frozen=True):
    link_epoch: int
    reason: str
    item_id: ItemId | None = None


class ReplyPrepared(Value, frozen=True):
    """``before_reply`` has answered for ``turn_id``. ``drop``: no reply at all."""

    turn_id: TurnId
    request: ResponseRequest
    drop: bool = False


# --------------------------------------------------------------------------------- output, as it is made


class MessageStarted(Value, frozen=True):
    """``is_refusal``: the model declines. It counts where text is shown; what is spoken is speech either way.
    ``reasoning``: what it thought before (``Item.reasoning``)."""

    link_epoch: int
    response_id: ResponseId
    output_index: int
    is_refusal: bool = False
    reasoning: tuple[str, ...] = ()


class MessageProgress(Value, frozen=True):
    """A checkpoint of a message being made or played, about once a second: what a crash may not forget."""

    response_id: ResponseId
    output_index: int
    cut: Cut


class MessageFinished(Value, frozen=True):
    """The message's last frame was released to its listener (or it has none)."""

    response_id: ResponseId
    output_index: int
    text: str
    audio_ms: int


class CallStarted(Value, frozen=True):
    link_epoch: int
    response_id: ResponseId
    output_index: int
    call_id: CallId
    name: str
    reasoning: tuple[str, ...] = ()


class CallFinished(Value, frozen=True):
    link_epoch: int
    response_id: ResponseId
    output_index: int
    arguments: str


class ResponseGenerated(Value, frozen=True):
    """Nothing more will come from the link. ``reason``: completed | max_output_tokens | content_filter.

    ``is_released``: all of it was released before its end was known, as mostly of a model that speaks in real time;
    then no ``ResponseReleased`` follows.
    """

    link_epoch: int
    response_id: ResponseId
    usage: Usage
    reason: str = "completed"
    is_released: bool = False


class ResponseReleased(Value, frozen=True):
    """Everything of a generated response was released (or lost its listener)."""

    response_id: ResponseId


class ResponseFailed(Value, frozen=True):
    link_epoch: int
    response_id: ResponseId
    problem: Problem
    cuts: tuple[Cut, ...] = ()


class Heard(Value, frozen=True):
    """Playout of an item ended, was cut, or was reported."""

    cut: Cut


# --------------------------------------------------------------------------------------------- tools, media


class ToolSettled(Value, frozen=True):
    """``outcome``: succeeded | failed | cancelled | unknown; ``output`` is what the model gets to read."""

    call_id: CallId
    attempt: int
    outcome: Literal["succeeded", "failed", "cancelled", "unknown"]
    output: str


class SegmentRecorded(Value, frozen=True):
    track: str
    start: int
    samples: int
    file: str
    sha256: str


class MediaDropped(Value, frozen=True):
    """A queue shed media by its policy. ``lane``: which queue; ``dropped_ms``: how much audio."""

    lane: str
    dropped_ms: int
    policy: str


Input = (
    OpenSession
    | TakeOwnership
    | Attach
    | Detach
    | EndSession
    | TimePassed
    | UpdateConfig
    | CreateItem
    | DeleteItem
    | TruncateItem
    | CommitAudio
    | ClearAudio
    | CreateResponse
    | CancelResponse
    | LinkOpened
    | LinkLost
    | LinkRenewed
    | SpeechStarted
    | SpeechStopped
    | TurnFinal
    | TurnFailed
    | ReplyPrepared
    | MessageStarted
    | MessageProgress
    | MessageFinished
    | CallStarted
    | CallFinished
    | ResponseGenerated
    | ResponseReleased
    | ResponseFailed
    | Heard
    | ToolSettled
    | SegmentRecorded
    | MediaDropped
)

__all__ = ["HeardSource"] + [kind.__name__ for kind in Input.__args__]
INPUTS: dict[str, type] = {kind.__name__: kind for kind in Input.__args__}
"""Every input by the name under which it is stored. Append only: old logs hold these names."""
