"""``openline replay``: run the stored steps again, from the data directory alone, and compare."""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openline import bootstrap
from openline.cli.terminal import Terminal
from openline.core.session import Session, StoredStep
from openline.core.state import State
from openline.errors import ConfigError, IllegalTransition, LogCorrupt, ReplayMismatch
from openline.settings import Settings
from openline.types import SessionId
from openline.wire.envelope import effect_digest

SESSIONS_MAX = 1_000_000
SESSIONS_A_PROCESS = 8
"""Fewer are not worth the third of a second in which a process starts."""
_reader: bootstrap.LogReader
"""Of a process that replays for another one."""


@dataclass(frozen=True, slots=True)
class Result:
    """One session. ``problem`` is empty when everything was the same."""

    session: str
    steps: int
    facts: int
    elapsed_s: float
    problem: str = ""
    at_seq: int = 0

    @property
    def steps_per_s(self) -> int:
        return round(self.steps / self.elapsed_s) if self.elapsed_s else 0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "replay",
        help="run a session's log again and compare",
        description="Rebuild a session from the log. --verify runs every stored input again and compares facts "
        "and effects with what was recorded: exit code 1, and the step's name, where they differ. Reads the "
        "data directory itself, also beside a running gateway, and writes nothing.",
        epilog="example: openline replay --all --verify --data openline-data",
    )
    parser.add_argument("session", nargs="?", help="a session's id")
    parser.add_argument("--all", action="store_true", help="every session of the directory")
    parser.add_argument("--verify", action="store_true", help="compare facts and effects")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="with --all: processes beside each other (default: one a core)"
    )
    parser.add_argument("--at", type=int, metavar="SEQ", help="show the state after this fact")
    parser.add_argument(
        "--data",
        type=Path,
        default=Settings().data,
        metavar="DIR",
        help="data directory (default: openline-data)",
    )
    parser.add_argument("--json", action="store_true", help="NDJSON for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if bool(options.session) == options.all:
        raise ConfigError("replay: expected one session's id, or --all.", hint="See 'openline sessions'.")
    if options.at is not None and (options.all or options.at < 1):
        raise ConfigError("--at: expected a seq from 1 of one session.")
    if options.jobs is not None and (options.jobs < 1 or not options.all):
        raise ConfigError("--jobs: expected a number from 1, together with --all.")
    reader, term = bootstrap.read_data(options.data), Terminal.of()
    if options.at is not None:
        return _show_state(reader, options, term)
    if options.all:
        names = [row.session for row in reader.sessions(limit=SESSIONS_MAX)]
    else:
        names = [reader.session(SessionId(options.session)).session]
    results = []
    began = time.perf_counter()
    for result in _results(reader, names, options):
        results.append(result)
        _print(result, term, as_json=options.json, verify=options.verify)
    if options.all and not options.json:
        _print_sum(results, time.perf_counter() - began, term)
    return 1 if any(result.problem for result in results) else 0


def _results(
    reader: bootstrap.LogReader, names: Sequence[SessionId], options: argparse.Namespace
) -> Iterator[Result]:
    """In the order of ``names``, each as soon as it and those before it are done."""
    jobs = options.jobs or min(_cores(), len(names) // SESSIONS_A_PROCESS)
    if jobs < 2:
        for name in names:
            yield _replay_stored(reader, name, options.verify)
        return
    # Not a fork of this process: it has SQLite open, which must not be carried over.
    fresh = multiprocessing.get_context("spawn")
    with fresh.Pool(jobs, _begin, (options.data,)) as pool:
        yield from pool.imap(_replay_named, [(name, options.verify) for name in names])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(data: Path) -> None:
    global _reader
    _reader = bootstrap.read_data(data)


def _replay_named(asked: tuple[SessionId, bool]) -> Result:
    return _replay_stored(_reader, *asked)


def _replay_stored(reader: bootstrap.LogReader, name: SessionId, verify: bool) -> Result:
    return replay(name, list(_steps(bootstrap.stored_steps(reader, name))), verify=verify)


def _steps(steps: Iterator[StoredStep]) -> Iterator[StoredStep | LogCorrupt]:
    """A record that does not decode is a result, not the end of the command."""
    try:
        yield from steps
    except LogCorrupt as error:
        yield error


def replay(name: str, steps: list[StoredStep | LogCorrupt], *, verify: bool) -> Result:
    """Read first, then run: the figure is that of the session machine with its decoding done."""
    good = [step for step in steps if not isinstance(step, LogCorrupt)]
    facts = sum(len(step.facts) for step in good)
    problem, at_seq = "", 0
    gc.disable()  # Nothing that this makes is garbage before its end, and looking for it takes a tenth.
    started = time.perf_counter()
    try:
        if len(good) < len(steps):
            raise ReplayMismatch(str(steps[-1]), seq=facts + 1)
        if verify:
            Session.replay(good, effect_digest)
        else:
            Session.rebuild(good)
    except ReplayMismatch as error:
        problem, at_seq = error.message, error.seq
    except (IllegalTransition, AssertionError, LookupError) as error:
        problem = f"the session machine refused a stored step ({type(error).__name__}: {error})."
    finally:
        gc.enable()
    return Result(name, len(good), facts, time.perf_counter() - started, problem, at_seq)


def _print(result: Result, term: Terminal, *, as_json: bool, verify: bool) -> None:
    if as_json:
        row = {
            "session": result.session,
            "ok": not result.problem,
            "verified": verify,
            "steps": result.steps,
            "facts": result.facts,
            "steps_per_s": result.steps_per_s,
        }
        print(json.dumps(row | ({"problem": result.problem, "seq": result.at_seq} if result.problem else {})))
    elif result.problem:
        term.line(f"{term.paint('DIFFERS', 'red', 'bold')}  {result.session}")
        for line in term.wrapped(result.problem, indent=9):
            term.line(line)
    else:
        word = term.paint("same" if verify else "rebuilt", "green")
        rate = f"{result.steps_per_s:,} steps/s"
        term.line(f"{word}  {result.session}  {result.steps} steps, {result.facts} facts, {rate}")


def _print_sum(results: list[Result], elapsed: float, term: Terminal) -> None:
    """With ``elapsed`` seconds for all of it, reading and processes included."""
    steps = sum(result.steps for result in results)
    wrong = sum(1 for r in results if r.problem)
    rate = f"{round(steps / elapsed):,} steps/s" if elapsed else "nothing to do"
    tail = f", {wrong} differ" if wrong else ""
    term.line(f"{len(results)} sessions, {steps:,} steps, {rate}{tail}")


def _show_state(reader: bootstrap.LogReader, options: argparse.Namespace, term: Terminal) -> int:
    kept: list[bootstrap.StoredStep] = []
    seq = 0
    for step in bootstrap.stored_steps(reader, SessionId(options.session)):
        kept.append(step)
        seq += len(step.facts)
        if seq >= options.at:
            break
    if seq < options.at:
        raise ConfigError(f"--at: expected a seq up to {seq}, which is the last; got {options.at}.")
    state = Session.rebuild(kept, bootstrap.stored_inheritance(reader, kept)).state
    shown = describe(state)
    if options.json:
        print(json.dumps(shown))
        return 0
    if seq > options.at:
        term.line(term.paint(f"(steps are whole: the state is that after fact {seq})", "dim"))
    for name, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for line in term.wrapped(text, indent=18, first=term.paint(name, "dim")):
            term.line(line)
    return 0


def describe(state: State) -> dict[str, object]:
    """A session's state for people, the conversation as heard included."""
    active = state.active
    return {
        "session": state.session,
        "seq": state.seq,
        "status": state.status,
        "epoch": state.epoch,
        "node": state.node,
        "connections": {c.conn: c.role for c in state.connections.values()},
        "link": f"{state.link.phase} (epoch {state.link.epoch})",
        "open_turn": f"{state.turn.turn_id} {state.turn.phase}" if state.turn else "none",
        "active_response": f"{active.response_id} {active.phase}" if active else "none",
        "held_responses": len(state.held),
        "tools": {c.call_id: f"{c.name} {c.phase}, attempt {c.attempt}" for c in state.tools.values()},
        "turns": state.turns,
        "forked_from": f"{state.origin[0]} after fact {state.origin[1]}" if state.origin else "none",
        "conversation": [f"{item.author}: {item.text or item.name}" for item in state.conversation()],
    }
