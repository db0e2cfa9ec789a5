"""Where what is old in conversations lies: scratch files, not memory.

The state of a session packs its old items (``core.history``); here the packed bytes of all sessions are written, every
few seconds, to a file that was unlinked when it was opened. A call's memory then hardly grows with its length. The
files are no log: they are gone with the process, and a session is rebuilt from its log as ever.

Writing is done by a thread; the loop never waits for it. Reading is done in the step that asks: a few microseconds from
the system's cache. When the system is so short of memory that it has dropped the pages, a read waits for the disk, as a
read of memory that was swapped out would.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Iterable
from functools import partial

from openline.core.history import History, Packed
from openline.ports import SpoolFile

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 5.0
SWEEP_BYTES = 4 * 1024 * 1024
"""Moved in one go, at most: bounds the copy, and what a crash of the write costs in work done twice."""
FILE_BYTES = 16 * 1024 * 1024
"""A file this long is followed by another. It gives its space back when the last block in it is forgotten, so one call
of many hours keeps at most a few of them."""


class ShelfFile:
    """One scratch file, as ``core.history.Scratch``. Closed when nobody refers to it any more."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file
        self.size = 0

    def append(self, data: bytes) -> int:
        """Where it was written. Raises OSError; the file is then as before."""
        at = self.size
        self._file.write(at, data)
        self.size = at + len(data)
        return at

    def read(self, at: int, size: int) -> bytes:
        data = self._file.read(at, size)
        if len(data) != size:
            raise OSError(errno.EIO, "a scratch file is shorter than what was written to it")
        return data

    def __del__(self) -> None:
        self._file.close()


class Shelf:
    """Shared by all sessions. ``in_thread`` runs a function in the one thread that writes, and gives a future of it."""

    def __init__(
        self,
        open_file: Callable[[], SpoolFile],
        in_thread: Callable[[Callable[[], tuple[ShelfFile, int]]], asyncio.Future[tuple[ShelfFile, int]]],
    ) -> None:
        self._open_file = open_file
        self._in_thread = in_thread
        self._file: ShelfFile | None = None
        self._is_failing = False

    async def sweep(self, histories: Iterable[History]) -> int:
        """Move what is packed and in memory, at most ``SWEEP_BYTES``; the number of blocks. One call at a time.

        A disk that takes nothing costs memory: the blocks stay, and the next sweep tries again. If cancelled they stay.
        """
        moving = self._due(histories)
        if not moving:
            return 0
        data = b"".join(packed.read() for packed in moving)
        try:
            file, at = await self._in_thread(partial(self._write, data))
        except OSError as error:
            self._file = None
            if not self._is_failing:
                log.warning("shelf: %s; old items stay in memory", error.strerror)
            self._is_failing = True
            return 0
        self._is_failing = False
        for packed in moving:
            packed.move(file, at)
            at += packed.size
        return len(moving)

    @staticmethod
    def _due(histories: Iterable[History]) -> list[Packed]:
        moving: list[Packed] = []
        size = 0
        for history in histories:
            # The oldest first: what is left out here must lie on the side of what is newer (``History.in_memory``).
            for packed in reversed(list(history.in_memory())):
                if size + packed.size > SWEEP_BYTES:
                    return moving
                size += packed.size
                moving.append(packed)
        return moving

    def _write(self, data: bytes) -> tuple[ShelfFile, int]:
        file = self._file
        if file is None or file.size >= FILE_BYTES:
            file = self._file = ShelfFile(self._open_file())
        return file, file.append(data)
