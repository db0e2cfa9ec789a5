"""25 tool calls in a row over a slow line: a Responses socket through Openline, and HTTP straight to the model.

Every candidate is the stock ``openai`` client and is given the same conversation. The line (``bench.slow_line``) lies
in front of the model double; Openline is beside the client, so each turn crosses the line once, whoever
carries it. Model time is what the double slept; all the rest is transport: the line, both ends' work, and
for Openline its own.

``openline``          client -> Openline -> double, both sockets, ``store: false``
``openline_stored``   the same with every turn durable in the log
``openline_inside``   Openline runs the tool itself (a Realtime text session): the client asks once
``socket``            client -> double, without Openline: what its presence costs
``http1``, ``http2``  client -> double, connections kept alive and warmed; the whole context each turn
``http1_bare``        the same with httpx and json alone: what of it is the stock client's own work on the history

One conversation at a time: the clients share a process, and one would wait for the other's work.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import httpx
from openai import AsyncOpenAI
from openai.types.responses import Response

from bench.gateway import Gateway
from bench.load_file import Load
from bench.proc import unpin

Json = dict[str, Any]
TOOL: Json = {
    "type": "function",
    "name": "read_file",
    "description": "Read lines of a file.",
    "parameters": {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "first_line": {"type": "integer"},
            "last_line": {"type": "integer"},
        },
        "required": ["path", "first_line", "last_line"],
    },
    "strict": False,
}
CANDIDATES = ("openline", "openline_stored", "openline_inside", "socket", "http1", "http2", "http1_bare")
TURN_S = 60.0


@dataclass(frozen=True)
class Setting:
    """One row of the sweep. Milliseconds, µs a token, bytes."""

    rtt_ms: float
    a_ms: float
    b_us: float
    calls: int
    result_bytes: int
    instructions_bytes: int
    slow_start: bool = True
    http_cached: bool = True

    def control(self) -> Json:
        return {
            "rtt_s": self.rtt_ms / 1e3,
            "slow_start": self.slow_start,
            "a_s": self.a_ms / 1e3,
            "b_s": self.b_us / 1e6,
            "calls": self.calls,
            "http_cached": self.http_cached,
        }

    def named(self) -> Json:
        return {
            "rtt_ms": self.rtt_ms, "a_ms": self.a_ms, "b_us": self.b_us, "result_bytes": self.result_bytes,
            "slow_start": self.slow_start, "http_cached": self.http_cached,
        }  # fmt: skip


class Double:
    """The model double as a process of its own, with its lines."""

    def __enter__(self) -> Double:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.model_double"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.ports: dict[str, int] = json.loads(self._process.stdout.readline())
        return self

    def __exit__(self, *_details: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def set(self, setting: Setting) -> None:
        self._ask("/control", json.dumps(setting.control()).encode())

    def stats(self) -> Json:
        return self._ask("/stats", b"{}")

    def _ask(self, path: str, body: bytes) -> Json:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.ports['direct']}{path}", body, timeout=10
        ) as answer:
            return dict(json.load(answer))


# --------------------------------------------------------------------------------------------- the clients


class Talk:
    """One conversation of one candidate. ``ask`` sends what is new and gives back the finished response."""

    def __init__(self, setting: Setting, base_url: str, client: httpx.AsyncClient | None = None) -> None:
        self.setting = setting
        self.client = AsyncOpenAI(base_url=base_url, api_key="k", max_retries=0, http_client=client)
        self.asked: Json = {
            "model": "double",
            "instructions": "i" * setting.instructions_bytes,
            "tools": [TOOL],
        }

    async def __aenter__(self) -> Talk:
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self.client.close()

    async def ask(self, new: list[Json], *, warms: bool = False) -> Any:
        raise NotImplementedError

    async def run(self, after_turn: Callable[[], None] = lambda: None) -> None:
        """The whole conversation; tools answer at once. Raises RuntimeError when it took another course."""
        output = "x" * self.setting.result_bytes
        new: list[Json] = [{"role": "user", "content": "What do the files say?"}]
        for number in range(self.setting.calls + 1):
            async with asyncio.timeout(TURN_S):
                response = await self.ask(new)
            after_turn()
            calls = [item for item in response.output if item.type == "function_call"]
            if len(calls) != (number < self.setting.calls):
                raise RuntimeError(f"turn {number}: expected another tool call, or the answer at the end")
            new = [
                {"type": "function_call_output", "call_id": call.call_id, "output": output} for call in calls
            ]


class HttpTalk(Talk):
    """The whole context in each request, as clients without a chain do."""

    def __init__(self, setting: Setting, base_url: str, *, http2: bool) -> None:
        # Without TLS there is no ALPN: HTTP/2 by prior knowledge.
        super().__init__(setting, base_url, httpx.AsyncClient(http1=not http2, http2=http2, trust_env=False))
        self._context: list[Any] = []

    async def ask(self, new: list[Json], *, warms: bool = False) -> Any:
        self._context += new
        response = await self._post(self._context)
        if warms:
            self._context.clear()
        else:
            self._context += [item.to_dict(mode="json") for item in response.output]
        return response

    async def _post(self, context: list[Any]) -> Any:
        stream = await self.client.responses.create(
            input=list(context), store=False, stream=True, **self.asked
        )
        found = None
        async for event in stream:
            if event.type == "response.completed":
                found = event.response
        if found is None:
            raise RuntimeError("expected response.completed; the stream ended without it")
        return found


class BareTalk(HttpTalk):
    """Without the stock client: encode, post, look for the last event."""

    def __init__(self, setting: Setting, base_url: str) -> None:
        super().__init__(setting, base_url, http2=False)
        self._url = f"{base_url}/responses"
        self._bare = httpx.AsyncClient(trust_env=False)

    async def __aexit__(self, *_details: object) -> None:
        await self._bare.aclose()
        await super().__aexit__()

    async def _post(self, context: list[Any]) -> Any:
        body = {"input": context, "store": False, "stream": True, **self.asked}
        last = ""
        async with self._bare.stream("POST", self._url, json=body) as answer:
            async for line in answer.aiter_lines():
                last = line if line.startswith("data:") else last
        return Response.model_validate(json.loads(last.removeprefix("data:"))["response"])


class SocketTalk(Talk):
    """Responses WebSocket mode: what is new, and the id of what came before."""

    def __init__(self, setting: Setting, base_url: str, *, store: bool = False) -> None:
        super().__init__(setting, base_url)
        self._store = store
        self._previous: str | None = None

    async def __aenter__(self) -> Talk:
        self._manager = self.client.responses.connect()
        self._line = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._manager.__aexit__(None, None, None)
        await super().__aexit__()

    async def ask(self, new: list[Json], *, warms: bool = False) -> Any:
        more: Json = {"previous_response_id": self._previous} if self._previous else {}
        await self._line.response.create(input=new, store=self._store, **self.asked, **more)
        async for event in self._line:
            if event.type == "response.completed":
                self._previous = None if warms else event.response.id
                return event.response
            if event.type in ("error", "response.failed", "response.incomplete"):
                raise RuntimeError(f"expected response.completed; got {event.to_json()}")
        raise RuntimeError("the socket was closed")


class InsideTalk(Talk):
    """A text conversation over Realtime with an agent whose tools the gateway runs."""

    async def __aenter__(self) -> Talk:
        self._manager = self.client.realtime.connect(model="embedded")
        self._line = await self._manager.__aenter__()
        # The replies to tool results are the session's own: they follow it, not the response that was asked for.
        await self._line.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._manager.__aexit__(None, None, None)
        await super().__aexit__()

    async def ask(self, new: list[Json], *, warms: bool = False) -> Any:
        said = "Warm up." if warms else "What do the files say?"
        item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}
        await self._line.conversation.item.create(item=item)
        await self._line.response.create(response={"tool_choice": "none"} if warms else {})
        async for event in self._line:
            if event.type == "response.done":
                kinds = [item.type for item in event.response.output or []]
                if event.response.status != "completed":
                    raise RuntimeError(f"expected a completed response; got {event.response.to_json()}")
                if "message" in kinds:
                    return event.response
        raise RuntimeError("the socket was closed")

    async def run(self, after_turn: Callable[[], None] = lambda: None) -> None:
        async with asyncio.timeout(TURN_S * self.setting.calls):
            await self.ask([])
        after_turn()


# ------------------------------------------------------------------------------------------ the benchmark


class Bench:
    def __init__(self, double: Double, gateway_port: int) -> None:
        self.double = double
        self._gateway = f"http://127.0.0.1:{gateway_port}/v1"
        self._http = f"http://127.0.0.1:{double.ports['http']}/v1"
        self._socket = f"http://127.0.0.1:{double.ports['ws']}/v1"

    def talk(self, name: str, setting: Setting) -> Talk:
        match name:
            case "openline" | "openline_stored":
                return SocketTalk(setting, self._gateway, store=name.endswith("stored"))
            case "openline_inside":
                return InsideTalk(setting, self._gateway)
            case "socket":
                return SocketTalk(setting, self._socket)
            case "http1_bare":
                return BareTalk(setting, self._http)
            case _:
                return HttpTalk(setting, self._http, http2=name == "http2")

    async def timed(self, name: str, setting: Setting, repeats: int) -> Json:
        """One conversation, ``repeats`` times on a new, warmed connection; the mean. Seconds."""
        self.double.set(setting)
        totals: list[float] = []
        thought_s = client_s = turns = 0.0
        for _ in range(repeats):
            async with self.talk(name, setting) as talk:
                await talk.ask([{"role": "user", "content": "Warm up."}], warms=True)
                before, cpu_s, began = self.double.stats(), time.process_time(), time.perf_counter()
                await talk.run()
                totals.append(time.perf_counter() - began)
                client_s += time.process_time() - cpu_s
                after = self.double.stats()
            thought_s += after["thought_s"] - before["thought_s"]
            turns += after["responses"] - before["responses"]
        total_s, model_s, turns = mean(totals), thought_s / repeats, turns / repeats
        return {
            "total_s": round(total_s, 4),
            "model_s": round(model_s, 4),
            "transport_s": round(total_s - model_s, 4),
            "transport_ms_a_turn": round((total_s - model_s) * 1000 / turns, 2),
            "client_cpu_s": round(client_s / repeats, 4),
            "fastest_s": round(min(totals), 4),
            "slowest_s": round(max(totals), 4),
            "turns": turns,
        }

    async def counted(self, name: str, setting: Setting) -> Json:
        """Bytes on the line of each turn of one conversation; nothing is timed."""
        self.double.set(replace(setting, a_ms=0, b_us=0, rtt_ms=0))
        marks: list[tuple[int, int]] = []

        def mark() -> None:
            counts = self.double.stats()["bytes"]["http" if name.startswith("http") else "ws"]
            marks.append((counts[0], counts[1]))

        async with self.talk(name, setting) as talk:
            await talk.ask([{"role": "user", "content": "Warm up."}], warms=True)
            mark()
            await talk.run(mark)
        up = [later[0] - earlier[0] for earlier, later in zip(marks, marks[1:], strict=False)]
        down = [later[1] - earlier[1] for earlier, later in zip(marks, marks[1:], strict=False)]
        return {"up": up, "down": down, "sum_up": sum(up), "sum_down": sum(down), "growth": _growth(up)}


def _growth(up: list[int]) -> float | None:
    """The last turn with a tool result by the first one; None for one turn."""
    return round(up[-1] / up[1], 3) if len(up) > 2 else None


def measure(load: Load, *, is_quick: bool) -> Json:
    base = Setting(
        rtt_ms=10,
        a_ms=load.number("a_ms", 500),
        b_us=load.number("b_us", 50),
        calls=4 if is_quick else int(load.number("calls", 25)),
        result_bytes=int(load.number("result_bytes", 4_096)),
        instructions_bytes=int(load.number("instructions_bytes", 1_000)),
    )
    if is_quick:
        base = replace(base, a_ms=50)
    repeats = 1 if is_quick else int(load.number("repeats", 1))
    rtts = [10.0] if is_quick else [float(text) for text in load.text("rtt_ms", "10,40,100").split(",")]
    os.environ["BENCH_RESULT_BYTES"] = str(base.result_bytes)
    unpin()  # Three processes that mostly wait: they may use every core.
    with Double() as double:
        url = f"http://127.0.0.1:{double.ports['ws']}/v1"
        arguments = (
            f"bench.tool_agent:agent --llm-url {url} --llm-model double --llm-api responses-ws --record off"
        )
        load = replace(load, gateway={"model": "embedded", "arguments": arguments, "pinned": False})
        with Gateway(load) as gateway:
            bench = Bench(double, gateway.port)
            return asyncio.run(_all(bench, base, rtts, repeats, is_quick=is_quick))


async def _all(bench: Bench, base: Setting, rtts: list[float], repeats: int, *, is_quick: bool) -> Json:
    names = [name for name in CANDIDATES if name != "http2" or _has_h2()]
    measured: Json = {
        "line": "a delaying TCP proxy in the double's process, with slow start; no loss, no TLS"
    }
    measured["bytes"] = {name: await bench.counted(name, base) for name in names}
    few = [name for name in names if name in ("openline", "socket", "http1", "http2", "http1_bare")]
    middle = rtts[len(rtts) // 2]
    for rtt in rtts:
        setting = replace(base, rtt_ms=rtt)
        chosen = names if rtt == middle else few
        measured[f"rtt_{rtt:g}"] = await _row(bench.timed, chosen, setting, repeats)
    at_40 = replace(base, rtt_ms=middle)
    sweep = [] if is_quick else [
        replace(at_40, slow_start=False),
        replace(at_40, a_ms=100, b_us=100, http_cached=False),
    ]  # fmt: skip
    measured["sweep"] = [await _row(bench.timed, few, setting, repeats) for setting in sweep]
    return measured


async def _row(
    timed: Callable[[str, Setting, int], Awaitable[Json]],
    names: list[str],
    setting: Setting,
    repeats: int,
) -> Json:
    row: Json = setting.named()
    for name in names:
        row[name] = await timed(name, setting, repeats)
    for other in ("http1", "http2", "http1_bare"):
        if other in row:
            row[f"saved_{other}"] = _saved(row["openline"]["transport_s"], row[other]["transport_s"])
            row[f"whole_saved_{other}"] = _saved(row["openline"]["total_s"], row[other]["total_s"])
    shares = ", ".join(
        f"{name} {row[name]['transport_s']:.2f} of {row[name]['total_s']:.2f} s" for name in names
    )
    print(f"   {setting.named()}: {shares}; saved {row['saved_http1']} % of transport")
    return row


def _saved(ours: float, theirs: float) -> float:
    return round(100 * (1 - ours / theirs), 1)


def _has_h2() -> bool:
    try:
        import h2  # noqa: F401 - httpx wants it for HTTP/2
    except ImportError:
        return False
    return True
