"""A language model that only thinks: Responses over HTTP/1.1 (kept alive), HTTP/2 and WebSocket mode, behind a slow line.

``python -m bench.model_double`` prints its ports as one JSON line and runs until its input ends. It thinks
``a_s + b_s * (tokens not cached)`` before it answers; a token is four bytes. A chain that goes on over a
socket has all before it cached. Over HTTP the longest known beginning of the request is cached too, if
``http_cached`` says so (providers do that by themselves). It calls the first tool of the request until
``calls`` results are there, then it says that it is done.

``POST /control`` on the direct port sets these, ``GET /stats`` tells the seconds thought and bytes carried.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from bench.slow_line import Counts, Shape, SlowLine

FRAME_MAX = 32 * 1024 * 1024
DONE = "All files were read and the answer is in them."


class Body(msgspec.Struct):
    """What is looked at of a request. Items stay as they are: the double reads none of them."""

    input: list[msgspec.Raw] | str
    model: str = ""
    instructions: str | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: Any = "auto"
    previous_response_id: str | None = None
    generate: bool = True


@dataclass(slots=True)
class Plan:
    """Seconds, and seconds a token."""

    a_s: float = 0.0
    b_s: float = 0.0
    calls: int = 25
    http_cached: bool = True


@dataclass(slots=True)
class Model:
    """What all connections share."""

    plan: Plan = field(default_factory=Plan)
    thought_s: float = 0.0
    responses: int = 0
    known: set[bytes] = field(default_factory=set)
    chains: dict[str, int] = field(default_factory=dict)
    """By response id: how many tool results its conversation has."""

    async def events(self, body: Body, *, is_chained: bool) -> AsyncIterator[bytes]:
        """One response, JSON events; the time in which it thinks is counted, nothing else is."""
        self.responses += 1
        response_id = f"resp_{self.responses:08}"
        results = self._results(body)
        new, cached = self._tokens(body, is_chained=is_chained)
        response = _response(response_id, body)
        for number, kind in enumerate(("response.created", "response.in_progress")):
            yield _event(kind, number, response=response)
        began = time.perf_counter()
        await asyncio.sleep(self.plan.a_s + self.plan.b_s * new)
        self.thought_s += time.perf_counter() - began
        may_call = bool(body.tools) and body.generate and body.tool_choice != "none"
        is_call = may_call and results < self.plan.calls
        item = _call(self.responses, body) if is_call else _message(self.responses)
        for number, (kind, values) in enumerate(_output(item), 2):
            yield _event(kind, number, output_index=0, **values)
        self.chains[response_id] = results
        usage = {
            "input_tokens": new + cached,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": 30,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": new + cached + 30,
        }
        ended = {**response, "status": "completed", "output": [item], "usage": usage}
        yield _event("response.completed", 9, response=ended)

    def _results(self, body: Body) -> int:
        items = [] if isinstance(body.input, str) else [bytes(raw) for raw in body.input]
        here = sum(b'"function_call_output"' in item for item in items)
        return self.chains.get(body.previous_response_id or "", 0) + here

    def _tokens(self, body: Body, *, is_chained: bool) -> tuple[int, int]:
        """Not cached, and cached."""
        head = [(body.instructions or "").encode(), msgspec.json.encode(body.tools)]
        rest = (
            [bytes(raw) for raw in body.input] if not isinstance(body.input, str) else [body.input.encode()]
        )
        if body.previous_response_id:
            return sum(map(len, rest)) // 4, sum(
                map(len, head)
            ) // 4  # and what came before, which costs nothing
        seen, is_known = hashlib.blake2b(digest_size=16), self.plan.http_cached or is_chained
        new = cached = 0
        for part in (*head, *rest):
            seen.update(part)
            is_known = is_known and seen.digest() in self.known
            self.known.add(seen.digest())
            new, cached = (new, cached + len(part) // 4) if is_known else (new + len(part) // 4, cached)
        return new, cached


def _response(response_id: str, body: Body) -> dict[str, Any]:
    """With instructions and tools in it, as the real service repeats them."""
    return {
        "id": response_id, "object": "response", "created_at": 0, "status": "in_progress", "model": body.model,
        "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": body.tools,
        "instructions": body.instructions, "metadata": {}, "temperature": 1.0, "top_p": 1.0, "error": None,
        "previous_response_id": body.previous_response_id, "store": False, "usage": None,
    }  # fmt: skip


def _call(number: int, body: Body) -> dict[str, Any]:
    arguments = json.dumps({"path": f"src/module_{number % 97:02}.py", "first_line": 1, "last_line": 120})
    return {
        "id": f"fc_{number:08}", "type": "function_call", "call_id": f"call_{number:08}",
        "name": body.tools[0]["name"], "arguments": arguments, "status": "completed",
    }  # fmt: skip


def _message(number: int) -> dict[str, Any]:
    part = {"type": "output_text", "text": DONE, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{number:08}", "type": "message", "role": "assistant", "status": "completed", "content": [part],
    }  # fmt: skip


def _output(item: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    place = {"item_id": item["id"]}
    if item["type"] == "message":
        place["content_index"] = 0
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            ("response.output_item.added", {"item": {**item, "status": "in_progress", "content": []}}),
            ("response.content_part.added", {**place, "part": empty}),
            ("response.output_text.delta", {**place, "delta": DONE, "logprobs": []}),
            ("response.output_text.done", {**place, "text": DONE, "logprobs": []}),
            ("response.content_part.done", {**place, "part": item["content"][0]}),
            ("response.output_item.done", {"item": item}),
        ]
    named = {**place, "arguments": item["arguments"], "name": item["name"]}
    return [
        ("response.output_item.added", {"item": {**item, "status": "in_progress", "arguments": ""}}),
        ("response.function_call_arguments.delta", {**place, "delta": item["arguments"]}),
        ("response.function_call_arguments.done", named),
        ("response.output_item.done", {"item": item}),
    ]


def _event(kind: str, number: int, **values: Any) -> bytes:
    return msgspec.json.encode({"type": kind, "sequence_number": number, **values})


# --------------------------------------------------------------------------------------------- WebSocket


class Socket(WSListener):
    """Sequential, as a connection without lanes is. What it got while it answers waits."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._asked: asyncio.Queue[Body] = asyncio.Queue()
        self._parts = bytearray()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._task = asyncio.get_running_loop().create_task(self._answer(transport))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(1000)
            transport.disconnect()
        elif frame.msg_type in (WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._parts += frame.get_payload_as_memoryview()
            if frame.fin:
                payload, self._parts = bytes(self._parts), bytearray()
                if b'"response.create"' in payload:
                    self._asked.put_nowait(msgspec.json.decode(payload, type=Body))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._task.cancel()

    async def _answer(self, transport: WSTransport) -> None:
        while True:
            body = await self._asked.get()
            async for event in self._model.events(body, is_chained=True):
                transport.send(WSMsgType.TEXT, event)


# -------------------------------------------------------------------------------------------------- HTTP


class Http:
    """HTTP/1.1 with keep-alive and chunks, and HTTP/2 to those who begin with its preface (where ``h2`` is)."""

    def __init__(self, model: Model, shape: Shape) -> None:
        self.model = model
        self.shape = shape
        self.lines: dict[str, Counts] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"PRI * HTTP/2.0"):
                    await self._serve_h2(head, reader, writer)
                    break
                await self._answer(head, reader, writer)
        writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = lines[0].split(" ")[1]
        if path != "/v1/responses":
            told = self._control(path, body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        async for event in self._stream(body):
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        writer.write(b"0\r\n\r\n")

    async def _stream(self, body: bytes) -> AsyncIterator[bytes]:
        asked = msgspec.json.decode(body, type=Body)
        async for event in self.model.events(asked, is_chained=False):
            kind = msgspec.json.decode(event, type=dict[str, msgspec.Raw])["type"]
            yield b"event: %b\ndata: %b\n\n" % (bytes(kind).strip(b'"'), event)

    def _control(self, path: str, body: bytes) -> bytes:
        model = self.model
        if path == "/control":
            wanted = json.loads(body)
            self.shape.rtt_s, self.shape.slow_start = wanted.pop("rtt_s"), wanted.pop("slow_start")
            model.plan = Plan(**wanted)
            model.thought_s, model.known, model.chains = 0.0, set(), {}
        bytes_of = {name: [count.up, count.down] for name, count in self.lines.items()}
        return json.dumps(
            {"thought_s": model.thought_s, "responses": model.responses, "bytes": bytes_of}
        ).encode()

    async def _serve_h2(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        import h2.config
        import h2.connection
        import h2.events

        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        # As servers for uploads do: a window that never makes the client wait.
        connection.increment_flow_control_window(FRAME_MAX)
        connection.update_settings({4: FRAME_MAX})
        writer.write(connection.data_to_send())
        bodies: dict[int, bytearray] = {}
        tasks: set[asyncio.Task[None]] = set()
        data = head
        while data:
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    bodies[event.stream_id] = bytearray()
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    body = bytes(bodies.pop(event.stream_id))
                    tasks.add(asyncio.create_task(self._answer_h2(connection, event.stream_id, body, writer)))
            writer.write(connection.data_to_send())
            data = await reader.read(256 * 1024)

    async def _answer_h2(
        self, connection: Any, stream_id: int, body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        headers = [(":status", "200"), ("content-type", "text/event-stream; charset=utf-8")]
        connection.send_headers(stream_id, headers)
        async for event in self._stream(body):
            for at in range(0, len(event), connection.max_outbound_frame_size):
                connection.send_data(stream_id, event[at : at + connection.max_outbound_frame_size])
            writer.write(connection.data_to_send())
        connection.end_stream(stream_id)
        writer.write(connection.data_to_send())


async def run() -> None:
    model, shape = Model(), Shape()
    http = Http(model, shape)
    server = await asyncio.start_server(http.serve, "127.0.0.1", 0, limit=FRAME_MAX)
    direct = int(server.sockets[0].getsockname()[1])
    sockets = await ws_create_server(lambda request: Socket(model), "127.0.0.1", 0)
    socket_port = int(sockets.sockets[0].getsockname()[1])
    ports = {"direct": direct}
    lines = {"http": SlowLine(direct, shape), "ws": SlowLine(socket_port, shape)}
    for name, line in lines.items():
        ports[name] = await line.start()
        http.lines[name] = line.counts
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for line in lines.values():
        await line.close()


if __name__ == "__main__":
    asyncio.run(run())
