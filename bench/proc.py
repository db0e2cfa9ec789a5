"""What Linux says about a process and the machine: CPU seconds, resident memory, other load."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """Of one process (all threads) at one moment. ``children``: CPU and memory of its child processes, apart."""

    at_s: float
    cpu_s: float
    kernel_s: float
    rss_kb: int
    children_cpu_s: float
    children_rss_kb: int
    machine_busy_s: float


def sample(pid: int) -> Sample:
    user, kernel, rss = _process(pid)
    children = [_process(child) for child in _children(pid)]
    return Sample(
        at_s=time.monotonic(),
        cpu_s=user + kernel,
        kernel_s=kernel,
        rss_kb=rss,
        children_cpu_s=sum(child[0] + child[1] for child in children),
        children_rss_kb=sum(child[2] for child in children),
        machine_busy_s=_machine_busy_s(),
    )


def usage(before: Sample, after: Sample) -> dict[str, float]:
    """Cores used between two samples of one process, and its memory at the end."""
    wall = after.at_s - before.at_s
    return {
        "core": round((after.cpu_s - before.cpu_s) / wall, 3),
        "core_kernel": round((after.kernel_s - before.kernel_s) / wall, 3),
        "children_core": round((after.children_cpu_s - before.children_cpu_s) / wall, 3),
        "rss_mb": round(after.rss_kb / 1024, 1),
        "children_rss_mb": round(after.children_rss_kb / 1024, 1),
        "machine_core": round((after.machine_busy_s - before.machine_busy_s) / wall, 3),
    }


def pin(core: int) -> None:
    """Bind the calling process to one core, if the machine has it; may be called again with another."""
    if hasattr(os, "sched_setaffinity") and core < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {core})


def unpin() -> None:
    """Let the calling process run on every core: its parent may be bound to one."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def allow_many_files() -> None:
    """Raise the soft limit on open files to the hard one."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _process(pid: int) -> tuple[float, float, int]:
    # The name in parentheses may hold blanks: count fields from its end.
    parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(parts[21])
    return int(parts[11]) * _TICK_S, int(parts[12]) * _TICK_S, pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []


def _machine_busy_s() -> float:
    numbers = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = numbers[:7]
    return (user + nice + system + irq + softirq) * _TICK_S
