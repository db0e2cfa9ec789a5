"""Who may import whom, as a test. The table is ``RULES``; DESIGN words for it stand in ARCHITECTURE.md.

Plain ``ast``: imports inside functions and under TYPE_CHECKING count too. Every finding says what to do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from source_tree import PACKAGE, Source, python_files

PURE_STDLIB = frozenset(
    "__future__ abc array base64 bisect binascii collections dataclasses enum functools hashlib heapq itertools "
    "marshal math operator re string struct types typing zlib".split()
)
"""What can neither wait, look at a clock, throw dice nor touch the machine."""
IMPURE = frozenset(
    "asyncio concurrent http logging multiprocessing os pathlib random secrets select selectors shutil signal "
    "socket sqlite3 ssl subprocess sys tempfile threading time urllib uuid".split()
)
INSTEAD = {
    "time": "pass the value in as an argument (Now)",
    "datetime": "pass the value in as an argument (Now)",
    "random": "derive it from session, seq and ordinal, or pass it in",
    "uuid": "derive the id from session, seq and ordinal",
    "secrets": "pass the value in as an argument",
    "logging": "return a fact or an effect; the runtime logs",
    "json": "keep JSON as text here; wire/ reads and writes it",
    "os": "pass the value in as an argument",
    "asyncio": "return an effect or wake_at; the runtime waits",
}


@dataclass(frozen=True)
class Rule:
    """What one part of the package may import.

    ``ours``: first parts of our own modules ("*" = all). ``third``: third-party packages; None = any one.
    ``stdlib``: the only standard modules allowed (None = all but ``denied``). ``otherwise``: what to do.
    """

    ours: frozenset[str]
    third: frozenset[str] | None = frozenset()
    stdlib: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    otherwise: str = ""


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BOTTOM = "errors types"
RULES: dict[str, Rule] = {
    "errors": Rule(
        words("errors"), otherwise="errors is the bottom row: it may use the standard library only"
    ),
    "version": Rule(words("version"), otherwise="version is one string"),
    "types": Rule(words("types"), otherwise="types is the bottom row: it may use the standard library only"),
    "settings": Rule(
        words(f"settings {BOTTOM}"), otherwise="settings are rows of data; wire things up in bootstrap"
    ),
    "core": Rule(
        words(f"core {BOTTOM}"),
        words("msgspec"),  # values: docs/decisions/0012
        stdlib=PURE_STDLIB,
        otherwise="pass the value in as an argument, or move this code to runtime/",
    ),
    "wire": Rule(
        words(f"wire core {BOTTOM}"),
        words("msgspec"),
        denied=IMPURE,
        otherwise="wire turns bytes into core types and back; move waiting and choosing to runtime/ or server/",
    ),
    "rules": Rule(
        words(f"rules ports core {BOTTOM}"),
        words("msgspec"),
        denied=IMPURE - {"pathlib"},  # for its own data file in the package
        otherwise="the rule-driven model is pure: pass the value in, or move this code to adapters/",
    ),
    "ports": Rule(
        words(f"core {BOTTOM}"),
        denied=IMPURE,
        otherwise="a port is a Protocol and plain records, nothing else",
    ),
    "runtime": Rule(
        words(f"runtime ports core {BOTTOM}"),
        otherwise="put it behind a port in ports.py and let bootstrap choose the adapter",
    ),
    "adapters": Rule(
        words(f"ports wire rules core {BOTTOM}"),
        None,
        otherwise="adapters never see each other, the runtime or settings: take it as an argument from bootstrap",
    ),
    "agent": Rule(
        words(f"agent runtime ports core {BOTTOM}"),
        words("msgspec"),
        otherwise="the public Python API rests on runtime and ports; bootstrap brings the adapters",
    ),
    "testing": Rule(
        words(f"testing runtime ports wire core {BOTTOM}"),
        words("picows aiofastnet"),  # aiofastnet: what picows connects with
        otherwise="the kit tests ports: let the caller hand in the adapter",
    ),
    "server": Rule(
        words(f"server runtime ports wire core {BOTTOM}"),
        words("picows aiofastnet uvicorn httptools starlette msgspec"),  # aiofastnet: picows' own transports
        otherwise="take it as an argument from bootstrap, through a port",
    ),
    "console": Rule(words(""), otherwise="the console is static files; its API is in server/"),
    "bootstrap": Rule(words("*"), words("uvloop"), otherwise="third-party things belong in an adapter each"),
    "demo": Rule(
        words(f"demo cli bootstrap settings testing wire ports core {BOTTOM}"),
        words("msgspec picows"),
        otherwise="the demo acts as a user: through the gateway, bootstrap or the command line",
    ),
    "cli": Rule(
        words(f"cli demo bootstrap settings testing wire ports core agent version {BOTTOM}"),
        words("msgspec picows"),
        otherwise="the command line starts things: ask bootstrap for a ready object",
    ),
    "__init__": Rule(
        words(f"agent ports core version {BOTTOM}"), otherwise="only public names are collected here"
    ),
    "__main__": Rule(words("cli"), otherwise="python -m openline is the command line, nothing more"),
}

EXTRA: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "testing/powercut.py": (words(""), words("apsw")),  # the VFS shim that cuts the power
    "server/config.py": (words("settings"), words("")),  # reads the rows that concern the server
    "cli/microphone.py": (words(""), words("sounddevice")),  # the `mic` extra
}
"""What single files may import beyond their part's rule: (ours, third party)."""

