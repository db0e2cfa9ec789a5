"""Who may come in: API keys, client secrets, resume tokens, and which web pages.

Pure: secrets and tokens are looked up by the caller. Keys are held as SHA-256 digests and compared in
constant time; no key, token or offered subprotocol list is ever logged, echoed or put into an error.

The API knows no cookies, so a foreign page has nothing to ride on where keys are set. The danger is the
gateway without keys on a developer's machine, which any page in the browser could reach: there, pages of
other origins are refused, and so is a ``Host`` that is not this machine (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from openline.errors import ConfigError
from openline.server.problem import Reject

KEY_SUBPROTOCOL = "openai-insecure-api-key."
BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
REALTIME_SUBPROTOCOL = "realtime"
OPENLINE_SUBPROTOCOL = "openline.v1"
SECRET_PREFIX = "ek_"
MIN_KEY_CHARS = 8
MAX_CREDENTIAL_CHARS = 512
"""Longer ones are not hashed: they cannot be ours (``ek_`` secrets have 35 characters)."""

_KEY = re.compile(r"[!-~]+")
_LOOPBACK_NAMES = frozenset({"localhost", "localhost."})

PrincipalKind = Literal["api_key", "client_secret", "resume", "open"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request acts for. ``name``: the key's name in the settings, for logs; never the key.

    ``open``: no key is configured and the bind is loopback. ``session``: the session object that a client
    secret was made with (JSON), b"" otherwise.
    """

    tenant: str
    kind: PrincipalKind
    name: str = ""
    session: bytes = b""

    @property
    def may_control(self) -> bool:
        """True for the control API; client secrets and resume tokens open a WebSocket and nothing else."""
        return self.kind in ("api_key", "open")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of the settings. Make it with ``ApiKey.of``; the key itself is not kept."""

    name: str
    tenant: str
    digest: bytes

    @classmethod
    def of(cls, name: str, secret: str, tenant: str = "default") -> ApiKey:
        """Raises ConfigError for a key that is too short or cannot travel in a header."""
        if len(secret) < MIN_KEY_CHARS or len(secret) > MAX_CREDENTIAL_CHARS or not _KEY.fullmatch(secret):
            raise ConfigError(
                f"api_keys.{name}: expected {MIN_KEY_CHARS} to {MAX_CREDENTIAL_CHARS} printable ASCII characters"
                f" without spaces; got {len(secret)} characters.",
                hint="Make one with: python3 -c 'import secrets; print(\"sk-\" + secrets.token_hex(24))'",
            )
        if secret.startswith(SECRET_PREFIX):
            raise ConfigError(
                f"api_keys.{name}: '{SECRET_PREFIX}' begins client secrets; choose another key."
            )
        return cls(name, tenant, _digest(secret))


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """``keys`` empty: everybody on this machine may do everything (see ``check_bind``).

    ``allowed_origins``: web origins (``https://app.example``) whose pages may come in without a key of
    their own; "*" allows all. Pages of the gateway itself always may.
    """

    keys: tuple[ApiKey, ...] = ()
    allowed_origins: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_open(self) -> bool:
        return not self.keys

    def find_key(self, credential: str) -> ApiKey | None:
        """The key that ``credential`` is. Compares with all of them, so that time tells nothing."""
        digest = _digest(credential)
        found: ApiKey | None = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def check_bind(host: str, keys: Sequence[ApiKey]) -> None:
    """Raises ConfigError for an address that others can reach while no API key is configured."""
    if keys or is_loopback(host):
        return
    raise ConfigError(
        f"host: openline refuses public bind without an API key; got '{host or 'every address'}' and no key.",
        hint="Set an API key, or bind to 127.0.0.1.",
    )


def is_loopback(host: str) -> bool:
    """True for loopback addresses and ``localhost``. Any other name counts as public: it may change."""
    name = host.strip().lower().strip("[]")
    if name in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def find_credential(headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> str | None:
    """The key or secret that a request carries, or None.

    In this order: ``Authorization: Bearer``, ``api-key`` (Azure), ``X-API-Key``, subprotocol
    ``openai-insecure-api-key.…`` (all that a browser can send). Over-long ones are returned as "",
    which matches nothing.
    """
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    found = token.strip() if scheme.lower() == "bearer" else ""
    found = found or headers.get("api-key", "").strip() or headers.get("x-api-key", "").strip()
    if not found:
        offered = (name for name in subprotocols if name.startswith(KEY_SUBPROTOCOL))
        found = next(offered, "").removeprefix(KEY_SUBPROTOCOL)
    if not found:
        return None
    return found if len(found) <= MAX_CREDENTIAL_CHARS else ""


def is_client_secret(credential: str) -> bool:
    return credential.startswith(SECRET_PREFIX)


def refuse_credential(credential: str | None) -> Reject:
    """The 401 for a missing or a wrong credential, in OpenAI's codes; it does not repeat what was sent."""
    headers = (("WWW-Authenticate", 'Bearer realm="openline"'),)
    if credential is None:
        message = "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'."
        return Reject(401, "missing_api_key", message, kind="invalid_request_error", headers=headers)
    message = (
        "The client secret is unknown or has expired. Make a new one with POST /v1/realtime/client_secrets."
        if is_client_secret(credential)
        else "Incorrect API key provided."
    )
    return Reject(401, "invalid_api_key", message, kind="invalid_request_error", headers=headers)


def select_subprotocol(offered: Iterable[str]) -> str | None:
    """``realtime`` if offered, else ``openline.v1`` if offered, else None. Never one that carries a key."""
    names = tuple(offered)
    for ours in (REALTIME_SUBPROTOCOL, OPENLINE_SUBPROTOCOL):
        if ours in names:
            return ours
    return None


def is_beta(headers: Mapping[str, str], subprotocols: Iterable[str] = ()) -> bool:
    """True when the client asks for the Realtime API's beta form, which no longer exists."""
    features = (part.strip().lower() for part in headers.get("openai-beta", "").split(","))
    return "realtime=v1" in features or BETA_SUBPROTOCOL in tuple(subprotocols)


def check_origin(policy: AuthPolicy, headers: Mapping[str, str], principal: Principal) -> Reject | None:
    """Refuse a page that has no business here; None lets it pass.

    A credential of its own (key, client secret, resume token) is proof enough. Without one, which is the
    open gateway, the page must be the gateway's own or be allowed by name, and ``Host`` must be a
    loopback name or that of an allowed origin.
    """
    if principal.kind != "open" or "*" in policy.allowed_origins:
        return None
    origin = headers.get("origin")
    if origin is not None and origin in policy.allowed_origins:
        return None
    host = headers.get("host", "")
    allowed_hosts = {urlsplit(allowed).netloc.lower() for allowed in policy.allowed_origins}
    if not is_loopback(_host_name(host)) and host.lower() not in allowed_hosts:
        return _refuse_origin("the Host header names another machine")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return _refuse_origin("the page has another origin")
    if origin is None and headers.get("sec-fetch-site", "").lower() == "cross-site":
        return _refuse_origin("the page has another origin")
    return None


def _refuse_origin(why: str) -> Reject:
    message = f"Without an API key only pages of this gateway may use it, and {why}."
    return Reject(
        403, "origin_not_allowed", f"{message} Add the origin to allowed_origins, or set an API key."
    )


def _host_name(host: str) -> str:
    """``name``, ``name:port`` and ``[v6]:port`` without the port."""
    if host.startswith("["):
        return host.partition("]")[0].strip("[")
    return host.partition(":")[0]


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
