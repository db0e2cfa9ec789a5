"""Agent code at work for one session: facts to handlers, tools, replies to prepare.

Handlers get durable facts in order, at least once: how far they came is written down after each
(``handled`` values of the store), and a restart goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import ResponseRequest
from openline.errors import OpenlineError, ToolError
from openline.ports import SessionLog
from openline.runtime.agentport import AgentPort
from openline.runtime.driver import SessionDriver
from openline.types import Seq, SessionId, TurnId

log = logging.getLogger(__name__)

HANDLER_TIMEOUT_S = 30.0
"""A handler that runs longer is cancelled: later facts wait behind it."""
TOOL_OUTPUT_MAX = 256 * 1024
"""Characters of a tool's result that the model is given; more is a failed call that says so."""
SPACE = "handled"


class Deliveries:
    """One per driver. ``close`` cancels handlers and preparations; tools go on (they outlive calls)."""

    def __init__(self, agent: AgentPort, store: SessionLog, driver: SessionDriver, done_to: Seq) -> None:
        self._agent = agent
        self._store = store
        self._driver = driver
        self._done_to = done_to
        self._queue: list[tuple[Seq, f.Fact]] = []
        self._worker: asyncio.Task[None] | None = None
        self._is_closed = False

    def facts(self, first_seq: Seq, facts: tuple[f.Fact, ...]) -> None:
        for offset, fact in enumerate(facts):
            seq = Seq(first_seq + offset)
            if seq > self._done_to and self._agent.handles(fact.TYPE):
                self._queue.append((seq, fact))
        if self._queue and self._worker is None and not self._is_closed:
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._queue and not self._is_closed:
                seq, fact = self._queue.pop(0)
                await self._handle(seq, fact)
                self._done_to = seq
                session = self._driver.session.state.session
                await self._store.put_value(SPACE, session, str(seq).encode())
        finally:
            self._worker = None

    async def _handle(self, seq: Seq, fact: f.Fact) -> None:
        try:
            async with asyncio.timeout(HANDLER_TIMEOUT_S):
                await self._agent.handle(self._driver, seq, fact)
        except Exception as error:  # the edge of agent code: its failure is its own
            log.exception("handler of %s failed: %s", fact.TYPE, type(error).__name__)

    @property
    def is_idle(self) -> bool:
        return self._worker is None and not self._queue

    async def prepare(self, turn: TurnId) -> None:
        request: ResponseRequest | None = ResponseRequest(origin="turn")
        try:
            request = await self._agent.prepare_reply(self._driver, turn)
        except Exception as error:  # the edge of agent code: the plain reply goes on
            log.exception("before_reply failed: %s", type(error).__name__)
        if request is None:
            self._driver.offer(i.ReplyPrepared(turn, ResponseRequest(origin="turn"), drop=True))
        else:
            self._driver.offer(i.ReplyPrepared(turn, request))

    async def run_tool(self, effect: e.RunTool, settle: Callable[[i.ToolSettled], None]) -> None:
        """One attempt; exactly one outcome is offered, also when it is cancelled."""
        outcome: i.ToolSettled
        try:
            async with asyncio.timeout(effect.timeout_ms / 1000):
                output = await self._agent.run_tool(
                    self._driver, effect.call_id, effect.key, effect.attempt, effect.name, effect.arguments
                )
            if len(output) > TOOL_OUTPUT_MAX:
                raise ToolError(f"The result is too large: expected at most {TOOL_OUTPUT_MAX} characters.")
            outcome = i.ToolSettled(effect.call_id, effect.attempt, "succeeded", output)
        except TimeoutError:
            message = (
                f"The tool did not finish within {effect.timeout_ms} ms; whether it had an effect is unknown."
            )
            outcome = i.ToolSettled(effect.call_id, effect.attempt, "unknown", message)
        except OpenlineError as error:
            outcome = i.ToolSettled(effect.call_id, effect.attempt, "failed", str(error))
        except Exception as error:  # the edge of agent code: the model is told that it failed
            log.exception("tool %s failed: %s", effect.name, type(error).__name__)
            message = f"The tool failed ({type(error).__name__})."
            outcome = i.ToolSettled(effect.call_id, effect.attempt, "failed", message)
        settle(outcome)

    def close(self) -> None:
        self._is_closed = True
        if self._worker is not None:
            self._worker.cancel()


async def handled_to(store: SessionLog, session: SessionId) -> Seq:
    value = await store.get_value(SPACE, session)
    return Seq(int(value)) if value else Seq(0)
