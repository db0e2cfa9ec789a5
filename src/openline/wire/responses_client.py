"""The Responses API as its client speaks it: a request's JSON, and a reader of the events that answer it.

Pure and without ports: the adapters turn what the reader yields into the language model port's events.
``entries`` is the one place that says how a conversation looks to the provider; a chain (what the provider
already knows) is compared entry by entry, so that a cut, deleted or edited item is never assumed known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from openline.core.model import Item, Part, ToolSpec, Usage
from openline.wire.items import JsonObject
from openline.wire.model_options import responses_options
from openline.wire.reasoning import is_readable, reasoning_entries

PENDING_OUTPUT: Final = '{"status":"pending"}'
"""What a call without a result is answered with: providers refuse a conversation that leaves one open."""

_encode: Final = msgspec.json.Encoder().encode


def encode(values: JsonObject) -> bytes:
    return _encode(values)


def decode(payload: bytes | str) -> JsonObject:
    """One event. Raises ValueError when it is no JSON object."""
    try:
        return msgspec.json.decode(payload, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("expected a JSON object") from None


# ------------------------------------------------------------------------------------------ to the server


@dataclass(frozen=True, slots=True)
class Asked:
    """What one response is asked with. ``tool_choice``, ``text_format`` and ``options`` are JSON text. ``model`` is
    the provider's name of it."""

    model: str
    instructions: str
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = '"auto"'
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    store: bool = False
    encrypted_reasoning: bool = False
    text_format: str = ""
    options: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """What the provider holds under ``response_id``: ``count`` entries, their digest, and the calls among
    them that had no output yet. Those outputs come to stand between known entries, and are new."""

    response_id: str
    count: int
    digest: bytes
    open_calls: frozenset[str] = frozenset()


SILENCE: Final[JsonObject] = {"type": "input_text", "text": "[The user says nothing.]"}
"""A turn without words (an idle timeout, a transcript that failed): providers refuse a message without content, and
without a turn of the user's a model goes on where it ended."""


def entries(items: Iterable[Item], *, reasoning: bool = False) -> list[JsonObject]:
    """The conversation as input items, without our ids. A call that the gateway ran becomes call and output.

    ``reasoning``: with what led to an item in front of it, for a model of this API.
    """
    found: list[JsonObject] = []
    for item in items:
        if reasoning:
            found += reasoning_entries(item)
        match item.type:
            case "message":
                found.append(_message(item))
            case "function_call":
                found.append(call_entry(item.call_id or item.id, item.name, item.arguments))
            case "function_call_output":
                found.append(output_entry(item.call_id, item.output))
            case _:
                call_id = item.call_id or item.id
                found.append(call_entry(call_id, item.name, item.arguments))
                if item.output or item.error:
                    found.append(output_entry(call_id, item.output or item.error))
    return found


def _message(item: Item) -> JsonObject:
    if item.role == "assistant":
        return _assistant(item)
    parts = [part for part in map(_part, item.content) if part is not None]
    return {"type": "message", "role": item.role or "user", "content": parts or [SILENCE]}


def _part(part: Part) -> JsonObject | None:
    if part.type == "input_image":
        return {"type": "input_image", "image_url": part.image_url, "detail": part.detail or "auto"}
    return {"type": "input_text", "text": part.text} if part.text else None


def assistant_entry(text: str) -> JsonObject:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def refusal_entry(text: str) -> JsonObject:
    return {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": text}]}


def _assistant(item: Item) -> JsonObject:
    refusals = [part.text or "" for part in item.content if part.type == "refusal"]
    other = ("refusal", "reasoning")
    said = " ".join(part.text for part in item.content if part.text and part.type not in other)
    texts: list[JsonObject] = [{"type": "output_text", "text": said}] if said or not refusals else []
    content = [*texts, *({"type": "refusal", "refusal": text} for text in refusals)]
    return {"type": "message", "role": "assistant", "content": content}


def call_entry(call_id: str, name: str, arguments: str) -> JsonObject:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments or "{}"}


