"""``store: false``: responses straight from the language model, that leave nothing behind.

A response is steered by its model where that can be steered: it ends by itself then, and the successor's request is
answered with what the model has begun to make of the input (``ports.SteerableModel``). Else it is cut here.
"""

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
from openline.runtime.model_choice import steer
from openline.server.responses_makers import (
    Emit,
    GiveBack,
    Held,
    Running,
    note_failure,
    now_s,
    problem_of,
    send_all,
)
from openline.types import ItemId, ResponseId, SessionId
from openline.wire.reasoning import part_of
from openline.wire.responses_server import Create, ResponseWriter
from openline.wire.responses_steer import OVER, UNREADABLE_INPUT


class Passing:
    """Responses that leave nothing behind."""

    def __init__(self, gateway: Gateway, model: LanguageModel) -> None:
        self._gateway = gateway
        self._model = model
        self._steers: set[asyncio.Task[None]] = set()

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
        request = _request(asked, chain, ResponseId(writer.response_id), context)
        maker = asyncio.get_running_loop().create_task(self._generate(request, made))

        def steer_it(items: tuple[Item, ...], give_back: GiveBack) -> None:
            task = asyncio.get_running_loop().create_task(self._steer(request, items, made, maker, give_back))
            self._steers.add(task)
            task.add_done_callback(self._steers.discard)

        running.cancel, running.steer = lambda: _stop(maker), steer_it
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
        return Held(writer.response_id, chain, (*context, *made.cut()))

    async def _steer(
        self,
        request: ModelRequest,
        items: tuple[Item, ...],
        made: _Made,
        maker: asyncio.Task[ModelDone],
        give_back: GiveBack,
    ) -> None:
        answer = await steer(self._model, request, items)
        if answer.code == UNREADABLE_INPUT:
            give_back(answer.code)
        elif answer.outcome != "accepted" and answer.code not in OVER:
            made.steer(maker)

    async def _generate(self, request: ModelRequest, made: _Made) -> ModelDone:
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
                    case ModelDone(_, reason):
                        if (
                            reason != "steered"
                        ):  # What it was saying then ends as what is cut does: incomplete.
                            made.message_done()
                        return event
        raise AssertionError("a model ends with ModelDone")


def _request(
    asked: Create, chain: SessionId, response: ResponseId, context: tuple[Item, ...]
) -> ModelRequest:
    return ModelRequest(
        chain,
        response,
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
            self._keep(text)

    def cut(self) -> list[Item]:
        """All that was made, until it was steered if it was."""
        if self._message is not None:
            self._keep("".join(self._text))
        return self.items

    def _keep(self, text: str) -> None:
        """In the order in which it began: a model may have called after it."""
        assert self._message is not None
        self.items.insert(min(self._message, len(self.items)), self._said(text))
        self._message = None
        self._text.clear()

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
