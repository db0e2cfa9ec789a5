"""How late the gateway's loop is while people talk with the embedded engines: its own probe, read at the end.

``calls`` callers speak recorded phrases in real time, one after the other's answer, at the same moment; ears,
recognizer, rules, voice and playout of all of them run in one gateway, the engines in its worker processes.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from typing import Any

from bench.caller import Caller, is_type, read_wav
from bench.gateway import Gateway
from bench.latency import AUDIO, FIRST_AUDIO
from bench.load_file import Load
from bench.proc import sample, usage

DONE = is_type("response.done")
PHRASES = ("hello.wav", "time.wav", "about.wav", "timer.wav", "fact-tiger-seven.wav", "ask.wav")
LAG = re.compile(r'^openline_loop_lag_ms\{quantile="([0-9.]+)"\} ([0-9.e+-]+)$', re.MULTILINE)
WARM_UP_S = 8.0
"""Engines load and every session opens its parts: not what this measures."""
MEASURED_S = 58.0
"""A little less than the minute that the probe remembers."""


async def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    calls = int(load.number("calls", 4))
    seconds = 10.0 if is_quick else MEASURED_S
    phrases = [read_wav(AUDIO / name) for name in PHRASES]
    turns = [0] * calls
    with Gateway(load) as gateway:

        async def call(number: int) -> None:
            async with Caller(gateway.url("openline=1")) as caller:
                place = number
                while True:
                    asked = time.monotonic()
                    await caller.say(phrases[place % len(phrases)])
                    place += 1
                    try:
                        _event, first = await caller.until(FIRST_AUDIO, since_s=asked, timeout_s=8)
                        await caller.until(DONE, since_s=first)
                    except TimeoutError:
                        continue
                    turns[number] += 1

        running = [asyncio.create_task(call(number)) for number in range(calls)]
        await asyncio.sleep(WARM_UP_S)
        before, turned = sample(gateway.pid), sum(turns)
        await asyncio.sleep(seconds)
        used = usage(before, sample(gateway.pid))
        lag = await asyncio.to_thread(_lag, gateway.port)
        for task in running:
            task.cancel()
        ended = await asyncio.gather(*running, return_exceptions=True)
    broken = [repr(result) for result in ended if not isinstance(result, asyncio.CancelledError)]
    if broken:
        raise RuntimeError(f"expected {calls} calls to the end; {len(broken)} broke: {broken[0]}")
    # On a machine that is busy with other things, lag is the wait for a core, not the gateway's doing.
    other = round(used["machine_core"] - used["core"] - used["children_core"], 3)
    print(f"   {sum(turns) - turned} turns, gateway {used['core']:.2f} core, other {other:.2f} core")
    return {
        "calls": calls,
        "seconds": seconds,
        "turns": sum(turns) - turned,
        "lag_ms": lag,
        "gateway": used,
        "other_core": other,
    }


def _lag(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = dict(LAG.findall(answer.read().decode()))
    return {"p50": float(found["0.5"]), "p99": float(found["0.99"]), "max": float(found["1.0"])}
