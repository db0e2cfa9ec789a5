"""Client secrets: the request, the secret, the response, the store."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.errors import ClientProtocolError
from openline.server import secrets
from server_fakes import NOW_MS, MemoryValues


def test_an_empty_request_gets_the_defaults() -> None:
    for body in (b"", b"{}"):
        asked = secrets.parse_request(body)
        assert (asked.seconds, asked.session) == (600, b'{"type":"realtime"}')


def test_the_session_is_kept_as_it_came() -> None:
    session = b'{"type": "transcription",  "unknown": [1, 2.50]}'
    asked = secrets.parse_request(
        b'{"expires_after":{"anchor":"created_at","seconds":10},"session":%b}' % session
    )
    assert (asked.seconds, asked.session) == (10, session)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"[]", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"\xff", "invalid_json", None),
        (b'{"a":1}', "unknown_parameter", "a"),
        (b'{"expires_after":5}', "invalid_value", "expires_after"),
        (b'{"expires_after":{"seconds":9}}', "invalid_value", "expires_after.seconds"),
        (b'{"expires_after":{"seconds":7201}}', "invalid_value", "expires_after.seconds"),
        (b'{"expires_after":{"seconds":"60"}}', "invalid_value", "expires_after.seconds"),
        (b'{"expires_after":{"seconds":true}}', "invalid_value", "expires_after.seconds"),
        (b'{"expires_after":{"seconds":60.5}}', "invalid_value", "expires_after.seconds"),
        (b'{"expires_after":{"anchor":"now"}}', "invalid_value", "expires_after.anchor"),
        (b'{"expires_after":{"until":1}}', "unknown_parameter", "expires_after.until"),
        (b'{"session":"x"}', "invalid_value", "session"),
        (b'{"session":{"type":"chat"}}', "invalid_value", "session.type"),
        (b'{"session":{"type":{}}}', "invalid_value", "session.type"),
        (b"[" * 100_000, "invalid_json", None),
    ],
)
def test_a_wrong_request_says_which_part(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(ClientProtocolError) as error:
        secrets.parse_request(body)
    assert (error.value.code, error.value.param) == (code, param)


@given(
    st.binary(max_size=100)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
        lambda value: json.dumps({"session": value, "expires_after": value}).encode()
    )
)
def test_no_body_raises_anything_else(body: bytes) -> None:
    try:
        secrets.parse_request(body)
    except ClientProtocolError as error:
        assert error.code in {"invalid_json", "invalid_value", "unknown_parameter"}


def test_a_secret_has_the_form_that_clients_know() -> None:
    secret = secrets.mint(bytes(range(16)))
    assert secret == "ek_000102030405060708090a0b0c0d0e0f"
    body = json.loads(secrets.response_body(secret, NOW_MS + 600_000, b'{"type":"realtime"}'))
    assert body == {"value": secret, "expires_at": NOW_MS // 1000 + 600, "session": {"type": "realtime"}}


def test_the_store_never_sees_the_secret_and_forgets_it_in_time() -> None:
    async def story() -> None:
        values = MemoryValues()
        secret = secrets.mint(b"0123456789abcdef")
        stored = secrets.StoredSecret("acme", NOW_MS + 1000, msgspec.Raw(b'{"type":"realtime"}'))
        await secrets.store_secret(values, secret, stored)
        assert secret not in repr(values.stored)
        found = await secrets.find_secret(values, secret, NOW_MS)
        assert found is not None
        assert (found.tenant, bytes(found.session)) == ("acme", b'{"type":"realtime"}')
        assert await secrets.find_secret(values, secret, NOW_MS + 1000) is None
        assert await secrets.find_secret(values, secret + "0", NOW_MS) is None

    asyncio.run(story())


def test_a_store_that_forgets_too_late_does_not_help_a_late_client() -> None:
    class Forgetless(MemoryValues):
        async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
            return await super().get_value(space, key)

    async def story() -> None:
        values = Forgetless()
        stored = secrets.StoredSecret("acme", NOW_MS + 1000, msgspec.Raw(b"{}"))
        await secrets.store_secret(values, "ek_1", stored)
        values.stored = {key: (value, 0) for key, (value, _) in values.stored.items()}
        assert await secrets.find_secret(values, "ek_1", NOW_MS + 999) is not None
        assert await secrets.find_secret(values, "ek_1", NOW_MS + 1000) is None

    asyncio.run(story())
