"""Stock clients, unmodified, against gateways of this tree: ``make test-clients``.

    python tools/test_clients.py                               every client, scenario and topology
    python tools/test_clients.py --client pipecat --scenario barge_in --topology embedded
    python tools/test_clients.py --list

Installs each client once under .clients/ (exact pins), starts the gateways, runs each cell in a process of its
own, replays every session's log, and prints the table. A whole run also writes bench/results/clients.json,
docs/reference/clients.md and the list in the README; ``--keep`` does so for a part, which replaces its cells.
Exit code: 0 if no cell failed, 1 if one did or nothing was run, 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench import results  # noqa: E402  # the two folders are no packages; the path above finds them
from clients import page, sounds  # noqa: E402  # as above
from clients.cells import Cell, Table, Wish  # noqa: E402  # as above
from clients.registry import ALL, TOPOLOGIES, Client, load  # noqa: E402  # as above
from clients.topologies import Gateways  # noqa: E402  # as above

RUNS = ROOT / ".clients" / "run"
RESULT = ROOT / "bench" / "results" / "clients.json"
PAGE = ROOT / "docs" / "reference" / "clients.md"
README = ROOT / "README.md"


def main(arguments: list[str]) -> int:
    clients = load()
    chosen = _parser(clients).parse_args(arguments)
    if chosen.list:
        for client in clients:
            print(f"{client.name:<30} {client.version:<8} {client.title.replace('`', '')}")
        return 0
    wishes = [
        Wish(topology, client, tuple(chosen.scenario or ALL))
        for topology in chosen.topology or TOPOLOGIES
        for client in clients
        if not chosen.client or client.name in chosen.client
    ]
    cells, wrong = run(wishes, chosen.jobs, is_json=chosen.json)
    is_whole = not (chosen.client or chosen.scenario or chosen.topology)
    body = merged(cells, clients) if chosen.keep else body_of([asdict(cell) for cell in cells])
    if chosen.json:
        print(json.dumps(body))
    else:
        print(page.text([asdict(cell) for cell in cells], clients))
    for name, what in wrong.items():
        print(f"  gateway {name}: {what}", file=sys.stderr)
    if (is_whole and not any(cell.outcome == "not-run" for cell in cells)) or chosen.keep:
        write(body, clients)
    counts = {outcome: sum(cell.outcome == outcome for cell in cells) for outcome in page.SHOWN}
    told = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    print(f"test-clients: {told}{f'; {len(wrong)} gateways with faults' if wrong else ''}", file=sys.stderr)
    return 1 if wrong or counts["failed"] or not counts["passed"] else 0


def run(wishes: list[Wish], jobs: int, *, is_json: bool) -> tuple[list[Cell], dict[str, str]]:
    """All cells, and what is wrong with the gateways that they ran against."""
    shutil.rmtree(RUNS, ignore_errors=True)
    audio = RUNS / "audio"
    sounds.write(audio)

    def say(cell: Cell) -> None:
        where = f"{cell.topology:<8} {cell.client:<28} {cell.scenario:<19}"
        stream = sys.stderr if is_json else sys.stdout
        print(
            f"{where} {page.SHOWN[cell.outcome]:<7} {cell.took_s:>5.1f} s  {cell.why}",
            file=stream,
            flush=True,
        )

    with Gateways(RUNS) as gateways:
        cells = Table(RUNS, gateways, audio, say).run(wishes, jobs)
        wrong = gateways.stop()
        for name, count in gateways.counts.items():
            print(f"gateway {name}: the logs of {count} sessions replay", file=sys.stderr)
    return cells, wrong


def body_of(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The result file: what passed, on what, from which commit."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"at": now, "commit": results.commit(), "machine": results.machine(), "cells": cells}


def merged(cells: list[Cell], clients: tuple[Client, ...]) -> dict[str, Any]:
    """``cells`` in place of those of the same name in the last result, in the order of the table."""
    known = json.loads(RESULT.read_text())["cells"] if RESULT.exists() else []
    places = {(row["topology"], row["client"], row["scenario"]): row for row in known}
    places.update({(cell.topology, cell.client, cell.scenario): asdict(cell) for cell in cells})
    order = [
        (topology, client.name, scenario) for topology in TOPOLOGIES for client in clients for scenario in ALL
    ]
    return body_of([places[place] for place in order if place in places])


def write(body: dict[str, Any], clients: tuple[Client, ...]) -> None:
    RESULT.write_text(json.dumps(body, indent=1) + "\n")
    PAGE.write_text(page.markdown(body, clients))
    README.write_text(page.replace_in(README.read_text(), page.readme(body, clients)))
    print(
        f"wrote {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)} and the list in README.md",
        file=sys.stderr,
    )


def _parser(clients: tuple[Client, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="test_clients", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--client", action="append", choices=[client.name for client in clients], metavar="NAME"
    )
    parser.add_argument("--scenario", action="append", choices=ALL, metavar="NAME")
    parser.add_argument("--topology", action="append", choices=TOPOLOGIES, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=1, help="clients at once (each may want a core)")
    parser.add_argument("--list", action="store_true", help="the clients, and end")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.add_argument("--keep", action="store_true", help="write the result of a part into the pages, too")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
