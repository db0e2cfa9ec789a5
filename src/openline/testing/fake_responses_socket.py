"""WebSocket mode of the fake provider: frames by hand, lanes, and what goes wrong on a socket."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openline.testing.fake_responses_parts import (
    Asked,
    Fault,
    Json,
    Refused,
    Stored,
    as_items,
    error_frame,
    not_found,
    shaped,
)
from openline.testing.fake_responses_steer import Steered, Told, accepted, failed, pending

if TYPE_CHECKING:
    from openline.testing.fake_responses import FakeProvider


_FAILED: Json = {"response": {"status": "failed", "output": []}}


@dataclass(eq=False)
class Lane:
    """``stream_id`` "" is the unnamed one. Its responses run one after another."""

    socket: Socket
    stream_id: str
    cache: dict[str, Stored] = field(default_factory=dict)
    waiting: asyncio.Queue[Json] = field(default_factory=asyncio.Queue)
    running: str = ""
    is_cancelled: bool = False
    told: Told = field(default_factory=Told)
    steers: list[Steered] = field(default_factory=list)
    """Accepted for the running response, in order."""
    queued: list[Steered] = field(default_factory=list)
    """Accepted for a response that ended with calls."""

    def take_queued(self, previous: str) -> list[Json]:
        taken = [one for one in self.queued if one.previous == previous]
        stored = self.socket.provider.stored
        self.queued = [one for one in self.queued if one not in taken and one.previous in stored]
        return [item for one in taken for item in as_items(one.input)]


class Socket:
    def __init__(
        self,
        provider: FakeProvider,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
    ) -> None:
        self.provider = provider
        self.lanes: dict[str, Lane] = {}
        self._reader = reader
        self._writer = writer
        self._number = number
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        try:
            while True:
                kind, payload = await self._frame()
                if kind == 8:
                    self._write(8, payload)
                    return
                if kind == 9:
                    self._write(10, payload)
                elif kind == 1:
                    self._take(payload)
        finally:
            self.provider.cut_off += sum(bool(lane.running) for lane in self.lanes.values())
            for task in self._tasks:
                task.cancel()

    def close(self, code: int) -> None:
        if code == 1006:
            self._writer.transport.abort()
        else:
            self._write(8, struct.pack("!H", code))
            self._writer.close()

    def _take(self, payload: bytes) -> None:
        body = json.loads(payload)
        name = body.get("stream_id", "")
        if body["type"] == "response.cancel":
            self.provider.cancelled.append(body["response_id"])
            for lane in self.lanes.values():
                if lane.running == body["response_id"] and self.provider.honours_cancel:
                    lane.is_cancelled = True
                    lane.told.stop.set()
            return
        if body["type"] == "response.steer":
            self._steer(body)
            return
        self.provider.requests.append(Asked("ws", body, len(payload), self._number))
        if name not in self.lanes:
            self.lanes[name] = Lane(self, name)
            self._tasks.append(asyncio.get_running_loop().create_task(self._work(self.lanes[name])))
        self.lanes[name].waiting.put_nowait(body)

    async def _work(self, lane: Lane) -> None:
        while True:
            body = await lane.waiting.get()
            try:
                await self._answer(lane, body)
            except Refused as refusal:
                self._send(lane, refusal.frame)
            except ConnectionError:
                return
            finally:
                lane.running, lane.is_cancelled = "", False

    # -- steering

    def _steer(self, body: Json) -> None:
        self.provider.steered.append(body)
        previous, given = body["previous_response_id"], body["input"]
        lane = next((lane for lane in self.lanes.values() if lane.running == previous), None)
        plan = self.provider.next_steer()
        match plan.kind:
            case "ignore":
                pass
            case "close":
                self.close(int(plan.code or 1006))
            case "unknown":
                message = "Invalid value: 'response.steer'. Supported values are: 'response.create'."
                self._write(1, json.dumps(error_frame("invalid_value", 400, message, "type")).encode())
            case "refuse":
                self._write(
                    1, json.dumps(failed(plan.code or "steering_not_supported", given, previous)).encode()
                )
            case _ if lane is None:
                self._write(1, json.dumps(failed("response_not_found", given, previous)).encode())
            case _:
                one = Steered(plan, self.provider.next_id("steer"), given, previous)
                lane.steers.append(one)
                self._send(lane, accepted(one))
                if one.cuts:
                    lane.told.stop.set()

    async def _after(self, lane: Lane, body: Json, last: Json) -> None:
        """The response is over: what steered it is applied, waits, or goes back."""
        steers, lane.steers = lane.steers, []
        kept, response = [], last["response"]
        await asyncio.sleep(max((one.plan.rest_s for one in steers), default=0))
        for one in steers:
            if response["status"] not in ("completed", "incomplete"):
                self._send(lane, failed("response_not_active", one.input, one.previous, one.id))
            elif one.plan.kind == "return":
                code = one.plan.code or "successor_creation_failed"
                self._send(lane, failed(code, one.input, one.previous, one.id))
            else:
                kept.append(one)
        calls = [item for item in response["output"] if item["type"] == "function_call"]
        kinds = {one.plan.kind for one in kept}
        if "close_before" in kinds:
            self.close(1006)
        elif calls:
            lane.queued = kept
            for one in kept:
                self._send(lane, pending(one, calls))
        elif kept:
            items = [item for one in kept for item in as_items(one.input)]
            successor = {**body, "input": items, "previous_response_id": response["id"]}
            self.provider.successors.append(successor)
            fault = Fault("close", after=4, code=1006) if "close_after" in kinds else None
            await self._make(lane, successor, fault)

    async def _answer(self, lane: Lane, body: Json) -> None:
        fault = self.provider.next_fault()
        if fault is not None and self._instead(lane, body, fault):
            return
        await self._make(lane, body, fault)

    async def _make(self, lane: Lane, body: Json, fault: Fault | None) -> None:
        number, last = 0, _FAILED
        lane.told, lane.is_cancelled = Told(), False
        async for event in shaped(self.provider.response(body, self, lane), fault):
            if fault is not None and number >= fault.after and await self._in_the_middle(lane, event, fault):
                await self._after(lane, body, _FAILED)
                return
            if event["type"] == "response.created":
                lane.running = event["response"]["id"]
            if lane.is_cancelled:
                lane.cache.clear()
                response = {"id": lane.running, "status": "cancelled", "output": []}
                last = {"type": "response.incomplete", "response": response}
                self._send(lane, {**last, "sequence_number": number})
                break
            self._send(lane, {**event, "sequence_number": number})
            await self._writer.drain()
            number += 1
            last = event
        self.provider.ended.append(lane.running)
        await self._after(lane, body, last)

    def _instead(self, lane: Lane, body: Json, fault: Fault) -> bool:
        match fault.kind:
            case "cap":
                message = "Responses websocket connection limit reached (60 minutes)."
                self._send(lane, error_frame("websocket_connection_limit_reached", 400, message))
                self.close(1000)
            case "not_found":
                self._send(lane, not_found(body.get("previous_response_id", "")))
            case "error":
                self._send(lane, error_frame(str(fault.code), fault.status, "As the test asked."))
            case "big_frame":
                self._write(1, json.dumps({"type": "fake.padding", "pad": "x" * 40_000_000}).encode())
                return False
            case "stray":
                stray = {"type": "response.function_call_arguments.delta", "output_index": 77, "delta": "{"}
                self._send(lane, stray)
                self._send(lane, {"type": "vendor.unknown", "stream_id": "nobody"})
                return False
            case _:
                return False
        return True

    async def _in_the_middle(self, lane: Lane, event: Json, fault: Fault) -> bool:
        match fault.kind:
            case "failed":
                error = {"code": str(fault.code), "message": "As the test asked."}
                response = {"id": lane.running, "status": "failed", "error": error, "output": []}
                self._send(lane, {"type": "response.failed", "response": response})
            case "close":
                self.close(int(fault.code))
            case "half_frame":
                whole = json.dumps(event).encode()
                self._writer.write(
                    bytes((0x81, 126)) + struct.pack("!H", len(whole)) + whole[: len(whole) // 2]
                )
                await self._writer.drain()
                self._writer.close()
            case "garbage":
                self._write(1, b"<html>502 Bad Gateway</html>")
            case "binary":
                self._write(2, bytes(range(256)))
            case "silence":
                await asyncio.Event().wait()
            case _:
                return False
        return True

    # -- frames

    def _send(self, lane: Lane, event: Json) -> None:
        name = {"stream_id": lane.stream_id} if lane.stream_id else {}
        self._write(1, json.dumps({**event, **name}).encode())

    def _write(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | kind, size))
        elif size < 65_536:
            head = bytes((0x80 | kind, 126)) + struct.pack("!H", size)
        else:
            head = bytes((0x80 | kind, 127)) + struct.pack("!Q", size)
        self._writer.write(head + payload)

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.readexactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        mask = await self._reader.readexactly(4)
        masked = await self._reader.readexactly(size)
        key = (mask * (size // 4 + 1))[:size]
        whole = int.from_bytes(masked, "big") ^ int.from_bytes(key, "big")
        return first & 0x0F, whole.to_bytes(size, "big")
