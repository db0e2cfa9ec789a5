"""Recordings as files: one track file per speaker, append-only, readable after a kill at any moment.

Layout: ``<folder>/<session>/<track>.track``. PCM16 little-endian mono, 24,000 samples a second; positions
count samples from the start of the session's track. A track file is a 16-byte head and then records:

    audio   ``A``  start u64  bytes u32  crc32 u32  then the PCM
    seal    ``S``  start u64  samples u64  byte offset of its first record u64  sha256 of its PCM

Silence that was not written is not stored: reading fills gaps with zeros. Where records overlap the later
one counts. A *segment* is a gapless run of audio records with the seal after them; it is reported once it is
synced. What follows the last whole record is a torn tail: reading stops there, recording on cuts it off.

Writing happens on one thread for all recorders; only ``write`` and the callbacks run on the loop. ``write`` joins
frames where it is called: an object, a queue and a lock for each of 11,000 frames a second would cost more than all
the writing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shutil
import struct
import threading
import wave
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from openline.errors import IllegalTransition, LogCorrupt, SessionNotFound
from openline.ports import WIRE_RATE, Segment
from openline.types import SessionId

logger = logging.getLogger(__name__)

SEGMENT_MS = 10_000
"""Longest segment: what a power cut can take of a recording. Each costs a sync."""
QUEUE_BYTES_MAX = 4 << 20
"""Audio of one recorder that is not yet written: 87 s of one track. More is dropped, and counted."""
GAP_FILL_SAMPLES = WIRE_RATE // 10
"""Gaps up to 100 ms are stored as zeros: a jittery sender must not make a segment of every frame."""
WRITE_EVERY_S = 0.2
"""How long a recorder lets audio gather: at 300 sessions 3,000 writes a second instead of 30,000."""
THREAD_EVERY_S = 0.02
"""How long the thread lets recorders gather: it wakes 50 times a second and not for each of them."""
EXPORT_SAMPLES = WIRE_RATE * 10

_HEAD = b"OPENLINE-PCM-24\n"
_AUDIO = struct.Struct("<cQII")
_SEAL = struct.Struct("<cQQQ32s")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


# ------------------------------------------------------------------------------------------- recording


class FileRecorder:
    """The Recorder port on files below ``folder``. Made and used on one event loop.

    ``on_segment`` is called on the loop for each segment, after its audio and its seal are synced.
    ``on_dropped`` is called on the loop with the number of bytes that were not recorded (queue full, disk
    full, write error). A session that was recorded before goes on in the same files; what an earlier
    process left unsealed is sealed and reported first. A kill loses at most the last WRITE_EVERY_S and
    THREAD_EVERY_S of audio, a power cut at most what is not sealed; a gap in the audio never loses its place.
    """

    def __init__(
        self,
        folder: Path,
        session: SessionId,
        on_segment: Callable[[Segment], None],
        *,
        segment_ms: int = SEGMENT_MS,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        on_dropped: Callable[[int], None] | None = None,
        thread: RecordingThread | None = None,
        every_s: float = WRITE_EVERY_S,
    ) -> None:
        self._folder = _session_folder(folder, session)
        self._on_segment = on_segment
        self._on_dropped = on_dropped
        self._segment_samples = segment_ms * WIRE_RATE // 1000
        self._bytes_max = queue_bytes_max
        self._loop = asyncio.get_running_loop()
        self._thread = thread or shared_thread()
        self._every_s = every_s
        self._runs: list[_Run] = []
        self._going_on: dict[str, _Run] = {}
        """The newest of ``_runs`` of each track."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed: asyncio.Future[None] | None = None
        self._tracks: dict[str, _TrackWriter] = {}
        self._has_failed = False
        self.queued_bytes = 0
        """Accepted and not yet written."""
        self.dropped_bytes = 0
        """Not recorded, since this recorder was made."""

    def write(self, track: str, start: int, pcm: bytes) -> bool:
        """Queue PCM16 for sample ``start`` of ``track``; False if it was dropped. Never waits, never raises for a full
        disk."""
        size = len(pcm)
        run = self._going_on.get(track)
        if size % 2 or start < 0 or (run is None and not _NAME.fullmatch(track)):
            raise IllegalTransition(
                f"recording: expected whole samples at a position; got {size} bytes at {start} of {track!r}."
            )
        if not size:
            return True
        if self._closed is not None:
            return False
        if self._has_failed or self.queued_bytes + size > self._bytes_max:
            self._drop(size)
            return False
        self.queued_bytes += size
        if run is None or run.end != start:
            run = self._going_on[track] = _Run(track, start, start)
            self._runs.append(run)
            if self._timer is None:
                self._timer = self._loop.call_later(self._every_s, self._hand_over)
        run.pcm += pcm
        run.end += size // 2
        return True

    def _hand_over(self) -> None:
        """What has gathered belongs to the thread from here on: nothing is added to it any more."""
        self._timer = None
        runs, self._runs = self._runs, []
        self._going_on.clear()
        self._thread.put(_Batch(self, runs))

    async def flush(self) -> None:
        """Write what has gathered, now. Not synced. If cancelled, it still happens."""
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._hand_over()
        written: asyncio.Future[None] = self._loop.create_future()
        self._thread.put(_Flush(self, written))
        await written

    async def close(self) -> None:
        """Write, seal and sync everything, report the last segments. Idempotent; if cancelled, it still happens."""
        if self._closed is None:
            self._closed = self._loop.create_future()
            if self._timer is not None:
                self._timer.cancel()
                self._hand_over()
            self._thread.put(_Close(self))
        await asyncio.shield(self._closed)

    def _drop(self, count: int) -> None:
        self.dropped_bytes += count
        if self._on_dropped is not None:
            self._on_dropped(count)

    # ---- on the recording thread

    def write_now(self, runs: list[_Run]) -> None:
        """Write one batch of this recorder, in order, and report to the loop once."""
        done: list[Segment] = []
        size = sum(len(run.pcm) for run in runs)
        if not self._has_failed:
            try:
                for run in runs:
                    self._track(run.track, done).write(run.start, run.pcm, done)
                for track in self._tracks.values():
                    track.flush()
            except Exception as error:  # one recording's failure must not end the thread of all of them
                self._give_up(error)
        # Of a batch that failed some may be there; it counts as lost rather than as recorded.
        self._report(size, size if self._has_failed else 0, done)

    def flushed_now(self, written: asyncio.Future[None]) -> None:
        """All that was handed over before is written, or given up."""
        self._tell(lambda: None if written.done() else written.set_result(None))

    def close_now(self) -> None:
        done: list[Segment] = []
        for track in self._tracks.values():
            try:
                # After a failure there may be a torn record at the end: a seal behind it could not be
                # read. What is there unsealed is sealed when the session is recorded again.
                if not self._has_failed:
                    track.seal(done)
                track.close()
            except Exception as error:  # as above
                self._give_up(error)
        self._report(0, 0, done)
        self._tell(self._is_closed)

    def _track(self, name: str, done: list[Segment]) -> _TrackWriter:
        track = self._tracks.get(name)
        if track is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            track = _TrackWriter(self._folder / f"{name}.track", name, self._segment_samples)
            self._tracks[name] = track
            track.open(done)
        return track

    def _give_up(self, error: Exception) -> None:
        """Recording is the first thing to go when a disk fails; the conversation goes on."""
        logger.error("recording in %s stops: %s", self._folder, error)
        self._has_failed = True

    def _report(self, written: int, lost: int, segments: list[Segment]) -> None:
        if written or segments:
            self._tell(lambda: self._settle(written, lost, segments))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    # ---- back on the loop

    def _settle(self, written: int, lost: int, segments: list[Segment]) -> None:
        self.queued_bytes -= written
        for segment in segments:
            self._on_segment(segment)
        if lost:
            self._drop(lost)

    def _is_closed(self) -> None:
        assert self._closed is not None
        if not self._closed.done():
            self._closed.set_result(None)


