"""Time, timer, notes: what they return, and the same key twice."""

from __future__ import annotations

import asyncio

import pytest

from openline.agent import builtin
from openline.agent.builtin import MAX_NOTES, Notebook, Timer, ToolContext
from openline.agent.schema import function_spec
from openline.errors import ToolError
from openline.types import CallId, Now, SessionId

NOON_MS = 1_795_435_200_000
"""2026-11-23 12:00 UTC, a Monday."""


class Values:
    """A value store whose writes take a turn of the loop, as real ones do."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.writes = 0

    async def put_value(self, space: str, key: str, value: bytes, *, expires_ms: int = 0) -> None:
        await asyncio.sleep(0)
        self.kept[space, key] = value
        self.writes += 1

    async def get_value(self, space: str, key: str, *, now_ms: int = 0) -> bytes | None:
        await asyncio.sleep(0)
        return self.kept.get((space, key))


def context(values: Values | None = None, *, key: str = "key_1", session: str = "sess_1", timezone: str = "UTC",
            timers: list[Timer] | None = None, notebook: Notebook | None = None) -> ToolContext:  # fmt: skip
    started = timers if timers is not None else []
    return ToolContext(
        SessionId(session), CallId("call_1"), key, Now(0, NOON_MS), notebook or Notebook(values or Values()), started.append, timezone
    )  # fmt: skip


def test_the_time_is_told_with_its_zone() -> None:
    assert builtin.get_time(context()) == "It is 12:00 on Monday, 23 November 2026, UTC time."
    pytest.importorskip("zoneinfo").available_timezones() or pytest.skip("no time zone data on this machine")
    assert "13:00" in builtin.get_time(context(), "Europe/Berlin")
    assert "13:00" in builtin.get_time(context(timezone="Europe/Berlin"))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "x" * 500, "\0"])
def test_an_unknown_zone_is_refused_without_repeating_it(zone: str) -> None:
    with pytest.raises(ToolError, match="expected an IANA name") as caught:
        builtin.get_time(context(), zone)
    assert zone not in str(caught.value)


def test_a_timer_is_handed_over_with_its_key() -> None:
    timers: list[Timer] = []
    said = asyncio.run(builtin.set_timer(3_690, context(timers=timers), "pizza"))
    assert timers == [Timer(SessionId("sess_1"), "key_1", NOON_MS + 3_690_000, "pizza")]
    assert said == "The timer called pizza is set for 1 hour, 1 minute and 30 seconds. It is due at 13:01:30."
    assert "is set for 1 minute." in asyncio.run(builtin.set_timer(60, context()))


def test_notes_are_kept_by_session_and_outlive_the_notebook() -> None:
    async def story() -> None:
        values = Values()
        assert await builtin.take_note("buy milk", context(values)) == "I wrote that down."
        assert "2 notes" in await builtin.take_note("call the bank", context(values, key="key_2"))
        assert await builtin.list_notes(context(values)) == ["buy milk", "call the bank"]
        assert await builtin.list_notes(context(values, session="sess_2")) == []

    asyncio.run(story())


def test_the_same_call_again_writes_no_second_note() -> None:
    async def story() -> None:
        values = Values()
        for _ in range(3):
            await builtin.take_note("buy milk", context(values))
        assert await builtin.list_notes(context(values)) == ["buy milk"]
        assert values.writes == 1

    asyncio.run(story())


def test_notes_taken_at_once_are_all_kept() -> None:
    async def story() -> None:
        notebook = Notebook(Values())
        calls = [
            builtin.take_note(f"note {n}", context(key=f"key_{n}", notebook=notebook)) for n in range(20)
        ]
        await asyncio.gather(*calls)
        assert len(await notebook.all(SessionId("sess_1"))) == 20

    asyncio.run(story())


def test_there_is_a_last_note() -> None:
    async def story() -> None:
        notebook = Notebook(Values())
        for n in range(MAX_NOTES):
            await notebook.add(SessionId("sess_1"), f"key_{n}", "x", 0)
        with pytest.raises(ToolError, match="at most 200"):
            await notebook.add(SessionId("sess_1"), "one_more", "x", 0)

    asyncio.run(story())


def test_all_are_plain_functions_with_a_contract() -> None:
    for function in builtin.BUILTIN_TOOLS:
        spec = function_spec(function, injected={ToolContext})
        assert spec.description.endswith(".") and "\n" not in spec.description
        assert "context" not in spec.parameters
