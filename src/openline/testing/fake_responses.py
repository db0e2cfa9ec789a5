"""A language-model provider on a loopback port, which does right what it is not told to do wrong.

``FakeProvider`` speaks Responses (WebSocket mode with lanes, and ``POST /v1/responses`` as SSE or JSON) and
``POST /v1/chat/completions`` (SSE) on one port. It keeps the state rules of the real service: a lane holds
only its newest response, ``store: true`` outlives the socket, a failed continuation evicts its parent, a
call without its output is refused, a wrong key is refused before the upgrade. So a client that
continues a chain which the real service has forgotten fails here too.

    async with FakeProvider(lambda body: Reply("Good morning.")) as provider:
        provider.faults.append(Fault("close", code=1011, after=4))
        model = ResponsesModel(Endpoint(provider.url))

Each request takes the first of ``faults`` (``None``: this one goes well); upgrades take from
``upgrade_faults``. What was asked is in ``requests``, with the bytes it took. Frames are written by hand:
a library would not let us send half of one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace

from openline.testing.fake_responses_parts import (
    SEALED,
    Asked,
    Fault,
    Json,
    Refused,
    Reply,
    Stored,
    added,
    as_items,
    error_frame,
    halves,
    last_text,
    not_found,
    pieces_of,
    reasoning_events,
    reasoning_problem,
    shaped,
    tokens,
)
from openline.testing.fake_responses_socket import Lane, Socket
from openline.testing.fake_responses_steer import SteerPlan, Told, either


@dataclass(eq=False)
class FakeProvider:
    """``key`` "": any key will do. ``think``: seconds from (tokens not cached, tokens cached) to the first event.

    ``has_websocket``, ``has_responses`` False: it answers 404 there, as servers that have only the rest.
    """

    reply: Callable[[Json], Reply] = lambda body: Reply(f"You said: {last_text(body)}")
    key: str = ""
    think: Callable[[int, int], float] = lambda new, cached: 0.0
    has_websocket: bool = True
    has_responses: bool = True
    honours_cancel: bool = True
    replies: deque[Reply] = field(default_factory=deque)
    """Taken by the next responses, in order; when there are none ``reply`` is asked."""
    sealed: dict[str, str] = field(default_factory=dict)
    """Encrypted content by reasoning item: what it takes back."""
    faults: deque[Fault | None] = field(default_factory=deque)
    upgrade_faults: deque[Fault | None] = field(default_factory=deque)
    steers: deque[SteerPlan] = field(default_factory=deque)
    """Taken by the next ``response.steer`` each; when there are none it is applied."""
    steered: list[Json] = field(default_factory=list)
    """Every ``response.steer`` that came."""
    successors: list[Json] = field(default_factory=list)
    """What it asked itself because of them, as ``response.create`` would have."""
    requests: list[Asked] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """Responses over a socket whose last event was sent, in order."""
    cut_off: int = 0
    """HTTP replies and sockets that the client closed in the middle of a response."""
    upgrades: int = 0
    port: int = 0
    stored: dict[str, Stored] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _count: int = 0

    @property
    def url(self) -> str:
        """Base for clients: ``http://127.0.0.1:PORT/v1``."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self, port: int = 0) -> FakeProvider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=64 * 1024 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def __aenter__(self) -> FakeProvider:
        return await self.start()

    async def __aexit__(self, *what: object) -> None:
        await self.close()

    def next_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_fake{self._count}"

    def next_reply(self, body: Json) -> Reply:
        if not self.replies:
            return self.reply(body)
        planned = self.replies.popleft()
        if planned.text or planned.refusal or planned.calls:
            return planned
        return replace(self.reply(body), summary=planned.summary, thoughts=planned.thoughts)

    def next_steer(self) -> SteerPlan:
        return self.steers.popleft() if self.steers else SteerPlan()

    def next_fault(self) -> Fault | None:
        return self.faults.popleft() if self.faults else None

    # -- HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._request(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        path = target.partition("?")[0]
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return await _answer(writer, 401, "invalid_api_key")
        if headers.get("upgrade", "").lower() == "websocket":
            return await self._upgrade(path, headers, reader, writer)
        if method != "POST" or path not in self._paths():
            return await _answer(writer, 404, "")
        body = json.loads(raw)
        self.requests.append(Asked(path, body, len(raw), 0))
        fault = self.next_fault()
        if fault is not None and fault.kind in ("refuse", "error"):
            return await _answer(writer, fault.status, str(fault.code))
        is_chat = path.endswith("completions")
        events = self._chat(body) if is_chat else shaped(self.response(body, None, None), fault)
        try:
            events = _from(await anext(events), events)
        except Refused as refusal:
            return await _send_json(writer, refusal.frame["status"], {"error": refusal.frame["error"]})
        if not is_chat and not body.get("stream"):
            whole = [event async for event in events][-1]
            return await _send_json(writer, 200, whole["response"])
        await self._sse(writer, events, fault, is_chat)
        return False

    def _paths(self) -> tuple[str, ...]:
        return ("/v1/chat/completions", *(("/v1/responses",) if self.has_responses else ()))

    async def _sse(
        self, writer: asyncio.StreamWriter, events: AsyncIterator[Json], fault: Fault | None, is_chat: bool
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        number = 0
        try:
            async for event in events:
                if fault is not None and number >= fault.after:
                    if fault.kind in ("close", "half_frame"):
                        writer.write(b'data: {"type"' if fault.kind == "half_frame" else b"")
                        return
                    if fault.kind == "garbage":
                        writer.write(b"data: <html>no</html>\n\n")
                    if fault.kind == "silence":
                        await asyncio.Event().wait()
                number += 1
                name = "" if is_chat else f"event: {event['type']}\n"
                writer.write(f"{name}data: {json.dumps(event)}\n\n".encode())
                await writer.drain()
                if writer.is_closing():
                    raise ConnectionResetError
            writer.write(b"data: [DONE]\n\n" if is_chat else b"")
        except ConnectionError:
            self.cut_off += 1

    async def _chat(self, body: Json) -> AsyncIterator[Json]:
        reply = self.next_reply(body)
        await self._pause(reply, body)
        base: Json = {
            "id": self.next_id("chatcmpl"),
            "object": "chat.completion.chunk",
            "model": body["model"],
        }
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in pieces_of(reply.text)]
        deltas += [{"refusal": piece} for piece in pieces_of(reply.refusal)]
        for at, (name, arguments) in enumerate(reply.calls):
            first, rest = halves(arguments)
            call = {"index": at, "id": self.next_id("call"), "type": "function"}
            deltas.append({"tool_calls": [{**call, "function": {"name": name, "arguments": first}}]})
            deltas.append({"tool_calls": [{"index": at, "function": {"arguments": rest}}]})
        for delta in deltas:
            yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            await asyncio.sleep(reply.pace_s)
        reason = "length" if reply.cut else "tool_calls" if reply.calls else "stop"
        yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        count = tokens(body.get("messages", []))
        made = min(5, body.get("max_tokens", 5))
        usage = {"prompt_tokens": count, "completion_tokens": made, "total_tokens": count + made}
        yield {**base, "choices": [], "usage": {**usage, "prompt_tokens_details": {"cached_tokens": 3}}}

    # -- WebSocket

    async def _upgrade(
        self, path: str, headers: Json, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        fault = self.upgrade_faults.popleft() if self.upgrade_faults else None
        if not self.has_websocket or path != "/v1/responses":
            return await _answer(writer, 404, "")
        if fault is not None and fault.kind == "refuse":
            return await _answer(writer, fault.status, str(fault.code))
        self.upgrades += 1
        key = (headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
        lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade")
        writer.write("\r\n".join((*lines, f"Sec-WebSocket-Accept: {accept}", "", "")).encode())
        socket = Socket(self, reader, writer, self.upgrades)
        if fault is not None and fault.kind == "close":
            socket.close(int(fault.code))
            return False
        await socket.run()
        return False

    # -- the model

    async def response(self, body: Json, socket: Socket | None, lane: Lane | None) -> AsyncIterator[Json]:
        """Every event of one response; raises Refused for what gets an error frame instead."""
        before = self._before(body, lane)
        given = as_items(body.get("input", []))
        if lane is not None:
            given = lane.take_queued(body.get("previous_response_id", "")) + given
        known = before + given
        if body.get("previous_response_id") and lane is not None:
            lane.cache.clear()  # Whatever fails from here on evicts the parent.
        _check_calls(known)
        self._check_reasoning(given)
        response: Json = {
            "id": self.next_id("resp"),
            "object": "response",
            "created_at": 0,
            "status": "in_progress",
            "model": body.get("model", "fake"),
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        yield {"type": "response.created", "response": response}
        yield {"type": "response.in_progress", "response": response}
        output: list[Json] = []
        told = Told() if lane is None else lane.told
        reply = Reply() if body.get("generate") is False else self.next_reply({**body, "input": known})
        if body.get("generate") is not False:
            await self._pause(reply, body, tokens(given), tokens(before))
            async for event in self._output(reply, output, SEALED in (body.get("include") or ())):
                told.note(event)
                yield event
                await _rest(reply, event, told)
                if told.is_cut:
                    break
        if told.is_cut and (end := told.cut()) is not None:
            output.append(end["item"])
            yield end
        made = min(tokens(output), body.get("max_output_tokens") or tokens(output))
        usage = {
            "input_tokens": tokens(known),
            "input_tokens_details": {"cached_tokens": tokens(before), "cache_write_tokens": 0},
            "output_tokens": made,
            "output_tokens_details": {"reasoning_tokens": tokens(reply.summary) if reply.reasons else 0},
            "total_tokens": tokens(known) + made,
        }
        is_stored = body.get("store", True) is not False
        kept = Stored([*known, *output], is_stored)
        if is_stored:
            self.stored[response["id"]] = kept
        if lane is not None:
            lane.cache = {response["id"]: kept}
        reason = "steered" if told.is_cut else "max_output_tokens" if reply.cut else ""
        status = "incomplete" if reason else "completed"
        done = {**response, "status": status, "output": output, "usage": usage}
        if reason:
            done["incomplete_details"] = {"reason": reason}
        yield {"type": f"response.{status}", "response": done}

    def _before(self, body: Json, lane: Lane | None) -> list[Json]:
        previous = body.get("previous_response_id")
        if not previous:
            return []
        caches = [] if lane is None else [each.cache for each in lane.socket.lanes.values()]
        for cache in (*caches, self.stored):
            if previous in cache:
                return list(cache[previous].items)
        raise Refused(not_found(previous))

    async def _pause(self, reply: Reply, body: Json, new: int = 0, cached: int = 0) -> None:
        new = new or tokens(body.get("messages", []))
        await asyncio.sleep(self.think(new, cached))
        if reply.wait is not None:
            await reply.wait.wait()

    async def _output(self, reply: Reply, output: list[Json], sealed: bool) -> AsyncIterator[Json]:
        if reply.reasons:
            for event in self._reasoning(reply, output, sealed):
                yield event
                await asyncio.sleep(reply.ponders_s if event["type"].endswith("added") else 0)
        if reply.text or reply.refusal:
            for event in self._message(reply, output):
                yield event
        for name, arguments in reply.calls:
            for event in self._call(name, arguments, output):
                yield event

    def _reasoning(self, reply: Reply, output: list[Json], sealed: bool) -> Iterator[Json]:
        item_id = self.next_id("rs")
        self.sealed[item_id] = reply.reasoning or f"sealed {item_id}"
        for event in reasoning_events(reply, item_id, len(output), self.sealed[item_id] if sealed else ""):
            yield event
        output.append(event["item"])

    def _check_reasoning(self, given: list[Json]) -> None:
        stored = {item.get("id") for one in self.stored.values() for item in one.items}
        problem = reasoning_problem(given, self.sealed, stored)
        if problem is not None:
            raise Refused(problem)

    def _message(self, reply: Reply, output: list[Json]) -> Iterator[Json]:
        at, kind = len(output), "refusal" if reply.refusal else "output_text"
        item: Json = {"id": self.next_id("msg"), "type": "message", "role": "assistant", "content": []}
        place = {"output_index": at, "content_index": 0, "item_id": item["id"]}
        yield added(at, {**item, "status": "in_progress"})
        text = reply.refusal or reply.text
        for piece in pieces_of(text):
            yield {"type": f"response.{kind}.delta", "delta": piece, "logprobs": [], **place}
        content = {"type": kind, "refusal" if reply.refusal else "text": text}
        item = {**item, "status": "incomplete" if reply.cut else "completed", "content": [content]}
        output.append(item)
        yield {"type": "response.output_item.done", "output_index": at, "item": item}

    def _call(self, name: str, arguments: str, output: list[Json]) -> Iterator[Json]:
        at = len(output)
        item: Json = {"id": self.next_id("fc"), "type": "function_call", "call_id": self.next_id("call")}
        item |= {"name": name, "arguments": "", "status": "in_progress"}
        yield added(at, item)
        for piece in halves(arguments):
            place = {"output_index": at, "item_id": item["id"]}
            yield {"type": "response.function_call_arguments.delta", "delta": piece, **place}
        item = {**item, "arguments": arguments, "status": "completed"}
        output.append(item)
        yield {"type": "response.output_item.done", "output_index": at, "item": item}


# ----------------------------------------------------------------------------------------------- pieces


async def _rest(reply: Reply, event: Json, told: Told) -> None:
    """Between two events."""
    await asyncio.sleep(reply.pace_s)
    is_call = event["type"].endswith("item.done") and event["item"]["type"] == "function_call"
    if reply.hold is not None and (event["type"].endswith("text.delta") or is_call):
        await either(reply.hold, told.stop)


async def _from(first: Json, rest: AsyncIterator[Json]) -> AsyncIterator[Json]:
    yield first
    async for event in rest:
        yield event


def _check_calls(known: list[Json]) -> None:
    answered = {item.get("call_id") for item in known if item.get("type") == "function_call_output"}
    for item in known:
        if item.get("type") == "function_call" and item["call_id"] not in answered:
            message = f"No tool output found for function call {item['call_id']}."
            raise Refused(error_frame("invalid_value", 400, message))


async def _answer(writer: asyncio.StreamWriter, status: int, code: str) -> bool:
    error = {"message": "As the test asked.", "type": "invalid_request_error", "code": code or None}
    return await _send_json(writer, status, {"error": error})


async def _send_json(writer: asyncio.StreamWriter, status: int, values: Json) -> bool:
    body = json.dumps(values).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    return True