@dataclass(slots=True)
class _Run:
    """Samples ``start`` to ``end`` of a track without a gap."""

    track: str
    start: int
    end: int
    pcm: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Batch:
    recorder: FileRecorder
    runs: list[_Run]


@dataclass(frozen=True, slots=True)
class _Flush:
    recorder: FileRecorder
    written: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Close:
    recorder: FileRecorder


_Entry = _Batch | _Flush | _Close


class RecordingThread:
    """One daemon thread that writes for all recorders given to it, THREAD_EVERY_S after the first has something."""

    def __init__(self, *, every_s: float = THREAD_EVERY_S) -> None:
        self._every_s = every_s
        self._queue: deque[_Entry] = deque()
        self._event = threading.Event()
        self._urgent = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, entry: _Entry) -> None:
        """Called on the loop; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, name="openline-recording", daemon=True)
            self._thread.start()
        self._queue.append(entry)
        if not isinstance(entry, _Batch):
            self._urgent.set()
        if not self._event.is_set():
            self._event.set()

    def _main(self) -> None:
        while True:
            self._event.wait()
            self._urgent.wait(self._every_s)
            # Cleared before the queue is emptied: what comes in between sets them again.
            self._event.clear()
            self._urgent.clear()
            self._work()

    def _work(self) -> None:
        for _ in range(len(self._queue)):
            entry = self._queue.popleft()
            if isinstance(entry, _Batch):
                entry.recorder.write_now(entry.runs)
            elif isinstance(entry, _Flush):
                entry.recorder.flushed_now(entry.written)
            else:
                entry.recorder.close_now()


_shared: list[RecordingThread] = []


def shared_thread() -> RecordingThread:
    """The recording thread of this process."""
    if not _shared:
        _shared.append(RecordingThread())
    return _shared[0]


@dataclass(slots=True)
class _TrackWriter:
    """One track file while it is being written. Used by the recording thread only; raises OSError."""

    path: Path
    name: str
    segment_samples: int
    file: BinaryIO | None = None
    start: int = 0
    """First sample of the open segment, ``samples`` its length (0: none is open), ``offset`` its place."""
    samples: int = 0
    offset: int = 0
    end: int = 0
    """Bytes in the file, with what is buffered."""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    buffer: bytearray = field(default_factory=bytearray)
    buffer_start: int = 0

    def open(self, done: list[Segment]) -> None:
        """Create the file, or go on after the last whole record of an earlier process."""
        if not self.path.exists() or self.path.stat().st_size < len(_HEAD):
            self.file = self.path.open("wb", buffering=0)
            self.file.write(_HEAD)
            self.end = len(_HEAD)
            # Or a power cut could take the name of a synced file.
            _sync_folder(self.path.parent)
            return
        index = TrackIndex.load(self.path)
        self.file = self.path.open("r+b", buffering=0)
        self.file.truncate(index.end)
        self.file.seek(index.end)
        self.end = index.end
        self._recover(index, done)

    def _recover(self, index: TrackIndex, done: list[Segment]) -> None:
        """Seal what an earlier process wrote and did not seal."""
        with self.path.open("rb") as file:
            for piece in index.unsealed:
                if self.samples and piece.start != self.start + self.samples:
                    self.seal(done)
                self._begin(piece.start, piece.offset - _AUDIO.size)
                pcm = _pread(file, piece.offset, piece.samples * 2)
                self.digest.update(pcm)
                self.samples += piece.samples
        self.seal(done)

    def write(self, start: int, pcm: bytes | bytearray, done: list[Segment]) -> None:
        expected = self.start + self.samples
        if self.samples:
            gap = start - expected
            if 0 < gap <= GAP_FILL_SAMPLES:
                pcm = bytes(2 * gap) + pcm
                start = expected
            elif gap:
                self.seal(done)
        while pcm:
            if not self.samples:
                self._begin(start, self.end)
            if not self.buffer:
                self.buffer_start = start
            room = 2 * (self.segment_samples - self.samples)
            piece, pcm = pcm[:room], pcm[room:]
            self.buffer += piece
            self.samples += len(piece) // 2
            start += len(piece) // 2
            if self.samples == self.segment_samples:
                self.seal(done)

    def flush(self) -> None:
        """Write the buffer as one audio record."""
        if not self.buffer:
            return
        pcm = bytes(self.buffer)
        self.buffer.clear()
        self._put(_AUDIO.pack(b"A", self.buffer_start, len(pcm), zlib.crc32(pcm)) + pcm)
        self.digest.update(pcm)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _begin(self, start: int, offset: int) -> None:
        if not self.samples:
            self.start, self.offset = start, offset
            self.digest = hashlib.sha256()

    def seal(self, done: list[Segment]) -> None:
        """Finish the open segment and sync it."""
        self.flush()
        if not self.samples:
            return
        assert self.file is not None
        digest = self.digest
        self._put(_SEAL.pack(b"S", self.start, self.samples, self.offset, digest.digest()))
        os.fdatasync(self.file.fileno())
        done.append(
            Segment(
                self.name,
                self.start,
                self.samples,
                f"{self.path.parent.name}/{self.path.name}",
                digest.hexdigest(),
            )
        )
        self.start += self.samples
        self.samples = 0

    def _put(self, data: bytes) -> None:
        """Append all of it. A short write (disk full) leaves a torn record, which the next open cuts off."""
        assert self.file is not None
        view = memoryview(data)
        while view:
            view = view[self.file.write(view) :]
        self.end += len(data)


# --------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Piece:
    """One audio record: ``samples`` from sample ``start``, their bytes at ``offset`` of the file."""

    start: int
    samples: int
    offset: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """One sealed segment as the file itself describes it; ``offset`` is that of its first record."""

    start: int
    samples: int
    offset: int
    sha256: str


@dataclass(slots=True)
class TrackIndex:
    """What a track file holds, found by walking its records. May be loaded while it is being written."""

    pieces: list[Piece] = field(default_factory=list)
    segments: list[Sealed] = field(default_factory=list)
    unsealed: list[Piece] = field(default_factory=list)
    """Pieces after the last seal: whole by their checksum, not yet synced for certain."""
    end: int = len(_HEAD)
    """Bytes up to the end of the last whole record; what follows is a torn tail."""

    @property
    def samples(self) -> int:
        """Length of the track with its silence: one past the last sample."""
        return max((piece.start + piece.samples for piece in self.pieces), default=0)

    @classmethod
    def load(cls, path: Path) -> TrackIndex:
        """Raises LogCorrupt when the file is no track. Blocking: reads all of the file once."""
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
            if head != _HEAD and not _HEAD.startswith(head):
                raise LogCorrupt(f"{path} is not a recording track of Openline.")
            index = cls()
            while index._take(file):
                pass
            return index

    def _take(self, file: BinaryIO) -> bool:
        """Read one record; False at the end or at the first that is not whole."""
        head = file.read(_AUDIO.size)
        if len(head) < _AUDIO.size:
            return False
        if head[:1] == b"A":
            _kind, start, size, checksum = _AUDIO.unpack(head)
            pcm = file.read(size)
            if len(pcm) < size or zlib.crc32(pcm) != checksum:
                return False
            piece = Piece(start, size // 2, self.end + _AUDIO.size)
            self.pieces.append(piece)
            self.unsealed.append(piece)
            self.end += _AUDIO.size + size
            return True
        seal = head + file.read(_SEAL.size - _AUDIO.size)
        if head[:1] != b"S" or len(seal) < _SEAL.size:
            return False
        _kind, start, samples, offset, digest = _SEAL.unpack(seal)
        self.segments.append(Sealed(start, samples, offset, digest.hex()))
        self.unsealed.clear()
        self.end += _SEAL.size
        return True


def tracks(folder: Path, session: SessionId) -> list[str]:
    """The names of a session's tracks; empty when nothing was recorded."""
    return sorted(path.stem for path in _session_folder(folder, session).glob("*.track"))


