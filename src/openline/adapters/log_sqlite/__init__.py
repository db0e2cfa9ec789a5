"""The embedded default store: one SQLite file, one writer thread, group commit. Public name: SqliteLog.

store.py      the port, on the event loop: queue accounting, sinks, feed callbacks
writer.py     the thread that owns the writing connection: the fence, transactions, full disk, fatal errors
queries.py    everything that only reads
database.py   opening: directory lock, pragmas, schema versions, the reserve file
"""

from openline.adapters.log_sqlite.store import SqliteLog

__all__ = ["SqliteLog"]
