"""Names for the identifiers and numbers that cross module borders. No logic."""

from __future__ import annotations

from typing import Literal, NamedTuple, NewType

SessionId = NewType("SessionId", str)
"""``sess_…`` when we chose it; ``[A-Za-z0-9_-]{8,64}`` when the client did. Unique per tenant."""
ConnectionId = NewType("ConnectionId", str)
TurnId = NewType("TurnId", str)
ItemId = NewType("ItemId", str)
ResponseId = NewType("ResponseId", str)
CallId = NewType("CallId", str)
Seq = NewType("Seq", int)
"""Position of a fact in one session's log, from 1, without gaps."""
Epoch = NewType("Epoch", int)
"""Ownership generation of a session, from 1; never goes back."""

Role = Literal["speaker", "texter", "observer"]
Author = Literal["user", "assistant", "tool", "system", "synthetic"]
"""Who wrote an item; never inferred from its text. ``synthetic``: put there by agent code."""


class Now(NamedTuple):
    """The two clocks, read together by the runtime and passed into the core.

    ``mono_ns`` (nanoseconds, monotonic, meaningless after a restart) is for durations;
    ``wall_ms`` (Unix milliseconds) is for labels and for deadlines that must survive a restart.
    """

    mono_ns: int
    wall_ms: int
