"""The control API over the real listener, with a gateway in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from openline.server.api import MAX_BODY_BYTES, Guard, create_app
from openline.server.auth import ApiKey, AuthPolicy
from openline.server.console_files import ConsoleFiles
from openline.server.routes import ROUTES
from openline.server.streams import Streams
from server_fakes import HANDSHAKE, NOW_MS, FakeGateway, FakeRecording, RawClient, Sockets, listening

KEY = "sk-test-0123456789"
KEYED = AuthPolicy((ApiKey.of("main", KEY), ApiKey.of("acme", "sk-acme-0123456789", "acme")))
BEARER = {"Authorization": f"Bearer {KEY}"}
SESSION = "sess_0001"

Story = Callable[[FakeGateway, httpx.AsyncClient], Awaitable[None]]


@asynccontextmanager
async def _api(
    gateway: FakeGateway, files: ConsoleFiles | None = None, streams: Streams | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(gateway, files=files, streams=streams)
    async with (
        listening(Sockets(), app=app) as listener,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.port}", timeout=5) as http,
    ):
        yield http


def tell(story: Story, auth: AuthPolicy | None = None) -> None:
    async def main() -> None:
        gateway = FakeGateway(auth)
        async with _api(gateway) as http:
            await story(gateway, http)
        assert gateway.open_iterators == 0, "every stream's source must be closed"

    asyncio.run(main())


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["message"]
    return response.status_code, error["code"], error["param"]


# --------------------------------------------------------------------------------------------------- access


def test_all_but_health_and_console_needs_a_key() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session("session_id")
        for route in ROUTES:
            path = route.path.replace("{session_id}", "session_id").replace("{file}", "none.js")
            response = await http.request(route.method, path)
            assert (response.status_code == 401) != route.is_public, path
            if not route.is_public:
                assert error_of(response)[:2] == (401, "missing_api_key")
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                wrong = await http.request(route.method, path, headers={"Authorization": "Bearer wrong"})
                assert error_of(wrong)[:2] == (401, "invalid_api_key")
                right = await http.request(route.method, path, headers=BEARER)
                assert right.status_code not in (401, 403), path
        assert error_of(await http.get("/v1/nothing"))[0] == 401, "a stranger learns nothing of unknown paths"
        assert error_of(await http.get("/v1/nothing", headers=BEARER))[:2] == (404, "unknown_path")
        assert error_of(await http.delete("/v1/sessions", headers=BEARER))[:2] == (405, "method_not_allowed")

    tell(story, KEYED)


def test_a_client_secret_opens_nothing_here() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        made = (await http.post("/v1/realtime/client_secrets", headers=BEARER)).json()
        secret = {"Authorization": f"Bearer {made['value']}"}
        assert error_of(await http.get("/v1/sessions", headers=secret))[:2] == (
            403,
            "client_secret_not_allowed",
        )
        again = await http.post("/v1/realtime/client_secrets", headers=secret)
        assert again.status_code == 403, "a secret must not make more of itself"

    tell(story, KEYED)


def test_tenants_do_not_see_each_other() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION, tenant="acme")
        acme = {"Authorization": "Bearer sk-acme-0123456789"}
        assert (await http.get(f"/v1/sessions/{SESSION}", headers=acme)).status_code == 200
        assert error_of(await http.get(f"/v1/sessions/{SESSION}", headers=BEARER))[:2] == (
            404,
            "session_not_found",
        )
        assert (await http.get("/v1/sessions", headers=BEARER)).json()["data"] == []

    tell(story, KEYED)


def test_a_foreign_page_cannot_use_an_open_gateway() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)
        evil = {"Origin": "https://evil.example"}
        response = await http.post(f"/v1/sessions/{SESSION}/end", headers=evil)
        assert error_of(response)[:2] == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in response.headers
        rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert (await http.get("/v1/sessions", headers=rebound)).status_code == 403
        assert (await http.get("/v1/sessions")).status_code == 200

    tell(story)


def test_an_allowed_origin_gets_cors_answers() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        origin = {"Origin": "https://app.example"}
        preflight = await http.options(
            "/v1/sessions",
            headers={
                **origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization",
            },
        )
        assert preflight.status_code == 200
        response = await http.get("/v1/sessions", headers={**origin, **BEARER})
        assert response.headers["access-control-allow-origin"] == "https://app.example"

    tell(story, AuthPolicy(KEYED.keys, frozenset({"https://app.example"})))


def test_the_guard_stands_before_every_route() -> None:
    app = create_app(FakeGateway(KEYED))
    assert app.user_middleware[0].cls is Guard  # type: ignore[comparison-overlap]  # a factory, in its type


# ------------------------------------------------------------------------------------------------- sessions


def test_sessions_are_listed_in_pages() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        for number in range(5):
            gateway.add_session(f"sess_000{number}", status="live" if number % 2 else "parked")
        first = (await http.get("/v1/sessions", params={"limit": 3})).json()
        assert [row["id"] for row in first["data"]] == ["sess_0004", "sess_0003", "sess_0002"]
        assert (first["has_more"], first["last_id"]) == (True, "sess_0002")
        rest = (await http.get("/v1/sessions", params={"limit": 3, "before": first["last_id"]})).json()
        assert [row["id"] for row in rest["data"]] == ["sess_0001", "sess_0000"]
        assert rest["has_more"] is False
        live = (await http.get("/v1/sessions", params={"status": "live"})).json()
        assert [row["status"] for row in live["data"]] == ["live", "live"]
        assert (await http.get("/v1/sessions", params={"status": "ended"})).json() == {
            "object": "list",
            "data": [],
            "has_more": False,
            "last_id": None,
        }
        for limit in ("0", "1001", "x", "-1", "²"):
            assert error_of(await http.get("/v1/sessions", params={"limit": limit})) == (
                400,
                "invalid_value",
                "limit",
            )

    tell(story)


def test_one_session_is_shown_ended_and_made_to_speak() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)
        gateway.add_session("sess_ended", status="ended")
        path = f"/v1/sessions/{SESSION}"
        assert (await http.get(path)).json() == {"id": SESSION}
        assert (await http.get(f"{path}/transcript")).json() == {"items": []}
        assert (await http.post(f"{path}/end")).json()["reason"] == "api"
        assert (await http.post(f"{path}/end", json={"reason": "done"})).json()["reason"] == "done"
        assert error_of(await http.post("/v1/sessions/sess_ended/end"))[:2] == (409, "session_ended")
        said = await http.post(f"{path}/say", json={"text": "Good morning.", "interrupt": True})
        assert (said.status_code, said.json()) == (202, {"accepted": True})
        assert gateway.said == [(SESSION, "Good morning.", True)]
        assert error_of(await http.get("/v1/sessions/sess_9999"))[:2] == (404, "session_not_found")
        assert error_of(await http.get("/v1/sessions/no!"))[:2] == (400, "invalid_value")

    tell(story)


def test_a_session_that_is_over_is_forgotten() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)
        gateway.add_session("sess_ended", status="ended")
        assert error_of(await http.delete(f"/v1/sessions/{SESSION}"))[:2] == (409, "session_in_use")
        gone = await http.delete("/v1/sessions/sess_ended")
        assert gone.json() == {"id": "sess_ended", "object": "openline.session", "deleted": True}
        assert error_of(await http.delete("/v1/sessions/sess_ended"))[:2] == (404, "session_not_found")

    tell(story)


@pytest.mark.parametrize(
    ("action", "body", "expected"),
    [
        ("say", b"", (400, "invalid_value", "text")),
        ("say", b'{"text":" "}', (400, "invalid_value", "text")),
        ("say", b'{"text":5}', (400, "invalid_value", "text")),
        ("say", b'{"text":"x","interrupt":1}', (400, "invalid_value", "interrupt")),
        ("say", b'{"text":"x","voice":"y"}', (400, "unknown_parameter", "voice")),
        ("say", b'{"text":"' + b"x" * 5000 + b'"}', (400, "invalid_value", "text")),
        ("say", b"[1]", (400, "invalid_json", None)),
        ("say", b"{", (400, "invalid_json", None)),
        ("say", b"\xff\xfe", (400, "invalid_json", None)),
        ("say", b"x" * (MAX_BODY_BYTES + 1), (413, "body_too_large", None)),
        ("end", b'{"reason":""}', (400, "invalid_value", "reason")),
        ("end", b'{"why":"x"}', (400, "unknown_parameter", "why")),
    ],
)
def test_a_wrong_body_says_what_is_wrong(
    action: str, body: bytes, expected: tuple[int, str, str | None]
) -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)
        response = await http.post(f"/v1/sessions/{SESSION}/{action}", content=body)
        assert error_of(response) == expected
        assert gateway.said == []

    tell(story)


# -------------------------------------------------------------------------------------------------- streams


async def _lines(response: httpx.Response, count: int) -> list[str]:
    """The first lines that are neither empty nor comments."""
    found: list[str] = []
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            found.append(line)
        if len(found) == count:
            break
    return found


def test_facts_come_as_ndjson_or_as_events() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)
        for number in range(1, 251):
            gateway.add_fact(SESSION, "openline.item.done", b'{"n":\n%d}' % number)
        path = f"/v1/sessions/{SESSION}/facts"
        response = await http.get(path)
        assert response.headers["content-type"].startswith("application/x-ndjson")
        assert response.headers["cache-control"] == "no-store"
        assert [json.loads(line)["n"] for line in response.text.splitlines()] == list(range(1, 251))
        response = await http.get(path, params={"after": "248"}, headers={"Accept": "text/event-stream"})
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text == (
            "retry: 1000\n\n"
            'id: 249\nevent: openline.item.done\ndata: {"n": 249}\n\n'
            'id: 250\nevent: openline.item.done\ndata: {"n": 250}\n\n'
        )
        back = await http.get(path, params={"after": "0"}, headers={"Last-Event-ID": "249"})
        assert len(back.text.splitlines()) == 1, "what a browser saw last counts more than its URL"
        for after in ("-1", "x", "9" * 19):
            assert error_of(await http.get(path, params={"after": after})) == (400, "invalid_value", "after")
        assert error_of(await http.get(path, params={"follow": "maybe"})) == (400, "invalid_value", "follow")
        assert error_of(await http.get("/v1/sessions/sess_none/facts"))[0] == 404

    tell(story)


def test_a_follower_sees_what_becomes_durable_and_its_leaving_is_noticed() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)
        gateway.add_fact(SESSION, "a", b'{"n":1}')
        url = f"/v1/sessions/{SESSION}/facts"
        async with http.stream("GET", url, params={"follow": "1"}) as response:
            lines = response.aiter_lines()
            assert json.loads(await anext(lines)) == {"n": 1}
            gateway.add_fact(SESSION, "b", b'{"n":2}')
            await gateway.notify()
            assert json.loads(await anext(lines)) == {"n": 2}
            assert gateway.open_iterators == 1
        async with asyncio.timeout(5):
            while gateway.open_iterators:
                await asyncio.sleep(0.001)

    tell(story)


def test_the_feed_filters_and_goes_on_after_a_cursor() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        for name in (SESSION, "sess_0002"):
            gateway.add_session(name)
            gateway.add_fact(name, "openline.turn.committed", b'{"s":"%b"}' % name.encode())
            gateway.add_fact(name, "openline.tool.started", b'{"s":"%b"}' % name.encode())
        assert len((await http.get("/v1/events")).text.splitlines()) == 4
        events = {"Accept": "text/event-stream"}
        only = {"types": "openline.turn.committed, x", "session": "sess_0002"}
        response = await http.get("/v1/events", params=only, headers=events)
        assert response.text.split("\n\n")[1] == (
            'id: c000003\nevent: openline.turn.committed\ndata: {"s":"sess_0002"}'
        )
        after = await http.get("/v1/events", params={"after": "c000003"})
        assert len(after.text.splitlines()) == 1
        assert error_of(await http.get("/v1/events", params={"after": "?"})) == (
            400,
            "invalid_cursor",
            "after",
        )
        many = ",".join(f"t{number}" for number in range(101))
        assert error_of(await http.get("/v1/events", params={"types": many}))[2] == "types"

    tell(story)


def test_a_quiet_stream_shows_that_it_lives_and_streams_are_bounded() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        gateway.add_session(SESSION)
        streams = Streams(limit=1, comment_interval_s=0.02)
        async with _api(gateway, streams=streams) as http:
            params = {"follow": "1"}
            async with http.stream(
                "GET", "/v1/events", params=params, headers={"Accept": "text/event-stream"}
            ) as response:
                chunks = response.aiter_lines()
                seen = [await anext(chunks) for _ in range(6)]
                assert seen == ["retry: 1000", "", ": alive", "", ": alive", ""]
                refused = await http.get("/v1/events")
                assert error_of(refused)[:2] == (503, "too_many_streams")
                assert refused.headers["Retry-After"] == "5"
            async with asyncio.timeout(5):
                while streams.open:
                    await asyncio.sleep(0.001)
            assert (await http.get("/v1/events")).status_code == 200

    asyncio.run(main())


def test_a_slow_reader_holds_a_batch_and_no_more() -> None:
    """Facts are pulled: what the socket does not take is not read from the store."""

    async def main() -> None:
        gateway = FakeGateway()
        gateway.add_session(SESSION)
        for _ in range(3000):
            gateway.add_fact(SESSION, "a", b'{"x":"%b"}' % (b"x" * 10_000))
        async with listening(Sockets(), gateway) as listener:
            request = b"GET /v1/sessions/%b/facts HTTP/1.1\r\nHost: localhost\r\n\r\n" % SESSION.encode()
            async with await RawClient.open(listener.port, b"") as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport
                client.send(request)
                before = -1
                while gateway.batches_read == 0 or gateway.batches_read != before:
                    before = gateway.batches_read
                    await asyncio.sleep(0.05)
                assert gateway.batches_read < 20, "of 30 batches; the rest is not read before it is wanted"
        assert gateway.open_iterators == 0

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------ recording


def test_a_recording_is_served_whole_and_in_ranges() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        data = bytes(range(256)) * 1000
        recording = FakeRecording(data, "tag")
        gateway.add_session(SESSION).recording = recording
        path = f"/v1/sessions/{SESSION}/recording.wav"
        whole = await http.get(path)
        assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/wav")
        assert whole.content == data
        assert whole.headers["accept-ranges"] == "bytes"
        assert recording.is_closed
        part = await http.get(path, headers={"Range": "bytes=100000-170000"})
        assert part.status_code == 206
        assert part.content == data[100_000:170_001]
        assert part.headers["content-range"] == f"bytes 100000-170000/{len(data)}"
        assert part.headers["content-length"] == "70001"
        tail = await http.get(path, headers={"Range": "bytes=-5", "If-Range": '"tag"'})
        assert tail.content == data[-5:]
        stale = await http.get(path, headers={"Range": "bytes=-5", "If-Range": '"old"'})
        assert (stale.status_code, len(stale.content)) == (200, len(data))
        beyond = await http.get(path, headers={"Range": f"bytes={len(data)}-"})
        assert error_of(beyond)[:2] == (416, "range_not_satisfiable")
        assert beyond.headers["content-range"] == f"bytes */{len(data)}"
        recording.is_closed = False
        same = await http.get(path, headers={"If-None-Match": '"other", "tag"'})
        assert (same.status_code, same.content) == (304, b"")
        assert recording.is_closed
        head = await http.head(path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
        gateway.add_session("sess_mute")
        assert error_of(await http.get("/v1/sessions/sess_mute/recording.wav"))[:2] == (404, "no_recording")

    tell(story)


# ------------------------------------------------------------------------------------------------- realtime


def test_a_client_secret_has_the_shape_that_clients_parse() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        body = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": {"type": "realtime"}}
        response = await http.post("/v1/realtime/client_secrets", json=body, headers=BEARER)
        assert response.status_code == 200
        made = response.json()
        assert made == {
            "value": "ek_000102030405060708090a0b0c0d0e0f",
            "expires_at": NOW_MS // 1000 + 60,
            "session": {"type": "realtime", "object": "realtime.session", "id": "sess_1"},
        }
        digest = hashlib.sha256(made["value"].encode()).hexdigest()
        assert list(gateway.values.stored) == [("client_secrets", digest)]
        assert made["value"].encode() not in repr(gateway.values.stored).encode()
        found = await gateway.client_secret(made["value"])
        assert found is not None
        assert found.tenant == "default"
        gateway.time_ms += 60_000
        assert await gateway.client_secret(made["value"]) is None
        short = await http.post(
            "/v1/realtime/client_secrets", json={"expires_after": {"seconds": 5}}, headers=BEARER
        )
        assert error_of(short) == (400, "invalid_value", "expires_after.seconds")
        bad = await http.post("/v1/realtime/client_secrets", json={"session": {"bad": 1}}, headers=BEARER)
        assert error_of(bad)[:2] == (400, "unknown_parameter")

    tell(story, KEYED)


def test_realtime_without_an_upgrade_is_426() -> None:
    async def main() -> None:
        async with listening(Sockets(), FakeGateway()) as listener:
            url = f"http://127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=url) as http:
                response = await http.get("/v1/realtime?model=m")
                assert error_of(response)[:2] == (426, "upgrade_required")
                assert response.headers["upgrade"] == "websocket"
            # A handshake on a connection that was used for HTTP before.
            async with await RawClient.open(
                listener.port, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
            ) as client:
                await client.reader.readuntil(b'{"status":"live"}')
                client.send(HANDSHAKE)
                assert (await client.rest()).startswith(b"HTTP/1.1 426 ")

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------ operation


def test_health_metrics_and_document() -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        assert (await http.get("/health/live")).json() == {"status": "live"}
        assert (await http.get("/health/ready")).json() == {"status": "ready", "reasons": []}
        gateway.not_ready = ("The disk is full.",)
        response = await http.get("/health/ready")
        assert response.status_code == 503
        assert response.json() == {"status": "not_ready", "reasons": ["The disk is full."]}
        text = await http.get("/metrics")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "openline_sessions 0\n" in text.text
        document = (await http.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        assert document["info"]["version"] == "0.0.test"

    tell(story)


def test_an_error_of_ours_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def story(gateway: FakeGateway, http: httpx.AsyncClient) -> None:
        gateway.add_session(SESSION)

        async def fail(*arguments: object) -> bytes:
            raise RuntimeError("inside story")

        gateway.transcript = fail  # type: ignore[assignment, method-assign]  # the failure is the point
        response = await http.get(f"/v1/sessions/{SESSION}/transcript")
        assert error_of(response)[:2] == (500, "internal_error")
        assert "inside" not in response.text
        assert (await http.get("/health/live")).status_code == 200

    tell(story)
    assert "RuntimeError" in caplog.text


# -------------------------------------------------------------------------------------------------- console


def test_the_console_is_served_from_memory_with_safe_headers(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "index.html").write_text("<title>Openline</title>")
    (tmp_path / "parts" / "worklet.js").write_text("registerProcessor")
    (tmp_path / ".hidden.js").write_text("no")
    (tmp_path / "notes.md").write_text("no")

    async def main() -> None:
        files = ConsoleFiles(tmp_path)
        assert len(files) == 2
        async with _api(FakeGateway(KEYED), files=files) as http:
            home = await http.get("/")
            assert (home.status_code, home.headers["location"]) == (307, "/console")
            page = home
            for path in ("/console", "/console/", "/console/index.html"):
                page = await http.get(path)
                assert page.text == "<title>Openline</title>"
                assert page.headers["content-type"] == "text/html; charset=utf-8"
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert f"connect-src 'self' ws://{http.base_url.netloc.decode()} " in policy
            assert "microphone=(self)" in page.headers["permissions-policy"]
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers["cache-control"] == "no-cache"
            script = await http.get("/console/parts/worklet.js")
            assert script.headers["content-type"] == "text/javascript; charset=utf-8"
            again = await http.get(
                "/console/parts/worklet.js", headers={"If-None-Match": script.headers["etag"]}
            )
            assert (again.status_code, again.content) == (304, b"")
            for path in (
                "/console/.hidden.js",
                "/console/notes.md",
                "/console/%2e%2e/api.py",
                "/console/parts",
            ):
                assert error_of(await http.get(path))[:2] == (404, "unknown_file")
            strange = await http.get("/console", headers={"Host": "a;script-src *"})
            assert "script-src *" not in strange.headers.get("content-security-policy", "")

    asyncio.run(main())
