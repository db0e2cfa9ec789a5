"""The gateway in front of a Realtime server, plain and over TLS, by the real ``openai_realtime`` link: how many
sessions one core carries, and the delay it adds.

The generator plays the callers and the server, on one clock. Beside each step stands the floor: the same callers
and server with nothing between, so what the generator itself is late by can be told apart. Limits are searched in
rounds (``carried.Search``), in each of them also that of a relay that only passes frames on: what of the core's time is
the sockets', and what the machine would carry at all in that round.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import gateway
from bench.build import build
from bench.carried import Search, line, one_run
from bench.gateway import free_port
from bench.generator import Result, direct
from bench.load_file import Load, Value

BARE = "bare"


@dataclass
class _Candidate:
    """The gateway before a plain server or one with TLS, or the bare relay before a plain one."""

    name: str
    search: Search
    runs: list[Result] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    """Of the core, in each round, at the number of sessions that is common to all."""
    why_not: str = ""
    """Why it cannot be measured here."""


def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    """For plain, TLS and the bare relay: sessions carried (the middle of the rounds), and each step with up and down;
    the floor of each step; our CPU beside that of the bare relay."""
    rounds = 1 if is_quick else int(load.number("rounds", 3))
    common = min(int(load.number("common_sessions", 100)), max(load.sessions))
    names = load.text("transports", "plain,tls").split(",")
    ours = [
        _Candidate(name, Search.from_start(load.sessions, int(load.number("start", 150)))) for name in names
    ]
    bare = _Candidate(BARE, Search.from_start(load.sessions, int(load.number("bare_start", 300))))
    with tempfile.TemporaryDirectory(prefix="openline-bench-") as folder:
        put = partial(_run, load, Path(folder), is_quick)
        floor = _floors(load, is_quick)
        for candidate in ours:
            for sessions in load.sessions:
                if sessions < common:
                    put(candidate, sessions)
        for number in range(rounds):
            for candidate in (bare, *ours):
                if candidate.why_not:
                    continue
                candidate.cores.append(_core(put(candidate, common)))
                candidate.search.once(partial(put, candidate))
                limit = candidate.search.limits[-1]
                print(f"   round {number + 1}, {candidate.name}: {limit} sessions", flush=True)
    found = {candidate.name: _summary(candidate) for candidate in (*ours, bare)}
    found[BARE]["times"] = _times(ours[0].cores, bare.cores)
    return {"floor": floor, **found}


def _floors(load: Load, is_quick: bool) -> dict[str, Result]:
    floors = {}
    for sessions in load.sessions:
        run = direct(load, sessions=sessions, seconds_s=2 if is_quick else 5)
        floors[str(sessions)] = run
        print(
            f"   {sessions} sessions, nothing between: {_delays(run)}, generator {run['generator_busy']:.2f}",
            flush=True,
        )
    return floors


def _run(load: Load, folder: Path, is_quick: bool, candidate: _Candidate, sessions: int) -> Result:
    try:
        with upstream_of(folder, is_tls=candidate.name == "tls") as (gateways, environment, extra):
            run = one_run(
                load,
                sessions,
                is_quick=is_quick,
                make_command=_bare(int(extra["upstream"])) if candidate.name == BARE else gateways,
                environment=environment,
                extra=extra,
            )
    except RuntimeError as error:
        print(f"   {candidate.name}: {sessions} sessions: {error}", flush=True)
        if not candidate.runs:  # Else it was too many for it, and fewer may do.
            candidate.why_not = str(error)
        return {"sessions": sessions, "faults": [str(error)[-200:]]}
    candidate.runs.append(run)
    print(f"   {candidate.name}: {line(run)}", flush=True)
    return run


def _bare(upstream: int) -> Callable[..., list[str]]:
    def command(load: Load, *, port: int, data: Path) -> list[str]:
        url = f"ws://127.0.0.1:{upstream}/v1"
        return [sys.executable, "-m", "bench.bare_relay", "--port", str(port), "--upstream", url]

    return command


def _core(run: Result) -> float:
    return float(run["gateway"]["core"]) if "gateway" in run else 0.0


def _summary(candidate: _Candidate) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    for sessions in sorted({run["sessions"] for run in candidate.runs}):
        runs = sorted((run for run in candidate.runs if run["sessions"] == sessions), key=_worst)
        steps[str(sessions)] = {"middle": runs[(len(runs) - 1) // 2], "runs": runs}
    limits = candidate.search.limits
    middle = int(statistics.median(limits)) if limits else 0
    return {"sessions": middle, "limits": limits, "cores": candidate.cores, "steps": steps}


def _times(ours: list[float], bare: list[float]) -> float | None:
    """How many times the CPU of a relay that does nothing ours takes, in the middle of the rounds."""
    times = [mine / its for mine, its in zip(ours, bare, strict=False) if mine and its]
    return round(statistics.median(times), 2) if times else None


Start = tuple[Callable[..., list[str]], dict[str, str], dict[str, Value]]


@contextmanager
def upstream_of(folder: Path, *, is_tls: bool) -> Iterator[Start]:
    """A gateway's command line and environment, and the generator's options, for one upstream server.

    Raises RuntimeError where the generator could not be built, or not with TLS.
    """
    port = free_port()
    extra: dict[str, Value] = {"upstream": port}
    # It asks for a key; the server wants none.
    environment = {"OPENAI_API_KEY": "none"}
    if is_tls:
        path = folder / "upstream.pem"
        if not path.exists():
            _make_certificate(path)
        extra["upstream_cert"] = str(path)
        environment["SSL_CERT_FILE"] = str(path)
    url = f"{'https' if is_tls else 'http'}://127.0.0.1:{port}/v1"

    def command(load: Load, *, port: int, data: Path) -> list[str]:
        return [*gateway.command(load, port=port, data=data), "--upstream-url", url]

    yield command, environment, extra


def _make_certificate(path: Path) -> None:
    program = build()
    done = program and subprocess.run(
        [str(program), "--mode", "cert", "--upstream-cert", str(path)], capture_output=True, text=True
    )
    if not done or done.returncode != 0:
        raise RuntimeError(done.stderr.strip() if done else "expected a C compiler for the load generator")


def _worst(run: Result) -> float:
    return max((run[lane] or {}).get("p99_ms") or 0.0 for lane in ("up", "audio"))


def _delays(run: Result) -> str:
    def both(lane: str) -> str:
        measured = run[lane] or {"p50_ms": 0.0, "p99_ms": 0.0}
        return f"{lane} p50 {measured['p50_ms']:.2f} p99 {measured['p99_ms']:.2f} ms"

    return f"{both('up')}, {both('audio')}"
