"""docs/reference/events.md is the table of events, as it is now."""

from __future__ import annotations

from openline.wire.events import EVENTS, reference
from source_tree import ROOT


def test_the_page_is_not_stale() -> None:
    page = (ROOT / "docs" / "reference" / "events.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python tools/make_events_doc.py"


def test_every_event_is_on_the_page() -> None:
    page = reference()
    for name in EVENTS:
        assert f"| `{name}` |" in page
