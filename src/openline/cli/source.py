"""Where ``sessions``, ``tail`` and ``trace`` get what they show: a running gateway, or its data directory.

Both give facts as CloudEvents (plain dictionaries), so that nothing behind this knows where they came from.
"""

from __future__ import annotations

import argparse
import http.client
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from openline import bootstrap
from openline.cli.client import DEFAULT_URL, Address
from openline.errors import ConfigError, LogUnavailable, OpenlineError, SessionNotFound
from openline.ports import StepRecord
from openline.types import Seq, SessionId
from openline.wire.envelope import decode_facts, encode_fact_json

Json = dict[str, Any]
POLL_S = 0.2
"""How often a data directory is looked at for news: SQLite tells nobody."""
TIMEOUT_S = 30.0
"""Twice the gateway's heartbeat on quiet streams."""


class Source(Protocol):
    """Blocking calls. Raises SessionNotFound, ConfigError, LogUnavailable."""

    name: str

    def sessions(self, *, limit: int, status: str | None) -> list[Json]:
        """Newest first, as ``GET /v1/sessions`` has them."""

    def session(self, session: str) -> Json: ...

    def transcript(self, session: str) -> Json: ...

    def delete(self, session: str) -> None:
        """Forget it. Raises ConfigError when it is in use, or when this source is only read."""

    def facts(self, session: str, *, after: int = 0, follow: bool = False) -> Iterator[Json]:
        """One session's facts in order; ``follow``: until the session ends."""

    def feed(self, *, after: str = "", types: str = "", follow: bool = False) -> Iterator[tuple[str, Json]]:
        """All sessions' facts in the store's order, each with the cursor to go on after it."""


# ------------------------------------------------------------------------------------------ over the network


class HttpSource:
    def __init__(self, address: Address) -> None:
        self.name = address.url
        self._address = address

    def sessions(self, *, limit: int, status: str | None) -> list[Json]:
        found: list[Json] = []
        before = ""
        while len(found) < limit:
            query = {"limit": str(min(1000, limit - len(found)))} | ({"before": before} if before else {})
            page = self._json("/v1/sessions", query | ({"status": status} if status else {}))
            found += page["data"]
            if not page["has_more"]:
                break
            before = page["last_id"]
        return found

    def session(self, session: str) -> Json:
        return self._json(f"/v1/sessions/{quote(session, safe='')}")

    def transcript(self, session: str) -> Json:
        return self._json(f"/v1/sessions/{quote(session, safe='')}/transcript")

    def facts(self, session: str, *, after: int = 0, follow: bool = False) -> Iterator[Json]:
        path = f"/v1/sessions/{quote(session, safe='')}/facts"
        for _, event in self._stream(path, {"after": str(after), "follow": "1" if follow else "0"}):
            yield event

    def feed(self, *, after: str = "", types: str = "", follow: bool = False) -> Iterator[tuple[str, Json]]:
        query = {"follow": "1" if follow else "0"}
        query |= {"after": after} if after else {}
        query |= {"types": types} if types else {}
        yield from self._stream("/v1/events", query)

    def recording(self, session: str) -> bytes:
        """The stereo WAV. Raises SessionNotFound when there is none."""
        path = f"/v1/sessions/{quote(session, safe='')}/recording.wav"
        with closing(self._connection()) as connection:
            return self._ask(connection, path, {}, "audio/wav").read()

    def delete(self, session: str) -> None:
        self._json(f"/v1/sessions/{quote(session, safe='')}", method="DELETE")

    def _json(self, path: str, query: dict[str, str] | None = None, *, method: str = "GET") -> Json:
        with closing(self._connection()) as connection:
            body = self._ask(connection, path, query or {}, "application/json", method).read()
        return msgspec.json.decode(body, type=Json)

    def _stream(self, path: str, query: dict[str, str]) -> Iterator[tuple[str, Json]]:
        """Server-sent events, because only they carry the feed's cursors."""
        with closing(self._connection()) as connection:
            answer = self._ask(connection, path, query, "text/event-stream")
            cursor = ""
            try:
                while raw := answer.readline():
                    name, _, value = raw.rstrip(b"\n").partition(b": ")
                    if name == b"id":
                        cursor = value.decode()
                    elif name == b"data":
                        yield cursor, msgspec.json.decode(value, type=Json)
            except (OSError, http.client.HTTPException) as error:
                raise LogUnavailable(
                    f"the stream of {self.name} broke ({type(error).__name__}).", hint="Try again."
                ) from error

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._address.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.netloc, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        query: dict[str, str],
        accept: str,
        method: str = "GET",
    ) -> http.client.HTTPResponse:
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            connection.request(method, target, headers={**self._address.headers, "Accept": accept})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(
                f"no gateway answers at {self.name} ({type(error).__name__}).",
                hint="Start one with 'openline serve', pass --url, or read its directory with --data.",
            ) from error
        if answer.status != 200:
            raise _refusal(answer.status, answer.read())
        return answer


