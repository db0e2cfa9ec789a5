"""The search for a candidate's limit, without any process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import beside
from bench.beside import Candidate
from bench.load_file import all_loads

LOAD = next(load for load in all_loads() if load.name == "peers")
STEPS = (10, 20, 30, 40, 50)


@pytest.fixture
def limit_of(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What each candidate carries; runs are kept as sessions and faults alone."""
    limits: dict[str, int] = {}

    def run(_load: object, candidate: Candidate, sessions: int, _folder: Path, *, is_quick: bool) -> Any:
        faults = ["audio p99"] if sessions > limits[candidate.name] else []
        candidate.runs.append({"sessions": sessions, "faults": faults})
        return candidate.runs[-1]

    monkeypatch.setattr(beside, "_run", run)
    return limits


@pytest.mark.parametrize("carried", [0, 9, 10, 25, 40, 50, 99])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_the_limit_is_found_from_wherever_the_search_begins(
    limit_of: dict[str, int], carried: int, start: int
) -> None:
    limit_of["openline"] = carried
    candidate = Candidate("openline", STEPS, start, [], [])
    beside._search(LOAD, candidate, Path(), is_quick=True)
    expected = max((step for step in STEPS if step <= carried), default=0)
    assert candidate.limits == [expected]
    tried = [run["sessions"] for run in candidate.runs]
    assert len(tried) == len(set(tried)), "no step is run twice in one search"
    # The next search begins there, and asks no more than that step and its neighbours.
    beside._search(LOAD, candidate, Path(), is_quick=True)
    assert candidate.limits == [expected, expected]
    assert len(candidate.runs) - len(tried) <= 2


def test_times_say_how_far_the_rounds_let_them_vary() -> None:
    costs = {"percent_core_per_session": 0.2}
    ours = {"sessions": 300, "limits": [250, 300, 350], "at_common": costs}
    theirs = {"sessions": 75, "limits": [70, 75, 100], "at_common": {"percent_core_per_session": 0.8}}
    nothing = {"sessions": 0, "limits": [0, 0, 10], "at_common": None}
    times = beside._times({"openline": ours, "pipecat": theirs, "livekit_agents": nothing})
    assert times == {"pipecat": {"sessions": 4.0, "least": 2.5, "most": 5.0, "cpu_at_common": 4.0}}
    once_nothing = {**theirs, "limits": [0, *theirs["limits"][1:]]}
    times = beside._times({"openline": ours, "pipecat": once_nothing})
    assert times["pipecat"]["sessions"] == 4.0 and "most" not in times["pipecat"]
