"""A fake server of OpenAI's ``/audio/transcriptions`` and ``/audio/speech``, on loopback.

    async with FakeAudio("hello there") as fake: ...  # fake.url, fake.requests, fake.cut (connections dropped)

It hears ``text`` in any upload that is a WAV file, and speaks a tone of 66 ms for each character over ``speed``.
``status``: answered instead of 200. ``key``: expected as Bearer.
"""

from __future__ import annotations

import asyncio
import json

from openline.testing.speech import tone

HEAD_MAX = 64 * 1024
MS_A_CHARACTER = 66


class FakeAudio:
    def __init__(self, text: str = "", *, key: str = "", status: int = 200) -> None:
        self.text, self.key, self.status = text, key, status
        self.requests: list[str] = []
        self.cut = 0
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
