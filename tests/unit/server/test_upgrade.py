"""Request heads: what is a handshake, what is refused, what is left to HTTP."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.server.problem import Reject, response_bytes
from openline.server.upgrade import Head, canonical_head, read_head

KEY = base64.b64encode(b"k" * 16).decode()
PEER = ("127.0.0.1", 5)
SOUND = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(line: str = "GET /v1/realtime HTTP/1.1", **changes: str | None) -> bytes:
    headers = {**SOUND, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join(lines).encode("latin-1")


def read(data: bytes) -> Head | Reject | None:
    return read_head(data, PEER, is_secure=False)


def test_a_sound_handshake_is_read() -> None:
    found = read(head("GET /v1/re%61ltime?model=m&a=1&a=2&blank= HTTP/1.1", X_Thing="one"))
    assert isinstance(found, Head)
    assert found.request.path == "/v1/realtime"
    assert found.request.query == {"model": ["m"], "a": ["1", "2"], "blank": [""]}
    assert found.request.query_one("a") == "2"
    assert found.request.query_one("none") is None
    assert found.request.headers["x-tHiNg"] == "one"
    assert found.request.peer == PEER
    assert found.websocket_key == KEY


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "UPGRADE"])
def test_connection_may_hold_more_than_upgrade(connection: str) -> None:
    """Firefox sends ``keep-alive, Upgrade``; picows alone would refuse it."""
    assert isinstance(read(head(Connection=connection)), Head)


def test_subprotocols_are_read_from_all_their_lines() -> None:
    data = head(Sec_WebSocket_Protocol="realtime, openai-insecure-api-key.sk") + (
        b"\r\nsec-websocket-protocol: openline.v1"
    )
    found = read(data)
    assert isinstance(found, Head)
    assert found.request.subprotocols == ("realtime", "openai-insecure-api-key.sk", "openline.v1")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(Sec_WebSocket_Version="12"), 426),
        (head(Sec_WebSocket_Version=None), 426),
        (head(Sec_WebSocket_Key=None), 400),
        (head(Sec_WebSocket_Key="c2hvcnQ="), 400),
        (head(Sec_WebSocket_Key="not base64 at all"), 400),
        (head(Sec_WebSocket_Key="\xe9\xe9"), 400),
        (head(Connection="keep-alive"), 400),
        (head(Connection=None), 400),
        (head(Content_Length="5"), 400),
        (head(Transfer_Encoding="chunked"), 400),
        (head("POST /v1/realtime HTTP/1.1"), 400),
        (head("GET /v1/realtime HTTP/1.0"), 400),
        (head("GET /?" + "&".join(f"q{n}=1" for n in range(51)) + " HTTP/1.1"), 400),
    ],
)
def test_a_wrong_handshake_is_refused(data: bytes, status: int) -> None:
    found = read(data)
    assert isinstance(found, Reject)
    assert found.status == status


def test_a_wrong_version_is_told_the_right_one() -> None:
    found = read(head(Sec_WebSocket_Version="8"))
    assert isinstance(found, Reject)
    assert ("Sec-WebSocket-Version", "13") in found.headers


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a",
        b"POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 5",
        head(Upgrade="h2c"),
        head("nonsense"),
        b"GET / HTTP/1.1\r\nno colon here",
        b"GET / HTTP/1.1\r\n folded: line",
        b"GET / HTTP/1.1\r\n" + b"\r\n".join(b"a: b" for _ in range(101)),
        b"",
    ],
)
def test_everything_else_is_left_to_http(data: bytes) -> None:
    assert read(data) is None


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    assert isinstance(read(data), Head | Reject | None)


@given(st.text(st.characters(max_codepoint=255), max_size=60), st.sampled_from(sorted(SOUND)))
def test_no_header_value_breaks_the_reader(value: str, name: str) -> None:
    assert isinstance(read(head(**{name.replace("-", "_"): value})), Head | Reject | None)


def test_picows_is_given_nothing_of_the_clients_head() -> None:
    found = read(head("GET /v1/realtime?token=secret HTTP/1.1", Authorization="Bearer secret"))
    assert isinstance(found, Head)
    assert b"secret" not in canonical_head(found.websocket_key)


def test_a_refusal_is_a_whole_response() -> None:
    data = response_bytes(Reject(503, "overloaded", "Too many.", headers=(("Retry-After", "1"),)))
    top, _, body = data.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert f"Content-Length: {len(body)}".encode() in top
    assert b"Retry-After: 1" in top
    assert body == (
        b'{"error":{"message":"Too many.","type":"server_error","code":"overloaded","param":null}}'
    )
