"""The Responses API as its server speaks it: a request to core values, one response to its events.

Pure. ``decode`` reads what a client sends over WebSocket or in a POST, ``ResponseWriter`` renders one
response: every event in the order and with the fields that the strictest client asks for
(openai-protocols.md A.6, E.1). Content is rendered from what it is given, nothing is kept but the output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from openline.core.model import Item, Part, Problem, ResponseRequest, ToolSpec, Usage
from openline.errors import ClientProtocolError
from openline.wire.check import MAX_ID, Fields, error
from openline.wire.items import JsonObject, to_tool_choice, to_tools
from openline.wire.model_options import to_options, to_text_format, wants_sealed
from openline.wire.reasoning import Thinking, Told, object_of
from openline.wire.responses_input import (
    Given,
    Reference,
    has_references,
    joined,
    refusal_part,
    text_part,
    to_given,
)

MAX_OUTPUT_TOKENS: Final = 10_000_000
MAX_METADATA: Final = 16
NOT_FOUND: Final = "previous_response_not_found"
_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}", re.ASCII)
_ECHOED: Final = ("temperature", "top_p", "text", "truncation", "reasoning", "user", "service_tier")
"""Settings that are shown again in the response as they came."""

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Create:
    """A response that a client asks for. ``items``: its input, without ids. ``stores``: it is to be durable.
    ``given``: the input as it came where it refers to stored items; then ``items`` is empty until it is ``resolved``.
    """

    items: tuple[Item, ...]
    model: str = ""
    stream_id: str = ""
    previous: str | None = None
    instructions: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = '"auto"'
    parallel_tool_calls: bool = True
    max_output_tokens: int | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    text_format: str = ""
    options: str = ""
    stores: bool = True
    streams: bool = False
    generates: bool = True
    echo: tuple[tuple[str, bytes], ...] = ()
    given: tuple[Given, ...] = ()

    def resolved(self, found: Mapping[str, Item | Part | None]) -> Create:
        """With what was referred to, by its id; None: it is in the conversation already."""
        given = [found[each.id] if isinstance(each, Reference) else each for each in self.given]
        return replace(self, items=joined(each for each in given if each is not None), given=())

    @property
    def is_sealed(self) -> bool:
        """Its reasoning items are shown with their encrypted content."""
        return wants_sealed(self.options)

    def request(self) -> ResponseRequest:
        """As a session is asked for it."""
        return ResponseRequest(
            modality="text",
            instructions=self.instructions or "",
            tools=self.tools,
            tool_choice=self.tool_choice,
            max_output_tokens=self.max_output_tokens,
            metadata=self.metadata,
            text_format=self.text_format,
            model_options=self.options,
            parallel_tool_calls=self.parallel_tool_calls,
        )


@dataclass(frozen=True, slots=True)
class Cancel:
    response_id: str


@dataclass(frozen=True, slots=True)
class Steer:
    """Input for the response that runs as ``previous``. ``input`` is given back as it came when it cannot be taken.

    ``items`` is what it says; ``problem`` why that is nothing that can steer, "" when it is.
    """

    previous: str
    input: object
    items: tuple[Item, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A vendor's event that asks for nothing."""


def decode(payload: bytes) -> Create | Cancel | Steer | Ignored:
    """A client's WebSocket frame. Raises ClientProtocolError."""
    fields = Fields(_object(payload), "", None)
    kind = fields.required_choice(
        "type", ("response.create", "response.cancel", "response.steer", "response.processed")
    )
    match kind:
        case "response.create":
            return to_create(fields)
        case "response.cancel":
            return Cancel(fields.text("response_id", limit=MAX_ID) or "")
        case "response.steer":
            return _steer(fields)
        case _:
            return Ignored()


def _steer(fields: Fields) -> Steer:
    previous, given = fields.required_text("previous_response_id", limit=MAX_ID), fields.get("input")
    try:
        fields.refuse_unknown(("type", "previous_response_id", "input"))
        entries = to_given(fields)
        items = () if has_references(entries) else joined(entries)
        if not items or any(item.author != "user" for item in items):
            raise error("invalid_value", "Expected 'input' to be text or messages of the user.", "input")
    except ClientProtocolError as refused:
        return Steer(previous, given, (), refused.message)
    return Steer(previous, given, items)


def stream_id_of(payload: bytes) -> str:
    """The lane an error about ``payload`` belongs to; "" when it names none that could be."""
    try:
        name = _object(payload).get("stream_id")
    except ClientProtocolError:
        return ""
    return name if isinstance(name, str) and _STREAM_ID.fullmatch(name) else ""


def decode_body(payload: bytes) -> Create:
    """The body of a POST. Raises ClientProtocolError."""
    return to_create(Fields(_object(payload), "", None))


