"""The language model's twin: says and calls what it was told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from openline.core.model import Usage
from openline.errors import LinkRejected
from openline.ports import (
    ModelDone,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    ReasoningDone,
    RefusalDelta,
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
