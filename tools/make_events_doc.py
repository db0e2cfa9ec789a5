"""Write docs/reference/events.md from the table of server events. Run: python tools/make_events_doc.py"""

from __future__ import annotations

from pathlib import Path

from openline.wire.events import reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "events.md"


def main() -> None:
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
