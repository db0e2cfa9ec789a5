"""A gateway of 150 lines for tests of the harness: speaks just enough Realtime, stores nothing.

Run as a process with ``--port`` and ``--data``; prints the line that the harness waits for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from openline.core.model import Item, Part, ResponseRequest, SessionConfig, TurnDetection, Usage
from openline.core.value import replace
from openline.ports import LinkFactory, LinkSink, ResponseStart
from openline.testing.link_load import LoadLinkFactory, LoadPlan
from openline.testing.link_scripted import ScriptedLinkFactory
from openline.types import CallId, ItemId, ResponseId, SessionId

MISSED: dict[str, list[dict[str, Any]]] = {}
"""Finished items per session: what a client that comes back is sent from its ``after`` on."""


class FakeSession(LinkSink):
    """Translates one link into frames, in order, with no durability and no rules."""

    def __init__(self, socket: ServerConnection, factory: LinkFactory, session: str) -> None:
        self.socket = socket
        self.session = session
        self.out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.config = SessionConfig()
        self.items: list[Item] = []
        self.count = len(MISSED.setdefault(session, []))
        self.text = ""
        self.active: ResponseId | None = None
        self.link = factory(SessionId(session), self.config)

    def frame(self, kind: str, **values: Any) -> None:
        self.out.put_nowait({"type": kind, "event_id": f"evt_1_{self.count}_0", **values})

    def done(self, item: dict[str, Any]) -> None:
        self.count += 1
        self.frame("conversation.item.done", item=item)
        MISSED[self.session].append(item)

    def respond(self) -> None:
        self.active = ResponseId(f"resp_{self.session}_{self.count}_{id(self) % 1000}")
        self.text = ""
        self.frame("response.created", response={"id": self.active})
        self.link.start_response(
            ResponseStart(self.active, ResponseRequest(), self.config, tuple(self.items[-3:]))
        )

    def cancel(self) -> None:
        if self.active is not None:
            self.link.cancel_response(self.active)
            self.frame("response.done", response={"id": self.active, "status": "cancelled"})
            self.active = None

    # ------------------------------------------------------------------------------------ from the client

    def take(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "input_audio_buffer.append":
                self.link.append_audio(b64decode(event["audio"]))
            case "session.update":
                raw = event["session"]["audio"]["input"]["turn_detection"]
                detection = raw and TurnDetection(silence_duration_ms=raw["silence_duration_ms"])
                self.config = replace(self.config, turn_detection=detection)
                self.link.update(self.config)
                self.frame("session.updated", session={})
            case "conversation.item.create":
                item = event["item"]
                if item["type"] == "function_call_output":
                    self.items.append(
                        Item(ItemId("out"), "function_call_output", "tool", output=item["output"])
                    )
                else:
                    self.hear(item["content"][0]["text"])
                self.done(item)
            case "input_audio_buffer.commit":
                self.link.commit_audio(ItemId("item"), 0, 0)
            case "response.create":
                self.respond()

    def hear(self, text: str) -> None:
        part = Part("input_text", text)
        self.items.append(Item(ItemId("in"), "message", "user", role="user", content=(part,)))

    # -------------------------------------------------------------------------------------- from the link

    def opened(self) -> None: ...

    def lost(self, error: Exception) -> None: ...

    def speech_paused(self, paused: bool) -> None: ...

    def user_partial(self, text: str) -> None: ...

    def turn_committed(self, start: int, end: int) -> None:
        self.frame("input_audio_buffer.committed", item_id="in")

    def turn_failed(self, item_id: ItemId | None, reason: str) -> None: ...

    def speech_started(self, start: int) -> None:
        self.cancel()
        self.frame("input_audio_buffer.speech_started", audio_start_ms=start // 24, item_id="in")

    def speech_stopped(self, end: int) -> None:
        self.frame("input_audio_buffer.speech_stopped", audio_end_ms=end // 24, item_id="in")

    def turn_final(
        self, item_id: ItemId | None, text: str, confidence: float | None, start: int, end: int
    ) -> None:
        self.hear(text)
        self.frame("input_audio_buffer.committed", item_id="in")
        if item_id is None:
            self.respond()

    def buffered_ms(self) -> int:
        return 0

    def message_started(self, response: ResponseId, output_index: int, **more: Any) -> None: ...

    def text_delta(self, response: ResponseId, output_index: int, text: str) -> None:
        self.text += text
        self.frame("response.output_audio_transcript.delta", item_id=f"m_{response}", delta=text)

    def audio_delta(self, response: ResponseId, output_index: int, pcm: bytes, text_end: int) -> None:
        self.frame("response.output_audio.delta", item_id=f"m_{response}", delta=b64encode(pcm).decode())

    def message_finished(self, response: ResponseId, output_index: int) -> None:
        self.done({"id": f"m_{response}", "content": [{"transcript": self.text}]})

    def call_started(
        self, response: ResponseId, output_index: int, call_id: CallId, name: str, **more: Any
    ) -> None:
        self.call_id = call_id

    def call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None: ...

    def call_finished(self, response: ResponseId, output_index: int, arguments: str) -> None:
        self.frame("response.function_call_arguments.done", call_id=self.call_id, arguments=arguments)

    def response_finished(self, response: ResponseId, usage: Usage, reason: str) -> None:
        if response == self.active:
            self.active = None
            self.frame("response.done", response={"id": response, "status": "completed"})


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="scripted:load")
    chosen = parser.parse_args()
    path = chosen.data / "load.json"
    load = LoadLinkFactory(LoadPlan.parse(chosen.model.partition("load,")[2]), statistics_path=path)
    factory: LinkFactory = load if ":load" in chosen.model else ScriptedLinkFactory()

    async def handle(socket: ServerConnection) -> None:
        assert socket.request is not None
        query = {name: values[-1] for name, values in parse_qs(urlsplit(socket.request.path).query).items()}
        session = FakeSession(socket, factory, query.get("session_id") or f"sess_{id(socket)}")
        await session.link.open(session, session.config, ())
        session.frame("session.created", openline={"session_id": session.session, "token": "t"})
        for item in MISSED[session.session][int(query.get("after", "evt_1_0_0").split("_")[2]) :]:
            session.frame("conversation.item.done", item=item)
        writer = asyncio.create_task(_write(session))
        try:
            async for message in socket:
                session.take(json.loads(message))
        except ConnectionClosed:
            pass
        await session.link.close()
        writer.cancel()

    async with serve(handle, "127.0.0.1", chosen.port, compression=None, max_size=None) as server:
        print(f"listening on http://127.0.0.1:{chosen.port}", flush=True)
        await server.serve_forever()


async def _write(session: FakeSession) -> None:
    while True:
        await session.socket.send(json.dumps(await session.out.get()))


if __name__ == "__main__":
    asyncio.run(main())
