"""The tables of the README and of docs/reference/numbers.md, from the newest results.

python -m bench.table                                        what the README shows
python -m bench.table --whole                                every figure
python -m bench.table --write README.md
python -m bench.table --whole --write docs/reference/numbers.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.load_file import Load, Target, all_loads
from bench.results import latest, verdict

BEGIN = "<!-- benchmarks: made by python -m bench.table -->"
END = "<!-- end of benchmarks -->"
HEAD = "| what | measured | must | goal | stretch | reached |\n|---|---|---|---|---|---|"


def table(loads: list[Load], results: dict[str, dict[str, Any]], *, is_whole: bool = False) -> str:
    """Markdown: a heading row for each load, a row for each figure that has a bound; all of them if ``is_whole``.

    "not measured" where there is no result.
    """
    lines = [HEAD]
    for load in loads:
        result = results.get(load.name, {})
        shown = [target for target in load.targets if is_whole or _is_bounded(target)]
        if not shown:
            continue
        if len(shown) == 1 and not shown[0].label:
            lines.append(_row(f"**{load.what}**", shown[0], result))
            continue
        lines.append(f"| **{load.what}** | | | | | |")
        lines += [_row(target.label or "all", target, result) for target in shown]
    return "\n".join(lines) + "\n" + _source(results)


def _is_bounded(target: Target) -> bool:
    return any(getattr(target, name) is not None for name in ("must", "goal", "stretch"))


def _row(what: str, target: Target, result: dict[str, Any]) -> str:
    value = result.get("values", {}).get(target.label)
    measured = "not measured" if value is None else f"{_number(value)} {target.unit}"
    bounds = " | ".join(_bound(target, name) for name in ("must", "goal", "stretch"))
    return f"| {what} | {measured} | {bounds} | {verdict(target, value)} |"


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
    """What was measured where, newest first: a result is worth nothing without its machine."""
    measured: dict[str, list[dict[str, Any]]] = {}
    for result in sorted(results.values(), key=lambda result: str(result["at"]), reverse=True):
        facts = result["machine"]
        machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['python']}"
        measured.setdefault(machine, []).append(result)
    return "".join(
        f"\n{machine}: {', '.join(_origin(result) for result in there)}.\n"
        for machine, there in measured.items()
    )


def _origin(result: dict[str, Any]) -> str:
    return f"{result['name']} ({result['at'][:10]}, {result['commit']})"


def _bound(target: Target, name: str) -> str:
    bound: float | None = getattr(target, name)
    return "" if bound is None else _number(bound)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.table", description="Tables of the figures.")
    parser.add_argument("--whole", action="store_true", help="also figures that have no bound")
    parser.add_argument("--write", type=Path, help="replace the table in this file, between its marks")
    chosen = parser.parse_args(arguments)
    fresh = table(all_loads(), latest(), is_whole=chosen.whole)
    if chosen.write is None:
        print(fresh, end="")
    else:
        chosen.write.write_text(replace_in(chosen.write.read_text(), fresh))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
