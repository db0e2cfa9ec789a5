"""Durable before effect: from ``append`` on the loop to the sink's callback on the loop, on a real file.

    python bench/log_append.py                       # 10,000 facts/s from 100 sessions, 10 s
    python bench/log_append.py --rate 20000 --sessions 200 --seconds 20 --json

Each session appends by a timer of its own with a random phase (open loop: a slow store does not slow the
load). The file lies in ``--data``, by default in the working directory: a file system in memory would
flatter. ``cpu`` is the whole process (loop, writer, load) as a share of one core; ``cpu_without_log`` is
the same load appended to nothing, so the difference is what the log costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Protocol

from openline.adapters.log_sqlite import SqliteLog
from openline.ports import StepRecord
from openline.types import Epoch, Seq, SessionId


class Appender(Protocol):
    def append(self, record: StepRecord) -> None: ...


class Nowhere:
    def append(self, record: StepRecord) -> None:
        pass


class Producer:
    """One session: appends at a fixed rate, measures each append until it is durable."""

    def __init__(self, name: SessionId, log: Appender, rate: float, body: bytes, delays: list[float]) -> None:
        self.name, self.log, self.every, self.body, self.delays = name, log, 1 / rate, body, delays
        self.next_seq = 1
        self.waiting: dict[int, float] = {}
        self.done = 0
        self.is_running = False

    def start(self) -> None:
        self.is_running = True
        loop = asyncio.get_running_loop()
        self.due = loop.time() + random.random() * self.every
        loop.call_at(self.due, self.tick)

    def tick(self) -> None:
        if not self.is_running:
            return
        seq = self.next_seq
        self.next_seq = seq + 1
        self.waiting[seq] = time.perf_counter()
        self.log.append(StepRecord(self.name, Epoch(1), Seq(seq), ("openline.bench",), self.body, at_ms=0))
        self.due += self.every
        asyncio.get_running_loop().call_at(self.due, self.tick)

    def appended(self, last_seq: Seq) -> None:
        now = time.perf_counter()
        for seq in range(self.done + 1, last_seq + 1):
            self.delays.append(now - self.waiting.pop(seq))
        self.done = last_seq

    def refused(self, error: Exception) -> None:
        raise SystemExit(f"void: {error}")


async def lag_probe(lags: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        lags.append(time.perf_counter() - began - 0.005)


def percentile(values: list[float], share: float) -> float:
    """In milliseconds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000 if ordered else 0.0


async def load(producers: list[Producer], seconds: float) -> float:
    """Run the load; share of one core that the process used."""
    for producer in producers:
        producer.start()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    for producer in producers:
        producer.is_running = False
    return share


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    body = os.urandom(options.bytes)
    rate = options.rate / options.sessions
    names = [SessionId(f"sess_bench{number:05d}") for number in range(options.sessions)]
    without = await load([Producer(name, Nowhere(), rate, body, []) for name in names], options.seconds / 3)

    settings = {} if options.linger_ms is None else {"linger_s": options.linger_ms / 1000}
    log = SqliteLog(folder, **settings)
    await log.open()
    delays: list[float] = []
    lags: list[float] = []
    producers = [Producer(name, log, rate, body, delays) for name in names]
    for producer in producers:
        await log.acquire(producer.name, "bench", create=True)
        log.subscribe(producer.name, producer)
    await load(producers, 1.0)
    await log.flush()
    delays.clear()
    before = log.statistics().commits, log.statistics().appended_facts
    probe = asyncio.create_task(lag_probe(lags))
    share = await load(producers, options.seconds)
    await log.flush()
    probe.cancel()
    statistics = log.statistics()
    commits, facts = statistics.commits - before[0], statistics.appended_facts - before[1]
    await log.close()
    return {
        "bench": "log_append",
        "facts_per_s": round(facts / options.seconds),
        "sessions": options.sessions,
        "body_bytes": options.bytes,
        "seconds": options.seconds,
        "linger_ms": options.linger_ms,
        "p50_ms": round(percentile(delays, 0.5), 2),
        "p99_ms": round(percentile(delays, 0.99), 2),
        "max_ms": round(max(delays) * 1000, 2),
        "loop_lag_p99_ms": round(percentile(lags, 0.99), 2),
        "cpu": round(share, 3),
        "cpu_without_log": round(without, 3),
        "facts_per_commit": round(facts / commits, 1),
        "commits_per_s": round(commits / options.seconds),
        "queue_items_max": statistics.queue_items_max,
        "load_average": round(os.getloadavg()[0], 2),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=10_000, help="facts a second over all sessions")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--bytes", type=int, default=300, help="size of a step's body")
    parser.add_argument("--linger-ms", type=float, default=None, help="override the store's own setting")
    parser.add_argument("--data", type=Path, default=None, help="folder on the disk to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix=".bench-log-", dir=options.data or Path.cwd()))
    try:
        result = asyncio.run(measure(options, folder))
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:18} {value}")


if __name__ == "__main__":
    main()