def _object(payload: bytes) -> JsonObject:
    try:
        return msgspec.json.decode(payload, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise error("invalid_json", "Expected a JSON object; got something else.") from None


def to_create(fields: Fields) -> Create:
    if fields.flag("background", False):
        raise fields.not_supported("background", "background responses; use a run")
    for name in ("conversation", "prompt"):
        if fields.get(name) is not None:
            raise fields.not_supported(name, f"'{name}' on /v1/responses; use previous_response_id")
    options = fields.child("prompt_cache_options")
    prewarms = options is not None and options.flag("prewarm", False)
    given = to_given(fields)
    refers = has_references(given)
    return Create(
        items=() if refers else joined(given),
        given=given if refers else (),
        model=fields.text("model", limit=MAX_ID) or "",
        stream_id=_stream_id(fields),
        previous=fields.text("previous_response_id", limit=MAX_ID),
        instructions=fields.text("instructions"),
        tools=to_tools(fields),
        tool_choice=to_tool_choice(fields) or '"auto"',
        parallel_tool_calls=fields.flag("parallel_tool_calls", True),
        max_output_tokens=fields.integer("max_output_tokens", 1, MAX_OUTPUT_TOKENS),
        metadata=_metadata(fields),
        text_format=to_text_format(fields),
        options=to_options(fields),
        stores=fields.flag("store", True),
        streams=fields.flag("stream", False),
        generates=fields.flag("generate", True) and not prewarms,
        echo=tuple((name, fields.json_text(name).encode()) for name in _ECHOED if name in fields),
    )


def _stream_id(fields: Fields) -> str:
    name = fields.get("stream_id")
    if name is None:
        return ""
    if not isinstance(name, str) or not _STREAM_ID.fullmatch(name):
        message = (
            "The 'stream_id' field must be a non-empty string with at most 256 characters and may only "
            "contain letters, numbers, underscores, hyphens, and periods."
        )
        raise error("invalid_stream_id", message, "stream_id")
    return name


def _metadata(fields: Fields) -> tuple[tuple[str, str], ...]:
    pairs = fields.child("metadata")
    if pairs is None:
        return ()
    if len(pairs.values) > MAX_METADATA:
        message = f"Invalid 'metadata': expected at most {MAX_METADATA} properties."
        raise fields.wrong("object_above_max_properties", message, "metadata")
    return tuple((key, pairs.required_text(key, limit=512)) for key in pairs.values)


# ------------------------------------------------------------------------------------------------ output

Event = tuple[str, bytes]
"""An event's type, and its JSON: the payload of a frame, or of ``data:``."""


@dataclass(slots=True)
class _Output:
    item_id: str
    index: int
    call_id: str = ""
    name: str = ""
    text: str = ""
    """Of a message, or the arguments of a call."""
    status: str = "in_progress"
    is_refusal: bool = False

    def item(self) -> JsonObject:
        if self.name:
            return {
                "id": self.item_id,
                "type": "function_call",
                "call_id": self.call_id,
                "name": self.name,
                "arguments": "" if self.status == "in_progress" else self.text,
                "status": self.status,
            }
        parts = [] if self.status == "in_progress" else [self.part(self.text)]
        return {
            "id": self.item_id,
            "type": "message",
            "role": "assistant",
            "status": self.status,
            "content": parts,
        }

    def part(self, text: str) -> JsonObject:
        return refusal_part(text) if self.is_refusal else text_part(text)


@dataclass(slots=True)
class ResponseWriter:
    """One response. Methods are called in the order in which things happen and return the events to send.

    ``index`` is the caller's name for an output, any number once; on the wire outputs are numbered as they begin,
    reasoning items among them. ``created_at``: Unix seconds.
    """

    response_id: str
    asked: Create
    created_at: int
    model: str = ""
    _outputs: dict[int, _Output] = field(default_factory=dict)
    _thinking: dict[str, Thinking] = field(default_factory=dict)
    _sequence: int = 0

    def created(self) -> list[Event]:
        shown = self.response("in_progress")
        return [self._event(kind, response=shown) for kind in ("response.created", "response.in_progress")]

    def message_started(self, index: int, item_id: str, *, is_refusal: bool = False) -> list[Event]:
        """``is_refusal``: its one part is a refusal, and so are its text's events; clients leave it out of the text."""
        events = self._give_up()
        output = self._outputs[index] = _Output(item_id, self._count, is_refusal=is_refusal)
        place = self._place(index)
        return [
            *events,
            self._event("response.output_item.added", output_index=output.index, item=output.item()),
            self._event("response.content_part.added", **place, content_index=0, part=output.part("")),
        ]

    def text(self, index: int, delta: str) -> list[Event]:
        output = self._outputs[index]
        output.text += delta
        place = self._place(index)
        if output.is_refusal:
            return [self._event("response.refusal.delta", **place, content_index=0, delta=delta)]
        return [self._event("response.output_text.delta", **place, content_index=0, delta=delta, logprobs=[])]

    def message_done(self, index: int, text: str, status: str = "completed") -> list[Event]:
        output = self._outputs[index]
        output.text, output.status = text, status
        place = self._place(index)
        whole: JsonObject = {"refusal": text} if output.is_refusal else {"text": text, "logprobs": []}
        kind = "refusal" if output.is_refusal else "output_text"
        return [
            self._event(f"response.{kind}.done", **place, content_index=0, **whole),
            self._event("response.content_part.done", **place, content_index=0, part=output.part(text)),
            self._event("response.output_item.done", output_index=output.index, item=output.item()),
        ]

    def call_started(self, index: int, item_id: str, call_id: str, name: str) -> list[Event]:
        events = self._give_up()
        output = self._outputs[index] = _Output(item_id, self._count, call_id, name)
        return [
            *events,
            self._event("response.output_item.added", output_index=output.index, item=output.item()),
        ]

    def call_delta(self, index: int, delta: str) -> list[Event]:
        return [
            self._event("response.function_call_arguments.delta", **self._place(index), delta=delta),
        ]

    def call_done(self, index: int, arguments: str, status: str = "completed") -> list[Event]:
        output = self._outputs[index]
        output.text, output.status = arguments, status
        told: JsonObject = {**self._place(index), "name": output.name, "arguments": arguments}
        return [
            self._event("response.function_call_arguments.done", **told),
            self._event("response.output_item.done", output_index=output.index, item=output.item()),
        ]

    def reasoning(self, reasoning_id: str, part: int, text: str, *, is_summary: bool) -> list[Event]:
        """A piece of a reasoning item, which begins with its first."""
        thinking, events = self._think(reasoning_id)
        told = thinking.text(part, text, is_summary=is_summary) if text else []
        return [*events, *self._tell(thinking, told)]

    def reasoning_done(self, reasoning: str) -> list[Event]:
        """``reasoning``: JSON text of the whole item. Before what it led to."""
        whole = object_of(reasoning)
        thinking, events = self._think(str(whole.get("id", "")))
        return [*events, *self._tell(thinking, thinking.done(whole)), self._end(thinking)]

    def _think(self, reasoning_id: str) -> tuple[Thinking, list[Event]]:
        known = self._thinking.get(reasoning_id)
        if known is not None:
            return known, []
        thinking = self._thinking[reasoning_id] = Thinking(reasoning_id, self._count)
        item = thinking.item(sealed=False)
        return thinking, [self._event("response.output_item.added", output_index=thinking.index, item=item)]

    def _tell(self, thinking: Thinking, told: Sequence[Told]) -> list[Event]:
        place: JsonObject = {"item_id": thinking.item_id, "output_index": thinking.index}
        return [self._event(f"response.{kind}", **place, **values) for kind, values in told]

    def _end(self, thinking: Thinking) -> Event:
        item = thinking.item(sealed=self.asked.is_sealed)
        return self._event("response.output_item.done", output_index=thinking.index, item=item)

    def _give_up(self) -> list[Event]:
        """What was thought and is not finished when the model speaks was for a try that was lost."""
        events: list[Event] = []
        for thinking in self._thinking.values():
            if thinking.status == "in_progress":
                events += [*self._tell(thinking, thinking.cut()), self._end(thinking)]
        return events

    def calls(self) -> list[tuple[str, str]]:
        """Id and name of each whole call: what the client is to answer."""
        outputs = self._outputs.values()
        return [(one.call_id, one.name) for one in outputs if one.name and one.status == "completed"]

    def finish_open(self) -> list[Event]:
        """What was cut in the middle: each open item ends as incomplete."""
        events = self._give_up()
        for index, output in self._outputs.items():
            if output.status == "in_progress":
                done = self.call_done if output.name else self.message_done
                events += done(index, output.text, "incomplete")
        return events

    def done(
        self, status: str, reason: str = "", usage: Usage | None = None, problem: Problem | None = None
    ) -> list[Event]:
        """The one terminal event. ``status``: completed | incomplete | failed | cancelled."""
        events = self.finish_open()
        shown = self.response(status, reason, usage, problem)
        kind = "incomplete" if status == "cancelled" else status
        return [*events, self._event(f"response.{kind}", response=shown)]

    def response(
        self,
        status: str,
        reason: str = "",
        usage: Usage | None = None,
        problem: Problem | None = None,
    ) -> JsonObject:
        """The response object as it is now."""
        asked = self.asked
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": False,
            "error": None if problem is None else {"code": problem.code, "message": problem.message},
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": dict(asked.metadata),
            "model": self.model or asked.model,
            "output": self._output(),
            "parallel_tool_calls": asked.parallel_tool_calls,
            "previous_response_id": asked.previous,
            "store": asked.stores,
            "tool_choice": msgspec.Raw(asked.tool_choice.encode()),
            "tools": [_tool(tool) for tool in asked.tools],
            "usage": None if usage is None else _usage(usage),
            **{name: msgspec.Raw(value) for name, value in asked.echo},
        }

    @property
    def _count(self) -> int:
        return len(self._outputs) + len(self._thinking)

    def _output(self) -> list[JsonObject]:
        shown = {output.index: output.item() for output in self._outputs.values()}
        sealed = self.asked.is_sealed
        shown |= {thinking.index: thinking.item(sealed=sealed) for thinking in self._thinking.values()}
        return [item for _, item in sorted(shown.items())]

    def _place(self, index: int) -> JsonObject:
        output = self._outputs[index]
        return {"item_id": output.item_id, "output_index": output.index}

    def _event(self, kind: str, **values: object) -> Event:
        shown: JsonObject = {"type": kind, "sequence_number": self._sequence, **values}
        if self.asked.stream_id:
            shown["stream_id"] = self.asked.stream_id
        self._sequence += 1
        return kind, _encode(shown)


