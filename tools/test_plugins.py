"""The adapters over LiveKit's plugins, with the plugins: ``make test-plugins``.

Installs them once under .clients/livekit-plugins (exact pins: tests/clients/environments/livekit-plugins.txt), and
runs there the tests that are skipped where they are missing. Arguments go to pytest. Exit code: pytest's; 0 with the
reason where the packages cannot be had.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from clients.environments import Unavailable, make_python  # noqa: E402  # tests is no package; the path finds it

FILES = ("tests/conformance/test_livekit_plugins.py", "tests/integration/test_livekit_plugins.py")


def main(arguments: list[str]) -> int:
    try:
        environment = make_python("livekit-plugins")
    except Unavailable as error:
        print(f"test-plugins: skipped, {error}")
        return 0
    command = [*environment.command, "-m", "pytest", "-q", "-p", "no:cacheprovider", *FILES, *arguments]
    # Not installed there: the sources are what is tested.
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
