-- Version 1: the log, who owns what, wake-ups, small values.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last seq of a session is not kept here: it is read from the end of steps_by_session, so that an
-- append dirties only the end of two b-trees and no row of this table.
CREATE TABLE sessions (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    node       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_tenant ON sessions (tenant, id);

-- One row per step. pos is the store's stable order and is never used twice (meta 'next_pos').
-- types: the fact types in order, each with a blank on both sides (' a b '), so that instr() filters.
CREATE TABLE steps (
    pos       INTEGER PRIMARY KEY,
    session   INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL CHECK (last_seq >= first_seq),
    epoch     INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    types     TEXT    NOT NULL,
    body      BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX steps_by_session ON steps (session, last_seq);

CREATE TABLE wakeups (
    session    INTEGER PRIMARY KEY,
    wake_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX wakeups_due ON wakeups (wake_at_ms);

CREATE TABLE kv (
    space      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    value      BLOB    NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (space, key)
) STRICT, WITHOUT ROWID;
