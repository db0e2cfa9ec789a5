"""The step in the making: ids, refusals, elapsed time."""

from __future__ import annotations

from openline.core import effects as e
from openline.core.draft import Draft
from openline.core.model import Item, Problem
from openline.core.state import State
from openline.types import ConnectionId, ItemId, Now, SessionId


def draft_at(mono_ns: int, session: str = "my-session-0001") -> Draft:
    return Draft(State(session=SessionId(session)), Now(mono_ns, 0))


def test_ids_come_from_session_seq_and_ordinal() -> None:
    draft = draft_at(0)
    assert draft.new_id("item") == "item_ion000100000101"
    assert draft.new_id("turn") == "turn_ion000100000102"
    assert draft_at(0).new_id("item") == "item_ion000100000101", "and are the same at every replay"


def test_only_ids_of_items_give_way_to_what_a_client_chose() -> None:
    """An item of any id may be there; turns, responses and calls have ids that only we give."""
    draft = draft_at(0)
    for guessed in ("item_ion000100000101", "turn_ion000100000103"):
        draft.state.entries.put(Item(ItemId(guessed), "message", "user", "user"), None)
    assert draft.new_id("item") == "item_ion000100000102"
    assert draft.new_id("turn") == "turn_ion000100000103"


def test_elapsed_time_is_whole_milliseconds_of_the_monotonic_clock() -> None:
    draft = draft_at(5_999_999)
    assert draft.elapsed_ms(0) == 5
    assert draft.elapsed_ms(999_999) == 5
    assert draft.elapsed_ms(1_000_000) == 4


def test_a_refusal_is_told_to_a_client_and_to_nobody_else() -> None:
    draft = draft_at(0)
    draft.reject(ConnectionId("caller"), "cmd_1", "invalid_value", "Expected more.", "item.id")
    problem = Problem("invalid_value", "Expected more.", "invalid_request_error", "item.id")
    assert draft.effects == [e.SendError(ConnectionId("caller"), "cmd_1", problem)]
    assert draft.is_rejected and not draft.facts
    agent = draft_at(0)
    agent.reject(ConnectionId(""), "", "invalid_value", "Expected more.")
    assert agent.is_rejected and not agent.effects
