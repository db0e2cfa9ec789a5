"""Durable before effect: real sessions, the real codec and the real store in this process, without sockets.

Every command is one step with one fact: ``handle``, encode, append; its effect may leave when the store
says that it is on disk. Measured from the command to that moment, at a fixed rate spread evenly. The
same with sockets is the ``held`` figure of the relay runs and of ``durable_wire``.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from bench.gateway import GATEWAY_CORE, HARNESS_CORE
from bench.load_file import Load
from bench.proc import pin
from openline.adapters.log_sqlite import SqliteLog
from openline.core import inputs as i
from openline.core.model import Item, Part, SessionConfig
from openline.core.session import Session
from openline.ports import AppendSink, StepRecord
from openline.testing.histogram import Histogram
from openline.types import Epoch, ItemId, Now, Seq, SessionId
from openline.wire.envelope import encode_step, fact_type

TICK_S = 0.001


class Worker(AppendSink):
    """One session that creates and deletes an item in turn, and times each until it is durable."""

    def __init__(self, log: SqliteLog, session: SessionId, epoch: Epoch, delays: Histogram) -> None:
        self.facts = 0
        self.count = 0
        self.refusals = 0
        self._log = log
        self._id = session
        self._epoch = epoch
        self._delays = delays
        self._waiting: deque[tuple[Seq, int]] = deque()
        self._session = Session()
        log.subscribe(session, self)
        self._step(i.OpenSession(session, "default", epoch, "bench", SessionConfig()))

    def command(self) -> None:
        number, is_delete = divmod(self.count, 2)
        self.count += 1
        item_id = ItemId(f"item_{number}")
        if is_delete:
            self._step(i.DeleteItem(item_id))
        else:
            part = Part(
                "input_text", "what the caller said, some eighty characters of it, as callers do say things"
            )
            self._step(i.CreateItem(Item(item_id, "message", "user", role="user", content=(part,))))

    def _step(self, given: i.Input) -> None:
        began = time.monotonic_ns()
        now = Now(began, began // 1_000_000)
        step = self._session.handle(given, now)
        if not step.facts:
            raise RuntimeError(f"expected a fact of {type(given).__name__}; the load no longer fits the core")
        body = encode_step(given, now, step.facts, step.effects)
        types = tuple(fact_type(fact) for fact in step.facts)
        self._log.append(StepRecord(self._id, self._epoch, step.first_seq, types, body, now.wall_ms))
        self._waiting.append((step.last_seq, began))
        self.facts += len(step.facts)

    def appended(self, last_seq: Seq) -> None:
        now = time.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= last_seq:
            self._delays.add_ns(now - self._waiting.popleft()[1])

    def refused(self, error: Exception) -> None:
        self.refusals += 1
        self._waiting.clear()


def measure(load: Load, *, is_quick: bool) -> dict[str, Any]:
    pin(GATEWAY_CORE)
    data = Path(tempfile.mkdtemp(prefix="openline-bench-"))
    try:
        return asyncio.run(_run(load, data, seconds=3 if is_quick else load.number("seconds_s", 20)))
    finally:
        shutil.rmtree(data, ignore_errors=True)
        pin(HARNESS_CORE)


async def _run(load: Load, data: Path, *, seconds: float) -> dict[str, Any]:
    rate = load.number("facts_per_s", 10_000)
    log = SqliteLog(data)
    await log.open()
    delays = Histogram()
    workers = []
    for number in range(int(load.number("sessions", 200))):
        session = SessionId(f"sess_{number:06}")
        epoch, _seq = await log.acquire(session, "bench", create=True)
        workers.append(Worker(log, session, epoch, delays))
    await _pace(workers, rate, 1.0)
    earlier, cpu, began = Histogram(delays.counts), time.process_time(), time.monotonic()
    facts = sum(worker.facts for worker in workers)
    lag = await _pace(workers, rate, seconds)
    wall, used = time.monotonic() - began, time.process_time() - cpu
    made = sum(worker.facts for worker in workers) - facts
    await log.flush()
    window = delays.since(earlier)
    counted = log.statistics()
    await log.close()
    print(
        f"   {made / wall:,.0f} facts/s, core {used / wall:.2f}, loop lag p99 {lag.percentile_ms(99):.2f} ms"
    )
    return {
        "facts_per_s": round(made / wall, 1),
        "core": round(used / wall, 3),
        "durable": {
            "p50_ms": window.percentile_ms(50),
            "p99_ms": window.percentile_ms(99),
            "n": window.total,
        },
        "loop_lag_p99_ms": lag.percentile_ms(99),
        "refusals": sum(worker.refusals for worker in workers),
        "commits": counted.commits,
        "commit_ms_max": round(counted.commit_ms_max, 3),
    }


async def _pace(workers: list[Worker], rate: float, seconds: float) -> Histogram:
    """Commands at ``rate`` a second, round robin, in ticks of 1 ms; the lag of each tick."""
    lag = Histogram()
    began = time.monotonic()
    sent = 0
    while (passed := time.monotonic() - began) < seconds:
        for number in range(sent, int(passed * rate)):
            workers[number % len(workers)].command()
        sent = max(sent, int(passed * rate))
        wanted = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        lag.add_ns(int((time.monotonic() - wanted) * 1e9))
    return lag
