"""The ``openline`` command. One file per subcommand; each adds its parser and names its ``run``.

Exit codes: 0 good, 1 a check failed, 2 wrong command line, 3 an error of Openline's (its text says what to
do), 70 a failed disk.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from openline.cli import serve
from openline.errors import ConfigError, OpenlineError
from openline.version import VERSION


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="openline",
        description="A live-stream runtime for voice agents: nothing lost, nothing done twice.",
    )
    top.add_argument("--version", action="version", version=f"openline {VERSION}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (serve,):
        module.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
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
