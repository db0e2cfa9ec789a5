"""Facts as clients see them that are not shown the tools of the gateway.

OpenAI shows MCP calls only to a client that declared an MCP server. One that did not has never seen such an item,
and may not bear it: Pipecat's reader ends on one, LiveKit loses the place of every item after it. So a call that
the gateway runs is shown, as an ``mcp_call``, to clients that asked for it (``?openline=1`` or
``?server_tools=shown``) and to no other: those see a response without output, and then the one that answers.

Pure. What is changed here keeps the number and the order of each fact's frames.
"""

from __future__ import annotations

from collections.abc import Callable

from openline.core import facts as f
from openline.core.facts import Fact
from openline.core.state import State
from openline.core.value import replace
from openline.types import ItemId

Shown = Callable[[ItemId], ItemId | None]
"""The item itself if such a client is shown it, else the nearest before it that it is shown, or None."""


def without_server_tools(fact: Fact, shown: Shown) -> Fact | None:
    """The fact as such a client sees it; None if there is nothing of it to see."""
    match fact:
        case f.OutputItemAdded() | f.OutputItemDone() if fact.item.type == "mcp_call":
            return None
        case f.OutputItemAdded() | f.OutputItemDone() | f.ItemCreated() | f.TurnCommitted():
            previous = fact.previous_item_id
            place = shown(previous) if previous is not None else None
            return fact if place == previous else replace(fact, previous_item_id=place)
        case f.ToolSettled():
            return replace(fact, item=None)
        case f.ResponseDone():
            kept = tuple(item for item in fact.output if item.type != "mcp_call")
            return fact if len(kept) == len(fact.output) else replace(fact, output=kept)
    return fact


def shown_in(state: State) -> Shown:
    """For the conversation as it stands."""

    def shown(item_id: ItemId) -> ItemId | None:
        at: ItemId | None = item_id
        while at is not None:
            entry = state.entries.get(at)
            if entry is None or entry.item.type != "mcp_call":
                return at  # most of them at once: no search
            at = state.previous_of(at)
        return None

    return shown
