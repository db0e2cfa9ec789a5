"""A session whose rules were changed does not replay the stories' logs: replay fails and names the step.

The changed session is made without touching src: a module of the core is compiled from altered source and
its deciders stand in for the real ones; a table loses one cell. Both are put back.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import pytest

from core_story import Story, tell
from openline.core import session
from openline.core.session import Session
from openline.core.tables import TABLES
from openline.errors import ReplayMismatch
from openline.wire.envelope import StoredStep, effect_digest
from scenarios.test_core_stories import STORIES


@cache
def logs() -> tuple[list[StoredStep], ...]:
    """What every story left in its log."""
    found = []
    for path in STORIES:
        story = Story()
        tell(path.read_text(encoding="utf-8"), story)
        found.append(story.call.stored())
    return tuple(found)


@pytest.fixture(autouse=True, scope="module")
def logs_of_the_real_session() -> None:
    """Made before anything is changed, also when one of these tests runs alone."""
    logs()


def named_steps() -> set[str]:
    """The inputs of the steps at which logs do not replay; empty if all do."""
    found = set()
    for log in logs():
        try:
            Session.replay(log, effect_digest)
        except ReplayMismatch as mismatch:
            named = re.match(r"step at seq (\d+) \((\w+)\)", str(mismatch))
            assert named is not None and int(named[1]) == mismatch.seq, "the step is named"
            found.add(named[2])
    return found


@contextmanager
def deciders_of(changed: ModuleType) -> Iterator[None]:
    """The deciders of ``changed`` in the place of those of the real module of its name."""
    real = dict(session._DECIDE)
    try:
        for kind, decide in real.items():
            if decide.__module__ == changed.__name__:
                session._DECIDE[kind] = getattr(changed, decide.__name__)
        yield
    finally:
        session._DECIDE.update(real)


def altered(name: str, before: str, after: str) -> ModuleType:
    """Module ``name`` of the core, compiled from a source in which ``before`` is ``after``."""
    real = importlib.import_module(f"openline.core.{name}")
    source = inspect.getsource(real)
    assert source.count(before) == 1, f"expected '{before}' once in {name}.py"
    return compiled(real, source.replace(before, after))


def compiled(real: ModuleType, source: str) -> ModuleType:
    changed = ModuleType(real.__name__)
    exec(compile(source, f"{real.__name__} (changed)", "exec"), changed.__dict__)
    return changed


def test_the_stories_replay_as_they_are() -> None:
    assert not named_steps()
    real = importlib.import_module("openline.core.turns")
    with deciders_of(compiled(real, inspect.getsource(real))):
        assert not named_steps(), "a copy of a module changes nothing"


@pytest.mark.parametrize(
    ("module", "before", "after", "step"),
    [
        ("turns", "    if detection.interrupt_response:\n", "    if True:\n", "SpeechStarted"),
        ("turns", "    elif replies:\n", "    elif not replies:\n", "TurnFinal"),
        ("turns", "    if turn.unheard is not None and", "    if", "TurnFinal"),
        ("responses", "    elif len(state.held) < HELD_MAX:\n", "    elif False:\n", "ToolSettled"),
        ("responses", "request.origin == \"tool\" and state.turn is not None", "False", "ToolSettled"),
        ("lifecycle", "if quiet_ms >= state.limits.resume_window_ms:", "if False:", "TimePassed"),
        ("items", "end_ms = asked if is_open else min(asked, entry.audio_ms)", "end_ms = asked", "TruncateItem"),
        ("items", "if input_.previous == \"root\":", "if False:", "CreateItem"),
        ("lifecycle", "    if input_.role == \"speaker\" and old is not None:\n", "    if False:\n", "Attach"),
        ("lifecycle", "input_.clean and not connection.resumable", "input_.clean", "Detach"),
        ("lifecycle", "input_.permanent or attempt >= LINK_ATTEMPTS_MAX", "input_.permanent", "LinkLost"),
        ("lifecycle", "call.recovery == \"retry\"", "True", "TakeOwnership"),
    ],
)  # fmt: skip
def test_a_changed_guard_is_noticed_and_the_step_is_named(
    module: str, before: str, after: str, step: str
) -> None:
    with deciders_of(altered(module, before, after)):
        assert step in named_steps()
    assert not named_steps()


CELLS = [(machine, cell) for machine, table in TABLES.items() for cell in table]


@pytest.mark.parametrize(
    ("machine", "cell"), CELLS, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_a_table_cell_that_is_missing_is_noticed(machine: str, cell: tuple[str, str]) -> None:
    after = TABLES[machine].pop(cell)
    try:
        assert named_steps()
    finally:
        TABLES[machine][cell] = after
