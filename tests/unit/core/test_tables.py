"""The tables of the state machines: each legal transition, and that every other one is refused."""

from __future__ import annotations

import pytest

from openline.core.tables import TABLES, advance, is_legal
from openline.errors import IllegalTransition

LEGAL = {
    "session": """
        new: started>created
        created: attached>live parked>parked ended>ended
        live: attached>live detached>detached
        detached: attached>live parked>parked ended>ended
        parked: attached>live ended>ended
        ended:
    """,
    "link": """
        closed: requested>opening closed>closed
        opening: opened>open lost>closed closed>closed
        open: lost>closed closed>closed
    """,
    "turn": """
        none: speech_started>speaking committed>none
        speaking: speech_stopped>deciding abandoned>none
        deciding: committed>none abandoned>none
    """,
    "response": """
        none: created>active
        active: generated>generated done>done
        generated: done>done
        done:
    """,
    "output": """
        none: added>open
        open: done>done
        done:
    """,
    "tool": """
        none: requested>requested
        requested: started>started settled>settled
        started: started>started settled>settled
        settled:
    """,
}


def drawn(text: str) -> dict[tuple[str, str], str]:
    cells = {}
    for line in text.strip().splitlines():
        state, _, moves = line.strip().partition(":")
        for move in moves.split():
            event, _, after = move.partition(">")
            cells[state, event] = after
    return cells


@pytest.mark.parametrize("machine", sorted(LEGAL))
def test_each_machine_moves_as_drawn_and_no_other_way(machine: str) -> None:
    legal = drawn(LEGAL[machine])
    states = {line.strip().partition(":")[0] for line in LEGAL[machine].strip().splitlines()}
    for state in states:
        for event in {event for _, event in legal}:
            assert is_legal(machine, state, event) == ((state, event) in legal)
            if (state, event) in legal:
                assert advance(machine, state, event) == legal[state, event]
            else:
                with pytest.raises(IllegalTransition, match=f"{machine}: expected one of .* got '{event}'"):
                    advance(machine, state, event)


def test_every_machine_is_drawn() -> None:
    assert set(LEGAL) == set(TABLES)


def test_the_refusal_names_what_would_have_been_legal() -> None:
    with pytest.raises(IllegalTransition) as caught:
        advance("tool", "requested", "requested")
    assert str(caught.value) == (
        "tool: expected one of ['settled', 'started'] in state 'requested', got 'requested'."
    )