def output_entry(call_id: str, output: str) -> JsonObject:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def open_calls(known: Iterable[JsonObject]) -> list[str]:
    """The calls in ``known`` that have no output."""
    found: dict[str, None] = {}
    for entry in known:
        if entry["type"] == "function_call":
            found[str(entry["call_id"])] = None
        elif entry["type"] == "function_call_output":
            found.pop(str(entry["call_id"]), None)
    return list(found)


def pending_outputs(known: Iterable[JsonObject]) -> list[JsonObject]:
    """An output for each call in ``known`` that has none: it is still running, or nobody will answer it."""
    return [output_entry(call_id, PENDING_OUTPUT) for call_id in open_calls(known)]


def digest(known: Iterable[JsonObject]) -> bytes:
    """A hash of entries in order; equal for equal conversations."""
    state = hashlib.blake2b(digest_size=16)
    for entry in known:
        encoded = _encode(entry)
        state.update(len(encoded).to_bytes(8, "big") + encoded)
    return state.digest()


def chain_of(response_id: str, known: Sequence[JsonObject]) -> Chain:
    """Without the reasoning: the provider has its own, and whether we were told it makes no difference."""
    said = without_reasoning(known)
    return Chain(response_id, len(said), digest(said), frozenset(open_calls(said)))


def without_reasoning(known: Iterable[JsonObject]) -> list[JsonObject]:
    return [entry for entry in known if entry["type"] != "reasoning"]


def continuation(chain: Chain | None, known: Sequence[JsonObject]) -> list[JsonObject] | None:
    """What of ``known`` is new to the provider; None when it is not the chain's conversation going on."""
    if chain is None:
        return None
    old: list[JsonObject] = []
    new: list[JsonObject] = []
    led_here: list[JsonObject] = []
    for entry in known:
        if entry["type"] == "reasoning":
            led_here.append(entry)
            continue
        is_late = entry["type"] == "function_call_output" and entry["call_id"] in chain.open_calls
        if is_late or len(old) == chain.count:
            new += [*led_here, entry]
        else:
            old.append(entry)
        led_here.clear()
    if not new or len(old) < chain.count or digest(old) != chain.digest:
        return None
    return new


def body(
    asked: Asked,
    entries_to_send: Sequence[JsonObject],
    previous: str | None = None,
    more: JsonObject | None = None,
) -> JsonObject:
    """A request's JSON object. ``previous``: the response it continues. ``more``: further fields."""
    found: JsonObject = {
        "model": asked.model,
        "instructions": asked.instructions,
        "input": list(entries_to_send),
        "store": asked.store,
        **(more or {}),
    }
    if asked.tools:
        found["tools"] = [_tool(tool) for tool in asked.tools]
        found["tool_choice"] = msgspec.Raw(asked.tool_choice.encode())
        found["parallel_tool_calls"] = asked.parallel_tool_calls
    if asked.max_output_tokens is not None:
        found["max_output_tokens"] = asked.max_output_tokens
    found |= responses_options(asked.options, asked.text_format)
    if asked.encrypted_reasoning:
        found["include"] = ["reasoning.encrypted_content"]
    if previous is not None:
        found["previous_response_id"] = previous
    return found


def _tool(tool: ToolSpec) -> JsonObject:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": msgspec.Raw(tool.parameters.encode()),
        "strict": False,
    }


def with_reasoning(known: Sequence[JsonObject], reasoning: dict[str, list[JsonObject]]) -> list[JsonObject]:
    """``known`` with each call's reasoning items in front of it: a model goes on thinking where it was.

    ``reasoning`` is by call id. Only for a conversation that is sent whole. Where a call has its reasoning from the
    conversation itself, that is it.
    """
    found: list[JsonObject] = []
    for entry in known:
        if entry["type"] == "function_call" and not (found and found[-1]["type"] == "reasoning"):
            found += reasoning.get(str(entry["call_id"]), [])
        found.append(entry)
    return found


def readable(known: Iterable[JsonObject]) -> list[JsonObject]:
    """``known`` without the reasoning that a model cannot read again."""
    return [entry for entry in known if entry["type"] != "reasoning" or is_readable(entry)]


