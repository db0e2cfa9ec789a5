"""The collector under calls: seldom, and never for long."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from openline.cli import housekeeping
from openline.cli.housekeeping import BUSY_EVERY_S, QUIET_EVERY_S, Garbage


class Ring:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


class House:
    """A gateway's counts and its clock."""

    def __init__(self) -> None:
        self.connected = 0
        self.opened = 0
        self.now_s = 0.0
        self.garbage = Garbage(lambda: self.connected, lambda: self.opened, seconds=lambda: self.now_s)

    def after(self, seconds: float) -> None:
        self.now_s += seconds
        self.garbage.tick()

    def leave_rings(self, count: int) -> list[weakref.ref[Ring]]:
        """Garbage that is set aside before an automatic look can find it, as some always is."""
        gc.disable()
        rings = [leave_a_ring() for _ in range(count)]
        self.after(0)
        gc.enable()
        return rings


@pytest.fixture
def house() -> Iterator[House]:
    gc.collect()
    house = House()
    house.garbage.begin()
    yield house
    gc.unfreeze()


def leave_a_ring() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


def test_a_tick_leaves_nothing_young_to_look_at(house: House) -> None:
    kept = [[number] for number in range(500)]
    assert any(each is kept for each in gc.get_objects(generation=0))
    house.after(0.05)
    # What the listing itself makes is young; of what was there before nothing is.
    assert not any(each is kept for each in gc.get_objects())


def test_what_a_call_left_is_freed_when_nobody_is_connected(house: House) -> None:
    house.opened = house.connected = 1
    ring = leave_a_ring()
    house.after(QUIET_EVERY_S + 1)
    assert ring() is not None, "a call goes on: nobody waits for the collector"
    house.connected = 0
    house.after(1)
    assert ring() is None


@pytest.mark.parametrize("opened", [0, 2])
def test_while_somebody_is_connected_it_counts_every_five_minutes_and_looks_if_much_was_left(
    house: House, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when no call came since: one long call can leave cycles too."""
    monkeypatch.setattr(housekeeping, "GROWN_BLOCKS", 1_000)
    house.opened, house.connected = opened, 2
    few = house.leave_rings(100)
    house.after(BUSY_EVERY_S)
    assert all(ring() is not None for ring in few), "not worth a pause of all calls"
    many = house.leave_rings(1_100)
    house.after(BUSY_EVERY_S - 1)
    assert all(ring() is not None for ring in many)
    house.after(1)
    assert all(ring() is None for ring in few + many)


def test_growth_counts_from_the_last_look(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "GROWN_BLOCKS", 1_000)
    house.connected = 1
    alive = [Ring() for _ in range(1_100)]
    house.after(0)
    house.after(BUSY_EVERY_S)
    (ring,) = house.leave_rings(1)
    house.after(BUSY_EVERY_S)
    assert ring() is not None, "what is alive was counted once"
    assert len(alive) == 1_100


def test_where_no_call_came_nobody_looks_before_that(house: House) -> None:
    ring = leave_a_ring()
    house.after(BUSY_EVERY_S - 1)
    assert ring() is not None
    house.opened = 1
    house.after(0.5)
    assert ring() is None, "the first call since is reason enough"


def test_two_looks_are_a_minute_apart(house: House) -> None:
    house.opened = 1
    house.after(QUIET_EVERY_S)
    house.opened = 2
    ring = leave_a_ring()
    house.after(QUIET_EVERY_S - 1)
    assert ring() is not None
    house.after(1)
    assert ring() is None
