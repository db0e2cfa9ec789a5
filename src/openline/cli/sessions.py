"""``openline sessions``: the list, or one session with what was said."""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime
from typing import Any

from openline.cli.facts import text_of
from openline.cli.source import Source, add_source, source_of
from openline.cli.terminal import Terminal, head_of
from openline.errors import ConfigError

Json = dict[str, Any]
STATUS_STYLES = {"live": ("green", "bold"), "detached": ("yellow",), "parked": ("blue",), "ended": ("dim",)}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "sessions",
        help="list sessions, show one, or delete one",
        description="List sessions, newest first; or show one with its transcript; or forget one.",
        epilog="example: openline sessions --status live",
    )
    parser.add_argument("session", nargs="?", help="a session's id; without it the list")
    parser.add_argument("-n", "--limit", type=int, default=20, help="sessions listed at most (default: 20)")
    parser.add_argument("--status", choices=sorted(STATUS_STYLES), help="only these")
    parser.add_argument(
        "--delete",
        action="store_true",
        help="forget this session, its log and its recording, without asking; nobody may be connected to it",
    )
    add_source(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.delete and not options.session:
        raise ConfigError("--delete: expected one session's id.", hint="See 'openline sessions'.")
    source, term = source_of(options), Terminal.of()
    if options.delete:
        source.delete(options.session)
        if options.json:
            print(json.dumps({"id": options.session, "deleted": True}))
        else:
            term.line(f"deleted  {options.session}")
        return 0
    if options.session:
        return _one(source, options.session, term, as_json=options.json)
    rows = source.sessions(limit=max(1, options.limit), status=options.status)
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    if not rows:
        term.line(f"No sessions{f' that are {options.status}' if options.status else ''} at {source.name}.")
        return 0
    now_ms = time.time_ns() // 1_000_000
    term.line(term.paint(f"{'SESSION':<30} {'STATUS':<9} {'FACTS':>6}  {'STARTED':<19} LAST", "dim"))
    for row in rows:
        term.line(_row(term, row, now_ms))
    return 0


def _row(term: Terminal, row: Json, now_ms: int) -> str:
    status = term.paint(f"{row['status']:<9}", *STATUS_STYLES.get(row["status"], ()))
    started = datetime.fromtimestamp(row["created_ms"] / 1000)
    last = age(now_ms - row["updated_ms"])
    return f"{row['id']:<30} {status} {row['last_seq']:>6}  {started:%Y-%m-%d %H:%M:%S} {last}"


def age(ms: int) -> str:
    """How long ago, in the largest unit that says enough."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        if ms >= size:
            return f"{ms // size} {unit}"
    return f"{max(0, ms) // 1000} s"


def _one(source: Source, session: str, term: Terminal, *, as_json: bool) -> int:
    state, transcript = source.session(session), source.transcript(session)
    if as_json:
        print(json.dumps(state | {"transcript": transcript["items"]}))
        return 0
    status = term.paint(state["status"], *STATUS_STYLES.get(state["status"], ()))
    term.line(f"{term.paint(state['id'], 'bold')}  {status}")
    started = datetime.fromtimestamp(state["created_ms"] / 1000)
    term.line(
        f"  started {started:%Y-%m-%d %H:%M:%S}, {state['last_seq']} facts, epoch {state['epoch']} on {state['node']}"
    )
    term.line(f"  model {state['model']}, recording {'on' if state['recorded'] else 'off'}")
    for connection in state["connections"]:
        term.line(f"  connected: {connection['id']} as {connection['role']}")
    for call in state["tools"]:
        term.line(f"  tool: {call['name']} {call['phase']}, attempt {call['attempt']}")
    term.line()
    for item in transcript["items"]:
        for line in _said(term, item):
            term.line(line)
    return 0


def _said(term: Terminal, item: Json) -> list[str]:
    author = str(item.get("author") or item.get("role"))
    text = text_of(_plain(item))
    heard = item.get("heard")
    if heard and heard["audio_end_ms"] < heard["of_ms"]:
        text += f"  [heard {heard['audio_end_ms'] / 1000:.1f} of {heard['of_ms'] / 1000:.1f} s, {heard['source']}]"
    style = {"user": "cyan", "assistant": "green", "tool": "yellow"}.get(author, "dim")
    return term.wrapped(text, indent=12, first="  " + term.paint(head_of(author, 9), style))


def _plain(item: Json) -> Json:
    """A wire item with its transcripts as text, which is what ``text_of`` reads."""
    parts = [{"text": part.get("text") or part.get("transcript")} for part in item.get("content") or []]
    return item | {"content": parts}
