"""OpenAI Realtime as its client speaks it: our commands as frames, the provider's events as values.

``wire.client_events`` and ``wire.render`` are the server's side of the same protocol (openai-protocols.md B).
Decoding never raises: what a provider sends is its own choice, so what cannot be used comes back as
``Unusable`` and is counted by the link. Beta names are not read: those servers are gone (B.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from openline.core.model import AudioFormat, Item, Part, SessionConfig, ToolSpec, TurnDetection, Usage
from openline.core.value import replace
from openline.wire.items import JsonObject
from openline.wire.session_config import FORMATS

Kind = Literal["realtime", "transcription"]
"""What a session is at the provider; fixed when its socket is opened."""
CLIENT_COMMITS: Final = frozenset(("gpt-live-transcribe", "gpt-realtime-whisper"))
"""Models that take no turn detection in a transcription session: the client commits (openai-protocols.md B.5)."""
METADATA_MAX: Final = 16
"""Pairs that a response may carry (B.5); one of them is ours."""
RESPONSE_KEY: Final = "openline_response"
"""The metadata field by which ``response.created`` says which of our requests it answers."""
PENDING: Final = '{"status":"pending","note":"The tool is still running; its result will follow."}'
"""What a model is told of a call whose result is not there yet: an open call without an output is refused."""

_REPLYING: Final = frozenset(("create_response", "interrupt_response"))

_encode: Final = msgspec.json.Encoder().encode

# ------------------------------------------------------------------------------------------- what we send


_APPEND: Final = b'{"type":"input_audio_buffer.append","audio":'


def append_audio(data: bytes, frame: bytes = b"") -> bytes:
    """The hot way up: audio in the session's input format.

    ``frame``: a client's append of just this audio, checked. Where the audio stands last in it, as nearly all clients
    write it, its base64 is taken over; whatever else the client has put beside it stays here.
    """
    end = (len(data) + 2) // 3 * 4 + 3
    if len(frame) == len(_APPEND) + end and frame.startswith(_APPEND):
        return frame  # to the letter what we would write
    # Before the text of the right length, up to its quote, must stand the field's name: within another string the
    # quotes would be escaped, and a base64 that is written otherwise (escapes, no padding) is not so long.
    if frame.endswith(b'"}') and (
        frame.startswith(b'"audio":"', -end - 8) or frame.startswith(b'"audio": "', -end - 9)
    ):
        return _APPEND + frame[-end:]
    # msgspec writes bytes as base64 text, twice as fast as binascii does.
    return b"%b%b}" % (_APPEND, _encode(data))


def command(kind: str, event_id: str, **values: object) -> bytes:
    """Any other client event, under the id that an ``error`` about it will carry."""
    return _encode({"type": kind, "event_id": event_id, **values})


def as_taken(config: SessionConfig) -> SessionConfig:
    """The configuration as far as a provider can follow it: no turn detection where the model that writes down has
    none, and nothing said where nobody answers."""
    if config.purpose == "realtime":
        return config
    detection = None if config.transcription in CLIENT_COMMITS else config.turn_detection
    return replace(config, turn_detection=detection, output_format="pcm")


def session_settings(config: SessionConfig, transcription: str, kind: Kind = "realtime") -> JsonObject:
    """The ``session`` of session.update: all that we set, so that two of them can be compared.

    ``kind`` transcription: one that only writes down has no more than ears. ``transcription``: the model to use when the session names none: turns need their text (agents and the
    log read it), also when the client does not. The provider never starts or stops a reply by itself: the
    session does, so that agent code can act before the reply (ADR 0007).
    """
    extra = msgspec.json.decode(config.extra, type=dict[str, object])
    asked = extra.get("transcription")
    heard: JsonObject = {
        "format": FORMATS[config.input_format],
        "transcription": {
            **(asked if isinstance(asked, dict) else {}),
            "model": config.transcription or transcription,
        },
        "turn_detection": detection(config.turn_detection),
    }
    if "noise_reduction" in extra:
        heard["noise_reduction"] = extra["noise_reduction"]
    if kind == "transcription":
        # Nobody replies there: what says when to is not its business.
        turns = heard["turn_detection"]
        if isinstance(turns, dict):
            heard["turn_detection"] = {name: turns[name] for name in turns if name not in _REPLYING}
        shown: JsonObject = {"type": kind, "audio": {"input": heard}}
        return {**shown, "include": extra["include"]} if "include" in extra else shown
    said: JsonObject = {"format": FORMATS[config.output_format], "voice": config.voice}
    if config.speed != 1.0:
        said["speed"] = config.speed
    session: JsonObject = {
        "type": "realtime",
        "output_modalities": [config.modality],
        "instructions": config.instructions,
        "tools": [_tool(tool) for tool in config.tools],
        "tool_choice": Raw(config.tool_choice.encode()),
        "max_output_tokens": "inf" if config.max_output_tokens is None else config.max_output_tokens,
        "audio": {"input": heard, "output": said},
    }
    if not config.parallel_tool_calls:
        session["parallel_tool_calls"] = False
    for name in ("reasoning", "truncation", "prompt", "tracing"):
        if name in extra:
            session[name] = extra[name]
    return session


def format_settings(heard: AudioFormat, said: AudioFormat, kind: Kind = "realtime") -> JsonObject:
    """A session.update of the formats alone: one that is refused takes nothing else with it."""
    audio = {"input": {"format": FORMATS[heard]}}
    if kind == "realtime":
        audio["output"] = {"format": FORMATS[said]}
    return {"type": kind, "audio": audio}


def changed_settings(old: JsonObject, new: JsonObject) -> JsonObject:
    """What of ``new`` differs from ``old``, as a session.update; empty if nothing does.

    Unchanged fields stay out: a provider may refuse to be told its voice twice (``cannot_update_voice``). Formats are
    changed by themselves (``format_settings``).
    """
    changes = {name: value for name, value in new.items() if name != "audio" and old.get(name) != value}
    before, after = _audio(old), _audio(new)
    audio = {side: value for side, value in after.items() if before[side] != value}
    if audio:
        changes["audio"] = audio
    return {"type": new["type"], **changes} if changes else {}


def _audio(session: JsonObject) -> dict[str, JsonObject]:
    audio = session["audio"]
    assert isinstance(audio, dict)
    return {
        side: {name: value for name, value in told.items() if name != "format"}
        for side, told in audio.items()
    }


def detection(wanted: TurnDetection | None) -> JsonObject | None:
    """Turn detection that only detects. Our idle timeout stays ours: the provider's would speak by itself."""
    if wanted is None:
        return None
    shared: JsonObject = {"type": wanted.type, "create_response": False, "interrupt_response": False}
    if wanted.type == "semantic_vad":
        return {**shared, "eagerness": wanted.eagerness}
    return {
        **shared,
        "threshold": wanted.threshold,
        "prefix_padding_ms": wanted.prefix_padding_ms,
        "silence_duration_ms": wanted.silence_duration_ms,
    }


