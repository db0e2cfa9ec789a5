"""``store: false``: responses straight from the language model, that leave nothing behind.

A response is steered by its model where that can be steered: it ends by itself then, and the successor's request is
answered with what the model has begun to make of the input (``ports.SteerableModel``). Else it is cut here.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import aclosing

from openline.core.model import Item, Part, Usage
from openline.core.value import replace
from openline.ports import LanguageModel, ModelDone, ModelRequest, Outputs, ReasoningDelta
from openline.runtime.fold import Fold
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
from openline.types import CallId, ItemId, ResponseId, SessionId
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
                made.fold.follow(event)
                if isinstance(event, ModelDone):
                    made.done(event.reason)
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


class _Made(Outputs):
    """The output of one passing response, as it comes: events for the client, ``items`` for what goes on from it."""

    def __init__(self, writer: ResponseWriter, emit: Emit) -> None:
        self.items: list[Item] = []
        self.is_steered = False
        self.fold = Fold(ResponseId(writer.response_id), self)
        self._writer = writer
        self._emit = emit
        self._begun: dict[int, Item] = {}
        self._text: list[str] = []

    def steer(self, maker: asyncio.Task[ModelDone]) -> None:
        if not self.fold.has_calls and not maker.done():
            self.is_steered = True
            maker.cancel()

    def done(self, reason: str) -> None:
        """Nothing more comes. What it was saying when it was steered ends as what is cut does: incomplete."""
        if reason != "steered":
            self.fold.end_message()
        for reasoning in self.fold.take_reasoning():
            send_all(self._emit, self._writer.reasoning_done(reasoning))

    def cut(self) -> list[Item]:
        """All that was made, until it was steered if it was."""
        if self.fold.message is not None:
            self._keep(self.fold.message)
        return self.items

    # -- what the fold says of each output

    def reasoning_delta(self, response: ResponseId, delta: ReasoningDelta) -> None:
        told = self._writer.reasoning(delta.id, delta.part, delta.text, is_summary=delta.is_summary)
        send_all(self._emit, told)

    def message_started(
        self,
        response: ResponseId,
        output_index: int,
        *,
        is_refusal: bool = False,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        parts = Part("refusal" if is_refusal else "output_text"), *self._thought(reasoning)
        self._begun[output_index] = Item(ItemId(""), "message", "assistant", "assistant", content=parts)
        item_id = f"msg_{secrets.token_hex(12)}"
        send_all(self._emit, self._writer.message_started(output_index, item_id, is_refusal=is_refusal))

    def text_delta(self, response: ResponseId, output_index: int, text: str) -> None:
        self._text.append(text)
        send_all(self._emit, self._writer.text(output_index, text))

    def message_finished(self, response: ResponseId, output_index: int) -> None:
        send_all(self._emit, self._writer.message_done(output_index, "".join(self._text)))
        self._keep(output_index)

    def call_started(
        self,
        response: ResponseId,
        output_index: int,
        call_id: CallId,
        name: str,
        *,
        reasoning: tuple[str, ...] = (),
    ) -> None:
        parts = self._thought(reasoning)
        call = Item(ItemId(""), "function_call", "assistant", content=parts, call_id=call_id, name=name)
        self._begun[output_index] = call
        item_id = f"fc_{secrets.token_hex(12)}"
        send_all(self._emit, self._writer.call_started(output_index, item_id, call_id, name))

    def call_delta(self, response: ResponseId, output_index: int, arguments: str) -> None:
        send_all(self._emit, self._writer.call_delta(output_index, arguments))

    def call_finished(self, response: ResponseId, output_index: int, arguments: str) -> None:
        send_all(self._emit, self._writer.call_done(output_index, arguments))
        self.items.append(replace(self._begun[output_index], arguments=arguments))

    def _thought(self, reasoning: tuple[str, ...]) -> tuple[Part, ...]:
        for item in reasoning:
            send_all(self._emit, self._writer.reasoning_done(item))
        return tuple(part_of(item) for item in reasoning)

    def _keep(self, message: int) -> None:
        """In the order in which it began: a model may have called after it."""
        begun = self._begun[message]
        first, *thoughts = begun.content
        parts = replace(first, text="".join(self._text)), *thoughts
        self.items.insert(min(message, len(self.items)), replace(begun, content=parts))
        self._text.clear()
