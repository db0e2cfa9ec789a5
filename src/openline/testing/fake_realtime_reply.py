"""One response of the fake provider: right, or wrong in the way it was told."""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from openline.testing.fake_realtime_audio import BYTES_PER_MS, quiet_tone

CHUNK_MS = 40
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FakeReply:
    """What a response says: ``text``, or calls as (name, JSON arguments). ``audio_ms``: how long it speaks;
    ``pace_s`` between chunks (0: all at once, as a fast provider). ``fault``: one of REPLY_FAULTS."""

    text: str = "hello"
    calls: tuple[tuple[str, str], ...] = ()
    audio_ms: int = 400
    pace_s: float = 0.0
    fault: str = ""


class Speaker(Protocol):
    """What a response needs of its connection."""

    session: Event
    items: list[Event]

    @property
    def echoes_metadata(self) -> bool: ...

    @property
    def dialect(self) -> str: ...

    def new_id(self, kind: str) -> str: ...

    def send(self, frame: Event | str | bytes) -> None: ...

    def close(self, code: int, reason: str = "") -> None: ...

    def freeze(self) -> None: ...


class FakeResponse:
    """One response being made."""

    def __init__(self, connection: Speaker, ident: str, request: Event, reply: FakeReply) -> None:
        self._connection = connection
        self._id = ident
        self._request = request
        self._reply = reply
        self._fault, _, self._argument = reply.fault.partition(":")
        modalities = request.get("output_modalities") or connection.session.get("output_modalities")
        self._is_spoken = (modalities or ["audio"]) == ["audio"]
        asked = request.get("audio", {}).get("output", {}).get("format")
        self._format = asked or connection.session["audio"]["output"].get("format") or {"type": "audio/pcm"}

    @property
    def _echoed(self) -> Event:
        given = self._request.get("metadata")
        return {"metadata": given} if given and self._connection.echoes_metadata else {}

    def _send(self, kind: str, **values: object) -> None:
        self._connection.send({"type": kind, **values})

    def _created(self) -> None:
        body = {"id": self._id, "object": "realtime.response", "status": "in_progress", "output": []}
        audio = {"output": {"format": self._format}}
        self._send("response.created", response={**body, "audio": audio, **self._echoed})

    def end(self, status: str, details: Event | None = None) -> None:
        usage = {
            "total_tokens": 15,
            "input_tokens": 10,
            "output_tokens": 5,
            "input_token_details": {"cached_tokens": 4, "audio_tokens": 6, "text_tokens": 4},
            "output_token_details": {"audio_tokens": 3, "text_tokens": 2},
        }
        body = {"id": self._id, "object": "realtime.response", "status": status, "output": [], "usage": usage}
        self._send("response.done", response={**body, "status_details": details, **self._echoed})

    async def run(self) -> None:
        fault = self._fault
        if fault == "never":
            return
        if fault != "late_created":
            self._created()
        if fault == "failed":
            self.end("failed", {"type": "failed", "error": {"type": "x", "code": self._argument or None}})
            return
        if fault != "empty":
            for index, call in enumerate(self._reply.calls):
                await self._call(index + bool(self._reply.text), *call)
            if self._reply.text:
                await self._message()
        if fault == "cancelled":
            self.end("cancelled", {"type": "cancelled", "reason": "turn_detected"})
            return
        for _ in range(2 if fault == "duplicate_done" else 1):
            self.end("completed")
        if fault == "content_after_done":
            self._say_more()
        if fault == "then_close":
            self._connection.close(int(self._argument or 1011))

    def _say_more(self) -> None:
        """After the terminal: nobody may hear it."""
        place = {"response_id": self._id, "output_index": 0, "item_id": "item_late", "content_index": 0}
        self._send("response.output_audio_transcript.delta", **place, delta="ghost")
        self._send("response.output_audio.delta", **place, delta="AAAA")
        item = {
            "id": "item_late",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [],
        }
        self._send("response.output_item.done", response_id=self._id, output_index=0, item=item)

    def _item(self, **values: object) -> Event:
        return {"id": self._connection.new_id("item"), "object": "realtime.item", **values}

    def _place(self, item: Event) -> None:
        if self._request.get("conversation", "auto") == "auto":
            self._connection.items.append(item)

    async def _call(self, index: int, name: str, arguments: str) -> None:
        call_id = self._connection.new_id("call")
        item = self._item(
            type="function_call", status="in_progress", name=name, call_id=call_id, arguments=""
        )
        place = {"response_id": self._id, "output_index": index}
        self._place(item)
        self._send("response.output_item.added", **place, item=item)
        if self._fault == "late_created":
            self._created()
        here = {**place, "item_id": item["id"], "call_id": call_id}
        for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            self._send("response.function_call_arguments.delta", **here, delta=half)
        item.update(status="completed", arguments=arguments)
        self._send("response.function_call_arguments.done", **here, name=name, arguments=arguments)
        for _ in range(2 if self._fault == "duplicate_done" else 1):
            self._send("response.output_item.done", **place, item=item)

    async def _message(self) -> None:
        text = self._reply.text
        item = self._item(type="message", role="assistant", status="in_progress", content=[])
        self._place(item)
        place = {"response_id": self._id, "output_index": 0}
        self._send("response.output_item.added", **place, item=item)
        if self._fault == "late_created":
            self._created()
        here = {**place, "item_id": item["id"], "content_index": 0}
        kind = "response.output_audio_transcript" if self._is_spoken else "response.output_text"
        pieces = [word if at == 0 else f" {word}" for at, word in enumerate(text.split(" "))]
        chunks = list(self._audio())
        count = max(len(pieces), len(chunks))
        words = {number * count // len(pieces): piece for number, piece in enumerate(pieces)}
        sent = 0
        is_told_late = self._fault in ("late_transcript", "done_only_transcript")
        for at in range(count):
            if at == count // 2 and await self._break():
                return
            if at in words and not is_told_late:
                self._send(f"{kind}.delta", **here, delta=words[at])
                if self._connection.dialect == "xai" and not self._is_spoken:
                    self._send("response.text.delta", **here, delta=words[at])
            if at < len(chunks):
                sent += len(chunks[at])
                item["audio_ms"] = sent // BYTES_PER_MS[self._format["type"]]
                delta = base64.b64encode(chunks[at]).decode()
                self._send("response.output_audio.delta", **here, delta=delta)
            if self._reply.pace_s:
                await asyncio.sleep(self._reply.pace_s)
        if self._is_spoken:
            self._send("response.output_audio.done", **here)
        if self._fault == "late_transcript":
            self._send(f"{kind}.delta", **here, delta=text)
        self._send(f"{kind}.done", **here, **{"transcript" if self._is_spoken else "text": text})
        content = {"type": "output_audio", "transcript": text} if self._is_spoken else _written(text)
        item.update(status="completed", content=[content])
        self._send("conversation.item.done", item=item)
        if self._fault == "no_item_done":
            return
        for _ in range(2 if self._fault == "duplicate_done" else 1):
            self._send("response.output_item.done", **place, item=item)

    def _audio(self) -> Iterator[bytes]:
        """Nothing that a detector takes for speech."""
        if not self._is_spoken or self._fault == "no_audio":
            return
        name = self._format["type"]
        sound = quiet_tone(name, self._reply.audio_ms)
        whole = (CHUNK_MS * BYTES_PER_MS[name],)
        sizes = itertools.cycle((2, 31_998, 4, 962, 1_918) if self._fault == "odd_chunks" else whole)
        at = 0
        for size in sizes:
            if at >= len(sound):
                return
            yield sound[at : at + size]
            at += size

    async def _break(self) -> bool:
        """Half of it was sent. True: no more of it comes."""
        connection = self._connection
        match self._fault:
            case "half_then_close":
                connection.close(int(self._argument or 1011))
                return True
            case "half_then_silence":
                connection.freeze()
                await asyncio.Event().wait()
            case "unknown_item":
                other = {"response_id": "resp_nobody", "item_id": "item_nobody", "output_index": 7}
                self._send("response.output_audio.delta", **other, content_index=0, delta="AAAA")
                self._send("response.output_text.delta", **{**other, "response_id": self._id}, delta="ghost")
                self._send("response.done", response={"id": "resp_nobody", "status": "completed"})
            case "garbage":
                for frame in ("{not json", "[]", '"text"', '{"type":"vendor.special"}', '{"no":"type"}'):
                    connection.send(frame)
                connection.send('{"type":"response.output_audio.delta","response_id":"r","delta":"?"}')
            case "huge_frame":
                connection.send(b'{"type":"vendor.big","x":"' + b"x" * 40_000_000 + b'"}')
            case _:
                pass
        return False


def _written(text: str) -> Event:
    return {"type": "output_text", "text": text}
