"""The gateways that clients are pointed at: real processes, started when the first client asks for one.

For Realtime clients ``embedded`` is ``openline serve`` as it is: local ears, rules and voice. For Responses clients
its language model is ``talker.py``, which is the rules and can also be interrupted, refuse and reason. ``chained`` is
a gateway in front of such a one: for Realtime clients its model is the second gateway's ``/v1/realtime``, for
Responses clients its language model is the second gateway's ``/v1/responses``. Either is served with TLS for clients
that insist.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from clients import sounds, talker
from clients.environments import Unavailable
from clients.registry import HERE, Client
from integration.gateway import GatewayProcess, Story, read_story, stories
from openline import bootstrap
from openline.types import SessionId

PARKED_S = 5.0
"""From a clean close to its fact in the log: one commit, on a machine as busy as a shared CI runner."""
TALKER = (
    "clients.talker:agent",
    "--recognizer",
    "scripted",
    "--synthesizer",
    "tone",
    "--log-level",
    "warning",
)
"""Arguments of a gateway for Responses clients: nobody speaks to it."""


@dataclass(frozen=True)
class Place:
    """Where a client is pointed at. ``ca``: the certificate to trust, for https. ``data``: that gateway's log.
    ``behind``: that of the gateway behind it. ``journal``: what the model behind the last one did (``talker.py``)."""

    url: str
    data: Path
    ca: Path | None = None
    behind: Path | None = None
    journal: Path | None = None


class Gateways:
    """All gateways of one run, by what they are for. A context: what was started is killed at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, GatewayProcess] = {}
        self._counts: dict[str, int] = {}
        self._grammar = folder / "grammar.txt"
        sounds.write_grammar(self._grammar)

    def __enter__(self) -> Gateways:
        return self

    def __exit__(self, *what: object) -> None:
        for gateway in self._running.values():
            if gateway.process is not None:
                gateway.kill()

    def place(self, topology: str, client: Client) -> Place:
        """Start what this client needs and is not there. Raises Unavailable."""
        given = self._arguments(topology, client.kind)
        name = f"{topology}-{client.kind}"
        ca = None
        if client.is_tls:
            ca, key = self._certificate()
            name, given = f"{name}-tls", (*given, "--tls-cert", str(ca), "--tls-key", str(key))
        gateway = self._start(name, given)
        url = f"{'https' if ca else 'http'}://127.0.0.1:{gateway.port}"
        if topology == "embedded":
            return Place(url, gateway.data, ca, None, self._journal(name))
        behind = f"behind-{client.kind}"
        return Place(url, gateway.data, ca, self.folder / behind, self._journal(behind))

    def stop(self) -> dict[str, str]:
        """End them all as a person would; what is wrong with a gateway or with a log of its, by its name."""
        wrong: dict[str, str] = {}
        for name, gateway in self._running.items():
            if open_ := not_parked(gateway.data):
                wrong[name] = f"{open_} sessions are still open, though every client has gone"
        # The front ones first: they are clients of the one behind.
        for name, gateway in reversed(self._running.items()):
            if code := gateway.stop():
                wrong[name] = f"exit code {code}; see {gateway.errors}"
                continue
            try:
                self.counts[name] = len(stories(gateway.data))
            except Exception as error:  # whatever the log does: it is the finding
                wrong[name] = f"its log does not replay: {error!r}"
        return wrong

    @property
    def counts(self) -> dict[str, int]:
        """Sessions whose logs replayed, by gateway; filled by ``stop``."""
        return self._counts

    def _arguments(self, topology: str, kind: str) -> tuple[str, ...]:
        spoken = ("--recognizer-grammar", str(self._grammar), "--log-level", "warning")
        embedded = spoken if kind == "realtime" else TALKER
        if topology == "embedded":
            return embedded
        back = self._start(f"behind-{kind}", embedded)
        url = f"http://127.0.0.1:{back.port}/v1"
        if kind == "realtime":
            return ("--model", "openai/behind", "--upstream-url", url, "--log-level", "warning")
        return (*TALKER[1:], "--llm-url", url, "--llm-model", "behind", "--llm-api", "responses-ws")

    def _start(self, name: str, arguments: tuple[str, ...]) -> GatewayProcess:
        if name not in self._running:
            journal = {talker.JOURNAL: str(self._journal(name))}
            gateway = GatewayProcess(self.folder / name, arguments, HERE.parent, journal)
            self._running[name] = gateway.start()
        return self._running[name]

    def _journal(self, name: str) -> Path:
        return self.folder / f"{name}.journal"

    def _certificate(self) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and localhost that is its own authority, valid for two days."""
        cert, key = self.folder / "cert.pem", self.folder / "key.pem"
        if cert.exists():
            return cert, key
        if shutil.which("openssl") is None:
            raise Unavailable(
                "it takes TLS only, and the openssl command, which makes the certificate, is missing"
            )
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
            + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True,
            capture_output=True,
        )
        return cert, key


def not_parked(data: Path) -> int:
    """Sessions that are neither parked nor ended, ``PARKED_S`` from now at the latest."""
    deadline = time.monotonic() + PARKED_S
    while True:
        reader = bootstrap.read_data(data)
        try:
            count = sum(row.status not in ("parked", "ended") for row in reader.sessions(limit=100_000))
        finally:
            reader.close()
        if not count or time.monotonic() > deadline:
            return count
        time.sleep(0.1)


def wait_parked(data: Path, session: str) -> Story | None:
    """The session's story once it is parked or ended; None if it is not within ``PARKED_S``."""
    reader = bootstrap.read_data(data)
    try:
        deadline = time.monotonic() + PARKED_S
        while time.monotonic() < deadline:
            story = read_story(reader, SessionId(session))
            if story.status in ("parked", "ended"):
                return story
            time.sleep(0.05)
    finally:
        reader.close()
    return None
