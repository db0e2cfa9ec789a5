"""``openline serve``: the gateway, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from openline.cli.housekeeping import Garbage, give_back
from openline.errors import OpenlineError
from openline.settings import ROWS, Settings, load

if TYPE_CHECKING:
    from openline.agent.agent import Agent
    from openline.bootstrap import Running

EXIT_FATAL = 70
SWITCH_S = 0.0005
"""The log's writer thread asks for the interpreter with every commit; by default the loop waits up to 5 ms to have
it back, which is half of what a call may be delayed."""
CHATTY = ("httpx", "picows.client")
"""Libraries that write a line for each request or socket, with its address; with ``--log-level debug`` they may."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        help="run the gateway: WebSocket, HTTP API and console on one port",
        description="Run the gateway: WebSocket, HTTP API and console on one port.",
    )
    parser.add_argument(
        "agent", nargs="?", help="your agent as module:name; without it the built-in one answers"
    )
    parser.add_argument("--json", action="store_true", help="print the address as one JSON line")
    for row in ROWS:
        parser.add_argument(row.flag, dest=f"set_{row.name}", metavar=row.name.upper(), help=row.says)
    parser.set_defaults(run=run)


def settings_of(options: argparse.Namespace) -> Settings:
    """Environment and flags. Raises ConfigError."""
    given = {row.name: getattr(options, f"set_{row.name}", None) for row in ROWS}
    return load(os.environ, given)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    # Callers wait while a gateway restarts: nothing made during the start is garbage, so nobody looks for any.
    gc.disable()
    # Here, not above: every other command would wait half a second for what it does not use.
    from openline import bootstrap
    from openline.agent.loading import load_agent

    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    if settings.log_level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    try:
        agent = load_agent(options.agent) if options.agent else None
        with asyncio.Runner(loop_factory=bootstrap.loop_factory()) as runner:
            return runner.run(serve(settings, agent, as_json=options.json))
    finally:
        gc.enable()


async def serve(settings: Settings, agent: Agent | None, *, as_json: bool) -> int:
    """Run until SIGTERM or SIGINT; a second signal, or a failed disk, ends at once.

    0 after a clean stop, 70 when the disk failed.
    """
    from openline import bootstrap

    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        if stop.done():
            # Crash-only: the log is safe at any moment, and somebody is in a hurry.
            os._exit(code or 1)
        stop.set_result(code)

    running = await bootstrap.start(settings, agent, on_fatal=lambda error: end(EXIT_FATAL))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, 0)
    _announce(running, settings, model_in_words(settings, agent), as_json)
    sys.setswitchinterval(SWITCH_S)
    gateway = running.gateway
    garbage = Garbage(gateway.connections, lambda: gateway.opened)
    garbage.begin()
    keeping = [loop.create_task(work) for work in (garbage.run(), give_back())]
    code = await stop
    for task in keeping:
        task.cancel()
    if code:
        os._exit(code)  # The disk cannot be trusted: nothing may be written, not even a goodbye.
    try:
        await running.close()
    except OpenlineError as error:
        print(f"openline: {error}", file=sys.stderr)
        return EXIT_FATAL
    return code


def model_in_words(settings: Settings, agent: Agent | None) -> str:
    """What hears, thinks and speaks: whoever set a URL sees that it counts."""
    if settings.model.startswith("openai/"):
        return f"{settings.model} at {settings.upstream_url}"
    if settings.model != "embedded":
        return settings.model
    parts = (
        ("hears", agent.stt if agent else None, settings.stt_model, settings.stt_url),
        ("thinks", agent.llm if agent else None, settings.llm_model, settings.llm_url),
        ("speaks", agent.tts if agent else None, settings.tts_model, settings.tts_url),
    )
    told = [
        f"{does}: {'the agent' if own is not None else f'{model} at {url}'}"
        for does, own, model, url in parts
        if own is not None or url
    ]
    return "; ".join(["embedded pipeline", *told])


def _announce(running: Running, settings: Settings, model: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"url": running.url, "port": running.port, "pid": os.getpid()}), flush=True)
        return
    print(f"listening on {running.url}", flush=True)
    print(f"  console   {running.url}/console")
    print(f"  realtime  {running.url.replace('http', 'ws', 1)}/v1/realtime   (base_url {running.url}/v1)")
    print(f"  data      {settings.data}   recording {settings.record}")
    print(f"  model     {model}")
    for note in running.notes:
        print(f"  note      {note}")
    sys.stdout.flush()
