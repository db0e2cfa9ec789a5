"""docs/howto: the example of resume-a-call.md run as its reader runs it, and the flags that pages name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from integration.gateway import GatewayProcess
from openline.settings import BY_NAME

HOWTO = Path(__file__).parents[2] / "docs" / "howto"


def test_the_example_loses_nothing_when_it_cuts_its_own_line(tmp_path: Path) -> None:
    quiet = ("--recognizer", "scripted", "--synthesizer", "tone")
    with GatewayProcess(tmp_path / "data", quiet) as gateway:
        command = [sys.executable, str(HOWTO / "examples" / "resume.py"), gateway.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=45)
    assert done.returncode == 0, done.stderr
    told = dict(re.findall(r"^(cut after|back after|answer|nothing lost) +(.+)$", done.stdout, re.MULTILINE))
    cut_at = told["cut after"].rpartition(" ")[2]
    assert told["back after"] == cut_at
    is_whole, played_ms = re.fullmatch(r"(\w+), (\d+) ms played", told["nothing lost"]).groups()  # type: ignore[union-attr]  # it fails then
    assert is_whole == "True"
    assert int(played_ms) > int(told["cut after"].split()[0])


@pytest.mark.parametrize("page", ["resume-a-call.md", "openai-sdk-js.md"])
def test_every_flag_on_the_page_exists(page: str) -> None:
    flags = set(re.findall(r"(?:`|openline serve.* )--([a-z-]+)", (HOWTO / page).read_text()))
    assert flags
    assert {flag.replace("-", "_") for flag in flags - {"experimental-websocket"}} <= BY_NAME.keys()
