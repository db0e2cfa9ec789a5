"""One session of the fake gateway: it hears loudness, answers from a script, numbers its facts and resumes.

Facts and frames have the shapes of ``openline.core.facts`` and ``openline.wire.render``; what they say comes
from ``console_story.LINES``, turn by turn.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from console_story import LINES, Line, voice
from starlette.websockets import WebSocket, WebSocketDisconnect

Json = dict[str, Any]
"""Frames and facts are JSON objects here; their shape is the console's business, tested by what it shows."""

BYTES_PER_MS = 48
LOUD = 0.012
"""Root mean square (of 1) above which 20 ms count as speech; the browser's noise suppression leaves less in pauses."""
SILENCE_MS = 500
AHEAD_MS = 500
CHUNK_MS = 100


def now_ms() -> int:
    return int(time.time() * 1000)


def shown(item: Json) -> Json:
    """An item as frames show it: spoken parts have a transcript where facts have text."""
    parts = [
        {"type": part["type"], "transcript": part["text"]} if part["type"].endswith("audio") else part
        for part in item.get("content", [])
    ]
    return {**item, "content": parts} if "content" in item else item


@dataclass(slots=True)
class Reply:
    """One spoken answer: its audio, and how much of it was released to the client and played there."""

    item_id: str
    response_id: str
    line: Line
    pcm: bytes
    released: int = 0
    played_ms: int = 0
    sent_words: int = 0
    task: asyncio.Task[None] | None = None

    @property
    def audio_ms(self) -> int:
        return len(self.pcm) // BYTES_PER_MS

    def item(self, status: str, text: str) -> Json:
        content = [{"type": "output_audio", "text": text}] if text else []
        return {
            "id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content,
        }  # fmt: skip


