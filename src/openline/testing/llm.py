"""The language model's twin: says and calls what it was told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from openline.core.model import Item, Usage
from openline.errors import LinkRejected
from openline.ports import (
    ModelDone,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
    SteerAnswer,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)


@dataclass(frozen=True, slots=True)
class Say:
    """Text in the given pieces. ``refuses``: by it the model declines."""

    pieces: tuple[str, ...]
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class Think:
    """A reasoning item with one part for each of ``summary``, and ``sealed`` content if there is any. ``is_lost``: it
    is begun and never finished, as by a try that was lost."""

    summary: tuple[str, ...] = ()
    sealed: str = ""
    id: str = "rs_scripted"
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A call whose arguments come in two pieces; ``call_id`` "" makes one of the response's id."""

    name: str
    arguments: str = "{}"
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing comes until ``event`` is set: for tests of cancelling in the middle."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Fail:
    """The link fails here."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Finish:
    """How it ends; without one a script ends with reason completed and counted usage."""

    reason: str = "completed"
    usage: Usage | None = None


Script = Sequence[Say | Think | Call | Wait | Fail | Finish]


def say(text: str, *, refuses: bool = False) -> Say:
    """``text`` word by word."""
    words = text.split(" ")
    return Say(tuple(word if at == 0 else f" {word}" for at, word in enumerate(words)), refuses)


@dataclass
class ScriptedModel:
    """Port ``LanguageModel``. ``scripts``: one for each generation in turn, or a function of the request.

    When the scripts are used up, LinkRejected says so. ``requests`` has every request in order; ``closed`` counts
    generations that were closed before their end.
    """

    scripts: Sequence[Script] | Callable[[ModelRequest], Script] = ()
    name: str = "scripted"
    requests: list[ModelRequest] = field(default_factory=list)
    closed: int = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        number = len(self.requests)
        self.requests.append(request)
        script = self._script(number, request)
        is_whole = False
        try:
            async for event in _play(script, request):
                yield event
                await asyncio.sleep(0)
            is_whole = True
        finally:
            self.closed += not is_whole

    def _script(self, number: int, request: ModelRequest) -> Script:
        if callable(self.scripts):
            return self.scripts(request)
        if number >= len(self.scripts):
            raise LinkRejected(
                f"scripted model: expected at most {len(self.scripts)} generations; got one more.",
                hint="Add a script to the test.",
            )
        return self.scripts[number]


@dataclass
class SteeredModel(ScriptedModel):
    """Port ``SteerableModel``: a steer that is accepted ends what is being said, also in a ``Wait``; one that has
    begun a call ends as it would have. ``answers``: to the next steers; then each is accepted. ``steered``: all of
    them, with what they were for."""

    answers: list[SteerAnswer] = field(default_factory=list)
    steered: list[tuple[ModelRequest, tuple[Item, ...]]] = field(default_factory=list)
    _stops: list[tuple[ModelRequest, asyncio.Event]] = field(default_factory=list)

    async def steer(self, request: ModelRequest, items: tuple[Item, ...]) -> SteerAnswer:
        self.steered.append((request, items))
        stop = next((stop for running, stop in self._stops if running is request), None)
        if stop is None:
            return SteerAnswer("refused", "response_not_active")
        answer = self.answers.pop(0) if self.answers else SteerAnswer("accepted")
        if answer.outcome == "accepted":
            stop.set()
        return answer

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        running = request, asyncio.Event()
        self._stops.append(running)
        has_calls = False
        try:
            async with aclosing(super().generate(request)) as events:
                while (event := await _next(events, running[1], stops=not has_calls)) is not None:
                    has_calls = has_calls or isinstance(event, ToolCallDelta)
                    yield event
                    if isinstance(event, ModelDone):
                        return
            yield ModelDone(reason="steered")
        finally:
            self._stops.remove(running)


async def _next(
    events: AsyncGenerator[ModelEvent, None], stop: asyncio.Event, *, stops: bool
) -> ModelEvent | None:
    """The next event; None when ``stop`` is set first."""
    following = asyncio.ensure_future(anext(events))
    waiting = asyncio.ensure_future(stop.wait())
    try:
        both = {following, waiting} if stops else {following}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return None if stops and stop.is_set() else following.result()
    finally:
        for task in (following, waiting):
            task.cancel()
        await asyncio.wait({following, waiting})


def _think(step: Think) -> Iterator[ModelEvent]:
    yield ReasoningDelta(step.id, 0, "")
    for part, text in enumerate(step.summary):
        yield ReasoningDelta(step.id, part, text[: len(text) // 2])
        yield ReasoningDelta(step.id, part, text[len(text) // 2 :])
    if step.is_lost:
        return
    summary = [{"type": "summary_text", "text": text} for text in step.summary]
    item = {"type": "reasoning", "id": step.id, "summary": summary}
    sealed = {"encrypted_content": step.sealed} if step.sealed else {}
    yield ReasoningDone(step.id, json.dumps({**item, **sealed}))


async def _play(script: Script, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
    """Keeps the port's rules itself: the limit on output, one ModelDone at the end."""
    room = request.max_output_tokens
    spent = calls = 0
    for step in script:
        match step:
            case Say(pieces, refuses):
                for piece in pieces:
                    if room is not None and spent >= room:
                        yield ModelDone(Usage(output_tokens=spent), "max_output_tokens")
                        return
                    spent += 1
                    yield RefusalDelta(piece) if refuses else TextDelta(piece)
            case Think():
                for event in _think(step):
                    yield event
            case Call(name, arguments, call_id):
                known = call_id or f"call_{request.response_id}_{calls}"
                half = len(arguments) // 2
                yield ToolCallDelta(calls, known, name, arguments[:half])
                yield ToolCallDelta(calls, known, name, arguments[half:])
                yield ToolCallDone(calls, known, name, arguments)
                calls += 1
                spent += 1
            case Wait(event):
                await event.wait()
            case Fail(error):
                raise error
            case Finish(reason, usage):
                yield ModelDone(usage or Usage(output_tokens=spent), reason)
                return
    yield ModelDone(Usage(output_tokens=spent))