# ---------------------------------------------------------------------------------------- from the server


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of reasoning item ``id``: of ``part`` of its summary, or of the thoughts. ``text`` "": it begins."""

    id: str
    part: int
    text: str
    is_summary: bool = True


@dataclass(frozen=True, slots=True)
class ThoughtEnd:
    """``item``: JSON text of the whole reasoning item."""

    id: str
    item: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    index: int
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class End:
    usage: Usage
    reason: Literal["completed", "max_output_tokens", "content_filter", "steered"]


@dataclass(frozen=True, slots=True)
class Failed:
    """``code``: the provider's, or "" ; ``status``: HTTP status that it stands for, 0 when it gave none."""

    code: str
    status: int = 0
    kind: str = ""


Piece = Text | Refusal | Thought | ThoughtEnd | CallPiece | CallEnd | End | Failed


@dataclass(slots=True)
class _Call:
    index: int
    call_id: str
    name: str
    arguments: str = ""
    is_ended: bool = False


@dataclass(slots=True)
class Reader:
    """Reads one response. After ``End`` or ``Failed`` nothing more is yielded.

    Sloppy servers are met half-way: text or calls that only come in their ``done`` event are taken from
    there, a second ``done`` is ignored, deltas for items that were never added are counted in ``strays``.
    ``outputs`` is what the provider now holds of its own, as entries; ``reasoning`` its thoughts by call id.
    A thought ends when what it led to begins: one of a response that was lost before that was for nothing, and
    nothing was said (``has_output``). ``is_thinking``: a reasoning item has begun and has not ended; a model may be
    silent for minutes then.
    """

    response_id: str = ""
    outputs: list[JsonObject] = field(default_factory=list)
    reasoning: dict[str, list[JsonObject]] = field(default_factory=dict)
    strays: int = 0
    is_over: bool = False
    has_output: bool = False
    is_thinking: bool = False
    reason: str = ""
    _calls: dict[int, _Call] = field(default_factory=dict)
    _texts: dict[int, str] = field(default_factory=dict)
    _refusals: dict[int, str] = field(default_factory=dict)
    _thoughts: list[JsonObject] = field(default_factory=list)
    _ended: list[Piece] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)

    @property
    def has_calls(self) -> bool:
        """A call was begun: what there is of this response cannot stand without its rest."""
        return bool(self._calls)

    def feed(self, event: JsonObject) -> list[Piece]:
        kind = event.get("type")
        if self.is_over or not isinstance(kind, str):
            return []
        pieces: list[Piece] = []
        for piece in self._read(kind, event):
            if isinstance(piece, End | Failed):
                self.is_over = True
                self.reason = piece.reason if isinstance(piece, End) else "failed"
            if not isinstance(piece, Thought | Failed):
                pieces += self._ended
                self._ended.clear()
                self.has_output = self.has_output or not isinstance(piece, End)
            pieces.append(piece)
        return pieces

    def _read(self, kind: str, event: JsonObject) -> Iterable[Piece]:
        match kind:
            case "response.created" | "response.in_progress" | "response.queued":
                self.response_id = _text(_child(event, "response"), "id") or self.response_id
                return []
            case "response.output_text.delta":
                return self._say(_number(event, "output_index"), _text(event, "delta"))
            case "response.refusal.delta":
                return self._refuse(_number(event, "output_index"), _text(event, "delta"))
            case "response.reasoning_summary_text.delta":
                return self._think(event, "summary_index")
            case "response.reasoning_text.delta":
                return self._think(event, "content_index")
            case "response.function_call_arguments.delta":
                return self._call_piece(event)
            case "response.output_item.added":
                return self._item_added(event)
            case "response.output_item.done":
                return self._item_done(_number(event, "output_index"), _child(event, "item"))
            case "response.completed" | "response.incomplete" | "response.failed":
                return self._over(kind, _child(event, "response"))
            case "error" | "response.error":
                return [failure(event)]
            case _:
                return []

    def _say(self, at: int, text: str) -> list[Piece]:
        if not text:
            return []
        self._texts[at] = self._texts.get(at, "") + text
        return [Text(text)]

    def _refuse(self, at: int, text: str) -> list[Piece]:
        if not text:
            return []
        self._refusals[at] = self._refusals.get(at, "") + text
        return [Refusal(text)]

    def _think(self, event: JsonObject, place: str) -> list[Piece]:
        at, text = _number(event, "output_index"), _text(event, "delta")
        if not text:
            return []
        is_summary = place == "summary_index"
        return [Thought(self._name(at, event), _number(event, place), text, is_summary)]

    def _name(self, at: int, of: JsonObject) -> str:
        """A reasoning item's id; one that its server names nowhere gets one, so that clients can tell it."""
        given = _text(of, "item_id") or _text(of, "id")
        return self._names.setdefault(at, given or f"rs_{self.response_id.removeprefix('resp_')}_{at}")

    def _item_added(self, event: JsonObject) -> list[Piece]:
        item, at = _child(event, "item"), _number(event, "output_index")
        if item.get("type") == "function_call" and at not in self._calls:
            call_id = _text(item, "call_id") or _text(item, "id")
            self._calls[at] = _Call(len(self._calls), call_id, _text(item, "name"))
        if item.get("type") == "reasoning" and at not in self._names:
            self.is_thinking = True
            return [Thought(self._name(at, item), 0, "")]
        return []

    def _call_piece(self, event: JsonObject) -> list[Piece]:
        call, delta = self._calls.get(_number(event, "output_index")), _text(event, "delta")
        if call is None or call.is_ended:
            self.strays += 1
            return []
        call.arguments += delta
        return [CallPiece(call.index, call.call_id, call.name, delta)] if delta else []

    def _item_done(self, at: int, item: JsonObject) -> list[Piece]:
        if at in self._done:
            return []
        match item.get("type"):
            case "message":
                self._done.add(at)
                return self._message_done(at, item)
            case "function_call":
                self._done.add(at)
                return self._call_done(at, item)
            case "reasoning":
                self._done.add(at)
                self._thought_done(at, item)
        return []

    def _thought_done(self, at: int, item: JsonObject) -> None:
        self.is_thinking = False
        kept = {key: value for key, value in item.items() if key != "status" and value is not None}
        self._ended.append(
            ThoughtEnd(self._name(at, item), encode({**kept, "id": self._name(at, item)}).decode())
        )
        # Without its encrypted content a provider that stores nothing cannot read it again.
        self._thoughts += [kept] if item.get("encrypted_content") else []

    def _message_done(self, at: int, item: JsonObject) -> list[Piece]:
        content = item.get("content")
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        pieces = self._say(at, _rest(parts, "text", self._texts.get(at, "")))
        pieces += self._refuse(at, _rest(parts, "refusal", self._refusals.get(at, "")))
        # Two entries for a message that has both: the port tells it as two.
        if at in self._texts or at not in self._refusals:
            self.outputs.append(assistant_entry(self._texts.get(at, "")))
        if at in self._refusals:
            self.outputs.append(refusal_entry(self._refusals[at]))
        return pieces

    def _call_done(self, at: int, item: JsonObject) -> list[Piece]:
        if item.get("status") == "incomplete":
            return []  # Half of its arguments is no call.
        self._item_added({"item": item, "output_index": at})
        call = self._calls[at]
        whole = _text(item, "arguments") or call.arguments
        pieces: list[Piece] = []
        if whole.startswith(call.arguments) and len(whole) > len(call.arguments):
            pieces.append(CallPiece(call.index, call.call_id, call.name, whole[len(call.arguments) :]))
        call.is_ended, call.arguments = True, whole or "{}"
        self.outputs.append(call_entry(call.call_id, call.name, call.arguments))
        if self._thoughts:
            self.reasoning[call.call_id], self._thoughts = self._thoughts, []
        return [*pieces, CallEnd(call.index, call.call_id, call.name, call.arguments)]

    def _over(self, kind: str, response: JsonObject) -> list[Piece]:
        self.response_id = _text(response, "id") or self.response_id
        status = _text(response, "status")
        if kind == "response.failed" or status in ("failed", "cancelled"):
            return [_failed(_child(response, "error"), status or "failed")]
        pieces: list[Piece] = []
        why = _text(_child(response, "incomplete_details"), "reason")
        output = response.get("output")
        for at, item in enumerate(output if isinstance(output, list) else []):
            # What a server told only here is still said; what it told before is in _done.
            is_kept = why == "steered" and isinstance(item, dict) and item.get("type") == "message"
            if isinstance(item, dict) and (is_kept or item.get("status") != "incomplete"):
                pieces += self._item_done(at, item)
        usage = to_usage(_child(response, "usage"))
        if kind == "response.completed":
            return [*pieces, End(usage, "completed")]
        if why == "steered":
            return [*pieces, End(usage, "steered")]
        return [*pieces, End(usage, "content_filter" if why == "content_filter" else "max_output_tokens")]


