"""Both fake providers as one thing to start: as a program, in a test without a loop of its own, and by name.

    python -m openline.testing.fake_provider --realtime-port 9000 --responses-port 9001

prints one line of JSON with both base URLs, then takes commands from its standard input, one a line, and answers each
with a line of JSON. ``help`` lists them. In a test of any kind:

    with fake_provider() as fake:
        fake.command("realtime open http:503")
        ...start what is tested with fake.realtime_url and fake.responses_url...

Everything that can be commanded is in docs/reference/fake-provider.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from openline.testing.fake_realtime import FakeRealtime, FakeReply
from openline.testing.fake_realtime_faults import (
    CONNECTION_FAULTS,
    OPEN_FAULTS,
    REPLY_FAULTS,
    SERVER_FAULTS,
)
from openline.testing.fake_responses import FakeProvider
from openline.testing.fake_responses_parts import RESPONSES_FAULTS, Fault, Reply
from openline.testing.fake_responses_steer import STEERS, SteerPlan

COMMANDS = {
    "realtime open WORD…": "what becomes of the next connections, one word each; the last one stays",
    "realtime reply FAULT [TEXT…]": "the next reply of a Realtime session; FAULT ``ok`` is none",
    "realtime set NAME VALUE": "a setting of the server (JSON value)",
    "realtime do NAME [VALUE]": "on the newest connection: close CODE, freeze, expire, error CODE, send TEXT",
    "realtime state": "connections so far, and of the newest its items, errors and close code",
    "responses fault KIND [AFTER] [CODE] [STATUS]": "the next request on /v1/responses or /v1/chat/completions",
    "responses upgrade KIND [AFTER] [CODE] [STATUS]": "the next WebSocket upgrade",
    "responses refuse [TEXT…]": "the next response is a refusal",
    "responses reason [TEXT…]": "the next response has a reasoning item first, with this summary",
    "responses steer KIND [CODE]": "the next `response.steer`; without one it is applied",
    "responses state": "requests, upgrades and steers so far",
    "help": "this list",
}
START_S = 10.0


@dataclass
class FakeProviders:
    """Both servers and their command language. Loop-bound; ``fake_provider`` runs one in a thread."""

    realtime: FakeRealtime = field(default_factory=FakeRealtime)
    responses: FakeProvider = field(default_factory=FakeProvider)

    async def start(self, *, realtime_port: int = 0, responses_port: int = 0) -> FakeProviders:
        await self.realtime.start(port=realtime_port)
        await self.responses.start(responses_port)
        return self

    async def close(self) -> None:
        await self.realtime.close()
        await self.responses.close()

    @property
    def urls(self) -> dict[str, str]:
        return {"realtime": self.realtime.url, "responses": self.responses.url}

    def command(self, line: str) -> dict[str, Any]:
        """Do what ``line`` says. Raises ValueError with what was expected."""
        who, _, rest = line.strip().partition(" ")
        verb, _, rest = rest.partition(" ")
        match who, verb:
            case "help", _:
                return dict(COMMANDS)
            case "realtime", "open":
                return self._open(rest.split())
            case "realtime", "reply":
                return self._reply(*rest.split(" ", 1))
            case "realtime", "set":
                return self._set(*rest.split(" ", 1))
            case "realtime", "do":
                return self._do(*rest.split(" ", 1))
            case "realtime", "state":
                return self._realtime_state()
            case "responses", "fault":
                self.responses.faults.append(fault_of(rest.split()))
                return {"faults": len(self.responses.faults)}
            case "responses", "upgrade":
                self.responses.upgrade_faults.append(fault_of(rest.split()))
                return {"upgrade_faults": len(self.responses.upgrade_faults)}
            case "responses", "refuse":
                self.responses.replies.append(Reply(refusal=rest or "I cannot help with that."))
                return {"replies": len(self.responses.replies)}
            case "responses", "reason":
                self.responses.replies.append(Reply(summary=(rest or "They ask for something.",)))
                return {"replies": len(self.responses.replies)}
            case "responses", "steer":
                kind, _, code = rest.partition(" ")
                known(kind, STEERS)
                self.responses.steers.append(SteerPlan(kind, code))  # type: ignore[arg-type]  # checked above
                return {"steers": len(self.responses.steers)}
            case "responses", "state":
                fake = self.responses
                counts = {"requests": len(fake.requests), "upgrades": fake.upgrades}
                return {**counts, "steers": len(fake.steered)}
            case _:
                raise ValueError(f"expected one of {', '.join(COMMANDS)}; got {line.strip()[:80]!r}")

    def _open(self, words: list[str]) -> dict[str, Any]:
        for word in words:
            known(word.partition(":")[0], OPEN_FAULTS)
        self.realtime.opens = words
        return {"opens": words}

    def _reply(self, fault: str = "ok", text: str = "hello") -> dict[str, Any]:
        reply = FakeReply(text)
        if fault != "ok":
            known(fault.partition(":")[0], REPLY_FAULTS)
            reply = replace(reply, fault=fault)
        self.realtime.plan(reply)
        return {"planned": fault}

    def _set(self, name: str = "", value: str = "null") -> dict[str, Any]:
        fake = self.realtime
        if name.startswith("_") or not hasattr(fake, name) or callable(getattr(fake, name)):
            raise ValueError(f"expected a setting of the server; got {name[:40]!r}")
        setattr(fake, name, set(json.loads(value)) if name in ("keys", "formats") else json.loads(value))
        return {name: json.loads(value)}

    def _do(self, name: str = "", value: str = "") -> dict[str, Any]:
        known(name, CONNECTION_FAULTS)
        if not self.realtime.connections:
            raise ValueError("expected a connection; none was made so far")
        latest = self.realtime.latest
        match name:
            case "close":
                latest.close(int(value))
            case "freeze":
                latest.freeze()
            case "expire":
                latest.expire()
            case "error":
                latest.error(value or None)
            case "pong_delay_s":
                latest.pong_delay_s = float(value)
            case "send_binary":
                latest.send_binary(value.encode())
            case _:
                latest.send(value)
        return {"done": name}

    def _realtime_state(self) -> dict[str, Any]:
        fake = self.realtime
        if not fake.connections:
            return {"connections": 0}
        latest = fake.latest
        return {
            "connections": len(fake.connections),
            "items": latest.items,
            "errors": latest.errors,
            "closed": latest.closed,
        }


def known(name: str, names: dict[str, str]) -> None:
    if name not in names:
        raise ValueError(f"expected one of {', '.join(names)}; got {name[:40]!r}")


def fault_of(words: list[str]) -> Fault:
    """``close 4 1011`` and the like: kind, events before it, code, HTTP status."""
    kind, after, code, status = (words + ["", "", "", ""])[:4]
    known(kind, RESPONSES_FAULTS)
    return Fault(
        kind,  # type: ignore[arg-type]  # it is one of them: checked above
        after=int(after or 0),
        code=int(code) if code.isdigit() else code,
        status=int(status or 500),
    )


# ------------------------------------------------------------------------------------------------- in a test


class RunningProviders:
    """Both servers in a thread of their own. ``command`` and ``call`` wait for it."""

    def __init__(self, providers: FakeProviders, loop: asyncio.AbstractEventLoop) -> None:
        self._providers = providers
        self._loop = loop
        self.realtime_url = providers.urls["realtime"]
        self.responses_url = providers.urls["responses"]

    def command(self, line: str) -> dict[str, Any]:
        told: dict[str, Any] = self.call(lambda providers: providers.command(line))
        return told

    def call(self, do: Callable[[FakeProviders], Any]) -> Any:
        """Run ``do`` in the servers' thread and return what it returns, or raise what it raises."""

        async def run() -> Any:
            return do(self._providers)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(START_S)