def _refusal(status: int, body: bytes) -> OpenlineError:
    try:
        message = str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        message = f"the gateway answered {status}."
    if status == 409:
        return ConfigError(message)
    if status in (401, 403):
        return ConfigError(message, hint="Pass --key, or set OPENLINE_KEY.")
    return SessionNotFound(message) if status == 404 else LogUnavailable(message)


# ---------------------------------------------------------------------------------------- from the directory


class DataSource:
    """Reads the log in ``folder``; beside a running gateway too."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._reader = bootstrap.read_data(folder)

    def sessions(self, *, limit: int, status: str | None) -> list[Json]:
        rows = self._reader.sessions(limit=limit, status=status)
        return [
            {
                "id": row.session,
                "object": "openline.session",
                "status": row.status,
                "epoch": row.epoch,
                "node": row.node,
                "last_seq": row.last_seq,
                "created_ms": row.created_ms,
                "updated_ms": row.updated_ms,
            }
            for row in rows
        ]

    def session(self, session: str) -> Json:
        return bootstrap.stored_session(self._reader, SessionId(session))

    def transcript(self, session: str) -> Json:
        # Through JSON, so that what comes out is what the gateway would have sent.
        found = bootstrap.stored_transcript(self._reader, SessionId(session))
        return msgspec.json.decode(msgspec.json.encode(found), type=Json)

    def delete(self, session: str) -> None:
        raise ConfigError(
            "expected a gateway: a data directory is only read.",
            hint="Start one there, and leave --data out.",
        )

    def facts(self, session: str, *, after: int = 0, follow: bool = False) -> Iterator[Json]:
        node = self._reader.session(SessionId(session)).node
        while True:
            records = self._reader.read(SessionId(session), after=Seq(after), limit=500)
            for record in records:
                for seq, event in _events(record, node):
                    if seq > after:
                        yield event
                after = record.last_seq
                if follow and "openline.session.ended" in record.types:
                    return
            if not records:
                if not follow:
                    return
                time.sleep(POLL_S)

    def feed(self, *, after: str = "", types: str = "", follow: bool = False) -> Iterator[tuple[str, Json]]:
        wanted = [part for part in types.split(",") if part]
        while True:
            entries = self._reader.feed(after=after, types=wanted)
            for entry in entries:
                for _, event in _events(entry.record, ""):
                    if not wanted or any(_matches(event["type"], one) for one in wanted):
                        yield entry.cursor, event
                after = entry.cursor
            if not entries:
                if not follow:
                    return
                time.sleep(POLL_S)


def _events(record: StepRecord, node: str) -> Iterator[tuple[int, Json]]:
    for offset, fact in enumerate(decode_facts(record.body)):
        seq = Seq(record.first_seq + offset)
        causation = f"{record.session}/{record.first_seq}" if offset else ""
        body = encode_fact_json(
            fact,
            seq=seq,
            epoch=record.epoch,
            session=record.session,
            at_ms=record.at_ms,
            node=node,
            causation=causation,
        )
        yield seq, msgspec.json.decode(body, type=Json)


def _matches(kind: str, wanted: str) -> bool:
    return kind == wanted or (wanted.endswith("*") and kind.startswith(wanted[:-1]))


# ------------------------------------------------------------------------------------------------ the options


def add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default=DEFAULT_URL, help=f"the gateway (default: {DEFAULT_URL})")
    parser.add_argument(
        "--key", default=os.environ.get("OPENLINE_KEY", ""), help="API key (default: $OPENLINE_KEY)"
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    add_address(parser)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="read this data directory instead of asking a gateway"
    )
    parser.add_argument("--json", action="store_true", help="NDJSON for programs")


def address_of(options: argparse.Namespace) -> Address:
    return Address.of(options.url, options.key)


def source_of(options: argparse.Namespace) -> Source:
    return DataSource(options.data) if options.data is not None else HttpSource(address_of(options))
