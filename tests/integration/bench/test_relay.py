"""The gateway in front of the load's Realtime server, by its real link: turns, tool calls, delays of both ways."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bench.build import build
from bench.gateway import Gateway
from bench.generator import direct, run_load
from bench.load_file import Load, all_loads
from bench.relay import upstream_of
from openline.core.value import replace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: no load generator"),
]


def short_load() -> Load:
    load = next(load for load in all_loads() if load.name == "relay_upstream")
    client = {**load.client, "speech_ms": 200, "reply_ms": 600, "stagger_ms": 200, "ramp_ms": 100}
    return replace(load, client=client, gateway={**load.gateway, "pinned": False})


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_the_real_link_carries_turns_and_tools_and_both_ways_are_timed(tmp_path: Path, is_tls: bool) -> None:
    load = short_load()
    program = build()
    assert program is not None
    if is_tls and b"built without OpenSSL" in program.read_bytes():
        pytest.skip("built without OpenSSL: its headers are not there")
    with (
        upstream_of(tmp_path, is_tls=is_tls) as (command, environment, extra),
        Gateway(load, command, environment=environment) as gateway,
    ):
        run = run_load(load, gateway, sessions=3, warmup_s=2, seconds_s=4, extra=extra)
    assert run["ready"] == 3 and run["errors"] == run["lost"] == run["stalls"] == 0
    assert run["turns"] >= 3 and run["tool_calls"] >= 1
    # A cancel may cross the end of what it cancels; nothing else that the link says is refused.
    assert run["refused"] == 0 or run["first_refused"] == "response_cancel_not_active"
    assert run["up"]["per_s"] > 50 and run["steady"]["n"] < run["audio"]["n"]
    for lane in ("audio", "text", "held", "reply", "up", "committed"):
        assert run[lane]["p50_ms"] > 0, lane


def test_a_bare_relay_carries_the_same_load(tmp_path: Path) -> None:
    load = short_load()
    with upstream_of(tmp_path, is_tls=False) as (_, environment, extra):
        url = f"ws://127.0.0.1:{extra['upstream']}/v1"

        def command(load: Load, *, port: int, data: Path) -> list[str]:
            return [sys.executable, "-m", "bench.bare_relay", "--port", str(port), "--upstream", url]

        with Gateway(load, command, environment=environment) as relay:
            run = run_load(load, relay, sessions=3, warmup_s=1, seconds_s=2, extra=extra)
    assert run["ready"] == 3 and run["errors"] == run["lost"] == run["stalls"] == 0
    assert run["turns"] >= 3 and run["up"]["per_s"] > 50 and run["audio"]["p50_ms"] > 0


def test_the_floor_is_timed_with_nothing_between() -> None:
    run = direct(short_load(), sessions=3, seconds_s=1)
    assert run["errors"] == run["lost"] == 0 and run["up"]["n"] > 100 and run["audio"]["n"] > 20