def track_samples(folder: Path, session: SessionId, track: str) -> int:
    """Length of a track in samples, silence included; 0 for one that was never written."""
    path = _track_path(folder, session, track)
    return TrackIndex.load(path).samples if path.exists() else 0


def read_track(folder: Path, session: SessionId, track: str, start: int = 0, end: int | None = None) -> bytes:
    """PCM16 of samples ``start`` to ``end`` (exclusive; None = the end of the track), silence filled in.

    Exactly ``2 * (end - start)`` bytes, also beyond what was recorded; a track that was never written is
    silent. Works beside a running recorder and after a kill. Blocking. Raises LogCorrupt.
    """
    path = _track_path(folder, session, track)
    if not path.exists():
        return b"\0" * (2 * max(0, (end or 0) - start))
    index = TrackIndex.load(path)
    with path.open("rb") as file:
        return _read(index, file, start, index.samples if end is None else end)


def verify_track(folder: Path, session: SessionId, track: str) -> list[Sealed]:
    """All sealed segments of a track, each compared with its hash. Raises LogCorrupt for the first that differs."""
    path = _track_path(folder, session, track)
    index = TrackIndex.load(path)
    with path.open("rb") as file:
        for segment in index.segments:
            digest, samples = hashlib.sha256(), 0
            for piece in index.pieces:
                if piece.offset > segment.offset and samples < segment.samples:
                    digest.update(_pread(file, piece.offset, piece.samples * 2))
                    samples += piece.samples
            if digest.hexdigest() != segment.sha256:
                raise LogCorrupt(f"{path}: the segment at sample {segment.start} differs from its hash.")
    return index.segments


