"""The load's Realtime server: it obeys the session, and says its events in the order of openai-protocols.md B.6."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from bench.build import build
from bench.gateway import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: no load generator"),
]
Event = dict[str, Any]
LOUD = (bytes(8) + (20_000).to_bytes(2, "little")).ljust(960, b"\0")
QUIET = bytes(960)
TOOL = {"type": "function", "name": "lookup", "description": "x", "parameters": {"type": "object"}}


@asynccontextmanager
async def server(*options: str) -> AsyncIterator[int]:
    """The generator as the upstream alone; its port."""
    program, port = build(), free_port()
    assert program is not None
    arguments = ["--mode", "serve", "--upstream", str(port), "--seconds", "20", "--warmup", "0"]
    process = subprocess.Popen(
        [str(program), *arguments, "--reply-ms", "120", *options], stdout=subprocess.PIPE
    )
    try:
        await asyncio.sleep(0.3)
        yield port
    finally:
        process.kill()
        process.communicate()


class Client:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, kind: str, **values: Any) -> None:
        # With blanks and the type last, as some clients write it.
        await self._socket.send(json.dumps({**values, "type": kind}))

    async def speak(self) -> None:
        for frame in [LOUD] * 4 + [QUIET] * 10:
            await self.send("input_audio_buffer.append", audio=b64encode(frame).decode())

    async def until(self, kind: str) -> list[Event]:
        events: list[Event] = []
        while not events or events[-1]["type"] != kind:
            events.append(json.loads(await asyncio.wait_for(self._socket.recv(), 5)))
        return events


@asynccontextmanager
async def client(port: int, detection: Event | None, **session: Any) -> AsyncIterator[Client]:
    async with connect(f"ws://127.0.0.1:{port}/v1/realtime?model=load", compression=None) as socket:
        ours = Client(socket)
        audio = {"input": {"turn_detection": detection, "transcription": {"model": "t"}}}
        await ours.send("session.update", session={"type": "realtime", "audio": audio, **session})
        created, updated = await ours.until("session.updated")
        assert created["type"] == "session.created"
        assert updated["session"]["audio"]["input"]["turn_detection"] == (
            detection and {"idle_timeout_ms": None, "threshold": 0.5, "prefix_padding_ms": 300, **detection}
        )
        yield ours


def kinds(events: list[Event]) -> list[str]:
    """Without repeats of the same delta."""
    found: list[str] = []
    for event in events:
        if not found or found[-1] != event["type"]:
            found.append(event["type"])
    return found


def detection(**values: bool) -> Event:
    return {
        "type": "server_vad",
        "silence_duration_ms": 200,
        "create_response": True,
        "interrupt_response": True,
        **values,
    }


def story(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


SPOKEN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
ENDED = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]


@story
async def test_a_turn_is_replied_to_by_itself_in_the_order_of_the_real_server() -> None:
    async with server() as port, client(port, detection()) as ours:
        await ours.speak()
        events = await ours.until("response.done")
    words = "conversation.item.input_audio_transcription"
    told = [kind for kind in kinds(events) if not kind.startswith(words) and not kind.endswith("delta")]
    assert told == TURN + SPOKEN + ENDED
    assert [event["type"] for event in events if event["type"].startswith(words)] == [
        f"{words}.delta",
        f"{words}.completed",
    ]
    audio = [event for event in events if event["type"] == "response.output_audio.delta"]
    assert len(audio) == 3 and all(len(event["delta"]) == 2560 for event in audio)
    assert len({event["event_id"] for event in events}) == len(events)
    assert events[-1]["response"]["status"] == "completed"


@story
async def test_with_create_response_off_it_waits_for_response_create_and_gives_metadata_back() -> None:
    async with server() as port, client(port, detection(create_response=False)) as ours:
        await ours.speak()
        events = await ours.until("conversation.item.input_audio_transcription.completed")
        assert not any(event["type"].startswith("response.") for event in events)
        await ours.send("response.create", response={"metadata": {"openline_response": "resp_{7}"}})
        await ours.send("response.create", event_id="second")
        events = await ours.until("response.done")
    assert events[0]["response"]["metadata"] == {"openline_response": "resp_{7}"}
    refused = next(event["error"] for event in events if event["type"] == "error")
    assert refused["code"] == "conversation_already_has_active_response" and refused["event_id"] == "second"


@pytest.mark.parametrize("interrupts", [True, False])
@story
async def test_speech_cuts_a_reply_only_where_the_session_says_so(interrupts: bool) -> None:
    asked = detection(interrupt_response=interrupts, create_response=False)
    async with server("--reply-ms", "600") as port, client(port, asked) as ours:
        await ours.send("response.create")
        await ours.until("response.output_audio.delta")
        await ours.speak()
        events = await ours.until("response.done")
        assert events[-1]["response"]["status"] == ("cancelled" if interrupts else "completed")
        await ours.send("response.cancel", event_id="late")
        assert (await ours.until("error"))[-1]["error"]["code"] == "response_cancel_not_active"


@story
async def test_the_declared_tool_is_called_and_its_result_is_spoken_about() -> None:
    async with server("--tool-every", "1") as port, client(port, None, tools=[TOOL]) as ours:
        await ours.send("response.create")
        events = await ours.until("response.done")
        assert kinds(events) == [
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        call = events[-1]["response"]["output"][0]
        assert json.loads(call["arguments"]) == {"part": "M8x40", "count": 12}
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"stock": 12}'}
        await ours.send("conversation.item.create", item=output)
        added, done = await ours.until("conversation.item.done")
        assert added["item"]["id"] == done["item"]["id"] and added["previous_item_id"] == call["id"]
        assert added["item"]["output"] == '{"stock": 12}'
        await ours.send("response.create")
        assert "response.output_audio.delta" in kinds(await ours.until("response.done"))


@story
async def test_client_items_keep_their_ids_and_can_be_cut_fetched_and_taken_out() -> None:
    async with server() as port, client(port, None) as ours:
        item = {"id": "mine", "type": "message", "role": "user", "content": []}
        await ours.send("conversation.item.create", previous_item_id="root", item=item)
        added, _done = await ours.until("conversation.item.done")
        assert added["previous_item_id"] is None and added["item"]["id"] == "mine"
        await ours.send("conversation.item.retrieve", item_id="mine")
        assert (await ours.until("conversation.item.retrieved"))[-1]["item"]["id"] == "mine"
        await ours.send("conversation.item.truncate", item_id="mine", content_index=0, audio_end_ms=70)
        assert (await ours.until("conversation.item.truncated"))[-1]["audio_end_ms"] == 70
        await ours.send("conversation.item.delete", item_id="mine")
        assert (await ours.until("conversation.item.deleted"))[-1]["item_id"] == "mine"
        await ours.send("input_audio_buffer.commit")
        assert (await ours.until("error"))[-1]["error"]["code"] == "input_audio_buffer_commit_empty"


@story
async def test_over_tls_it_is_trusted_by_its_own_certificate(tmp_path: Path) -> None:
    program, path = build(), tmp_path / "upstream.pem"
    made = subprocess.run(
        [str(program), "--mode", "cert", "--upstream-cert", str(path)], capture_output=True, text=True
    )
    if "without OpenSSL" in made.stderr:
        pytest.skip("built without OpenSSL: its headers are not there")
    trust = ssl.create_default_context(cafile=str(path))
    async with (
        server("--upstream-cert", str(path)) as port,
        connect(f"wss://127.0.0.1:{port}/v1/realtime", ssl=trust, compression=None) as socket,
    ):
        ours = Client(socket)
        await ours.speak()
        assert (await ours.until("response.done"))[-1]["response"]["status"] == "completed"
