"""An event loop whose clock only moves when nothing else can run: an hour of deadlines in milliseconds.

The loop has no selector and no sockets: what runs on it talks through callbacks, tasks and
``EmulatedLine``. When the ready queue is empty the clock jumps to the next timer; when there is no
timer either, nothing can ever happen again and ``Quiescent`` is raised instead of hanging.
A seed shuffles which *task* of the ready ones runs first. Plain callbacks keep their order: asyncio
promises that order, and code may rely on it.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

from openline.errors import OpenlineError
from openline.types import Now

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_WALL_MS = 1_800_000_000_000
"""Unix ms at virtual second 0 (January 2027): far from 0, so that a forgotten wall time is seen."""
THREAD_PATIENCE_S = 10.0
"""Real seconds to wait for a worker thread before the loop calls itself quiescent."""


class Quiescent(OpenlineError):
    """Nothing is ready, no timer is set and no thread is at work: the awaited thing cannot come."""

    code = "quiescent"


class _JumpingSelector:
    """Stands where asyncio expects a selector; waiting means moving the clock."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        self._loop.pass_time(timeout)
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """``time()`` is virtual seconds from 0. ``seed``: shuffle ready tasks; None: keep asyncio's order.

    ``run_in_executor`` works: the clock stands still while a thread runs. Sockets, pipes and
    subprocesses raise NotImplementedError. Errors that asyncio would only log (a callback that
    raised, a task nobody awaited) are kept in ``unhandled``.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__()
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self._selector = _JumpingSelector(self)
        self._random = None if seed is None else random.Random(seed)
        self._woken = threading.Event()
        self._threads = 0
        self.unhandled: list[BaseException] = []
        self.set_exception_handler(keep_error)

    def time(self) -> float:
        return self._now_s

    def pass_time(self, timeout: float | None) -> None:
        """Called by the loop with nothing ready (or 0: something is). Moves the clock by ``timeout`` seconds."""
        if timeout == 0:
            return
        if self._threads or timeout is None:
            self._wait_for_threads(is_only_hope=timeout is None)
            return
        self._now_s += timeout

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _future: object) -> None:
        self._threads -= 1

    def _wait_for_threads(self, *, is_only_hope: bool) -> None:
        # The default executor's shutdown runs in a thread that is not counted, so its existence is enough.
        has_threads = self._threads > 0 or getattr(self, "_default_executor", None) is not None
        woken = self._woken.wait(THREAD_PATIENCE_S if has_threads else 0)
        self._woken.clear()
        if not woken and is_only_hope:
            raise Quiescent(
                f"expected something to happen after virtual second {self._now_s:.3f}; "
                "got no ready callback, no timer and no thread",
                hint="An await in the test waits for something that nobody will do.",
            )

    def _process_events(self, _events: object) -> None:
        # asyncio calls this between the wait and the timers: the one moment at which the ready queue is whole.
        self._woken.clear()
        if self._random is not None:
            _shuffle_tasks(self._ready, self._random)  # type: ignore[attr-defined]  # not in typeshed

    def _write_to_self(self) -> None:
        self._woken.set()


def _shuffle_tasks(ready: Any, chooser: random.Random) -> None:
    """Shuffle the task steps of a ready queue among their own places."""
    places = [place for place, handle in enumerate(ready) if _is_task_step(handle)]
    handles = [ready[place] for place in places]
    chooser.shuffle(handles)
    for place, handle in zip(places, handles, strict=True):
        ready[place] = handle


def _is_task_step(handle: Any) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)


def keep_error(loop: Any, context: dict[str, Any]) -> None:
    """What asyncio would only log is kept in the loop's ``unhandled``."""
    error = context.get("exception")
    loop.unhandled.append(error if isinstance(error, BaseException) else RuntimeError(context["message"]))


def run_virtual(main: Coroutine[Any, Any, T], *, seed: int | None = None) -> T:
    """Run ``main`` to its end in virtual time; tasks that it left are cancelled.

    Raises what ``main`` raises; Quiescent if it can never end; else the first error that asyncio
    would only have logged.
    """
    loop = VirtualTimeLoop(seed=seed)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    if loop.unhandled:
        raise loop.unhandled[0]
    return result


class VirtualClock:
    """The ``Clock`` port over virtual seconds. The wall clock may be stepped; the monotonic one may not.

    ``seconds`` gives monotonic seconds and defaults to the running loop's ``time``.
    """

    def __init__(self, seconds: Callable[[], float] | None = None, *, wall_ms: int = EPOCH_WALL_MS) -> None:
        self._seconds = seconds or asyncio.get_running_loop().time
        self._wall_base_ms = wall_ms

    def now(self) -> Now:
        seconds = self._seconds()
        return Now(mono_ns=round(seconds * 1e9), wall_ms=self._wall_base_ms + round(seconds * 1000))

    def seconds(self) -> float:
        return self._seconds()

    def wall_ms(self) -> int:
        return self._wall_base_ms + round(self._seconds() * 1000)

    def step_wall(self, by_ms: int) -> None:
        """Somebody sets the machine's clock: forward, or back with a negative number of milliseconds."""
        self._wall_base_ms += by_ms
