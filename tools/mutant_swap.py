"""A changed function in the place of the one that runs: what differs between two versions of a module, and where it lives.

A mutant inside a function needs no new import: the function's object is given the changed code, and whoever holds the
object – a table, another module, a bound method – runs it. That takes microseconds instead of an import of everything.
It is right only for a function that has not run yet when the exchange is made (what it built would still be the old);
the healthy run says which those are.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

SHELL = (
    "co_code",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_flags",
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_exceptiontable",
)
"""What makes two codes alike, constants apart. Lines are left out: a change may move all that follows."""


def changed_functions(before: CodeType, after: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The outermost functions that differ, old and new; ``None`` if anything else of the module does."""
    if not is_alike_outside(before, after):
        return None
    found = []
    for old, new in zip(before.co_consts, after.co_consts, strict=True):
        if not isinstance(old, CodeType):
            continue
        if old.co_flags & inspect.CO_NEWLOCALS:
            if not is_alike(old, new):
                found.append((old, new))
            continue
        inner = changed_functions(old, new)  # the body of a class
        if inner is None:
            return None
        found += inner
    return None if any(old.co_freevars != new.co_freevars for old, new in found) else found


def is_alike_outside(before: CodeType, after: CodeType) -> bool:
    """The same but for the code nested in it."""
    if any(getattr(before, name) != getattr(after, name) for name in SHELL):
        return False
    if len(before.co_consts) != len(after.co_consts):
        return False
    # By their text too: 1, 1.0 and True are equal, and so are tuples of them.
    return all(
        isinstance(old, CodeType) is isinstance(new, CodeType)
        and (isinstance(old, CodeType) or (type(old) is type(new) and repr(old) == repr(new)))
        for old, new in zip(before.co_consts, after.co_consts, strict=True)
    )


def is_alike(before: CodeType, after: CodeType) -> bool:
    return is_alike_outside(before, after) and all(
        is_alike(old, new)
        for old, new in zip(before.co_consts, after.co_consts, strict=True)
        if isinstance(old, CodeType)
    )


def key_of(path: str, code: CodeType) -> str:
    """Names a function of a file: two may have one name (``@overload``, a property and its setter)."""
    return f"{path}::{code.co_qualname}:{code.co_firstlineno}"


def live_functions(package: Path) -> Iterator[tuple[str, FunctionType]]:
    """Every function object whose source lies under ``package``, with its key; paths are relative to it."""
    for found in gc.get_objects():
        if type(found) is FunctionType and found.__code__.co_filename.startswith(f"{package}/"):
            path = Path(found.__code__.co_filename).relative_to(package).as_posix()
            yield key_of(path, found.__code__), found


def exchangeable_functions(package: Path, before_tests: set[str]) -> list[str]:
    """Keys of those that live at the top of a module or class and did not run before the first test.

    ``before_tests`` are scopes (``path::Class.function``) that did. A lambda at the top of a module has no name to tell
    that by, so none is taken.
    """
    found = set()
    for key, function in live_functions(package):
        name = function.__code__.co_qualname
        if "<" in name:
            continue
        scope = key.rsplit(":", 1)[0]
        if not any(other == scope or other.startswith(f"{scope}.") for other in before_tests):
            found.add(key)
    return sorted(found)
