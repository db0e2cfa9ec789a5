"""A language model's events as the outputs of one response: which there are, in which order, and what led to each.

Who tells them on are the ``ports.Outputs``: the session's link sink, or the events of a response that nobody stores.
"""

from __future__ import annotations

from openline.ports import (
    ModelDone,
    ModelEvent,
    Outputs,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)
from openline.types import CallId, ResponseId


class Fold:
    """``follow`` each event of one generation; whoever does ends the last message (``end_message``).

    ``message``: the index of the message that is open. Text and refusal are each a message of their own; a call may
    begin and end beside an open message. ``is_spoken``: text and the end of the message are told by the voice, a
    refusal is said like anything else, and what was thought is nobody's business.
    """

    def __init__(self, response: ResponseId, outputs: Outputs, *, is_spoken: bool = False) -> None:
        self.message: int | None = None
        self._response = response
        self._outputs = outputs
        self._is_spoken = is_spoken
        self._refuses = False
        self._calls: dict[int, int] = {}
        self._reasoning: list[str] = []
        self._next = 0

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def follow(self, event: ModelEvent) -> None:
        match event:
            case TextDelta(text):
                self._say(text, is_refusal=False)
            case RefusalDelta(text):
                self._say(text, is_refusal=not self._is_spoken)
            case ReasoningDelta():
                if not self._is_spoken:
                    self._outputs.reasoning_delta(self._response, event)
            case ReasoningDone(_, item):
                if not self._is_spoken:
                    self.end_message()
                    self._reasoning.append(item)
            case ToolCallDelta(index, call_id, name, arguments):
                self._outputs.call_delta(self._response, self._call(index, call_id, name), arguments)
            case ToolCallDone(index, call_id, name, arguments):
                self._outputs.call_finished(self._response, self._call(index, call_id, name), arguments)
            case ModelDone():
                pass

    def end_message(self) -> None:
        if self.message is not None:
            self._outputs.message_finished(self._response, self.message)
            self.message = None

    def take_reasoning(self) -> tuple[str, ...]:
        """What the model thought since the last item that it began: it belongs to the next one, if there is one."""
        taken = tuple(self._reasoning)
        self._reasoning.clear()
        return taken

    def _say(self, text: str, *, is_refusal: bool) -> None:
        if is_refusal != self._refuses:
            self.end_message()
        if self.message is None:
            self.message, self._refuses = self._take_index(), is_refusal
            self._outputs.message_started(
                self._response, self.message, is_refusal=is_refusal, reasoning=self.take_reasoning()
            )
        if not self._is_spoken:
            self._outputs.text_delta(self._response, self.message, text)

    def _call(self, index: int, call_id: str, name: str) -> int:
        if index not in self._calls:
            output = self._calls[index] = self._take_index()
            reasoning = self.take_reasoning()
            self._outputs.call_started(self._response, output, CallId(call_id), name, reasoning=reasoning)
        return self._calls[index]

    def _take_index(self) -> int:
        self._next += 1
        return self._next - 1
