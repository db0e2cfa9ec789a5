"""A fake provider of the GA Realtime protocol, for everybody who has to live with a real one.

``FakeRealtime`` is a WebSocket server on loopback that holds a conversation: sessions, server VAD (a frame with
a sample over LOUD is speech) or manual commits, text and spoken replies, tool calls, truncation with the real
errors. It shares no code with Openline's own server, so that both can be wrong, but not in the same way.

    async with FakeRealtime() as fake:
        fake.plan(FakeReply("hello", fault="half_then_close:1011"), FakeReply("hello again"))
        ...connect a client to fake.url...
        fake.latest.expire()

What it does wrong on purpose has names, all in docs/reference/fake-provider.md:

- at connect (``opens``, one word for each connection, the last one stays): OPEN_FAULTS.
- in a reply (``FakeReply.fault``): REPLY_FAULTS.
- for good (attributes of the server): SERVER_FAULTS.
- on command, at any time, on a connection (``fake.latest``): CONNECTION_FAULTS.

Not part of it: MCP, rate limits.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import ssl
import struct
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from openline.testing.fake_realtime_audio import BYTES_PER_MS, as_pcm
from openline.testing.fake_realtime_faults import (
    CONNECTION_FAULTS,
    OPEN_FAULTS,
    REPLY_FAULTS,
    SERVER_FAULTS,
)
from openline.testing.fake_realtime_reply import FakeReply, FakeResponse
from openline.testing.fake_realtime_session import new_session, update

__all__ = [
    "CONNECTION_FAULTS",
    "LOUD",
    "OPEN_FAULTS",
    "REPLY_FAULTS",
    "SERVER_FAULTS",
    "FakeConnection",
    "FakeRealtime",
    "FakeReply",
    "echo",
]

LOUD = 2_000
"""A frame with a sample above this (of 32,767) is speech."""
FRAME_BYTES = 960
"""20 ms: what the detector looks at, however much comes at once."""
Event = dict[str, Any]


Script = Callable[["FakeConnection", Event], FakeReply]


def echo(connection: FakeConnection, request: Event) -> FakeReply:
    """Repeats what was said last; ``call NAME JSON`` calls a tool; a tool's result is told."""
    items = request.get("input") or connection.items
    last = items[-1] if items else {}
    if last.get("type") == "function_call_output":
        return FakeReply(f"result {last['output']}")
    said = " ".join(part.get("text") or part.get("transcript") or "" for part in last.get("content", []))
    if said.startswith("call "):
        _, name, arguments = said.split(" ", 2)
        return FakeReply("", ((name, arguments),))
    return FakeReply(f"echo {said}")


