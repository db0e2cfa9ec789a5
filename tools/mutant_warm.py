"""Run mutants in forks of a process that has collected the tests already: no import, no collection, only the tests.

For changes inside functions that ran in tests only (``mutant_swap.py``); ``mutant_run.py`` takes the others.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType

import hypothesis
import pytest
from hypothesis import strategies

from tools.mutant_run import Baseline, Pool, Watcher, check_origin, limit_cpu, pytest_arguments
from tools.mutant_swap import changed_functions, key_of, live_functions
from tools.mutation import Mutant


def divided(root: Path, baseline: Baseline, mutants: Sequence[Mutant]) -> tuple[list[Mutant], list[Mutant]]:
    """Those that an exchange of code can show, and the others."""
    known = set(baseline.exchangeable)
    warm: list[Mutant] = []
    cold: list[Mutant] = []
    for mutant in mutants:
        source = (root / "src" / "openline" / mutant.path).read_bytes()
        changed = changed_functions(
            compile(source, "before", "exec"), compile(mutant.apply(source), "after", "exec")
        )
        is_warm = bool(changed) and all(key_of(mutant.path, old) in known for old, _ in changed or [])
        (warm if is_warm else cold).append(mutant)
    return warm, cold


class WarmPool(Pool):
    """A pool inside a pytest session: ``items`` are its collected tests."""

    first_tests = 1_000_000
    """All of them at once: there is no collection to save."""

    def __init__(self, root: Path, baseline: Baseline, items: Sequence[pytest.Item], jobs: int) -> None:
        super().__init__(root, baseline, (), jobs)
        if failure := check_origin(root):
            raise RuntimeError(failure)
        self.items = {item.nodeid: item for item in items}
        self.functions: dict[str, list[FunctionType]] = {}
        for key, function in live_functions(root / "src" / "openline"):
            self.functions.setdefault(key, []).append(function)
        gc.collect()
        gc.freeze()  # a fork that collects garbage would copy all of its parent; what is frozen is listed no more

    def verdict_of(self, mutant: Mutant, tests: list[str]) -> dict[str, object]:
        self.exchange(mutant)
        watcher = Watcher()
        items = [self.items[name] for name in tests]
        items[0].config.pluginmanager.register(watcher)
        for item, following in zip(items, [*items[1:], None], strict=True):
            limit_cpu(self.allowed_s(item.nodeid))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if watcher.failed:
                break
        return {"is_killed": bool(watcher.failed), "by": watcher.failed}

    def exchange(self, mutant: Mutant) -> None:
        path = self.root / "src" / "openline" / mutant.path
        source = path.read_bytes()
        before, after = (compile(text, str(path), "exec") for text in (source, mutant.apply(source)))
        changed = changed_functions(before, after)
        assert changed is not None, "not one for this pool"
        for old, new in changed:
            for function in self.functions[key_of(mutant.path, old)]:
                function.__code__ = new


class Host:
    """A pytest plugin: collects, and gives the items to ``work`` instead of running them."""

    def __init__(self, work: Callable[[Sequence[pytest.Item]], None]) -> None:
        self.work = work
        self.has_worked = False
        self.error: BaseException | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        warm_up()
        try:
            self.work(session.items)
            self.has_worked = True
        except (Exception, KeyboardInterrupt) as error:  # pytest would make its own of it
            self.error = error
        return True


def run_collected(root: Path, names: Sequence[str], work: Callable[[Sequence[pytest.Item]], None]) -> None:
    """Collect ``names`` in this process, which has openline from ``root`` ever after; call ``work`` with the items.

    Raises whatever ``work`` did, RuntimeError if the tests cannot be collected.
    """
    sys.path.insert(0, str(root / "src"))
    arguments = [*pytest_arguments(names), "-s"]
    host = Host(work)
    code = pytest.main(arguments, plugins=[Watcher(), host])
    if host.error is not None:
        raise host.error
    if not host.has_worked:
        raise RuntimeError(f"pytest ended with {int(code)} before any mutant was run")


def warm_up() -> None:
    """Hypothesis imports much of itself with its first example; here once instead of in each fork."""

    @hypothesis.given(strategies.text(), strategies.lists(strategies.integers()))
    @hypothesis.settings(max_examples=5, database=None)
    def nothing(text: str, numbers: list[int]) -> None:
        pass

    nothing()
