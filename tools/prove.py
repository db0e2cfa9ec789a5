"""The full figures of `make prove`, in parts that can be stopped and gone on with.

    python tools/prove.py                 every part that is not yet done for this commit
    python tools/prove.py kills cuts      only these
    python tools/prove.py --list

A part is a command with the figure in its environment; `make test` runs the same tests with small figures.
A part that is done for this commit is not run again; results go to bench/results/prove.json with the commit.
Kills and cuts come in smaller parts (tests/figures.py), and go on where they were stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "prove.json"
LOGS = ROOT / ".prove"
PART_S_MAX = 4 * 3600
"""A guess: 200 kills in calls of some seconds each are under an hour. Past this something hangs."""


@dataclass(frozen=True)
class Part:
    """``figures`` become ``OPENLINE_FIGURE_<NAME>``; a test reads its own and uses its small one without."""

    what: str
    command: tuple[str, ...]
    figures: dict[str, int] = field(default_factory=dict)


def pytest_part(what: str, keyword: str, **figures: int) -> Part:
    # The per-test limit of conftest.py is for the small figures.
    return Part(
        what, ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", keyword), {"LIMIT": 1000, **figures}
    )


PARTS: dict[str, Part] = {
    "seeds": pytest_part(
        "seeds of the session state machine, with crashes anywhere", "figure_seeds", SEEDS=2000
    ),
    "power": pytest_part("power cuts of the SQLite store", "figure_power", POWER=400),
    "cuts": pytest_part("cuts of the client socket", "figure_cuts", CUTS=200),
    "kills": pytest_part("kill -9 of the gateway in live audio calls", "figure_kills", KILLS=200),
    "links": pytest_part(
        "three hours with a model provider that fails three hundred times", "figure_links", LINKS=6
    ),
    "mutants": Part("mutants of the core", ("tools/mutants.py", "--report", "bench/results/mutants.json")),
}


def main() -> int:
    if "--list" in sys.argv:
        for name, part in PARTS.items():
            print(f"{name:<9} {part.what} {part.figures or ''}")
        return 0
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"prove: expected parts of {', '.join(PARTS)}; got {', '.join(unknown)}", file=sys.stderr)
        return 2
    commit = commit_name()
    done = read_results()
    for name in wanted:
        before = done.get(name, {})
        if before.get("commit") == commit and before.get("passed") and not commit.endswith("+changes"):
            print(f"{name}: passed already for {commit[:12]}")
            continue
        done[name] = run_part(name, PARTS[name], commit)
        write_results(done)
    failed = [name for name in wanted if not done[name]["passed"]]
    print(
        f"prove: {len(wanted) - len(failed)} of {len(wanted)} passed"
        + (f"; failed: {failed}" if failed else "")
    )
    return 1 if failed else 0


def run_part(name: str, part: Part, commit: str) -> dict[str, object]:
    print(f"{name}: {part.what} …", flush=True)
    LOGS.mkdir(exist_ok=True)
    figures = {f"OPENLINE_FIGURE_{key}": str(value) for key, value in part.figures.items()}
    figures["OPENLINE_PROVE_PARTS"] = str(LOGS / commit)
    if commit.endswith("+changes"):  # nothing says that what was done before was done to these changes
        shutil.rmtree(LOGS / commit, ignore_errors=True)
    began = time.monotonic()
    log = LOGS / f"{name}.log"
    with log.open("w") as sink:
        try:
            done = subprocess.run(
                [sys.executable, *part.command],
                cwd=ROOT,
                env={**os.environ, **figures},
                stdout=sink,
                stderr=subprocess.STDOUT,
                timeout=PART_S_MAX,
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = -1
    lines = log.read_text(errors="replace").strip().splitlines()
    took = time.monotonic() - began
    print(
        f"{name}: {'passed' if code == 0 else 'FAILED'} in {took:.0f} s; {lines[-1] if lines else ''}",
        flush=True,
    )
    return {
        "commit": commit,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": code == 0,
        "took_s": round(took, 1),
        "figures": part.figures,
        "counts": counts_of(LOGS / commit / name),
        "says": lines[-3:],
        "machine": f"{os.cpu_count()} cores, Python {sys.version.split()[0]}",
    }


def counts_of(folder: Path) -> dict[str, int]:
    """What the tests of a part counted, over all of its smaller parts."""
    return dict(sum((Counter(json.loads(path.read_text())) for path in folder.glob("*.json")), Counter()))


def commit_name() -> str:
    """The commit, with ``+changes`` when the tree differs from it."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no commit+changes"
    relevant = [line for line in changed.stdout.splitlines() if "bench/results/" not in line]
    return head.stdout.strip() + ("+changes" if relevant else "")


def read_results() -> dict[str, dict[str, object]]:
    try:
        found = json.loads(RESULTS.read_text())
    except (OSError, ValueError):  # none yet, or cut short
        return {}
    return found if isinstance(found, dict) else {}


def write_results(done: dict[str, dict[str, object]]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    draft = RESULTS.with_suffix(".new")
    draft.write_text(json.dumps(done, indent=1) + "\n")
    draft.replace(RESULTS)


if __name__ == "__main__":
    sys.exit(main())