def _tool(tool: ToolSpec) -> JsonObject:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": Raw(tool.parameters.encode()),
    }


def tool_objects(tools: tuple[ToolSpec, ...]) -> list[JsonObject]:
    return [_tool(tool) for tool in tools]


def raw(text: str) -> Raw:
    """JSON text of ours, put into a frame as it is."""
    return Raw(text.encode())


def message_object(item: Item) -> JsonObject | None:
    """A message as history: speech by its words, what the assistant said as heard. None: it says nothing."""
    parts = [shown for part in item.content if (shown := _part(part)) is not None]
    if not parts:
        return None
    return {"type": "message", "role": item.role, "content": parts}


def _part(part: Part) -> JsonObject | None:
    if part.type == "input_image":
        image: JsonObject = {"type": part.type, "image_url": part.image_url}
        return {**image, "detail": part.detail} if part.detail else image
    if not part.text or part.type == "reasoning":
        return None
    kind = "output_text" if part.type in ("output_text", "output_audio", "refusal") else "input_text"
    return {"type": kind, "text": part.text}


def call_object(item: Item, call_id: str) -> JsonObject:
    return {
        "type": "function_call",
        "call_id": call_id,
        "name": item.name,
        "arguments": item.arguments or "{}",
    }


def output_object(call_id: str, output: str) -> JsonObject:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def input_objects(items: tuple[Item, ...], known: Mapping[str, str]) -> list[JsonObject]:
    """Items as the ``input`` of one response. ``known``: our id to the provider's, for speech without text."""
    objects: list[JsonObject] = []
    for item in items:
        if item.type == "message":
            shown = message_object(item)
            if shown is None and item.id in known:
                shown = {"type": "item_reference", "id": known[item.id]}
            if shown is not None:
                objects.append(shown)
        elif item.type == "function_call_output":
            objects.append(output_object(item.call_id, item.output))
        else:
            objects.append(call_object(item, item.call_id))
            if item.type == "mcp_call":
                objects.append(output_object(item.call_id, item.output or item.error or PENDING))
    return objects


