"""Recognition by a server with OpenAI's ``POST /audio/transcriptions``: an utterance is uploaded as a WAV file.

Needs the extra ``openai`` (httpx). The whole utterance goes up when it is over. The words come back as they are found
(``stream=true``), or all at once from a server that knows no streams; one that refuses them, or streams something of
its own, is not asked for them again. A grammar becomes the request's ``prompt``, which such models take as a hint and
not as a rule. Cancelling closes the connection at once. Loop-bound; shared by all sessions.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Callable, Sequence

import httpx

from openline.errors import SpeechError
from openline.ports import SPEECH_RATE, Recognizer, RecognizerStream, SpeechServer, Transcript
from openline.wire.transcripts import TranscriptStream, whole_text

AUDIO_MAX_BYTES = 60 * SPEECH_RATE * 2
"""The port's bound on one utterance."""
ANSWER_MAX_BYTES = 1024 * 1024
PROMPT_MAX = 800
"""Characters of a grammar that are sent: Whisper reads the last 224 tokens of a prompt."""
PARTIAL_EVERY_S = 0.1
"""The port's bound on partials."""
END_WAIT_S = 0.05
"""After its last word a stream ends at once; one that does not is left, and its connection with it."""
NO_STREAMS = frozenset((400, 415, 422, 501))
"""What a server answers that does not know ``stream``; also what it answers to what is wrong for good."""


class OpenAIRecognizer(Recognizer):
    """``slots``: uploads at once; others wait. ``timeout_s``: a whole answer, ``connect_s``: a connection."""

    name = "openai-http"

    def __init__(
        self, endpoint: SpeechServer, *, slots: int = 32, timeout_s: float = 30.0, connect_s: float = 5.0
    ) -> None:
        self._endpoint = endpoint
        self._timeout = httpx.Timeout(timeout_s, connect=connect_s)
        self._answer_s = timeout_s
        self._may_stream = True
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
        utterance = _Utterance(self, on_partial, ", ".join(grammar)[:PROMPT_MAX], language)
        self.running.add(utterance)
        return utterance

    @property
    def free_slots(self) -> int:
        return max(0, self._slots - len(self.running))

    async def transcribe(
        self, pcm: bytes, prompt: str, language: str, on_partial: Callable[[str], None]
    ) -> str:
        """Raises SpeechError. If cancelled the connection is closed."""
        fields = {
            "model": self._endpoint.model,
            "language": language.partition("-")[0],
            "response_format": "json",
        }
        if prompt:
            fields["prompt"] = prompt
        audio = wav(pcm)
        try:
            async with self._gate, asyncio.timeout(self._answer_s):
                if self._may_stream:
                    text = await self._ask({**fields, "stream": "true"}, audio, _Partials(on_partial))
                    if text is not None:
                        return text
                text = await self._ask(fields, audio, None)
                self._may_stream = False  # Asked without a stream it answers: so it shall be.
        except (httpx.HTTPError, TimeoutError) as error:
            raise SpeechError(
                f"recognizer at {self._endpoint.host}: failed ({type(error).__name__})."
            ) from None
        assert text is not None, "an answer that was not asked to stream is a text or an error"
        return text

    async def _ask(self, fields: dict[str, str], audio: bytes, partials: _Partials | None) -> str | None:
        """Its text; None if it was asked for a stream and knows none, or none of this protocol."""
        client, endpoint = self._client, self._endpoint
        if client is None:
            raise SpeechError("the recognizer was closed.")
        async with client.stream(
            "POST",
            endpoint.at("audio/transcriptions"),
            data=fields,
            files={"file": ("speech.wav", audio, "audio/wav")},
            headers=endpoint.headers(),
        ) as answer:
            if partials is not None and answer.status_code in NO_STREAMS:
                return None
            if answer.status_code != 200:
                raise SpeechError(
                    f"recognizer at {endpoint.host}: expected a transcript, got HTTP {answer.status_code}.",
                    hint="Check stt_url, stt_model and the key.",
                )
            is_stream = answer.headers.get("content-type", "").startswith("text/event-stream")
            if is_stream and partials is not None:
                return await self._read_stream(answer, partials)
            text = whole_text(b"".join([chunk async for chunk in self._chunks(answer)]))
        if text is None:
            raise SpeechError(f"recognizer at {endpoint.host}: its answer has no 'text'.")
        return text

    async def _read_stream(self, answer: httpx.Response, partials: _Partials) -> str | None:
        stream, loop = TranscriptStream(), asyncio.get_running_loop()
        patience = asyncio.timeout(None)
        try:
            async with patience:
                async for chunk in self._chunks(answer):
                    if stream.feed(chunk):
                        partials.tell(stream.text)
                    if stream.final is not None and patience.when() is None:
                        patience.reschedule(loop.time() + END_WAIT_S)
        except TimeoutError:
            pass  # It has said everything and does not end.
        stream.end()
        if stream.has_failed:
            raise SpeechError(f"recognizer at {self._endpoint.host}: it failed in mid-answer.")
        if stream.final is None and not stream.is_foreign:
            raise SpeechError(f"recognizer at {self._endpoint.host}: its answer broke off before its end.")
        return stream.final

    async def _chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in answer.aiter_bytes():
            size += len(chunk)
            if size > ANSWER_MAX_BYTES:
                message = f"recognizer at {self._endpoint.host}: an answer of over {ANSWER_MAX_BYTES} bytes."
                raise SpeechError(message)
            yield chunk


class _Partials:
    """Words so far, told no more often than the port allows."""

    def __init__(self, on_partial: Callable[[str], None]) -> None:
        self._on_partial = on_partial
        self._next = 0.0

    def tell(self, text: str) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next and text.strip():
            self._next = now + PARTIAL_EVERY_S
            self._on_partial(text.strip())


class _Utterance(RecognizerStream):
    def __init__(
        self, owner: OpenAIRecognizer, on_partial: Callable[[str], None], prompt: str, language: str
    ) -> None:
        self._owner = owner
        self._on_partial = on_partial
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
            text = await self._owner.transcribe(
                bytes(self._pcm), self._prompt, self._language, self._on_partial
            )
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
