"""The console's static files, served out of the package without a build step."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from openline.server.problem import Refusal, Reject

INDEX = "index.html"
MAX_FILE_BYTES = 8 * 1024 * 1024
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "ico": "image/x-icon",
    "json": "application/json",
    "webmanifest": "application/manifest+json",
    "wav": "audio/wav",
    "woff2": "font/woff2",
    "wasm": "application/wasm",
    "txt": "text/plain; charset=utf-8",
}
"""By suffix. Not ``mimetypes``: that reads the machine's own tables, and some call ``.js`` text/plain."""
_HOST = re.compile(r"[A-Za-z0-9.\-_]+(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    media_type: str
    etag: str


class ConsoleFiles:
    """All files below a folder, read once. What is not in the table does not exist: no path is ever joined."""

    def __init__(self, root: Traversable | None = None) -> None:
        self._files: dict[str, StaticFile] = {}
        folder = root if root is not None else resources.files("openline.console") / "static"
        if folder.is_dir():
            self._read(folder, "")

    def __len__(self) -> int:
        return len(self._files)

    def response(self, request: Request, name: str) -> Response:
        """Raises Refusal (404) for a file that is not there."""
        file = self._files.get(name or INDEX)
        if file is None:
            raise Refusal(Reject(404, "unknown_file", "The console has no such file."))
        headers = {"ETag": file.etag, **_headers(request)}
        if file.etag in (tag.strip() for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)

    def _read(self, folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                self._read(entry, f"{prefix}{entry.name}/")
                continue
            media_type = _TYPES.get(entry.name.rpartition(".")[2].lower())
            if media_type is None or entry.name.startswith("."):
                continue
            body = entry.read_bytes()
            assert len(body) <= MAX_FILE_BYTES, f"console/static/{prefix}{entry.name} is over 8 MiB"
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            self._files[prefix + entry.name] = StaticFile(body, media_type, etag)


def _headers(request: Request) -> dict[str, str]:
    host = request.headers.get("host", "")
    # 'self' covers ws: in current browsers; older Safari wants the WebSocket's address by name.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
        f"media-src 'self' blob:; worker-src 'self' blob:; manifest-src 'self'; connect-src 'self'{sockets}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Cache-Control": "no-cache",  # names carry no version: always ask, answered 304 by the ETag
        "Content-Security-Policy": policy,
        "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
