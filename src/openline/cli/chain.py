"""Which facts belong to one turn, response, item or call, and how long its parts took. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from openline.cli.facts import seq_of

Json = dict[str, Any]
_OWN = ("turn_id", "item_id", "response_id", "call_id")


@dataclass(frozen=True, slots=True)
class Span:
    """A part with a beginning and an end. ``ms`` by the log's wall clock."""

    name: str
    ms: int


def at_ms(event: Json) -> int:
    return round(datetime.fromisoformat(event["time"]).timestamp() * 1000)


def ids_of(event: Json) -> set[str]:
    """The turn, items, response and call that a fact is about; not its neighbours in the conversation."""
    data = event.get("data") or {}
    found = {str(data[name]) for name in _OWN if data.get(name)}
    item = data.get("item")
    if isinstance(item, dict):
        found |= {str(item[name]) for name in ("id", "call_id", "turn_id") if item.get(name)}
    return found | set(data.get("text_items") or ())


def chain_of(events: Sequence[Json], wanted: str) -> list[Json]:
    """The facts that hang together with ``wanted`` (an id of any kind), in order; empty when nobody has it.

    A connection's id gives what names it. The reply that a tool's result leads to belongs to the chain.
    """
    if any(wanted == (event.get("data") or {}).get("conn") for event in events):
        return [event for event in events if (event.get("data") or {}).get("conn") == wanted]
    replies = _tool_replies(events)
    ids, size = {wanted}, 0
    while size != len(ids):
        size = len(ids)
        for own in (*map(ids_of, events), *replies):
            if own & ids:
                ids |= own
    return [event for event in events if ids_of(event) & ids]


def _tool_replies(events: Sequence[Json]) -> list[set[str]]:
    """Calls with the response to their results: it names no call, but no turn may come between them."""
    found: list[set[str]] = []
    settled: set[str] = set()
    for event in events:
        kind, data = event["type"], event.get("data") or {}
        if kind == "openline.tool.settled":
            settled.add(str(data["call_id"]))
        elif kind == "openline.turn.committed":
            settled = set()
        elif kind == "response.created" and data["request"].get("origin") == "tool":
            found.append({str(data["response_id"]), *settled})
            settled = set()
    return found


def spans_of(events: Sequence[Json]) -> list[Span]:
    """How long the speech, the decision, the wait for a reply, each tool and each response took."""
    return list(_spans(events))


def _spans(events: Sequence[Json]) -> Iterator[Span]:
    first: dict[tuple[str, str], int] = {}
    names: dict[str, str] = {}
    for event in events:
        kind, data, now = event["type"], event.get("data") or {}, at_ms(event)
        if kind == "input_audio_buffer.speech_started":
            first["speech", data["turn_id"]] = now
        elif kind == "input_audio_buffer.speech_stopped":
            yield from _since(first, ("speech", data["turn_id"]), now, "speech")
            first["decide", data["turn_id"]] = now
        elif kind == "openline.turn.committed":
            yield from _since(first, ("decide", data["turn_id"]), now, "recognition")
            first["reply", data["turn_id"]] = now
        elif kind == "response.created":
            first["response", data["response_id"]] = now
        elif kind == "response.output_item.added":
            started = first.get(("response", data["response_id"]), now)
            if first.setdefault(("item", data["response_id"]), now) == now:
                yield Span("first output", now - started)
        elif kind == "openline.tool.requested":
            names[data["call_id"]] = data["name"]
            first["tool", data["call_id"]] = now
        elif kind == "openline.tool.settled":
            name = f"tool {names.get(data['call_id'], data['call_id'])}"
            yield from _since(first, ("tool", data["call_id"]), now, name)
        elif kind == "response.done":
            yield from _since(first, ("response", data["response_id"]), now, f"response {data['status']}")


def _since(first: dict[tuple[str, str], int], key: tuple[str, str], now: int, name: str) -> Iterator[Span]:
    if key in first:
        yield Span(name, now - first[key])


def gaps(events: Sequence[Json]) -> list[int]:
    """Sequence numbers that are missing between the first and the last of one session's facts."""
    numbers = [seq_of(event) for event in events]
    have = set(numbers)
    return [n for n in range(min(numbers, default=1), max(numbers, default=0) + 1) if n not in have]
