"""Result files: what was measured, on what, from which commit. No host names, no paths."""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.load_file import Load, Target

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("picows", "aiofastnet", "msgspec", "apsw", "uvicorn", "uvloop", "pybase64", "numpy", "websockets")


def machine() -> dict[str, Any]:
    """The facts that a number is worth nothing without."""
    path = Path("/proc/cpuinfo")
    cpu, cores = processor(path.read_text() if path.exists() else "")
    return {
        "cpu": cpu or platform.machine(),
        "cores": cores,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def processor(cpuinfo: str) -> tuple[str, int]:
    """The processor's name and the number of cores, from the text of ``/proc/cpuinfo``; "" and 1 if it says nothing.

    With family, model and cache: a virtual machine's name ("AMD EPYC") may be any of five generations, of which one
    takes a third more for the same work than another.
    """
    fields = [
        (key.strip(), value.strip())
        for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())
    ]
    first = dict(reversed(fields))
    details = [f"{key.removeprefix('cpu ')} {first[key]}" for key in ("cpu family", "model") if key in first]
    details += [f"{first['cache size']} cache"] if "cache size" in first else []
    name = first.get("model name", "")
    if name and details:
        name += f" ({', '.join(details)})"
    return name, max(1, sum(key == "processor" for key, _ in fields))


def commit() -> str:
    """Short hash of the working tree's commit, with ``-changed`` if source files differ from it."""
    here = Path(__file__).parent.parent
    run = ["git", "-C", str(here)]
    found = subprocess.run([*run, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if found.returncode != 0:
        return "unknown"
    changed = subprocess.run(
        [*run, "status", "--porcelain", "--", "src", "bench"], capture_output=True, text=True
    )
    lines = [line for line in changed.stdout.splitlines() if "bench/results/" not in line]
    return found.stdout.strip() + ("-changed" if lines else "")


def write(load: Load, measured: dict[str, Any]) -> Path:
    """``bench/results/NAME-DATE-COMMIT.json``; a later run of the same day and commit replaces it."""
    now, hashed = datetime.now(UTC), commit()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{load.name}-{now:%Y-%m-%d}-{hashed}.json"
    body = {
        "name": load.name,
        "what": load.what,
        "at": now.isoformat(timespec="seconds"),
        "commit": hashed,
        "machine": machine(),
        "load": {"gateway": load.gateway, "client": load.client, "run": load.run},
        "values": {target.label: value_of(measured, target) for target in load.targets},
        **measured,
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
    return path


def value_of(measured: dict[str, Any], target: Target) -> float | None:
    """Follow the target's dotted metric; None where nothing was measured."""
    found: Any = measured
    for name in target.metric.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) else None


def verdict(target: Target, value: float | None) -> str:
    """The best of stretch, goal and must that ``value`` reaches; "missed" below must, "-" when unknown."""
    if value is None:
        return "-"
    for name in ("stretch", "goal", "must"):
        bound: float | None = getattr(target, name)
        if bound is not None and (value >= bound if target.is_floor else value <= bound):
            return name
    return "missed" if target.must is not None else "shown"


def latest() -> dict[str, dict[str, Any]]:
    """The newest result of each benchmark, by name."""
    found: dict[str, dict[str, Any]] = {}
    for path in RESULTS.glob("*.json"):
        body = json.loads(path.read_text())
        if not isinstance(body, dict) or not {"name", "at", "values"} <= set(body):
            continue
        if body["name"] not in found or found[body["name"]]["at"] < body["at"]:
            found[body["name"]] = body
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
