"""One cell of the table: one scenario of one client against one topology, run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clients import environments
from clients.environments import Environment, Unavailable
from clients.proofs import why_not_cut, why_not_stopped
from clients.registry import ALL, NO_MEANING, Client
from clients.topologies import Gateways, Place, wait_parked

SCENARIO_S = 60.0
"""The contract's limit for a driver (README.md beside this)."""
EXIT_PASSED, EXIT_FAILED, EXIT_CANNOT = 0, 1, 3
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
"""All that a client's process is told of this one's environment: no keys, no proxies, no settings of ours."""


@dataclass(frozen=True)
class Cell:
    """``outcome``: passed, failed, cannot (a limit of the client, shown), not-run (could not be had here), n/a."""

    topology: str
    client: str
    scenario: str
    outcome: str
    why: str = ""
    version: str = ""
    took_s: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wish:
    """What is to be run."""

    topology: str
    client: Client
    scenarios: tuple[str, ...]


class Table:
    """Runs wishes. ``folder``: gateways' data and the drivers' output. ``say`` is told each cell as it ends."""

    def __init__(self, folder: Path, gateways: Gateways, audio: Path, say: Callable[[Cell], None]) -> None:
        self.folder = folder
        self.gateways = gateways
        self.audio = audio
        self.say = say

    def run(self, wishes: list[Wish], jobs: int) -> list[Cell]:
        """Every cell, in the order of the wishes; ``jobs`` processes at once."""
        cells: list[Cell] = []
        with ThreadPoolExecutor(jobs) as pool:
            # Environments are made and gateways started one after the other: both are heavy, and shared.
            planned = [pool.submit(work) for wish in wishes for work in self._works(wish)]
            for future in planned:
                cells.append(cell := future.result())
                self.say(cell)
        return cells

    def _works(self, wish: Wish) -> Iterator[Callable[[], Cell]]:
        try:
            environment = environments.make(wish.client)
            place = self.gateways.place(wish.topology, wish.client)
            driver = environments.driver_of(wish.client, environment)
        except Unavailable as error:
            environment, place, driver, why = None, None, None, str(error)
        for scenario in ALL:
            if scenario not in wish.scenarios:
                continue
            if scenario not in wish.client.scenarios:
                yield _known(Cell(wish.topology, wish.client.name, scenario, "n/a", NO_MEANING[scenario]))
            elif environment is None or place is None or driver is None:
                yield _known(Cell(wish.topology, wish.client.name, scenario, "not-run", why))
            else:
                yield _later(self, wish, scenario, environment, place, driver)

    def drive(self, wish: Wish, scenario: str, environment: Environment, place: Place, driver: Path) -> Cell:
        """Run one driver to its end, at most ``SCENARIO_S``."""
        command = [*environment.command, str(driver), "--url", place.url, "--scenario", scenario]
        command += ["--audio", str(self.audio)]
        if place.ca is not None:
            command += ["--ca", str(place.ca)]
        log = self.folder / f"{wish.topology}-{wish.client.name}-{scenario}.log"
        began, since_ms = time.monotonic(), int(time.time() * 1000)
        with log.open("w") as errors:
            try:
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    timeout=SCENARIO_S,
                    cwd=environment.folder,
                    env=_environment(),
                )
                code, out = done.returncode, done.stdout
            except subprocess.TimeoutExpired:
                code, out = None, ""
        took = round(time.monotonic() - began, 1)
        with log.open("a") as more:
            more.write(out)
        outcome, why, told = judge(scenario, code, out)
        version, seen = str(told.get("version", "")), dict(told.get("seen") or {})
        if outcome == "passed" and version != wish.client.version:
            outcome, why = "failed", f"expected version {wish.client.version}; got {version}"
        if outcome == "passed" and scenario == "clean_close" and "session" in seen:
            if wait_parked(place.data, str(seen["session"])) is None:
                outcome, why = "failed", "the session was not parked after the client had closed"
        if outcome == "passed":
            outcome, why = _judge_interruptions(wish.client, scenario, place, seen, since_ms)
        return Cell(wish.topology, wish.client.name, scenario, outcome, why, version, took, seen)


def judge(scenario: str, code: int | None, out: str) -> tuple[str, str, dict[str, Any]]:
    """Outcome, reason and what the driver told, from its exit code (None: ended by us) and its output."""
    if code is None:
        return "failed", f"no end within {SCENARIO_S:g} s", {}
    lines = out.strip().splitlines()
    try:
        told = json.loads(lines[-1])
        assert told["scenario"] == scenario
    except (ValueError, IndexError, KeyError, TypeError, AssertionError):
        return "failed", f"exit code {code} without a result on the last line of its output", {}
    why = str(told.get("why", ""))
    if code == EXIT_PASSED and told.get("passed") is True:
        return "passed", "", told
    if code == EXIT_CANNOT and why:
        return "cannot", why, told
    return "failed", why or f"exit code {code}, passed {told.get('passed')}", told


def _judge_interruptions(
    client: Client, scenario: str, place: Place, seen: dict[str, Any], since_ms: int
) -> tuple[str, str]:
    """What the gateways and the model did when the client says that it interrupted."""
    stories = dict(seen.get("stories") or {})
    played = seen.get("played_ms")
    if scenario == "barge_in" and not (stories if client.kind == "responses" else played):
        return "failed", "the driver does not tell what it had when it interrupted"
    for name, heard in stories.items():
        if why := why_not_stopped(place.journal, name, heard):
            return "failed", why
    for data in (place.data, place.behind) if played else ():
        is_exact = data is not None and data == (place.behind or place.data)
        if data is not None and (why := why_not_cut(data, since_ms, played, is_exact=is_exact)):
            return "failed", why
    return "passed", ""


def _known(cell: Cell) -> Callable[[], Cell]:
    return lambda: cell


def _later(
    table: Table, wish: Wish, scenario: str, environment: Environment, place: Place, driver: Path
) -> Callable[[], Cell]:
    return lambda: table.drive(wish, scenario, environment, place, driver)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
