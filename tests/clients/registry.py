"""Which stock clients are tested, and in which scenarios: ``clients.toml``, read and checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALL = (
    "connect",
    "text_turn",
    "audio_turn",
    "barge_in",
    "tool_call",
    "parallel_tool_calls",
    "refusal",
    "reasoning",
    "manual_commit",
    "error_path",
    "clean_close",
)
"""In the order of the table's columns."""
AUDIO_ONLY = ("audio_turn", "manual_commit")
TEXT_ONLY = ("refusal", "reasoning")
SCENARIOS = {
    "realtime": tuple(name for name in ALL if name not in TEXT_ONLY),
    "responses": tuple(name for name in ALL if name not in AUDIO_ONLY),
}
NO_MEANING = {
    **dict.fromkeys(AUDIO_ONLY, "the Responses API carries no audio"),
    **dict.fromkeys(TEXT_ONLY, "the Realtime API has no such part or item"),
}
"""Why a scenario has no meaning for the clients of the other protocol."""
TOPOLOGIES = ("embedded", "chained")


@dataclass(frozen=True)
class Client:
    """One row of the table. ``driver`` is relative to this folder; ``is_tls``: it takes no plain ``http``."""

    name: str
    title: str
    kind: str
    language: str
    environment: str
    driver: str
    package: str
    version: str
    is_tls: bool = False

    @property
    def scenarios(self) -> tuple[str, ...]:
        return SCENARIOS[self.kind]

    @property
    def driver_path(self) -> Path:
        return HERE / self.driver


def load(path: Path = HERE / "clients.toml") -> tuple[Client, ...]:
    """Every client. Raises ValueError that names the row with a wrong field."""
    clients = tuple(_client(row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["client"])
    names = [client.name for client in clients]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{path.name}: expected each name once; got {', '.join(sorted(twice))} twice")
    return clients


def _client(row: dict[str, object]) -> Client:
    fields = {("is_tls" if name == "tls" else name): value for name, value in row.items()}
    try:
        client = Client(**fields)  # type: ignore[arg-type]  # checked below
    except TypeError as error:
        raise ValueError(f"client {row.get('name')}: {error}") from None
    if client.kind not in SCENARIOS:
        raise ValueError(f"{client.name}: expected kind {' or '.join(SCENARIOS)}; got {client.kind!r}")
    if client.language not in ("python", "node"):
        raise ValueError(f"{client.name}: expected language python or node; got {client.language!r}")
    return client
