"""Frames that are no facts: media, partials, errors, receipts, and what belongs to one connection.

Ids: ``evt_<epoch>_<seq>_<n>``; frames rendered from a fact have n 0–31 (wire.render), these have the last
durable seq and n from 32 on, counted per connection by ``EventIds``. The delta builders run up to 100 times
a second and session, so all that stays the same between two deltas is encoded once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import msgspec

from openline.core.model import Item, Problem, SessionConfig
from openline.types import CallId, Epoch, ItemId, ResponseId, Role, Seq, SessionId, TurnId
from openline.wire.items import JsonObject, item_object
from openline.wire.render import MAX_FRAMES, RENDERER_VERSION, View, item_frames
from openline.wire.session_config import session_object

_encode: Final = msgspec.json.Encoder().encode
_EVENT_ID: Final = re.compile(r"evt_([0-9]{1,18})_([0-9]{1,18})_([0-9]{1,18})", re.ASCII)
_PREFIXES: Final = 4_096
"""Items whose deltas are being sent at one time, over all sessions of a process; more only cost time."""


class EventIds:
    """Ids of one connection's frames that are no facts; unique as long as the connection lives.

    ``n`` also says how much of the fact at ``seq`` had been sent before, because a client may be cut after any
    frame, also between session.created and the rest of a fact that it came back for: n modulo 32 is the number
    of frames (of the 32 that a fact may have) that were still to come, 0 for a whole one.
    """

    __slots__ = ("_head", "_n", "_seq", "epoch")

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self._n = 0
        self._seq = Seq(-1)
        self._head = ""

    def next(self, seq: Seq, seen: int = MAX_FRAMES - 1) -> str:
        """``seq``: the last durable seq that was sent before (0 at the start), up to its frame ``seen``."""
        self._n += MAX_FRAMES
        if seq != self._seq:
            self._seq, self._head = seq, f"evt_{self.epoch}_{seq}_"
        return f"{self._head}{self._n + MAX_FRAMES - 1 - seen}"


def last_seen(n: int) -> int:
    """The last frame (0–31) of a fact that was sent by the time of the frame with this ``n``."""
    return n if n < MAX_FRAMES else MAX_FRAMES - 1 - n % MAX_FRAMES


def event_id(epoch: Epoch, seq: Seq, n: int) -> str:
    return f"evt_{epoch}_{seq}_{n}"


def parse_event_id(text: str) -> tuple[Epoch, Seq, int] | None:
    """The place that ``after=`` names; None if it is none of our ids."""
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        return None
    epoch, seq, n = match.groups()
    return Epoch(int(epoch)), Seq(int(seq)), int(n)


# ------------------------------------------------------------------------------------------------- deltas


@lru_cache(_PREFIXES)
def _delta_prefix(
    kind: str, response_id: ResponseId, item_id: ItemId, output_index: int, extra: str
) -> bytes:
    head: JsonObject = {
        "type": kind,
        "response_id": response_id,
        "item_id": item_id,
        "output_index": output_index,
    }
    if extra:
        head["call_id"] = extra
    elif "arguments" not in kind:
        head["content_index"] = 0
    return _encode(head)[:-1] + b',"event_id":"'


def audio_delta(
    event_id: str, response_id: ResponseId, item_id: ItemId, output_index: int, pcm: bytes
) -> bytes:
    """``pcm``: PCM16 24 kHz mono, an even number of bytes; 40–200 ms a frame is what clients expect."""
    prefix = _delta_prefix("response.output_audio.delta", response_id, item_id, output_index, "")
    # msgspec writes bytes as base64 text. Joined: formatting would grow its buffer and copy the audio once more.
    return b"".join((prefix, event_id.encode(), b'","delta":', _encode(pcm), b"}"))


def text_delta(
    event_id: str, response_id: ResponseId, item_id: ItemId, output_index: int, text: str
) -> bytes:
    prefix = _delta_prefix("response.output_text.delta", response_id, item_id, output_index, "")
    return b'%b%b","delta":%b}' % (prefix, event_id.encode(), _encode(text))


def transcript_delta(
    event_id: str, response_id: ResponseId, item_id: ItemId, output_index: int, text: str
) -> bytes:
    prefix = _delta_prefix("response.output_audio_transcript.delta", response_id, item_id, output_index, "")
    return b"".join((prefix, event_id.encode(), b'","delta":', _encode(text), b"}"))


def arguments_delta(
    event_id: str,
    response_id: ResponseId,
    item_id: ItemId,
    output_index: int,
    call_id: CallId | None,
    arguments: str,
) -> bytes:
    """``call_id`` None: a call that the gateway runs, shown as an MCP call."""
    kind = (
        "response.mcp_call_arguments.delta" if call_id is None else "response.function_call_arguments.delta"
    )
    prefix = _delta_prefix(kind, response_id, item_id, output_index, call_id or "")
    # agents-js ignores a server-run call's delta without the key, which OpenAI pads with.
    tail = b',"obfuscation":""}' if call_id is None else b"}"
    return b'%b%b","delta":%b%b' % (prefix, event_id.encode(), _encode(arguments), tail)


def user_partial(event_id: str, turn_id: TurnId, item_id: ItemId, text: str) -> bytes:
    """The whole text so far of a turn that is open or being written down; the next one replaces it. For opted-in
    clients: the protocol's own transcription delta can only be added to, and a recognizer's partial is revised.
    """
    return _frame("openline.turn.partial", event_id, {"turn_id": turn_id, "item_id": item_id, "text": text})


def transcription_delta(event_id: str, item_id: ItemId, text: str) -> bytes:
    """Words that follow those before, for clients that only write down."""
    values: JsonObject = {"item_id": item_id, "content_index": 0, "delta": text}
    return _frame("conversation.item.input_audio_transcription.delta", event_id, values)


# ------------------------------------------------------------------------------------- of one connection


@dataclass(frozen=True, slots=True)
class Opening:
    """What an opted-in client is told in session.created.

    ``token``: what to resume with from now on. ``resumed_from``: the ``after`` that is being continued, as
    it came. ``lost``: what could not be restored, in words for a log.
    """

    session_id: SessionId
    epoch: Epoch
    token: str
    role: Role
    resumed_from: str | None = None
    lost: tuple[str, ...] = ()
    renderer: int = RENDERER_VERSION


def session_created(
    event_id: str, config: SessionConfig, view: View, opening: Opening | None = None
) -> bytes:
    """The first frame of every connection. ``opening`` is shown only if the view opted in."""
    session = msgspec.Raw(session_object(config, view.session, expires_at=view.expires_at))
    values: JsonObject = {"session": session}
    if view.opted_in and opening is not None:
        values["openline"] = opening
    return _frame("session.created", event_id, values)


def error_frame(event_id: str, problem: Problem, client_event_id: str | None = None) -> bytes:
    """``client_event_id``: the client's own id of what was wrong, when it gave one."""
    error: JsonObject = {"type": problem.type, "code": problem.code, "message": problem.message}
    if problem.param is not None:
        error["param"] = problem.param
    if client_event_id:
        error["event_id"] = client_event_id
    return _frame("error", event_id, {"error": error})


