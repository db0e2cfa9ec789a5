"""The web console: static files and one function that hands them out. No server code, no templates.

The files need no build step and fetch nothing from other hosts; ``/console`` is ``index.html`` and
``/console/<name>`` is the file of that name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

_CONTENT_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self)",
    "Cache-Control": "no-cache",
}
"""Sent with every console file. ``no-cache`` with an ETag: a browser asks each time and an upgraded
gateway never meets modules of the version before."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, ``Content-Type`` and a strong ``ETag`` (quoted, as the header wants it)."""

    body: bytes
    content_type: str
    etag: str


@lru_cache(maxsize=64)
def asset(name: str) -> Asset | None:
    """The console file ``name`` ("" is ``index.html``), or None if there is none.

    Only plain names of known kinds are looked up, so no path can lead out of the package.
    """
    name = name or "index.html"
    stem, dot, suffix = name.rpartition(".")
    content_type = _CONTENT_TYPES.get(dot + suffix)
    if content_type is None or not stem.replace("-", "").replace("_", "").isalnum():
        return None
    entry = files(__package__).joinpath("static", name)
    if not entry.is_file():
        return None
    body = entry.read_bytes()
    return Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
