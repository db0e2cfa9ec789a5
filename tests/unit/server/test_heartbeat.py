"""The heartbeat, with ticks for time."""

from __future__ import annotations

from openline.server.heartbeat import SLOTS, Heartbeat


class Peer:
    def __init__(self) -> None:
        self.received_bytes = 0
        self.is_reading = True
        self.pings = 0
        self.expired = 0

    def ping(self) -> None:
        self.pings += 1

    def expire(self) -> None:
        self.expired += 1


TICKS_PER_S = 1  # with pings every 20 s a tick is one second


def make(*peers: Peer) -> Heartbeat:
    heartbeat = Heartbeat(20, 60, schedule=False)
    assert heartbeat.tick_s * TICKS_PER_S == 1
    for peer in peers:
        heartbeat.add(peer)
    return heartbeat


def run(heartbeat: Heartbeat, seconds: int, *, is_late: bool = False) -> None:
    for _ in range(seconds * TICKS_PER_S):
        heartbeat.tick(is_late=is_late)


def test_each_peer_is_pinged_once_an_interval() -> None:
    peers = [Peer() for _ in range(2 * SLOTS + 1)]
    heartbeat = make(*peers)
    for _ in range(10):
        run(heartbeat, 20)
        for peer in peers:
            peer.received_bytes += 1
    assert {peer.pings for peer in peers} == {10}


def test_a_silent_peer_expires_after_the_limit_and_not_before() -> None:
    peer = Peer()
    heartbeat = make(peer)
    run(heartbeat, 55)
    assert peer.expired == 0
    run(heartbeat, 10)
    assert peer.expired == 1


def test_one_byte_of_an_unfinished_frame_is_life() -> None:
    peer = Peer()
    heartbeat = make(peer)
    for _ in range(5):
        run(heartbeat, 50)
        peer.received_bytes += 1
    assert peer.expired == 0


def test_silence_is_not_held_against_a_peer_that_we_do_not_read() -> None:
    peer = Peer()
    heartbeat = make(peer)
    peer.is_reading = False
    run(heartbeat, 300)
    assert peer.expired == 0
    peer.is_reading = True
    run(heartbeat, 70)
    assert peer.expired == 1


def test_a_blocked_loop_kills_nobody() -> None:
    peer = Peer()
    heartbeat = make(peer)
    run(heartbeat, 300, is_late=True)
    assert peer.expired == 0
    assert peer.pings == 15, "pings go on, so that the peer can show that it lives"


def test_a_peer_may_leave_while_it_is_visited() -> None:
    class Leaver(Peer):
        def expire(self) -> None:
            super().expire()
            heartbeat.discard(self)

    leaver, other = Leaver(), Peer()
    heartbeat = make(leaver)
    for _ in range(SLOTS - 1):
        heartbeat.add(Peer())
    heartbeat.add(other)  # the same slot
    run(heartbeat, 65)
    assert leaver.expired == other.expired == 1
    assert len(heartbeat) == SLOTS
    heartbeat.discard(leaver)  # idempotent
    assert len(heartbeat) == SLOTS
