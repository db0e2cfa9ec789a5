"""Runs the C generator against a gateway and joins its result with what the gateway's process used."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.build import build
from bench.gateway import HARNESS_CORE, Gateway, free_port
from bench.load_file import Load, Value
from bench.proc import pin, sample, usage
from openline.testing.histogram import Histogram

Result = dict[str, Any]
"""JSON, as it goes into the results file."""


def run_load(
    load: Load,
    gateway: Gateway,
    *,
    sessions: int,
    warmup_s: float,
    seconds_s: float,
    extra: Mapping[str, Value] = {},
) -> Result:
    """One run. ``extra``: options beside the load's. Raises RuntimeError with the generator's own words if it
    could not run."""
    options: dict[str, Value] = {
        "port": gateway.port,
        "path": gateway.path(),
        "sessions": sessions,
        "warmup": warmup_s,
        "seconds": seconds_s,
        **load.client,
        **extra,
    }
    rss_idle_kb = sample(gateway.pid).rss_kb
    result = _run(options, lambda lines: _follow(lines, gateway))
    used = result["gateway"]
    used["kb_per_session"] = round((used["rss_mb"] * 1024 - rss_idle_kb) / sessions, 1)
    result["other_core"] = round(max(0.0, used["machine_core"] - used["core"] - result["generator_busy"]), 3)
    return result


def direct(load: Load, *, sessions: int, seconds_s: float) -> Result:
    """The generator's callers against its own upstream server: the floor, with nothing between."""
    port = free_port()
    options: dict[str, Value] = {
        "port": port,
        "upstream": port,
        "sessions": sessions,
        "warmup": 2.0,
        "seconds": seconds_s,
        **load.client,
    }

    def last(lines: Iterable[str]) -> Result:
        said: Result = json.loads(list(lines)[-1])
        return {**said, "up": _at_upstream(said)}

    return _run(options, last)


def _run(options: Mapping[str, Value], follow: Callable[[Iterable[str]], Result]) -> Result:
    program = build()
    if program is None:
        raise RuntimeError("expected a C compiler for the load generator; install cc, gcc or clang")
    arguments = [
        text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    with subprocess.Popen(
        [str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: pin(HARNESS_CORE),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        result = follow(process.stdout)
        words = process.stderr.read()
    if process.returncode != 0 or not result:
        raise RuntimeError(f"the load generator failed: {words.strip()}")
    return result


def _follow(lines: Iterable[str], gateway: Gateway) -> Result:
    """Read the generator's events; sample the gateway where its window opens and closes."""
    before, link_before = sample(gateway.pid), gateway.link_statistics()
    for line in lines:
        said: Result = json.loads(line)
        if said.pop("event") == "measuring":
            before, link_before = sample(gateway.pid), gateway.link_statistics()
        elif "window_s" in said:
            said["gateway"] = usage(before, sample(gateway.pid))
            said["up"] = _up_delay(link_before, gateway.link_statistics()) or _at_upstream(said)
            return said
    return {}


def _at_upstream(said: Result) -> Result | None:
    """The same where the generator plays the upstream server: from send() of a caller to its recv() there."""
    newest, each = said["upstream_up"], said["upstream_all"]
    return newest and {"per_s": round(each["n"] / said["window_s"], 1), **newest}


def _up_delay(before: Result, after: Result) -> Result | None:
    """The delay of caller audio from send() to the load model, in the window between two snapshots."""
    if "up" not in before or "up" not in after or after["at_ns"] == before["at_ns"]:
        return None
    counted = Histogram.of_sparse(after["up"]).since(Histogram.of_sparse(before["up"]))
    return {
        "per_s": round(counted.total / ((after["at_ns"] - before["at_ns"]) / 1e9), 1),
        "n": counted.total,
        "p50_ms": counted.percentile_ms(50),
        "p99_ms": counted.percentile_ms(99),
        "p999_ms": counted.percentile_ms(99.9),
    }
