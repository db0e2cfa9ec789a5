"""Added delay of the gateway in front of a Realtime server, plain and over TLS: the real ``openai_realtime`` link.

The generator plays the callers and the server, on one clock. Beside each step stands the floor: the same callers
and server with nothing between, so what the generator itself is late by can be told apart.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import gateway
from bench.build import build
from bench.carried import line, one_run
from bench.gateway import free_port
from bench.generator import Result, direct
from bench.load_file import Load, Value

HOPELESS_MS = 250.0
"""A p99 above this says that the step was far past the limit: higher ones would only cost time."""


def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    """For each transport: sessions carried, and each step with up, down and floor."""
    transports = load.text("transports", "plain,tls").split(",")
    with tempfile.TemporaryDirectory(prefix="openline-bench-") as folder:
        return {
            "floor": _floors(load, is_quick),
            **{name: _transport(load, name, Path(folder), is_quick) for name in transports},
        }


def _floors(load: Load, is_quick: bool) -> dict[str, Result]:
    floors = {}
    for sessions in load.sessions:
        run = direct(load, sessions=sessions, seconds_s=2 if is_quick else 5)
        floors[str(sessions)] = run
        print(
            f"   {sessions} sessions, nothing between: {_delays(run)}, generator {run['generator_busy']:.2f}"
        )
    return floors


def _transport(load: Load, name: str, folder: Path, is_quick: bool) -> dict[str, Any]:
    repeats = 1 if is_quick else int(load.number("repeats", 2))
    steps: dict[str, Any] = {}
    best = 0
    is_carried = True
    for sessions in load.sessions:
        try:
            with upstream_of(folder, is_tls=name == "tls") as (make_command, environment, extra):
                runs = [
                    one_run(
                        load,
                        sessions,
                        is_quick=is_quick,
                        make_command=make_command,
                        environment=environment,
                        extra=extra,
                    )
                    for _ in range(repeats)
                ]
        except RuntimeError as error:
            print(f"   {name}: {sessions} sessions: {error}")
            break
        for run in runs:
            print(f"   {name}: {line(run)}")
        middle = sorted(runs, key=lambda run: _worst(run))[(repeats - 1) // 2]
        steps[str(sessions)] = {"middle": middle, "runs": runs}
        good = sum(not run["faults"] for run in runs)
        # Half is not enough, and what failed once is not carried at more either.
        is_carried = is_carried and good * 2 > repeats
        if is_carried:
            best = sessions
        elif _worst(middle) > HOPELESS_MS or all(run["void"] for run in runs):
            break
    return {"sessions": best, "at_best": steps.get(str(best), {}).get("middle"), "steps": steps}


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
