"""Client secrets (``ek_…``): short-lived credentials that a backend makes for a browser.

``POST /v1/realtime/client_secrets`` as openai-protocols.md B.2 has it. A secret opens any number of
sessions until it expires; a session may outlive it. The store sees its SHA-256, never the secret.
Pure but for the two functions at the end, which take the store.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import msgspec

from openline.errors import ClientProtocolError
from openline.server.auth import SECRET_PREFIX

SPACE = "client_secrets"
"""Name space of the secrets among the store's small values."""
RANDOM_BYTES = 16
MIN_SECONDS, MAX_SECONDS, DEFAULT_SECONDS = 10, 7200, 600
SESSION_TYPES = ("realtime", "transcription")
_REQUEST_FIELDS = ("expires_after", "session")


class ValueStore(Protocol):
    """The part of SessionLog that secrets need."""

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None: ...

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None: ...


class StoredSecret(msgspec.Struct, frozen=True):
    """What the store holds of a secret. ``session``: the full session object it opens with, JSON."""

    tenant: str
    expires_ms: int
    session: msgspec.Raw


@dataclass(frozen=True, slots=True)
class SecretRequest:
    """``session``: the caller's session object as JSON, ``{"type": "realtime"}`` when it gave none."""

    seconds: int
    session: bytes


def parse_request(body: bytes) -> SecretRequest:
    """Check a request body ("" is an empty object). Raises ClientProtocolError with OpenAI's code and param.

    The session object is not looked into beyond its ``type``: the session layer knows its fields.
    """
    request = _object(body or b"{}", param=None)
    for name in request:
        if name not in _REQUEST_FIELDS:
            raise ClientProtocolError(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    seconds = DEFAULT_SECONDS
    if "expires_after" in request:
        seconds = _seconds(bytes(request["expires_after"]))
    session = b'{"type":"realtime"}'
    if "session" in request:
        session = bytes(request["session"])
        kind = msgspec.json.decode(_object(session, param="session").get("type", msgspec.Raw(b'"realtime"')))
        if kind not in SESSION_TYPES:
            raise _invalid("session.type", "expected 'realtime' or 'transcription'")
    return SecretRequest(seconds, session)


def mint(random: bytes) -> str:
    """``ek_`` and 32 hex digits, out of 16 random bytes."""
    assert len(random) == RANDOM_BYTES, f"expected {RANDOM_BYTES} random bytes, got {len(random)}"
    return SECRET_PREFIX + random.hex()


def storage_key(secret: str) -> str:
    """SHA-256 of the secret, hex: what the store knows it by."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def response_body(secret: str, expires_ms: int, session: bytes) -> bytes:
    """The 200 body. ``session`` is the full session object; ``expires_at`` is in Unix seconds."""
    return msgspec.json.encode(
        {"value": secret, "expires_at": expires_ms // 1000, "session": msgspec.Raw(session)}
    )


async def store_secret(values: ValueStore, secret: str, stored: StoredSecret) -> None:
    """Durable when it returns. A crash before that leaves a secret that nobody was told."""
    await values.put_value(
        SPACE, storage_key(secret), msgspec.json.encode(stored), expires_ms=stored.expires_ms
    )


async def find_secret(values: ValueStore, secret: str, now_ms: int) -> StoredSecret | None:
    """None when it is unknown or has expired at ``now_ms``."""
    value = await values.get_value(SPACE, storage_key(secret), now_ms=now_ms)
    if value is None:
        return None
    stored = msgspec.json.decode(value, type=StoredSecret)
    return stored if now_ms < stored.expires_ms else None


def _seconds(raw: bytes) -> int:
    expires_after = _object(raw, param="expires_after")
    for name in expires_after:
        if name not in ("anchor", "seconds"):
            param = f"expires_after.{name}"
            raise ClientProtocolError(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)
    if msgspec.json.decode(expires_after.get("anchor", msgspec.Raw(b'"created_at"'))) != "created_at":
        raise _invalid("expires_after.anchor", "expected 'created_at'")
    try:
        seconds = msgspec.json.decode(
            expires_after.get("seconds", msgspec.Raw(str(DEFAULT_SECONDS).encode())), type=int
        )
    except msgspec.DecodeError:
        seconds = 0
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise _invalid("expires_after.seconds", f"expected an integer from {MIN_SECONDS} to {MAX_SECONDS}")
    return seconds


def _object(raw: bytes, *, param: str | None) -> dict[str, msgspec.Raw]:
    try:
        # Twice: the first pass checks all of it, which Raw fields alone would not.
        msgspec.json.decode(raw)
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        what = f"Invalid value for '{param}'" if param else "Invalid request body"
        raise ClientProtocolError(
            f"{what}: expected a JSON object.", code="invalid_value" if param else "invalid_json", param=param
        ) from error


def _invalid(param: str, expected: str) -> ClientProtocolError:
    return ClientProtocolError(f"Invalid value for '{param}': {expected}.", code="invalid_value", param=param)
