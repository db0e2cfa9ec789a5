"""The table of the README, from the newest results: ``python -m bench.table [--write README.md]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.load_file import Load, Target, all_loads
from bench.results import latest, verdict

BEGIN = "<!-- benchmarks: made by python -m bench.table -->"
END = "<!-- end of benchmarks -->"


def table(loads: list[Load], results: dict[str, dict[str, Any]]) -> str:
    """Markdown; one row a target, "not measured" where there is no result."""
    lines = ["| what | measured | must | goal | stretch | reached |", "|---|---|---|---|---|---|"]
    for load in loads:
        for target in load.targets:
            value = results.get(load.name, {}).get("values", {}).get(target.label)
            measured = "not measured" if value is None else f"{_number(value)} {target.unit}"
            what = load.what if target.label == "" else f"{load.what}: {target.label}"
            bounds = " | ".join(_bound(target, name) for name in ("must", "goal", "stretch"))
            lines.append(f"| {what} | {measured} | {bounds} | {verdict(target, value)} |")
    return "\n".join(lines) + "\n" + _source(results)


def replace_in(text: str, fresh: str) -> str:
    """Put the table between the two marks. Raises ValueError if they are not there."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"expected the lines {BEGIN!r} and {END!r} in the file; put them where the table goes"
        )
    return f"{before}{BEGIN}\n{fresh}{END}{after}"


def _source(results: dict[str, dict[str, Any]]) -> str:
    if not results:
        return ""
    newest = max(results.values(), key=lambda result: str(result["at"]))
    facts = newest["machine"]
    commits = sorted({str(result["commit"]) for result in results.values()})
    return (
        f"\n{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['python']}; "
        f"newest run {newest['at'][:10]}; commits {', '.join(commits)}.\n"
    )


def _bound(target: Target, name: str) -> str:
    bound: float | None = getattr(target, name)
    return "" if bound is None else _number(bound)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.table", description=__doc__)
    parser.add_argument("--write", type=Path, help="replace the table in this file, between its marks")
    chosen = parser.parse_args(arguments)
    fresh = table(all_loads(), latest())
    if chosen.write is None:
        print(fresh, end="")
    else:
        chosen.write.write_text(replace_in(chosen.write.read_text(), fresh))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
