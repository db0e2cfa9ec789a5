"""The step being made: facts are applied to the state as they are drafted, so later decisions see them."""

from __future__ import annotations

from functools import lru_cache

from openline.core.effects import Effect, SendError
from openline.core.evolve import evolve
from openline.core.facts import Fact
from openline.core.model import Problem
from openline.core.state import State
from openline.types import ConnectionId, Epoch, Now, SessionId


@lru_cache(maxsize=1024)  # A call has thousands of ids and one session.
def _tail(session: SessionId) -> str:
    return "".join(c for c in session[-8:] if c.isalnum())


class Draft:
    """One step in the making. ``fact`` is the only way to change the state, and every change is a fact."""

    __slots__ = ("_ids", "effects", "facts", "is_rejected", "now", "state")

    def __init__(self, state: State, now: Now) -> None:
        self.state = state
        self.now = now
        self.facts: list[Fact] = []
        self.effects: list[Effect] = []
        self.is_rejected = False
        self._ids = 0

    def fact(self, fact: Fact) -> None:
        evolve(self.state, fact, self.now)
        self.facts.append(fact)

    def effect(self, effect: Effect) -> None:
        self.effects.append(effect)

    def new_id(self, prefix: str) -> str:
        """An id from (session, seq, ordinal): the same at every replay, unique within the session.

        The tail of the session id keeps ids of different sessions apart for people and for logs.
        """
        tail = _tail(self.state.session)
        while True:
            self._ids += 1
            minted = f"{prefix}_{tail}{self.state.seq + 1:06d}{self._ids:02d}"
            # A client may choose item ids, and guess ours; the others are ours alone.
            if prefix != "item" or minted not in self.state.entries:
                return minted

    def reject(
        self, conn: ConnectionId, command: str, code: str, message: str, param: str | None = None
    ) -> None:
        """Refuse a command: nothing happened; its sender (if a client) is told why."""
        self.is_rejected = True
        if conn:
            self.effect(SendError(conn, command, Problem(code, message, param=param)))

    def elapsed_ms(self, since_ns: int) -> int:
        return (self.now.mono_ns - since_ns) // 1_000_000

    @property
    def epoch(self) -> Epoch:
        return self.state.epoch
