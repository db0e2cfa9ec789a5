"""Opening the data directory and the database file in it. Blocking calls: never run them on the loop.

A data directory holds ``log.sqlite`` (with its ``-wal`` and ``-shm``), ``lock`` and ``reserve.bin``.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import apsw

from openline.errors import DataDirectoryError

DATABASE_NAME = "log.sqlite"
BUSY_MS = 5_000
"""How long a connection waits for another one."""
APPLICATION_ID = 0x4F4C_4E31
"""``OLN1`` in the file header: says that a SQLite file is an Openline log."""
PAGE_BYTES = 16_384
"""Measured at 10,000 appends/s: p99 3.2 ms against 5.3 ms with 4 KiB pages; 2 KiB rows waste less."""
RESERVE_BYTES = 1 << 20
"""Freed when the disk is full: about a thousand sessions can still write how they ended."""
RESTORE_FREE_BYTES = 16 << 20
"""Free space at which the disk counts as usable again: well above the reserve, so that it does not flap."""
CACHE_KIB = 256
"""Page cache of the writer. The log is appended to: the hot pages are few, and a larger cache only fills with
what was just written (64 MiB of it in ten minutes of a hundred calls; at 10,000 facts a second 1 MiB took no less CPU
than this). A commit that needs more has it for as
long as it runs."""
READER_CACHE_KIB = 512
"""Page cache of a reader: it reads in runs, each page once."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a log lives. ``vfs`` names a registered SQLite VFS; "" is the real file system.

    With a ``vfs`` the file is locked exclusively by the one connection (a VFS written in Python has no
    shared memory), so there are no readers beside the writer.
    """

    folder: Path
    vfs: str = ""

    @property
    def database(self) -> Path:
        return self.folder / DATABASE_NAME

    def wal_bytes(self) -> int:
        """Size of the write-ahead log; 0 where there is none."""
        try:
            return self.database.with_name(f"{DATABASE_NAME}-wal").stat().st_size
        except FileNotFoundError:
            return 0


# Descriptors of locks held by this process. A forked child shares the open file and would keep the
# directory locked after its parent was killed, so every child closes its copies first thing.
_held: set[int] = set()


def _drop_inherited_locks() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited_locks)


class DirectoryLock:
    """Exclusive use of a data directory by one process, until released or until the process is gone."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path) -> DirectoryLock:
        """Create the directory if it is not there, and lock it. Raises DataDirectoryError."""
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Or a power cut could take the new directory with everything in it.
                sync_folder(folder.parent)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirectoryError(
                f"expected a writable data directory; {folder}: {error.strerror or error}.",
                hint="Make it writable for this user, or pass another --data.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryError(
                f"another gateway (pid {holder}) holds {folder};", hint="stop it or pass another --data."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        _held.add(descriptor)
        return cls(descriptor)

    def release(self) -> None:
        """Idempotent. The file stays: removing it would let two processes lock two different files."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Reserve:
    """Disk space set aside so that sessions can be ended cleanly when the disk is full."""

    def __init__(self, folder: Path, size: int = RESERVE_BYTES) -> None:
        self._path = folder / "reserve.bin"
        self._size = size

    def create(self) -> bool:
        """Make sure the reserve is there; False when there is no room for it. Never raises for a full disk."""
        try:
            if self._path.exists() and self._path.stat().st_size == self._size:
                return True
            with self._path.open("wb") as file:
                # Written, not truncated to size: a sparse file reserves nothing.
                file.write(b"\0" * self._size)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.spend()
            return False
        return True

    def spend(self) -> None:
        """Give the space back to the file system. Idempotent."""
        self._path.unlink(missing_ok=True)

    def restore(self) -> bool:
        """Set the space aside again if there is clearly enough of it."""
        if shutil.disk_usage(self._path.parent).free < RESTORE_FREE_BYTES + self._size:
            return False
        return self.create()


def open_writer(place: Placement) -> apsw.Connection:
    """The one writing connection, migrated to the newest schema. Raises DataDirectoryError."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    try:
        db = apsw.Connection(str(place.database), flags=flags, vfs=place.vfs or None)
    except apsw.Error as error:
        raise unusable(place, error) from error
    try:
        if place.vfs:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.set_busy_timeout(BUSY_MS)
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA journal_mode = WAL")
        # FULL, not NORMAL: with NORMAL a power cut loses what was already acknowledged.
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        # A batch over the cache's size must not be written twice, in the middle of its transaction and at its end.
        db.execute("PRAGMA cache_spill = OFF")
        db.execute("PRAGMA temp_store = MEMORY")
        # Checkpoints are run by the writer between commits: inside COMMIT they would delay its
        # acknowledgements, and SQLite hides their I/O errors there.
        db.execute("PRAGMA wal_autocheckpoint = 0")
        migrate(db, place.folder)
        return db
    except DataDirectoryError:
        db.close()
        raise
    except apsw.Error as error:
        db.close()
        raise unusable(place, error) from error


def open_reader(place: Placement) -> apsw.Connection:
    """A connection that cannot write. Sees exactly what is committed, which here means synced."""
    assert not place.vfs
    db = apsw.Connection(str(place.database), flags=apsw.SQLITE_OPEN_READONLY)
    db.set_busy_timeout(BUSY_MS)
    db.execute("PRAGMA query_only = 1")
    db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return db


def migrations() -> list[str]:
    """The schema steps in order: ``schema/0001.sql`` brings version 0 to 1, and so on."""
    folder = resources.files("openline.adapters.log_sqlite") / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    return [(folder / name).read_text("utf-8") for name in names]


def migrate(db: apsw.Connection, folder: Path) -> None:
    """Bring the schema to the newest version, one transaction per step. Raises DataDirectoryError."""
    steps = migrations()
    version = check_version(db, folder)
    for number, text in enumerate(steps[version:], start=version + 1):
        with db:
            db.execute(text)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def check_version(db: apsw.Connection, folder: Path) -> int:
    """The version of the schema in the file (0: empty). Raises DataDirectoryError for one we cannot read."""
    newest = len(migrations())
    version = _pragma(db, "user_version")
    if version > newest:
        raise DataDirectoryError(
            f"{folder} was written by a newer Openline: its schema is version {version}, "
            f"this one knows up to {newest}.",
            hint="Upgrade openline, or pass another --data.",
        )
    if version > 0 and _pragma(db, "application_id") != APPLICATION_ID:
        raise DataDirectoryError(
            f"{folder / DATABASE_NAME} is a SQLite file of another program.", hint="Pass another --data."
        )
    return version


def _pragma(db: apsw.Connection, name: str) -> int:
    (value,) = next(iter(db.execute(f"PRAGMA {name}")))
    assert isinstance(value, int)
    return value


def unusable(place: Placement, error: apsw.Error) -> DataDirectoryError:
    """What an SQLite error while opening means for the person who started the gateway."""
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return DataDirectoryError(
            f"{place.database} is not a readable Openline log ({type(error).__name__}).",
            hint="Restore it from a backup, or move it away, or pass another --data.",
        )
    return DataDirectoryError(
        f"expected a usable log at {place.database}; got {type(error).__name__}: {error}.",
        hint="Check permissions and free space, or pass another --data.",
    )
