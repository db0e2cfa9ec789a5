"""A small gateway that speaks the console's side of the contract, for browser stories. Not Openline itself.

It serves the real console files, listens to real microphone audio (loudness decides what is speech), answers
with scripted words and a made voice paced as the gateway paces, numbers its facts, and resumes a cut line from
``after``. Run it by hand to look at the console: ``python tests/e2e/fake_console_server.py 8765``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import threading
import time
from array import array
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

sys.path.insert(0, str(Path(__file__).parent))
from console_story import LINES, Line, seeded_sessions, voice, wav

from openline.console import HEADERS, asset

Json = dict[str, Any]
"""Frames and facts are JSON objects here; their shape is the console's business, tested by what it shows."""

RATE = 24_000
BYTES_PER_MS = 48
LOUD = 0.012
"""Root mean square (of 1) above which 20 ms count as speech; the browser's noise suppression leaves less in pauses."""
SILENCE_MS = 420
AHEAD_MS = 500
CHUNK_MS = 100


def now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(slots=True)
class Reply:
    """One spoken answer: its audio, and how much of it was released to the client and played there."""

    item_id: str
    response_id: str
    line: Line
    pcm: bytes
    released: int = 0
    played_ms: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def audio_ms(self) -> int:
        return len(self.pcm) // BYTES_PER_MS


