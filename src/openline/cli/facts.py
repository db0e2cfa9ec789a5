"""Facts as lines for people. Input is a CloudEvent of ours; a fact of a newer version still has a line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from openline.cli.terminal import Terminal, clean, head_of

Json = dict[str, Any]
SEQ_COLUMNS, TIME_COLUMNS, NAME_COLUMNS = 5, 12, 27

_SHORT = {
    "openline.session.": "session ",
    "openline.connection.": "connection ",
    "openline.link.": "link ",
    "openline.turn.": "turn ",
    "openline.item.": "item ",
    "openline.response.": "response ",
    "openline.reply.": "reply ",
    "openline.tool.": "tool ",
    "openline.recording.": "recording ",
    "openline.media.": "media ",
    "openline.silence.": "silence ",
    "input_audio_buffer.speech_": "speech ",
    "input_audio_buffer.": "audio ",
    "conversation.item.": "item ",
    "response.output_item.": "output ",
    "response.": "response ",
    "session.": "session ",
}
_STYLES = {
    "turn committed": ("cyan", "bold"),
    "speech started": ("cyan",),
    "speech stopped": ("cyan",),
    "turn transcribed": ("cyan",),
    "response created": ("green",),
    "response done": ("green", "bold"),
    "output done": ("green",),
    "tool started": ("yellow",),
    "tool settled": ("yellow", "bold"),
    "connection attached": ("blue",),
    "connection detached": ("blue",),
    "session owned": ("magenta",),
    "session started": ("magenta", "bold"),
    "session forked": ("magenta",),
    "session ended": ("magenta", "bold"),
    "turn abandoned": ("red",),
    "link lost": ("red",),
    "silence exceeded": ("red", "bold"),
    "media dropped": ("red",),
}


def short_name(kind: str) -> str:
    """``openline.turn.committed`` as "turn committed"; what is unknown stays as it is."""
    for prefix, word in _SHORT.items():
        if kind.startswith(prefix):
            return word + kind.removeprefix(prefix).replace("_", " ").replace(".", " ")
    return kind


def seconds(ms: float) -> str:
    return f"{ms / 1000:.1f} s"


def quoted(text: object) -> str:
    return f"“{clean(str(text))}”" if text else ""


def text_of(item: Any) -> str:
    """What an item says: its text, or a call with its arguments."""
    if not isinstance(item, dict):
        return ""
    if item.get("type") in ("function_call", "mcp_call"):
        answer = item.get("output") or item.get("error")
        return f"{item.get('name')}({item.get('arguments', '')})" + (f" → {answer}" if answer else "")
    if item.get("type") == "function_call_output":
        return f"→ {item.get('output', '')}"
    return " ".join(str(part["text"]) for part in item.get("content", []) if part.get("text"))


def _committed(data: Json) -> str:
    if data["text"] is None:
        return "typed" if data["item"] is None else "not transcribed yet"
    confidence = data.get("confidence")
    sure = f"  {confidence:.0%} sure" if isinstance(confidence, float) else ""
    return quoted(data["text"]) + sure


def _response_done(data: Json) -> str:
    said = " ".join(filter(None, (text_of(item) for item in data.get("output", []))))
    why = f" ({data['reason']})" if data.get("reason") and data["reason"] != data["status"] else ""
    return f"{data['status']}{why}  {quoted(said)}"


def _attached(data: Json) -> str:
    extras = [name for name in ("opted_in", "resumable") if data.get(name)]
    return f"{data['conn']} as {data['role']}" + (
        f", {', '.join(extras).replace('_', ' ')}" if extras else ""
    )


def _heard(data: Json) -> str:
    rough = ", estimated" if data.get("estimated") else ""
    return f"{data['item_id']} to {seconds(data['audio_end_ms'])} ({data['source']}{rough})"


def _settled(data: Json) -> str:
    said = text_of(data.get("item"))
    return f"{data['outcome']}  {said}" if said else f"{data['outcome']}  {data['call_id']}"


_SUMMARY: dict[str, Callable[[Json], str]] = {
    "openline.session.started": lambda d: (
        f"model {d['config']['model']}, recording {'on' if d['recorded'] else 'off'}"
    ),
    "openline.session.forked": lambda d: f"from {d['parent']} after fact {d['parent_seq']}",
    "openline.session.owned": lambda d: f"epoch {d['epoch']} on {d['node']}",
    "openline.session.parked": lambda d: f"{d['reason']}",
    "openline.session.ended": lambda d: f"{d['reason']}",
    "openline.connection.attached": _attached,
    "openline.connection.detached": lambda d: f"{d['conn']} {d['reason']} ({d['code']})",
    "openline.link.requested": lambda d: f"link {d['link_epoch']}, attempt {d['attempt']}",
    "openline.link.opened": lambda d: f"link {d['link_epoch']} to {d['model']}",
    "openline.link.lost": lambda d: f"link {d['link_epoch']}: {d['code']}",
    "input_audio_buffer.speech_started": lambda d: f"at {seconds(d['audio_start_ms'])} of the call",
    "input_audio_buffer.speech_stopped": lambda d: f"at {seconds(d['audio_end_ms'])} of the call",
    "openline.turn.committed": _committed,
    "openline.turn.transcribed": lambda d: d.get("failed") or quoted(d["text"]),
    "openline.turn.abandoned": lambda d: str(d["reason"]),
    "conversation.item.created": lambda d: f"{d['item'].get('author', '')} {quoted(text_of(d['item']))}",
    "conversation.item.deleted": lambda d: str(d["item_id"]),
    "conversation.item.truncated": lambda d: f"{d['item_id']} at {seconds(d['audio_end_ms'])}",
    "openline.item.heard": _heard,
    "openline.item.progressed": lambda d: f"{seconds(d['heard_ms'])} heard of {seconds(d['audio_ms'])}",
    "openline.reply.dropped": lambda d: str(d["reason"]),
    "response.created": lambda d: (
        f"{d['response_id']}" + (f" for {d['turn_id']}" if d.get("turn_id") else "")
    ),
    "response.output_item.added": lambda d: f"{d['item']['type']} {d['item']['id']}",
    "response.output_item.done": lambda d: (
        f"{quoted(text_of(d['item']))}" + (f"  {seconds(d['audio_ms'])}" if d.get("audio_ms") else "")
    ),
    "openline.response.generated": lambda d: str(d["reason"]),
    "response.done": _response_done,
    "openline.tool.requested": lambda d: f"{d['name']} by the {d['runner']}",
    "openline.tool.started": lambda d: f"attempt {d['attempt']}, key {d['key']}",
    "openline.tool.settled": _settled,
    "openline.recording.segment": lambda d: f"{d['track']} {seconds(d['samples'] / 24)} in {d['file']}",
    "openline.media.dropped": lambda d: f"{d['lane']} {d['dropped_ms']} ms ({d['policy']})",
    "openline.silence.exceeded": lambda d: f"after {seconds(d['waited_ms'])}: {d['action']}",
}


def summary(event: Json) -> str:
    """What a fact says, in one line; empty when its name says it all or it is of a newer version."""
    make = _SUMMARY.get(event["type"])
    if make is None:
        return ""
    try:
        return clean(make(event.get("data") or {})).strip()
    except (LookupError, TypeError, ValueError):
        return ""  # a field that another version names differently; the line still says what happened


def clock_text(event: Json) -> str:
    """Local wall time with milliseconds."""
    moment = datetime.fromisoformat(event["time"]).astimezone()
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def seq_of(event: Json) -> int:
    return int(event["sequence"])


def fact_line(term: Terminal, event: Json, *, with_session: bool, label: str = "") -> str:
    """One line of at most the terminal's width. ``label``: what stands in place of the wall time."""
    name = short_name(event["type"])
    when = label or clock_text(event)
    columns = max(TIME_COLUMNS, len(when))
    session = f"{event['correlationid'][-8:]} " if with_session else ""
    left = f"{session}{seq_of(event):>{SEQ_COLUMNS}} {when:>{columns}}  "
    room = term.width - len(left) - NAME_COLUMNS - 1
    said = head_of(summary(event), max(8, room))
    styled = term.paint(f"{head_of(name, NAME_COLUMNS - 1):<{NAME_COLUMNS}}", *_STYLES.get(name, ()))
    return f"{term.paint(left, 'dim')}{styled}{said}".rstrip()
