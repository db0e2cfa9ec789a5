"""Everything that only reads. Each function takes a connection and runs on a reader thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import apsw

from openline.errors import ClientProtocolError, LogCorrupt, SessionNotFound
from openline.ports import FeedEntry, SessionRow, StepRecord
from openline.types import Epoch, Seq, SessionId

CURSOR_DIGITS = 19
"""A signed 64-bit position, zero-padded so that cursors sort as text."""

_STEP_COLUMNS = "n.name, p.epoch, p.first_seq, p.last_seq, p.types, p.body, p.at_ms, n.tenant"
_SESSION_COLUMNS = """s.name, s.tenant, s.epoch, s.node,
    coalesce((SELECT max(last_seq) FROM steps WHERE session = s.id), 0),
    s.status, s.created_ms,
    coalesce((SELECT at_ms FROM steps WHERE session = s.id ORDER BY last_seq DESC LIMIT 1), s.created_ms)"""


def pack_types(types: Sequence[str]) -> str:
    return f" {' '.join(types)} "


def encode_cursor(pos: int) -> str:
    return f"{pos:0{CURSOR_DIGITS}d}"


def decode_cursor(cursor: str) -> int:
    """Position after which to go on; "" is the start. ClientProtocolError for what is no cursor of ours."""
    if not cursor:
        return 0
    if len(cursor) != CURSOR_DIGITS or not cursor.isascii() or not cursor.isdigit():
        raise ClientProtocolError(
            f"expected a cursor that this store gave out ({CURSOR_DIGITS} digits); got {cursor[:40]!r}.",
            code="invalid_cursor",
            param="after",
        )
    return int(cursor)


def session_id(db: apsw.Connection, name: SessionId) -> int:
    row = db.execute("SELECT id FROM sessions WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise SessionNotFound(f"expected a stored session; got {name}, which this log does not hold.")
    return cast(int, row[0])


def read(db: apsw.Connection, name: SessionId, after: int, limit: int) -> list[StepRecord]:
    row = session_id(db, name)
    found = db.execute(
        f"SELECT {_STEP_COLUMNS} FROM steps p JOIN sessions n ON n.id = p.session "  # noqa: S608  constants only
        "WHERE p.session = ? AND p.last_seq > ? ORDER BY p.last_seq LIMIT ?",
        (row, after, limit),
    )
    records = [_record(columns) for columns in found]
    for earlier, later in zip(records, records[1:], strict=False):
        if later.first_seq != earlier.last_seq + 1:
            raise LogCorrupt(f"session {name}: seq {later.first_seq} follows {earlier.last_seq}.")
    return records


def session(db: apsw.Connection, name: SessionId) -> SessionRow:
    row = db.execute(f"SELECT {_SESSION_COLUMNS} FROM sessions s WHERE s.name = ?", (name,)).fetchone()  # noqa: S608  constants only
    if row is None:
        raise SessionNotFound(f"expected a stored session; got {name}, which this log does not hold.")
    return _session_row(row)


def sessions(
    db: apsw.Connection, tenant: str | None, status: str | None, limit: int, before: str
) -> list[SessionRow]:
    where: list[str] = ["1"]
    values: list[str | int] = []
    for column, value in (("tenant = ?", tenant), ("status = ?", status)):
        if value is not None:
            where.append(f"s.{column}")
            values.append(value)
    if before:
        where.append("s.id < ?")
        values.append(session_id(db, SessionId(before)))
    found = db.execute(
        f"SELECT {_SESSION_COLUMNS} FROM sessions s WHERE {' AND '.join(where)} "  # noqa: S608  constants only
        "ORDER BY s.id DESC LIMIT ?",
        (*values, limit),
    )
    return [_session_row(row) for row in found]


def feed(
    db: apsw.Connection,
    after: str,
    limit: int,
    types: Sequence[str],
    name: SessionId | None,
    tenant: str | None,
) -> list[FeedEntry]:
    where: list[str] = ["p.pos > ?"]
    values: list[str | int] = [decode_cursor(after)]
    if name is not None:
        where.append("p.session = ?")
        values.append(session_id(db, name))
    if tenant is not None:
        where.append("n.tenant = ?")
        values.append(tenant)
    if types:
        where.append("(" + " OR ".join("instr(p.types, ?) > 0" for _ in types) + ")")
        values.extend(_needle(wanted) for wanted in types)
    found = db.execute(
        f"SELECT p.pos, {_STEP_COLUMNS} FROM steps p JOIN sessions n ON n.id = p.session "  # noqa: S608  constants only
        f"WHERE {' AND '.join(where)} ORDER BY p.pos LIMIT ?",
        (*values, limit),
    )
    return [FeedEntry(encode_cursor(cast(int, pos)), _record(rest)) for pos, *rest in found]


def feed_end(db: apsw.Connection) -> str:
    row = db.execute("SELECT max(pos) FROM steps").fetchone()
    return encode_cursor(cast(int, row[0])) if row is not None and row[0] is not None else ""


def due_wakeups(db: apsw.Connection, now_ms: int, limit: int) -> list[SessionId]:
    found = db.execute(
        "SELECT n.name FROM wakeups w JOIN sessions n ON n.id = w.session "
        "WHERE w.wake_at_ms <= ? ORDER BY w.wake_at_ms, w.session LIMIT ?",
        (now_ms, limit),
    )
    return [SessionId(cast(str, name)) for (name,) in found]


def get_value(db: apsw.Connection, space: str, key: str, now_ms: int) -> bytes | None:
    row = db.execute(
        "SELECT value FROM kv WHERE space = ? AND key = ? AND (expires_ms = 0 OR expires_ms > ?)",
        (space, key, now_ms),
    ).fetchone()
    return None if row is None else cast(bytes, row[0])


def _needle(wanted: str) -> str:
    """``a.b`` is found as a whole word, ``a.*`` as the beginning of one, ``*`` is any."""
    if wanted == "*":
        return " "
    return f" {wanted[:-1]}" if wanted.endswith(".*") else f" {wanted} "


def _record(columns: Sequence[apsw.SQLiteValue]) -> StepRecord:
    name, epoch, first_seq, last_seq, types, body, at_ms, tenant = columns
    record = StepRecord(
        session=SessionId(cast(str, name)),
        epoch=Epoch(cast(int, epoch)),
        first_seq=Seq(cast(int, first_seq)),
        types=tuple(cast(str, types).split()),
        body=cast(bytes, body),
        at_ms=cast(int, at_ms),
        tenant=cast(str, tenant),
    )
    if record.last_seq != last_seq:
        raise LogCorrupt(f"session {name}: step at seq {first_seq} should end at {last_seq}.")
    return record


def _session_row(columns: Sequence[apsw.SQLiteValue]) -> SessionRow:
    name, tenant, epoch, node, last_seq, status, created_ms, updated_ms = columns
    return SessionRow(
        session=SessionId(cast(str, name)),
        tenant=cast(str, tenant),
        epoch=Epoch(cast(int, epoch)),
        node=cast(str, node),
        last_seq=Seq(cast(int, last_seq)),
        status=cast(str, status),
        created_ms=cast(int, created_ms),
        updated_ms=cast(int, updated_ms),
    )
