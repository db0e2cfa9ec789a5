"""Effects: to what each is bound, and which wait for the disk."""

from __future__ import annotations

import pytest

from openline.core.effects import EFFECTS

TABLE = """
    OpenLink link waits            CloseLink link at-once          StartResponse link waits
    StopResponse link at-once      AddItem link waits              RemoveItem link waits
    CutItem link waits             ConfigureLink link waits        TranscribeAudio link waits
    HearAgain link waits
    DropAudio link at-once         PrepareReply link waits         ClearPlayout connection at-once
    SendError connection waits     SendReceipt connection waits    ResendItem connection waits
    CloseConnection connection waits                               RunTool durable waits
"""
ROWS = list(zip(*[iter(TABLE.split())] * 3, strict=True))


@pytest.mark.parametrize(("name", "kind", "when"), ROWS)
def test_each_effect_is_bound_and_waits_as_said(name: str, kind: str, when: str) -> None:
    effect = EFFECTS[name]
    assert (effect.KIND, effect.WAITS) == (kind, when == "waits")


def test_every_effect_is_in_the_table() -> None:
    assert {name for name, _, _ in ROWS} == set(EFFECTS)
