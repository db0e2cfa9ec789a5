"""``openline tail``: facts as they become durable."""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from openline.cli.facts import fact_line, seq_of
from openline.cli.source import Source, add_source, source_of
from openline.cli.terminal import Terminal

Json = dict[str, Any]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "tail",
        help="show facts as they happen",
        description="Show the newest facts of all sessions, or of one; with -f go on as they become durable.",
        epilog="example: openline tail -f --type 'openline.tool.*'",
    )
    parser.add_argument("session", nargs="?", help="only this session")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens")
    parser.add_argument("-n", "--lines", type=int, default=20, help="facts shown of the past (default: 20)")
    parser.add_argument(
        "--type", action="append", default=[], metavar="T", help="only this type; 'x.*' works"
    )
    add_source(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    source, term = source_of(options), Terminal.of()
    if options.session:
        found = _of_session(source, options)
    else:
        found = _of_all(source, options)
    for event in found:
        if options.json:
            print(json.dumps(event), flush=True)
        else:
            term.line(fact_line(term, event, with_session=not options.session))
    return 0


def _of_session(source: Source, options: argparse.Namespace) -> Iterator[Json]:
    recent: deque[Json] = deque(maxlen=max(0, options.lines))
    last = 0
    for event in source.facts(options.session):
        last = seq_of(event)
        if wanted(event["type"], options.type):
            recent.append(event)
    yield from recent
    if options.follow:
        for event in source.facts(options.session, after=last, follow=True):
            if wanted(event["type"], options.type):
                yield event


def _of_all(source: Source, options: argparse.Namespace) -> Iterator[Json]:
    types = ",".join(options.type)
    recent: deque[Json] = deque(maxlen=max(0, options.lines))
    cursor = ""
    for cursor, event in source.feed(types=types):  # noqa: B007  the last cursor is where following begins
        recent.append(event)
    yield from recent
    if options.follow:
        for _, event in source.feed(after=cursor, types=types, follow=True):
            yield event


def wanted(kind: str, types: list[str]) -> bool:
    return not types or any(kind == t or (t.endswith("*") and kind.startswith(t[:-1])) for t in types)
