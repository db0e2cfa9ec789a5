"""Our own style, as far as a test can hold it. Every finding prints what to write instead.

What the formatter, the linter and the type checker hold is not repeated here. STYLE.md has the reasons.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import PurePosixPath

import pytest

from source_tree import ROOT, Source, python_files, repository_files

FUNCTION_LINES_MAX = 60
"""Code lines of one function: what fits a screen. The models' longest are 70 (TigerBeetle's limit)."""
FILE_LINES_MAX = 500
"""Code lines of one file (starlette, hypercorn)."""
EXCEPTIONS = ROOT / "tests" / "style_exceptions.toml"

Finding = str
Check = Callable[[Source], list[Finding]]


# ------------------------------------------------------------------------------------------------ length


@cache
def code_lines(text: str) -> frozenset[int]:
    """Line numbers that hold code: not blank, not only a comment, not part of a docstring."""
    lines: set[int] = set()
    noise = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*noise, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        # A string standing alone is documentation, of a module, class, function or constant.
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return frozenset(lines)


def functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{outer}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield name, node
            yield from functions(node, f"{name}.")
        else:
            yield from functions(node, outer)


def long_functions(source: Source) -> dict[str, int]:
    """Functions over the limit: ``path::name`` to code lines."""
    lines = code_lines(source.text)
    found = {}
    for name, node in functions(ast.parse(source.text)):
        count = len(lines.intersection(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
        if count > FUNCTION_LINES_MAX:
            found[f"{source.path}::{name}"] = count
    return found


def function_length(sources: list[Source], allowed: dict[str, int]) -> list[Finding]:
    found: dict[str, int] = {}
    for source in sources:
        found.update(long_functions(source))
    complaints = []
    for name, count in sorted(found.items()):
        if count > allowed.get(name, FUNCTION_LINES_MAX):
            complaints.append(
                f"{name} has {count} code lines, at most {allowed.get(name, FUNCTION_LINES_MAX)}; move one level of "
                "thought into a function of its own (or give a reason in tests/style_exceptions.toml)"
            )
    for name, ceiling in sorted(allowed.items()):
        if name not in found:
            complaints.append(f"{name} is no longer too long; remove it from tests/style_exceptions.toml")
        elif found[name] < ceiling:
            complaints.append(
                f"{name} has shrunk; lower its ceiling in style_exceptions.toml to {found[name]}"
            )
    return complaints


def file_length(source: Source) -> list[Finding]:
    count = len(code_lines(source.text))
    if count <= FILE_LINES_MAX:
        return []
    return [f"{source.path} has {count} code lines, at most {FILE_LINES_MAX}; split it where a reader would"]


# ------------------------------------------------------------------------------------------------- names

BANNED_WORDS = {
    "manager": "what it keeps: registry, pool, lane",
    "helper": "what it does",
    "helpers": "what they do",
    "util": "what it does",
    "utils": "what they do",
    "misc": "what it is for",
}


def name_words(name: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return spaced.lower().strip("_").split("_")


def banned_names(source: Source) -> list[Finding]:
    named: list[tuple[int, str]] = [(1, part) for part in PurePosixPath(source.path).with_suffix("").parts]
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            named.append((node.lineno, node.name))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            named.append((node.lineno, node.id))
        elif isinstance(node, ast.arg):
            named.append((node.lineno, node.arg))
    return [
        f"{source.path}:{line}: '{name}' says nothing; name it by {BANNED_WORDS[word]}"
        for line, name in named
        for word in name_words(name)
        if word in BANNED_WORDS
    ]


# ------------------------------------------------------------------------------------------ suppressions

SUPPRESSION = re.compile(
    r"#\s*(type:\s*ignore(\[[\w\-, ]+\])?|noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?|pragma:\s*no\s*(cover|branch))"
    r"(?P<rest>.*)$"
)


def bare_suppressions(source: Source) -> list[Finding]:
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        match = SUPPRESSION.search(token.string) if token.type == tokenize.COMMENT else None
        if match and len(re.findall(r"[A-Za-z]+", match["rest"])) < 2:
            found.append(
                f"{source.path}:{token.start[0]}: '{token.string}' has no reason; write "
                f"'{token.string}  # why it is right here'"
            )
    return found


# ---------------------------------------------------------------------------------------- print and clocks

PRINTING_PLACES = re.compile(r"^src/openline/(cli/|demo/|.*worker[^/]*\.py$|.*__main__\.py$)")
CLOCKLESS = re.compile(r"^src/openline/(core|wire|rules|runtime|agent)/")
WALL_CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
}


def stray_prints(source: Source) -> list[Finding]:
    if not source.path.startswith("src/") or PRINTING_PLACES.match(source.path):
        return []
    return [
        f"{source.path}:{node.lineno}: print; return the text, or log it (without transcript, audio, keys, arguments)"
        for node in ast.walk(ast.parse(source.text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def wall_clocks(source: Source) -> list[Finding]:
    if not CLOCKLESS.match(source.path):
        return []
    found = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if (owner, node.attr) in WALL_CLOCKS:
                found.append(
                    f"{source.path}:{node.lineno}: {owner}.{node.attr}; take Now as an argument (core) or ask the Clock "
                    "port (runtime)"
                )
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            if any(alias.name in ("time", "time_ns") for alias in node.names):
                found.append(f"{source.path}:{node.lineno}: 'from time import time'; ask the Clock port")
    return found


PURE_TESTS = re.compile(r"^tests/(unit|scenarios|properties)/")


def sleeping_tests(source: Source) -> list[Finding]:
    """``sleep(0)`` yields and does not wait; under the virtual-time loop no sleep waits."""
    if not PURE_TESTS.match(source.path):
        return []
    virtual = "virtual_time" in source.text
    found = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            yields = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
            if owner == "time" or (owner == "asyncio" and not yields and not virtual):
                found.append(
                    f"{source.path}:{node.lineno}: {owner}.sleep; wait for an event, or use virtual time "
                    "(openline.testing)"
                )
    return found


# ------------------------------------------------------------------------------------------------ modules


def missing_docstring(source: Source) -> list[Finding]:
    name = PurePosixPath(source.path).name
    private = name.startswith("_") and name not in ("__init__.py", "__main__.py")
    if not source.path.startswith("src/") or private or not source.text.strip():
        return []
    if ast.get_docstring(ast.parse(source.text)):
        return []
    return [f"{source.path}:1: no docstring; say what the file is for, what may be in it and what may not"]


# -------------------------------------------------------------------------------- nothing of one machine

MACHINE_PATHS = re.compile(
    "|".join(
        [
            "/wo" + r"rk/\w",
            "/ro" + r"ot/",
            "/ho" + r"me/(?!<|\{)[a-z]\w*/",
            "/Us" + r"ers/\w+/",
            "/tmp/ve" + "nv",
        ]
    )
)
REGISTRY_HOSTS = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.", "find" + r"-links", "--index" + "-url"])
)
TEXT_SUFFIXES = set(
    ".py .md .toml .txt .cfg .ini .json .jsonl .yml .yaml .sh .js .css .html .svg .c .h .sql .csv".split()
) | {""}


def machine_traces(path: str, text: str) -> list[Finding]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := MACHINE_PATHS.search(line):
            found.append(
                f"{path}:{number}: '{match.group()}' is a path of one machine; make it relative, or an option"
            )
        if match := REGISTRY_HOSTS.search(line):
            found.append(
                f"{path}:{number}: '{match.group()}' ties it to one registry; leave the choice to the user"
            )
    return found


# -------------------------------------------------------------------------------------------------- tests

CHECKS: list[Check] = [
    file_length,
    banned_names,
    bare_suppressions,
    stray_prints,
    wall_clocks,
    sleeping_tests,
    missing_docstring,
]


def all_sources() -> list[Source]:
    return [
        source for folder in ("src", "tests", "tools", "bench", "examples") for source in python_files(folder)
    ]


def known_exceptions() -> dict[str, int]:
    rows = tomllib.loads(EXCEPTIONS.read_text()).get("function", [])
    for row in rows:
        assert len(row["reason"].split()) >= 3, (
            f"{row['name']}: say in style_exceptions.toml why it is better long"
        )
    return {row["name"]: row["lines"] for row in rows}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_source_keeps_to_the_style(check: Check) -> None:
    found = [line for source in all_sources() for line in check(source)]
    assert not found, "\n" + "\n".join(found)


def test_functions_fit_a_screen_and_the_list_of_exceptions_only_shrinks() -> None:
    product = [source for source in all_sources() if not source.path.startswith("tests/")]
    found = function_length(product, known_exceptions())
    assert not found, "\n" + "\n".join(found)


def test_no_file_speaks_of_one_machine() -> None:
    found = []
    for name in repository_files():
        if PurePosixPath(name).suffix in TEXT_SUFFIXES:
            found += machine_traces(name, (ROOT / name).read_text(encoding="utf-8", errors="replace"))
    assert not found, "\n" + "\n".join(found)


LONG_BODY = "\n".join(f"    a{n} = {n}" for n in range(FUNCTION_LINES_MAX))


@pytest.mark.parametrize(
    ("check", "path", "text", "says"),
    [
        (file_length, "src/openline/a.py", "\n".join(["a = 1"] * 501), "split it"),
        (banned_names, "src/openline/a.py", "class SessionManager: ...", "registry, pool, lane"),
        (banned_names, "src/openline/audio_utils.py", "", "what they do"),
        (banned_names, "src/openline/a.py", "def f(helper): ...", "'helper' says nothing"),
        (bare_suppressions, "src/openline/a.py", "x = 1  # type: ignore[assignment]", "has no reason"),
        (bare_suppressions, "src/openline/a.py", "x = 1  # noqa: F401", "has no reason"),
        (bare_suppressions, "src/openline/a.py", "x = 1  # pragma: no cover", "has no reason"),
        (stray_prints, "src/openline/runtime/a.py", "print('x')", "return the text"),
        (wall_clocks, "src/openline/runtime/a.py", "import time\nt = time.time()", "Clock port"),
        (wall_clocks, "src/openline/core/a.py", "t = datetime.datetime.now()", "take Now"),
        (wall_clocks, "src/openline/runtime/a.py", "from time import time", "ask the Clock port"),
        (sleeping_tests, "tests/unit/test_a.py", "import asyncio\nasyncio.sleep(0.1)", "wait for an event"),
        (
            sleeping_tests,
            "tests/unit/test_a.py",
            "import time, virtual_time\ntime.sleep(1)",
            "wait for an event",
        ),
        (missing_docstring, "src/openline/a.py", "x = 1", "say what the file is for"),
    ],
)
def test_a_breach_is_found_and_says_what_to_write(check: Check, path: str, text: str, says: str) -> None:
    found = check(Source(path, text))
    assert any(says in line for line in found), found


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (
            bare_suppressions,
            "src/openline/a.py",
            "x = 1  # type: ignore[assignment]  # the stub is wrong here",
        ),
        (stray_prints, "src/openline/cli/a.py", "print('x')"),
        (stray_prints, "src/openline/adapters/stt_x_worker.py", "print('x')"),
        (wall_clocks, "src/openline/adapters/clock.py", "import time\nt = time.time()"),
        (sleeping_tests, "tests/unit/test_a.py", "import asyncio\nasyncio.sleep(0)"),
        (missing_docstring, "src/openline/core/__init__.py", ""),
        (banned_names, "src/openline/a.py", "def utility_of(call): ..."),
    ],
)
def test_what_is_right_is_let_through(check: Check, path: str, text: str) -> None:
    assert check(Source(path, text)) == []


def test_a_long_function_is_found_and_the_ratchet_only_turns_one_way() -> None:
    long = Source("src/a.py", f"def f():\n    '''Text.'''\n{LONG_BODY}\n")
    assert "one level of thought" in function_length([long], {})[0]
    assert function_length([long], {"src/a.py::f": FUNCTION_LINES_MAX + 1}) == []
    assert "lower its ceiling" in function_length([long], {"src/a.py::f": 90})[0]
    assert "remove it" in function_length([Source("src/a.py", "")], {"src/a.py::f": 90})[0]


@pytest.mark.parametrize("line", ["cd /wo" + "rk/x", "/ho" + "me/anna/x", "https://py" + "pi.org/simple"])
def test_a_trace_of_one_machine_is_found(line: str) -> None:
    assert machine_traces("docs/a.md", line)