def _rest(parts: Iterable[JsonObject], name: str, told: str) -> str:
    """What a finished message has under ``name`` beyond what its deltas told; nothing if it contradicts them."""
    whole = "".join(_text(part, name) for part in parts)
    return whole[len(told) :] if whole.startswith(told) else ""


def failure(event: JsonObject) -> Failed:
    """An ``error`` frame: nested as over WebSocket, or flat as over SSE and from HTTP bodies."""
    nested = event.get("error")
    inner: JsonObject = nested if isinstance(nested, dict) else event
    status = event.get("status", event.get("status_code"))
    known = status if isinstance(status, int) else 0
    if isinstance(nested, str):
        return Failed("", known)
    kind = "" if inner is event else _text(inner, "type")
    return Failed(_text(inner, "code"), known, kind)


def _failed(error: JsonObject, otherwise: str) -> Failed:
    return Failed(_text(error, "code") or otherwise, 0, _text(error, "type"))


def to_usage(usage: JsonObject) -> Usage:
    """Token counts of either API; what is not there counts 0."""
    cached = _child(usage, "input_tokens_details") or _child(usage, "prompt_tokens_details")
    spent = _child(usage, "output_tokens_details") or _child(usage, "completion_tokens_details")
    return Usage(
        input_tokens=_number(usage, "input_tokens") or _number(usage, "prompt_tokens"),
        output_tokens=_number(usage, "output_tokens") or _number(usage, "completion_tokens"),
        cached_tokens=_number(cached, "cached_tokens"),
        reasoning_tokens=_number(spent, "reasoning_tokens"),
    )


