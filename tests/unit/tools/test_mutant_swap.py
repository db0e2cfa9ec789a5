"""An exchange of code: what may be exchanged, what needs a new import, and that holders of the function see it."""

from __future__ import annotations

from types import CodeType

import pytest

from tools.mutant_swap import changed_functions, key_of

MODULE = """
from __future__ import annotations

def outer(a, b=1):
    def inner(c):
        return a + c
    return inner(b)

class Door:
    hinges = 2

    def open(self):
        return self.hinges > 1

    @property
    def is_closed(self):
        return not self.open()

TABLE = {"outer": outer}
GREET = lambda: "hello"
"""


def code(text: str) -> CodeType:
    return compile(text, "module.py", "exec")


def changed(old: str, new: str) -> list[str] | None:
    assert old in MODULE
    found = changed_functions(code(MODULE), code(MODULE.replace(old, new, 1)))
    return None if found is None else [before.co_qualname for before, _ in found]


@pytest.mark.parametrize(
    ("old", "new", "functions"),
    [
        ("return inner(b)", "return None", ["outer"]),
        ("return a + c", "return a - c", ["outer"]),  # the outermost one holds the inner one's code
        ("self.hinges > 1", "self.hinges > 2", ["Door.open"]),
        ("return not self.open()", "return self.open()", ["Door.is_closed"]),
        ("    return inner(b)", "\\n\\n\\n    return inner(b)", []),  # lines moved and nothing else
    ],
)
def test_a_change_inside_functions_names_the_outermost(old: str, new: str, functions: list[str]) -> None:
    assert changed(old, new.replace("\\n", "\n")) == functions


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b=1", "b=2"),  # a default is an object that the module made
        ("b=1", "b=True"),  # equal, and not the same
        ("hinges = 2", "hinges = 3"),
        ('{"outer": outer}', "{}"),
        ("def open", "def opened"),
    ],
)
def test_any_other_change_needs_an_import(old: str, new: str) -> None:
    assert changed(old, new) is None


def test_a_function_that_closes_over_more_needs_an_import() -> None:
    before = "class A:\n    def f(self):\n        return 1\n"
    after = "class A:\n    def f(self):\n        return super().f()\n"
    assert changed_functions(code(before), code(after)) is None


def test_whoever_holds_the_function_runs_its_new_code() -> None:
    space: dict[str, object] = {}
    exec(code(MODULE), space)
    table = space["TABLE"]
    assert isinstance(table, dict)
    held = table["outer"]
    pairs = changed_functions(code(MODULE), code(MODULE.replace("a + c", "a - c")))
    assert pairs and held(5) == 6
    assert key_of("module.py", pairs[0][0]) == key_of("module.py", held.__code__)
    held.__code__ = pairs[0][1]
    assert held(5) == 4
