"""One timer for the liveness of all sockets: pings, and the judgement that a peer is gone.

A peer is judged by received bytes, any of them: half a frame of a slow upload, a pong, a close. An open
socket is not alive; a busy one is not dead. Sockets sit in a ring of slots and each tick visits one slot,
so thousands of sockets cost a few each tick instead of a task and a timer each.

When a tick comes late, our own loop was blocked and what peers have sent may still wait in the kernel:
such a visit judges nobody (failures.md C1, C6).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Protocol

SLOTS = 5
VISITS_PER_PING = 4
"""Visits of one socket in a ping interval: the judgement is at most a quarter of an interval late."""


class HeartbeatPeer(Protocol):
    """What the heartbeat needs of a socket. All calls are made on the loop and must not raise."""

    @property
    def received_bytes(self) -> int:
        """Counts every byte that came, decoded or not; never goes back."""

    @property
    def is_reading(self) -> bool:
        """False while we ourselves do not read: silence then says nothing about the peer."""

    def ping(self) -> None: ...

    def expire(self) -> None:
        """The peer sent nothing for the whole limit: give it up."""


@dataclass(slots=True)
class _Pulse:
    slot: int
    seen_bytes: int
    quiet_visits: int = 0
    visits: int = 0


class Heartbeat:
    """Shared by all sockets of a listener. Runs only while it has peers.

    ``ping_interval_s``: each peer is pinged this often. ``dead_after_s``: a peer that sent no byte for
    this long is expired, at most a quarter of a ping interval later. Tests call ``tick`` themselves
    (``schedule=False``); otherwise it runs on the current event loop from the first ``add`` on.
    """

    def __init__(
        self,
        ping_interval_s: float = 20.0,
        dead_after_s: float = 60.0,
        *,
        schedule: bool = True,
    ) -> None:
        assert 0 < ping_interval_s <= dead_after_s, "a peer must be pinged before it can be judged"
        visit_s = ping_interval_s / VISITS_PER_PING
        self.tick_s = visit_s / SLOTS
        self._quiet_limit = math.ceil(dead_after_s / visit_s)
        self._late_s = visit_s / 2
        self._slots: list[dict[HeartbeatPeer, _Pulse]] = [{} for _ in range(SLOTS)]
        self._pulses: dict[HeartbeatPeer, _Pulse] = {}
        self._next_slot = 0
        self._cursor = 0
        self._schedule = schedule
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._pulses)

    def add(self, peer: HeartbeatPeer) -> None:
        pulse = _Pulse(self._next_slot, peer.received_bytes)
        self._next_slot = (self._next_slot + 1) % SLOTS
        self._pulses[peer] = pulse
        self._slots[pulse.slot][peer] = pulse
        if self._schedule and self._timer is None:
            self._arm(asyncio.get_running_loop())

    def discard(self, peer: HeartbeatPeer) -> None:
        pulse = self._pulses.pop(peer, None)
        if pulse is not None:
            del self._slots[pulse.slot][peer]
        if not self._pulses and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def tick(self, *, is_late: bool = False) -> None:
        """Visit the next slot. ``is_late``: the loop was blocked, so nobody is judged in this visit."""
        slot = self._slots[self._cursor]
        self._cursor = (self._cursor + 1) % SLOTS
        for peer, pulse in list(slot.items()):  # expire() may remove the peer
            self._visit(peer, pulse, is_late)

    def _visit(self, peer: HeartbeatPeer, pulse: _Pulse, is_late: bool) -> None:
        if peer.received_bytes != pulse.seen_bytes or not peer.is_reading:
            pulse.seen_bytes = peer.received_bytes
            pulse.quiet_visits = 0
        elif not is_late:
            pulse.quiet_visits += 1
            if pulse.quiet_visits >= self._quiet_limit:
                pulse.quiet_visits = 0
                peer.expire()
                return
        pulse.visits += 1
        if pulse.visits % VISITS_PER_PING == 0:
            peer.ping()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self.tick_s

        def run() -> None:
            self._timer = None
            self.tick(is_late=loop.time() - due > self._late_s)
            if self._pulses:
                self._arm(loop)

        self._timer = loop.call_at(due, run)
