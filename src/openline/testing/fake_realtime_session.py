"""A session of the fake Realtime provider: what it is at the start, and which updates it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]
CLIENT_COMMITS = ("gpt-live-transcribe", "gpt-realtime-whisper")
"""Models that take no turn detection in a transcription session."""
_FORMAT = {"type": "audio/pcm", "rate": 24_000}


def new_session(*, scribes: bool) -> Event:
    heard: Event = {"format": dict(_FORMAT)}
    if scribes:
        return {"type": "transcription", "audio": {"input": heard}}
    return {"type": "realtime", "audio": {"input": heard, "output": {"format": dict(_FORMAT)}}}


@dataclass(frozen=True, slots=True)
class Refusal:
    """``code`` "" for a bare error; ``close``: (code, reason) of the close that follows, or comes alone."""

    code: str = ""
    param: str = ""
    close: tuple[int, str] | None = None
    is_said: bool = True


def update(
    session: Event, given: Event, *, formats: set[str], refusal: str, transcription: str
) -> Refusal | None:
    """Take ``given`` into ``session``, all of it or nothing; None: it was taken."""
    given = json.loads(json.dumps(given))
    if transcription == "claimed":
        given["type"] = "realtime"
    if given.get("type") != session["type"]:
        return Refusal("invalid_model", "session.type", (4000, "invalid_request_error.invalid_model"))
    heard = given.get("audio", {}).get("input", {})
    if heard.get("turn_detection") and heard.get("transcription", {}).get("model") in CLIENT_COMMITS:
        return Refusal("invalid_value", "session.audio.input.turn_detection")
    for side in ("input", "output"):
        told = given.get("audio", {}).get(side, {})
        if "format" not in told or told["format"]["type"] in formats:
            continue
        match refusal:
            case "ignored":
                del told["format"]
            case "close":
                return Refusal(close=(1007, ""), is_said=False)
            case "bare":
                return Refusal()
            case _:
                return Refusal("invalid_value", f"session.audio.{side}.format.type")
    _merge(session, given)
    return None


def _merge(into: Event, given: Event) -> None:
    """Objects are merged deeply; everything else, formats and null included, replaces."""
    for name, value in given.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict) and name != "format":
            _merge(into[name], value)
        else:
            into[name] = value
