"""One port for WebSocket and HTTP, on real sockets, with clients that behave and clients that do not."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from openline.errors import ConfigError
from openline.server.admission import Admission, admit
from openline.server.auth import ApiKey, AuthPolicy
from openline.server.handover import HttpSettings
from openline.server.listener import serve, server_tls
from openline.server.problem import Reject
from openline.server.socket import ClientSocket
from openline.server.upgrade import MAX_HEAD_BYTES, Accept, Decision, UpgradeRequest
from server_fakes import (
    HANDSHAKE,
    LOOPS,
    TEXT,
    FakeGateway,
    RawClient,
    Recorder,
    Sockets,
    frame,
    listening,
    run_on,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)


async def _echo(request: Request) -> Response:
    return PlainTextResponse(await request.body() or b"hello")


APP = Starlette(routes=[Route("/echo", _echo, methods=["GET", "POST"])])


def test_http_and_websocket_share_a_port(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets, app=APP) as listener:
            base = f"127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=f"http://{base}") as http:
                for _ in range(3):  # on one kept connection
                    assert (await http.get("/echo")).text == "hello"
                    assert (await http.post("/echo", content=b"z" * 200_000)).content == b"z" * 200_000
                assert listener.connections == 1
                async with websockets.connect(f"ws://{base}/v1/realtime") as client:
                    recorder = await sockets.next()
                    await client.send("x" * 200_000)
                    assert len((await recorder.next("text"))[1]) == 200_000
                    recorder.socket.send_text(b"y" * 200_000)
                    assert len(await client.recv()) == 200_000
                    assert (await http.get("/echo")).text == "hello"
                    assert (listener.connections, listener.websockets) == (2, 1)
                assert await recorder.next("close") == ("close", 1000, "", True)
                assert (await http.get("/none")).status_code == 404

    run_on(loop, story())


def _certificate(folder: Path) -> tuple[Path, Path]:
    if which("openssl") is None:
        pytest.skip("the openssl command, which makes the test's certificate, is not installed")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    return cert, key


def test_tls_carries_both(loop: str, tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)

    async def story() -> None:
        sockets = Sockets()
        trust = ssl.create_default_context(cafile=str(cert))
        async with listening(sockets, app=APP, tls=server_tls(cert, key)) as listener:
            base = f"127.0.0.1:{listener.port}"
            async with httpx.AsyncClient(base_url=f"https://{base}", verify=trust) as http:
                assert (await http.post("/echo", content=b"z" * 200_000)).content == b"z" * 200_000
                assert (await http.get("/echo")).text == "hello"
            async with websockets.connect(f"wss://{base}/v1/realtime", ssl=trust) as client:
                recorder = await sockets.next()
                await client.send("x" * 200_000)
                assert len((await recorder.next("text"))[1]) == 200_000
                recorder.socket.send_text(b"y" * 200_000)
                assert len(await client.recv()) == 200_000

    run_on(loop, story())


def test_wrong_tls_files_are_named(loop: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tls-cert: expected a PEM file"):
        server_tls(tmp_path / "none.pem", tmp_path / "none.key")
    for name in ("a.pem", "a.key"):
        (tmp_path / name).write_text("nothing")
    with pytest.raises(ConfigError, match="not a PEM certificate and its key"):
        server_tls(tmp_path / "a.pem", tmp_path / "a.key")


def _gated(policy: AuthPolicy, gateway: FakeGateway) -> Callable[[UpgradeRequest], Awaitable[Decision]]:
    async def accept(request: UpgradeRequest) -> Decision:
        await asyncio.sleep(0)  # as a look into the store would
        outcome = await admit(request, policy, gateway)
        if isinstance(outcome, Reject):
            return outcome
        assert isinstance(outcome, Admission)
        return Accept(Recorder, outcome.subprotocol, headers=(("X-Openline", "1"),))

    return accept


KEY = "sk-test-0123456789"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/realtime", {}, 401),
        ("/v1/realtime", {"Authorization": "Bearer wrong"}, 401),
        ("/v1/other", {"Authorization": f"Bearer {KEY}"}, 404),
    ],
)
def test_a_refused_handshake_is_a_plain_response(
    loop: str, path: str, headers: dict[str, str], status: int
) -> None:
    async def story() -> None:
        gateway = FakeGateway()
        policy = AuthPolicy((ApiKey.of("a", KEY),))
        async with listening(_gated(policy, gateway)) as listener:
            with pytest.raises(websockets.InvalidStatus) as error:
                await websockets.connect(f"ws://127.0.0.1:{listener.port}{path}", additional_headers=headers)
            response = error.value.response
            assert response.status_code == status
            assert response.headers["Content-Type"] == "application/json"
            assert b'"error":{"message"' in bytes(response.body or b"")

    run_on(loop, story())


def test_a_foreign_page_is_403_and_a_key_in_a_subprotocol_is_not_echoed(loop: str) -> None:
    async def story() -> None:
        gateway = FakeGateway()
        async with listening(_gated(AuthPolicy(), gateway)) as listener:
            with pytest.raises(websockets.InvalidStatus) as error:
                await websockets.connect(
                    f"ws://127.0.0.1:{listener.port}/v1/realtime",
                    origin=websockets.Origin("https://evil.example"),
                )
            assert error.value.response.status_code == 403
        async with listening(_gated(AuthPolicy((ApiKey.of("a", KEY),)), gateway)) as listener:
            url = f"ws://127.0.0.1:{listener.port}/v1/realtime"
            offered = [
                websockets.Subprotocol(name) for name in ("realtime", f"openai-insecure-api-key.{KEY}")
            ]
            async with websockets.connect(
                url, subprotocols=offered, origin=websockets.Origin("https://app.example")
            ) as client:
                assert client.subprotocol == "realtime"
                assert client.response is not None
                assert client.response.headers["X-Openline"] == "1"
                assert KEY not in str(client.response.headers)
                assert "Sec-WebSocket-Extensions" not in client.response.headers

    run_on(loop, story())


def test_a_frame_behind_the_handshake_is_not_lost(loop: str) -> None:
    """The client may send before it has seen the 101: in the same packet, and while we still decide."""

    async def story() -> None:
        sockets = Sockets()
        go_on = asyncio.Event()

        async def slow(request: UpgradeRequest) -> Decision:
            await go_on.wait()
            return sockets(request)

        for accept in (sockets, slow):
            async with (
                listening(accept) as listener,
                await RawClient.open(listener.port, HANDSHAKE + frame(TEXT, b"first")) as client,
            ):
                client.send(frame(TEXT, b"second" * 2000))
                go_on.set()
                recorder = await sockets.next()
                assert await recorder.next("text") == ("text", b"first")
                assert await recorder.next("text") == ("text", b"second" * 2000)
                assert (await client.head()).startswith(b"HTTP/1.1 101")
                recorder.socket.abort()
                await recorder.next("close")

    run_on(loop, story())


def test_a_head_may_come_byte_by_byte(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.open(listener.port, b"") as client:
            for byte in HANDSHAKE:
                client.send(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.head()).startswith(b"HTTP/1.1 101")

    run_on(loop, story())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on a plain port
        (b"\x00\xff\xfe garbage", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 12"), 426),
        (HANDSHAKE.replace(b"GET", b"POST"), 400),
    ],
    ids=["tls", "garbage", "ssh", "version", "endless", "large", "old-websocket", "post"],
)
def test_a_bad_head_is_answered_and_the_line_closed(loop: str, data: bytes, status: int) -> None:
    async def story() -> None:
        async with listening(Sockets()) as listener, await RawClient.open(listener.port, data) as client:
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:60]
            assert b'"error":' in answer

    run_on(loop, story())


def test_a_slow_head_is_cut_off(loop: str) -> None:
    async def story() -> None:
        async with listening(Sockets(), head_timeout_s=0.1) as listener:
            async with await RawClient.open(listener.port, HANDSHAKE[:40]) as client:
                assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
            async with await RawClient.open(listener.port, b"") as silent:
                assert await silent.rest() == b"", "a spare connection asked for nothing and is told nothing"

    run_on(loop, story())


def test_later_heads_on_a_kept_connection_are_bounded_too(loop: str) -> None:
    async def story() -> None:
        http = HttpSettings(head_timeout_s=0.1)
        async with listening(Sockets(), app=APP, http=http) as listener:
            first = b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for second, status in ((b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000, 431), (b"GET / HT", 408)):
                async with await RawClient.open(listener.port, first) as client:
                    await client.reader.readuntil(b"hello")
                    client.send(second)
                    assert (await client.rest()).startswith(b"HTTP/1.1 %d " % status)

    run_on(loop, story())


def test_a_reader_that_stalls_is_dropped(loop: str) -> None:
    """Without this an event stream to a client that never reads would be held for ever."""

    async def story() -> None:
        ended = asyncio.Event()

        async def endless(request: Request) -> Response:
            async def chunks() -> Any:
                try:
                    while True:
                        yield b"x" * 65536
                        await asyncio.sleep(0)
                finally:
                    ended.set()

            return StreamingResponse(chunks())

        app = Starlette(routes=[Route("/", endless)])
        async with (
            listening(Sockets(), app=app, http=HttpSettings(stall_s=0.2)) as listener,
            await RawClient.open(listener.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as client,
        ):
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport
            async with asyncio.timeout(5):
                await ended.wait()

    run_on(loop, story())


def test_connections_are_bounded(loop: str) -> None:
    async def story() -> None:
        async with listening(Sockets(), max_connections=2) as listener:
            async with await RawClient.connect(listener.port), await RawClient.connect(listener.port):
                async with await RawClient.open(listener.port, HANDSHAKE) as third:
                    assert (await third.rest()).startswith(b"HTTP/1.1 503 ")
                assert listener.refused_connections == 1
            async with asyncio.timeout(5):
                while listener.connections:
                    await asyncio.sleep(0.001)
            async with await RawClient.connect(listener.port):
                pass

    run_on(loop, story())


def test_close_stops_accepting_and_lets_the_rest_go_on(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets, app=APP) as listener:
            async with (
                await RawClient.connect(listener.port) as client,
                await RawClient.open(listener.port, b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n") as kept,
                await RawClient.open(listener.port, b"") as silent,
            ):
                recorder = await sockets.next()
                await kept.reader.readuntil(b"hello")
                listener.close()
                listener.close()  # idempotent
                assert await kept.rest() == b""
                assert await silent.rest() == b""
                with pytest.raises(OSError):
                    await RawClient.open(listener.port)
                client.send(frame(TEXT, b"still here"))
                assert await recorder.next("text") == ("text", b"still here")
                closed = asyncio.ensure_future(listener.wait_closed())
                await asyncio.sleep(0)
                assert not closed.done()
                recorder.socket.close(4503, "draining")
                assert await client.read_close() == 4503
            await closed

    run_on(loop, story())


@pytest.mark.parametrize("where", ["decision", "coroutine", "factory"])
def test_a_decision_that_fails_is_a_500(loop: str, where: str, caplog: pytest.LogCaptureFixture) -> None:
    def factory(socket: ClientSocket) -> Recorder:
        raise RuntimeError("boom")

    async def later() -> Decision:
        raise RuntimeError("boom")

    def accept(request: UpgradeRequest) -> Decision | Awaitable[Decision]:
        if where == "decision":
            raise RuntimeError("boom")
        return later() if where == "coroutine" else Accept(factory)

    async def story() -> None:
        async with listening(accept) as listener, await RawClient.open(listener.port) as client:
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"boom" not in answer

    run_on(loop, story())
    assert "RuntimeError" in caplog.text


def test_a_client_that_leaves_during_the_decision_cancels_it(loop: str) -> None:
    async def story() -> None:
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def accept(request: UpgradeRequest) -> Decision:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            raise AssertionError("unreachable")

        async with listening(accept, head_timeout_s=0.2) as listener:
            async with await RawClient.open(listener.port):
                await asked.wait()
            async with asyncio.timeout(5):
                await cancelled.wait()

    run_on(loop, story())


def test_an_address_in_use_is_a_config_error(loop: str) -> None:
    async def story() -> None:
        async with listening(Sockets()) as listener:
            with pytest.raises(ConfigError, match="cannot listen on 127.0.0.1"):
                await serve(APP, Sockets(), "127.0.0.1", listener.port)
        with pytest.raises(ConfigError, match="expected an address or a name"):
            await serve(APP, Sockets(), "no such host.invalid", 0)

    run_on(loop, story())


def test_a_name_with_two_addresses_gets_one_port(loop: str) -> None:
    async def story() -> None:
        listener = await serve(APP, Sockets(), "localhost", 0)
        started = time.monotonic()
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{listener.port}/echo")).text == "hello"
        listener.abort()
        async with asyncio.timeout(5):
            await listener.wait_closed()
        assert time.monotonic() - started < 5

    run_on(loop, story())
