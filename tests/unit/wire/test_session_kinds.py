"""Formats, truncation, and sessions that only write down: what of a session's settings is more than echoed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from openline.core.model import SessionConfig
from openline.core.value import replace
from openline.errors import ClientProtocolError
from openline.types import SessionId
from openline.wire.session_config import session_object, to_config

BASE = SessionConfig(model="embedded", instructions="be kind", voice="ash", max_output_tokens=100)
ALAW = {"type": "audio/pcma"}


def update(patch: dict[str, Any], current: SessionConfig = BASE) -> SessionConfig:
    return to_config(current, {"type": "realtime", **patch})


def shown(config: SessionConfig, **more: Any) -> dict[str, Any]:
    session: dict[str, Any] = msgspec.json.decode(session_object(config, SessionId("sess_1"), **more))
    return session


def heard(**audio_input: Any) -> dict[str, Any]:
    return {"audio": {"input": audio_input}}


def test_g711_is_taken_each_way() -> None:
    assert (BASE.input_format, BASE.output_format) == ("pcm", "pcm")
    mixed = update({"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": ALAW}}})
    assert (mixed.input_format, mixed.output_format) == ("pcmu", "pcma")
    assert shown(mixed)["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert shown(mixed)["audio"]["output"]["format"] == {"type": "audio/pcma"}
    kept = update({"instructions": "be brief"}, mixed)
    assert (kept.input_format, kept.output_format) == ("pcmu", "pcma")
    back = update(heard(format={"rate": 24_000}), mixed)
    assert (back.input_format, back.output_format) == ("pcm", "pcma")


@pytest.mark.parametrize(
    ("truncation", "limit", "retained"),
    [
        ("auto", None, 1.0),
        ("disabled", None, 1.0),
        (None, None, 1.0),
        ({"type": "retention_ratio", "retention_ratio": 0.5}, None, 0.5),
        ({"type": "retention_ratio", "retention_ratio": None}, None, 1.0),
        ({"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {}}, None, 0.8),
        (
            {"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 900}},
            900,
            0.8,
        ),
    ],
)
def test_truncation_cuts_where_the_client_gives_a_limit(truncation: Any, limit: Any, retained: float) -> None:
    before = replace(BASE, context_limit=7, context_retained=0.1)
    config = update({"truncation": truncation}, before)
    assert (config.context_limit, config.context_retained) == (limit, retained)


WRITES_DOWN: dict[str, Any] = {
    "type": "transcription",
    "include": ["item.input_audio_transcription.logprobs"],
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-live-transcribe", "language": "en"},
            "noise_reduction": {"type": "near_field"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
        }
    },
}


@pytest.mark.parametrize("strict", [False, True])
def test_a_session_that_only_writes_down(strict: bool) -> None:
    config = to_config(BASE, WRITES_DOWN, strict=strict, may_retype=True)
    assert config.purpose == "transcription"
    assert config.transcription == "gpt-live-transcribe"
    assert config.turn_detection is not None and config.turn_detection.silence_duration_ms == 300
    assert to_config(config, WRITES_DOWN, strict=strict) == config
    audio = shown(config).pop("audio")
    assert shown(config, expires_at=1_790_003_600) == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "sess_1",
        "audio": audio,
        "include": ["item.input_audio_transcription.logprobs"],
        "expires_at": 1_790_003_600,
    }
    assert audio == {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "gpt-live-transcribe", "language": "en"},
            "noise_reduction": {"type": "near_field"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 300,
            },
        }
    }


def test_a_session_that_only_writes_down_may_have_no_detector() -> None:
    manual = to_config(BASE, {"type": "transcription", **heard(turn_detection=None)}, may_retype=True)
    assert shown(manual) == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "sess_1",
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24_000}}},
    }


def test_what_is_for_replies_means_nothing_to_it() -> None:
    patch = {
        "type": "transcription",
        "instructions": "sing",
        "tracing": "auto",
        "audio": {"output": {"voice": "cedar"}},
    }
    config = to_config(BASE, patch, may_retype=True)
    assert (config.instructions, config.voice, config.extra) == (BASE.instructions, BASE.voice, BASE.extra)
    with pytest.raises(ClientProtocolError) as refusal:
        to_config(BASE, patch, strict=True, may_retype=True)
    assert refusal.value.code == "unknown_parameter"


def test_the_type_of_a_session_stays() -> None:
    config = to_config(BASE, WRITES_DOWN, may_retype=True)
    with pytest.raises(ClientProtocolError) as refusal:
        to_config(config, {"type": "realtime"})
    assert refusal.value.code == "invalid_model"
    assert "This is a transcription session" in refusal.value.message