@dataclass
class FakeSession:
    """A session: its facts, the frames rendered from them, whoever is attached, and the turn in progress."""

    id: str
    changed: Callable[[str], None]
    created_ms: int = field(default_factory=now_ms)
    status: str = "live"
    epoch: int = 1
    facts: list[Json] = field(default_factory=list)
    frames: list[tuple[int, int, Json]] = field(default_factory=list)
    speaker: WebSocket | None = None
    observers: list[WebSocket] = field(default_factory=list)
    names: dict[WebSocket, str] = field(default_factory=dict)
    recording: bytes = b""
    playouts: list[tuple[str, int]] = field(default_factory=list)
    commands: list[Json] = field(default_factory=list)
    heard_bytes: int = 0
    turn: int = 0
    speech: Json | None = None
    quiet_ms: int = 0
    manual: bool = False
    typed: list[str] = field(default_factory=list)
    reply: Reply | None = None
    replies: dict[str, Reply] = field(default_factory=dict)
    ids: int = 0

    @property
    def seq(self) -> int:
        return len(self.facts)

    def row(self) -> Json:
        updated = self.facts[-1]["at"] if self.facts else self.created_ms
        return {
            "id": self.id, "object": "openline.session", "status": self.status, "epoch": self.epoch,
            "node": "node-a", "last_seq": self.seq, "created_ms": self.created_ms, "updated_ms": updated,
        }  # fmt: skip

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
        self.changed(self.id)

    async def own(self, kind: str, *frames: Json, **data: Any) -> None:
        """A fact of our own vocabulary: its last frame is the fact itself."""
        await self.fact(kind, *frames, {"type": kind, "seq": self.seq + 1, **data}, **data)

    async def partial(self, frame: Json, *, speaker_only: bool = False) -> None:
        await self.show({"event_id": f"evt_{self.epoch}_{self.seq}_40", **frame}, speaker_only=speaker_only)

    async def show(self, frame: Json, *, speaker_only: bool = False) -> None:
        for socket in [self.speaker] if speaker_only else [self.speaker, *self.observers]:
            if socket is not None:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await socket.send_text(json.dumps(frame))

    # ------------------------------------------------------------------------------ what the caller says

    async def take_audio(self, pcm: bytes) -> None:
        self.heard_bytes += len(pcm)
        if self.manual:
            return
        samples = array("h", pcm)
        is_loud = (sum(s * s for s in samples) / max(1, len(samples))) ** 0.5 / 32768 > LOUD
        if is_loud and self.speech is None:
            await self.speech_started()
        elif self.speech is not None:
            self.quiet_ms = 0 if is_loud else self.quiet_ms + len(pcm) // BYTES_PER_MS
            await self.grow_partial(self.speech)
            if self.quiet_ms >= SILENCE_MS:
                await self.end_turn(self.speech)

    async def speech_started(self) -> None:
        item_id, turn_id = self.new_id("item"), self.new_id("turn")
        line = LINES[self.turn % len(LINES)]
        self.speech = {
            "item_id": item_id,
            "turn_id": turn_id,
            "from": self.heard_bytes,
            "words": 0,
            "line": line,
        }
        self.quiet_ms = 0
        start = self.heard_bytes // BYTES_PER_MS
        frame = {"type": "input_audio_buffer.speech_started", "audio_start_ms": start, "item_id": item_id}
        await self.fact(frame["type"], frame, turn_id=turn_id, item_id=item_id, audio_start_ms=start)
        if self.reply is not None:
            await self.cut_reply("turn_detected")

    async def grow_partial(self, speech: Json) -> None:
        words = speech["line"].caller.split()
        count = min(len(words), 1 + (self.heard_bytes - speech["from"]) // BYTES_PER_MS // 230)
        if count > speech["words"]:
            speech["words"] = count
            place = {"turn_id": speech["turn_id"], "item_id": speech["item_id"]}
            await self.partial({"type": "openline.turn.partial", "text": " ".join(words[:count]), **place})

    async def end_turn(self, speech: Json) -> None:
        self.speech = None
        end = self.heard_bytes // BYTES_PER_MS
        frame = {
            "type": "input_audio_buffer.speech_stopped",
            "audio_end_ms": end,
            "item_id": speech["item_id"],
        }
        await self.fact(
            frame["type"], frame, turn_id=speech["turn_id"], item_id=speech["item_id"], audio_end_ms=end
        )
        await self.commit_turn(speech["item_id"], speech["turn_id"], speech["line"])

    async def commit_turn(self, item_id: str, turn_id: str, line: Line) -> None:
        part = {"type": "input_audio", "text": line.caller}
        item = {"id": item_id, "type": "message", "role": "user", "status": "completed", "content": [part]}
        wordless = {**item, "content": [{"type": "input_audio", "transcript": None}]}
        completed = {
            "type": "conversation.item.input_audio_transcription.completed", "item_id": item_id,
            "content_index": 0, "transcript": line.caller, "usage": {"type": "duration", "seconds": 1.0},
        }  # fmt: skip
        await self.own(
            "openline.turn.committed",
            {"type": "input_audio_buffer.committed", "item_id": item_id, "previous_item_id": None},
            {"type": "conversation.item.added", "item": wordless},
            {"type": "conversation.item.done", "item": wordless},
            completed,
            turn_id=turn_id, text=line.caller, confidence=line.confidence, item=item, text_items=[],
        )  # fmt: skip
        self.turn += 1
        await self.start_reply(line)

    # -------------------------------------------------------------------------------- what the agent says

    async def start_reply(self, line: Line) -> None:
        response_id = self.new_id("resp")
        response = {"id": response_id, "object": "realtime.response", "status": "in_progress", "output": []}
        await self.fact(
            "response.created", {"type": "response.created", "response": response}, response_id=response_id
        )
        if line.tool:
            await self.run_tool(line, response_id)
        pcm = voice("agent", len(line.agent) * 62, seed=self.turn)
        reply = self.reply = Reply(self.new_id("item"), response_id, line, pcm)
        self.replies[reply.item_id] = reply
        await self.added(response_id, reply.item("in_progress", ""))
        reply.task = asyncio.create_task(self.speak(reply))

    async def added(self, response_id: str, item: Json) -> None:
        kind = "response.output_item.added"
        frame = {"type": kind, "response_id": response_id, "output_index": 0, "item": item}
        await self.fact(kind, frame, response_id=response_id, output_index=0, item=item)

    async def run_tool(self, line: Line, response_id: str) -> None:
        item_id, call_id = self.new_id("item"), self.new_id("call")
        item = {
            "id": item_id, "type": "mcp_call", "server_label": "gateway", "name": line.tool,
            "arguments": line.arguments,
        }  # fmt: skip
        await self.added(response_id, {**item, "arguments": ""})
        done = {
            "type": "response.output_item.done",
            "response_id": response_id,
            "output_index": 0,
            "item": item,
        }
        await self.fact(
            "response.output_item.done", done, response_id=response_id, item={**item, "call_id": call_id}
        )
        await self.own(
            "openline.tool.requested", call_id=call_id, item_id=item_id, name=line.tool, runner="gateway"
        )
        await self.own("openline.tool.started", call_id=call_id, attempt=1, epoch=self.epoch)
        await asyncio.sleep(0.35)
        settled = {**item, "output": line.output}
        over = {"type": "conversation.item.done", "item": settled}
        await self.own(
            "openline.tool.settled", over, call_id=call_id, attempt=1, outcome="succeeded", item=settled
        )

    async def speak(self, reply: Reply) -> None:
        """Release audio at most AHEAD_MS before its playing; hold while nobody is attached."""
        ids = {
            "response_id": reply.response_id,
            "item_id": reply.item_id,
            "output_index": 0,
            "content_index": 0,
        }
        began, base = time.monotonic(), 0
        while reply.released < len(reply.pcm):
            if self.speaker is None:
                base = reply.released
                await asyncio.sleep(0.02)
                began = time.monotonic()
                continue
            await self.speak_words(reply, ids)
            chunk = reply.pcm[reply.released : reply.released + CHUNK_MS * BYTES_PER_MS]
            reply.released += len(chunk)
            audio = base64.b64encode(chunk).decode()
            await self.partial(
                {"type": "response.output_audio.delta", "delta": audio, **ids}, speaker_only=True
            )
            due = began + ((reply.released - base) / BYTES_PER_MS - AHEAD_MS) / 1000
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await self.finish_reply(reply)

    async def speak_words(self, reply: Reply, ids: Json) -> None:
        words = reply.line.agent.split(" ")
        share = reply.released / len(reply.pcm)
        while reply.sent_words < len(words) and reply.sent_words <= share * len(words) + 3:
            reply.sent_words += 1
            delta = words[reply.sent_words - 1] + (" " if reply.sent_words < len(words) else "")
            await self.partial({"type": "response.output_audio_transcript.delta", "delta": delta, **ids})

    async def end_item(self, reply: Reply, status: str, end: int) -> None:
        """``end``: characters that clients are shown of it."""
        text = reply.line.agent
        item = shown(reply.item(status, text[:end]))
        place = {"response_id": reply.response_id, "output_index": 0}
        await self.fact(
            "response.output_item.done",
            {"type": "response.output_audio_transcript.done", "item_id": reply.item_id, "transcript": text[:end], **place},
            {"type": "conversation.item.done", "item": item},
            {"type": "response.output_item.done", "item": item, **place},
            item=reply.item(status, text), audio_ms=reply.audio_ms, **place,
        )  # fmt: skip

    async def finish_reply(self, reply: Reply) -> None:
        text = reply.line.agent
        await self.end_item(reply, "completed", len(text))
        response = {"id": reply.response_id, "status": "completed", "output": []}
        done = {"type": "response.done", "response": response}
        await self.fact("response.done", done, response_id=reply.response_id, status="completed", reason="")
        deadline = time.monotonic() + 1.5
        while reply.played_ms < reply.audio_ms - 20 and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await self.heard(reply, len(text))
        if self.reply is reply:
            self.reply = None

    async def heard(self, reply: Reply, text_end: int) -> None:
        await self.own(
            "openline.item.heard",
            item_id=reply.item_id, audio_end_ms=reply.played_ms, text_end=text_end, source="reported", estimated=False,
        )  # fmt: skip

    async def cut_reply(self, reason: str) -> None:
        reply, self.reply = self.reply, None
        if reply is None:
            return
        if reply.task is not None:
            reply.task.cancel()
        # The client reports what it played as soon as it has cleared; a moment is enough for it to come.
        reply.task = asyncio.get_running_loop().create_task(self.settle_cut(reply, reason))

    async def settle_cut(self, reply: Reply, reason: str) -> None:
        await asyncio.sleep(0.12)
        text = reply.line.agent
        end = max(0, text.rfind(" ", 0, max(1, len(text) * reply.played_ms // reply.audio_ms)))
        await self.end_item(reply, "incomplete", end)
        details = {"type": "cancelled", "reason": reason}
        response = {"id": reply.response_id, "status": "cancelled", "status_details": details, "output": []}
        done = {"type": "response.done", "response": response}
        await self.fact(
            "response.done", done, response_id=reply.response_id, status="cancelled", reason=reason
        )
        await self.heard(reply, end)

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
            await self.create_item(event["item"])
        elif kind == "response.create":
            await self.create_response()
        elif kind == "response.cancel":
            await self.cut_reply("client_cancelled")
        elif kind == "session.update":
            self.manual = event["session"]["audio"]["input"]["turn_detection"] is None
            await self.fact("session.updated", {"type": "session.updated", "session": event["session"]})
        elif kind == "input_audio_buffer.commit":
            line = LINES[self.turn % len(LINES)]
            await self.commit_turn(self.new_id("item"), self.new_id("turn"), line)
        elif kind == "openline.session.end":
            self.status = "ended"
            await self.own("openline.session.ended", reason="client")

    async def create_item(self, given: Json) -> None:
        item = {"id": self.new_id("item"), "status": "completed", **given}
        self.typed.append(item["id"])
        added = {"type": "conversation.item.added", "item": item}
        done = {"type": "conversation.item.done", "item": item}
        await self.fact("conversation.item.created", added, done, item=item)

    async def create_response(self) -> None:
        if self.typed:
            text_items, self.typed = self.typed, []
            turn_id = self.new_id("turn")
            await self.own("openline.turn.committed", turn_id=turn_id, text="(typed)", text_items=text_items)
        await self.start_reply(LINES[(self.turn + 2) % len(LINES)])
        self.turn += 1

    # --------------------------------------------------------------------------------------- connections

    async def attach(self, socket: WebSocket, after: str) -> None:
        """First `session.created`, then the rest of what the client has not seen, then the present."""
        role = socket.query_params.get("role", "speaker")
        mine = {
            "session_id": self.id, "epoch": self.epoch, "token": self.new_id("tok"), "role": role,
            "resumed_from": after or None, "lost": [], "renderer": 1,
        }  # fmt: skip
        session = {"type": "realtime", "object": "realtime.session", "id": self.id}
        place = f"evt_{self.epoch}_{self.seq}_32"
        await socket.send_text(
            json.dumps({"type": "session.created", "event_id": place, "session": session, "openline": mine})
        )
        if after:
            await self.send_missed(socket, after)
        self.names[socket] = self.new_id("conn")
        if role == "observer":
            self.observers.append(socket)
        else:
            if self.speaker is not None:
                await self.speaker.close(4409)
            self.speaker, self.status = socket, "live"
        await self.own("openline.connection.attached", conn=self.names[socket], role=role, opted_in=True)

    async def send_missed(self, socket: WebSocket, after: str) -> None:
        _, _, seq, index = after.split("_")
        for at, n, frame in self.frames:
            if (at, n) > (int(seq), int(index)):
                await socket.send_text(json.dumps(frame))
        reply = self.reply
        if reply is None:
            return
        # Media goes on from the played position, and says where that is.
        reply.released = reply.played_ms * BYTES_PER_MS
        text = " ".join(reply.line.agent.split(" ")[: reply.sent_words])
        whole = text + (" " if reply.sent_words < len(reply.line.agent.split(" ")) else "")
        so_far = {
            "type": "openline.item.partial",
            "item_id": reply.item_id,
            "text": whole,
            "audio_start_ms": reply.played_ms,
        }
        await socket.send_text(json.dumps({"event_id": f"evt_{self.epoch}_{self.seq}_41", **so_far}))

    async def detach(self, socket: WebSocket, code: int) -> None:
        if socket in self.observers:
            self.observers.remove(socket)
        if socket is self.speaker:
            self.speaker = None
            if self.status != "ended":
                self.status = "detached"
        if socket in self.names and self.status != "ended":
            reason = "closed" if code in (1000, 1001, 1005) else "lost"
            await self.own(
                "openline.connection.detached", conn=self.names.pop(socket), reason=reason, code=code
            )
