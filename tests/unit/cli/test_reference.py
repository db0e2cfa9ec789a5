"""The reference page knows every command and every option that help shows."""

from __future__ import annotations

import argparse

import pytest

from openline.cli.main import COMMANDS, parser
from source_tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "command-line.md").read_text("utf-8")


def subparser(command: str) -> argparse.ArgumentParser:
    actions = [one for one in parser(command)._actions if isinstance(one, argparse._SubParsersAction)]
    found: argparse.ArgumentParser = actions[0].choices[command]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_names_the_command_and_its_options(command: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `openline {command}")]
    if command == "serve":
        return  # its options are the settings, which have a page of their own
    options = {
        name
        for action in subparser(command)._actions
        if action.help is not argparse.SUPPRESS
        for name in action.option_strings
        if name.startswith("--") and name != "--help"
    }
    assert options, "a command without options needs no such test"
    missing = {name for name in options if name not in row}
    assert not missing, f"write {missing} into the row of {command}"
