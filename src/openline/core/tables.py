"""The session's state machines as tables: (state, event) -> state. A missing cell is illegal.

The pictures in ARCHITECTURE.md are made from these tables. Code that does not fit a table stands beside
it with a reason; nothing else in the core decides whether a transition may happen.
"""

from __future__ import annotations

from openline.errors import IllegalTransition

Table = dict[tuple[str, str], str]

SESSION: Table = {
    ("new", "started"): "created",
    ("created", "attached"): "live",
    ("created", "parked"): "parked",
    ("created", "ended"): "ended",
    ("live", "attached"): "live",
    ("live", "detached"): "detached",
    ("detached", "attached"): "live",
    ("detached", "parked"): "parked",
    ("detached", "ended"): "ended",
    ("parked", "attached"): "live",
    ("parked", "ended"): "ended",
}
"""``attached``/``detached`` are about clients that talk (speaker, texter); observers do not count.
A crash turns live into detached; ended is final."""

LINK: Table = {
    ("closed", "requested"): "opening",
    ("opening", "opened"): "open",
    ("opening", "lost"): "closed",
    ("opening", "closed"): "closed",
    ("open", "lost"): "closed",
    ("open", "closed"): "closed",
    ("closed", "closed"): "closed",
}

TURN: Table = {
    ("none", "speech_started"): "speaking",
    ("speaking", "speech_stopped"): "deciding",
    ("speaking", "abandoned"): "none",
    ("deciding", "committed"): "none",
    ("deciding", "abandoned"): "none",
    ("none", "committed"): "none",
}
"""``committed`` from none: a manual commit or a typed turn, which has no open speech."""

RESPONSE: Table = {
    ("none", "created"): "active",
    ("active", "generated"): "generated",
    ("active", "done"): "done",
    ("generated", "done"): "done",
}
"""Between generated and done a response still counts as active for cancel, barge-in and response.create."""

OUTPUT: Table = {
    ("none", "added"): "open",
    ("open", "done"): "done",
}

TOOL: Table = {
    ("none", "requested"): "requested",
    ("requested", "started"): "started",
    ("started", "started"): "started",
    ("requested", "settled"): "settled",
    ("started", "settled"): "settled",
}
"""``started`` again is a further attempt under the same idempotency key."""

TABLES: dict[str, Table] = {
    "session": SESSION,
    "link": LINK,
    "turn": TURN,
    "response": RESPONSE,
    "output": OUTPUT,
    "tool": TOOL,
}


def advance(machine: str, state: str, event: str) -> str:
    """The next state. Raises IllegalTransition: our own bug, the session is rebuilt from its log."""
    try:
        return TABLES[machine][state, event]
    except KeyError:
        raise IllegalTransition(
            f"{machine}: expected one of {sorted(e for s, e in TABLES[machine] if s == state)} in state "
            f"'{state}', got '{event}'."
        ) from None


def is_legal(machine: str, state: str, event: str) -> bool:
    return (state, event) in TABLES[machine]
