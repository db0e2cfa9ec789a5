"""The repository's own source, as the tests of its shape read it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "openline"
SKIPPED_FOLDERS = {
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}


@dataclass(frozen=True)
class Source:
    """A file: ``path`` relative to the repository, with forward slashes."""

    path: str
    text: str


@cache
def python_files(folder: str) -> tuple[Source, ...]:
    """Every Python file under ``folder`` (relative to the repository), sorted by path."""
    found = sorted((ROOT / folder).rglob("*.py"))
    return tuple(
        Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
        for path in found
        if not SKIPPED_FOLDERS & set(path.parts)
    )


@cache
def repository_files() -> tuple[str, ...]:
    """Every file that is in the repository or would be at the next commit; paths relative to it."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive: no git, so walk
        walked = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        listed = [path.as_posix() for path in walked if not SKIPPED_FOLDERS & set(path.parts)]
    return tuple(sorted(name for name in set(listed) if (ROOT / name).is_file()))