# ------------------------------------------------------------------------------------------- what comes


class ErrorBody(Struct):
    """``code`` is text at OpenAI and a number elsewhere."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    param: str | None = None
    event_id: str | None = None


class Reply(Struct):
    """A response object, as far as it decides something. ``usage`` is read apart: it must not cost a terminal."""

    id: str = ""
    status: str | None = None
    status_details: Raw = Raw()
    metadata: dict[str, object] | None = None
    conversation_id: str | None = None
    usage: Raw = Raw()
    audio: Raw = Raw()


class Thing(Struct):
    """A conversation item in an event."""

    id: str = ""
    type: str = ""
    status: str | None = None
    name: str | None = None
    call_id: str | None = None
    arguments: str | None = None


class SessionCreated(Struct, tag="session.created"): ...


class SessionUpdated(Struct, tag="session.updated"):
    """``session`` is read apart, as a response's usage is."""

    session: Raw = Raw()


class ErrorEvent(Struct, tag="error"):
    error: ErrorBody | str | None = None

    @property
    def body(self) -> ErrorBody:
        if isinstance(self.error, ErrorBody):
            return self.error
        return ErrorBody(message=self.error)


class SpeechStarted(Struct, tag="input_audio_buffer.speech_started"):
    item_id: str = ""
    audio_start_ms: float = 0


class SpeechStopped(Struct, tag="input_audio_buffer.speech_stopped"):
    item_id: str = ""
    audio_end_ms: float = 0


class Committed(Struct, tag="input_audio_buffer.committed"):
    item_id: str


class TranscriptionDelta(Struct, tag="conversation.item.input_audio_transcription.delta"):
    item_id: str
    delta: str | None = None


class TranscriptionCompleted(Struct, tag="conversation.item.input_audio_transcription.completed"):
    item_id: str
    transcript: str | None = None


class TranscriptionFailed(Struct, tag="conversation.item.input_audio_transcription.failed"):
    item_id: str
    error: ErrorBody | None = None


class ResponseCreated(Struct, tag="response.created"):
    response: Reply


class ResponseDone(Struct, tag="response.done"):
    response: Reply


class ItemAdded(Struct, tag="response.output_item.added"):
    response_id: str
    item: Thing
    output_index: int = 0


class ItemDone(Struct, tag="response.output_item.done"):
    response_id: str
    item: Thing
    output_index: int = 0


class TextDelta(Struct, tag="response.output_text.delta"):
    response_id: str
    delta: str
    output_index: int = 0


class TextDone(Struct, tag="response.output_text.done"):
    response_id: str
    text: str | None = None
    output_index: int = 0


class TranscriptDelta(Struct, tag="response.output_audio_transcript.delta"):
    response_id: str
    delta: str
    output_index: int = 0


class TranscriptDone(Struct, tag="response.output_audio_transcript.done"):
    response_id: str
    transcript: str | None = None
    output_index: int = 0


class AudioDelta(Struct, tag="response.output_audio.delta"):
    """The hot way down: msgspec reads base64 straight into bytes."""

    response_id: str
    delta: bytes
    output_index: int = 0


class ArgumentsDelta(Struct, tag="response.function_call_arguments.delta"):
    response_id: str
    delta: str
    output_index: int = 0


class ArgumentsDone(Struct, tag="response.function_call_arguments.done"):
    response_id: str
    arguments: str
    output_index: int = 0
    call_id: str | None = None
    name: str | None = None


ServerEvent = (
    AudioDelta
    | TranscriptDelta
    | TextDelta
    | SessionCreated
    | SessionUpdated
    | ErrorEvent
    | SpeechStarted
    | SpeechStopped
    | Committed
    | TranscriptionDelta
    | TranscriptionCompleted
    | TranscriptionFailed
    | ResponseCreated
    | ResponseDone
    | ItemAdded
    | ItemDone
    | TextDone
    | TranscriptDone
    | ArgumentsDelta
    | ArgumentsDone
)


