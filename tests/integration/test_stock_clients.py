"""The quick slice of ``make test-clients``: the drivers of openai-python, which the tests have installed anyway.

Text only, against one gateway. All clients, scenarios and topologies: ``make test-clients``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import sounds
from clients.cells import SCENARIO_S, judge
from clients.registry import Client, load
from integration.gateway import GatewayProcess, stories

pytest.importorskip("openai")
SLICE = ("tool_call", "error_path")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("clients")
    sounds.write(folder / "audio")
    arguments = ("--recognizer", "scripted", "--synthesizer", "tone", "--log-level", "warning")
    with GatewayProcess(folder / "data", arguments) as running:
        yield running
        assert running.stop() == 0
    assert stories(folder / "data"), "every session of this file verifies"


@pytest.mark.parametrize("scenario", SLICE)
@pytest.mark.parametrize(
    "client", [client for client in load() if client.environment == "openai-python"], ids=lambda c: c.name
)
def test_a_stock_client(gateway: GatewayProcess, client: Client, scenario: str) -> None:
    audio = gateway.data.parent / "audio"
    command = [sys.executable, str(client.driver_path), "--url", gateway.url, "--scenario", scenario]
    done = subprocess.run(
        [*command, "--audio", str(audio)], capture_output=True, text=True, timeout=SCENARIO_S, cwd=Path(audio)
    )
    outcome, why, _ = judge(scenario, done.returncode, done.stdout)
    assert outcome == "passed", f"{why}\n{done.stderr[-2000:]}"
