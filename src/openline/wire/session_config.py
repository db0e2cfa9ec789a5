"""The session object: merging ``session.update`` into the configuration, and showing the whole of it.

The merge rule (openai-protocols.md B.5): only what is present changes, objects are merged deeply, "" and
[] and null clear, and one invalid field rejects the whole update. What the gateway cannot act on but
clients send (E.2 #2) is checked, kept as JSON in ``SessionConfig.extra`` and shown again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import msgspec

from openline.core.model import (
    EAGERNESS_SILENCE_MS,
    AudioFormat,
    Modality,
    Purpose,
    SessionConfig,
    ToolSpec,
    TurnDetection,
)
from openline.core.value import replace
from openline.types import SessionId
from openline.wire.check import MAX_ID, MAX_MS, Fields, error
from openline.wire.items import JsonObject, to_max_tokens, to_tool_choice, to_tools

VOICES: Final = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
TRANSCRIPTION_MODELS: Final = (
    "whisper-1",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
)
FORMATS: Final[dict[AudioFormat, JsonObject]] = {
    "pcm": {"type": "audio/pcm", "rate": 24_000},
    "pcmu": {"type": "audio/pcmu"},
    "pcma": {"type": "audio/pcma"},
}
"""What the protocol has (openai-protocols.md B.5). G.711 has one rate, so none is said."""

_BETA_FIELDS: Final = {
    "modalities": "session.output_modalities",
    "voice": "session.audio.output.voice",
    "speed": "session.audio.output.speed",
    "input_audio_format": "session.audio.input.format",
    "output_audio_format": "session.audio.output.format",
    "input_audio_transcription": "session.audio.input.transcription",
    "input_audio_noise_reduction": "session.audio.input.noise_reduction",
    "turn_detection": "session.audio.input.turn_detection",
    "max_response_output_tokens": "session.max_output_tokens",
}
_SESSION_FIELDS: Final = (
    "type",
    "object",
    "id",
    "expires_at",
    "model",
    "output_modalities",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_output_tokens",
    "reasoning",
    "truncation",
    "tracing",
    "prompt",
    "include",
    "audio",
)
_TRANSCRIPTION_FIELDS: Final = ("type", "object", "id", "expires_at", "include", "audio")
_INPUT_FIELDS: Final = ("format", "transcription", "noise_reduction", "turn_detection")
_OUTPUT_FIELDS: Final = ("format", "voice", "speed")
_EXTRA_LIMIT: Final = 65_536
"""Bytes of JSON that we keep only to show it again."""


@dataclass(slots=True)
class _Draft:
    """An update being checked: nothing of it counts until all of it was found good."""

    current: SessionConfig
    strict: bool
    # Fields of SessionConfig by name; each was given its type where it was checked.
    changes: dict[str, Any] = field(default_factory=dict)
    extra: JsonObject = field(default_factory=dict)


def to_config(
    current: SessionConfig,
    session_patch: JsonObject,
    *,
    strict: bool = False,
    event_id: str | None = None,
    may_retype: bool = False,
) -> SessionConfig:
    """The configuration after a ``session.update{session: session_patch}``.

    ``may_retype``: there is no session yet, so its type may still be chosen.
    Whether the voice may still change is the session's to say. A ``model`` is ignored: it is fixed at
    connect, and openai-agents always sends its own default. Tools of the gateway stay beside the client's.

    Raises ClientProtocolError for the first invalid field; nothing of the update counts then.
    """
    fields = Fields(session_patch, "session", event_id)
    purpose = _check_shape(fields, current.purpose, strict, may_retype)
    draft = _Draft(current, strict)
    draft.extra = msgspec.json.decode(current.extra, type=dict[str, object])
    draft.changes["purpose"] = purpose
    if purpose == "realtime":
        _merge_model_settings(fields, draft)
        _merge_echoed(fields, draft)
    _merge_include(fields, draft)
    if (audio := fields.child("audio")) is not None:
        if strict:
            audio.refuse_unknown(("input", "output"))
        if (given := audio.child("input")) is not None:
            _merge_input(given, draft)
        if (given := audio.child("output")) is not None and purpose == "realtime":
            _merge_output(given, draft)
    extra = msgspec.json.encode(draft.extra).decode()
    if len(extra) > _EXTRA_LIMIT:
        raise error(
            "invalid_value", f"Invalid 'session': over {_EXTRA_LIMIT} bytes of settings.", "session", event_id
        )
    return replace(current, extra=extra, **draft.changes)


def _check_shape(fields: Fields, current: Purpose, strict: bool, may_retype: bool) -> Purpose:
    for name, successor in _BETA_FIELDS.items():
        if name in fields:
            message = f"Unknown parameter: 'session.{name}'. It is the beta API's; use '{successor}'."
            raise fields.wrong("unknown_parameter", message, name)
    purpose = cast("Purpose", fields.required_choice("type", ("realtime", "transcription")))
    if purpose != current and not may_retype:
        # The service closes the connection after this (B.1); nothing is gained by that here.
        message = f"This is a {current} session: its type is fixed when it is made, by '?intent=transcription' or '?model='."
        raise fields.wrong("invalid_model", message, "type")
    if strict:
        fields.refuse_unknown(_SESSION_FIELDS if purpose == "realtime" else _TRANSCRIPTION_FIELDS)
    return purpose


def _merge_model_settings(fields: Fields, draft: _Draft) -> None:
    changes = draft.changes
    fields.text("model", limit=MAX_ID)
    if "output_modalities" in fields:
        changes["modality"] = to_modality(fields, draft.strict) or "audio"
    if "instructions" in fields:
        changes["instructions"] = fields.text("instructions") or ""
    if "tools" in fields:
        declared = to_tools(fields)
        # A client that declares a name of the gateway's runs that tool itself: so two gateways in a row, both
        # with the built-in tools, work, and nobody is refused for a name they cannot know of.
        names = {tool.name for tool in declared}
        ours = (tool for tool in draft.current.tools if tool.runner == "gateway")
        changes["tools"] = (*(tool for tool in ours if tool.name not in names), *declared)
    if "tool_choice" in fields:
        changes["tool_choice"] = to_tool_choice(fields) or '"auto"'
    if "parallel_tool_calls" in fields:
        changes["parallel_tool_calls"] = fields.flag("parallel_tool_calls", True)
    if "max_output_tokens" in fields:
        changes["max_output_tokens"] = to_max_tokens(fields)


def to_modality(fields: Fields, strict: bool) -> Modality | None:
    """``output_modalities`` as our one modality; None when absent or null."""
    match fields.get("output_modalities"):
        case None:
            return None
        case ["audio"]:
            return "audio"
        case ["text"]:
            return "text"
        case ["audio", "text"] | ["text", "audio"] if not strict:
            # Audio replies always carry their text, so this is what such a client gets anyway.
            return "audio"
        case list():
            message = "Invalid modalities. Supported combinations are: ['text'] and ['audio']."
            raise fields.wrong("invalid_value", message, "output_modalities")
        case _:
            raise fields.wrong_type("output_modalities", "an array")


def _merge_echoed(fields: Fields, draft: _Draft) -> None:
    """What is for the model behind an upstream link, or for nobody: checked as far as clients are strict about it,
    kept, and shown again."""
    if "tracing" in fields:
        if isinstance(fields.get("tracing"), str):
            fields.choice("tracing", ("auto",))
        else:
            fields.child("tracing")
        _keep(fields, draft, "tracing")
    if "prompt" in fields:
        if (prompt := fields.child("prompt")) is not None:
            prompt.required_text("id", limit=MAX_ID)
        _keep(fields, draft, "prompt")
    if "truncation" in fields:
        draft.changes["context_limit"], draft.changes["context_retained"] = _to_truncation(fields)
        _keep(fields, draft, "truncation")
    if "reasoning" in fields:
        if (reasoning := fields.child("reasoning")) is not None:
            reasoning.choice("effort", ("minimal", "low", "medium", "high", "xhigh"))
        _keep(fields, draft, "reasoning")


def _merge_include(fields: Fields, draft: _Draft) -> None:
    if "include" in fields:
        supported = "item.input_audio_transcription.logprobs"
        if not isinstance(fields.get("include"), list | None):
            raise fields.wrong_type("include", "an array")
        if any(entry != supported for entry in cast("list[object]", fields.get("include") or [])):
            message = f"Invalid value in 'session.include'. Supported values are: '{supported}'."
            raise fields.wrong("invalid_value", message, "include")
        _keep(fields, draft, "include")


def _to_truncation(fields: Fields) -> tuple[int | None, float]:
    """Limit in tokens and the share kept. Without a limit of the client's own nothing is cut: what the model
    behind takes is not known here, and it says so itself."""
    if not isinstance(fields.get("truncation"), dict):
        fields.choice("truncation", ("auto", "disabled"))
        return None, 1.0
    ratio = cast("Fields", fields.child("truncation"))
    ratio.required_choice("type", ("retention_ratio",))
    ratio.require("retention_ratio")
    retained = ratio.number("retention_ratio", 0, 1)
    limits = ratio.child("token_limits")
    limit = limits.integer("post_instructions", 0, MAX_MS) if limits is not None else None
    return limit, 1.0 if retained is None else retained


def _keep(fields: Fields, draft: _Draft, name: str) -> None:
    fields.json_text(name)  # refuses what is nested too deeply to be written out again
    if fields.get(name) is None:
        draft.extra.pop(name, None)
    else:
        draft.extra[name] = fields.get(name)


def _merge_input(fields: Fields, draft: _Draft) -> None:
    if draft.strict:
        fields.refuse_unknown(_INPUT_FIELDS)
    if (chosen := to_format(fields)) is not None:
        draft.changes["input_format"] = chosen
    if "transcription" in fields:
        _merge_transcription(fields, draft)
    if "noise_reduction" in fields:
        if (noise := fields.child("noise_reduction")) is not None:
            noise.choice("type", ("near_field", "far_field"))
        _keep(fields, draft, "noise_reduction")
    if "turn_detection" in fields:
        detection = fields.child("turn_detection")
        draft.changes["turn_detection"] = None if detection is None else _detection(detection, draft)


def to_format(fields: Fields) -> AudioFormat | None:
    """``format`` by our name for it; None when absent or null. Without a type it is PCM16, as ever."""
    audio = fields.child("format")
    if audio is None:
        return None
    names = {str(shown["type"]): name for name, shown in FORMATS.items()}
    chosen = names[audio.choice("type", tuple(names)) or "audio/pcm"]
    rate = 24_000 if chosen == "pcm" else 8_000
    if audio.get("rate") not in (None, rate):
        raise audio.wrong_value("rate", (rate,))
    return chosen


def _merge_transcription(fields: Fields, draft: _Draft) -> None:
    given = fields.child("transcription")
    if given is None:
        draft.changes["transcription"] = ""
        draft.extra.pop("transcription", None)
        return
    # Any model name is taken (E.2 #2): ours recognises whatever it is called.
    model = given.text("model", limit=MAX_ID)
    if draft.strict:
        given.choice("model", TRANSCRIPTION_MODELS)
    for name in given.values:
        given.json_text(name)
    before = draft.extra.get("transcription")
    merged = {**(before if isinstance(before, dict) else {}), **given.values}
    draft.extra["transcription"] = {name: value for name, value in merged.items() if value is not None}
    draft.changes["transcription"] = model or draft.current.transcription or TRANSCRIPTION_MODELS[0]


def _detection(fields: Fields, draft: _Draft) -> TurnDetection:
    before = draft.current.turn_detection or TurnDetection()
    if draft.strict:
        fields.require("type")
    kind = cast(
        "Literal['server_vad', 'semantic_vad']",
        fields.choice("type", ("server_vad", "semantic_vad")) or before.type,
    )
    # Settings of the other detector mean nothing to this one: a change of type starts from its defaults.
    base = before if before.type == kind else TurnDetection(kind)
    shared = replace(
        base,
        create_response=fields.flag("create_response", base.create_response),
        interrupt_response=fields.flag("interrupt_response", base.interrupt_response),
    )
    if kind == "semantic_vad":
        eagerness = fields.choice("eagerness", tuple(EAGERNESS_SILENCE_MS)) or base.eagerness
        return replace(
            shared,
            eagerness=cast("Literal['low', 'medium', 'high', 'auto']", eagerness),
            silence_duration_ms=EAGERNESS_SILENCE_MS[eagerness],
        )
    threshold = fields.number("threshold", 0, 1)
    padding = fields.integer("prefix_padding_ms", 0, MAX_MS)
    silence = fields.integer("silence_duration_ms", 0, MAX_MS)
    return replace(
        shared,
        threshold=base.threshold if threshold is None else threshold,
        prefix_padding_ms=base.prefix_padding_ms if padding is None else padding,
        silence_duration_ms=base.silence_duration_ms if silence is None else silence,
        idle_timeout_ms=(
            fields.integer("idle_timeout_ms", 1, MAX_MS)
            if "idle_timeout_ms" in fields
            else base.idle_timeout_ms
        ),
    )


def _merge_output(fields: Fields, draft: _Draft) -> None:
    if draft.strict:
        fields.refuse_unknown(_OUTPUT_FIELDS)
    if (chosen := to_format(fields)) is not None:
        draft.changes["output_format"] = chosen
    if (voice := to_voice(fields, draft.strict)) is not None:
        draft.changes["voice"] = voice
    if "speed" in fields:
        draft.changes["speed"] = fields.number("speed", 0.25, 1.5) or 1.0


def to_voice(fields: Fields, strict: bool) -> str | None:
    """``voice`` by name, or the id of ``{id}``; None when absent, null or empty. Not strict: any name."""
    if isinstance(fields.get("voice"), dict):
        custom = cast("Fields", fields.child("voice"))
        return custom.required_text("id", limit=MAX_ID)
    voice = fields.text("voice", limit=MAX_ID) or None
    if strict:
        fields.choice("voice", VOICES)
    return voice


# -------------------------------------------------------------------------------------------- to a client


def session_object(config: SessionConfig, session_id: SessionId, *, expires_at: int = 0) -> bytes:
    """The whole effective session as JSON (``realtime.session``), as session.created and .updated show it.

    ``expires_at``: Unix seconds, 0 for never (then left out). Only values that strict clients know
    (E.2 #3): rate 24000, the two kinds of turn detection. Tools of the gateway are not the client's to see.
    """
    extra = msgspec.json.decode(config.extra, type=dict[str, object])
    listening: JsonObject = {"format": FORMATS[config.input_format]}
    transcription = extra.pop("transcription", None)
    if config.transcription:
        listening["transcription"] = transcription or {"model": config.transcription}
    if (noise := extra.pop("noise_reduction", None)) is not None:
        listening["noise_reduction"] = noise
    if config.turn_detection is not None:
        listening["turn_detection"] = _detection_object(config.turn_detection)
    if config.purpose == "transcription":
        return _transcription_object(config, session_id, listening, extra, expires_at)
    shown: JsonObject = {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": config.model,
        "output_modalities": [config.modality],
        "instructions": config.instructions,
        "tools": [tool_object(tool) for tool in config.tools if tool.runner == "client"],
        "tool_choice": msgspec.Raw(config.tool_choice.encode()),
        "parallel_tool_calls": config.parallel_tool_calls,
        "max_output_tokens": "inf" if config.max_output_tokens is None else config.max_output_tokens,
        "truncation": "auto",
        "audio": {
            "input": listening,
            "output": {"format": FORMATS[config.output_format], "voice": config.voice, "speed": config.speed},
        },
        **extra,
    }
    if expires_at:
        shown["expires_at"] = expires_at
    return msgspec.json.encode(shown)


def _transcription_object(
    config: SessionConfig, session_id: SessionId, listening: JsonObject, extra: JsonObject, expires_at: int
) -> bytes:
    """What a session that only writes down has of all this."""
    detection = listening.get("turn_detection")
    if isinstance(detection, dict):
        detection.pop("create_response")
        detection.pop("interrupt_response")
    shown: JsonObject = {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": session_id,
        "audio": {"input": listening},
    }
    if "include" in extra:
        shown["include"] = extra["include"]
    if expires_at:
        shown["expires_at"] = expires_at
    return msgspec.json.encode(shown)


def tool_object(tool: ToolSpec) -> JsonObject:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": msgspec.Raw(tool.parameters.encode()),
    }


def _detection_object(detection: TurnDetection) -> JsonObject:
    shown: JsonObject = {
        "type": detection.type,
        "create_response": detection.create_response,
        "interrupt_response": detection.interrupt_response,
    }
    if detection.type == "semantic_vad":
        shown["eagerness"] = detection.eagerness
        return shown
    shown["threshold"] = detection.threshold
    shown["prefix_padding_ms"] = detection.prefix_padding_ms
    shown["silence_duration_ms"] = detection.silence_duration_ms
    if detection.idle_timeout_ms is not None:
        shown["idle_timeout_ms"] = detection.idle_timeout_ms
    return shown
