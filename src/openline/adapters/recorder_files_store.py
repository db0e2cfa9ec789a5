"""All recordings of one data directory: makes recorders, reads back, prunes. Blocking work is in threads."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from openline.adapters import recorder_files as files
from openline.ports import Recorder, Segment
from openline.types import SessionId


class RecordingStore:
    """The runtime's ``Recordings``. ``dropped_bytes``: audio not recorded since the start, all sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dropped_bytes = 0

    def recorder(self, session: SessionId, on_segment: Callable[[Segment], None]) -> Recorder:
        return files.FileRecorder(self.folder, session, on_segment, on_dropped=self._dropped)

    def _dropped(self, count: int) -> None:
        self.dropped_bytes += count

    async def read(self, session: SessionId, track: str, start: int, end: int) -> bytes:
        """PCM16 24 kHz of samples [start, end), silence filled in; b"" when the session has no such track."""
        if track not in await asyncio.to_thread(files.tracks, self.folder, session):
            return b""
        return await asyncio.to_thread(files.read_track, self.folder, session, track, start, end)

    async def length(self, session: SessionId, track: str) -> int:
        return await asyncio.to_thread(files.track_samples, self.folder, session, track)

    async def wav(self, session: SessionId) -> Path | None:
        """The recording as a stereo WAV in a temporary file, which the caller removes; None if there is none."""
        return await asyncio.to_thread(self._wav, session)

    def _wav(self, session: SessionId) -> Path | None:
        if not files.tracks(self.folder, session):
            return None
        with tempfile.NamedTemporaryFile(suffix=".wav", delete=False) as file:
            path = Path(file.name)
        files.export_wav(self.folder, session, path)
        return path

    async def forget(self, session: SessionId) -> None:
        await asyncio.to_thread(files.remove, self.folder, session)

    async def prune(self, older_than_ms: int, max_bytes: int, keep: Collection[SessionId]) -> list[SessionId]:
        return await asyncio.to_thread(
            files.prune, self.folder, older_than_ms=older_than_ms, max_bytes=max_bytes, keep=keep
        )
