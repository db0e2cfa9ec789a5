"""``Agent``: what a person writes. Instructions, tools, handlers; the runtime does the rest.

    agent = Agent(instructions="You run the workshop.")

    @agent.on("openline.session.started")
    async def greet(session): await session.say("Workshop, good morning.")

    @agent.tool
    async def stock(part: str) -> int: ...

An agent holds no conversation: one object serves all sessions of a process. Declarations are checked when
they are made (ConfigError), not on the phone.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, overload

from openline.agent import builtin
from openline.agent.handles import Reply, SessionHandle, ToolCall, Turn
from openline.agent.schema import FunctionSpec, function_spec
from openline.core.facts import FACTS
from openline.core.model import SessionConfig, ToolSpec, TurnDetection
from openline.errors import ConfigError
from openline.ports import LanguageModel, Recognizer, Synthesizer, VoiceDetector

Function = TypeVar("Function", bound=Callable[..., Any])
Recovery = Literal["retry", "verify", "ask"]
DEFAULT_INSTRUCTIONS = "You are Openline, a helpful voice assistant. Answer briefly."


@dataclass(frozen=True, slots=True)
class Tool:
    """A declared tool: its contract as the model sees it, and the function."""

    spec: ToolSpec
    function: Callable[..., Any]
    contract: FunctionSpec


@dataclass(slots=True)
class Agent:
    """``instructions``, ``voice`` and ``turn_detection`` are what new sessions begin with; clients may change them.

    ``stt``, ``tts``, ``vad``, ``llm``: objects of the ports, in place of the embedded ones. ``builtin_tools``:
    time, timer, notes and arithmetic.
    """

    instructions: str = DEFAULT_INSTRUCTIONS
    voice: str = "marin"
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    stt: Recognizer | None = None
    tts: Synthesizer | None = None
    vad: Callable[[], VoiceDetector] | None = None
    llm: LanguageModel | None = None
    builtin_tools: bool = True
    tools: dict[str, Tool] = field(default_factory=dict)
    handlers: dict[str, list[Callable[..., Awaitable[None]]]] = field(default_factory=dict)
    preparer: Callable[..., Awaitable[None]] | None = None
    notebook: builtin.Notebook | None = None

    def __post_init__(self) -> None:
        if self.builtin_tools:
            for function in builtin.BUILTIN_TOOLS:
                self._declare(function, "retry", 10_000)

    @classmethod
    def default(cls) -> Agent:
        """What ``openline serve`` runs when it is given no agent."""
        return cls()

    # -- declaring

    @overload
    def tool(self, function: Function) -> Function: ...

    @overload
    def tool(
        self, *, recovery: Recovery = "ask", timeout_s: float = 30.0
    ) -> Callable[[Function], Function]: ...

    def tool(
        self, function: Function | None = None, *, recovery: Recovery = "ask", timeout_s: float = 30.0
    ) -> Function | Callable[[Function], Function]:
        """Let the model call ``function`` (plain or async; its schema comes from its signature).

        ``recovery``: what a restart does with a call that had begun: ``retry`` runs it again under the same
        key, ``ask`` (and for now ``verify``) tells the model that the outcome is unknown. A parameter
        annotated ``ToolCall`` or ``SessionHandle`` is filled in. Raises ConfigError.
        """

        def declare(function: Function) -> Function:
            self._declare(function, recovery, int(timeout_s * 1000))
            return function

        return declare if function is None else declare(function)

    def _declare(self, function: Callable[..., Any], recovery: Recovery, timeout_ms: int) -> None:
        injected = (ToolCall, SessionHandle, builtin.ToolContext)
        contract = function_spec(function, injected=injected)
        if contract.name in self.tools and self.tools[contract.name].function is not function:
            if self.tools[contract.name].function not in builtin.BUILTIN_TOOLS:
                raise ConfigError(
                    f"tool {contract.name}: expected one function of this name; got a second one."
                )
        spec = ToolSpec(
            contract.name, contract.description, contract.parameters, "gateway", recovery, timeout_ms
        )
        self.tools[contract.name] = Tool(spec, function, contract)

    def on(self, fact: str) -> Callable[[Function], Function]:
        """Call the function for each such fact, durable, in order, at least once.

        It is given what it has parameters for: ``session``, ``fact``, ``turn`` (for openline.turn.committed).
        Raises ConfigError for a name that no fact has.
        """
        if fact not in FACTS:
            known = ", ".join(sorted(FACTS))
            raise ConfigError(f"on: expected the name of a fact; got '{fact}'.", hint=f"One of: {known}")

        def declare(function: Function) -> Function:
            _check_handler(function, {"session", "fact", "turn"})
            self.handlers.setdefault(fact, []).append(function)
            return function

        return declare

    def before_reply(self, function: Function) -> Function:
        """Ask the function before each reply to a spoken turn: 300 ms, then the reply goes on without it.

        It is given ``turn``, ``session``, ``reply`` and changes ``reply``: add context, replace, drop.
        """
        _check_handler(function, {"session", "reply", "turn"})
        self.preparer = function
        return function

    # -- for the runtime

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self.tools.values())

    def config(self, model: str) -> SessionConfig:
        return SessionConfig(
            model=model,
            instructions=self.instructions,
            tools=self.specs,
            voice=self.voice,
            turn_detection=self.turn_detection,
        )

    def bind_notes(self, values: builtin.ValueStore) -> None:
        """Where the built-in notes are kept."""
        self.notebook = builtin.Notebook(values)

    def port(self, model: str) -> Any:
        """This agent as the runtime sees it."""
        from openline.agent.port import AgentAdapter

        return AgentAdapter(self, model)


def _check_handler(function: Callable[..., Any], allowed: set[str]) -> None:
    if not inspect.iscoroutinefunction(function):
        raise ConfigError(f"{function.__name__}: expected 'async def'; got a plain function.")
    names = set(inspect.signature(function).parameters)
    if not names <= allowed:
        wrong = ", ".join(sorted(names - allowed))
        raise ConfigError(f"{function.__name__}: expected parameters {sorted(allowed)}; got '{wrong}'.")


__all__ = ["Agent", "Reply", "SessionHandle", "Tool", "ToolCall", "Turn"]
