"""Facts: the frozen names, and what a reader may rely on for each."""

from __future__ import annotations

import pytest

from openline.core import evolve
from openline.core.facts import ALL_FACTS, FACTS, LinkLost
from openline.wire.envelope import UnknownFact

COMMIT = """
    openline.session.started openline.session.owned session.updated openline.session.parked openline.session.ended
    openline.connection.attached openline.connection.detached openline.link.lost
    input_audio_buffer.speech_started input_audio_buffer.speech_stopped input_audio_buffer.cleared
    openline.turn.committed openline.turn.transcribed openline.turn.abandoned
    conversation.item.created conversation.item.deleted conversation.item.truncated openline.item.heard
    openline.reply.dropped response.created response.output_item.added response.output_item.done response.done
    openline.tool.requested openline.silence.exceeded input_audio_buffer.timeout_triggered
"""
NOTES = """
    openline.link.opened openline.link.requested openline.response.held openline.item.progressed
    openline.response.generated openline.recording.segment openline.media.dropped
    openline.session.forked openline.link.renewed openline.turn.continued
"""
EFFECTS = "openline.tool.started openline.tool.settled"
ROWS = [
    (name, kind)
    for kind, listed in (("commit", COMMIT), ("note", NOTES), ("effect", EFFECTS))
    for name in listed.split()
]


@pytest.mark.parametrize(("name", "kind"), ROWS)
def test_each_fact_keeps_its_name_and_its_class(name: str, kind: str) -> None:
    assert FACTS[name].TYPE == name
    assert FACTS[name].CLASS == kind


def test_no_fact_is_lost() -> None:
    """Later versions may add facts; a log of today holds these."""
    assert {name for name, _ in ROWS} <= set(FACTS)


def test_the_fold_names_every_fact_that_there_is() -> None:
    """One that is forgotten there would change nothing, as one of a newer version does."""
    assert set(evolve._EVOLVE) == set(ALL_FACTS)


def test_what_an_older_version_did_not_write_is_not_made_up() -> None:
    assert LinkLost(1, "link_unavailable", permanent=True).why == ""


def test_a_fact_of_a_newer_version_has_none_of_our_names() -> None:
    assert UnknownFact("openline.later", b"").TYPE == ""
