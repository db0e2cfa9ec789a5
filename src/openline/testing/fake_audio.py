"""A fake server of OpenAI's ``/audio/transcriptions`` and ``/audio/speech``, on loopback.

    async with FakeAudio("hello there") as fake: ...  # fake.url, fake.requests, fake.accepted, fake.cut (connections)

It hears ``text`` in any upload that is a WAV file, and speaks a tone of 66 ms for each character over ``speed``.
``status``: answered instead of 200. ``key``: expected as Bearer. ``stream``: what becomes of a transcript that was
asked for with ``stream=true``, a word every ``pace_s`` seconds:

- ``ignored``: it is answered whole, as OpenAI's ``whisper-1`` does
- ``words``: ``transcript.text.delta`` for each word, then ``transcript.text.done``
- ``undone``: the same, but ``[DONE]`` in place of the done event
- ``endless``: ``words``, and the answer does not end
- ``foreign``: pieces of another protocol (vLLM's ``transcription.chunk``)
- ``refused``: HTTP 400
- ``garbage``: an event stream of noise
- ``error``: an error event after the first word
- ``broken``: cut after the first word
- ``silent``: nothing after the first word
- ``huge``: an event of 2 MiB
"""

from __future__ import annotations

import asyncio
import json

from openline.testing.speech import tone

HEAD_MAX = 64 * 1024
MS_A_CHARACTER = 66
STREAM_HEAD = b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class FakeAudio:
    def __init__(
        self,
        text: str = "",
        *,
        key: str = "",
        status: int = 200,
        stream: str = "ignored",
        pace_s: float = 0.0,
    ) -> None:
        self.text, self.key, self.status = text, key, status
        self.stream, self.pace_s = stream, pace_s
        self.requests: list[str] = []
        self.cut = 0
        self.accepted = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> FakeAudio:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_MAX)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *what: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next(
                    int(line.split(":")[1])
                    for line in head.split("\r\n")
                    if line.lower().startswith("content-length")
                )
                await self._answer(head, await reader.readexactly(length), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.cut += 1
        finally:
            writer.close()

    async def _answer(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ")[1]
        self.requests.append(path)
        status, answer = self.status, b"{}"
        if self.key and f"authorization: bearer {self.key}" not in head.lower():
            status = 401
        elif status == 200 and b'name="stream"' in body and self.stream != "ignored":
            if self.stream != "refused":
                await self._stream(writer)
                return
            status = 400
        elif status == 200 and path.endswith("/audio/transcriptions"):
            status = 200 if b"RIFF" in body and b"WAVE" in body else 400
            answer = json.dumps({"text": self.text}).encode()
        elif status == 200:
            wish = json.loads(body)
            answer = tone(300, len(wish["input"]) * MS_A_CHARACTER / wish["speed"], rate=24_000)
        writer.write(f"HTTP/1.1 {status} -\r\ncontent-length: {len(answer)}\r\n\r\n".encode())
        for at in range(0, len(answer), 4_800):
            writer.write(answer[at : at + 4_800])
            await writer.drain()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        pieces = [word if at == 0 else f" {word}" for at, word in enumerate(self.text.split())]
        for at, piece in enumerate(pieces):
            self._write(writer, self._event(piece))
            await writer.drain()
            await asyncio.sleep(self.pace_s)
            if at == 0 and self.stream in ("error", "broken", "silent", "huge"):
                break
        match self.stream:
            case "silent":
                return
            case "broken":
                writer.transport.abort()
                return
            case "error":
                self._write(writer, _data({"type": "error", "error": {"code": "server_error"}}))
            case "huge":
                self._write(writer, b"data: " + b"x" * (2 * 1024 * 1024) + b"\n\n")
            case "undone" | "foreign":
                self._write(writer, b"data: [DONE]\n\n")
            case "garbage":
                pass
            case _:
                self._write(writer, _data({"type": "transcript.text.done", "text": self.text}))
        if self.stream != "endless":
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    def _event(self, piece: str) -> bytes:
        if self.stream == "garbage":
            return b"\xff\x00 no event\n\ndata: {not json\n\ndata: []\n\n"
        if self.stream == "foreign":
            return _data({"object": "transcription.chunk", "choices": [{"delta": {"content": piece}}]})
        return _data({"type": "transcript.text.delta", "delta": piece})

    @staticmethod
    def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


def _data(event: dict[str, object]) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"
