"""A voice by a server with OpenAI's ``POST /audio/speech``, streamed as PCM16 at 24 kHz.

Needs the extra ``openai`` (httpx). The API tells no word times: marks are estimated from the usual pace of speech,
and the last one is exact. ``aclose`` closes the connection at once. Loop-bound; shared by all sessions.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

import httpx

from openline.errors import SpeechError
from openline.ports import WIRE_RATE, Speech, SpeechServer, Synthesizer

CHUNK_BYTES = WIRE_RATE * 2 * 40 // 1000
"""40 ms."""
LEAST_BYTES = WIRE_RATE * 2 * 20 // 1000
CHARACTERS_A_SECOND = 15.0
"""English at an even pace: about 150 words a minute."""
AUDIO_MAX_BYTES = 300 * WIRE_RATE * 2
"""One sentence; a server that goes on for longer is broken."""


class OpenAISynthesizer(Synthesizer):
    """``voice``: used for every reply, or "" for what the session names. Seconds: to connect, and of silence."""

    name = "openai-http"

    def __init__(
        self, endpoint: SpeechServer, *, voice: str = "", connect_s: float = 5.0, stall_s: float = 15.0
    ) -> None:
        self._endpoint = endpoint
        self._voice = voice
        self._timeout = httpx.Timeout(stall_s, connect=connect_s)
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> None:
        self._client = httpx.AsyncClient(timeout=self._timeout, trust_env=False)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def speak(self, text: str, *, voice: str = "", speed: float = 1.0) -> AsyncGenerator[Speech, None]:
        """Raises SpeechError: refused, broken off, or no audio for words."""
        client, endpoint = self._client, self._endpoint
        if client is None:
            raise SpeechError("the synthesizer is not running.", hint="Await start() first.")
        if not re.search(r"\w", text):
            return
        body = {
            "model": endpoint.model,
            "input": text,
            "voice": self._voice or voice or "alloy",
            "speed": speed,
            "response_format": "pcm",
        }
        ends = [match.end() for match in re.finditer(r"\S+", text)]
        pace = CHARACTERS_A_SECOND * speed / (WIRE_RATE * 2)
        pending, sent = bytearray(), 0
        try:
            async with client.stream(
                "POST", endpoint.at("audio/speech"), json=body, headers=endpoint.headers()
            ) as answer:
                if answer.status_code != 200:
                    raise SpeechError(
                        f"voice at {endpoint.host}: expected audio, got HTTP {answer.status_code}.",
                        hint="Check tts_url, tts_model, tts_voice and the key.",
                    )
                async for piece in answer.aiter_bytes():
                    pending += piece
                    # One chunk is held back: the last one carries the exact mark.
                    while len(pending) >= 2 * CHUNK_BYTES:
                        sent += CHUNK_BYTES
                        spoken = sent * pace
                        mark = max((end for end in ends[:-1] if end <= spoken), default=0)
                        yield Speech(bytes(pending[:CHUNK_BYTES]), mark)
                        del pending[:CHUNK_BYTES]
                    if sent > AUDIO_MAX_BYTES:
                        raise SpeechError(f"voice at {endpoint.host}: over 300 s for one sentence.")
        except httpx.HTTPError as error:
            raise SpeechError(f"voice at {endpoint.host}: failed ({type(error).__name__}).") from None
        if not pending and not sent:
            raise SpeechError(f"voice at {endpoint.host}: no audio for words.")
        rest = bytes(pending[: len(pending) - len(pending) % 2])
        yield Speech(rest.ljust(LEAST_BYTES, b"\0"), len(text))
