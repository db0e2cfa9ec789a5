"""What all tests share: a time limit each, Hypothesis's settings, the rewrite flag of the scenarios, and skips that
say why.

A test that hangs is ended with its own stack as the failure. The limit is 20 s; 60 s under integration/,
conformance/ and e2e/; ``@pytest.mark.timeout(seconds)`` sets another.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings

from figures import figure

settings.register_profile("openline", deadline=None)  # Slow examples are no failure; a test has a limit.
settings.load_profile("openline")

LIMIT_S = 20.0
"""Above any honest unit test by two orders; low enough that a hang is noticed (trio's own figure)."""
LIMIT_PROCESSES_S = 60.0
"""For tests that start processes, with a machine as busy as a shared CI runner."""
SLOW_FOLDERS = ("integration", "conformance", "e2e")
REPEAT_S = 5.0
"""The alarm rings again in case the first ring was swallowed by a broad ``except``."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write the scenarios' expected output anew; read the diff"
    )


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """True when expected output is to be written instead of compared."""
    return bool(request.config.getoption("--rewrite"))


def limit_of(item: pytest.Item) -> float:
    """Seconds. ``OPENLINE_FIGURE_PATIENCE`` multiplies it, for a machine that does other things too."""
    patience = figure("patience", 1)
    if any(marker.name.startswith("figure_") for marker in item.iter_markers()):
        factor = figure("limit", 1)  # `make prove` runs the same tests with figures many times as large
    else:
        factor = 1
    return patience * factor * small_limit_of(item)


def small_limit_of(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    if marker is not None:
        return float(marker.args[0] if marker.args else marker.kwargs["seconds"])
    return LIMIT_PROCESSES_S if any(name in item.path.parts for name in SLOW_FOLDERS) else LIMIT_S


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return (yield)
    limit = limit_of(item)

    def ring(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"{item.nodeid}: expected an end within {limit:g} s; what it was doing is above")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit, REPEAT_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not tested here, and why: a skip that nobody reads is a hole."""
    reasons: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons.setdefault(text.removeprefix("Skipped: "), []).append(report.nodeid)
    if reasons:
        terminalreporter.section("not tested here")
        for reason, tests in sorted(reasons.items()):
            terminalreporter.write_line(f"{len(tests)} x {reason}: {tests[0]}{' …' if tests[1:] else ''}")
