"""The demo's gateway: ``openline serve`` as a process of its own, started, killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from openline.errors import ConfigError

START_TIMEOUT_S = 60.0
"""The first start on a cold disk loads speech models; a restart takes well under a second."""
STOP_TIMEOUT_S = 15.0


class GatewayProcess:
    """``start`` and ``kill`` may alternate. ``stop`` in every case, or the process outlives the demo.

    ``log`` gets what the gateway writes to its standard error.
    """

    def __init__(self, data: Path, options: Sequence[str] = ()) -> None:
        self.data = data
        self.log = data / "gateway.log"
        self.url = ""
        self.pid = 0
        self.port = 0
        self._options = tuple(options)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, port: int) -> None:
        """Returns when it listens. Raises ConfigError with the end of its log when it does not."""
        command = ["-m", "openline", "serve", "--json", "--port", str(port), "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                *self._options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the demo: it ends the gateway itself, in order.
                start_new_session=True,
            )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
            told = msgspec.json.decode(line, type=dict[str, str | int])
        except (TimeoutError, msgspec.DecodeError):
            await self.stop()
            raise ConfigError(f"the gateway did not start: {self._last_words()}") from None
        self.url, self.port, self.pid = str(told["url"]), int(told["port"]), process.pid

    async def kill(self) -> None:
        """SIGKILL, the power switch of a process: nothing is flushed, nobody is told."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def stop(self) -> int:
        """SIGTERM, as a service manager does; SIGKILL when that is not heard. The exit code."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return process.returncode or 0 if process is not None else 0
        process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            return await process.wait()

    async def ended(self) -> None:
        """Return when the process is gone by itself."""
        if self._process is not None:
            await self._process.wait()

    def _last_words(self) -> str:
        text = self.log.read_text("utf-8", "replace").strip()
        return text.splitlines()[-1] if text else f"it wrote nothing to {self.log}"


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
