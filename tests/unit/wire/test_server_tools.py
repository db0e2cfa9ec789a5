"""Clients that did not ask for the gateway's own tools see nothing of them, and no place that is beside one."""

from __future__ import annotations

from typing import Any

import pytest

from openline.core import facts as f
from openline.core.facts import Fact
from openline.core.model import Item
from openline.core.state import State
from openline.core.value import replace
from openline.types import ItemId, Seq
from openline.wire.render import rendering
from openline.wire.server_tools import shown_in, without_server_tools
from wire_samples import (
    CALL,
    CALL_ITEM,
    CONN,
    MCP_ITEM,
    OPTED_IN,
    SPOKEN,
    STOCK,
    TYPED_ITEM,
    USER_ITEM,
    added,
    committed,
    done,
    every_fact,
    item_done,
)


def conversation(*items: Item) -> State:
    state = State()
    for item in items:
        state.entries.put(item, state.entries.last_id())
    return state


def another_call(name: str) -> Item:
    return replace(MCP_ITEM, id=ItemId(name))


STATE = conversation(USER_ITEM, MCP_ITEM, another_call("item_m2"), SPOKEN)
SHOWN = shown_in(STATE)


def test_the_place_of_a_hidden_call_is_that_of_the_item_before_it() -> None:
    assert SHOWN(ItemId("item_m2")) == USER_ITEM.id
    assert SHOWN(MCP_ITEM.id) == USER_ITEM.id
    assert SHOWN(SPOKEN.id) == SPOKEN.id
    assert SHOWN(ItemId("item_unknown")) == "item_unknown", "what is not ours is left as it is"
    assert shown_in(conversation(MCP_ITEM))(MCP_ITEM.id) is None, "nothing is before it"


@pytest.mark.parametrize("fact", [added(MCP_ITEM), item_done(MCP_ITEM), item_done(MCP_ITEM, shown_end=0)])
def test_a_call_that_the_gateway_runs_is_not_shown(fact: Fact) -> None:
    assert without_server_tools(fact, SHOWN) is None


def test_its_outcome_is_not_shown() -> None:
    settled = replace(MCP_ITEM, output="42")
    seen = without_server_tools(f.ToolSettled(CALL, 1, "succeeded", settled, USER_ITEM.id), SHOWN)
    assert seen is not None and rendering(seen, Seq(1), STOCK) == []


def test_a_response_ends_without_it() -> None:
    seen = without_server_tools(done(output=(MCP_ITEM, SPOKEN)), SHOWN)
    assert seen == done(output=(SPOKEN,))
    assert without_server_tools(done(output=(MCP_ITEM,)), SHOWN) == done(output=())


def after_the_call(fact: Any) -> Any:
    return replace(fact, previous_item_id=MCP_ITEM.id)


@pytest.mark.parametrize(
    "fact",
    [added(SPOKEN), item_done(SPOKEN), committed(), f.ItemCreated(TYPED_ITEM, None, CONN, "")],
    ids=lambda fact: type(fact).__name__,
)
def test_what_follows_it_is_placed_after_what_the_client_knows(fact: Any) -> None:
    seen: Any = without_server_tools(after_the_call(fact), SHOWN)
    assert seen.previous_item_id == USER_ITEM.id
    assert replace(seen, previous_item_id=fact.previous_item_id) == fact


def test_a_call_of_the_clients_own_is_shown() -> None:
    for fact in (added(CALL_ITEM), item_done(CALL_ITEM), done(output=(CALL_ITEM,))):
        assert without_server_tools(fact, SHOWN) is fact


@pytest.mark.parametrize("view", [STOCK, OPTED_IN], ids=["stock", "opted in"])
def test_no_frame_speaks_of_mcp_and_all_others_are_as_they_were(view: Any) -> None:
    for fact in every_fact():
        seen = without_server_tools(fact, SHOWN)
        frames = [] if seen is None else rendering(seen, Seq(1), view)
        assert not any("mcp" in str(frame) for frame in frames)
        if not any("mcp" in str(frame) for frame in rendering(fact, Seq(1), view)):
            assert frames == rendering(fact, Seq(1), view)
