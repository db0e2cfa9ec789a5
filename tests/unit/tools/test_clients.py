"""The runner of the stock clients: what it makes of a driver's end, and the pages it writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from clients import page, proofs
from clients.cells import judge
from clients.proofs import Cut
from clients.registry import ALL, HERE, load
from clients.talker import WORDS_UNHEARD, Told
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


def journal(path: Path, *lines: Told) -> Path:
    path.write_text("".join(f"{json.dumps(asdict(line))}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("ended", "says"),
    [
        (Told("s", 12, "stopped"), ""),
        (Told("s", 10 + WORDS_UNHEARD, "stopped"), ""),
        (Told("s", 11 + WORDS_UNHEARD, "stopped"), "had 10 words"),
        (Told("s", 9, "stopped"), "had 10 words"),
        (Told("s", 12, "whole"), "had 10 words"),
    ],
)
def test_a_story_that_was_interrupted_is_looked_up_in_the_model(
    tmp_path: Path, ended: Told, says: str
) -> None:
    kept = journal(tmp_path / "j", Told("other"), Told("s"), ended)
    why = proofs.why_not_stopped(kept, "s", 10)
    assert says in why and bool(why) == bool(says)


def test_a_story_that_goes_on_or_was_asked_for_twice_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "PATIENCE_S", 0.05)
    ended = Told("s", 12, "stopped")
    for lines in ((), (Told("s"),), (Told("s"), ended, Told("s"))):
        assert "went on" in proofs.why_not_stopped(journal(tmp_path / "j", *lines), "s", 10)


@pytest.mark.parametrize(
    ("cut", "near", "exact"),
    [
        (Cut(1_200, 3_600, 18, 59), True, True),
        (Cut(1_501, 3_600, 18, 59), False, False),
        (Cut(899, 3_600, 12, 59), False, False),
        (Cut(1_200, 3_600, 45, 59), True, False),
        (Cut(1_200, 3_600, 0, 59), False, False),
        (Cut(1_200, 3_600, 59, 59), False, False),
    ],
)
def test_which_cut_fits_what_a_client_played(cut: Cut, near: bool, exact: bool) -> None:
    assert cut.fits(1_200, is_exact=False) is near and cut.fits(1_200, is_exact=True) is exact


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
    assert {row["scenario"] for row in body["cells"]} <= set(ALL)
    assert (ROOT / "docs" / "reference" / "clients.md").read_text() == page.markdown(body, load())
    readme = (ROOT / "README.md").read_text()
    assert page.replace_in(readme, page.readme(body, load())) == readme
