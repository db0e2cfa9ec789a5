"""``openline demo``: a whole call, live, with everything going wrong that can."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from openline.cli.terminal import Terminal

PORT = 8765


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="a whole call, live: barge-in, a cut line, a killed gateway",
        description="Start a gateway and place a real call with recorded speech: the caller barges in, a tool "
        "runs, the line is cut, the gateway is killed with SIGKILL, and the agent still knows what it was "
        "told. Takes about a minute, then keeps serving the console until Ctrl-C.",
        epilog="example: openline demo --once",
    )
    parser.add_argument(
        "--once", action="store_true", help="exit after the call: 0 if all of it held, else 1"
    )
    parser.add_argument("--port", type=int, help=f"port (default: {PORT}, or a free one if it is taken)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="data directory (default: a new temporary one)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from openline.demo.run import free_port
    from openline.demo.run import run as run_demo

    data = options.data or Path(tempfile.mkdtemp(prefix="openline-demo-"))
    data.mkdir(parents=True, exist_ok=True)
    port = options.port if options.port is not None else free_port(PORT)
    try:
        return asyncio.run(run_demo(data, port, once=options.once, term=Terminal.of()))
    except asyncio.CancelledError:
        return 130  # SIGTERM or a closed terminal; Ctrl-C comes as KeyboardInterrupt
