"""Where a session's audio waits when more of it is made than may be released: a file, not memory.

A model may speak a minute in two seconds; the listener hears it in a minute. What lies further ahead than
``NEAR_MS`` goes to the session's spool file and comes back before its time. All file work of all sessions
is done by one thread; the loop never waits for the disk. The file is no recording: it is unlinked when it
is opened, emptied when its audio was played or cleared, and gone with the process.

A disk that fails costs memory (what cannot be written stays), or silence (what cannot be read), never the
call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from openline.core.audio import BYTES_PER_MS
from openline.ports import SpoolFile

log = logging.getLogger(__name__)

NEAR_MS = 600
"""Unreleased audio in memory, at most. DESIGN §4 allows a second: the rest of it is for what was released and
may have to be played again."""
NEAR_BYTES = NEAR_MS * BYTES_PER_MS["pcm"]
REFILL_BYTES = NEAR_BYTES // 2
"""Read ahead when less than this is near: a read takes a millisecond, a busy disk a hundred."""
RING_BYTES = 300_000 * BYTES_PER_MS["pcm"]
"""Size of the file, at most: five minutes of audio (DESIGN §4), 14.4 MB."""


@dataclass(slots=True)
class Sound:
    """A piece of the tape. ``pcm`` None: it is only on disk. ``place``: its position in the ring, -1 if it has none."""

    pcm: bytes | None
    size: int
    place: int = -1
    is_far: bool = False


@dataclass(slots=True)
class _Job:
    """What the thread does for one spool in one go, in this order: a place is read before it is used again."""

    spool: Spool
    reads: list[Sound]
    is_emptied: bool
    writes: list[tuple[Sound, bytes]]
    is_closed: bool
    read: list[bytes | None]
    error: OSError | None = None


class SpoolDesk:
    """The thread's queue, shared by all sessions. While it works, what comes in waits for the next round, so
    that many busy sessions cost few hops between threads.

    ``in_thread`` runs a function in the one thread and gives a future of it.
    """

    def __init__(
        self,
        open_file: Callable[[], SpoolFile],
        in_thread: Callable[[Callable[[], None]], asyncio.Future[None]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.open_file = open_file
        self._in_thread = in_thread
        self._loop = loop
        self._waiting: dict[Spool, None] = {}
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()

    def spool(self, ready: Callable[[], None]) -> Spool:
        return Spool(self, ready)

    def call(self, spool: Spool) -> None:
        """This spool has work; it is collected when the thread is free."""
        self._waiting[spool] = None
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._send)

    async def close(self) -> None:
        """Wait until the thread has done what it was given. The sessions are closed by then."""
        await self._idle.wait()

    def _send(self) -> None:
        jobs = [spool.take_job() for spool in self._waiting]
        self._waiting.clear()
        done = self._in_thread(partial(_run, jobs))
        done.add_done_callback(lambda future: self._came_back(jobs, future))

    def _came_back(self, jobs: list[_Job], done: asyncio.Future[None]) -> None:
        if done.cancelled() or done.exception() is not None:
            log.error("spool: the thread failed", exc_info=None if done.cancelled() else done.exception())
        for job in jobs:
            job.spool.job_done(job)
        if self._waiting:
            self._send()
        else:
            self._is_busy = False
            self._idle.set()


def _run(jobs: list[_Job]) -> None:
    for job in jobs:
        try:
            job.spool.work(job)
        except OSError as error:
            job.error = error


class Spool:
    """One session's. Loop side: ``added``, ``taken``, ``put_back``, ``forget``, ``close``; the thread calls
    ``work`` only. ``ready`` is called on the loop when audio that was on disk is in memory again."""

    def __init__(self, desk: SpoolDesk, ready: Callable[[], None]) -> None:
        self._desk = desk
        self._ready = ready
        self._near = 0
        self._far: list[Sound] = []
        self._head = 0
        self._unwritten: list[Sound] = []
        self._wanted: list[Sound] = []
        self._is_emptied = False
        self._is_closing = False
        self._is_broken = False
        self._file: SpoolFile | None = None  # the thread's alone

    @property
    def near_bytes(self) -> int:
        """Unreleased audio that is in memory or on its way there."""
        return self._near

    @property
    def far_bytes(self) -> int:
        return sum(sound.size for sound in self._far)

    def added(self, sound: Sound) -> bool:
        """The tape has grown. False: the ring is full, the sound must be dropped."""
        if not self._far and self._near + sound.size <= NEAR_BYTES:
            self._near += sound.size
            return True
        tail = self._far[0].place if self._far else self._head
        if self._head + sound.size - tail > RING_BYTES:
            return False
        sound.place, sound.is_far = self._head, True
        self._head += sound.size
        self._far.append(sound)
        self._unwritten.append(sound)
        self._desk.call(self)
        return True

    def taken(self, sound: Sound) -> None:
        """A sound has left the front of the tape: what follows comes nearer."""
        self._near -= sound.size
        if self._near <= REFILL_BYTES:
            self._refill()

    def put_back(self, sound: Sound) -> None:
        """A sound that was taken is at the front again."""
        self._near += sound.size

    def forget(self, is_gone: Callable[[Sound], bool], near: int) -> None:
        """Sounds have left the tape unplayed. ``near``: bytes of the rest that are not far."""
        self._far = [sound for sound in self._far if not is_gone(sound)]
        self._unwritten = [sound for sound in self._unwritten if not is_gone(sound)]
        self._wanted = [sound for sound in self._wanted if not is_gone(sound)]
        self._near = near
        if self._near <= REFILL_BYTES:
            self._refill()
        self._empty()

    def close(self) -> None:
        """Forget everything and give the file back. It opens again when it is needed again."""
        had_file = self._head > 0 or self._file is not None
        self._far.clear()
        self._unwritten.clear()
        self._wanted.clear()
        self._near = self._head = 0
        if had_file:
            self._is_closing = True
            self._desk.call(self)

    def _refill(self) -> None:
        came = False
        while self._far and self._near + self._far[0].size <= NEAR_BYTES:
            sound = self._far.pop(0)
            sound.is_far = False
            self._near += sound.size
            if sound.pcm is None:
                self._wanted.append(sound)
                came = True
        if came:
            self._desk.call(self)
        self._empty()

    def _empty(self) -> None:
        """Nothing is far: the file gives its space back."""
        if self._head and not self._far:
            self._head = 0
            self._is_emptied = True
            self._desk.call(self)

    # -- the desk's side

    def take_job(self) -> _Job:
        writes = [(sound, sound.pcm) for sound in self._unwritten if sound.is_far and sound.pcm is not None]
        if self._is_broken:
            writes = []
        job = _Job(self, self._wanted, self._is_emptied, writes, self._is_closing, [])
        self._wanted, self._unwritten = [], []
        self._is_emptied = self._is_closing = False
        return job

    def job_done(self, job: _Job) -> None:
        if job.error is not None and not self._is_broken:
            self._is_broken = True
            log.warning("spool: %s; audio waits in memory", job.error.strerror)
        if job.is_emptied or job.is_closed:
            self._is_broken = job.error is not None
        # A failed write leaves its audio where it is.
        for sound, _ in job.writes if job.error is None else ():
            if sound.is_far:
                sound.pcm = None
        for sound, pcm in zip(job.reads, job.read, strict=False):
            # What cannot be read is silence: the call goes on.
            sound.pcm = bytes(sound.size) if pcm is None else pcm
        for sound in job.reads[len(job.read) :]:
            sound.pcm = bytes(sound.size)
        if job.reads:
            self._ready()

    # -- the thread's side

    def work(self, job: _Job) -> None:
        for sound in job.reads:
            job.read.append(self._read(sound))
        if job.is_closed and self._file is not None:
            file, self._file = self._file, None
            file.close()
        elif job.is_emptied and self._file is not None:
            self._file.truncate()
        if job.writes and self._file is None:
            self._file = self._desk.open_file()
        for sound, pcm in job.writes:
            self._write(sound.place, pcm)

    def _write(self, place: int, pcm: bytes) -> None:
        assert self._file is not None
        start = place % RING_BYTES
        room = RING_BYTES - start
        self._file.write(start, pcm[:room])
        if len(pcm) > room:
            self._file.write(0, pcm[room:])

    def _read(self, sound: Sound) -> bytes | None:
        if self._file is None:
            return None
        start = sound.place % RING_BYTES
        room = RING_BYTES - start
        try:
            pcm = self._file.read(start, min(sound.size, room))
            if sound.size > room:
                pcm += self._file.read(0, sound.size - room)
        except OSError:
            return None
        return pcm if len(pcm) == sound.size else None
