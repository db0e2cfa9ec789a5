"""Intentions handed to the runtime: imperative, performed after the step that explains them is durable.

Two kinds. *Durable* effects have a ``…requested/started`` fact before and a ``…settled`` fact after and are
offered again after a crash under the same key. Effects *bound* to one connection or one link die with
it: a new link gets its commands derived from the state. ``WAITS``: performed only once its own step is
on disk (it costs money or changes history, or a client would see it); the others only stop or close
something, which is safe to do early and never safe to do late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from openline.core.model import AudioRange, Item, Problem, ResponseRequest, SessionConfig
from openline.types import CallId, ConnectionId, ItemId, ResponseId, TurnId

EffectKind = Literal["durable", "link", "connection"]


@dataclass(frozen=True, slots=True)
class Effect:
    KIND: ClassVar[EffectKind] = "link"
    WAITS: ClassVar[bool] = True


# --------------------------------------------------------------------------------------- bound to a link


@dataclass(frozen=True, slots=True)
class OpenLink(Effect):
    """Open a link after ``delay_ms`` (0 at first; backoff, to which the runtime adds jitter)."""

    link_epoch: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class CloseLink(Effect):
    WAITS: ClassVar[bool] = False
    link_epoch: int


@dataclass(frozen=True, slots=True)
class StartResponse(Effect):
    response_id: ResponseId
    request: ResponseRequest


@dataclass(frozen=True, slots=True)
class StopResponse(Effect):
    WAITS: ClassVar[bool] = False
    response_id: ResponseId


@dataclass(frozen=True, slots=True)
class AddItem(Effect):
    item: Item
    previous: ItemId | None


@dataclass(frozen=True, slots=True)
class RemoveItem(Effect):
    item_id: ItemId


@dataclass(frozen=True, slots=True)
class CutItem(Effect):
    """Tell the model what was heard of its item: ``text`` up to ``audio_end_ms``."""

    item_id: ItemId
    audio_end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class ConfigureLink(Effect):
    config: SessionConfig


@dataclass(frozen=True, slots=True)
class TranscribeAudio(Effect):
    """Recognise a committed range; answered by TurnFinal or TurnFailed for ``item_id``."""

    item_id: ItemId
    audio: AudioRange


@dataclass(frozen=True, slots=True)
class HearAgain(Effect):
    """Give a new link the open turn again, from a little before sample ``start``; answered by SpeechStarted as it
    hears it, or by TurnFailed where that audio is not to be had."""

    item_id: ItemId
    start: int


@dataclass(frozen=True, slots=True)
class DropAudio(Effect):
    WAITS: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class PrepareReply(Effect):
    """Ask agent code what the reply to ``turn_id`` should know; answered by ReplyPrepared."""

    turn_id: TurnId


# --------------------------------------------------------------------------------- bound to a connection


@dataclass(frozen=True, slots=True)
class ClearPlayout(Effect):
    """Drop what was not released of ``response_id``, and stop its release clock, now."""

    KIND: ClassVar[EffectKind] = "connection"
    WAITS: ClassVar[bool] = False
    response_id: ResponseId


@dataclass(frozen=True, slots=True)
class SendError(Effect):
    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    command: str
    problem: Problem


@dataclass(frozen=True, slots=True)
class SendReceipt(Effect):
    """The one outcome of a command of an opted-in client: accepted | rejected | duplicate."""

    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    command: str
    outcome: Literal["accepted", "rejected", "duplicate"]


@dataclass(frozen=True, slots=True)
class ResendItem(Effect):
    """A client created an item whose id exists: show it that item again; nothing happened."""

    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    item: Item
    previous_item_id: ItemId | None


@dataclass(frozen=True, slots=True)
class CloseConnection(Effect):
    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    code: int
    reason: str


# ----------------------------------------------------------------------------------------------- durable


@dataclass(frozen=True, slots=True)
class RunTool(Effect):
    KIND: ClassVar[EffectKind] = "durable"
    call_id: CallId
    attempt: int
    key: str
    name: str
    arguments: str
    timeout_ms: int


ALL_EFFECTS: tuple[type[Effect], ...] = (
    OpenLink,
    CloseLink,
    StartResponse,
    StopResponse,
    AddItem,
    RemoveItem,
    CutItem,
    ConfigureLink,
    TranscribeAudio,
    HearAgain,
    DropAudio,
    PrepareReply,
    ClearPlayout,
    SendError,
    SendReceipt,
    ResendItem,
    CloseConnection,
    RunTool,
)
EFFECTS: dict[str, type[Effect]] = {kind.__name__: kind for kind in ALL_EFFECTS}
