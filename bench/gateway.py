"""The gateway under test as a process of its own, pinned to core 0. The one place that knows its command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.load_file import Load
from bench.proc import allow_many_files, pin, unpin

GATEWAY_CORE = 0
HARNESS_CORE = 1
START_TIMEOUT_S = 30
LISTENING = re.compile(r"listening on https?://[^:]+:(\d+)")


def command(load: Load, *, port: int, data: Path) -> list[str]:
    """How ``openline serve`` is called for a load: model, recording and further arguments come from its file."""
    arguments = str(load.gateway.get("arguments", "")).split()
    if "record" in load.gateway:
        arguments += ["--record", "on" if load.gateway["record"] else "off"]
    model = str(load.gateway.get("model", "embedded"))
    return [
        *(sys.executable, "-m", "openline", "serve", "--host", "127.0.0.1", "--port", str(port)),
        *("--data", str(data), "--model", model, *arguments),
    ]


class Gateway:
    """``with Gateway(load) as gateway``: started and listening; ended, and its data removed, at the end.

    ``port`` 0 until ``start``. ``start`` after ``kill`` uses the same port and data: a restart.
    """

    def __init__(
        self,
        load: Load,
        make_command: Callable[..., list[str]] = command,
        *,
        data: Path | None = None,
        environment: Mapping[str, str] = {},
    ) -> None:
        self._load = load
        self._make_command = make_command
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self._own_data = data is None
        self.data = data or Path(tempfile.mkdtemp(prefix="openline-bench-"))
        self.port = 0
        self.started_s = 0.0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Gateway:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_details: object) -> None:
        self.stop()
        if self._own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None, "expected a started gateway"
        return self._process.pid

    def url(self, query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}{self.path(query)}"

    def path(self, query: str = "") -> str:
        model = str(self._load.gateway.get("model", "embedded")).partition(":")[0]
        return f"/v1/realtime?model={model}" + (f"&{query}" if query else "")

    def start(self) -> None:
        """Start and return once it listens; ``started_s`` is the monotonic time of the spawn."""
        self.launch()
        self.wait_until_listening()

    def launch(self) -> None:
        self.port = self.port or free_port()
        self.started_s = time.monotonic()
        # Standard output carries the one line we wait for; standard error goes to a file that is shown if it fails.
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._make_command(self._load, port=self.port, data=self.data),
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=self._environment,
            preexec_fn=self._in_child,
        )

    def _in_child(self) -> None:
        """Its core, and as many open files as may be had: a relayed session has two sockets."""
        allow_many_files()
        if self._load.gateway.get("pinned", True):
            pin(GATEWAY_CORE)
        else:
            unpin()

    def wait_until_listening(self) -> None:
        """Raises RuntimeError with the end of its standard error if it ends, or says nothing for 30 s."""
        assert self._process is not None and self._process.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            found = LISTENING.search(self._process.stdout.readline())
            if found:
                self.port = int(found.group(1))
                return
        self._errors.seek(0)
        tail = self._errors.read()[-2000:]
        self._process.kill()
        self._process.wait()
        self._close_pipes()
        raise RuntimeError(
            f"expected 'listening on http://…' from the gateway within {START_TIMEOUT_S} s; got:\n{tail}"
        )

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has taken it away."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        assert self._process is not None
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def link_statistics(self) -> dict[str, Any]:
        """What the load model counted (``LoadStatistics``); empty if this gateway has none."""
        path = self.data / "load.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}


def free_port() -> int:
    """A TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
