"""What agent code is handed: the session it acts in, the turn it acts on, the call it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from openline.core import inputs as i
from openline.core.model import Item, Part, ResponseRequest, ToolSpec
from openline.core.value import replace
from openline.errors import SessionEnded, SessionError
from openline.runtime.driver import SessionDriver
from openline.types import CallId, ItemId, SessionId, TurnId


@dataclass(frozen=True, slots=True)
class Turn:
    """A committed turn of the user. ``confidence``: the recognizer's, 0..1, None where there is none."""

    id: TurnId
    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call that a tool answers. ``key`` is the same for every attempt: hand it to the far side."""

    id: CallId
    key: str
    attempt: int
    name: str
    session: SessionHandle


class SessionHandle:
    """A live session for agent code. Everything returns once it is decided, not once it was heard; what it
    leads to is in the log before anybody sees it. Raises SessionEnded when the session is over."""

    def __init__(self, driver: SessionDriver) -> None:
        self._driver = driver

    @property
    def id(self) -> SessionId:
        return self._driver.session.state.session

    @property
    def items(self) -> tuple[Item, ...]:
        """The conversation so far, as it was heard."""
        return tuple(self._driver.session.state.conversation())

    @property
    def is_live(self) -> bool:
        """Somebody is attached who can be spoken to."""
        return self._driver.session.state.has_talker

    async def say(self, text: str) -> None:
        """Speak exactly ``text``; after the reply that is running, if one is."""
        self._respond(ResponseRequest(verbatim=text, origin="agent"))

    async def generate_reply(self, instructions: str = "", *, context: str = "") -> None:
        """Have the model reply; ``instructions`` for this reply in place of the session's, ``context`` beside them."""
        extra = (_system(context),) if context else ()
        request = ResponseRequest(instructions=instructions or None, context=extra, origin="agent")
        self._respond(request)

    def _respond(self, request: ResponseRequest) -> None:
        self._require_alive()
        step = self._driver.offer(i.CreateResponse(request))
        if step is not None and step.is_rejected:
            raise SessionError("Expected at most a few replies waiting; too many are held already.")

    async def interrupt(self) -> None:
        """Stop the reply that is running; nothing happens if none is."""
        if self._driver.session.state.active is not None:
            self._driver.offer(i.CancelResponse(None, self._driver.playout.cuts()))

    async def update(
        self,
        *,
        instructions: str | None = None,
        voice: str | None = None,
        tools: Sequence[ToolSpec] | None = None,
    ) -> None:
        """Change the session from the next reply on; None leaves a value as it is."""
        self._require_alive()
        changes: dict[str, Any] = {}
        if instructions is not None:
            changes["instructions"] = instructions
        if voice is not None:
            changes["voice"] = voice
        if tools is not None:
            changes["tools"] = tuple(tools)
        self._driver.offer(i.UpdateConfig(replace(self._driver.session.state.config, **changes)))

    async def end(self, reason: str = "agent") -> None:
        """Hang up. What is being said is cut; call it after what must still be heard."""
        self._require_alive()
        self._driver.offer(i.EndSession(reason, cuts=self._driver.playout.cuts()))

    def _require_alive(self) -> None:
        if self._driver.is_stopped or self._driver.session.state.status == "ended":
            raise SessionEnded(f"Session '{self.id}' has ended.")


@dataclass(slots=True)
class Reply:
    """The reply that is about to be made; ``before_reply`` changes it."""

    instructions: str | None = None
    tools: tuple[ToolSpec, ...] | None = None
    text: str | None = None
    is_dropped: bool = False
    context: list[str] = field(default_factory=list)

    def add_context(self, text: str) -> None:
        """Let the model know ``text`` for this reply only."""
        self.context.append(text)

    def replace_with(self, text: str) -> None:
        """Speak ``text`` instead of asking the model."""
        self.text = text

    def drop(self) -> None:
        """No reply to this turn."""
        self.is_dropped = True

    def request(self) -> ResponseRequest:
        return ResponseRequest(
            instructions=self.instructions,
            tools=self.tools,
            verbatim=self.text,
            context=tuple(_system(text) for text in self.context),
            origin="turn",
        )


def _system(text: str) -> Item:
    return Item(ItemId(""), "message", "synthetic", "system", content=(Part("input_text", text),))
