"""The environment that a client runs in, made once under ``.clients/`` at the root: a venv, or a folder of npm.

A Python environment is ``environments/NAME.txt``: exact pins of everything. A Node one is the folder ``NAME/``
with its ``package.json``; its ``.mjs`` files are copied beside the installed packages before they run, for Node
looks for packages beside the file that imports them. A stamp of the content says whether it is up to date.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from clients.registry import HERE, Client

PLACE = HERE.parent.parent / ".clients"
INSTALL_S = 900.0
"""A cold install of the largest took two minutes; past this something hangs."""


class Unavailable(Exception):
    """The environment cannot be had on this machine; the text says why and what helps."""


@dataclass(frozen=True)
class Environment:
    """``command``: the interpreter. ``folder``: where drivers are started."""

    command: tuple[str, ...]
    folder: Path


def make(client: Client) -> Environment:
    """The client's environment, installed if it is not yet. Raises Unavailable."""
    return _make_node(client) if client.language == "node" else make_python(client.environment)


def driver_of(client: Client, environment: Environment) -> Path:
    """The file to run; a Node driver is copied into its environment first, with its neighbours."""
    if client.language != "node":
        return client.driver_path
    for source in client.driver_path.parent.glob("*.mjs"):
        shutil.copyfile(source, environment.folder / source.name)
    return environment.folder / client.driver_path.name


def make_python(name: str) -> Environment:
    """The venv of ``environments/NAME.txt``. Raises Unavailable."""
    pins = HERE / "environments" / f"{name}.txt"
    folder = PLACE / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    environment = Environment((str(python),), folder)
    if _is_fresh(folder, stamp := _digest(pins.read_bytes(), sys.version.encode())):
        return environment
    print(f"clients: installing {name} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _install([sys.executable, "-m", "venv", str(folder)], PLACE.parent)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--prefer-binary"]
    _install([str(python), "-m", "pip", "install", *quiet, "-r", str(pins)], PLACE.parent)
    (folder / "stamp").write_text(stamp)
    return environment


def _make_node(client: Client) -> Environment:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Unavailable("Node.js (20 or newer) with npm is not installed")
    package = HERE / client.environment / "package.json"
    folder = PLACE / client.environment
    version = subprocess.run([node, "--version"], capture_output=True, check=True).stdout
    environment = Environment((node,), folder)
    if _is_fresh(folder, stamp := _digest(package.read_bytes(), version)):
        return environment
    print(f"clients: installing {client.environment} …", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(package, folder / "package.json")
    # Scripts of packages stay off: none of these needs one, and some would fetch binaries from elsewhere.
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    _install([npm, "install", *quiet], folder)
    (folder / "stamp").write_text(stamp)
    return environment


def _is_fresh(folder: Path, stamp: str) -> bool:
    try:
        return (folder / "stamp").read_text() == stamp
    except OSError:  # not made yet, or only half
        return False


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _install(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"the installation did not end within {INSTALL_S:g} s") from None
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise Unavailable(f"the installation failed: {' '.join(lines[-2:])[-300:]}")
