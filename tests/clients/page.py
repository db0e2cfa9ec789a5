"""The table of clients and scenarios: as text for a terminal, and as Markdown for the documentation.

Everything is made from what is kept in ``bench/results/clients.json``; a test compares the pages with it.
"""

from __future__ import annotations

from typing import Any

from clients.registry import ALL, TOPOLOGIES, Client

BEGIN = "<!-- clients: made by make test-clients -->"
END = "<!-- end of clients -->"
SHOWN = {"passed": "ok", "failed": "FAILED", "cannot": "cannot", "not-run": "not run", "n/a": "–"}
Rows = list[dict[str, Any]]


def text(cells: Rows, clients: tuple[Client, ...]) -> str:
    """For a terminal: a table for each topology, then why a cell is not passed."""
    parts = []
    for topology in TOPOLOGIES:
        grid = _grid(cells, topology)
        if not grid:
            continue
        width = max(len(name) for name in grid)
        columns = [name for name in ALL if any(name in row for row in grid.values())]
        parts.append(f"\n{topology}")
        parts.append("  ".join([" " * (width + 9), *columns]).rstrip())
        for client in clients:
            if row := grid.get(client.name):
                marks = [
                    SHOWN[row[name]["outcome"]].ljust(len(name)) if name in row else " " * len(name)
                    for name in columns
                ]
                parts.append("  ".join([f"{client.name:<{width}}  {client.version:<7}", *marks]).rstrip())
    reasons = [
        f"  {cell['topology']}, {cell['client']}, {cell['scenario']}: {SHOWN[cell['outcome']]}: {cell['why']}"
        for cell in cells
        if cell["outcome"] in ("failed", "cannot", "not-run")
    ]
    return "\n".join([*parts, "", *reasons])


def markdown(body: dict[str, Any], clients: tuple[Client, ...]) -> str:
    """``docs/reference/clients.md``."""
    cells: Rows = body["cells"]
    parts = [
        "# Stock clients",
        "",
        "Made by `make test-clients`; do not edit.",
        "Each client is unmodified and is given nothing but a base URL and a key.",
        "What each scenario does is in [tests/clients/README.md](../../tests/clients/README.md).",
        "",
        _source(body),
    ]
    for topology, what in (
        ("embedded", "One gateway with the embedded pipeline"),
        ("chained", "A gateway in front of that gateway"),
    ):
        parts += ["", f"## {what}", "", *_table(_grid(cells, topology), clients)]
    reasons = [
        f"- **{cell['client']}, {cell['scenario']}** ({cell['topology']}): {cell['why']}."
        for cell in cells
        if cell["outcome"] in ("failed", "cannot", "not-run")
    ]
    if reasons:
        parts += ["", "## Why a cell is not passed", "", *reasons]
    parts += [
        "",
        "A dash is a scenario that has no meaning for the client: "
        "the Responses API carries no audio, the Realtime API no refusals and no reasoning items.",
    ]
    return "\n".join(parts) + "\n"


def readme(body: dict[str, Any], clients: tuple[Client, ...]) -> str:
    """The short list of the README, between ``BEGIN`` and ``END``."""
    grid = {topology: _grid(body["cells"], topology) for topology in TOPOLOGIES}
    lines = ["| client | version | one gateway | two in a row |", "|---|---|---|---|"]
    for client in clients:
        if any(client.name in grid[topology] for topology in TOPOLOGIES):
            counts = [_count(grid[topology].get(client.name, {})) for topology in TOPOLOGIES]
            lines.append(f"| {client.title} | {client.version} | {counts[0]} | {counts[1]} |")
    return "\n".join(lines) + f"\n\n{_source(body)}\n"


def replace_in(page: str, fresh: str) -> str:
    """Put ``fresh`` between the two marks. Raises ValueError if they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the lines {BEGIN!r} and {END!r}; put them where the list goes")
    return f"{before}{BEGIN}\n{fresh}{END}{after}"


def _table(grid: dict[str, dict[str, Any]], clients: tuple[Client, ...]) -> list[str]:
    lines = [
        f"| client | version | {' | '.join(name.replace('_', ' ') for name in ALL)} |",
        "|---" * (len(ALL) + 2) + "|",
    ]
    for client in clients:
        if row := grid.get(client.name):
            marks = [SHOWN[row[name]["outcome"]] if name in row else "" for name in ALL]
            lines.append(f"| {client.title} | {client.version} | {' | '.join(marks)} |")
    return lines


def _grid(cells: Rows, topology: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell["topology"] == topology:
            found.setdefault(cell["client"], {})[cell["scenario"]] = cell
    return found


def _count(row: dict[str, Any]) -> str:
    """Passed of all that have a meaning for the client."""
    outcomes = [cell["outcome"] for cell in row.values() if cell["outcome"] != "n/a"]
    return f"{outcomes.count('passed')} of {len(outcomes)}"


def _source(body: dict[str, Any]) -> str:
    machine = body["machine"]
    return f"{body['at'][:10]}, commit {body['commit']}; {machine['system']}, {machine['python']}."
