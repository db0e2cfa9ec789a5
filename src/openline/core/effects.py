"""Intentions handed to the runtime: imperative, performed after the step that explains them is durable.

Two kinds. *Durable* effects have a ``…requested/started`` fact before and a ``…settled`` fact after and are
offered again after a crash under the same key. Effects *bound* to one connection or one link die with
it: a new link gets its commands derived from the state. ``WAITS``: performed only once its own step is
on disk (it costs money or changes history, or a client would see it); the others only stop or close
something, which is safe to do early and never safe to do late.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from openline.core.model import AudioRange, Item, Problem, ResponseRequest, SessionConfig
from openline.core.value import Value
from openline.types import CallId, ConnectionId, ItemId, ResponseId, TurnId

EffectKind = Literal["durable", "link", "connection"]


class Effect(Value, frozen=True):
    KIND: ClassVar[EffectKind] = "link"
    WAITS: ClassVar[bool] = True


# --------------------------------------------------------------------------------------- bound to a link


class OpenLink(Effect, frozen=True):
    """Open a link after ``delay_ms`` (0 at first; backoff, to which the runtime adds jitter)."""

    link_epoch: int
    delay_ms: int


class CloseLink(Effect, frozen=True):
    WAITS: ClassVar[bool] = False
    link_epoch: int


class StartResponse(Effect, frozen=True):
    response_id: ResponseId
    request: ResponseRequest


class StopResponse(Effect, frozen=True):
    WAITS: ClassVar[bool] = False
    response_id: ResponseId


class AddItem(Effect, frozen=True):
    item: Item
    previous: ItemId | None


class RemoveItem(Effect, frozen=True):
    item_id: ItemId


class CutItem(Effect, frozen=True):
    """Tell the model what was heard of its item: ``text`` up to ``audio_end_ms``."""

    item_id: ItemId
    audio_end_ms: int
    text: str


class ConfigureLink(Effect, frozen=True):
    config: SessionConfig


class TranscribeAudio(Effect, frozen=True):
    """Recognise a committed range; answered by TurnFinal or TurnFailed for ``item_id``."""

    item_id: ItemId
    audio: AudioRange


class HearAgain(Effect, frozen=True):
    """Give a new link the open turn again, from a little before sample ``start``; answered by SpeechStarted as it
    hears it, or by TurnFailed where that audio is not to be had."""

    item_id: ItemId
    start: int


class DropAudio(Effect, frozen=True):
    WAITS: ClassVar[bool] = False


class PrepareReply(Effect, frozen=True):
    """Ask agent code what the reply to ``turn_id`` should know; answered by ReplyPrepared."""

    turn_id: TurnId


# --------------------------------------------------------------------------------- bound to a connection


class ClearPlayout(Effect, frozen=True):
    """Drop what was not released of ``response_id``, and stop its release clock, now."""

    KIND: ClassVar[EffectKind] = "connection"
    WAITS: ClassVar[bool] = False
    response_id: ResponseId


class SendError(Effect, frozen=True):
    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    command: str
    problem: Problem


class SendReceipt(Effect, frozen=True):
    """The one outcome of a command of an opted-in client: accepted | rejected | duplicate."""

    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    command: str
    outcome: Literal["accepted", "rejected", "duplicate"]


class ResendItem(Effect, frozen=True):
    """A client created an item whose id exists: show it that item again; nothing happened."""

    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    item: Item
    previous_item_id: ItemId | None


class CloseConnection(Effect, frozen=True):
    KIND: ClassVar[EffectKind] = "connection"
    conn: ConnectionId
    code: int
    reason: str


# ----------------------------------------------------------------------------------------------- durable


class RunTool(Effect, frozen=True):
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
