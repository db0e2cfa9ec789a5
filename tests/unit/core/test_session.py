"""The session as a whole: what it refuses, receipts, replay and what it says of a difference."""

from __future__ import annotations

import pytest

from core_call import CONN, effects, live_call
from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Part, ResponseRequest, SessionConfig
from openline.types import ConnectionId, ItemId

TYPED = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_text", "hello"),))
COMMANDS: list[i.Input] = [
    i.UpdateConfig(SessionConfig(), CONN, "cmd_1"),
    i.CreateItem(TYPED, None, CONN, "cmd_1"),
    i.DeleteItem(TYPED.id, CONN, "cmd_1"),
    i.TruncateItem(TYPED.id, 0, 100, CONN, "cmd_1"),
    i.CommitAudio(AudioRange(0, 24_000), CONN, "cmd_1"),
    i.ClearAudio(CONN, "cmd_1"),
    i.CreateResponse(ResponseRequest(), CONN, "cmd_1"),
    i.CancelResponse(conn=CONN, command="cmd_1"),
    i.EndSession("client", CONN, "cmd_1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_an_ended_session_takes_no_commands(command: i.Input) -> None:
    call = live_call()
    call.give(i.EndSession("api"))
    step = call.give(command)
    assert (step.facts, step.is_rejected, effects(step)) == ((), True, ["SendError"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_connection_that_is_gone_gives_no_commands(command: i.Input) -> None:
    call = live_call()
    call.give(i.Attach(ConnectionId("other"), "texter"))
    call.give(i.Detach(CONN))
    step = call.give(command)
    assert (step.facts, step.is_rejected, effects(step)) == ((), True, [])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_an_observer_gives_no_commands(command: i.Input) -> None:
    call = live_call()
    call.give(i.Detach(CONN, 1006))
    call.give(i.Attach(CONN, "observer"))
    step = call.give(command)
    assert (step.facts, step.is_rejected, effects(step)) == ((), True, [])
