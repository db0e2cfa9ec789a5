"""session.update: what changes, what stays, what clears, what is refused, and what is shown afterwards."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openline.core.model import SessionConfig, ToolSpec, TurnDetection
from openline.core.value import replace
from openline.errors import ClientProtocolError
from openline.types import SessionId
from openline.wire.session_config import session_object, to_config

BASE = SessionConfig(model="embedded", instructions="be kind", voice="ash", max_output_tokens=100)


def update(patch: dict[str, Any], current: SessionConfig = BASE, *, strict: bool = False) -> SessionConfig:
    return to_config(current, {"type": "realtime", **patch}, strict=strict, event_id="e1")


def refused(
    patch: dict[str, Any], *, strict: bool = False, current: SessionConfig = BASE
) -> ClientProtocolError:
    with pytest.raises(ClientProtocolError) as caught:
        to_config(current, patch, strict=strict, event_id="e1")
    assert caught.value.event_id == "e1"
    return caught.value


def shown(config: SessionConfig, **more: Any) -> dict[str, Any]:
    session: dict[str, Any] = msgspec.json.decode(session_object(config, SessionId("sess_1"), **more))
    return session


HALF: dict[str, Any] = {"type": "retention_ratio", "retention_ratio": 0.5}


def heard(**audio_input: Any) -> dict[str, Any]:
    return {"audio": {"input": audio_input}}


def test_an_empty_update_changes_nothing() -> None:
    assert update({}) == BASE
    assert update({"audio": {}}) == BASE
    assert update({"audio": {"input": {}, "output": None}}, strict=True) == BASE


def test_only_what_is_present_changes() -> None:
    assert update({"instructions": "be brief"}) == replace(BASE, instructions="be brief")
    changed = update({"audio": {"output": {"speed": 1.25}}})
    assert changed == replace(BASE, speed=1.25)


def test_empty_and_null_clear() -> None:
    full = update(
        {
            "tools": [{"type": "function", "name": "stock"}],
            "tool_choice": "required",
            "output_modalities": ["text"],
            "parallel_tool_calls": False,
            "tracing": "auto",
            **heard(transcription={"model": "whisper-1"}, noise_reduction={"type": "near_field"}),
        }
    )
    cleared = update(
        {
            "instructions": None,
            "tools": [],
            "tool_choice": None,
            "max_output_tokens": None,
            "output_modalities": None,
            "parallel_tool_calls": None,
            "tracing": None,
            "audio": {
                "input": {
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": None,
                    "format": None,
                },
                "output": {"speed": None, "voice": None},
            },
        },
        full,
    )
    assert cleared == replace(BASE, instructions="", max_output_tokens=None, turn_detection=None)


def test_one_wrong_field_rejects_all_of_it() -> None:
    error = refused({"type": "realtime", "instructions": "new", "audio": {"output": {"speed": 9}}})
    assert (error.code, error.param) == ("invalid_value", "session.audio.output.speed")
    assert error.message == "Invalid 'session.audio.output.speed': above maximum value. " + (
        "Expected a value <= 1.5, but got 9 instead."
    )


def test_the_model_is_fixed_and_naming_one_is_no_error() -> None:
    assert update({"model": "gpt-realtime-2.1"}, strict=True) == BASE


# ------------------------------------------------------------------------------------------------- tools


def test_the_clients_tools_replace_its_own_and_leave_the_gateways() -> None:
    current = replace(BASE, tools=(ToolSpec("order", runner="gateway"), ToolSpec("old")))
    parameters = {"type": "object", "properties": {"part": {"type": "string"}}}
    changed = update(
        {
            "tools": [
                {"type": "function", "name": "stock", "description": "How many", "parameters": parameters}
            ]
        },
        current,
    )
    assert [(tool.name, tool.runner) for tool in changed.tools] == [("order", "gateway"), ("stock", "client")]
    assert shown(changed)["tools"] == [
        {"type": "function", "name": "stock", "description": "How many", "parameters": parameters}
    ]


@pytest.mark.parametrize(
    ("tools", "code", "param"),
    [
        ("stock", "invalid_type", "session.tools"),
        (["stock"], "invalid_type", "session.tools[0]"),
        ([{"name": "stock"}], "missing_required_parameter", "session.tools[0].type"),
        ([{"type": None, "name": "stock"}], "invalid_type", "session.tools[0].type"),
        ([{"type": "mcp", "server_label": "x"}], "unsupported_value", "session.tools[0].type"),
        ([{"type": "web_search"}], "invalid_value", "session.tools[0].type"),
        ([{"type": "function"}], "missing_required_parameter", "session.tools[0].name"),
        ([{"type": "function", "name": "no spaces"}], "invalid_value", "session.tools[0].name"),
        (
            [{"type": "function", "name": "a"}, {"type": "function", "name": "a"}],
            "invalid_value",
            "session.tools[1].name",
        ),
        (
            [{"type": "function", "name": "a", "parameters": []}],
            "invalid_type",
            "session.tools[0].parameters",
        ),
        ([{"type": "function", "name": "a"}] * 129, "array_above_max_length", "session.tools"),
    ],
)
def test_wrong_tools(tools: Any, code: str, param: str) -> None:
    current = replace(BASE, tools=(ToolSpec("order", runner="gateway"),))
    error = refused({"type": "realtime", "tools": tools}, current=current)
    assert (error.code, error.param) == (code, param)


def test_a_client_that_declares_a_tool_of_the_gateways_runs_it_itself() -> None:
    ours = (ToolSpec("order", runner="gateway"), ToolSpec("stock", runner="gateway"))
    current = replace(BASE, tools=ours)
    changed = to_config(current, {"type": "realtime", "tools": [{"type": "function", "name": "order"}]})
    assert [(tool.name, tool.runner) for tool in changed.tools] == [("stock", "gateway"), ("order", "client")]


def test_a_schema_nested_without_end_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(63):
        deep = {"not": deep}
    tool = {"type": "function", "name": "a", "parameters": deep}
    assert update({"tools": [tool]}).tools[0].parameters.count("not") == 63
    for deeper in ({"not": deep}, {"anyOf": [deep]}):
        tool["parameters"] = deeper
        assert "nested too deeply" in refused({"type": "realtime", "tools": [tool]}).message


@pytest.mark.parametrize(
    ("choice", "kept"),
    [
        ("none", '"none"'),
        ({"type": "function", "name": "stock", "more": 1}, '{"type":"function","name":"stock"}'),
    ],
)
def test_tool_choice_is_kept_as_json(choice: Any, kept: str) -> None:
    changed = update({"tool_choice": choice})
    assert changed.tool_choice == kept
    assert shown(changed)["tool_choice"] == msgspec.json.decode(kept)


@pytest.mark.parametrize(
    ("choice", "code", "param"),
    [
        ("always", "invalid_value", "session.tool_choice"),
        (5, "invalid_type", "session.tool_choice"),
        ({"name": "stock"}, "missing_required_parameter", "session.tool_choice.type"),
        ({"type": "function"}, "missing_required_parameter", "session.tool_choice.name"),
        ({"type": "mcp", "server_label": "x"}, "unsupported_value", "session.tool_choice.type"),
    ],
)
def test_wrong_tool_choice(choice: Any, code: str, param: str) -> None:
    error = refused({"type": "realtime", "tool_choice": choice})
    assert (error.code, error.param) == (code, param)


# ------------------------------------------------------------------------------------- turns and audio


def test_turn_detection_merges_into_the_same_detector() -> None:
    first = update(heard(turn_detection={"type": "server_vad", "threshold": 0.7, "idle_timeout_ms": 6000}))
    second = update(heard(turn_detection={"type": "server_vad", "silence_duration_ms": 700}), first)
    assert second.turn_detection == TurnDetection(
        threshold=0.7, silence_duration_ms=700, idle_timeout_ms=6000
    )
    third = update(heard(turn_detection={"prefix_padding_ms": 100, "idle_timeout_ms": None}), second)
    assert third.turn_detection == TurnDetection(
        threshold=0.7, silence_duration_ms=700, prefix_padding_ms=100
    )


def test_another_detector_starts_from_its_defaults() -> None:
    first = update(heard(turn_detection={"type": "server_vad", "threshold": 0.7}))
    second = update(heard(turn_detection={"type": "semantic_vad", "interrupt_response": False}), first)
    assert second.turn_detection == TurnDetection("semantic_vad", interrupt_response=False)
    third = update(heard(turn_detection={"type": "semantic_vad", "eagerness": "low"}), second)
    assert third.turn_detection is not None
    assert (third.turn_detection.eagerness, third.turn_detection.silence_duration_ms) == ("low", 1_200)
    assert third.turn_detection.interrupt_response is False


def test_push_to_talk_and_back() -> None:
    manual = update(heard(turn_detection=None))
    assert manual.turn_detection is None
    assert update(heard(turn_detection={"create_response": False}), manual).turn_detection == TurnDetection(
        create_response=False
    )


def test_transcription_takes_any_model_and_shows_it_again() -> None:
    changed = update(heard(transcription={"model": "my-ears", "language": "en", "prompt": None}))
    assert changed.transcription == "my-ears"
    merged = update(heard(transcription={"prompt": "bolts"}), changed)
    assert merged.transcription == "my-ears"
    assert shown(merged)["audio"]["input"]["transcription"] == {
        "model": "my-ears",
        "language": "en",
        "prompt": "bolts",
    }
    assert update(heard(transcription={})).transcription == "whisper-1"
    assert shown(replace(BASE, transcription="x"))["audio"]["input"]["transcription"] == {"model": "x"}


def test_voices_are_names_or_ids() -> None:
    assert update({"audio": {"output": {"voice": "robot"}}}).voice == "robot"
    assert update({"audio": {"output": {"voice": {"id": "voice_1"}}}}, strict=True).voice == "voice_1"
    assert update({"audio": {"output": {"voice": "coral"}}}, strict=True).voice == "coral"
    assert update({"audio": {"output": {"voice": ""}}}).voice == "ash"


def test_both_modalities_are_audio_unless_strict() -> None:
    for both in (["audio", "text"], ["text", "audio"]):
        assert update({"output_modalities": both}).modality == "audio"
        assert (
            refused({"type": "realtime", "output_modalities": both}, strict=True).param
            == "session.output_modalities"
        )
    assert update({"output_modalities": ["text"]}).modality == "text"
    assert update({"output_modalities": ["audio"]}).modality == "audio"


@pytest.mark.parametrize(
    ("patch", "code", "param"),
    [
        ({"instructions": 5}, "invalid_type", "session.instructions"),
        ({"instructions": "x" * 1_048_577}, "string_above_max_length", "session.instructions"),
        ({"output_modalities": ["video"]}, "invalid_value", "session.output_modalities"),
        ({"output_modalities": "audio"}, "invalid_type", "session.output_modalities"),
        ({"max_output_tokens": 0}, "invalid_value", "session.max_output_tokens"),
        ({"max_output_tokens": 4097}, "invalid_value", "session.max_output_tokens"),
        ({"max_output_tokens": "many"}, "invalid_type", "session.max_output_tokens"),
        ({"parallel_tool_calls": "yes"}, "invalid_type", "session.parallel_tool_calls"),
        ({"tracing": "always"}, "invalid_value", "session.tracing"),
        ({"tracing": 1}, "invalid_type", "session.tracing"),
        ({"prompt": {"version": "2"}}, "missing_required_parameter", "session.prompt.id"),
        ({"prompt": {"id": "p", "variables": "x" * 70_000}}, "invalid_value", "session"),
        ({"truncation": "sometimes"}, "invalid_value", "session.truncation"),
        (
            {"truncation": {"type": "retention_ratio"}},
            "missing_required_parameter",
            "session.truncation.retention_ratio",
        ),
        (
            {"truncation": {"type": "retention_ratio", "retention_ratio": 2}},
            "invalid_value",
            "session.truncation.retention_ratio",
        ),
        ({"truncation": {}}, "missing_required_parameter", "session.truncation.type"),
        ({"reasoning": {"effort": "extreme"}}, "invalid_value", "session.reasoning.effort"),
        ({"include": "logprobs"}, "invalid_type", "session.include"),
        ({"include": ["logprobs"]}, "invalid_value", "session.include"),
        ({"audio": []}, "invalid_type", "session.audio"),
        ({"audio": {"input": 1}}, "invalid_type", "session.audio.input"),
        (
            heard(format={"type": "audio/pcm", "rate": 16_000}),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (heard(format={"rate": [24_000]}), "invalid_value", "session.audio.input.format.rate"),
        (heard(format={"type": "audio/wav"}), "invalid_value", "session.audio.input.format.type"),
        (
            heard(format={"type": "audio/pcmu", "rate": 16_000}),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            {"audio": {"output": {"format": {"type": "audio/opus"}}}},
            "invalid_value",
            "session.audio.output.format.type",
        ),
        (
            {"truncation": {**HALF, "token_limits": {"post_instructions": -1}}},
            "invalid_value",
            "session.truncation.token_limits.post_instructions",
        ),
        ({"truncation": {**HALF, "token_limits": 9}}, "invalid_type", "session.truncation.token_limits"),
        ({"audio": {"output": {"format": "pcm16"}}}, "invalid_type", "session.audio.output.format"),
        (
            heard(noise_reduction={"type": "some"}),
            "invalid_value",
            "session.audio.input.noise_reduction.type",
        ),
        (heard(transcription="whisper-1"), "invalid_type", "session.audio.input.transcription"),
        (heard(transcription={"model": 1}), "invalid_type", "session.audio.input.transcription.model"),
        (
            heard(turn_detection={"type": "psychic"}),
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (heard(turn_detection="server_vad"), "invalid_type", "session.audio.input.turn_detection"),
        (
            heard(turn_detection={"threshold": True}),
            "invalid_type",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            heard(turn_detection={"threshold": -0.5}),
            "invalid_value",
            "session.audio.input.turn_detection.threshold",
        ),
        (
            heard(turn_detection={"type": "semantic_vad", "eagerness": "wild"}),
            "invalid_value",
            "session.audio.input.turn_detection.eagerness",
        ),
        (heard(turn_detection={"type": 5}), "invalid_type", "session.audio.input.turn_detection.type"),
        ({"audio": {"output": {"voice": 7}}}, "invalid_type", "session.audio.output.voice"),
        ({"audio": {"output": {"voice": {}}}}, "missing_required_parameter", "session.audio.output.voice.id"),
        ({"audio": {"output": {"voice": {"id": None}}}}, "invalid_type", "session.audio.output.voice.id"),
    ],
)
def test_wrong_settings(patch: dict[str, Any], code: str, param: str) -> None:
    error = refused({"type": "realtime", **patch})
    assert (error.code, error.param) == (code, param)


def test_wrong_rates_name_the_right_one() -> None:
    error = refused({"type": "realtime", **heard(format={"rate": 16_000})})
    assert error.message == "Invalid value: 16000. Supported values are: 24000."
    assert refused({"type": "realtime", **heard(format={"rate": True})}).message.startswith(
        "Invalid value: true."
    )
    assert update(heard(format={"type": "audio/pcm", "rate": 24_000})) == BASE


# ------------------------------------------------------------------------------- shapes and strictness


@pytest.mark.parametrize(
    ("patch", "code", "param", "words"),
    [
        ({}, "missing_required_parameter", "session.type", "Missing required parameter: 'session.type'."),
        ({"type": None}, "invalid_type", "session.type", "null"),
        ({"type": "chat"}, "invalid_value", "session.type", "Supported values are: 'realtime' and"),
        ({"type": "transcription"}, "invalid_model", "session.type", "This is a realtime session"),
        (
            {"modalities": ["audio", "text"]},
            "unknown_parameter",
            "session.modalities",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "voice": "ash"},
            "unknown_parameter",
            "session.voice",
            "session.audio.output.voice",
        ),
    ],
)
def test_other_shapes_are_refused_clearly(patch: dict[str, Any], code: str, param: str, words: str) -> None:
    error = refused(patch)
    assert (error.code, error.param) == (code, param)
    assert words in error.message


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"foo": 1}, "session.foo"),
        ({"temperature": 0.8}, "session.temperature"),
        ({"line\nbreak": 1}, "session"),
        ({"audio": {"both": {}}}, "session.audio.both"),
        (heard(foo=1), "session.audio.input.foo"),
        ({"audio": {"output": {"foo": 1}}}, "session.audio.output.foo"),
    ],
)
def test_unknown_fields_are_refused_only_when_strict(patch: dict[str, Any], param: str) -> None:
    assert update(patch) == BASE
    error = refused({"type": "realtime", **patch}, strict=True)
    assert (error.code, error.param) == ("unknown_parameter", param)
    assert error.message == f"Unknown parameter: '{param}'."


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"audio": {"output": {"voice": "robot"}}}, "session.audio.output.voice"),
        (heard(transcription={"model": "my-ears"}), "session.audio.input.transcription.model"),
        (heard(turn_detection={"threshold": 0.4}), "session.audio.input.turn_detection.type"),
    ],
)
def test_strict_knows_only_openais_names(patch: dict[str, Any], param: str) -> None:
    update(patch)
    assert refused({"type": "realtime", **patch}, strict=True).param == param


# -------------------------------------------------------------------------------------------- what is shown


def test_the_whole_session_is_shown() -> None:
    assert shown(BASE, expires_at=1_790_003_600) == {
        "type": "realtime",
        "object": "realtime.session",
        "id": "sess_1",
        "model": "embedded",
        "output_modalities": ["audio"],
        "instructions": "be kind",
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "max_output_tokens": 100,
        "truncation": "auto",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "turn_detection": {
                    "type": "server_vad",
                    "create_response": True,
                    "interrupt_response": True,
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            },
            "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash", "speed": 1.0},
        },
        "expires_at": 1_790_003_600,
    }


def test_what_has_no_effect_is_shown_again() -> None:
    echoed = {
        "tracing": {"workflow_name": "w"},
        "prompt": {"id": "pmpt_1", "version": "2"},
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "reasoning": {"effort": "low"},
        "include": ["item.input_audio_transcription.logprobs"],
    }
    changed = update({**echoed, **heard(noise_reduction={"type": "far_field"})})
    session = shown(changed)
    assert {name: session[name] for name in echoed} == echoed
    assert session["audio"]["input"]["noise_reduction"] == {"type": "far_field"}
    cleared = update(dict.fromkeys(echoed), changed)
    assert shown(cleared)["truncation"] == "auto"
    assert not {"tracing", "prompt", "reasoning", "include"} & shown(cleared).keys()
    assert shown(update({"truncation": "disabled"}))["truncation"] == "disabled"


def test_detectors_are_shown_with_their_own_settings_only() -> None:
    semantic = update(heard(turn_detection={"type": "semantic_vad", "eagerness": "high"}))
    assert shown(semantic)["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "create_response": True,
        "interrupt_response": True,
        "eagerness": "high",
    }
    idle = update(heard(turn_detection={"idle_timeout_ms": 6_000}))
    assert shown(idle)["audio"]["input"]["turn_detection"]["idle_timeout_ms"] == 6_000
    manual = update(heard(turn_detection=None))
    assert "turn_detection" not in shown(manual)["audio"]["input"]
    assert "expires_at" not in shown(manual)
    assert shown(replace(BASE, max_output_tokens=None))["max_output_tokens"] == "inf"


# What the stock SDKs send when they connect (openai-protocols.md part C): none of it may be an error.
PCM = {"rate": 24000, "type": "audio/pcm"}
STOCK_UPDATES: dict[str, dict[str, Any]] = {
    "openai-agents": {
        "type": "realtime",
        "audio": {
            "input": {
                "format": PCM,
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
            },
            "output": {"format": PCM, "voice": "ash"},
        },
        "instructions": "x",
        "model": "gpt-realtime-2.1",
        "output_modalities": ["audio"],
        "tools": [
            {"type": "function", "name": "get_x", "description": "x", "parameters": {"type": "object"}}
        ],
    },
    "openai-agents, second": {"type": "realtime", "model": "gpt-realtime-2.1", "tracing": "auto"},
    "agents-js": {
        "type": "realtime",
        "instructions": "x",
        "model": "gpt-realtime-2.1",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": PCM,
                "noise_reduction": None,
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": {"type": "semantic_vad"},
            },
            "output": {"format": PCM, "speed": 1},
        },
    },
    "livekit": {
        "type": "realtime",
        "model": "m",
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": PCM,
                "noise_reduction": None,
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": {
                    "type": "semantic_vad",
                    "create_response": True,
                    "eagerness": "medium",
                    "interrupt_response": True,
                },
            },
            "output": {"format": PCM, "speed": 1.0, "voice": "marin"},
        },
        "max_output_tokens": "inf",
        "tool_choice": "auto",
        "tracing": None,
    },
}


@pytest.mark.parametrize("name", STOCK_UPDATES)
@pytest.mark.parametrize("strict", [False, True])
def test_stock_clients_are_understood(name: str, strict: bool) -> None:
    changed = to_config(SessionConfig(), STOCK_UPDATES[name], strict=strict)
    assert to_config(changed, STOCK_UPDATES[name], strict=strict) == changed
