"""Who may come in: the rules, one by one."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest
from starlette.datastructures import Headers

from openline.errors import ConfigError
from openline.server.admission import Admission, admit
from openline.server.auth import (
    ApiKey,
    AuthPolicy,
    Principal,
    check_bind,
    check_origin,
    find_credential,
    is_beta,
    is_loopback,
    select_subprotocol,
)
from openline.server.problem import Reject
from openline.server.secrets import StoredSecret
from openline.server.upgrade import Head, UpgradeRequest, read_head

KEY = "sk-test-0123456789"
KEYED = AuthPolicy((ApiKey.of("first", "sk-other-key-1"), ApiKey.of("acme", KEY, "acme")))
OPEN = AuthPolicy()
VISITOR = Principal("default", "open")


class Lookup:
    """One valid client secret, one valid resume token."""

    async def client_secret(self, secret: str) -> StoredSecret | None:
        if secret != "ek_valid":
            return None
        return StoredSecret("acme", 1, msgspec.Raw(b'{"type":"realtime"}'))

    async def resume_tenant(self, session_id: str, token: str) -> str | None:
        return "acme" if (session_id, token) == ("sess_0123", "rt_valid") else None


def request(target: str = "/v1/realtime", **headers: str) -> UpgradeRequest:
    lines = [
        f"GET {target} HTTP/1.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(b'k' * 16).decode()}",
        *(
            f"{name.replace('_', '-')}: {value}"
            for name, value in {"Host": "localhost:80", **headers}.items()
        ),
    ]
    found = read_head("\r\n".join(lines).encode(), ("127.0.0.1", 1), is_secure=False)
    assert isinstance(found, Head)
    return found.request


def decide(policy: AuthPolicy, target: str = "/v1/realtime", **headers: str) -> Admission | Reject:
    return asyncio.run(admit(request(target, **headers), policy, Lookup()))


def admitted(*arguments: Any, **headers: str) -> Admission:
    found = decide(*arguments, **headers)
    assert isinstance(found, Admission), found
    return found


def refused(*arguments: Any, **headers: str) -> Reject:
    found = decide(*arguments, **headers)
    assert isinstance(found, Reject), found
    return found


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"api_key": KEY},
        {"X_API_Key": KEY},
        {"Sec_WebSocket_Protocol": f"realtime, openai-insecure-api-key.{KEY}"},
    ],
)
def test_a_key_is_known_wherever_clients_put_it(headers: dict[str, str]) -> None:
    principal = admitted(KEYED, **headers).principal
    assert principal == Principal("acme", "api_key", "acme")
    assert principal.may_control


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Basic abc"}, "missing_api_key"),
        ({"Authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"Authorization": "Bearer " + "x" * 600}, "invalid_api_key"),
        ({"Sec_WebSocket_Protocol": "openai-insecure-api-key.wrong"}, "invalid_api_key"),
        ({"Authorization": "Bearer ek_expired"}, "invalid_api_key"),
    ],
)
def test_without_a_valid_key_the_answer_is_401(headers: dict[str, str], code: str) -> None:
    found = refused(KEYED, **headers)
    assert (found.status, found.code) == (401, code)
    assert any(name == "WWW-Authenticate" for name, _ in found.headers)
    assert KEY not in found.body().decode()


def test_keys_are_not_kept() -> None:
    assert KEY not in repr(KEYED)


def test_every_key_is_compared_whatever_was_found() -> None:
    assert KEYED.find_key("sk-other-key-1") is KEYED.keys[0]
    assert KEYED.find_key(KEY) is KEYED.keys[1]
    assert KEYED.find_key("") is None


@pytest.mark.parametrize("secret", ["short", "with space inside", "ek_0123456789", "ümlaut-key", "x" * 600])
def test_a_key_that_cannot_work_is_a_config_error(secret: str) -> None:
    with pytest.raises(ConfigError) as error:
        ApiKey.of("main", secret)
    assert "api_keys.main" in str(error.value)
    assert secret not in str(error.value)


def test_a_client_secret_brings_its_tenant_and_session_and_no_control() -> None:
    principal = admitted(KEYED, Sec_WebSocket_Protocol="realtime, openai-insecure-api-key.ek_valid").principal
    assert principal == Principal("acme", "client_secret", session=b'{"type":"realtime"}')
    assert not principal.may_control


def test_an_expired_client_secret_is_refused_even_where_no_key_is_needed() -> None:
    assert refused(OPEN, Authorization="Bearer ek_expired").status == 401


def test_any_key_will_do_where_none_is_configured() -> None:
    """Stock clients insist on sending one."""
    assert admitted(OPEN, Authorization="Bearer whatever").principal == VISITOR
    assert admitted(OPEN).principal == VISITOR


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer ek_expired"}])
def test_a_resume_token_alone_suffices(headers: dict[str, str]) -> None:
    found = admitted(KEYED, "/v1/realtime?session_id=sess_0123&token=rt_valid", **headers)
    assert found.principal == Principal("acme", "resume")
    assert found.resume_token == "rt_valid"
    assert not found.principal.may_control
    in_header = admitted(
        KEYED, "/v1/realtime?session_id=sess_0123", **{"Openline_Resume": "rt_valid"}, **headers
    )
    assert in_header.principal.kind == "resume"


@pytest.mark.parametrize("query", ["session_id=sess_0123&token=rt_wrong", "session_id=other&token=rt_valid"])
def test_a_wrong_resume_token_does_not(query: str) -> None:
    assert refused(KEYED, f"/v1/realtime?{query}").status == 401


def test_an_unknown_path_is_404() -> None:
    assert refused(OPEN, "/v2/nothing").status == 404
    assert admitted(OPEN, "/v1/realtime/").principal == VISITOR


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        ([], None),
        (["realtime", "openai-insecure-api-key.sk"], "realtime"),
        (["openline.v1", "realtime"], "realtime"),
        (["openline.v1"], "openline.v1"),
        (["openai-insecure-api-key.sk"], None),
        (["chat"], None),
    ],
)
def test_the_key_is_never_echoed_as_subprotocol(offered: list[str], selected: str | None) -> None:
    assert select_subprotocol(offered) == selected


def test_opting_in_and_the_beta_are_noticed() -> None:
    assert not admitted(OPEN).openline
    assert admitted(OPEN, "/v1/realtime?openline=1").openline
    assert admitted(OPEN, Sec_WebSocket_Protocol="realtime, openline.v1").openline
    assert not admitted(OPEN).is_beta
    assert admitted(OPEN, OpenAI_Beta="realtime=v1").is_beta
    assert admitted(OPEN, Sec_WebSocket_Protocol="realtime, openai-beta.realtime-v1").is_beta
    assert not is_beta({"openai-beta": "assistants=v2"})


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"host": "localhost:8000"}, True),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
        ({"host": "[::1]:8000", "origin": "http://[::1]:8000"}, True),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, False),
        ({"host": "localhost:8000", "origin": "https://evil.example"}, False),
        ({"host": "localhost:8000", "origin": "null"}, False),
        ({"host": "localhost:8000", "sec-fetch-site": "cross-site"}, False),
        ({"host": "localhost:8000", "sec-fetch-site": "same-origin"}, True),
        # DNS rebinding: the page's own name points to this machine, so origin and host agree.
        ({"host": "evil.example:8000", "origin": "http://evil.example:8000"}, False),
        ({}, False),
    ],
)
def test_an_open_gateway_serves_its_own_pages_only(headers: dict[str, str], is_allowed: bool) -> None:
    found = check_origin(OPEN, Headers(headers), VISITOR)
    assert (found is None) == is_allowed
    if found is not None:
        assert (found.status, found.code) == (403, "origin_not_allowed")


def test_origins_can_be_allowed_by_name_and_keys_need_no_origin() -> None:
    foreign = Headers({"host": "localhost:8000", "origin": "https://app.example"})
    assert check_origin(AuthPolicy((), frozenset({"https://app.example"})), foreign, VISITOR) is None
    assert check_origin(AuthPolicy((), frozenset({"*"})), foreign, VISITOR) is None
    assert check_origin(AuthPolicy((), frozenset({"https://other.example"})), foreign, VISITOR) is not None
    assert check_origin(KEYED, foreign, Principal("acme", "api_key")) is None
    assert refused(OPEN, Origin="https://evil.example").status == 403


def test_the_host_of_an_allowed_origin_is_allowed_too() -> None:
    """A proxy in front of an open gateway sends its own name."""
    policy = AuthPolicy((), frozenset({"https://app.example"}))
    headers = Headers({"host": "app.example", "origin": "https://app.example"})
    assert check_origin(policy, headers, VISITOR) is None
    assert check_origin(policy, Headers({"host": "app.example"}), VISITOR) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    check_bind(host, ())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.example"])
def test_a_public_bind_needs_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="refuses public bind without an API key"):
        check_bind(host, ())
    check_bind(host, KEYED.keys)


def test_the_first_place_with_a_credential_counts() -> None:
    headers = Headers({"authorization": "Bearer one", "api-key": "two"})
    assert find_credential(headers, ("openai-insecure-api-key.three",)) == "one"
    assert find_credential(Headers({}), ("openai-insecure-api-key.three",)) == "three"
    assert find_credential(Headers({}), ("openai-insecure-api-key.",)) is None
