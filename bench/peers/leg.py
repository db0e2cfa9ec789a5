"""The callers' leg for peers that have none of their own: a WebSocket that speaks what the load generator needs.

It parses and builds as little as can be (audio frames by slicing, no JSON library on the hot path), so that what is
measured is the peer. Runs in a peer's environment: the standard library, ``websockets`` and uvloop, nothing of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from binascii import a2b_base64, b2a_base64
from collections.abc import AsyncIterator, Awaitable, Callable

import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

APPEND = b'{"type":"input_audio_buffer.append","audio":"'
SESSION = '{"type":"%s","event_id":"e","session":{"type":"realtime","object":"realtime.session","id":"s"}}'
AUDIO = b'{"type":"response.output_audio.delta","event_id":"e","delta":"%b"}'
TEXT = '{"type":"response.output_audio_transcript.delta","event_id":"e","delta":%s}'
DONE = '{"type":"response.done","event_id":"e","response":{"id":"r","status":"completed"}}'
STARTED = '{"type":"input_audio_buffer.speech_started","event_id":"e"}'
SILENCE_MS = 200
"""The endpointing window that every candidate asks of the upstream server."""


class Caller:
    """One caller's socket."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    async def begin(self) -> None:
        """Wait for the caller's session.update: it comes first."""
        await self._socket.send(SESSION % "session.created")
        while b"session.update" not in await self._socket.recv(decode=False):
            pass

    async def ready(self) -> None:
        """The caller may speak: the session behind is there."""
        await self._socket.send(SESSION % "session.updated")

    async def audio(self) -> AsyncIterator[bytes]:
        """PCM16 24 kHz, 20 ms each, until the caller has gone."""
        try:
            while True:
                message = await self._socket.recv(decode=False)
                if message.startswith(APPEND):
                    yield a2b_base64(message[len(APPEND) : -2])
        except ConnectionClosed:
            return

    async def gone(self) -> None:
        await self._socket.wait_closed()

    async def send_audio(self, pcm: bytes) -> None:
        await self._send(AUDIO % b2a_base64(pcm, newline=False))

    async def send_text(self, text: str) -> None:
        await self._send(TEXT % json.dumps(text))

    async def done(self) -> None:
        """A spoken reply has ended."""
        await self._send(DONE)

    async def interrupted(self) -> None:
        await self._send(STARTED)

    async def _send(self, frame: bytes | str) -> None:
        try:
            await self._socket.send(frame, text=True)
        except ConnectionClosed:
            return


async def _run(port: int, call: Callable[[Caller], Awaitable[None]]) -> None:
    async def handle(socket: ServerConnection) -> None:
        await call(Caller(socket))

    async with serve(handle, "127.0.0.1", port, compression=None, max_size=None, ping_interval=None):
        print(f"listening on http://127.0.0.1:{port}", flush=True)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()


def arguments() -> argparse.Namespace:
    """``--port`` to listen on; ``--upstream`` ws://host:port/v1 to connect to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    return parser.parse_args()


def run(port: int, call: Callable[[Caller], Awaitable[None]]) -> None:
    uvloop.run(_run(port, call))
