"""The gateway in front of a Realtime server, plain and over TLS, by the real ``openai_realtime`` link: how many
sessions one core carries, and the delay it adds.

The generator plays the callers and the server, on one clock. Beside each step stands the floor: the same callers
and server with nothing between, so what the generator itself is late by can be told apart. Limits are searched in
rounds, both transports in each (``carried.Search``), and beside them, at one number of sessions, a relay that only
passes frames on: what of the core's time is the sockets', and whether the machine stood still in that round. A round
begins when that relay, which has nothing to be late with, is not late.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
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

QUIET_P99_MS = 3.0
"""A bare relay's delay, each way, up to which the machine counts as quiet: 1.2 ms are the generator's own, and on a
quiet machine it was 1.7 to 2.2 ms at 150 sessions. Above it, the host has held a core back for some 10 ms or more."""
QUIET_WAIT_S = 30.0


@dataclass
class _Transport:
    name: str
    search: Search
    runs: list[Result] = field(default_factory=list)
    why_not: str = ""
    """Why it cannot be measured here."""


def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    """For each transport: sessions carried (the middle of the rounds), and each step with up and down; the floor of
    each step; CPU beside a bare relay."""
    rounds = 1 if is_quick else int(load.number("rounds", 3))
    common = min(int(load.number("common_sessions", 100)), max(load.sessions))
    start = int(load.number("start", 150))
    transports = [
        _Transport(name, Search.from_start(load.sessions, start))
        for name in load.text("transports", "plain,tls").split(",")
    ]
    beside: list[tuple[Result, Result]] = []
    patience = 0 if is_quick else int(load.number("patience", 30))
    unquiet = 0
    with tempfile.TemporaryDirectory(prefix="openline-bench-") as folder:
        put = partial(_run, load, Path(folder), is_quick)
        floor = _floors(load, is_quick)
        for transport in transports:
            for sessions in load.sessions:
                if sessions < common:
                    put(transport, sessions)
        for number in range(rounds):
            bare, waits = _when_quiet(
                partial(_bare, load, common, Path(folder), is_quick), patience - unquiet
            )
            unquiet += waits
            for transport in transports:
                if not transport.why_not:
                    run = put(transport, common)
                    if transport is transports[0]:
                        beside.append((bare, run))
                    transport.search.once(partial(put, transport))
                    limit = transport.search.limits[-1]
                    print(f"   round {number + 1}, {transport.name}: {limit} sessions", flush=True)
    return {
        "floor": floor,
        **{transport.name: _summary(transport) for transport in transports},
        "bare": {**_beside(beside, common), "unquiet": unquiet},
    }


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


def _run(load: Load, folder: Path, is_quick: bool, transport: _Transport, sessions: int) -> Result:
    try:
        with upstream_of(folder, is_tls=transport.name == "tls") as (make_command, environment, extra):
            run = one_run(
                load,
                sessions,
                is_quick=is_quick,
                make_command=make_command,
                environment=environment,
                extra=extra,
            )
    except RuntimeError as error:
        print(f"   {transport.name}: {sessions} sessions: {error}", flush=True)
        transport.why_not = str(error)
        return {"sessions": sessions, "faults": [str(error)[-200:]]}
    transport.runs.append(run)
    print(f"   {transport.name}: {line(run)}", flush=True)
    return run


def _bare(load: Load, sessions: int, folder: Path, is_quick: bool) -> Result:
    with upstream_of(folder, is_tls=False) as (_, environment, extra):
        url = f"ws://127.0.0.1:{extra['upstream']}/v1"

        def command(load: Load, *, port: int, data: Path) -> list[str]:
            return [sys.executable, "-m", "bench.bare_relay", "--port", str(port), "--upstream", url]

        run = one_run(
            load, sessions, is_quick=is_quick, make_command=command, environment=environment, extra=extra
        )
    print(f"   bare relay: {line(run)}", flush=True)
    return run


def _when_quiet(bare: Callable[[], Result], patience: int) -> tuple[Result, int]:
    """The first run of a bare relay that is not late, or the last of ``patience`` more; how many were late before."""
    for waits in range(patience):
        run = bare()
        if _worst(run) < QUIET_P99_MS:
            return run, waits
        time.sleep(QUIET_WAIT_S)
    return bare(), patience


def _summary(transport: _Transport) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    for sessions in sorted({run["sessions"] for run in transport.runs}):
        runs = sorted((run for run in transport.runs if run["sessions"] == sessions), key=_worst)
        steps[str(sessions)] = {"middle": runs[(len(runs) - 1) // 2], "runs": runs}
    limits = transport.search.limits
    return {"sessions": int(statistics.median(limits)) if limits else 0, "limits": limits, "steps": steps}


def _beside(pairs: list[tuple[Result, Result]], sessions: int) -> dict[str, Any]:
    """How many times the CPU of a relay that does nothing ours takes, in the middle of the rounds."""
    cores = [(bare["gateway"]["core"], ours["gateway"]["core"]) for bare, ours in pairs if "gateway" in ours]
    times = [ours / bare for bare, ours in cores if bare]
    return {
        "sessions": sessions,
        "cores": cores,
        "times": round(statistics.median(times), 2) if times else None,
        "runs": [bare for bare, _ in pairs],
    }


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
