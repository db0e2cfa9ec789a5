"""The same relay work side by side: Openline and other runtimes, one after the other, on one core each.

Same callers, same frames, same upstream server, same windows; the generator has the other core. Each candidate's
limit is searched by steps: up while a run is carried (p99 of both ways below 10 ms, after the first half second of
a reply; no stall, no frame short), down while it is not. That is done in rounds, all candidates in each, so that
what the machine does besides hits all alike; the middle of the rounds counts and the spread is kept.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.carried import Search, one_run, p99
from bench.generator import Result
from bench.load_file import Load
from bench.relay import upstream_of

ROOT = Path(__file__).parent.parent
FRONTS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".bench"
PEERS = ("openai-agents", "livekit-agents", "pipecat")
OURS = "openline"


@dataclass
class Candidate:
    name: str
    search: Search
    runs: list[Result]


def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    """Sessions a core, CPU and memory a session of each, and how many times theirs ours is."""
    rounds = 1 if is_quick else int(load.number("rounds", 3))
    candidates = [_candidate(load, name) for name in (OURS, *PEERS) if _is_there(name)]
    with tempfile.TemporaryDirectory(prefix="openline-bench-") as folder:
        for number in range(rounds):
            for candidate in candidates:
                candidate.search.once(partial(_run, load, candidate, Path(folder), is_quick=is_quick))
                limit = candidate.search.limits[-1]
                print(f"   round {number + 1}, {candidate.name}: {limit} sessions", flush=True)
        for candidate in candidates:
            # At one count for all: every program gets cheaper a session as it fills up.
            _run(load, candidate, Path(folder), int(load.number("common_sessions", 20)), is_quick=is_quick)
    found = {candidate.name.replace("-", "_"): _summary(load, candidate) for candidate in candidates}
    return {"candidates": found, "times": _times(found)}


def _candidate(load: Load, name: str) -> Candidate:
    key = name.replace("-", "_")
    steps = tuple(int(text) for text in load.text(f"{key}_steps", "10,20,40").split(","))
    start = int(load.number(f"{key}_start", steps[0]))
    return Candidate(name, Search.from_start(steps, start), [])


def _is_there(name: str) -> bool:
    if name == OURS or _python(name).exists():
        return True
    return prepare(name)


def _python(name: str) -> Path:
    return ENVIRONMENTS / name / "bin" / "python"


def prepare(name: str) -> bool:
    """Make a peer's environment from its pins, with pip and whatever index it is set to. False, and why, if not."""
    print(f"   {name}: making its environment in .bench/{name}", flush=True)
    pins = FRONTS / f"{name}.txt"
    for command in (
        [sys.executable, "-m", "venv", str(ENVIRONMENTS / name)],
        [str(_python(name)), "-m", "pip", "install", "--quiet", "--requirement", str(pins)],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"   {name}: not measured: {done.stderr.strip().splitlines()[-1:]}")
            return False
    return True


def _run(load: Load, candidate: Candidate, folder: Path, sessions: int, *, is_quick: bool) -> Result:
    with upstream_of(folder, is_tls=False) as (ours, environment, extra):
        make_command = ours if candidate.name == OURS else _front(candidate.name, int(extra["upstream"]))
        try:
            run = one_run(
                load,
                sessions,
                is_quick=is_quick,
                make_command=make_command,
                environment=environment,
                extra=extra,
            )
        except RuntimeError as error:  # it did not start, or callers did not get in: not carried
            run = {"sessions": sessions, "faults": [str(error)[-200:]]}
    candidate.runs.append(run)
    if "gateway" not in run:
        print(f"   {candidate.name}: {sessions} sessions: {run['faults'][0]}", flush=True)
        return run
    print(
        f"   {candidate.name}: {sessions} sessions: core {run['gateway']['core']:.2f}, p99 up {p99(run, 'up')} audio "
        f"{p99(run, 'steady')} ms, {run['gateway']['kb_per_session']:.0f} kB a session, generator "
        f"{run['generator_busy']:.2f}, other {run['other_core']:.2f}"
        + (f"; {', '.join(run['faults'])}" if run["faults"] else ""),
        flush=True,
    )
    return run


def _front(name: str, upstream: int) -> Callable[..., list[str]]:
    script = FRONTS / f"front_{name.replace('-', '_')}.py"

    def command(load: Load, *, port: int, data: Path) -> list[str]:
        url = f"ws://127.0.0.1:{upstream}/v1"
        return [str(_python(name)), str(script), "--port", str(port), "--upstream", url]

    return command


def _summary(load: Load, candidate: Candidate) -> dict[str, Any]:
    limit = int(statistics.median(candidate.search.limits))
    common = int(load.number("common_sessions", 20))
    return {
        "sessions": limit,
        "limits": candidate.search.limits,
        "at_limit": _costs(candidate.runs, limit),
        "at_common": _costs(candidate.runs, common),
        "runs": candidate.runs,
    }


def _costs(all_runs: list[Result], sessions: int) -> dict[str, float] | None:
    """CPU in percent of a core, and kB, a session: the middle of the runs with so many sessions."""
    runs = [run for run in all_runs if run["sessions"] == sessions and run.get("up") and run.get("steady")]
    if not runs:
        return None
    return {
        "percent_core_per_session": round(
            statistics.median(100 * run["gateway"]["core"] / run["sessions"] for run in runs), 3
        ),
        "kb_per_session": statistics.median(run["gateway"]["kb_per_session"] for run in runs),
        "reply_p50_ms": statistics.median((run["reply"] or {}).get("p50_ms", 0.0) for run in runs),
        "up_p99_ms": statistics.median(run["up"]["p99_ms"] for run in runs),
        "steady_p99_ms": statistics.median(run["steady"]["p99_ms"] for run in runs),
        "media_relayed": round(
            statistics.median(
                run["per_s"]["media_down"] / max(1.0, run["upstream_media_per_s"]) for run in runs
            ),
            3,
        ),
    }


def _times(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Ours divided by theirs: sessions from the middles, and the least and most that the rounds allow."""
    ours = found[OURS]
    times = {}
    for name, theirs in found.items():
        if name == OURS or not theirs["sessions"]:
            continue
        times[name] = {
            "sessions": round(ours["sessions"] / theirs["sessions"], 2),
            "least": round(min(ours["limits"]) / max(theirs["limits"]), 2),
        }
        if min(theirs["limits"]):  # In a round in which it carried nothing there is no most.
            times[name]["most"] = round(max(ours["limits"]) / min(theirs["limits"]), 2)
        if ours["at_common"] and theirs["at_common"]:
            times[name]["cpu_at_common"] = round(
                theirs["at_common"]["percent_core_per_session"]
                / ours["at_common"]["percent_core_per_session"],
                2,
            )
    return times
