"""How many times a test does what it does: few in `make test`, the full figure in `make prove`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


def figure(name: str, small: int) -> int:
    """``OPENLINE_FIGURE_<NAME>`` from the environment, else ``small``. Mark such a test ``figure_<name>``."""
    return int(os.environ.get(f"OPENLINE_FIGURE_{name.upper()}", small))


def parts(name: str, count: int) -> list[int]:
    """The parts of a figure that are still to do: all, or what an interrupted ``make prove`` left of them."""
    folder = _folder(name)
    return [part for part in range(count) if folder is None or not (folder / f"{part}.json").exists()]


def part_counts(name: str, part: int | None = None, counts: Mapping[str, int] | None = None) -> Counter[str]:
    """Keep the counts of a part that passed; without one: the sum over all parts, earlier runs included."""
    kept, folder = _COUNTS.setdefault(name, {}), _folder(name)
    if part is not None and counts is not None:
        kept[part] = dict(counts)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{part}.json").write_text(json.dumps(counts))
    if folder is not None:
        kept.update({int(path.stem): json.loads(path.read_text()) for path in folder.glob("*.json")})
    return sum((Counter(one) for one in kept.values()), Counter())


_COUNTS: dict[str, dict[int, dict[str, int]]] = {}


def _folder(name: str) -> Path | None:
    """Where ``make prove`` keeps the parts that are done for this commit."""
    folder = os.environ.get("OPENLINE_PROVE_PARTS")
    return Path(folder) / name if folder else None
