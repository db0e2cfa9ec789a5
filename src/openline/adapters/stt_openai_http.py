"""Recognition by a server with OpenAI's ``POST /audio/transcriptions``: an utterance is uploaded as a WAV file.

Needs the extra ``openai`` (httpx). The whole utterance goes up when it is over, so there are no partials; a grammar
becomes the request's ``prompt``, which such models take as a hint and not as a rule. Cancelling closes the connection
at once. Loop-bound; shared by all sessions.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Callable, Sequence

import httpx

from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, Recognizer, RecognizerStream, SpeechServer, Transcript

AUDIO_MAX_BYTES = 60 * SPEECH_RATE * 2
"""The port's bound on one utterance."""
ANSWER_MAX_BYTES = 1024 * 1024
PROMPT_MAX = 800
"""Characters of a grammar that are sent: Whisper reads the last 224 tokens of a prompt."""


class OpenAIRecognizer(Recognizer):
    """``slots``: uploads at once; others wait. ``timeout_s``: a whole answer, ``connect_s``: a connection."""

    name = "openai-http"

    def __init__(
        self, endpoint: SpeechServer, *, slots: int = 32, timeout_s: float = 30.0, connect_s: float = 5.0
    ) -> None:
        self._endpoint = endpoint
        self._timeout = httpx.Timeout(timeout_s, connect=connect_s)
        self._slots = slots
        self._gate = asyncio.Semaphore(slots)
        self._client: httpx.AsyncClient | None = None
        self.running: set[_Utterance] = set()

    async def start(self) -> None:
        self._client = httpx.AsyncClient(timeout=self._timeout, trust_env=False)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def stream(
        self, on_partial: Callable[[str], None], *, grammar: Sequence[str] = (), language: str = "en"
    ) -> RecognizerStream:
        if self._client is None:
            raise SpeechError("the recognizer is not running.", hint="Await start() first.")
        utterance = _Utterance(self, ", ".join(grammar)[:PROMPT_MAX], language)
        self.running.add(utterance)
        return utterance

    @property
    def free_slots(self) -> int:
        return max(0, self._slots - len(self.running))

    async def transcribe(self, pcm: bytes, prompt: str, language: str) -> str:
        """Raises SpeechError. If cancelled the connection is closed."""
        client, endpoint = self._client, self._endpoint
        if client is None:
            raise SpeechError("the recognizer was closed.")
        fields = {"model": endpoint.model, "language": language.partition("-")[0], "response_format": "json"}
        if prompt:
            fields["prompt"] = prompt
        files = {"file": ("speech.wav", wav(pcm), "audio/wav")}
        try:
            async with self._gate:
                answer = await client.post(
                    endpoint.at("audio/transcriptions"), data=fields, files=files, headers=endpoint.headers()
                )
        except httpx.HTTPError as error:
            raise SpeechError(f"recognizer at {endpoint.host}: failed ({type(error).__name__}).") from None
        if answer.status_code != 200 or len(answer.content) > ANSWER_MAX_BYTES:
            raise SpeechError(
                f"recognizer at {endpoint.host}: expected a transcript, got HTTP {answer.status_code}.",
                hint="Check stt_url, stt_model and the key.",
            )
        try:
            text = answer.json()["text"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str):
            raise SpeechError(f"recognizer at {endpoint.host}: its answer has no 'text'.")
        return text.strip()


class _Utterance(RecognizerStream):
    def __init__(self, owner: OpenAIRecognizer, prompt: str, language: str) -> None:
        self._owner = owner
        self._prompt = prompt
        self._language = language
        self._pcm = bytearray()
        self._is_over = False

    def push(self, pcm16k: bytes) -> None:
        if self._is_over:
            raise SpeechError("the utterance is over.")
        if len(pcm16k) % 2 or len(self._pcm) + len(pcm16k) > AUDIO_MAX_BYTES:
            raise SpeechError("expected whole samples, and at most 60 s of them.")
        self._pcm += pcm16k

    async def finish(self) -> Transcript:
        if self._is_over:
            raise SpeechError("the utterance is over.")
        self._is_over = True
        try:
            if not self._pcm:
                return Transcript("", None, self._owner.name)
            text = await self._owner.transcribe(bytes(self._pcm), self._prompt, self._language)
            return Transcript(text, None, self._owner.name)
        finally:
            self._owner.running.discard(self)

    async def cancel(self) -> None:
        self._is_over = True
        self._pcm.clear()
        self._owner.running.discard(self)


def wav(pcm16k: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SPEECH_RATE)
        out.writeframes(pcm16k)
    return file.getvalue()
