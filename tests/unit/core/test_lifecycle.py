"""Opened, attached, detached, parked, owned anew, ended; and the model link."""

from __future__ import annotations

import pytest

from core_call import (
    CONN,
    Call,
    call_tool,
    live_call,
    names,
    speak,
)
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import Limits, ResponseRequest, SessionConfig, ToolSpec
from openline.types import CallId, ConnectionId

TOOLS = (ToolSpec("clock", runner="gateway"), ToolSpec("screen"))


# --------------------------------------------------------------------------------------------------- the end


def end_by_api(call: Call) -> f.Fact:
    return call.give(i.EndSession("api")).facts[-1]


def end_by_closing(call: Call) -> f.Fact:
    return call.give(i.Detach(CONN, 1000, clean=True)).facts[-1]


def end_by_waiting(call: Call) -> f.Fact:
    call.give(i.Detach(CONN, 1006))
    return call.advance(31_000)[-1].facts[-1]


@pytest.mark.parametrize("end", [end_by_api, end_by_closing, end_by_waiting])
def test_every_end_leaves_no_client_behind_and_no_call_without_an_outcome(end: object) -> None:
    call = live_call(SessionConfig(tools=TOOLS), limits=Limits(park_for_ms=0), resumable=False)
    watching = ConnectionId("watching")
    call.give(i.Attach(watching, "observer"))
    speak(call, "show it to me")
    call_tool(call, "screen")
    assert callable(end)
    assert isinstance(end(call), f.SessionEnded)
    assert call.session.state.connections == {}
    assert call.session.state.tools[CallId("call_1")].phase == "settled"


def test_a_parked_session_that_ends_lets_its_observers_go() -> None:
    call = live_call(limits=Limits(park_for_ms=1_000), resumable=False)
    call.give(i.Detach(CONN, 1000, clean=True))
    call.give(i.Attach(ConnectionId("watching"), "observer"))
    (step,) = call.advance(1_000)
    assert step.effects == (e.CloseConnection(ConnectionId("watching"), 4410, "session ended"),)
    assert names(step) == ["connection.detached", "session.ended"]


def test_a_reply_that_is_being_prepared_at_the_end_is_dropped() -> None:
    call = live_call(prepares=True, resumable=False)
    speak(call, "good bye")
    step = call.give(i.Detach(CONN, 1000, clean=True))
    assert "reply.dropped" in names(step)
    assert call.session.state.preparing is None


def test_nothing_out_of_band_is_asked_of_a_parked_session() -> None:
    """It has no link, and nothing would end the wait for one."""
    call = live_call(resumable=False)
    call.give(i.Detach(CONN, 1000, clean=True))
    step = call.give(i.CreateResponse(ResponseRequest(conversation="none", origin="agent")))
    assert step.is_rejected and not step.facts