@contextlib.contextmanager
def fake_provider() -> Iterator[RunningProviders]:
    """Both providers on free loopback ports, until the block is left. Needs no event loop; works as the body of a
    pytest fixture."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="openline-fake-provider", daemon=True)
    thread.start()
    providers = FakeProviders()

    async def start() -> FakeProviders:
        return await providers.start()

    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result(START_S)
        yield RunningProviders(providers, loop)
        asyncio.run_coroutine_threadsafe(providers.close(), loop).result(START_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()


# ------------------------------------------------------------------------------------------------ what is said of it


def reference() -> str:
    """``docs/reference/fake-provider.md``."""
    lines = [
        "# The fake provider",
        "",
        "Made from `src/openline/testing/fake_provider.py` by `tools/make_fake_provider_doc.py`; do not edit.",
        "",
        "A model provider on loopback that holds a conversation and fails on command: OpenAI's Realtime protocol on one",
        "port; Responses (WebSocket mode and HTTP) and Chat Completions on another. It shares no code with Openline's own",
        "servers. For tests of anything that speaks these protocols.",
        "",
        "In a test with an event loop: `async with FakeRealtime() as fake` (`openline.testing.fake_realtime`) and",
        "`async with FakeProvider() as provider` (`openline.testing.fake_responses`). Without one:",
        "",
        "```python",
        "import pytest",
        "from openline.testing.fake_provider import fake_provider",
        "",
        "",
        "@pytest.fixture",
        "def provider():",
        "    with fake_provider() as fake:",
        "        yield fake",
        "",
        "",
        "def test_my_client_survives(provider):",
        '    provider.command("realtime open http:503 ok")',
        "    talk_to(provider.realtime_url)",
        '    assert provider.command("realtime state")["connections"] == 1',
        "```",
        "",
        "As a program, with one command a line on standard input and one line of JSON for each on standard output:",
        "",
        "```",
        "python -m openline.testing.fake_provider --realtime-port 9000 --responses-port 9001",
        "```",
        "",
    ]
    for title, intro, rows in (
        ("Commands", "", COMMANDS),
        ("Realtime: at connect", "`realtime open WORD…`, `FakeRealtime.opens`.", OPEN_FAULTS),
        ("Realtime: in a reply", "`realtime reply FAULT`, `FakeReply(fault=…)`.", REPLY_FAULTS),
        ("Realtime: on a connection", "`realtime do NAME`, methods of `FakeConnection`.", CONNECTION_FAULTS),
        ("Realtime: for good", "`realtime set NAME VALUE`, attributes of `FakeRealtime`.", SERVER_FAULTS),
        (
            "Responses and Chat Completions",
            "`responses fault KIND`, `responses upgrade KIND`, `FakeProvider.faults` and `upgrade_faults`.",
            RESPONSES_FAULTS,
        ),
        ("Responses: steering", "`responses steer KIND`, `FakeProvider.steers`.", STEERS),
    ):
        lines += [f"## {title}", "", *([intro, ""] if intro else []), "| name | what it does |", "|---|---|"]
        lines += [f"| `{name}` | {what.replace('``', '`')} |" for name, what in rows.items()]
        lines.append("")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ as a program


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m openline.testing.fake_provider",
        description="Fake OpenAI Realtime and Responses providers on loopback; commands come on standard input.",
    )
    parser.add_argument("--realtime-port", type=int, default=0, help="0 (the default): a free one")
    parser.add_argument("--responses-port", type=int, default=0, help="0 (the default): a free one")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve(options.realtime_port, options.responses_port))
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        sys.stderr.write(f"fake provider: {error.strerror or error}\n")
        return 1
    return 0


async def _serve(realtime_port: int, responses_port: int) -> None:
    """Until standard input ends."""
    providers = await FakeProviders().start(realtime_port=realtime_port, responses_port=responses_port)
    say(providers.urls)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if not line.strip():
            continue
        try:
            say(providers.command(line))
        except (ValueError, TypeError) as error:
            say({"error": str(error)})
    await providers.close()


def say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
