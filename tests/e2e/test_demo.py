"""The demo is the promise: the whole story, as ``make demo`` tells it, with a kill and a cut in it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from integration.gateway import PACKAGE, stories
from openline import bootstrap
from openline.demo.process import GatewayProcess, is_alive
from openline.errors import ConfigError

ENVIRONMENT = {**os.environ, "PYTHONPATH": PACKAGE}
GATEWAY_PID = re.compile(r"process (\d+) listens")


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "openline", "demo", "--port", "0", *arguments]


@pytest.mark.timeout(150)
@pytest.mark.slow
def test_the_whole_story_holds(tmp_path: Path) -> None:
    done = subprocess.run(
        demo("--once", "--data", str(tmp_path)), capture_output=True, text=True, timeout=140, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout
    for part in (
        "CUT: no close frame",
        "KILLED: kill -9",
        "back in the same call",
        "A tool runs",
        "stopped at",
    ):
        assert part in told, told
    assert "✗" not in told and "\x1b" not in told
    if all(bootstrap.speech_wheels().values()):
        assert "as a grammar, says “Your code word is" in told
    assert (tmp_path / "call.wav").stat().st_size > 1_000_000
    (story,) = stories(tmp_path).values()
    assert story.status == "ended"
    assert story.types().count("openline.session.owned") == 2
    pids = [int(pid) for pid in GATEWAY_PID.findall(told)]
    assert len(pids) == 2 and not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_ended_takes_its_gateway_with_it(tmp_path: Path, number: signal.Signals) -> None:
    running = subprocess.Popen(
        demo("--data", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A shell that runs this in the background ignores SIGINT, and children inherit that: a person's does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stdout is not None and running.stderr is not None
    pid = 0
    for line in running.stdout:
        found = GATEWAY_PID.search(line)
        pid = int(found.group(1)) if found else pid
        if "open: session" in line:
            break
    assert pid and is_alive(pid)
    running.send_signal(number)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130 and "Traceback" not in errors, errors
    assert not is_alive(pid)


def test_a_gateway_that_cannot_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    async def story() -> None:
        first = GatewayProcess(tmp_path, ("--model", "scripted"))
        second = GatewayProcess(tmp_path, ("--model", "scripted"))
        await first.start(0)
        try:
            with pytest.raises(ConfigError, match=f"another gateway .pid {first.pid}. holds"):
                await second.start(0)
        finally:
            await first.stop()

    asyncio.run(story())


def test_a_killed_gateway_is_dead_and_starts_again_on_its_port(tmp_path: Path) -> None:
    async def story() -> None:
        gateway = GatewayProcess(tmp_path, ("--model", "scripted"))
        await gateway.start(0)
        port, pid = gateway.port, gateway.pid
        try:
            await gateway.kill()
            assert not is_alive(pid)
            started = time.monotonic()
            await gateway.start(port)
            assert gateway.port == port and gateway.pid != pid and time.monotonic() - started < 20
        finally:
            assert await gateway.stop() == 0

    asyncio.run(story())
