"""Builds the C load generator where a C compiler is. ``python -m bench.build`` prints its path."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "load"
TARGET = SOURCES / "build" / "loadgen"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


def build() -> Path | None:
    """The generator, built if a source is newer; None without a compiler. Raises CalledProcessError."""
    inputs = sorted(SOURCES.glob("*.[ch]"))
    if TARGET.exists() and TARGET.stat().st_mtime >= max(path.stat().st_mtime for path in inputs):
        return TARGET
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    TARGET.parent.mkdir(exist_ok=True)
    # Linked beside and moved: two harnesses at once must not run half a file.
    fresh = TARGET.with_suffix(".new")
    sources = [str(path) for path in inputs if path.suffix == ".c"]
    subprocess.run([compiler, *FLAGS, "-o", str(fresh), *sources, *_tls_flags(compiler)], check=True)
    fresh.replace(TARGET)
    return TARGET


def _tls_flags(compiler: str) -> list[str]:
    """What links OpenSSL 3, if its headers and libraries are there: the upstream server speaks TLS with it."""
    probe = '#include <openssl/ssl.h>\nint main(void) { return EVP_EC_gen("P-256") == 0 || SSL_CTX_new(TLS_server_method()) == 0; }\n'
    flags = ["-DHAVE_TLS", "-lssl", "-lcrypto"]
    command = [compiler, "-x", "c", "-", "-o", "/dev/null", *flags[1:]]
    found = subprocess.run(command, input=probe, text=True, capture_output=True)
    return flags if found.returncode == 0 else []


if __name__ == "__main__":
    built = build()
    print(
        built.relative_to(SOURCES.parent) if built else "no C compiler found: install one (cc, gcc or clang)"
    )
    sys.exit(built is None)
