"""An ``Agent`` as the runtime's ``AgentPort``: finds the functions, fills their parameters, renders results."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from openline.agent import builtin
from openline.agent.agent import Agent
from openline.agent.handles import Reply, SessionHandle, ToolCall, Turn
from openline.core.facts import Fact, TurnCommitted
from openline.core.model import Item, ResponseRequest, SessionConfig, ToolSpec
from openline.errors import ToolError
from openline.runtime.agentport import AgentPort
from openline.runtime.driver import SessionDriver
from openline.types import CallId, Seq, TurnId


class AgentAdapter(AgentPort):
    def __init__(self, agent: Agent, model: str) -> None:
        self._agent = agent
        self._config = agent.config(model)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def config(self) -> SessionConfig:
        return self._config

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        return self._agent.specs

    @property
    def prepares_replies(self) -> bool:
        return self._agent.preparer is not None

    def handles(self, fact_type: str) -> bool:
        return fact_type in self._agent.handlers

    async def handle(self, driver: SessionDriver, seq: Seq, fact: Fact) -> None:
        values: dict[str, object] = {"session": SessionHandle(driver), "fact": fact}
        if isinstance(fact, TurnCommitted):
            values["turn"] = Turn(fact.turn_id, fact.text or "", fact.confidence)
        for function in self._agent.handlers.get(fact.TYPE, ()):
            await function(**_wanted(function, values))

    async def prepare_reply(self, driver: SessionDriver, turn: TurnId) -> ResponseRequest | None:
        preparer = self._agent.preparer
        if preparer is None:
            return ResponseRequest(origin="turn")
        reply = Reply()
        values = {"session": SessionHandle(driver), "reply": reply, "turn": _turn(driver, turn)}
        await preparer(**_wanted(preparer, values))
        return None if reply.is_dropped else reply.request()

    async def run_tool(
        self, driver: SessionDriver, call_id: CallId, key: str, attempt: int, name: str, arguments: str
    ) -> str:
        tool = self._agent.tools.get(name)
        if tool is None:
            raise ToolError(f"tool {name}: this gateway no longer has it.", hint="Tell the user so.")
        values = tool.contract.bind(arguments)
        call = ToolCall(call_id, key, attempt, name, SessionHandle(driver))
        for parameter, kind in tool.contract.injected.items():
            values[parameter] = self._injected(kind, driver, call)
        if tool.contract.is_async:
            result = await tool.function(**values)
        else:
            result = await asyncio.to_thread(tool.function, **values)
        return result if isinstance(result, str) else msgspec.json.encode(result).decode()

    def _injected(self, kind: type, driver: SessionDriver, call: ToolCall) -> object:
        if kind is ToolCall:
            return call
        if kind is SessionHandle:
            return call.session
        return self._context(driver, call)

    def _context(self, driver: SessionDriver, call: ToolCall) -> builtin.ToolContext:
        assert self._agent.notebook is not None, "bootstrap binds the notes"
        return builtin.ToolContext(
            session=call.session.id,
            call_id=call.id,
            key=call.key,
            now=driver.now(),
            notebook=self._agent.notebook,
            start_timer=lambda timer: self._start_timer(driver, timer),
        )

    def _start_timer(self, driver: SessionDriver, timer: builtin.Timer) -> None:
        """Rings while this process lives; a restart forgets it (docs/internals/next.md)."""
        if timer.key in self._timers:
            return
        delay_s = max(0, timer.due_ms - driver.now().wall_ms) / 1000
        loop = asyncio.get_running_loop()
        self._timers[timer.key] = loop.call_later(delay_s, self._ring, SessionHandle(driver), timer)

    def _ring(self, session: SessionHandle, timer: builtin.Timer) -> None:
        self._timers.pop(timer.key, None)
        name = f" {timer.label}" if timer.label else ""
        task = asyncio.get_running_loop().create_task(session.say(f"Your timer{name} is up."))
        task.add_done_callback(lambda done: done.exception())


def _turn(driver: SessionDriver, turn: TurnId) -> Turn:
    def belongs(item: Item) -> bool:
        return item.turn_id == turn

    texts = [item.text for item in driver.session.state.conversation() if belongs(item)]
    return Turn(turn, " ".join(texts))


def _wanted(function: Callable[..., Any], values: dict[str, object]) -> dict[str, object]:
    names = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in names}
