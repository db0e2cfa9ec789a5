"""A disk for SQLite that can lose power, fill up, and fail: a VFS in memory, to be used with a real store.

    disk = PowerCutDisk("name")                  # registered; use SqliteLog(folder, vfs="name")
    disk.cut_after(137)                          # the power goes at the 137th write or sync from now
    ...
    disk.survive(folder, seed=7)                 # writes what a real disk might hold afterwards

Per file it keeps the image of the last sync and what was written since. At a cut each of those writes may
be there, torn at sector borders, or be missing: as a prefix or as any subset, as the seed decides. Files
made or deleted since the last sync of the directory may be missing, or back. The directory is synced when
SQLite on Unix does it: by a deletion that asks for it, and by the first sync of a new journal or WAL.
``lying`` makes a disk whose sync does nothing, to show that the tests would notice.
Connections need ``locking_mode=EXCLUSIVE``: there is no shared memory here.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR_BYTES = 512
"""The unit that a disk writes whole."""
_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL


@dataclass(slots=True)
class _Write:
    """One change since the last sync: bytes at an offset, or (``data`` None) a truncation to ``offset``."""

    offset: int
    data: bytes | None

    def apply(self, image: bytearray) -> None:
        if self.data is None:
            del image[self.offset :]
            return
        if len(image) < self.offset:
            image.extend(b"\0" * (self.offset - len(image)))
        image[self.offset : self.offset + len(self.data)] = self.data

    def torn(self, dice: random.Random) -> list[_Write]:
        """The sectors of this write that reached the disk: some."""
        if self.data is None:
            return [self]
        pieces: list[_Write] = []
        at = 0
        while at < len(self.data):
            size = SECTOR_BYTES - (self.offset + at) % SECTOR_BYTES
            pieces.append(_Write(self.offset + at, self.data[at : at + size]))
            at += size
        if dice.random() < 0.5:
            return pieces[: dice.randrange(len(pieces) + 1)]
        return [piece for piece in pieces if dice.random() < 0.5]


@dataclass(slots=True)
class _Image:
    """A file: as it is seen now, as it was at the last sync, and the way between the two."""

    syncs_folder: bool = False
    """The next sync of this file syncs the directory, too."""
    is_linked: bool = False
    """Its name in the directory is on the disk."""
    live: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    pending: list[_Write] = field(default_factory=list)

    def write(self, change: _Write) -> None:
        change.apply(self.live)
        self.pending.append(change)

    def sync(self) -> None:
        for change in self.pending:
            change.apply(self.synced)
        self.pending.clear()

    def after_cut(self, dice: random.Random) -> bytes | None:
        """What is found after the power has gone; None for no file."""
        if not self.is_linked and dice.random() < 0.3:
            return None
        image = bytearray(self.synced)
        is_prefix = dice.random() < 0.5
        kept = dice.randrange(len(self.pending) + 1)
        for number, change in enumerate(self.pending):
            if is_prefix and number < kept:
                change.apply(image)
            elif (is_prefix and number == kept) or (not is_prefix and dice.random() < 0.5):
                for piece in change.torn(dice):
                    piece.apply(image)
        return bytes(image)


class PowerCutDisk(apsw.VFS):
    """One disk, registered with SQLite under ``name`` until ``unregister``. Files are kept by base name."""

    def __init__(self, name: str, *, lying: bool = False, capacity: Callable[[], int] | None = None) -> None:
        """``capacity`` gives the bytes that all files together may have now; None is without end."""
        super().__init__(name, base="")
        self.name = name
        self.operations = 0
        """Writes, truncations, syncs and deletions so far: the moments at which the power can go."""
        self.is_cut = False
        self.cut = threading.Event()
        self._lying = lying
        self._capacity = capacity
        self._files: dict[str, _Image] = {}
        self._deleted: dict[str, _Image] = {}
        self._cut_at: int | None = None
        self._fail_syncs = False

    # ---- faults

    def cut_after(self, operations: int) -> None:
        """The power goes at that many operations from now; that one and all later ones do not happen."""
        self._cut_at = self.operations + operations

    def cut_now(self) -> None:
        self.is_cut = True
        self.cut.set()

    def fail_syncs(self, fail: bool = True) -> None:
        """Every sync from now on raises an I/O error (and syncs nothing), as a dying disk does."""
        self._fail_syncs = fail

    def survive(self, folder: Path, seed: int) -> None:
        """Write into ``folder`` (made if it is not there) what the disk may hold after the cut."""
        dice = random.Random(seed)
        folder.mkdir(parents=True, exist_ok=True)
        found = {name: image.after_cut(dice) for name, image in sorted(self._files.items())}
        for name, image in sorted(self._deleted.items()):
            if name not in found and dice.random() < 0.5:
                found[name] = image.after_cut(dice)
        for name, content in found.items():
            if content is not None:
                (folder / name).write_bytes(content)

    def operation(self) -> None:
        """Count one; raise when the power is gone."""
        self.operations += 1
        if self._cut_at is not None and self.operations >= self._cut_at:
            self.cut_now()
        if self.is_cut:
            raise apsw.IOError("the power is gone")

    def claim(self, image: _Image, end: int) -> None:
        """Raise SQLITE_FULL when growing the file to ``end`` bytes exceeds the disk."""
        if self._capacity is None or end <= len(image.live):
            return
        used = sum(len(other.live) for other in self._files.values())
        if used + end - len(image.live) > self._capacity():
            raise apsw.FullError("the disk is full")

    def sync(self, image: _Image) -> None:
        self.operation()
        if self._fail_syncs:
            raise apsw.IOError("the sync failed")
        if self._lying:
            return
        image.sync()
        if image.syncs_folder:
            image.syncs_folder = False
            self._sync_folder()

    def _sync_folder(self) -> None:
        self._deleted.clear()
        for image in self._files.values():
            image.is_linked = True

    # ---- what SQLite calls (sqlite.org/c3ref/vfs.html)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # type: ignore[override]  # a file of our own, no subclass of VFSFile
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        flags[1] = flags[0]
        if path is None:
            return _File(self, _Image())
        key = Path(path).name
        if key not in self._files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(f"no file {key}")
            self._files[key] = _Image(syncs_folder=bool(flags[0] & _JOURNALS))
        return _File(self, self._files[key])

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.operation()
        name = Path(filename).name
        image = self._files.pop(name, None)
        if image is not None and image.is_linked:
            self._deleted[name] = image
        if syncdir and not self._lying:
            self._sync_folder()

    def xAccess(self, pathname: str, flags: int) -> bool:
        return Path(pathname).name in self._files

    def xFullPathname(self, name: str) -> str:
        return name


class _File:
    """An open file. The methods are those of sqlite.org/c3ref/io_methods.html."""

    def __init__(self, disk: PowerCutDisk, image: _Image) -> None:
        self._disk = disk
        self._image = image

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._image.live[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.operation()
        self._disk.claim(self._image, offset + len(data))
        self._image.write(_Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        self._disk.operation()
        self._image.write(_Write(newsize, None))

    def xSync(self, flags: int) -> None:
        self._disk.sync(self._image)

    def xFileSize(self) -> int:
        return len(self._image.live)

    def xLock(self, level: int) -> None:
        """One connection: nobody to keep out."""

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        # What SQLite assumes of every file system on Unix: writing a part of a sector leaves the rest alone.
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xClose(self) -> None: ...
