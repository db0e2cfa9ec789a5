"""The runner of the stock clients: what it makes of a driver's end, and the pages it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clients import page
from clients.cells import judge
from clients.registry import HERE, REALTIME, load
from source_tree import ROOT


def result(**values: Any) -> str:
    told = {"scenario": "connect", "passed": True, "version": "1", "why": "", "seen": {}, **values}
    return f"something before it\n{json.dumps(told)}\n"


@pytest.mark.parametrize(
    ("code", "out", "outcome", "says"),
    [
        (0, result(), "passed", ""),
        (1, result(passed=False, why="no answer"), "failed", "no answer"),
        (0, result(passed=False), "failed", "passed False"),
        (3, result(passed=False, why="it has no such call"), "cannot", "it has no such call"),
        (3, result(passed=False), "failed", "exit code 3"),
        (0, result(scenario="text_turn"), "failed", "without a result"),
        (0, "", "failed", "without a result"),
        (-9, "not JSON", "failed", "exit code -9"),
        (None, "", "failed", "no end within 60 s"),
    ],
)
def test_how_a_driver_ended(code: int | None, out: str, outcome: str, says: str) -> None:
    got, why, _ = judge("connect", code, out)
    assert got == outcome and says in why


def test_every_client_has_its_driver_and_exact_pins() -> None:
    for client in load():
        assert client.driver_path.exists(), f"{client.name}: {client.driver} is not there"
        if client.language == "python":
            pins = (HERE / "environments" / f"{client.environment}.txt").read_text().splitlines()
            assert f"{client.package}=={client.version}" in pins, f"{client.name}: another version is pinned"
            assert all("==" in line for line in pins if not line.startswith("#"))


def test_a_registry_with_a_wrong_row_says_which(tmp_path: Path) -> None:
    row = '[[client]]\nname = "one"\ntitle = "t"\nlanguage = "python"\nenvironment = "e"\ndriver = "d"\n'
    row += 'package = "p"\nversion = "1"\n'
    wrong = tmp_path / "clients.toml"
    wrong.write_text(row + 'kind = "telepathy"\n')
    with pytest.raises(ValueError, match="one: expected kind realtime or responses; got 'telepathy'"):
        load(wrong)
    wrong.write_text((row + 'kind = "realtime"\n') * 2)
    with pytest.raises(ValueError, match="expected each name once; got one twice"):
        load(wrong)


def cell(client: str, scenario: str, outcome: str, why: str = "") -> dict[str, Any]:
    return {
        "topology": "embedded",
        "client": client,
        "scenario": scenario,
        "outcome": outcome,
        "why": why,
    }


def test_the_table_names_each_cell_and_why_it_is_not_passed() -> None:
    clients = load()[:1]
    name = clients[0].name
    cells = [cell(name, "connect", "passed"), cell(name, "text_turn", "failed", "no answer")]
    shown = page.text(cells, clients)
    assert "ok" in shown and "FAILED" in shown and f"{name}, text_turn: FAILED: no answer" in shown
    body = {
        "at": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "machine": {"system": "Linux", "python": "CPython"},
        "cells": cells,
    }
    assert "| 1 of 2 |" in page.readme(body, clients)
    assert "no answer." in page.markdown(body, clients)
    text = page.replace_in(f"a\n{page.BEGIN}\nold\n{page.END}\nb\n", "new\n")
    assert text == f"a\n{page.BEGIN}\nnew\n{page.END}\nb\n"


def test_the_pages_are_what_the_last_whole_run_says() -> None:
    kept = ROOT / "bench" / "results" / "clients.json"
    if not kept.exists():
        pytest.skip("there is no whole run of make test-clients yet")
    body = json.loads(kept.read_text())
    assert {row["scenario"] for row in body["cells"]} <= set(REALTIME)
    assert (ROOT / "docs" / "reference" / "clients.md").read_text() == page.markdown(body, load())
    readme = (ROOT / "README.md").read_text()
    assert page.replace_in(readme, page.readme(body, load())) == readme
