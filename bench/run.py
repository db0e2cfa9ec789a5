"""The harness: starts the gateway, puts a load on it, keeps what was measured, prints it beside the targets.

``python -m bench``            all benchmarks
``python -m bench relay_log``  one of them (``--list`` names them)
``--quick``                    short windows and few repeats: to see that it runs, not to publish
``--sessions 100,200``         other steps than the load file's
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import replace
from typing import Any

from bench import beside, durable, latency, loop_lag, relay, replay, results, tool_calls
from bench.carried import line, one_run
from bench.gateway import HARNESS_CORE
from bench.generator import Result
from bench.load_file import Load, all_loads
from bench.proc import pin


def main(arguments: list[str]) -> int:
    chosen = _parser().parse_args(arguments)
    loads = all_loads()
    if chosen.list:
        for load in loads:
            print(f"{load.name:18} {load.what}")
        return 0
    unknown = sorted(set(chosen.names) - {load.name for load in loads})
    if unknown:
        print(f"expected names of {', '.join(load.name for load in loads)}; got {', '.join(unknown)}")
        return 2
    pin(HARNESS_CORE)
    failed = []
    for load in loads:
        if chosen.names and load.name not in chosen.names:
            continue
        if chosen.sessions:
            load = replace(load, sessions=tuple(int(text) for text in chosen.sessions.split(",")))
        print(f"== {load.name}: {load.what}")
        try:
            _report(load, measure(load, is_quick=chosen.quick), keep=not chosen.quick)
        except (RuntimeError, OSError) as error:
            # One benchmark that cannot run must not cost the others, which take an hour.
            print(f"   could not be measured: {error}")
            failed.append(load.name)
    return 1 if failed else 0


def measure(load: Load, *, is_quick: bool = False) -> dict[str, Any]:
    """Run one benchmark, whatever its kind; the result as it goes into the file."""
    match load.kind:
        case "capacity":
            return capacity(load, is_quick)
        case "relay":
            return relay.measure(load, is_quick=is_quick)
        case "peers":
            return beside.measure(load, is_quick=is_quick)
        case "load":
            return fixed_load(load, is_quick)
        case "durable":
            return durable.measure(load, is_quick=is_quick)
        case "replay":
            return replay.measure(load, is_quick=is_quick)
        case "tool_calls":
            return tool_calls.measure(load, is_quick=is_quick)
        case "loop_lag":
            return asyncio.run(loop_lag.measure(load, is_quick=is_quick))
        case "embedded" | "barge_in" | "resume" | "restart":
            return asyncio.run(latency.measure(load, is_quick=is_quick))
        case unknown:
            raise ValueError(f"{load.name}.toml: kind: expected a kind of bench.run.measure; got {unknown!r}")


def capacity(load: Load, is_quick: bool) -> dict[str, Any]:
    """The largest session count at which most repeats keep p99 below 10 ms; stops at the first that does not."""
    repeats = 1 if is_quick else int(load.number("repeats", 3))
    runs: list[Result] = []
    best = 0
    for sessions in load.sessions:
        here = [one_run(load, sessions, is_quick=is_quick) for _ in range(repeats)]
        runs += here
        good = sum(not run["faults"] for run in here)
        for run in here:
            print(f"   {line(run)}")
        if all(run["void"] for run in here):
            print(f"   {sessions} sessions: void, the generator was the limit")
            break
        if good * 2 <= repeats:
            break
        best = sessions
    at_best = [run for run in runs if run["sessions"] == best]
    return {"sessions": best, "at_best": _middle(at_best), "runs": runs}


def fixed_load(load: Load, is_quick: bool) -> dict[str, Any]:
    """The same load ``repeats`` times; the run in the middle (by its first target) stands for it."""
    repeats = 1 if is_quick else int(load.number("repeats", 3))
    runs = [one_run(load, load.sessions[0], is_quick=is_quick) for _ in range(repeats)]
    for run in runs:
        print(f"   {line(run)}")
    runs.sort(key=lambda run: results.value_of({"run": run}, load.targets[0]) or 0.0)
    return {"run": runs[len(runs) // 2], "runs": runs}


def _middle(runs: list[Result]) -> Result | None:
    """By the delay of the audio, which is what a step is judged by."""
    ordered = sorted(runs, key=lambda run: float((run["audio"] or {}).get("p99_ms") or 0.0))
    return ordered[len(ordered) // 2] if ordered else None


def _report(load: Load, measured: dict[str, Any], *, keep: bool) -> None:
    for target in load.targets:
        value = results.value_of(measured, target)
        shown = "not measured" if value is None else f"{value:.4g} {target.unit}"
        print(
            f"   {target.label or 'result'}: {shown}   must {target.must}  goal {target.goal}  "
            f"stretch {target.stretch}   -> {results.verdict(target, value)}"
        )
    if keep:
        print(f"   kept as bench/results/{results.write(load, measured).name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="benchmarks to run; all by default")
    parser.add_argument("--list", action="store_true", help="name the benchmarks and end")
    parser.add_argument("--quick", action="store_true", help="short; results are not kept")
    parser.add_argument("--sessions", default="", help="comma-separated steps instead of the load file's")
    return parser
