"""The stock openai client on a gateway: unmodified, by base_url alone; every frame through openai's own types."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

openai = pytest.importorskip("openai")
realtime_types = pytest.importorskip("openai.types.realtime")
pydantic = pytest.importorskip("pydantic")

SERVER_EVENT = pydantic.TypeAdapter(realtime_types.RealtimeServerEvent)
PATIENCE_S = 20.0


class Stock:
    """One ``client.realtime.connect``. ``events``: all that came, as openai's own typed events."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []
        self.is_closed = False
        self._looked = 0
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            while True:
                raw = await self.connection.recv_bytes()
                # What the client makes of it is lenient; its declared types are not.
                strict = SERVER_EVENT.validate_json(raw)
                event = self.connection.parse_event(raw)
                assert type(event) is type(strict), f"{event.type}: read as {type(event).__name__}"
                self.events.append(strict)
                self._news.set()
        finally:
            self.is_closed = True
            self._news.set()

    async def wait(
        self, type_: str, test: Callable[[Any], bool] = lambda event: True, patience: float = PATIENCE_S
    ) -> Any:
        """The next event of that type that passes."""
        try:
            async with asyncio.timeout(patience):
                while True:
                    while self._looked < len(self.events):
                        event = self.events[self._looked]
                        self._looked += 1
                        if event.type == type_ and test(event):
                            return event
                    if self.is_closed:
                        await self._reader  # raises why
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            last = [event.type for event in self.events[-8:]]
            raise AssertionError(f"no {type_} within {patience} s; last {last}") from None

    def of(self, type_: str) -> list[Any]:
        return [event for event in self.events if event.type == type_]

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    async def configure(self, **session: Any) -> Any:
        await self.connection.session.update(session={"type": "realtime", **session})
        return await self.wait("session.updated")

    async def write(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        await self.connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )

    async def ask(self, text: str, **response: Any) -> None:
        await self.write(text)
        await (
            self.connection.response.create(response=response)
            if response
            else self.connection.response.create()
        )

    async def turn(self, text: str, **response: Any) -> Any:
        await self.ask(text, **response)
        return (await self.wait("response.done")).response

    async def speak(self, pcm: bytes, *, pace: float = 1.0) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        for start in range(0, len(pcm), 960):
            audio = base64.b64encode(pcm[start : start + 960]).decode()
            await self.connection.input_audio_buffer.append(audio=audio)
            due += 0.02 * pace
            await asyncio.sleep(max(0.0, due - loop.time()))

    def audio(self) -> bytes:
        return b"".join(base64.b64decode(event.delta) for event in self.of("response.output_audio.delta"))

    async def end(self) -> None:
        await self.connection.close()
        with contextlib.suppress(Exception):  # the reader's: it ends with the close
            await self._reader


@contextlib.asynccontextmanager
async def stock(url: str, **options: Any) -> AsyncIterator[Stock]:
    key = options.pop("api_key", "unused")
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)
    if "extra_query" not in options:
        options["model"] = "gpt-realtime"
    async with client.realtime.connect(**options) as connection:
        one = Stock(connection)
        await one.wait("session.created")
        try:
            yield one
        finally:
            await one.end()
    await client.close()
