"""Gateways for stories: a real process that can be killed, or one in this process for speed. And their logs.

``GatewayProcess`` is what a person starts: ``python -m openline serve``. It is ended by its own pid.
``running`` is the same gateway on the test's own event loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openline
from openline import bootstrap
from openline.agent.agent import Agent
from openline.bootstrap import EnvelopeCodec, Running
from openline.core.facts import Fact
from openline.core.session import Session
from openline.settings import Settings
from openline.testing.speech import EnergyDetector, ScriptedRecognizer, ToneSynthesizer
from openline.types import Seq, SessionId
from openline.wire.envelope import StoredStep, effect_digest

PACKAGE = str(Path(openline.__file__).resolve().parents[1])
"""The process runs the package that this process tests, wherever it is started."""
START_S = 30.0
"""Above any start on a busy machine; a gateway that is not up by then hangs."""


@dataclass
class GatewayProcess:
    """``openline serve`` on a free port. ``start`` again after ``kill`` goes on with the same data.

    ``arguments``: more of the command line. ``folder``: where it runs (for agent modules).
    """

    data: Path
    arguments: tuple[str, ...] = ("--model", "scripted")
    folder: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def command(self) -> list[str]:
        fixed = ["-m", "openline", "serve", "--json", "--port", "0", "--data", str(self.data)]
        return [sys.executable, *fixed, *self.arguments]

    @property
    def whole_environment(self) -> dict[str, str]:
        """Without a gateway's settings that the shell that runs the tests may have."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENLINE_")}
        return {**inherited, "PYTHONPATH": PACKAGE, **self.environment}

    @property
    def errors(self) -> Path:
        return self.data.with_name(self.data.name + ".stderr")

    def start(self) -> GatewayProcess:
        """Return once it listens. AssertionError with its stderr when it ends instead."""
        assert self.process is None, "it runs already"
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.folder,
                env=self.whole_environment,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the gateway did not start: {self.errors.read_text()[-2000:]}"
        told = json.loads(line)
        self.url, self.port = told["url"], told["port"]
        return self

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more when this returns."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self._end(signal.SIGTERM)

    def terminate(self) -> None:
        """SIGTERM without waiting."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        assert self.process is not None and self.process.stdout is not None
        code = self.process.wait(timeout=START_S)
        self.process.stdout.close()
        self.process = None
        return code

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def __enter__(self) -> GatewayProcess:
        return self.start()

    def __exit__(self, *what: object) -> None:
        if self.process is not None:
            self.kill()


def spoken_agent(*heard: str, **values: Any) -> Agent:
    """An agent with twins for ears and voice: turns by loudness, texts ``heard`` in order, replies are tones."""
    ears = ScriptedRecognizer(heard, default=heard[-1] if heard else "hello")
    return Agent(stt=ears, tts=ToneSynthesizer(), vad=EnergyDetector, **values)


@contextlib.asynccontextmanager
async def running(data: Path, agent: Agent | None = None, **settings: Any) -> AsyncIterator[Running]:
    """A gateway on this loop, on a free port; ``settings`` are fields of ``Settings``. Drained at the end."""
    values = {"data": data, "port": 0, "drain_s": 2.0, **settings}
    if agent is None:
        values.setdefault("model", "scripted")
    gateway = await bootstrap.start(Settings(**values), agent)
    try:
        yield gateway
    finally:
        await gateway.close()


# ---------------------------------------------------------------------------------------------- the log


@dataclass
class Story:
    """One session's log, read from disk: its steps, and its facts as (seq, epoch, fact)."""

    session: SessionId
    steps: list[StoredStep]
    facts: list[tuple[int, int, Fact]]
    ended: Session

    def types(self) -> list[str]:
        return [fact.TYPE for _, _, fact in self.facts]

    def of(self, type_: str) -> list[Fact]:
        return [fact for _, _, fact in self.facts if fact.TYPE == type_]

    @property
    def status(self) -> str:
        return self.ended.state.status


def stories(data: Path) -> dict[str, Story]:
    """Every session in ``data``, also beside a running gateway. Raises if one does not verify.

    Verified: sequences without a gap, epochs that never go back, and a replay that yields the recorded
    facts and effects.
    """
    reader = bootstrap.read_data(data)
    try:
        return {row.session: read_story(reader, row.session) for row in reader.sessions(limit=100_000)}
    finally:
        reader.close()


def read_story(reader: Any, session: SessionId) -> Story:
    """One session's log, verified; raises as ``stories`` does."""
    steps: list[StoredStep] = []
    facts: list[tuple[int, int, Fact]] = []
    after = Seq(0)
    while records := reader.read(session, after=after, limit=500):
        for record in records:
            step = EnvelopeCodec().decode(record.body)
            assert record.first_seq == after + 1, f"{session}: a gap before seq {record.first_seq}"
            assert not facts or record.epoch >= facts[-1][1], f"{session}: epoch went back"
            steps.append(step)
            facts += [(record.first_seq + at, record.epoch, fact) for at, fact in enumerate(step.facts)]
            after = record.last_seq
    replayed, count = Session.replay(steps, effect_digest)
    assert count == len(steps) and replayed.state.seq == after
    return Story(session, steps, facts, replayed)
