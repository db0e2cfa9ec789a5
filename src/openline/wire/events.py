"""The one table of server events: where each comes from, what may be relied on, and who gets it.

All 46 of OpenAI Realtime GA (openai-protocols.md B.4) and our own. ``docs/reference/events.md`` is made
from it by ``tools/make_events_doc.py``; tests fail on an event that is not listed, and on a stale page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from openline.core import facts as f
from openline.core.facts import Fact
from openline.wire.render import OPENLINE_FACTS

EventClass = Literal["media", "partial", "commit", "effect", "connection"]
"""``connection``: belongs to one socket, is no fact and is never replayed. The others as in the design."""
Scope = Literal["session", "connection"]
Origin = Literal["rendered", "forwarded", "built", "not sent"]
"""``rendered``: from a stored fact. ``forwarded``: from the model link or the recognizer, as it comes.
``built``: by the gateway for one connection. ``not sent``: in the protocol, but not from here."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row. ``facts``: those it is rendered from. ``note``: what a reader of the reference should know."""

    name: str
    facts: tuple[type[Fact], ...] = ()
    kind: EventClass = "commit"
    scope: Scope = "session"
    origin: Origin = "rendered"
    note: str = ""


def _fact(name: str, *facts: type[Fact], kind: EventClass = "commit", note: str = "") -> Event:
    return Event(name, facts, kind, note=note)


def _forwarded(name: str, kind: EventClass, note: str = "") -> Event:
    return Event(name, (), kind, "session", "forwarded", note)


def _built(name: str, note: str = "") -> Event:
    return Event(name, (), "connection", "connection", "built", note)


def _never(name: str, kind: EventClass, note: str) -> Event:
    return Event(name, (), kind, "session", "not sent", note)


_WEBRTC: Final = "WebRTC and SIP only: a WebSocket client holds its own output."
_MCP_LIST: Final = "Only for MCP servers that a client declares; not supported yet."

GA_EVENTS: Final[tuple[Event, ...]] = (
    _built("session.created", "First frame of every connection."),
    _fact("session.updated", f.SessionUpdated),
    _never("conversation.created", "connection", "Not seen from the live service either."),
    _fact("conversation.item.added", f.TurnCommitted, f.ItemCreated, f.OutputItemAdded),
    _fact("conversation.item.done", f.TurnCommitted, f.ItemCreated, f.OutputItemDone, f.ToolSettled),
    _never("conversation.item.created", "commit", "Beta name of conversation.item.added."),
    _built("conversation.item.retrieved", "The one frame with audio bytes in an item."),
    _fact("conversation.item.deleted", f.ItemDeleted),
    _fact("conversation.item.truncated", f.ItemTruncated),
    _fact(
        "conversation.item.input_audio_transcription.delta",
        f.TurnCommitted,
        f.TurnTranscribed,
        note="Only in transcription sessions: as an upstream model sends them, else the whole text at once, for a "
        "delta can only be added to and a partial is revised. Opted-in clients get the whole text, and before it "
        "openline.turn.partial.",
    ),
    _fact("conversation.item.input_audio_transcription.completed", f.TurnCommitted, f.TurnTranscribed),
    _fact("conversation.item.input_audio_transcription.failed", f.TurnTranscribed),
    _never("conversation.item.input_audio_transcription.segment", "commit", "No diarization."),
    _fact("input_audio_buffer.speech_started", f.SpeechStarted),
    _fact("input_audio_buffer.speech_stopped", f.SpeechStopped),
    _fact("input_audio_buffer.committed", f.TurnCommitted),
    _fact("input_audio_buffer.cleared", f.InputCleared),
    _fact("input_audio_buffer.timeout_triggered", f.InputTimedOut),
    _never("input_audio_buffer.dtmf_event_received", "commit", "SIP only."),
    _fact("response.created", f.ResponseCreated),
    _fact("response.done", f.ResponseDone, note="Exactly once for each response, and last of it."),
    _fact("response.output_item.added", f.OutputItemAdded),
    _fact("response.output_item.done", f.OutputItemDone),
    _fact("response.content_part.added", f.OutputItemAdded),
    _fact("response.content_part.done", f.OutputItemDone),
    _forwarded("response.output_text.delta", "partial"),
    _fact("response.output_text.done", f.OutputItemDone),
    _forwarded("response.output_audio.delta", "media", "Released on the playout clock."),
    _fact("response.output_audio.done", f.OutputItemDone),
    _forwarded("response.output_audio_transcript.delta", "partial"),
    _fact("response.output_audio_transcript.done", f.OutputItemDone),
    _forwarded("response.function_call_arguments.delta", "partial"),
    _fact("response.function_call_arguments.done", f.OutputItemDone, note="Only for a call that is whole."),
    _forwarded("response.mcp_call_arguments.delta", "partial", "Tools that the gateway runs."),
    _fact("response.mcp_call_arguments.done", f.OutputItemDone),
    _fact("response.mcp_call.in_progress", f.OutputItemDone),
    _never(
        "response.mcp_call.completed",
        "effect",
        "A tool may end after its response; see conversation.item.done.",
    ),
    _never(
        "response.mcp_call.failed", "effect", "A tool may end after its response; see conversation.item.done."
    ),
    _never("mcp_list_tools.in_progress", "commit", _MCP_LIST),
    _never("mcp_list_tools.completed", "commit", _MCP_LIST),
    _never("mcp_list_tools.failed", "commit", _MCP_LIST),
    _never("output_audio_buffer.started", "media", _WEBRTC),
    _never("output_audio_buffer.stopped", "media", _WEBRTC),
    _never("output_audio_buffer.cleared", "media", _WEBRTC),
    _never("rate_limits.updated", "connection", "No client needs it."),
    _built("error", "Names the client's event_id; the session goes on unless the socket is closed after it."),
)


