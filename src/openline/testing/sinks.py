"""``RecordingSink``: keeps everything a link told its session, in order, for assertions."""

from __future__ import annotations

from openline.core.model import Usage
from openline.ports import LinkSink, ReasoningDelta
from openline.types import CallId, ItemId, ResponseId


class RecordingSink(LinkSink):
    """``events`` holds ``(name, *arguments)``; audio is kept apart per response in ``audio``."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.audio: dict[ResponseId, bytearray] = {}
        self.text: dict[ResponseId, str] = {}
        self.reasoning: list[str] = []

    def names(
        self, *, without: tuple[str, ...] = ("text_delta", "audio_delta", "transcript_partial")
    ) -> list[object]:
        return [event[0] for event in self.events if event[0] not in without]

    def opened(self) -> None:
        self.events.append(("opened",))

    def lost(self, error: Exception) -> None:
        self.events.append(("lost", type(error).__name__))

    def renewed(self, why: str) -> None:
        self.events.append(("renewed", why))

    def speech_started(self, start: int) -> None:
        self.events.append(("speech_started", start))

    def speech_paused(self, paused: bool) -> None:
        self.events.append(("speech_paused", paused))

    def speech_stopped(self, end: int) -> None:
        self.events.append(("speech_stopped", end))

    def user_partial(self, text: str) -> None:
        self.events.append(("user_partial", text))

    def transcript_partial(self, item_id: ItemId, text: str) -> None:
        self.events.append(("transcript_partial", item_id, text))

    def turn_final(
        self, item_id: ItemId | None, text: str, confidence: float | None, start: int, end: int
    ) -> None:
        self.events.append(("turn_final", item_id, text, start, end))

    def turn_committed(self, start: int, end: int) -> None:
        self.events.append(("turn_committed", start, end))

    def turn_failed(self, item_id: ItemId | None, reason: str) -> None:
        self.events.append(("turn_failed", item_id, reason))

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        self.events.append(("reasoning_delta", response, delta.text))

    def message_started(
        self,
        response: ResponseId,
        output_index: int,
        *,
        is_refusal: bool = False,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        self.reasoning += reasoning
        self.events.append(("refusal_started" if is_refusal else "message_started", response, output_index))

    def text_delta(self, response: ResponseId, output_index: int, text: str) -> None:
        self.events.append(("text_delta", response, text))
        self.text[response] = self.text.get(response, "") + text

    def audio_delta(self, response: ResponseId, output_index: int, pcm: bytes, text_end: int) -> None:
        self.events.append(("audio_delta", response, len(pcm), text_end))
        self.audio.setdefault(response, bytearray()).extend(pcm)

    def message_finished(self, response: ResponseId, output_index: int) -> None:
        self.events.append(("message_finished", response, output_index))

    def call_started(
        self,
        response: ResponseId,
        output_index: int,
        call_id: CallId,
        name: str,
        *,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        self.reasoning += reasoning
        self.events.append(("call_started", response, output_index, name))

    def call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None:
        self.events.append(("call_delta", response, output_index, arguments))

    def call_finished(self, response: ResponseId, output_index: int, arguments: str) -> None:
        self.events.append(("call_finished", response, output_index, arguments))

    def buffered_ms(self) -> int:
        return 0

    def response_finished(self, response: ResponseId, usage: Usage, reason: str) -> None:
        self.events.append(("response_finished", response, reason))