class FakeRealtime:
    """The server. ``url`` is a base URL for clients. ``connections`` are all that were accepted, in order.

    ``vad_ms``: silence that ends a turn, unless the session says. ``transcripts``: what turns turn out to have
    said, in order, then the last again; ``transcript_delay_s`` until that is known. ``keys``: those accepted
    (empty: any). The other attributes are in SERVER_FAULTS.
    """

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.connections: list[FakeConnection] = []
        self.opens: list[str] = []
        self.keys: set[str] = set()
        self.formats: set[str] = set(BYTES_PER_MS)
        self.refusal = "typed"
        self.transcription = "known"
        self.seen_keys: list[str] = []
        self.transcripts: list[str] = ["hello"]
        self.transcribe: Callable[[bytes], str] | None = None
        """In place of ``transcripts``: the words of a turn's audio (PCM16 24 kHz, from 300 ms before it began)."""
        self.transcript_delay_s = 0.0
        self.transcript_pace_s = 0.0
        self.echoes_metadata = True
        self.obeys = True
        self.repeats = False
        self.dialect = ""
        self.cap_s = 0.0
        self.idle_s = 0.0
        self.delay_s = 0.0
        self.port = 0
        self._plans: deque[FakeReply] = deque()
        self._server: asyncio.Server | None = None
        self._ids = itertools.count(1)
        self._is_tls = False

    async def start(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> FakeRealtime:
        self._is_tls = tls is not None
        self._server = await ws_create_server(
            self._accept, "127.0.0.1", port, ssl=tls, enable_auto_pong=False, max_frame_size=64 * 1024 * 1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        for connection in self.connections:
            connection.close(1006)
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)

    async def __aenter__(self) -> FakeRealtime:
        return await self.start()

    async def __aexit__(self, *what: object) -> None:
        await self.close()

    @property
    def url(self) -> str:
        return f"{'https' if self._is_tls else 'http'}://127.0.0.1:{self.port}/v1"

    @property
    def latest(self) -> FakeConnection:
        return self.connections[-1]

    def plan(self, *replies: FakeReply) -> None:
        """The next replies, before the script is asked again."""
        self._plans.extend(replies)

    def next_reply(self, connection: FakeConnection, request: Event) -> FakeReply:
        return self._plans.popleft() if self._plans else self.script(connection, request)

    def new_id(self, kind: str) -> str:
        return f"{kind}_up{next(self._ids)}"

    def _accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener | None:
        if not request.path.startswith(b"/v1/realtime"):
            return None
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen_keys.append(key)
        how = "ok"
        if self.opens:
            how = self.opens.pop(0) if len(self.opens) > 1 else self.opens[0]
        if self.keys and key not in self.keys:
            how = "http:401"
        if how.startswith("http:"):
            refusal = WSUpgradeResponse.create_error_response(int(how[5:]), b"refused")
            return WSUpgradeResponseWithListener(refusal, None)
        asked = parse_qs(urlsplit(request.path.decode()).query)
        scribes = asked.get("intent") == ["transcription"]
        if scribes and (self.transcription == "refused" or "model" in asked):
            refusal = WSUpgradeResponse.create_error_response(400, b"expected a model")
            return WSUpgradeResponseWithListener(refusal, None)
        connection = FakeConnection(self, how, scribes=scribes and self.transcription == "known")
        self.connections.append(connection)
        return connection


class FakeConnection(WSListener):
    """One client. ``events``: all it sent, audio apart (``audio`` as PCM16 24 kHz; ``encoded``: what of it came as
    G.711, as it came); ``items``: the conversation as the provider
    has it; ``session``: its settings, merged."""

    def __init__(self, server: FakeRealtime, how: str, *, scribes: bool = False) -> None:
        self.server = server
        self.events: list[Event] = []
        self.audio = bytearray()
        self.encoded = bytearray()
        self.items: list[Event] = []
        self.session: Event = new_session(scribes=scribes)
        self.errors: list[str] = []
        """Codes of the errors that were sent: what a client did wrong."""
        self.closed: int | None = None
        """The code that the client closed with; 1006 for a cut line."""
        self.pong_delay_s = 0.0
        self.frozen_at: float | None = None
        """When it fell silent for good (``freeze``), on the loop's clock."""
        self.heard_at = 0.0
        self._how = how
        self._transport: WSTransport | None = None
        self._is_frozen = False
        self._buffered_ms = 0.0
        self._speech = ""
        self._turn_from = 0
        """Byte of the audio at which the open turn, or the uncommitted buffer, begins."""
        self._quiet_ms = 0.0
        self._active: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._coming: deque[Event] = deque()
        self._going: deque[tuple[WSMsgType, str | bytes]] = deque()
        self._turns = 0

    # -- on command

    def send(self, frame: Event | str | bytes) -> None:
        """Anything, as it is; an event gets its event_id."""
        if self._transport is None or self._transport.is_disconnected or self._is_frozen:
            return
        if isinstance(frame, dict):
            frame = json.dumps({"event_id": self.server.new_id("event"), **frame})
        self._write(WSMsgType.TEXT, frame)

    def send_binary(self, data: bytes) -> None:
        self._write(WSMsgType.BINARY, data)

    def _write(self, kind: WSMsgType, data: str | bytes) -> None:
        if self.server.delay_s or self._going:
            # Timers of one moment come in no promised order: each takes the oldest.
            self._going.append((kind, data))
            asyncio.get_running_loop().call_later(self.server.delay_s, self._write_oldest)
        else:
            self._write_now(kind, data)

    def _write_oldest(self) -> None:
        self._write_now(*self._going.popleft())

    def _write_now(self, kind: WSMsgType, data: str | bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_disconnected and not transport.is_close_frame_sent:
            transport.send(kind, data)

    def close(self, code: int, reason: str = "") -> None:
        """1005 sends a close frame without a code, 1006 cuts the line."""
        for task in [*self._active.values(), *self._tasks]:
            task.cancel()
        transport = self._transport
        if transport is None or transport.is_disconnected:
            return
        self._is_frozen = True
        if code == 1005:
            transport.send(WSMsgType.CLOSE, b"")
        elif code != 1006:
            transport.send_close(cast("WSCloseCode", code), reason.encode())
        transport.disconnect(graceful=code != 1006)

    def freeze(self) -> None:
        """Say nothing any more; pings are answered."""
        self._is_frozen = True
        self.frozen_at = asyncio.get_running_loop().time()

    def expire(self) -> None:
        message = "Your session hit the maximum duration of 60 minutes."
        self.error("session_expired", message=message)
        self.close(4000, "invalid_request_error.session_expired")

    def error(
        self, code: str | None, *, event_id: str | None = None, message: str = "refused", param: str = ""
    ) -> None:
        self.errors.append(code or "")
        told = {"type": "invalid_request_error", "message": message, "code": code, "event_id": event_id}
        told["param"] = param
        self.send({"type": "error", "error": {name: value for name, value in told.items() if value}})

    @property
    def echoes_metadata(self) -> bool:
        return self.server.echoes_metadata

    @property
    def dialect(self) -> str:
        return self.server.dialect

    def new_id(self, kind: str) -> str:
        return self.server.new_id(kind)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["type"] == kind]

    # -- the socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        word, _, code = self._how.partition(":")
        match word:
            case "close":
                self.close(int(code), "said no")
            case "key":
                self.error("invalid_api_key")
                self.close(4000, "invalid_request_error.invalid_api_key")
            case "model":
                self.error("model_not_found")
                self.close(4000, "invalid_request_error.model_not_found")
            case "quota":
                self.error("insufficient_quota")
                self.close(4000, "invalid_request_error.insufficient_quota")
            case "busy":
                self.error("session_limit_reached")
                self.close(1011)
            case "garbage":
                self.send("this is no event")
            case "binary":
                self.send_binary(bytes(range(64)))
            case "vllm":
                self.send(
                    '{"type":"error","error":"expected a session.update with a model","code":"bad_request"}'
                )
            case "silent":
                pass
            case "slow":
                self._spawn(self._begin(float(code)))
            case _:
                self._greet()
        self._watch()

    async def _begin(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self._greet()

    def _greet(self) -> None:
        self.session["id"] = self.server.new_id("sess")
        self.send({"type": "session.created", "session": self.session})
        if self.server.dialect == "xai":
            self.send({"type": "conversation.created", "conversation": {"id": self.server.new_id("conv")}})

    def _watch(self) -> None:
        """The provider's own clocks: how old a session may be, and how long it may be silent."""
        loop = asyncio.get_running_loop()
        self.heard_at = loop.time()
        if self.server.cap_s:
            self._timers.append(loop.call_later(self.server.cap_s, self.expire))
        if self.server.idle_s:
            self._timers.append(loop.call_later(self.server.idle_s, self._check_idle))

    def _check_idle(self) -> None:
        loop = asyncio.get_running_loop()
        left = self.heard_at + self.server.idle_s - loop.time()
        if left <= 0:
            self.close(1001, "idle")
        else:
            self._timers.append(loop.call_later(left, self._check_idle))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.heard_at = asyncio.get_running_loop().time()
            event = json.loads(frame.get_payload_as_bytes())
            if self.server.delay_s or self._coming:
                self._coming.append(event)
                asyncio.get_running_loop().call_later(self.server.delay_s, self._take_oldest)
            else:
                self._take(event)
        elif frame.msg_type is WSMsgType.PING:
            payload = frame.get_payload_as_bytes()
            asyncio.get_running_loop().call_later(self.pong_delay_s, self._pong, payload)
        elif frame.msg_type is WSMsgType.CLOSE:
            payload = frame.get_payload_as_bytes()
            self.closed = int.from_bytes(payload[:2], "big") or 1005
            if not transport.is_close_frame_sent:
                transport.send_close(cast("WSCloseCode", 1000))
            transport.disconnect()

    def _take_oldest(self) -> None:
        event = self._coming.popleft()
        if self._transport is not None and not self._transport.is_disconnected:
            self._take(event)

    def _pong(self, payload: bytes) -> None:
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_pong(payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = 1006 if self.closed is None else self.closed
        for task in [*self._active.values(), *self._tasks]:
            task.cancel()
        for timer in self._timers:
            timer.cancel()

    # -- what the client says

    def _take(self, event: Event) -> None:
        kind = event["type"]
        if kind == "input_audio_buffer.append":
            self._hear(base64.b64decode(event["audio"]))
            return
        self.events.append(event)
        match kind:
            case "response.create" | "conversation.item.create" if self.session["type"] == "transcription":
                self.error("invalid_session_type", event_id=event.get("event_id"))
            case "session.update":
                self._configure(event)
            case "input_audio_buffer.commit":
                self._commit_by_client(event)
            case "input_audio_buffer.clear":
                self._buffered_ms, self._speech, self._turn_from = 0.0, "", len(self.audio)
                self.send({"type": "input_audio_buffer.cleared"})
            case "conversation.item.create":
                self._create(event)
            case "conversation.item.delete":
                self._delete(event)
            case "conversation.item.truncate":
                self._truncate(event)
            case "response.create":
                self._respond(event.get("response") or {}, event.get("event_id"))
            case "response.cancel":
                self._cancel(event)
            case _:
                self.error("invalid_value", event_id=event.get("event_id"))

    def _configure(self, event: Event) -> None:
        event_id, server = event.get("event_id"), self.server
        if self._how == "deaf":
            return
        if self._how.startswith("setting:"):
            self.error("invalid_value", event_id=event_id, param=self._how.partition(":")[2])
            return
        refused = update(
            self.session,
            event["session"],
            formats=server.formats,
            refusal=server.refusal,
            transcription=server.transcription,
        )
        if refused is None:
            self.send({"type": "session.updated", "session": self.session})
            return
        if refused.is_said:
            named = event_id if refused.code else None
            self.error(refused.code or None, event_id=named, param=refused.param)
        if refused.close is not None:
            self.close(*refused.close)

    # -- ears

    @property
    def _detection(self) -> Event | None:
        detection: Event | None = self.session["audio"]["input"].get("turn_detection", {})
        return detection

    def _hear(self, data: bytes) -> None:
        name = self.session["audio"]["input"]["format"]["type"]
        if name != "audio/pcm":
            self.encoded += data
        pcm = as_pcm(name, data)
        for at in range(0, len(pcm), FRAME_BYTES):
            self._hear_frame(pcm[at : at + FRAME_BYTES])

    def _hear_frame(self, pcm: bytes) -> None:
        at_ms = len(self.audio) / 48
        self.audio += pcm
        ms = len(pcm) / 48
        self._buffered_ms += ms
        detection = self._detection
        if detection is None:
            return
        is_loud = any(abs(sample) > LOUD for (sample,) in struct.iter_unpack("<h", pcm))
        if is_loud and not self._speech:
            self._speech = self.server.new_id("item")
            self._turn_from = max(self._turn_from, int(at_ms - 300) * 48)
            started = {"audio_start_ms": int(at_ms), "item_id": self._speech}
            for _ in range(2 if self.server.repeats else 1):
                self.send({"type": "input_audio_buffer.speech_started", **started})
            if detection.get("interrupt_response", True):
                for response in list(self._active):
                    self._stop(response, "turn_detected")
        self._quiet_ms = 0.0 if is_loud else self._quiet_ms + ms
        if self._speech and self._quiet_ms >= detection.get("silence_duration_ms", 200):
            item, self._speech = self._speech, ""
            stopped = {"audio_end_ms": int(at_ms + ms), "item_id": item}
            for _ in range(2 if self.server.repeats else 1):
                self.send({"type": "input_audio_buffer.speech_stopped", **stopped})
            self._commit(item)
            answers = self.session["type"] == "realtime"
            if answers and (detection.get("create_response", True) or not self.server.obeys):
                self._respond({}, None)

    def _commit_by_client(self, event: Event) -> None:
        if self._buffered_ms < 100:
            self.error("input_audio_buffer_commit_empty", event_id=event.get("event_id"))
            return
        item, self._speech = self._speech or self.server.new_id("item"), ""
        self._commit(item)

    def _commit(self, item: str) -> None:
        self._buffered_ms = 0.0
        previous = self.items[-1]["id"] if self.items else None
        for _ in range(2 if self.server.repeats else 1):
            self.send({"type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": previous})
        content = {"type": "input_audio", "transcript": None}
        entry = {"id": item, "type": "message", "role": "user", "status": "completed", "content": [content]}
        self._add(entry, len(self.items))
        texts = self.server.transcripts
        text = texts[min(self._turns, len(texts) - 1)]
        if self.server.transcribe is not None:
            text = self.server.transcribe(bytes(self.audio[self._turn_from :]))
        self._turn_from = len(self.audio)
        self._turns += 1
        content["transcript"] = text
        self._spawn(self._transcribe(item, text))

    async def _transcribe(self, item: str, text: str) -> None:
        await asyncio.sleep(self.server.transcript_delay_s)
        kind = "conversation.item.input_audio_transcription"
        place = {"item_id": item, "content_index": 0}
        if text == "(failed)":
            self.send({"type": f"{kind}.failed", **place, "error": {"code": "audio_unintelligible"}})
            return
        for word in text.split():
            self.send({"type": f"{kind}.delta", **place, "delta": f"{word} "})
            if self.server.transcript_pace_s:
                await asyncio.sleep(self.server.transcript_pace_s)
        usage = {"type": "duration", "seconds": 1}
        self.send({"type": f"{kind}.completed", **place, "transcript": text, "usage": usage})

    # -- items

    def _add(self, item: Event, place: int) -> None:
        previous = self.items[place - 1]["id"] if place else None
        self.items.insert(place, item)
        for kind in ("added", "done"):
            self.send({"type": f"conversation.item.{kind}", "previous_item_id": previous, "item": item})

    def _create(self, event: Event) -> None:
        item = {"status": "completed", **event["item"]}
        item.setdefault("id", self.server.new_id("item"))
        known = [entry["id"] for entry in self.items]
        asked = event.get("previous_item_id")
        calls = {entry.get("call_id") for entry in self.items if entry["type"] == "function_call"}
        if item["id"] in known:
            self.error("item_create_duplicate_item_id", event_id=event.get("event_id"))
        elif asked not in (None, "root", *known) or len(item["id"]) > 32:
            self.error("invalid_value", event_id=event.get("event_id"))
        elif item["type"] == "function_call_output" and item["call_id"] not in calls:
            self.error("invalid_tool_call_id", event_id=event.get("event_id"))
        else:
            place = 0 if asked == "root" else len(known) if asked is None else known.index(asked) + 1
            self._add(item, place)

    def _delete(self, event: Event) -> None:
        kept = [item for item in self.items if item["id"] != event["item_id"]]
        if len(kept) == len(self.items):
            self.error("item_delete_invalid_item_id", event_id=event.get("event_id"))
            return
        self.items = kept
        self.send({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    def _truncate(self, event: Event) -> None:
        item = next((item for item in self.items if item["id"] == event["item_id"]), None)
        if item is None or "audio_ms" not in item:
            self.error("item_truncate_invalid_item_id", event_id=event.get("event_id"))
        elif not 0 < event["audio_end_ms"] <= item["audio_ms"]:
            self.error("invalid_value", event_id=event.get("event_id"))
        else:
            item["audio_ms"] = event["audio_end_ms"]
            told = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
            self.send({"type": "conversation.item.truncated", **told})

    # -- responses

    def _respond(self, request: Event, event_id: str | None) -> None:
        is_default = request.get("conversation", "auto") == "auto"
        if is_default and self._active:
            self.error("conversation_already_has_active_response", event_id=event_id)
            return
        reply = self.server.next_reply(self, request)
        response = self.server.new_id("resp")
        making = FakeResponse(self, response, request, reply)
        if reply.fault == "error_without_ids":
            self.error(None)
            return
        if reply.fault == "busy":
            self.error("conversation_already_has_active_response", event_id=event_id)
            return
        task = self._spawn(making.run())
        if is_default and reply.fault != "never":
            self._active[response] = task
            task.add_done_callback(lambda _: self._active.pop(response, None))
        self.making = making

    def _cancel(self, event: Event) -> None:
        response = event.get("response_id") or next(iter(self._active), None)
        if response not in self._active:
            self.error("response_cancel_not_active", event_id=event.get("event_id"))
            return
        self._stop(response, "client_cancelled")

    def _stop(self, response: str, reason: str) -> None:
        task = self._active.pop(response)
        task.cancel()
        self.making.end("cancelled", {"type": "cancelled", "reason": reason})

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
