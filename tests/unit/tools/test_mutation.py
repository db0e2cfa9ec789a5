"""The mutation tool: what it changes, what it leaves alone, and that a run tells killed from survived."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from source_tree import ROOT
from tools.mutation import mutants_of

GUARD = '''"""A module."""

LIMIT = 3


def allowed(count: int, is_open: bool) -> bool:
    """True while there is room."""
    if count < LIMIT and is_open:
        return True
    return False


def never_called() -> int:
    return 1
'''
WEAK_TEST = """
from openline.core.guard import allowed


def test_room():
    assert allowed(2, True) is True
    assert allowed(3, True) is False
    assert not allowed(9, True)
"""


def changes(text: str) -> set[str]:
    return {mutant.id.split("::", 2)[2] for mutant in mutants_of("core/a.py", text)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = a < b", {"comparison::a < b -> (a <= b)", "comparison::a < b -> (a >= b)"}),
        ("x = not a", {"not::not a -> a"}),
        ("x = a + b", {"arithmetic::a + b -> (a - b)"}),
        ("x = min(a, b)", {"call::min -> max"}),
        ("x = True", {"constant::True -> False"}),
        ("x = 'on'", {"constant::'on' -> 'on~'"}),
        ("def f():\n    g()", {"step left out::g() -> pass"}),
        ("def f(a):\n    return a", {"return::return a -> return None"}),
        ("def f():\n    raise Error('text')", {"raise::raise Error('text') -> pass"}),
        ("def f(s):\n    s.a = b", {"step left out::s.a = b -> pass"}),
        (
            "x = a and b",
            {
                "and/or::a and b -> (a or b)",
                "condition left out::a and b -> a",
                "condition left out::a and b -> b",
            },
        ),
        ("T = {a: b, c: d}", {"table cell::a: b removed", "table cell::c: d removed"}),
        ("S = {a, b}", {"member::a removed", "member::b removed"}),
        ("if a:\n    pass", {"guard::a -> True", "guard::a -> False"}),
        ("while a:\n    pass", {"guard::a -> False"}),
        ("x = [a for a in b if c]", {"guard::c -> True", "guard::c -> False"}),
        ("match a:\n    case b if c:\n        pass", {"guard::c -> True", "guard::c -> False"}),
    ],
)
def test_each_kind_of_change_is_made(text: str, expected: set[str]) -> None:
    assert changes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"""Docstring."""',
        "import a",
        "x: int",
        "assert a < b",
        "__slots__ = ('a',)",
        "Id = NewType('Id', str)",
        "def f(a: Literal['x']) -> Literal['y']: ...",
        "@dataclass(frozen=True)\nclass A:\n    b: int",
        "x = f'{a} {b}'",
        "if TYPE_CHECKING:\n    import b",
    ],
)
def test_what_no_behaviour_shows_is_left_alone(text: str) -> None:
    assert changes(text) == set()


def test_a_change_hits_its_own_place_only_and_ids_survive_other_edits() -> None:
    text = "é = 'ü'\n\ndef f(a, b):\n    x = 1 if a < b else 2\n    return a < b\n"
    mutants = mutants_of("core/a.py", text)
    second = next(m for m in mutants if m.id.endswith("a < b -> (a <= b) #2"))
    assert second.apply(text.encode()).decode() == text.replace("return a < b", "return (a <= b)")
    moved = mutants_of("core/a.py", '"""New."""\n\n' + text)
    assert [mutant.id for mutant in moved] == [mutant.id for mutant in mutants]
    assert len({mutant.id for mutant in mutants}) == len(mutants)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository in small: one guarded function, one weak test, the real tool."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    core = tmp_path / "src" / "openline" / "core"
    core.mkdir(parents=True)
    (core.parent / "__init__.py").write_text("")
    (core / "__init__.py").write_text("")
    (core / "guard.py").write_text(GUARD)
    (tmp_path / "tests" / "unit" / "core").mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "core" / "test_guard.py").write_text(WEAK_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def run_tool(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "tools/mutants.py", "--report", "report.json", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=50)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutation run needs fork")
@pytest.mark.timeout(55)
def test_a_run_names_the_survivors_and_a_better_test_kills_them(project: Path) -> None:
    weak = run_tool(project)
    survivors = [
        row["id"].split("::", 1)[1] for row in json.loads((project / "report.json").read_text())["survivors"]
    ]
    # `is_open` is never False in the weak test, and nobody calls the other function.
    assert weak.returncode == 1, weak.stdout + weak.stderr
    assert "allowed::condition left out::count < LIMIT and is_open -> (count < LIMIT)" in survivors
    assert "never_called::return::return 1 -> return None" in survivors
    assert "allowed::comparison::count < LIMIT -> (count <= LIMIT)" not in survivors
    assert "src/openline/core/guard.py:8" in weak.stdout

    better = WEAK_TEST + "    assert allowed(2, False) is False\n    assert never_called() == 1\n"
    test_file = project / "tests" / "unit" / "core" / "test_guard.py"
    test_file.write_text(better.replace("import allowed", "import allowed, never_called"))
    strong = run_tool(project)
    # What is left is no change at all: None for False is told apart above, so nothing may be.
    assert strong.returncode == 0, strong.stdout + strong.stderr


FLAKY_TEST = """
from pathlib import Path

