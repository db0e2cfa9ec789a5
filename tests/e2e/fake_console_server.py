"""A small gateway that speaks the console's side of the contract, for browser stories. Not Openline itself.

It serves the real console files, listens to real microphone audio (loudness decides what is speech), answers
with scripted words and a made voice paced as the gateway paces, numbers its facts, and resumes a cut line from
``after``. Run it by hand to look at the console: ``python tests/e2e/fake_console_server.py 8765``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

sys.path.insert(0, str(Path(__file__).parent))
from console_story import seeded_sessions, wav
from fake_console_session import FakeSession, Json, now_ms

from openline.server.console_files import ConsoleFiles
from openline.server.problem import Refusal


class FakeConsoleServer:
    """The server on a free loopback port in a thread of its own. ``url`` is the console's address."""

    def __init__(self, *, port: int = 0, seeded: bool = True, key: str = "") -> None:
        self.key = key
        self.sessions: dict[str, FakeSession] = {}
        self.feed: list[tuple[str, Json]] = []
        self.waiters: set[asyncio.Event] = set()
        self._files = ConsoleFiles()
        self._loop: asyncio.AbstractEventLoop | None = None
        for seed in seeded_sessions(now_ms()) if seeded else ():
            session = self.new_session(seed.id, created_ms=seed.start_ms, status=seed.status)
            session.facts, session.recording, session.epoch = seed.facts, seed.recording, seed.epoch
        routes = [
            Route("/console", self._console),
            Route("/console/{name}", self._console),
            Route("/v1/sessions", self._list),
            Route("/v1/sessions/{id}", self._show),
            Route("/v1/sessions/{id}/facts", self._facts),
            Route("/v1/sessions/{id}/recording.wav", self._recording),
            Route("/v1/events", self._events),
            WebSocketRoute("/v1/realtime", self._realtime),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            port=port,
            log_level="error",
            ws="websockets-sansio",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)

    def new_session(self, session_id: str, **values: Any) -> FakeSession:
        session = self.sessions[session_id] = FakeSession(session_id, self.changed, **values)
        return session

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._server.serve()

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started:
            assert time.monotonic() < deadline, "the fake server did not start within 10 s"
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/console"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a session's coroutine on the server's own loop, from the test's thread, to its end."""
        assert self._loop is not None, "the server has not started"
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    def changed(self, session_id: str) -> None:
        self.feed.append((session_id, self.sessions[session_id].facts[-1]))
        for waiter in self.waiters:
            waiter.set()

    async def _console(self, request: Request) -> Response:
        try:
            return self._files.response(request, request.path_params.get("name", ""))
        except Refusal:
            return Response("not found", status_code=404)

    def _refusal(self, request: Request) -> Response | None:
        if not self.key or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": {"message": "missing key", "code": "invalid_api_key"}}, status_code=401)

    def _session(self, request: Request) -> FakeSession | Response:
        if refusal := self._refusal(request):
            return refusal
        session = self.sessions.get(request.path_params["id"])
        return session or JSONResponse({"error": {"message": "no such session"}}, status_code=404)

    async def _list(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        rows = sorted((s.row() for s in self.sessions.values()), key=lambda row: -row["created_ms"])
        return JSONResponse({"object": "list", "data": rows, "has_more": False})

    async def _show(self, request: Request) -> Response:
        session = self._session(request)
        return session if isinstance(session, Response) else JSONResponse(session.row())

    async def _recording(self, request: Request) -> Response:
        session = self._session(request)
        if isinstance(session, Response):
            return session
        if not session.recording:
            return JSONResponse({"error": {"message": "no recording"}}, status_code=404)
        return Response(session.recording, media_type="audio/wav")

    async def _facts(self, request: Request) -> Response:
        session = self._session(request)
        if isinstance(session, Response):
            return session
        after = int(request.query_params.get("after", "0"))

        async def stream() -> AsyncIterator[str]:
            at = after
            async for _ in self._wakes():
                while at < len(session.facts):
                    yield server_sent(session.id, session.facts[at], str(session.facts[at]["seq"]))
                    at += 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _events(self, request: Request) -> Response:
        asked = request.query_params.get("after", "0")
        after = len(self.feed) if asked == "now" else int(asked)

        async def stream() -> AsyncIterator[str]:
            at = after
            async for _ in self._wakes():
                while at < len(self.feed):
                    at += 1
                    yield server_sent(*self.feed[at - 1], str(at))

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _wakes(self) -> AsyncIterator[None]:
        waiter = asyncio.Event()
        self.waiters.add(waiter)
        try:
            while not self._server.should_exit:
                yield
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.wait(), 0.5)
                waiter.clear()
        finally:
            self.waiters.discard(waiter)

    async def _realtime(self, socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        await socket.accept("realtime" if "realtime" in offered else None)
        if self.key and f"openai-insecure-api-key.{self.key}" not in offered:
            await socket.close(4401)
            return
        session_id = socket.query_params["session_id"]
        session = self.sessions.get(session_id)
        if session is None:
            session = self.new_session(session_id)
            await session.own("openline.session.started", session=session_id, recorded=False)
            await session.own("openline.session.owned", epoch=1, node="node-a")
            await session.own("openline.link.opened", link_epoch=1, model="scripted")
        code = 1006
        try:
            await session.attach(socket, socket.query_params.get("after", ""))
            while True:
                await session.command(json.loads(await socket.receive_text()))
        except WebSocketDisconnect as gone:
            code = gone.code
        finally:
            await session.detach(socket, code)


def server_sent(session_id: str, fact: Json, cursor: str) -> str:
    """One fact as the gateway's API sends it: a CloudEvent in a server-sent event."""
    seconds, ms = divmod(fact["at"], 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"
    event = {
        "specversion": "1.0", "id": f"{session_id}/{fact['seq']}", "source": "/openline/node-a",
        "subject": f"session/{session_id}", "type": fact["type"], "time": stamp, "sequence": f"{fact['seq']:020d}",
        "correlationid": session_id, "epoch": 1, "data": fact["data"],
    }  # fmt: skip
    return f"id: {cursor}\nevent: {fact['type']}\ndata: {json.dumps(event)}\n\n"


def caller_wav(path: Path, spoken: list[tuple[int, int]], length_ms: int) -> Path:
    """Write a microphone file: ``spoken`` are the (from, to) milliseconds in which the caller speaks."""
    path.write_bytes(wav([(spoken, "caller")], length_ms, rate=48_000))
    return path


if __name__ == "__main__":
    with FakeConsoleServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8765) as running:
        print(running.url, flush=True)
        threading.Event().wait()
