"""Spool files on the disk that holds the data: unlinked when opened, so that no crash leaves audio behind."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


class SpoolFiles:
    """Makes spool files in ``folder``, which is made when the first is. Each call returns a new file.

    Raises OSError when there is no room or no right to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self) -> UnlinkedFile:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return UnlinkedFile(self._folder)


class UnlinkedFile:
    """Port ``SpoolFile``. No other process can find it; its space is free when it is closed or the process ends."""

    def __init__(self, folder: Path) -> None:
        self._descriptor, path = tempfile.mkstemp(dir=folder)
        os.unlink(path)

    def write(self, at: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            at += written
            rest = rest[written:]

    def read(self, at: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, at)

    def truncate(self) -> None:
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        os.close(self._descriptor)
