"""Run the stages of `make test` in order, all of them, and end with one line that says how it went.

    python tools/run_tests.py                 everything
    python tools/run_tests.py --quick         without the tests, but with architecture and style
    python tools/run_tests.py -k resume ...   anything else is given to pytest

A later stage runs even if an earlier one failed: one run shows all there is to do.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
QUICK_TESTS = ["tests/test_architecture.py", "tests/test_style.py", "tests/test_licences.py"]


def main() -> int:
    arguments = sys.argv[1:]
    quick = "--quick" in arguments
    tests = QUICK_TESTS if quick else [argument for argument in arguments if argument != "--quick"]
    stages = [
        ("format", [PYTHON, "-m", "ruff", "format", "--check", "--quiet", "."], "run 'make fix'"),
        ("lint", [PYTHON, "-m", "ruff", "check", "--quiet", "."], "'make fix' puts the simple ones right"),
        ("types", [PYTHON, "-m", "mypy", "--no-error-summary"], "mypy is strict on src/openline"),
        ("tests", [PYTHON, "-m", "pytest", "-q", *tests], "the first failure above names the reason"),
    ]
    began = time.monotonic()
    failed: list[str] = []
    parts: list[str] = []
    for name, command, hint in stages:
        took, code = run_stage(name, command)
        parts.append(f"{name} {'ok' if code == 0 else 'FAILED'} {took:.1f} s")
        if code != 0:
            failed.append(f"{name}: {hint}")
    print("\n" + " · ".join(parts))
    for line in failed:
        print(f"  {line}")
    print(f"{'FAILED' if failed else 'PASSED'} in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def run_stage(name: str, command: list[str]) -> tuple[float, int]:
    """Seconds it took, and its exit code."""
    print(f"== {name}", flush=True)
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT)
    return time.monotonic() - began, done.returncode


if __name__ == "__main__":
    sys.exit(main())