def _tool(tool: ToolSpec) -> JsonObject:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": msgspec.Raw(tool.parameters.encode()),
        "strict": False,
    }


def _usage(usage: Usage) -> JsonObject:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def encode(values: JsonObject) -> bytes:
    return _encode(values)


def output_items(output: Sequence[Item], writer: ResponseWriter) -> None:
    """Fill ``writer`` with a stored response's finished output, for a response object read back."""
    for index, item in enumerate(output):
        for reasoning in item.reasoning:
            writer.reasoning_done(reasoning)
        if item.type == "message":
            writer.message_started(index, item.id, is_refusal=item.is_refusal)
            writer.message_done(index, item.text, item.status)
        else:
            writer.call_started(index, item.id, item.call_id or item.id, item.name)
            writer.call_done(index, item.arguments, item.status)


def error_frame(problem: Problem, status: int = 400, stream_id: str = "") -> bytes:
    """An error of a request or of the connection, as WebSocket mode nests it."""
    inner: JsonObject = {
        "type": problem.type,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
    }
    frame: JsonObject = {"type": "error", "status": status, "error": inner}
    if stream_id:
        frame["stream_id"] = stream_id
    return _encode(frame)


def steer_accepted(number: int, steer_id: str, previous: str, stream_id: str) -> bytes:
    """``number``: of this connection's frames about steering; they are no part of a response's own sequence."""
    told = {"id": steer_id, "previous_response_id": previous}
    return _steering("accepted", number, stream_id, steer=told)


