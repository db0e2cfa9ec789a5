"""``openline trace``: everything that hangs together with one turn, response, tool call or connection."""

from __future__ import annotations

import argparse
import json
from typing import Any

from openline.cli.chain import at_ms, chain_of, spans_of
from openline.cli.facts import fact_line
from openline.cli.source import Source, add_source, source_of
from openline.cli.terminal import Terminal
from openline.errors import ConfigError, SessionNotFound

Json = dict[str, Any]
SEARCHED_MAX = 1_000
"""Sessions looked through for an id, newest first."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "trace",
        help="the whole chain of a turn, a response or a tool call",
        description="Show a timeline with offsets and durations: of a whole session, or of all that hangs "
        "together with one turn, response, item, tool call or connection.",
        epilog="example: openline trace turn_1f2e00001203",
    )
    parser.add_argument("id", help="a session's id, or that of a turn, response, item, call or connection")
    parser.add_argument("--session", help="look in this session only (faster)")
    parser.add_argument("--notes", action="store_true", help="with bookkeeping: checkpoints, segments, links")
    add_source(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    source, term = source_of(options), Terminal.of()
    session, events = find(source, options.id, options.session)
    if not options.notes:
        events = [event for event in events if event["type"] not in NOTES]
    start = at_ms(events[0])
    spans = spans_of(events)
    if options.json:
        for event in events:
            print(json.dumps(event | {"offset_ms": at_ms(event) - start}))
        for span in spans:
            print(json.dumps({"span": span.name, "ms": span.ms}))
        return 0
    term.line(
        f"{term.paint(options.id, 'bold')}  in {session}  {len(events)} facts from {events[0]['time']}"
        if options.id != session
        else f"{term.paint(session, 'bold')}  {len(events)} facts from {events[0]['time']}"
    )
    for event in events:
        term.line(fact_line(term, event, with_session=False, label=f"+{at_ms(event) - start:,} ms"))
    if spans and options.id != session:
        term.line()
        for span in spans:
            term.line(f"{span.ms:>11,} ms  {span.name}")
    return 0


NOTES = frozenset(
    (
        "openline.item.progressed",
        "openline.recording.segment",
        "openline.link.requested",
        "openline.link.opened",
    )
)
"""Bookkeeping that tells nothing of the conversation; ``--notes`` shows it."""


def find(source: Source, wanted: str, session: str | None) -> tuple[str, list[Json]]:
    """The session and the facts of the chain. Raises SessionNotFound, ConfigError for an id nobody has."""
    if session is None:
        try:
            return wanted, list(source.facts(wanted))
        except SessionNotFound:
            pass
        sessions = [row["id"] for row in source.sessions(limit=SEARCHED_MAX, status=None)]
    else:
        sessions = [session]
    # Ids of ours carry the tail of their session's id, so the right one is usually the first.
    sessions.sort(key=lambda name: "".join(c for c in name[-8:] if c.isalnum()) not in wanted)
    for name in sessions:
        chain = chain_of(list(source.facts(name)), wanted)
        if chain:
            return name, chain
    raise ConfigError(
        f"expected the id of a session, turn, response, item, call or connection; nothing at {source.name} "
        f"has '{wanted}'.",
        hint="'openline sessions' and 'openline tail' show ids.",
    )
