"""The ``openline`` command. One file per subcommand; each adds its parser and names its ``run``.

Exit codes: 0 good, 1 a check failed, 2 wrong command line, 3 an error of Openline's (its text says what to
do), 70 a failed disk.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, Protocol

from openline.errors import ConfigError, OpenlineError
from openline.version import VERSION


class Command(Protocol):
    """A module of this package. ``add_parser`` sets ``run`` (options to exit code) as the parser's default."""

    def add_parser(self, commands: argparse._SubParsersAction[argparse.ArgumentParser], /) -> None: ...


COMMANDS = {
    "demo": "a whole call, live: barge-in, a cut line, a killed gateway",
    "serve": "run the gateway: WebSocket, HTTP API and console on one port",
    "talk": "talk with an agent from the terminal",
    "sessions": "list sessions, show one, or delete one",
    "tail": "show facts as they happen",
    "trace": "the whole chain of a turn, a response or a tool call",
    "replay": "run a session's log again and compare",
    "doctor": "check settings, data directory, disk, speech and port",
}
"""What the overview says of each, so that it need not load them all: half a second."""


def command(name: str) -> Command:
    """Imported only now: a gateway that restarts must not wait for what the other commands need."""
    match name:
        case "demo":
            from openline.cli import demo

            return demo
        case "serve":
            from openline.cli import serve

            return serve
        case "talk":
            from openline.cli import talk

            return talk
        case "sessions":
            from openline.cli import sessions

            return sessions
        case "tail":
            from openline.cli import tail

            return tail
        case "trace":
            from openline.cli import trace

            return trace
        case "replay":
            from openline.cli import replay

            return replay
        case "doctor":
            from openline.cli import doctor

            return doctor
    raise KeyError(name)


class Parser(argparse.ArgumentParser):
    """Takes options by their whole names: the beginning of one means another as soon as two begin like it.
    Parsers of subcommands are of the class of their parent."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)


def parser(only: str = "") -> argparse.ArgumentParser:
    """With the options of the command ``only``; without it the overview of all, with no options of any."""
    top: argparse.ArgumentParser = Parser(
        prog="openline",
        description="A live-stream runtime for voice agents: nothing lost, nothing done twice.",
        epilog="'openline COMMAND --help' has the options and an example.",
    )
    top.add_argument("--version", action="version", version=f"openline {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    if only:
        command(only).add_parser(commands)
        return top
    for name, says in COMMANDS.items():
        commands.add_parser(name, help=says)
    return top


def unknown_word(name: str, word: str) -> str:
    """What to say of a word that the command ``name`` does not know, and which option may be meant."""
    commands = argparse.ArgumentParser().add_subparsers()
    command(name).add_parser(commands)
    known = re.findall(r"--[a-z][a-z-]*", commands.choices[name].format_usage())
    meant = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    hint = f" Did you mean '{meant[0]}'?" if meant else ""
    return f"'openline {name}' does not know '{word}'.{hint} See 'openline {name} --help'."


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    only = next((word for word in given if word in COMMANDS), "")
    options, unknown = parser(only).parse_known_args(given)
    try:
        if unknown:
            raise ConfigError(unknown_word(only, unknown[0]))
        code: int = options.run(options)
    except ConfigError as error:
        print(f"openline: {error}", file=sys.stderr)
        return 2
    except OpenlineError as error:
        print(f"openline: {error}", file=sys.stderr)
        return 3
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    return code
