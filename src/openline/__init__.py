"""Openline: a live-stream runtime for voice agents.

General layout: ``core`` (pure: what follows from what happens), ``wire`` (pure: bytes and core types),
``ports`` (every outside thing as a protocol), ``runtime`` (asyncio: drives the core through ports), ``adapters``
(one outside thing per file), ``server`` (sockets and HTTP), ``agent`` (what you write against), ``cli``.

The public names are imported when they are first asked for: a speech worker is a process that needs one
adapter, and would spend most of its start on the agent API.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openline.version import VERSION as __version__

if TYPE_CHECKING:
    from openline.agent.agent import Agent
    from openline.agent.handles import Reply, SessionHandle, ToolCall, Turn
    from openline.errors import OpenlineError

__all__ = ["Agent", "OpenlineError", "Reply", "SessionHandle", "ToolCall", "Turn", "__version__"]

if not TYPE_CHECKING:  # or every misspelt name of the package would be an object to the checker

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'openline' has no attribute '{name}'")
        from openline.agent import agent, handles
        from openline.errors import OpenlineError

        found = {
            "Agent": agent.Agent,
            "OpenlineError": OpenlineError,
            "Reply": handles.Reply,
            "SessionHandle": handles.SessionHandle,
            "ToolCall": handles.ToolCall,
            "Turn": handles.Turn,
        }
        globals().update(found)
        return found[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__} - {"TYPE_CHECKING"})