def steer_pending(
    number: int, steer_id: str, previous: str, stream_id: str, calls: Sequence[tuple[str, str]]
) -> bytes:
    """The response ended with ``calls`` (id and name) that the client answers: its input waits for them."""
    needed = [{"type": "function_call_output", "call_id": call_id, "name": name} for call_id, name in calls]
    told = {"id": steer_id, "previous_response_id": previous}
    reason = "waiting_for_required_input"
    return _steering("pending", number, stream_id, steer=told, reason=reason, required_input=needed)


def steer_failed(
    number: int, steer: Steer, code: str, message: str, steer_id: str = "", stream_id: str = ""
) -> bytes:
    """The input is given back (A.7). ``steer_id`` is there when it had been accepted."""
    failure = {"type": "invalid_request_error", "code": code, "message": message}
    told = {"input": steer.input, "previous_response_id": steer.previous}
    told |= {"id": steer_id} if steer_id else {}
    return _steering("failed", number, stream_id, error=failure, steer=told)


def _steering(what: str, number: int, stream_id: str, **values: object) -> bytes:
    frame: JsonObject = {"type": f"response.steer.{what}", "sequence_number": number, **values}
    return _encode({**frame, "stream_id": stream_id} if stream_id else frame)


def not_found(response_id: str) -> ClientProtocolError:
    message = f"Previous response with id '{response_id[:MAX_ID]}' not found."
    return error(NOT_FOUND, message, "previous_response_id")


def response_of(terminal: bytes) -> bytes:
    """The response object inside a terminal event, as it is."""
    return bytes(msgspec.json.decode(terminal, type=dict[str, msgspec.Raw])["response"])
