"""The embedded default store: one SQLite file, one writer thread, group commit. Public names: SqliteLog, LogReader.

store.py      the port, on the event loop: queue accounting, sinks, feed callbacks
writer.py     the thread that owns the writing connection: the fence, transactions, full disk, fatal errors
queries.py    everything that only reads
reader.py     the same file read only, beside a running gateway: command line, replay
database.py   opening: directory lock, pragmas, schema versions, the reserve file
"""

from openline.adapters.log_sqlite.reader import LogReader, library_version, lock_holder
from openline.adapters.log_sqlite.store import SqliteLog

__all__ = ["LogReader", "SqliteLog", "library_version", "lock_holder"]
