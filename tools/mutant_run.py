"""Run the core's tests in forks of one process: once as they are, then once for each mutant.

POSIX only (fork). A fork here imports openline anew, so a change of a table is seen by every module. Changes inside
functions need less: ``mutant_warm.py``.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from tools.mutant_swap import exchangeable_functions
from tools.mutation import Mutant

OUR_FAULT = 70
"""Exit code of a fork in which the tool failed, not the mutant: no verdict, and the end of the run."""
MEMORY_BYTES_MAX = 4 << 30
"""A mutant may loop and fill memory; a healthy run takes under 200 MB, plus what address space is reserved."""
BASELINE_S_MAX = 600.0
GRACE_S = 2.0
"""CPU seconds for each test, and ``SLACK`` times its own seconds on top: a mutant that loops is found in the test
that it loops in. The same for the start: imports and collection."""
SLACK = 4.0
CPU_S_MAX = 3600
WALL_FACTOR = 20.0
"""Wall seconds for each CPU second allowed. A mutant is judged by its CPU time, so that a busy machine calls no
slow run a killed one; this bound ends one that waits for what never comes."""
OWN_KILLS = 10.0
"""How much more a kill of a mutant of the same function says about the next than any other kill."""
FIRST_TESTS = 8
"""Tests that a mutant meets first, those that killed most so far: most mutants die here, and collecting a few files
is cheaper than collecting all that ever ran the function."""


@dataclass
class Baseline:
    """The healthy run: CPU seconds until its first test, seconds of each test, and which tests ran which function
    (``path::scope``)."""

    start_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    tests_of: dict[str, list[str]] = field(default_factory=dict)
    exchangeable: list[str] = field(default_factory=list)
    """Functions that one object holds and that ran in tests only, as ``mutant_warm.key_of`` names them."""
    failure: str = ""


@dataclass
class Outcome:
    how: str
    """killed | timeout | survived | not covered."""
    by: str = ""
    """The test that failed first; "" if collection already failed."""
    took_s: float = 0.0

    @property
    def is_killed(self) -> bool:
        return self.how in ("killed", "timeout")


class Watcher:
    """A pytest plugin: selects and orders tests, notes seconds and the first failure. ``on_test`` is told each."""

    def __init__(
        self, wanted: Sequence[str] | None = None, on_test: Callable[[str], object] | None = None
    ) -> None:
        self.order = {name: place for place, name in enumerate(wanted)} if wanted is not None else None
        self.on_test = on_test
        self.start_s = 0.0
        self.seconds: dict[str, float] = {}
        self.failed = ""

    def pytest_configure(self, config: pytest.Config) -> None:
        # Shrinking a failure takes seconds and tells us nothing; a random start would make runs differ.
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        checks = list(hypothesis.HealthCheck)
        hypothesis.settings.register_profile(
            "mutants",
            phases=phases,
            database=None,
            derandomize=True,
            deadline=None,
            suppress_health_check=checks,
        )
        hypothesis.settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = self.order
        if order is not None:
            items[:] = sorted((i for i in items if i.nodeid in order), key=lambda item: order[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.start_s = self.start_s or time.process_time()
        if self.on_test is not None:
            self.on_test(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid


class OneModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serves one module of openline from changed source; every other is found as usual."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        is_package = self.path.name == "__init__.py"
        spec = importlib.util.spec_from_loader(fullname, self, origin=str(self.path), is_package=is_package)
        if spec is not None and is_package:
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def module_name(path: str) -> str:
    return ".".join(["openline", *path.removesuffix(".py").removesuffix("/__init__").split("/")])


# ----------------------------------------------------------------------------------------------- children


def in_child(root: Path, report: Path, work: Callable[[], dict[str, object]]) -> int:
    """Fork; the child runs ``work`` quietly, writes what it returns to ``report`` and is gone. Gives its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # so that whatever a test starts ends with it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
        quiet = os.open(f"{report}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ["OPENLINE_FIGURE_PATIENCE"] = "100"  # CPU time is the limit here, see WALL_FACTOR
        os.chdir(root)
        sys.path[:0] = [str(root / "src")]
        found = work()
        draft = report.with_suffix(".new")
        draft.write_text(json.dumps(found))
        draft.replace(report)
        code = 0
    except MemoryError:  # the mutant's doing
        code = 0
    except BaseException:  # the edge of a process: nothing may get back into the parent's code
        traceback.print_exc()
        sys.stderr.flush()
        code = OUR_FAULT
    sys.stdout.flush()
    os._exit(code)


def pytest_arguments(names: Sequence[str]) -> list[str]:
    # Hypothesis is imported before pytest starts, on purpose: a fork then has it for nothing.
    known = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", *known, *names]


def check_origin(root: Path) -> str:
    """A test of an installed copy would kill nothing and say nothing."""
    import openline.core

    where = Path(openline.core.__file__ or "")
    return "" if where.is_relative_to(root / "src") else f"openline was imported from {where}, not from src/"


# ----------------------------------------------------------------------------------------------- baseline


def run_baseline(root: Path, names: Sequence[str]) -> Baseline:
    """The healthy run, with each test's coverage of the core."""
    with tempfile.TemporaryDirectory(prefix="openline-mutants-") as folder:
        report = Path(folder) / "baseline.json"
        pid = in_child(root, report, lambda: measured(root, names))
        deadline = time.monotonic() + BASELINE_S_MAX
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                end(pid)
                return Baseline(failure=f"no end within {BASELINE_S_MAX:.0f} s")
            time.sleep(0.05)
        if not report.exists():
            return Baseline(
                failure="the run ended without a word\n" + Path(f"{report}.out").read_text()[-3000:]
            )
        found = Baseline(**json.loads(report.read_text()))
        if found.failure:
            found.failure += "\n" + Path(f"{report}.out").read_text()[-3000:]
        return found


def measured(root: Path, names: Sequence[str]) -> dict[str, object]:
    os.environ["COVERAGE_CORE"] = "ctrace"  # the one that knows which test is running, on every Python
    import coverage

    core = root / "src" / "openline" / "core"
    meter = coverage.Coverage(data_file=None, branch=False, include=[f"{core}/*"], config_file=False)
    watcher = Watcher(None, on_test=meter.switch_context)
    meter.start()
    code = pytest.main(pytest_arguments(names), plugins=[watcher])
    meter.stop()
    if code != 0:
        return asdict(Baseline(failure=f"pytest ended with {int(code)}: {watcher.failed}"))
    failure = check_origin(root) if watcher.seconds else "there are no tests"
    tests_of: dict[str, set[str]] = {}
    data = meter.get_data()
    for file in data.measured_files():
        path = Path(file)
        name = path.relative_to(root / "src" / "openline").as_posix()
        scopes = scope_of_lines(path.read_text())
        for line, tests in data.contexts_by_lineno(file).items():
            if line in scopes:
                tests_of.setdefault(f"{name}::{scopes[line]}", set()).update(tests)
    before_tests = {scope for scope, tests in tests_of.items() if "" in tests}
    exchangeable = exchangeable_functions(core.parent, before_tests)
    found = {scope: sorted(tests - {""}) for scope, tests in tests_of.items()}
    return asdict(Baseline(watcher.start_s, watcher.seconds, found, exchangeable, failure))


def scope_of_lines(text: str) -> dict[int, str]:
    """The qualified name of the innermost function of each line that is in one."""
    found: dict[int, str] = {}

    def walk(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{outer}.{child.name}" if outer else child.name
                if not isinstance(child, ast.ClassDef):
                    found.update(
                        dict.fromkeys(range(child.body[0].lineno, (child.end_lineno or 0) + 1), name)
                    )
                walk(child, name)
            else:
                walk(child, outer)

    walk(ast.parse(text), "")
    return found


# --------------------------------------------------------------------------------------------------- pool


class Pool:
    """Runs mutants, ``jobs`` at once. Use as a context manager: leaving it ends what still runs."""

    first_tests = FIRST_TESTS

    def __init__(self, root: Path, baseline: Baseline, names: Sequence[str], jobs: int) -> None:
        self.root, self.baseline, self.names, self.jobs = root, baseline, names, max(1, jobs)
        self.kills: Counter[str] = Counter()
        self.kills_of: dict[str, Counter[str]] = {}
        self.started = 0
        self.running: dict[int, tuple[Mutant, Path, float, float, bool]] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="openline-mutants-")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.running:
            end(pid)
        self.folder.cleanup()

    def learn(self, mutant_id: str, outcome: Outcome) -> None:
        """What killed before kills again: those tests go first."""
        if outcome.by:
            self.kills[outcome.by] += 1
            self.kills_of.setdefault(scope_of(mutant_id), Counter())[outcome.by] += 1

    def run(self, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, Outcome]]:
        waiting = [(mutant, False) for mutant in reversed(mutants)]
        while waiting or self.running:
            while waiting and len(self.running) < self.jobs:
                mutant, is_second = waiting.pop()
                tests = self.tests_for(mutant)
                if not tests:
                    yield mutant, Outcome("not covered")
                else:
                    self.start(mutant, tests if is_second else tests[: self.first_tests], len(tests))
            for mutant, outcome, is_partial in self.finished():
                if is_partial and outcome.how == "survived":
                    waiting.append((mutant, True))
                    continue
                self.learn(mutant.id, outcome)
                yield mutant, outcome
            time.sleep(0.002)

    def check(self) -> None:
        """All tests, with nothing changed. Raises RuntimeError if one fails: then every mutant would count as killed."""
        path = next(iter(self.baseline.tests_of)).split("::")[0]
        nothing = Mutant(f"{path}::<module>::nothing", path, 0, 0, 0, "", "")
        self.start(nothing, list(self.baseline.seconds), len(self.baseline.seconds))
        while self.running:
            for _, outcome, _ in self.finished():
                if outcome.how != "survived":
                    raise RuntimeError(
                        f"without any change a run ended '{outcome.how}' by {outcome.by or 'nothing'}"
                    )
            time.sleep(0.01)

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Those that ran the function; all for a table or a default, which any test may have read."""
        scope = scope_of(mutant.id)
        tests = self.baseline.tests_of.get(scope)
        if tests is None:
            is_function = scope.split("::")[1] in set(scope_of_lines(self.text_of(mutant)).values())
            tests = [] if is_function else list(self.baseline.seconds)
        own = self.kills_of.get(scope, Counter())

        def cost_of_a_kill(name: str) -> tuple[float, str]:
            likely = 1.0 + self.kills[name] + OWN_KILLS * own[name]
            return (self.baseline.seconds.get(name, 0.0) + 0.01) / likely, name

        return sorted(tests, key=cost_of_a_kill)

    def text_of(self, mutant: Mutant) -> str:
        return (self.root / "src" / "openline" / mutant.path).read_text()

    def start(self, mutant: Mutant, tests: list[str], of: int) -> None:
        """Run ``tests``, which are some or all ``of`` those that could notice."""
        self.started += 1
        report = Path(self.folder.name) / f"{self.started}.json"
        start_s = GRACE_S + SLACK * self.baseline.start_s

        def work() -> dict[str, object]:
            limit_cpu(start_s)
            return self.verdict_of(mutant, tests)

        pid = in_child(self.root, report, work)
        began = time.monotonic()
        allowed = start_s + sum(self.allowed_s(name) for name in tests)
        self.running[pid] = (mutant, report, began, began + WALL_FACTOR * allowed, len(tests) < of)

    def verdict_of(self, mutant: Mutant, tests: list[str]) -> dict[str, object]:
        """In the fork: the changed module instead of the one on disk, and the tests."""
        path = self.root / "src" / "openline" / mutant.path
        sys.meta_path.insert(0, OneModule(module_name(mutant.path), path, mutant.apply(path.read_bytes())))
        watcher = Watcher(tests, on_test=lambda name: limit_cpu(self.allowed_s(name)))
        files = sorted({name.split("::")[0] for name in tests})
        code = pytest.main(pytest_arguments(files), plugins=[watcher])
        # Tests that a changed table no longer makes have not failed. Whatever else pytest ends with (imports that
        # fail, a conftest.py that does) is the mutant's doing: without one the same run passed.
        is_quiet = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        return {"is_killed": not is_quiet, "by": watcher.failed}

    def allowed_s(self, test: str) -> float:
        return GRACE_S + SLACK * self.baseline.seconds.get(test, 0.0)

    def finished(self) -> Iterator[tuple[Mutant, Outcome, bool]]:
        """Mutants with their outcome; True if there are tests that it has not met."""
        for pid, (mutant, report, began, deadline, is_partial) in list(self.running.items()):
            took = time.monotonic() - began
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.running[pid]
                if os.WIFEXITED(status) and os.WEXITSTATUS(status) == OUR_FAULT:
                    raise RuntimeError(f"{mutant.id}: {Path(f'{report}.out').read_text()[-3000:]}")
                is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
                yield mutant, Outcome("timeout", "", took) if is_late else verdict(report, took), is_partial
            elif time.monotonic() > deadline:
                del self.running[pid]
                end(pid)
                yield mutant, Outcome("timeout", "", took), is_partial


def limit_cpu(seconds: float) -> None:
    """From now on this process may use so many seconds of CPU (whole ones, rounded up); then the system ends it."""
    used = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used + seconds), CPU_S_MAX))


def scope_of(mutant_id: str) -> str:
    """``path::function`` of a mutant."""
    return "::".join(mutant_id.split("::")[:2])


def verdict(report: Path, took: float) -> Outcome:
    try:
        found = json.loads(report.read_text())
    except OSError:  # the fork died without a word: out of memory, or the mutant ended the process
        return Outcome("killed", "", took)
    finally:
        report.unlink(missing_ok=True)
        Path(f"{report}.out").unlink(missing_ok=True)
    return Outcome("killed" if found["is_killed"] else "survived", found["by"], took)


def end(pid: int) -> None:
    """Kill a fork of ours and what it started, and take its exit code."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself a moment ago
        pass
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # already taken
        pass
