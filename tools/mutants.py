"""Break the core on purpose, one small change at a time, and see whether its tests notice.

    python tools/mutants.py                        every mutant; goes on where an interrupted run stopped
    python tools/mutants.py --sample 200 --seed 7  a slice, the same for the same seed and source
    python tools/mutants.py --only responses.py    mutants whose id contains the text
    python tools/mutants.py --list                 what would be run

Exits with 0 only if every mutant was killed or has a reason in tests/mutants_accepted.toml, with 2 if the tests fail
without any mutant or the tool itself does: then there is no report.

How it is fast: the tests are collected once, and each mutant runs in a fork of that process, where the changed
function is given its new code (a change outside of functions, of a table or a default, runs in a fork that imports
all anew, with the changed module served by an import hook; nothing is written to src). Only tests that ran the changed
function are started, those that killed most for their time first, and the first failure ends the run. Results are kept in .mutants/: after a
change of the tests only the survivors run again, after a change of a module of the core its mutants and all survivors
do. A mutant killed while another module was older counts as killed: ``--fresh`` asks again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from difflib import unified_diff
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.mutant_run import Baseline, Outcome, Pool, run_baseline  # noqa: E402  after the path is set
from tools.mutant_warm import WarmPool, divided, run_collected  # noqa: E402  after the path is set
from tools.mutation import Mutant, mutants_of  # noqa: E402  after the path is set

SOURCE = ROOT / "src" / "openline"
TARGET = "core"
TESTS = ["tests/unit/core", "tests/scenarios", "tests/properties"]
ACCEPTED = ROOT / "tests" / "mutants_accepted.toml"
KEPT = ROOT / ".mutants" / "results.json"
TOOLS = ("mutation.py", "mutant_run.py", "mutant_swap.py", "mutant_warm.py")
SAVE_EVERY = 20


@dataclass
class Kept:
    """What is known from earlier runs, and of which tools, modules (by path) and tests."""

    tools: str = ""
    modules: dict[str, str] = field(default_factory=dict)
    tests: str = ""
    baseline: Baseline | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def main() -> int:
    options = arguments()
    mutants = choose(all_mutants(), options)
    if options.list:
        print("\n".join(f"{mutant.path}:{mutant.line}: {mutant.id}" for mutant in mutants))
        print(f"{len(mutants)} mutants")
        return 0
    kept = load_kept(fresh=options.fresh)
    if kept.baseline is None:
        kept.baseline = run_baseline(ROOT, present_tests())
        if kept.baseline.failure:
            print(
                f"mutants: the tests fail without any mutant; put them right first:\n{kept.baseline.failure}"
            )
            return 2
        save_kept(kept)
    total_s = sum(kept.baseline.seconds.values())
    print(
        f"{len(mutants)} mutants; {len(kept.baseline.seconds)} tests, {total_s:.1f} s for all of them",
        flush=True,
    )
    try:
        run_all(mutants, kept, options.jobs)
    except RuntimeError as error:  # no verdict is worth anything until that is put right
        print(f"mutants: {error}")
        return 2
    return report(mutants, kept, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mutation run over openline.core.")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N mutants, drawn by --seed")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose id contains TEXT")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="at once (default 2)")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--list", action="store_true", help="list the mutants and stop")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write figures and survivors as JSON")
    return parser.parse_args()


def all_mutants() -> list[Mutant]:
    files = sorted((SOURCE / TARGET).rglob("*.py"))
    return [m for path in files for m in mutants_of(path.relative_to(SOURCE).as_posix(), path.read_text())]


def choose(mutants: list[Mutant], options: argparse.Namespace) -> list[Mutant]:
    chosen = [mutant for mutant in mutants if options.only in mutant.id]
    if options.sample and options.sample < len(chosen):
        drawn = random.Random(options.seed).sample(range(len(chosen)), options.sample)
        chosen = [chosen[index] for index in sorted(drawn)]
    return chosen


def present_tests() -> list[str]:
    return [name for name in TESTS if (ROOT / name).is_dir()]


def fingerprint(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def load_kept(*, fresh: bool) -> Kept:
    """Results that still hold: killed mutants of modules as they are now; survivors only if nothing has changed."""
    tools = fingerprint([ROOT / "tools" / name for name in TOOLS])
    modules = {
        path.relative_to(SOURCE).as_posix(): fingerprint([path]) for path in (SOURCE / TARGET).rglob("*.py")
    }
    # Stories may be data files; caches are not tests.
    found = [path for name in present_tests() for path in (ROOT / name).rglob("*") if path.is_file()]
    tests = fingerprint([path for path in found if "__pycache__" not in path.parts])
    kept = Kept(tools, modules, tests)
    try:
        raw = {} if fresh else json.loads(KEPT.read_text())
    except (OSError, ValueError):  # none yet, or cut short
        raw = {}
    if raw.get("tools") != tools:
        return kept
    outcomes = {key: Outcome(**value) for key, value in raw["outcomes"].items()}
    if raw["modules"] == modules and raw["tests"] == tests:
        kept.baseline, kept.outcomes = Baseline(**raw["baseline"]), outcomes
        return kept
    same = {path for path, known in modules.items() if raw["modules"].get(path) == known}
    kept.outcomes = {
        key: value for key, value in outcomes.items() if value.is_killed and key.split("::")[0] in same
    }
    return kept


def save_kept(kept: Kept) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    draft = KEPT.with_suffix(".new")
    draft.write_text(json.dumps(asdict(kept)))
    draft.replace(KEPT)


def run_all(mutants: list[Mutant], kept: Kept, jobs: int) -> None:
    assert kept.baseline is not None
    baseline = kept.baseline
    waiting = [mutant for mutant in mutants if mutant.id not in kept.outcomes]
    warm, cold = divided(ROOT, baseline, waiting)
    progress = Progress(kept, len(waiting))
    # Those with imports of their own first: the others fill this process with what must be new there.
    if cold:
        with Pool(ROOT, baseline, present_tests(), jobs) as pool:
            progress.take(pool, cold)
    if warm:

        def run_warm(items: Sequence[pytest.Item]) -> None:
            with WarmPool(ROOT, baseline, items, jobs) as pool:
                progress.take(pool, warm)

        run_collected(ROOT, present_tests(), run_warm)
    save_kept(kept)


class Progress:
    """Writes down outcomes as they come, and says how far it is."""

    def __init__(self, kept: Kept, of: int) -> None:
        self.kept, self.of = kept, of
        self.done = 0
        self.began = time.monotonic()

    def take(self, pool: Pool, mutants: list[Mutant]) -> None:
        pool.check()
        for mutant_id, outcome in self.kept.outcomes.items():
            pool.learn(mutant_id, outcome)
        for mutant, outcome in pool.run(mutants):
            self.kept.outcomes[mutant.id] = outcome
            self.done += 1
            if not outcome.is_killed:
                print(f"survived  {place(mutant)}  {mutant.id.split('::', 2)[2]}", flush=True)
            if self.done % SAVE_EVERY == 0:
                save_kept(self.kept)
            if self.done % 100 == 0:
                rate = self.done / (time.monotonic() - self.began)
                left = (self.of - self.done) / rate
                print(f"{self.done}/{self.of}, {rate:.1f} a second, {left / 60:.0f} min to go", flush=True)


def accepted_reasons() -> dict[str, str]:
    rows = tomllib.loads(ACCEPTED.read_text()).get("mutant", []) if ACCEPTED.exists() else []
    return {row["id"]: row["reason"] for row in rows}


def place(mutant: Mutant) -> str:
    return f"src/openline/{mutant.path}:{mutant.line}"


def report(mutants: list[Mutant], kept: Kept, options: argparse.Namespace) -> int:
    reasons = accepted_reasons()
    outcomes = [(mutant, kept.outcomes[mutant.id]) for mutant in mutants if mutant.id in kept.outcomes]
    survivors = [mutant for mutant, outcome in outcomes if not outcome.is_killed]
    unexplained = [mutant for mutant in survivors if mutant.id not in reasons]
    for mutant in survivors:
        print(f"\n{place(mutant)}\n{difference(mutant)}")
        print(f"  id = {json.dumps(mutant.id, ensure_ascii=False)}")
        print(
            f"  reason: {reasons.get(mutant.id, 'NONE; write a test that fails, or accept it with a reason')}"
        )
    stale = stale_reasons(reasons, kept) if not options.only and not options.sample else []
    for line in stale:
        print(line)
    by = Counter(outcome.how for _, outcome in outcomes)
    print(f"\n{len(outcomes)} mutants: " + ", ".join(f"{count} {how}" for how, count in sorted(by.items())))
    for path, (killed, total) in per_file(outcomes).items():
        print(f"  {path:<24} {killed}/{total}")
    print(f"{len(survivors)} survived, {len(unexplained)} of them without a reason")
    if options.report:
        write_report(options.report, outcomes, survivors, reasons)
    return 1 if unexplained or stale else 0


def stale_reasons(reasons: dict[str, str], kept: Kept) -> list[str]:
    found = []
    for mutant_id in reasons:
        outcome = kept.outcomes.get(mutant_id)
        if outcome is None:
            found.append(f"accepted, but there is no such mutant any more; remove it: {mutant_id}")
        elif outcome.is_killed:
            found.append(f"accepted, but a test kills it by now; remove it: {mutant_id}")
    return found


def difference(mutant: Mutant) -> str:
    source = (SOURCE / mutant.path).read_bytes()
    before, after = source.decode().splitlines(), mutant.apply(source).decode().splitlines()
    lines = list(unified_diff(before, after, lineterm="", n=0))[3:]
    return "\n".join(f"  {line}" for line in lines[:24])


def per_file(outcomes: list[tuple[Mutant, Outcome]]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for mutant, outcome in outcomes:
        killed, total = found.get(mutant.path, (0, 0))
        found[mutant.path] = (killed + outcome.is_killed, total + 1)
    return found


def write_report(
    file: Path, outcomes: list[tuple[Mutant, Outcome]], survivors: list[Mutant], reasons: dict[str, str]
) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    figures = {
        "commit": commit.stdout.strip(),
        "mutants": len(outcomes),
        "killed": sum(outcome.is_killed for _, outcome in outcomes),
        "files": per_file(outcomes),
        "survivors": [
            {"id": mutant.id, "line": mutant.line, "reason": reasons.get(mutant.id, "")}
            for mutant in survivors
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("mutants: stopped; the next run goes on from here")
        sys.exit(130)