def export_wav(
    folder: Path, session: SessionId, path: Path, *, left: str = "caller", right: str = "agent"
) -> int:
    """Write a stereo WAV (24 kHz, 16 bit; ``left`` and ``right`` name tracks); its length in samples.

    Both channels are as long as the longer track. Blocking; needs memory for 10 s only. Raises
    SessionNotFound when nothing of the session was recorded.
    """
    if not tracks(folder, session):
        raise SessionNotFound(f"expected a recorded session; {session} has no recording.")
    length = max(track_samples(folder, session, left), track_samples(folder, session, right))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(WIRE_RATE)
        for both in _interleaved(folder, session, left, right, length):
            file.writeframesraw(both)
    return length


def _interleaved(folder: Path, session: SessionId, left: str, right: str, length: int) -> Iterator[bytes]:
    readers = [_Reader(_track_path(folder, session, name)) for name in (left, right)]
    try:
        for start in range(0, length, EXPORT_SAMPLES):
            end = min(length, start + EXPORT_SAMPLES)
            both = array("h", bytes(4 * (end - start)))
            for channel, reader in enumerate(readers):
                both[channel::2] = array("h", reader.read(start, end))
            yield both.tobytes()
    finally:
        for reader in readers:
            reader.close()


class _Reader:
    """A track opened once for many reads; silent when its file is not there."""

    def __init__(self, path: Path) -> None:
        self._index = TrackIndex.load(path) if path.exists() else None
        self._file = path.open("rb") if self._index is not None else None

    def read(self, start: int, end: int) -> bytes:
        if self._index is None or self._file is None:
            return bytes(2 * (end - start))
        return _read(self._index, self._file, start, end)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _read(index: TrackIndex, file: BinaryIO, start: int, end: int) -> bytes:
    out = bytearray(2 * max(0, end - start))
    # In file order, so that of two records for the same samples the later one is what is heard.
    for piece in index.pieces:
        first, last = max(start, piece.start), min(end, piece.start + piece.samples)
        if first < last:
            pcm = _pread(file, piece.offset + 2 * (first - piece.start), 2 * (last - first))
            out[2 * (first - start) : 2 * (last - start)] = pcm
    return bytes(out)