SHARED_LEAVES = frozenset({"resample", "worker_process"})
"""Modules of adapters/ that are no adapters but what several of them stand on: sample rates, and the pipe to
an engine in a process of its own. They import no adapter, and no third party but numpy."""

DYNAMIC_IMPORTS_IN = frozenset({"bootstrap.py", "cli/serve.py", "agent/loading.py"})
"""`serve module:agent` names a module of the user's; everything else is imported where a reader sees it."""


@dataclass(frozen=True)
class Import:
    line: int
    module: str
    """Absolute, with the imported name where that could be a module: ``openline.core.model``."""


def imports_of(tree: ast.AST, package: str) -> Iterator[Import]:
    """All imports of a module in ``package`` (dotted), relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield Import(node.lineno, f"{base}.{alias.name}" if base.startswith("openline") else base)


def part_of(path: str) -> str:
    """``core/session.py`` -> core; ``errors.py`` -> errors."""
    pure = PurePosixPath(path)
    return pure.parts[0] if len(pure.parts) > 1 else pure.stem


def adapter_of(path_or_module: str) -> str:
    """The adapter that a path or module under adapters/ belongs to: its file or folder."""
    return path_or_module.removesuffix(".py").replace("/", ".").removeprefix("openline.").split(".")[1]


def same_adapter(one: str, other: str) -> bool:
    """A file and its own parts: ``recognizer_x`` and ``recognizer_x_worker``."""
    return one == other or one.startswith(f"{other}_") or other.startswith(f"{one}_")


def findings(path: str, text: str) -> list[str]:
    """What is wrong with the imports of ``path`` (relative to src/openline)."""
    part = part_of(path)
    rule = RULES.get(part)
    if rule is None:
        return [
            f"{path}:1: '{part}' has no row in RULES; add one to tests/test_architecture.py, with its reason"
        ]
    tree = ast.parse(text)
    extra_ours, extra_third = EXTRA.get(path, (frozenset(), frozenset()))
    package = ".".join(["openline", *PurePosixPath(path).parent.parts])
    found: list[str] = []
    third_party: set[str] = set()
    for arrow in imports_of(tree, package):
        top = arrow.module.split(".")[0]
        if top == "openline":
            complaint = ours_complaint(path, part, rule.ours | extra_ours, arrow.module)
        elif top in sys.stdlib_module_names:
            complaint = stdlib_complaint(part, rule, top)
        else:
            third_party.add(top)
            complaint = third_complaint(path, part, extra_third, top, third_party)
        if complaint:
            found.append(f"{path}:{arrow.line}: {complaint}")
    return found + dynamic_imports(path, tree) + impure_syntax(path, part, tree)


def ours_complaint(path: str, part: str, allowed: frozenset[str], module: str) -> str:
    rule = RULES[part]
    inside = module.removeprefix("openline").lstrip(".")
    target = inside.split(".")[0] if inside else "__init__"
    if part == "adapters" and target == "adapters":
        other = adapter_of(module) if "." in inside else ""
        own = adapter_of(path)
        if own == other or (own not in SHARED_LEAVES and other in SHARED_LEAVES):
            return ""
        if other and same_adapter(own, other):
            return ""
        return f"an adapter imports another adapter ('{module}'); {rule.otherwise}"
    if "*" in allowed or target in allowed:
        return ""
    return f"{part} imports '{module}'; {rule.otherwise}"


def stdlib_complaint(part: str, rule: Rule, top: str) -> str:
    allowed = top not in rule.denied if rule.stdlib is None else top in rule.stdlib
    return "" if allowed else f"{part} imports '{top}'; {INSTEAD.get(top, rule.otherwise)}"


def third_complaint(path: str, part: str, extra: frozenset[str], top: str, seen: set[str]) -> str:
    rule = RULES[part]
    if top in extra:
        return ""
    if rule.third is None:  # adapters: one third-party thing per file
        others = seen - {top, "numpy"}
        if top != "numpy" and adapter_of(path) in SHARED_LEAVES:
            return f"a shared leaf of adapters/ imports '{top}'; only an adapter may, one third-party thing per file"
        if top != "numpy" and others:
            return f"one adapter imports {' and '.join(sorted(others))} and {top}; one third-party thing per file"
        return ""
    return "" if top in rule.third else f"{part} imports third-party '{top}'; {rule.otherwise}"


def dynamic_imports(path: str, tree: ast.AST) -> list[str]:
    if path in DYNAMIC_IMPORTS_IN:
        return []
    found = []
    for node in ast.walk(tree):
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name in ("import_module", "__import__", "exec", "eval"):
            found.append(f"{path}:{node.lineno}: '{name}' hides an import; write it as an import statement")
    return found


def impure_syntax(path: str, part: str, tree: ast.AST) -> list[str]:
    """The core never waits and never talks to the machine, with or without an import."""
    if part != "core":
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"{path}:{node.lineno}: core waits; return an effect or wake_at, the runtime waits")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("open", "print", "input", "id", "hash"):
                found.append(
                    f"{path}:{node.lineno}: core calls '{node.func.id}', which differs from run to run or touches "
                    "the machine; pass the value in"
                )
    return found


def package_sources() -> list[Source]:
    prefix = "src/openline/"
    return [Source(s.path.removeprefix(prefix), s.text) for s in python_files("src/openline")]


def test_every_import_follows_the_rows() -> None:
    found = [line for source in package_sources() for line in findings(source.path, source.text)]
    assert not found, "\n" + "\n".join(found)


def test_every_row_is_about_something() -> None:
    """A rule for a part that is gone would protect nothing."""
    gone = [name for name in EXTRA if part_of(name) not in RULES]
    assert not gone
    assert (PACKAGE / "core").is_dir()


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("core/a.py", "import time", "pass the value in"),
        ("core/a.py", "def f():\n    import random", "core imports 'random'"),
        ("core/a.py", "import json", "keep JSON as text"),
        ("core/a.py", "import apsw", "third-party 'apsw'"),
        ("core/a.py", "from openline.ports import Clock", "core imports 'openline.ports.Clock'"),
        ("core/a.py", "from ..wire import envelope", "core imports 'openline.wire.envelope'"),
        ("core/a.py", "async def f(): ...", "core waits"),
        ("core/a.py", "def f(x):\n    return hash(x)", "differs from run to run"),
        ("core/deep/a.py", "from ...runtime import driver", "core imports 'openline.runtime.driver'"),
        ("wire/a.py", "import asyncio", "wire imports 'asyncio'"),
        ("wire/a.py", "from openline import ports", "wire imports 'openline.ports'"),
        ("rules/a.py", "import time", "rules imports 'time'"),
        ("ports.py", "import openline.adapters.log_memory", "a port is a Protocol"),
        ("runtime/a.py", "from openline.wire import client", "put it behind a port"),
        ("runtime/a.py", "import apsw", "third-party 'apsw'"),
        ("runtime/a.py", "from openline import settings", "runtime imports 'openline.settings'"),
        ("adapters/a.py", "from openline.adapters.b import x", "imports another adapter"),
        ("adapters/a.py", "from .b import x", "imports another adapter"),
        ("adapters/a.py", "from openline.runtime import x", "adapters never see each other"),
        ("adapters/a.py", "import apsw\nimport picows", "one third-party thing per file"),
        ("adapters/resample.py", "import soxr", "a shared leaf"),
        ("adapters/resample.py", "from openline.adapters import log_memory", "imports another adapter"),
        ("testing/a.py", "from openline.adapters import log_memory", "let the caller hand in"),
        ("testing/a.py", "import apsw", "third-party 'apsw'"),
        ("server/a.py", "from openline.adapters import log_sqlite", "take it as an argument"),
        ("server/a.py", "from openline.settings import ROWS", "server imports 'openline.settings.ROWS'"),
        ("cli/a.py", "from openline.runtime import driver", "ask bootstrap"),
        ("errors.py", "from openline.core import model", "bottom row"),
        ("runtime/a.py", "import importlib\nimportlib.import_module('x')", "hides an import"),
        ("runtime/a.py", "m = __import__('x')", "hides an import"),
        ("novelty/a.py", "", "has no row in RULES"),
    ],
)
def test_a_wrong_import_is_found_and_says_what_to_do(path: str, text: str, says: str) -> None:
    assert any(says in line for line in findings(path, text)), findings(path, text)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "core/a.py",
            "from __future__ import annotations\nfrom openline.core.model import Item\nimport enum",
        ),
        ("core/a.py", "from .model import Item\nfrom openline.errors import IllegalTransition"),
        ("wire/a.py", "import msgspec\nfrom openline.core import model"),
        ("adapters/a.py", "from openline.adapters.resample import Resampler\nimport apsw\nimport asyncio"),
        ("adapters/a.py", "from openline.adapters.a_worker import main\nimport numpy\nimport pocketsphinx"),
        ("adapters/log_x/__init__.py", "from openline.adapters.log_x.database import Database"),
        ("adapters/log_x/queries.py", "from . import database"),
        ("testing/powercut.py", "import apsw"),
        ("server/config.py", "from openline.settings import load"),
        ("bootstrap.py", "import importlib\nimportlib.import_module('x')\nfrom openline.adapters import a"),
    ],
)
def test_a_right_import_is_let_through(path: str, text: str) -> None:
    assert findings(path, text) == []