def receipt(
    event_id: str, command: str, outcome: Literal["accepted", "rejected", "duplicate"], seq: Seq
) -> bytes:
    """The one outcome of an opted-in client's command; ``seq``: the last fact of its step, 0 for none."""
    values: JsonObject = {"command": command, "outcome": outcome, "seq": seq}
    return _frame("openline.command.settled", event_id, values)


def rewound(event_id: str, epoch: Epoch, seq: Seq) -> bytes:
    """What the client saw of ``epoch`` beyond ``seq`` was never stored: it did not happen."""
    return _frame("openline.session.rewound", event_id, {"epoch": epoch, "seq": seq})


def item_resent(ids: tuple[str, str], item: Item, previous_item_id: ItemId | None, view: View) -> list[bytes]:
    """An item that exists, for the one client that created it again: ``added`` and ``done``."""
    frames = item_frames(item, previous_item_id, view)
    return [_frame(kind, own, values) for own, (kind, values) in zip(ids, frames, strict=True)]


def item_retrieved(event_id: str, item: Item, view: View, audio_base64: str = "") -> bytes:
    """``audio_base64``: the recorded audio of its first spoken part; empty when there is none."""
    shown = item_object(item, annotated=view.opted_in)
    content = shown.get("content")
    if audio_base64 and isinstance(content, list):
        spoken = next((part for part in content if part["type"].endswith("_audio")), None)
        if spoken is not None:
            spoken["audio"] = audio_base64
    return _frame("conversation.item.retrieved", event_id, {"item": shown})


def _frame(kind: str, event_id: str, values: JsonObject) -> bytes:
    return _encode({"type": kind, "event_id": event_id, **values})
