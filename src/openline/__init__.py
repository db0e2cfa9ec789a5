"""Openline: a live-stream runtime for voice agents.

General layout: ``core`` (pure: what follows from what happens), ``wire`` (pure: bytes and core types),
``ports`` (every outside thing as a protocol), ``runtime`` (asyncio: drives the core through ports), ``adapters``
(one outside thing per file), ``server`` (sockets and HTTP), ``agent`` (what you write against), ``cli``.
"""

from __future__ import annotations

from openline.agent.agent import Agent
from openline.agent.handles import Reply, SessionHandle, ToolCall, Turn
from openline.errors import OpenlineError
from openline.version import VERSION as __version__

__all__ = ["Agent", "OpenlineError", "Reply", "SessionHandle", "ToolCall", "Turn", "__version__"]