def _child(values: JsonObject, name: str) -> JsonObject:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _text(values: JsonObject, name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(values: JsonObject, name: str) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


# -------------------------------------------------------------------------------------- what an error means

TERMINAL: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.error", "error"}
)
NOT_FOUND: Final = "previous_response_not_found"
LIMIT_REACHED: Final = "websocket_connection_limit_reached"
UNREADABLE: Final = "invalid_encrypted_content"
"""It was given reasoning of another model or account, which only that one can read."""
_PERMANENT: Final = frozenset(
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "billing_not_active",
        "context_length_exceeded",
        "credit_balance_exhausted",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_encrypted_content",
        "invalid_prompt",
        "missing_api_key",
        "model_mismatch",
        "model_not_found",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
    }
)


def is_permanent(failed: Failed) -> bool:
    """Whether asking again cannot help: a wrong key, model, quota or request, told apart from a bad moment."""
    if failed.code in _PERMANENT:
        return True
    if failed.code in (
        NOT_FOUND,
        LIMIT_REACHED,
        "server_error",
        "rate_limit_exceeded",
        "server_is_overloaded",
    ):
        return False
    return failed.status in (400, 401, 402, 403, 404, 405, 413, 415, 422) or (
        failed.status == 0 and failed.kind in ("invalid_request_error", "authentication_error")
    )


def remedy(failed: Failed) -> str:
    """What a person can do about it."""
    if failed.status == 401 or "api_key" in failed.code:
        return "Check the key that llm_key_env names."
    if failed.code in ("insufficient_quota", "billing_hard_limit_reached", "credit_balance_exhausted"):
        return "The account has no credit left; add some, or use another key."
    if failed.status == 404 or failed.code == "model_not_found":
        return "Check llm_url and llm_model."
    if failed.code == "context_length_exceeded":
        return "The conversation is longer than the model takes; use one with a larger context."
    return "The provider's own log says more."
