"""Write docs/reference/fake-provider.md from what the fake can do. Run: python tools/make_fake_provider_doc.py"""

from __future__ import annotations

from pathlib import Path

from openline.testing.fake_provider import reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "fake-provider.md"


def main() -> None:
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
