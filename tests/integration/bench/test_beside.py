"""The search for a candidate's limit, and what is made of the rounds, without any process."""

from __future__ import annotations

from typing import Any

import pytest

from bench import beside, relay
from bench.carried import Search
from bench.load_file import all_loads
from bench.results import value_of

STEPS = (10, 20, 30, 40, 50)


class Candidate:
    """Carries so many sessions; keeps what it was given."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tried: list[int] = []

    def run(self, sessions: int) -> dict[str, Any]:
        self.tried.append(sessions)
        return {"faults": ["audio p99"] if sessions > self.limit else []}


@pytest.mark.parametrize("carried", [0, 9, 10, 25, 40, 50, 99])
@pytest.mark.parametrize("start", [5, 30, 59])
def test_the_limit_is_found_from_wherever_the_search_begins(carried: int, start: int) -> None:
    candidate, search = Candidate(carried), Search.from_start(STEPS, start)
    search.once(candidate.run)
    expected = max((step for step in STEPS if step <= carried), default=0)
    assert search.limits == [expected]
    assert candidate.tried[0] == max((step for step in STEPS if step <= start), default=10)
    tried = len(candidate.tried)
    assert tried == len(set(candidate.tried)), "no step is run twice in one search"
    # The next search begins there, and asks no more than that step and its neighbours.
    search.once(candidate.run)
    assert search.limits == [expected, expected]
    assert len(candidate.tried) - tried <= 2


def test_a_round_on_a_slow_machine_leaves_the_next_its_own_limit() -> None:
    candidate, search = Candidate(40), Search.from_start(STEPS, 30)
    for candidate.limit in (40, 10, 50):
        search.once(candidate.run)
    assert search.limits == [40, 10, 50]


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


def test_the_middle_of_the_rounds_counts_in_front_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the load file's own figures: none of them may point to nothing."""
    load = next(load for load in all_loads() if load.name == "relay_upstream")
    limits = {"plain": [300, 50, 350, 300, 100], "tls": [200] * 5, "bare": [600, 300, 600, 600, 400]}
    cores = {"plain": 0.5, "tls": 0.6, "bare": 0.2}
    delays = {"p50_ms": 1.0, "p99_ms": 2.0}

    def run(_load: Any, _folder: Any, _quick: bool, candidate: Any, sessions: int) -> dict[str, Any]:
        is_carried = sessions <= limits[candidate.name][len(candidate.search.limits)]
        lanes = dict.fromkeys(("up", "audio", "reply"), delays)
        found = {"sessions": sessions, "faults": [] if is_carried else ["audio p99"], **lanes}
        found["gateway"] = {"core": cores[candidate.name]}
        candidate.runs.append(found)
        return found

    monkeypatch.setattr(relay, "_run", run)
    monkeypatch.setattr(relay, "_floors", lambda *_: {})
    measured = relay.measure(load, is_quick=False)
    assert [measured[name]["limits"] for name in limits] == list(limits.values())
    assert [measured[name]["sessions"] for name in limits] == [300, 200, 600]
    assert measured["bare"]["times"] == 2.5
    assert all(value_of(measured, target) is not None for target in load.targets)
