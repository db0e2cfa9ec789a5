"""``store: false``: responses straight from the language model, that leave nothing behind."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing

from openline.core.model import Item, Part, Usage
from openline.ports import (
    LanguageModel,
    ModelDone,
    ModelRequest,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)
from openline.runtime.gateway import Gateway
from openline.server.responses_makers import Emit, Held, Running, note_failure, now_s, problem_of, send_all
from openline.types import ItemId, ResponseId, SessionId
from openline.wire.reasoning import part_of
from openline.wire.responses_server import Create, ResponseWriter


class Passing:
    """Responses that leave nothing behind."""

    def __init__(self, gateway: Gateway, model: LanguageModel) -> None:
        self._gateway = gateway
        self._model = model

    async def make(
        self, asked: Create, chain: SessionId, items: tuple[Item, ...], emit: Emit, running: Running
    ) -> Held | None:
        """Make one response; what can be continued, or None when it failed or was cancelled.

        Every way ends with one terminal event. If the task itself is cancelled nothing more is emitted.
        """
        writer = ResponseWriter(f"resp_{secrets.token_hex(16)}", asked, now_s(self._gateway), asked.model)
        context = (*items, *asked.items)
        running.response_id = writer.response_id
        send_all(emit, writer.created())
        if not asked.generates:
            send_all(emit, writer.done("completed", usage=Usage()))
            return Held(writer.response_id, chain, context)
        made = _Made(writer, emit)
        maker = asyncio.get_running_loop().create_task(self._generate(asked, chain, context, made))
        running.cancel, running.steer = lambda: _stop(maker), lambda: made.steer(maker)
        try:
            done = await maker
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                maker.cancel()
                raise
            if made.is_steered:
                send_all(emit, writer.done("incomplete", "steered"))
                return Held(writer.response_id, chain, (*context, *made.cut()))
            send_all(emit, writer.done("cancelled"))
            return None
        except Exception as error:  # the edge of a response: it has begun, so it must have its end
            note_failure(writer.response_id, error)
            send_all(emit, writer.done("failed", problem=problem_of(error)))
            return None
        status = "completed" if done.reason == "completed" else "incomplete"
        running.calls = tuple(writer.calls())
        send_all(emit, writer.done(status, done.reason, done.usage))
        return Held(writer.response_id, chain, (*context, *made.items))

    async def _generate(
        self, asked: Create, chain: SessionId, context: tuple[Item, ...], made: _Made
    ) -> ModelDone:
        request = ModelRequest(
            chain,
            ResponseId(made.writer.response_id),
            asked.instructions or "",
            context,
            asked.tools,
            asked.tool_choice,
            asked.parallel_tool_calls,
            asked.max_output_tokens,
            asked.model,
            asked.text_format,
            asked.options,
        )
        async with aclosing(self._model.generate(request)) as events:
            async for event in events:
                match event:
                    case TextDelta(text):
                        made.text(text)
                    case RefusalDelta(text):
                        made.text(text, is_refusal=True)
                    case ReasoningDelta(name, part, text, is_summary):
                        send_all(made.emit, made.writer.reasoning(name, part, text, is_summary=is_summary))
                    case ReasoningDone(_, item):
                        made.reasoning(item)
                    case ToolCallDelta(index, call_id, name, arguments):
                        made.call_delta(made.call(index, call_id, name), arguments)
                    case ToolCallDone(index, call_id, name, arguments):
                        made.call_done(made.call(index, call_id, name), call_id, name, arguments)
                    case ModelDone():
                        made.message_done()
                        return event
        raise AssertionError("a model ends with ModelDone")


def _stop(task: asyncio.Task[ModelDone]) -> None:
    task.cancel()


class _Made:
    """The output of one passing response, as it comes."""

    def __init__(self, writer: ResponseWriter, emit: Emit) -> None:
        self.items: list[Item] = []
        self.is_steered = False
        self.writer = writer
        self.emit = emit
        self._calls: dict[int, int] = {}
        self._led_to: dict[int, tuple[Part, ...]] = {}
        self._message: int | None = None
        self._refuses = False
        self._reasoning: list[Part] = []
        self._led_here: tuple[Part, ...] = ()
        self._text: list[str] = []
        self._next = 0

    def text(self, text: str, *, is_refusal: bool = False) -> None:
        if is_refusal != self._refuses:
            self.message_done()
        if self._message is None:
            self._message, self._next = self._next, self._next + 1
            self._refuses, self._led_here = is_refusal, self._take_reasoning()
            item_id = f"msg_{secrets.token_hex(12)}"
            started = self.writer.message_started(self._message, item_id, is_refusal=is_refusal)
            send_all(self.emit, started)
        self._text.append(text)
        send_all(self.emit, self.writer.text(self._message, text))

    def reasoning(self, item: str) -> None:
        """It goes with the item that begins next."""
        self.message_done()
        self._reasoning.append(part_of(item))
        send_all(self.emit, self.writer.reasoning_done(item))

    def _take_reasoning(self) -> tuple[Part, ...]:
        taken = tuple(self._reasoning)
        self._reasoning.clear()
        return taken

    def message_done(self) -> None:
        if self._message is not None:
            text = "".join(self._text)
            send_all(self.emit, self.writer.message_done(self._message, text))
            # In the order in which it began: a model may have called after it.
            said = self._said(text)
            self.items.insert(min(self._message, len(self.items)), said)
            self._message = None
            self._text.clear()

    def cut(self) -> list[Item]:
        """What was said until it was steered."""
        text = "".join(self._text)
        return [*self.items, self._said(text)] if text else self.items

    def _said(self, text: str) -> Item:
        content = (Part("refusal" if self._refuses else "output_text", text), *self._led_here)
        return Item(ItemId(""), "message", "assistant", "assistant", content=content)

    def steer(self, maker: asyncio.Task[ModelDone]) -> None:
        if not self._calls and not maker.done():
            self.is_steered = True
            maker.cancel()

    def call_delta(self, at: int, arguments: str) -> None:
        send_all(self.emit, self.writer.call_delta(at, arguments))

    def call(self, index: int, call_id: str, name: str) -> int:
        if index not in self._calls:
            self._calls[index], self._next = self._next, self._next + 1
            self._led_to[self._calls[index]] = self._take_reasoning()
            item_id = f"fc_{secrets.token_hex(12)}"
            send_all(self.emit, self.writer.call_started(self._calls[index], item_id, call_id, name))
        return self._calls[index]

    def call_done(self, at: int, call_id: str, name: str, arguments: str) -> None:
        send_all(self.emit, self.writer.call_done(at, arguments))
        call = Item(
            ItemId(""),
            "function_call",
            "assistant",
            content=self._led_to[at],
            call_id=call_id,
            name=name,
            arguments=arguments,
        )
        self.items.append(call)
