"""One benchmark as it is described in ``bench/loads/NAME.toml``: the load, and the numbers to reach.

Every candidate is given the same file. ``targets`` are those of DESIGN §12; ``metric`` is a dotted path
into a run's result. Unknown keys are refused, so that a typing error cannot quietly change a load.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path

LOADS = Path(__file__).parent / "loads"
Value = str | int | float | bool


@dataclass(frozen=True)
class Target:
    """One published number. ``percentile`` names it in the table; smaller is better unless ``is_floor``."""

    label: str
    metric: str
    unit: str
    must: float | None = None
    goal: float | None = None
    stretch: float | None = None
    is_floor: bool = False


@dataclass(frozen=True)
class Load:
    """``kind``: capacity (step sessions up), load (one fixed load), or the name of a scenario module.

    ``gateway``: model, record, arguments, pinned (false: it and its workers may use every core). ``client``: options of the generator, as named there, with
    underscores. ``run``: everything that the kind itself takes.
    """

    name: str
    what: str
    kind: str
    targets: tuple[Target, ...]
    gateway: dict[str, Value] = field(default_factory=dict)
    client: dict[str, Value] = field(default_factory=dict)
    run: dict[str, Value] = field(default_factory=dict)
    sessions: tuple[int, ...] = ()

    def number(self, name: str, default: float) -> float:
        """A number of the ``run`` table."""
        value = self.run.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{self.name}.toml: run.{name}: expected a number; got {value!r}")
        return value

    def text(self, name: str, default: str) -> str:
        return str(self.run.get(name, default))


def read_load(path: Path) -> Load:
    """Raises ValueError naming the file and key that is wrong."""
    raw = tomllib.loads(path.read_text())
    targets = tuple(_target(path, entry) for entry in raw.pop("target", []))
    known = {each.name for each in fields(Load)} - {"name", "targets"}
    wrong = sorted(set(raw) - known)
    if wrong or not targets:
        raise ValueError(
            f"{path.name}: expected keys {sorted(known)} and [[target]]; got {wrong or 'no target'}"
        )
    raw["sessions"] = tuple(raw.get("sessions", ()))
    return Load(name=path.stem, targets=targets, **raw)


def _target(path: Path, entry: dict[str, Value]) -> Target:
    known = {each.name for each in fields(Target)}
    if set(entry) - known:
        raise ValueError(f"{path.name}: target: expected {sorted(known)}; got {sorted(set(entry) - known)}")
    return Target(**entry)  # type: ignore[arg-type]  # checked against the fields above; values come from our files


def all_loads() -> list[Load]:
    return [read_load(path) for path in sorted(LOADS.glob("*.toml"))]
