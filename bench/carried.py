"""One run of the generator against one candidate, and whether the candidate carried it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.gateway import Gateway, command
from bench.generator import Result, run_load
from bench.load_file import Load, Value

P99_LIMIT_MS = 10.0
RATE_TOLERANCE = 0.98
"""A run that moved fewer frames than this share of what was offered has not carried its load."""
CHUNK_TOLERANCE = 0.95
"""The same for the server's chunks; some are on their way at both ends of the window."""
NOISY_CORE = 0.25
"""Other work on the machine, in cores, above which a failed run is repeated once (performance.md §0)."""


def one_run(
    load: Load,
    sessions: int,
    *,
    is_quick: bool,
    make_command: Callable[..., list[str]] = command,
    environment: Mapping[str, str] = {},
    extra: Mapping[str, Value] = {},
) -> Result:
    """Start the candidate, put the load on it, end it. Repeated once if others made it fail."""
    for attempt in range(2):
        with Gateway(load, make_command, environment=environment) as gateway:
            run = run_load(
                load,
                gateway,
                sessions=sessions,
                warmup_s=load.number("quick_warmup_s", 2) if is_quick else load.number("warmup_s", 6),
                seconds_s=5 if is_quick else load.number("seconds_s", 20),
                extra=extra,
            )
        run["faults"] = faults(load, run)
        if not run["faults"] or run["other_core"] < NOISY_CORE or attempt:
            return run
        time.sleep(2)
    raise AssertionError("the second attempt returns")


@dataclass
class Search:
    """A candidate's limit, found in rounds, each from where the last one ended: what the machine does besides, which
    changes within minutes, is then in some rounds and not in some steps. ``steps``: session counts, ascending; ``at``:
    the index of the one to begin with."""

    steps: tuple[int, ...]
    at: int
    limits: list[int] = field(default_factory=list)

    @classmethod
    def from_start(cls, steps: tuple[int, ...], start: int) -> Search:
        """``start``: begin with the largest step that is no more than that."""
        return cls(steps, max((i for i, step in enumerate(steps) if step <= start), default=0))

    def once(self, run: Callable[[int], Result]) -> None:
        """Up while it is carried, else down until it is. ``run`` puts so many sessions on the candidate."""
        at, best = self.at, -1
        while 0 <= at < len(self.steps):
            if not run(self.steps[at])["faults"]:
                best = at
                at += 1
            elif best >= 0:
                break
            else:
                at -= 1
            if best >= 0 and self.at > best:
                break  # It came down to here: the step above has failed already.
        self.limits.append(self.steps[best] if best >= 0 else 0)
        self.at = max(best, 0)


def faults(load: Load, run: Result) -> list[str]:
    """Why a run does not count as carried; empty if it does."""
    found = [name for name in ("stalls", "errors", "lost", "dropped_up") if run[name]]
    if run["void"]:
        found.append("void")
    for lane in load.text("judged", "audio,text,up").split(","):
        measured = run[lane]
        if measured is not None and measured["p99_ms"] is not None and measured["p99_ms"] >= P99_LIMIT_MS:
            found.append(f"{lane} p99 {measured['p99_ms']:.1f} ms")
    if (
        "load" in str(load.gateway.get("model", ""))
        and load.client.get("mode") != "items"
        and run["up"] is None
    ):
        found.append("no figures of the way up")
    if load.client.get("mode", "vad") != "items":
        offered = run["sessions"] * 1000 / int(load.client.get("frame_ms", 20))
        if run["per_s"]["frames_up"] < RATE_TOLERANCE * offered:
            found.append("fewer frames up than offered")
        if run["up"] is not None and run["up"]["per_s"] < RATE_TOLERANCE * offered:
            found.append("fewer frames through than offered")
    made = run.get("upstream_media_per_s", 0.0)
    if run["per_s"]["media_down"] < CHUNK_TOLERANCE * made:
        found.append("fewer chunks down than made")
    return found


def p99(run: Result, lane: str) -> str:
    """For the screen."""
    measured = run[lane]
    return "-" if measured is None or measured["p99_ms"] is None else f"{measured['p99_ms']:.1f}"


def line(run: Result) -> str:
    down = run["per_s"]["media_down"] + run["per_s"]["partial_down"]
    return (
        f"{run['sessions']} sessions: core {run['gateway']['core']:.2f}, p99 up {p99(run, 'up')} audio {p99(run, 'audio')} "
        f"text {p99(run, 'text')} held {p99(run, 'held')} ms, down {down / run['sessions']:.0f}/s, "
        f"{run['gateway']['kb_per_session']:.0f} kB a session, generator {run['generator_busy']:.2f}, "
        f"other {run['other_core']:.2f}" + (f"; {', '.join(run['faults'])}" if run["faults"] else "")
    )