def _own(fact: type[Fact]) -> Event:
    return _fact(fact.TYPE, fact, kind="effect" if fact.CLASS == "effect" else "commit")


OPENLINE_EVENTS: Final[tuple[Event, ...]] = (
    *(_own(fact) for fact in OPENLINE_FACTS),
    _forwarded(
        "openline.turn.partial",
        "partial",
        "The whole text so far of a turn that is open or being written down; may be revised.",
    ),
    _built(
        "openline.item.partial",
        "To a client that comes back: the whole text so far of an item that is being spoken, and the "
        "`audio_start_ms` at which its audio goes on.",
    ),
    _built("openline.command.settled", "The one outcome of a command: accepted, rejected or duplicate."),
    _built("openline.session.rewound", "What was seen beyond seq of that epoch was never stored."),
)
"""Only for clients that opted in."""

EVENTS: Final[dict[str, Event]] = {event.name: event for event in GA_EVENTS + OPENLINE_EVENTS}


def reference() -> str:
    """``docs/reference/events.md``."""
    sections = [
        "# Server events",
        "",
        "Made from `src/openline/wire/events.py` by `tools/make_events_doc.py`; do not edit.",
        "",
        "*Class* says what may be relied on: `media` may be dropped, a `partial` is coalesced and revised,",
        "`commit` and `effect` frames are rendered from stored facts and come exactly once and in order, also",
        "to a client that resumes; `connection` frames belong to one socket.",
        "",
        "## OpenAI Realtime",
        "",
        *_rows(GA_EVENTS),
        "",
        "## Ours, for clients that opted in",
        "",
        *_rows(OPENLINE_EVENTS),
        "",
    ]
    return "\n".join(sections)


def _rows(events: tuple[Event, ...]) -> list[str]:
    head = ["| event | class | per | origin | facts | note |", "|---|---|---|---|---|---|"]
    return head + [
        f"| `{event.name}` | {event.kind} | {event.scope} | {event.origin} "
        f"| {', '.join(f'`{fact.TYPE}`' for fact in event.facts)} | {event.note} |"
        for event in events
    ]