@dataclass
class FakeSession:
    """A session: its facts, the frames rendered from them, whoever is attached, and the turn in progress."""

    id: str
    server: FakeConsoleServer
    created_ms: int = field(default_factory=now_ms)
    status: str = "live"
    epoch: int = 1
    facts: list[Json] = field(default_factory=list)
    frames: list[tuple[int, int, Json]] = field(default_factory=list)
    speaker: WebSocket | None = None
    observers: list[WebSocket] = field(default_factory=list)
    recording: bytes = b""
    playouts: list[tuple[str, int]] = field(default_factory=list)
    commands: list[Json] = field(default_factory=list)
    heard_bytes: int = 0
    turn: int = 0
    speech: Json | None = None
    quiet_ms: int = 0
    manual: bool = False
    reply: Reply | None = None
    replies: dict[str, Reply] = field(default_factory=dict)
    ids: int = 0

    @property
    def seq(self) -> int:
        return len(self.facts)

    def row(self) -> Json:
        updated = self.facts[-1]["at"] if self.facts else self.created_ms
        turns = sum(fact["type"] == "openline.turn.committed" for fact in self.facts)
        return {
            "id": self.id,
            "status": self.status,
            "created_ms": self.created_ms,
            "updated_ms": updated,
            "last_seq": self.seq,
            "epoch": self.epoch,
            "turns": turns,
        }

    def new_id(self, kind: str) -> str:
        self.ids += 1
        return f"{kind}_{self.id[-4:]}{self.ids:03d}"

    async def fact(self, kind: str, *frames: Json, at: int | None = None, **data: Any) -> None:
        """Append one fact, then show the frames rendered from it to everyone attached."""
        self.facts.append({"seq": self.seq + 1, "type": kind, "at": at or now_ms(), "data": data})
        for index, frame in enumerate(frames):
            stamped = {"event_id": f"evt_{self.epoch}_{self.seq}_{index}", **frame}
            self.frames.append((self.seq, index, stamped))
            await self.show(stamped)
        self.server.changed(self.id)

    async def partial(self, frame: Json, *, speaker_only: bool = False) -> None:
        await self.show({"event_id": f"evt_{self.epoch}_{self.seq}_40", **frame}, speaker_only=speaker_only)

    async def show(self, frame: Json, *, speaker_only: bool = False) -> None:
        targets = [self.speaker] if speaker_only else [self.speaker, *self.observers]
        for socket in targets:
            if socket is not None:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await socket.send_text(json.dumps(frame))

    # ------------------------------------------------------------------------------ what the caller says

    async def take_audio(self, pcm: bytes) -> None:
        self.heard_bytes += len(pcm)
        samples = array("h", pcm)
        loudness = (sum(s * s for s in samples) / max(1, len(samples))) ** 0.5 / 32768
        is_loud = loudness > LOUD
        frame_ms = len(pcm) // BYTES_PER_MS
        if self.manual:
            return
        if is_loud and self.speech is None:
            await self.speech_started()
        elif self.speech is not None:
            self.quiet_ms = 0 if is_loud else self.quiet_ms + frame_ms
            await self.grow_partial()
            if self.quiet_ms >= SILENCE_MS:
                await self.end_turn()

    async def speech_started(self) -> None:
        item_id = self.new_id("item")
        self.speech = {"item_id": item_id, "from": self.heard_bytes, "words": 0, "line": LINES[self.turn % len(LINES)]}
        self.quiet_ms = 0
        start = self.heard_bytes // BYTES_PER_MS
        frame = {"type": "input_audio_buffer.speech_started", "audio_start_ms": start, "item_id": item_id}
        await self.fact("input_audio_buffer.speech_started", frame, item_id=item_id, audio_start_ms=start)
        if self.reply is not None:
            await self.cut_reply("turn_detected")

    async def grow_partial(self) -> None:
        speech = self.speech
        if speech is None:
            return
        words = speech["line"].caller.split()
        spoken_ms = (self.heard_bytes - speech["from"]) // BYTES_PER_MS
        count = min(len(words), 1 + spoken_ms // 230)
        if count > speech["words"]:
            speech["words"] = count
            text = " ".join(words[:count])
            await self.partial({"type": "openline.turn.partial", "item_id": speech["item_id"], "text": text})

    async def end_turn(self) -> None:
        speech, self.speech = self.speech, None
        if speech is None:
            return
        item_id, line = speech["item_id"], speech["line"]
        end = self.heard_bytes // BYTES_PER_MS
        stopped = {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": end, "item_id": item_id}
        await self.fact("input_audio_buffer.speech_stopped", stopped, item_id=item_id, audio_end_ms=end)
        await self.commit_turn(item_id, line, speech["from"])

    async def commit_turn(self, item_id: str, line: Line, start: int) -> None:
        turn_id = self.new_id("turn")
        item = {
            "id": item_id, "type": "message", "role": "user", "status": "completed",
            "content": [{"type": "input_audio", "transcript": line.caller}],
        }  # fmt: skip
        committed = {"turn_id": turn_id, "item_id": item_id, "text": line.caller, "confidence": line.confidence}
        audio = {"start": start // 2, "end": self.heard_bytes // 2, "rate": RATE}
        await self.fact(
            "openline.turn.committed",
            {"type": "input_audio_buffer.committed", "item_id": item_id},
            {"type": "openline.turn.committed", **committed},
            audio=audio,
            **committed,
        )
        added = {"type": "conversation.item.added", "item": item}
        await self.fact("conversation.item.done", added, {"type": "conversation.item.done", "item": item}, item=item)
        completed = {
            "type": "conversation.item.input_audio_transcription.completed", "item_id": item_id,
            "content_index": 0, "transcript": line.caller, "usage": {"type": "duration", "seconds": 1.0},
        }  # fmt: skip
        await self.fact("openline.turn.transcribed", completed, item_id=item_id, text=line.caller)
        self.turn += 1
        await self.start_reply(line)

    # -------------------------------------------------------------------------------- what the agent says

    async def start_reply(self, line: Line) -> None:
        response_id = self.new_id("resp")
        response = {"id": response_id, "object": "realtime.response", "status": "in_progress", "output": []}
        await self.fact("response.created", {"type": "response.created", "response": response}, response=response)
        if line.tool:
            await self.run_tool(line, response_id)
        item_id = self.new_id("item")
        pcm = voice("agent", len(line.agent) * 62, seed=self.turn)
        self.reply = self.replies[item_id] = Reply(item_id, response_id, line, pcm)
        item = {
            "id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": [],
        }  # fmt: skip
        added = {"type": "response.output_item.added", "response_id": response_id, "output_index": 0, "item": item}
        await self.partial(added)
        self.reply.task = asyncio.create_task(self.speak(self.reply))

    async def run_tool(self, line: Line, response_id: str) -> None:
        item_id, call_id = self.new_id("item"), self.new_id("call")
        about = {"item_id": item_id, "call_id": call_id, "name": line.tool, "arguments": line.arguments}
        item = {
            "id": item_id, "type": "mcp_call", "server_label": "gateway", "call_id": call_id, "name": line.tool,
            "arguments": line.arguments,
        }  # fmt: skip
        added = {"type": "response.output_item.added", "response_id": response_id, "output_index": 0, "item": item}
        place = {"item_id": item_id, "output_index": 0}
        await self.fact("openline.tool.requested", added, **about)
        await self.fact("openline.tool.started", {"type": "response.mcp_call.in_progress", **place}, attempt=1, **about)
        await asyncio.sleep(0.35)
        item = {**item, "output": line.output}
        done = {"type": "response.output_item.done", "response_id": response_id, "output_index": 0, "item": item}
        completed = {"type": "response.mcp_call.completed", **place}
        await self.fact("openline.tool.succeeded", completed, done, output=line.output, **about)

    async def speak(self, reply: Reply) -> None:
        """Release audio at most AHEAD_MS before its playing; hold while nobody is attached."""
        words, sent_words = reply.line.agent.split(" "), 0
        ids = {"response_id": reply.response_id, "item_id": reply.item_id, "output_index": 0, "content_index": 0}
        began, base = time.monotonic(), 0
        while reply.released < len(reply.pcm):
            if self.speaker is None:
                base = reply.released
                await asyncio.sleep(0.02)
                began = time.monotonic()
                continue
            share = reply.released / len(reply.pcm)
            while sent_words < len(words) and sent_words <= share * len(words) + 3:
                delta = words[sent_words] + (" " if sent_words < len(words) - 1 else "")
                await self.partial({"type": "response.output_audio_transcript.delta", "delta": delta, **ids})
                sent_words += 1
            chunk = reply.pcm[reply.released : reply.released + CHUNK_MS * BYTES_PER_MS]
            start = reply.released // BYTES_PER_MS
            reply.released += len(chunk)
            audio = base64.b64encode(chunk).decode()
            frame = {"type": "response.output_audio.delta", "delta": audio, "audio_start_ms": start, **ids}
            await self.partial(frame, speaker_only=True)
            due = began + ((reply.released - base) / BYTES_PER_MS - AHEAD_MS) / 1000
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await self.finish_reply(reply)

    async def finish_reply(self, reply: Reply) -> None:
        text = reply.line.agent
        item = {
            "id": reply.item_id, "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_audio", "transcript": text}],
        }  # fmt: skip
        place = {"response_id": reply.response_id, "output_index": 0}
        await self.fact(
            "conversation.item.done",
            {"type": "response.output_audio_transcript.done", "item_id": reply.item_id, "transcript": text, **place},
            {"type": "conversation.item.done", "item": item},
            {"type": "response.output_item.done", "item": item, **place},
            item=item, response_id=reply.response_id,
        )  # fmt: skip
        response = {"id": reply.response_id, "status": "completed", "output": [item]}
        await self.fact("response.done", {"type": "response.done", "response": response}, response=response)
        deadline = time.monotonic() + 1.5
        while reply.played_ms < reply.audio_ms - 20 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await self.heard(reply, len(text))
        if self.reply is reply:
            self.reply = None

    async def heard(self, reply: Reply, text_end: int) -> None:
        data = {
            "item_id": reply.item_id, "audio_end_ms": reply.played_ms, "text_end": text_end, "source": "reported",
        }  # fmt: skip
        await self.fact("openline.item.heard", {"type": "openline.item.heard", **data}, **data)

    async def cut_reply(self, reason: str) -> None:
        reply, self.reply = self.reply, None
        if reply is None:
            return
        if reply.task is not None:
            reply.task.cancel()
        # The client reports what it played as soon as it has cleared; a moment is enough for it to come.
        asyncio.get_running_loop().create_task(self.settle_cut(reply, reason))

    async def settle_cut(self, reply: Reply, reason: str) -> None:
        await asyncio.sleep(0.12)
        text = reply.line.agent
        end = text.rfind(" ", 0, max(1, len(text) * reply.played_ms // reply.audio_ms))
        details = {"type": "cancelled", "reason": reason}
        item = {
            "id": reply.item_id, "type": "message", "role": "assistant", "status": "incomplete",
            "content": [{"type": "output_audio", "transcript": text[: max(0, end)]}],
        }  # fmt: skip
        await self.fact(
            "conversation.item.done", {"type": "conversation.item.done", "item": item},
            item=item, response_id=reply.response_id,
        )  # fmt: skip
        response = {"id": reply.response_id, "status": "cancelled", "status_details": details, "output": [item]}
        await self.fact("response.done", {"type": "response.done", "response": response}, response=response)
        await self.heard(reply, max(0, end))

    # ------------------------------------------------------------------------------------------ commands

    async def command(self, event: Json) -> None:
        kind = event.get("type", "")
        if kind == "input_audio_buffer.append":
            await self.take_audio(base64.b64decode(event["audio"]))
            return
        self.commands.append(event)
        if kind == "openline.playout":
            self.playouts.append((event["item_id"], event["audio_end_ms"]))
            if event["item_id"] in self.replies:
                self.replies[event["item_id"]].played_ms = event["audio_end_ms"]
        elif kind == "conversation.item.create":
            item = {"id": self.new_id("item"), "status": "completed", **event["item"]}
            added = {"type": "conversation.item.added", "item": item}
            await self.fact("conversation.item.done", added, {"type": "conversation.item.done", "item": item}, item=item)
        elif kind == "response.create":
            await self.start_reply(LINES[(self.turn + 2) % len(LINES)])
            self.turn += 1
        elif kind == "response.cancel":
            await self.cut_reply("client_cancelled")
        elif kind == "session.update":
            self.manual = event["session"]["audio"]["input"]["turn_detection"] is None
            await self.partial({"type": "session.updated", "session": event["session"]})
        elif kind == "input_audio_buffer.commit":
            turn = LINES[self.turn % len(LINES)]
            await self.commit_turn(self.new_id("item"), turn, self.heard_bytes)
        elif kind == "openline.session.end":
            self.status = "ended"
            await self.fact("openline.session.ended", reason="hung up")

    async def attach(self, socket: WebSocket, after: str) -> None:
        """First `session.created`, then the rest of what the client has not seen, then the present."""
        role = socket.query_params.get("role", "speaker")
        mine = {
            "session_id": self.id, "epoch": self.epoch, "token": self.new_id("tok"), "role": role,
            "renderer": 1, "resumed_from": after or None, "lost": [],
        }  # fmt: skip
        created = {
            "type": "session.created", "event_id": f"evt_{self.epoch}_{self.seq}_32",
            "session": {"type": "realtime", "object": "realtime.session", "id": self.id, "openline": mine},
        }  # fmt: skip
        await socket.send_text(json.dumps(created))
        if after:
            _, seq, index = (int(part) for part in after.split("_"))
            for frame_seq, frame_index, frame in self.frames:
                if (frame_seq, frame_index) > (seq, index):
                    await socket.send_text(json.dumps(frame))
        if role == "observer":
            self.observers.append(socket)
            return
        if self.speaker is not None:
            await self.speaker.close(4409)
        self.speaker = socket
        self.status = "live"
        if self.reply is not None:
            self.reply.released = self.reply.played_ms * BYTES_PER_MS
        await self.fact("openline.connection.attached", role=role, resumed_from=after or None)

    async def detach(self, socket: WebSocket, code: int) -> None:
        if socket in self.observers:
            self.observers.remove(socket)
        if socket is self.speaker:
            self.speaker = None
            if self.status != "ended":
                self.status = "detached"
                await self.fact("openline.connection.detached", role="speaker", reason=f"closed {code}")


class FakeConsoleServer:
    """The server on a free loopback port in a thread of its own. ``url`` is the console's address."""

    def __init__(self, *, port: int = 0, seeded: bool = True, key: str = "") -> None:
        self.key = key
        self.sessions: dict[str, FakeSession] = {}
        self.feed: list[tuple[str, Json]] = []
        self.waiters: set[asyncio.Event] = set()
        if seeded:
            for seed in seeded_sessions(now_ms()):
                session = FakeSession(seed.id, self, created_ms=seed.facts[0]["at"], status=seed.status)
                session.facts, session.recording, session.epoch = seed.facts, seed.recording, seed.epoch
                self.sessions[seed.id] = session
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
            Starlette(routes=routes), port=port, log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)

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
        found = asset(request.path_params.get("name", ""))
        if found is None:
            return Response("not found", status_code=404)
        return Response(found.body, media_type=found.content_type, headers={**HEADERS, "ETag": found.etag})

    def _refusal(self, request: Request) -> Response | None:
        if not self.key or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": {"message": "missing key", "code": "invalid_api_key"}}, status_code=401)

    async def _list(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        rows = sorted((s.row() for s in self.sessions.values()), key=lambda row: -row["created_ms"])
        return JSONResponse({"data": rows, "has_more": False})

    async def _show(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            return JSONResponse({"error": {"message": "no such session"}}, status_code=404)
        return JSONResponse(session.row())

    async def _recording(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None or not session.recording:
            return JSONResponse({"error": {"message": "no recording"}}, status_code=404)
        return Response(session.recording, media_type="audio/wav")

    async def _facts(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            return JSONResponse({"error": {"message": "no such session"}}, status_code=404)
        after = int(request.query_params.get("after", "0"))

        async def stream() -> AsyncIterator[str]:
            at = after
            async for _ in self._wakes():
                while at < len(session.facts):
                    yield sse(session.id, session.facts[at])
                    at += 1

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _events(self, request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            at = len(self.feed)
            async for _ in self._wakes():
                for session_id, fact in self.feed[at:]:
                    yield sse(session_id, fact)
                at = len(self.feed)

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _wakes(self) -> AsyncIterator[None]:
        waiter = asyncio.Event()
        self.waiters.add(waiter)
        try:
            while not self._server.should_exit:
                yield
                waiter.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.wait(), 0.5)
        finally:
            self.waiters.discard(waiter)

    async def _realtime(self, socket: WebSocket) -> None:
        offered = socket.scope["subprotocols"]
        if self.key and f"openai-insecure-api-key.{self.key}" not in offered:
            await socket.accept("realtime" if "realtime" in offered else None)
            await socket.close(4401)
            return
        await socket.accept("realtime" if "realtime" in offered else None)
        session_id = socket.query_params["session_id"]
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = FakeSession(session_id, self)
            await session.fact("openline.session.started", model=socket.query_params.get("model"))
            await session.fact("openline.link.opened", model="scripted")
        code = 1006
        try:
            await session.attach(socket, socket.query_params.get("after", ""))
            while True:
                await session.command(json.loads(await socket.receive_text()))
        except WebSocketDisconnect as gone:
            code = gone.code
        finally:
            await session.detach(socket, code)


def sse(session_id: str, fact: Json) -> str:
    seconds, ms = divmod(fact["at"], 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"
    event = {
        "specversion": "1.0", "id": f"{session_id}/{fact['seq']}", "source": f"/v1/sessions/{session_id}",
        "subject": session_id, "type": fact["type"], "time": stamp, "sequence": str(fact["seq"]), "data": fact["data"],
    }  # fmt: skip
    return f"id: {fact['seq']}\ndata: {json.dumps(event)}\n\n"


def caller_wav(path: Path, spoken: list[tuple[int, int]], length_ms: int) -> Path:
    """Write a microphone file: ``spoken`` are the (from, to) milliseconds in which the caller speaks."""
    path.write_bytes(wav([(spoken, "caller")], length_ms, rate=48_000))
    return path


if __name__ == "__main__":
    with FakeConsoleServer(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8765) as running:
        print(running.url, flush=True)
        threading.Event().wait()
