"""What the runtime asks of agent code. ``openline.agent`` implements it over a person's functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from openline.core.facts import Fact
from openline.core.model import ResponseRequest, SessionConfig, ToolSpec
from openline.types import CallId, Seq, TurnId

if TYPE_CHECKING:
    from openline.runtime.driver import SessionDriver


class AgentPort(Protocol):
    """All coroutines run on the session's loop in tasks of their own; an exception is logged by its type
    and has a stated outcome, it never reaches the session."""

    @property
    def config(self) -> SessionConfig:
        """What a new session begins with: instructions, model, voice, gateway tools."""

    @property
    def tools(self) -> tuple[ToolSpec, ...]: ...

    @property
    def prepares_replies(self) -> bool:
        """There is a ``before_reply``: a committed turn waits for it, at most ``prepare_reply_ms``."""

    def handles(self, fact_type: str) -> bool: ...

    async def handle(self, driver: SessionDriver, seq: Seq, fact: Fact) -> None:
        """Durable facts, in order, at least once. Raising counts as handled, with an error in the log."""

    async def prepare_reply(self, driver: SessionDriver, turn: TurnId) -> ResponseRequest | None:
        """What the reply is asked with; None drops it. Raising: the plain reply."""

    async def run_tool(
        self, driver: SessionDriver, call_id: CallId, key: str, attempt: int, name: str, arguments: str
    ) -> str:
        """Raises ToolError. Cancelled at its timeout; the effect may or may not have happened then."""
