"""The gateway's decision on a WebSocket handshake and the check before an HTTP request: one set of rules.

``auth`` knows the rules, this module asks the store where a rule needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from openline.server.auth import (
    OPENLINE_SUBPROTOCOL,
    AuthPolicy,
    Principal,
    check_origin,
    find_credential,
    is_beta,
    is_client_secret,
    refuse_credential,
    select_subprotocol,
)
from openline.server.problem import Reject
from openline.server.secrets import StoredSecret
from openline.server.upgrade import UpgradeRequest

RESPONSES_PATH = "/v1/responses"
SOCKET_PATHS = frozenset({"/v1/realtime", RESPONSES_PATH})


class CredentialLookup(Protocol):
    """What only the store knows. Both are awaited during the handshake, with the socket not read."""

    async def client_secret(self, secret: str) -> StoredSecret | None:
        """None when unknown or expired."""

    async def resume_tenant(self, session_id: str, token: str) -> str | None:
        """The tenant of a session that ``token`` may attach to; None when the token is not valid for it."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A handshake that may become a session.

    ``openline``: the client opted in to ``openline.*`` frames. ``is_beta``: answer with the error
    ``beta_api_shape_disabled`` and close 4000. ``resume_token``: what the client resumes with, "" for
    none; with ``principal.kind`` "resume" it has been checked, else it has not.
    """

    principal: Principal
    subprotocol: str | None
    openline: bool
    is_beta: bool
    resume_token: str


async def admit(
    request: UpgradeRequest,
    policy: AuthPolicy,
    lookup: CredentialLookup,
    paths: frozenset[str] = SOCKET_PATHS,
) -> Admission | Reject:
    """404 for an unknown path, 401 without a valid credential, 403 for a foreign page, else an Admission."""
    path = request.path.rstrip("/") or "/"
    if path not in paths:
        known = ", ".join(sorted(paths))
        return Reject(404, "unknown_path", f"Expected a WebSocket on {known}.")
    token = request.query_one("token") or request.headers.get("openline-resume", "").strip()
    principal = await authenticate(policy, request.headers, lookup, request.subprotocols)
    if isinstance(principal, Reject):
        session_id = request.query_one("session_id")
        tenant = await lookup.resume_tenant(session_id, token) if session_id and token else None
        if tenant is None:
            return principal
        principal = Principal(tenant, "resume")
    foreign = check_origin(policy, request.headers, principal)
    if foreign is not None:
        return foreign
    return Admission(
        principal=principal,
        subprotocol=select_subprotocol(request.subprotocols),
        openline=request.query_one("openline") == "1" or OPENLINE_SUBPROTOCOL in request.subprotocols,
        is_beta=is_beta(request.headers, request.subprotocols),
        resume_token=token,
    )


async def authenticate(
    policy: AuthPolicy,
    headers: Mapping[str, str],
    lookup: CredentialLookup,
    subprotocols: tuple[str, ...] = (),
) -> Principal | Reject:
    """Who sends this. Without configured keys any key will do (stock clients insist on sending one).

    An ``ek_`` secret must be a valid one even then: its sender counts on the session it stands for.
    """
    credential = find_credential(headers, subprotocols)
    if credential is not None and is_client_secret(credential):
        stored = await lookup.client_secret(credential)
        if stored is None:
            return refuse_credential(credential)
        return Principal(stored.tenant, "client_secret", session=bytes(stored.session))
    if policy.is_open:
        return Principal("default", "open")
    key = policy.find_key(credential) if credential is not None else None
    if key is None:
        return refuse_credential(credential)
    return Principal(key.tenant, "api_key", key.name)