def _pread(file: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset)


# -------------------------------------------------------------------------------------------- retention


def prune(
    folder: Path, *, older_than_ms: int = 0, max_bytes: int | None = None, keep: Collection[SessionId] = ()
) -> list[SessionId]:
    """Remove whole recordings: those last written before ``older_than_ms`` (Unix ms), then the oldest ones
    until all together have at most ``max_bytes``. Sessions in ``keep`` (live ones) stay. Blocking.

    Returns what was removed, oldest first. A crash in the middle leaves a part of one recording, which
    the next call removes.
    """
    found = sorted(_recordings(folder))
    total = sum(size for _at_ms, _name, size in found)
    removed: list[SessionId] = []
    for at_ms, name, size in found:
        is_old = at_ms < older_than_ms
        is_too_much = max_bytes is not None and total > max_bytes
        if name in keep or not (is_old or is_too_much):
            continue
        shutil.rmtree(folder / name, ignore_errors=True)
        total -= size
        removed.append(SessionId(name))
    return removed


def remove(folder: Path, session: SessionId) -> None:
    """Remove a session's recording, if there is one. Blocking."""
    shutil.rmtree(_session_folder(folder, session), ignore_errors=True)


def _recordings(folder: Path) -> Iterator[tuple[int, str, int]]:
    """Last write (Unix ms), session and size of each recording."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        stats = [path.stat() for path in entry.glob("*.track")] if entry.is_dir() else []
        if stats:
            yield max(s.st_mtime_ns for s in stats) // 1_000_000, entry.name, sum(s.st_size for s in stats)


def _session_folder(folder: Path, session: SessionId) -> Path:
    if not _NAME.fullmatch(session):
        raise SessionNotFound(f"expected a session id ([A-Za-z0-9_-], at most 64); got {session[:80]!r}.")
    return folder / session


def _track_path(folder: Path, session: SessionId, track: str) -> Path:
    if not _NAME.fullmatch(track):
        raise SessionNotFound(f"expected a track name ([A-Za-z0-9_-], at most 64); got {track[:80]!r}.")
    return _session_folder(folder, session) / f"{track}.track"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