class Unusable(Struct, frozen=True):
    """An event that means nothing to us. ``unknown``: we do not read its type; ``malformed``: it lacks what
    its type promises; ``garbage``: no JSON object with a type. ``type`` is cut: it goes into the log."""

    why: Literal["unknown", "malformed", "garbage"]
    type: str = ""


class _Typed(Struct):
    type: str


_events: Final = msgspec.json.Decoder(ServerEvent)
_typed: Final = msgspec.json.Decoder(_Typed)
_KNOWN: Final = frozenset(str(kind.__struct_config__.tag) for kind in ServerEvent.__args__)


def decode(payload: bytes | memoryview) -> ServerEvent | Unusable:
    """One text frame. Never raises."""
    try:
        event: ServerEvent = _events.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _unusable(payload)
    return event


def _unusable(payload: bytes | memoryview) -> Unusable:
    try:
        kind = _typed.decode(payload).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Unusable("garbage")
    return Unusable("malformed" if kind in _KNOWN else "unknown", kind[:80])


class _Tokens(Struct):
    cached_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _Tokens | None = None
    output_token_details: _Tokens | None = None


class _Details(Struct):
    reason: str | None = None
    error: ErrorBody | None = None


class _Format(Struct):
    type: str | None = None


class _Side(Struct):
    format: _Format | None = None


class _Sides(Struct):
    input: _Side | None = None
    output: _Side | None = None


class _Session(Struct):
    type: str | None = None
    audio: _Sides | None = None


_FORMAT_NAMES: Final[dict[str | None, AudioFormat]] = {
    str(shown["type"]): name for name, shown in FORMATS.items()
}


def formats_of(session: Raw) -> tuple[AudioFormat | None, AudioFormat | None]:
    """What a session object says that is heard and said; None where it does not say, or not in words of ours."""
    try:
        sides = msgspec.json.decode(session or b"{}", type=_Session).audio or _Sides()
    except msgspec.DecodeError:
        return None, None
    return _format(sides.input), _format(sides.output)


def kind_of(session: Raw) -> str | None:
    """What a session object says that it is."""
    try:
        return msgspec.json.decode(session or b"{}", type=_Session).type
    except msgspec.DecodeError:
        return None


def reply_format(reply: Reply) -> AudioFormat | None:
    """The format that a response says its audio has."""
    try:
        return _format((msgspec.json.decode(reply.audio or b"{}", type=_Sides | None) or _Sides()).output)
    except msgspec.DecodeError:
        return None


def _format(side: _Side | None) -> AudioFormat | None:
    told = side.format if side is not None else None
    return _FORMAT_NAMES.get(told.type) if told is not None else None


def usage_of(reply: Reply) -> Usage:
    """All zero where the provider says nothing that can be read."""
    try:
        told = msgspec.json.decode(reply.usage or b"{}", type=_Usage)
    except msgspec.DecodeError:
        return Usage()
    heard, said = told.input_token_details or _Tokens(), told.output_token_details or _Tokens()
    return Usage(
        told.input_tokens or 0,
        told.output_tokens or 0,
        heard.cached_tokens or 0,
        heard.audio_tokens or 0,
        said.audio_tokens or 0,
    )


def outcome_of(reply: Reply) -> str:
    """How a response ended, in the words of ``LinkSink.response_finished``."""
    try:
        details = msgspec.json.decode(reply.status_details or b"{}", type=_Details | None) or _Details()
    except msgspec.DecodeError:
        details = _Details()
    match reply.status:
        case "completed":
            return "completed"
        case "incomplete" if details.reason in ("max_output_tokens", "content_filter"):
            return details.reason
        case "failed":
            code = details.error.code if details.error is not None else None
            return f"failed:{word(code)}"
        case status:
            return f"failed:response_{word(status)}"


def word(code: str | int | None) -> str:
    """A provider's code as one short word that may stand in a log."""
    text = "".join(c for c in str(code or "") if c.isascii() and (c.isalnum() or c in "_-.[]"))
    return text[:64] or "server_error"
