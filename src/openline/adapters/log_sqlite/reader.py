"""Reading a data directory without being its gateway: beside a running one, or after it. Blocking calls."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import apsw

from openline.adapters.log_sqlite import database, queries
from openline.errors import DataDirectoryError, LogUnavailable
from openline.ports import FeedEntry, SessionRow, StepRecord
from openline.types import Seq, SessionId


class LogReader:
    """The log in ``folder``, read only; never takes the directory's lock, never changes a byte of the log.

    Sees what is committed, so a running gateway's newest steps appear as they become durable. Not
    thread-safe. Every method raises LogUnavailable for a disk that does not answer. Raises
    DataDirectoryError when there is no log, when it is not one of ours, or when it is of a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.place = database.Placement(folder)
        if not self.place.database.is_file():
            raise DataDirectoryError(
                f"expected a data directory with {database.DATABASE_NAME}; {folder} has none.",
                hint="Pass the --data that the gateway runs with.",
            )
        try:
            self._db = database.open_reader(self.place)
            database.check_version(self._db, folder)
        except apsw.Error as error:
            raise database.unusable(self.place, error) from error

    def close(self) -> None:
        self._db.close()

    def sessions(
        self, *, status: str | None = None, limit: int = 100, before: str = "", tenant: str | None = None
    ) -> list[SessionRow]:
        """Newest first; of all tenants unless one is named."""
        try:
            return queries.sessions(self._db, tenant, status, limit, before)
        except apsw.Error as error:
            raise self._failed(error) from error

    def session(self, session: SessionId) -> SessionRow:
        """Raises SessionNotFound."""
        try:
            return queries.session(self._db, session)
        except apsw.Error as error:
            raise self._failed(error) from error

    def read(self, session: SessionId, *, after: Seq = Seq(0), limit: int = 1000) -> list[StepRecord]:
        """Steps whose last seq is greater than ``after``. Raises SessionNotFound, LogCorrupt."""
        try:
            return queries.read(self._db, session, after, limit)
        except apsw.Error as error:
            raise self._failed(error) from error

    def feed(self, *, after: str = "", limit: int = 500, types: Sequence[str] = ()) -> list[FeedEntry]:
        """Steps of all sessions in the store's order. Raises ClientProtocolError for a foreign cursor."""
        try:
            return queries.feed(self._db, after, limit, types, None, None)
        except apsw.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error) -> LogUnavailable:
        return LogUnavailable(
            f"reading the log at {self.place.folder} failed ({type(error).__name__}).", hint="Check the disk."
        )


def lock_holder(folder: Path) -> int | None:
    """Process id of the gateway that holds ``folder``; None when nobody does, 0 when it cannot be told who."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        # Shared and for an instant: it tells a held lock, and two who ask do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except OSError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        return int(holder) if holder.isdecimal() else 0
    finally:
        os.close(descriptor)


def library_version() -> str:
    """Of the SQLite library that is used, which is apsw's own and not the system's."""
    return apsw.sqlite_lib_version()