from openline.core.guard import allowed

RUNS = Path(__file__).with_name("runs")


def test_room():
    RUNS.write_text(RUNS.read_text() + "." if RUNS.exists() else ".")
    assert allowed(2, True) and len(RUNS.read_text()) < RUNS_MAX
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutation run needs fork")
@pytest.mark.timeout(55)
@pytest.mark.parametrize("runs", [1, 2])
def test_a_run_whose_tests_fail_without_a_mutant_gives_no_report(project: Path, runs: int) -> None:
    """A test that fails by itself would kill every mutant: in the healthy run, or in the run before the first one."""
    test_file = project / "tests" / "unit" / "core" / "test_guard.py"
    test_file.write_text(FLAKY_TEST.replace("RUNS_MAX", str(runs)))
    done = run_tool(project)
    assert (done.returncode, (project / "report.json").exists()) == (2, False), done.stdout + done.stderr
    expected = ["the tests fail without any mutant", "without any change a run ended 'killed'"][runs - 1]
    assert expected in done.stdout and "test_guard.py::test_room" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutation run needs fork")
@pytest.mark.timeout(55)
def test_a_fault_of_the_tool_in_a_fork_ends_the_run_with_its_text(project: Path) -> None:
    """Taken for the mutant's doing it would kill everything."""
    tool = project / "tools" / "mutant_warm.py"
    text = tool.read_text()
    fault = 'raise LookupError("a fault of the tool")'
    tool.write_text(text.replace("        self.exchange(mutant)\n", f"        {fault}\n"))
    assert tool.read_text() != text
    done = run_tool(project)
    assert (done.returncode, (project / "report.json").exists()) == (2, False), done.stdout + done.stderr
    assert "LookupError: a fault of the tool" in done.stdout


VANISHING_TEST = """
import pytest

from openline.core.guard import NAMES, loud


@pytest.mark.parametrize("name", NAMES)
def test_each(name):
    assert loud(name) == "A"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the mutation run needs fork")
@pytest.mark.timeout(55)
def test_tests_that_a_changed_table_no_longer_makes_have_not_killed_it(project: Path) -> None:
    source = 'NAMES = {"a": 1}\n\n\ndef loud(name: str) -> str:\n    return name.upper()\n'
    (project / "src" / "openline" / "core" / "guard.py").write_text(source)
    (project / "tests" / "unit" / "core" / "test_guard.py").write_text(VANISHING_TEST)
    done = run_tool(project)
    survivors = [row["id"] for row in json.loads((project / "report.json").read_text())["survivors"]]
    assert "core/guard.py::<module>::table cell::'a': 1 removed" in survivors, done.stdout
    assert not any("loud" in survivor for survivor in survivors)
