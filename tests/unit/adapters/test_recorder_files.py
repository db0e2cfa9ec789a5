"""Recordings: lossless, silence in its place, readable after a kill anywhere, bounded, prunable."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from openline.adapters import recorder_files
from openline.adapters.recorder_files import FileRecorder, RecordingThread, read_track, verify_track
from openline.errors import IllegalTransition, LogCorrupt, SessionNotFound
from openline.ports import Segment
from openline.types import SessionId

SESSION = SessionId("sess_recorded")
FRAME = 480
QUICK = RecordingThread(every_s=0.001)


def noise(samples: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(2 * samples)


def silence(samples: int) -> bytes:
    return bytes(2 * samples)


def record(folder: Path, work: Callable[[FileRecorder], None], *, segment_ms: int = 10_000) -> list[Segment]:
    """Run ``work`` with a recorder, close it, and give the segments that it reported."""
    segments: list[Segment] = []

    async def story() -> None:
        recorder = FileRecorder(
            folder, SESSION, segments.append, thread=QUICK, segment_ms=segment_ms, every_s=0.0
        )
        work(recorder)
        await recorder.close()
        assert recorder.queued_bytes == 0

    asyncio.run(story())
    return segments


def test_what_was_written_is_read(tmp_path: Path) -> None:
    pcm = noise(FRAME * 50)

    def frames(recorder: FileRecorder) -> None:
        for at in range(0, FRAME * 50, FRAME):
            recorder.write("caller", at, pcm[2 * at : 2 * (at + FRAME)])

    (segment,) = record(tmp_path, frames)
    assert (segment.track, segment.start, segment.samples) == ("caller", 0, FRAME * 50)
    assert segment.sha256 == hashlib.sha256(pcm).hexdigest()
    assert (tmp_path / segment.file).is_file()
    assert read_track(tmp_path, SESSION, "caller") == pcm
    assert read_track(tmp_path, SESSION, "caller", 100, 1000) == pcm[200:2000]
    assert [found.sha256 for found in verify_track(tmp_path, SESSION, "caller")] == [segment.sha256]


def test_silence_costs_nothing_and_keeps_its_place(tmp_path: Path) -> None:
    hour = 24_000 * 3600
    first, second = noise(FRAME, 1), noise(FRAME, 2)

    def talk(recorder: FileRecorder) -> None:
        recorder.write("agent", 24_000, first)
        recorder.write("agent", hour, second)

    segments = record(tmp_path, talk)
    assert [(segment.start, segment.samples) for segment in segments] == [(24_000, FRAME), (hour, FRAME)]
    assert (tmp_path / segments[0].file).stat().st_size < 3000
    assert recorder_files.track_samples(tmp_path, SESSION, "agent") == hour + FRAME
    around = read_track(tmp_path, SESSION, "agent", 24_000 - 10, 24_000 + FRAME + 10)
    assert around == silence(10) + first + silence(10)
    assert read_track(tmp_path, SESSION, "agent", hour - 1) == silence(1) + second


def test_a_jittery_sender_does_not_make_a_segment_of_every_frame(tmp_path: Path) -> None:
    def jitter(recorder: FileRecorder) -> None:
        for number in range(20):
            recorder.write("caller", number * (FRAME + 7), noise(FRAME, number))

    (segment,) = record(tmp_path, jitter)
    assert segment.samples == 19 * (FRAME + 7) + FRAME
    assert read_track(tmp_path, SESSION, "caller", FRAME, FRAME + 8) == silence(7) + noise(FRAME, 1)[:2]


def test_the_later_of_two_overlapping_writes_is_heard(tmp_path: Path) -> None:
    """A reply that was cut had been recorded further than it was played; the next one covers that."""

    def cut(recorder: FileRecorder) -> None:
        recorder.write("agent", 0, noise(1000, 1))
        recorder.write("agent", 600, noise(1000, 2))

    assert len(record(tmp_path, cut)) == 2
    assert read_track(tmp_path, SESSION, "agent") == noise(1000, 1)[:1200] + noise(1000, 2)
    assert len(verify_track(tmp_path, SESSION, "agent")) == 2


def test_long_speech_is_cut_into_segments(tmp_path: Path) -> None:
    def speak(recorder: FileRecorder) -> None:
        for number in range(10):
            recorder.write("caller", number * 2400, noise(2400, number))

    segments = record(tmp_path, speak, segment_ms=300)
    assert [segment.start for segment in segments] == [0, 7200, 14_400, 21_600]
    assert sum(segment.samples for segment in segments) == 24_000


def test_a_kill_at_any_byte_leaves_a_readable_prefix(tmp_path: Path) -> None:
    """Cut the file at every length near a border and at random ones: what is read is a prefix, never noise."""

    def speak(recorder: FileRecorder) -> None:
        for number in range(4):
            recorder.write("caller", number * 3000, noise(480, number))

    record(tmp_path, speak)
    whole = read_track(tmp_path, SESSION, "caller")
    path = tmp_path / SESSION / "caller.track"
    content = path.read_bytes()
    cuts = {
        *range(40),
        *range(len(content) - 80, len(content)),
        *random.Random(3).sample(range(len(content)), 60),
    }
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        found = read_track(tmp_path, SESSION, "caller")
        assert whole.startswith(found)
        torn = bytearray(content[:cut])
        if cut > 100:
            torn[-1] ^= 0xFF
        path.write_bytes(bytes(torn))
        assert whole.startswith(read_track(tmp_path, SESSION, "caller")), "a torn tail must not be played"


@pytest.mark.parametrize("lost", [0, 1, 30, 57, 58, 200, 1500])
def test_recording_goes_on_after_a_kill(tmp_path: Path, lost: int) -> None:
    """What the killed process left unsealed is sealed and reported; the torn tail is cut off."""
    record(tmp_path, lambda recorder: recorder.write("caller", 0, noise(FRAME, 1)))
    path = tmp_path / SESSION / "caller.track"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - lost])

    segments = record(tmp_path, lambda recorder: recorder.write("caller", 24_000, noise(FRAME, 2)))
    seal = 57
    survives = lost <= seal
    was_sealed = lost == 0
    starts = [24_000] if was_sealed or not survives else [0, 24_000]
    assert [segment.start for segment in segments] == starts
    assert read_track(tmp_path, SESSION, "caller", 24_000) == noise(FRAME, 2)
    expected = noise(FRAME, 1) if survives else silence(FRAME)
    assert read_track(tmp_path, SESSION, "caller", 0, FRAME) == expected
    assert all(found.samples == FRAME for found in verify_track(tmp_path, SESSION, "caller"))


@pytest.mark.parametrize("size", [0, 5])
def test_a_file_killed_at_birth_is_begun_again(tmp_path: Path, size: int) -> None:
    folder = tmp_path / SESSION
    folder.mkdir()
    (folder / "caller.track").write_bytes(b"OPENLINE-PCM-24\n"[:size])
    record(tmp_path, lambda recorder: recorder.write("caller", 0, noise(FRAME)))
    assert read_track(tmp_path, SESSION, "caller") == noise(FRAME)


def test_a_foreign_file_stops_one_recording_only(tmp_path: Path) -> None:
    folder = tmp_path / SESSION
    folder.mkdir()
    (folder / "caller.track").write_bytes(b"not a track, but long enough to be one")
    assert record(tmp_path, lambda recorder: recorder.write("caller", 0, noise(FRAME))) == []
    (folder / "caller.track").unlink()
    assert len(record(tmp_path, lambda recorder: recorder.write("caller", 0, noise(FRAME)))) == 1


def test_reading_beside_a_running_recorder(tmp_path: Path) -> None:
    async def story() -> None:
        recorder = FileRecorder(tmp_path, SESSION, lambda _segment: None, thread=QUICK, every_s=0.0)
        recorder.write("caller", 0, noise(FRAME))
        while recorder.queued_bytes:
            await asyncio.sleep(0)
        assert read_track(tmp_path, SESSION, "caller") == noise(FRAME)
        await recorder.close()

    asyncio.run(story())


def test_what_is_flushed_can_be_read_at_once_and_is_not_sealed(tmp_path: Path) -> None:
    async def story() -> None:
        segments: list[Segment] = []
        recorder = FileRecorder(tmp_path, SESSION, segments.append, thread=QUICK, every_s=3600.0)
        assert recorder.write("caller", 0, noise(FRAME))
        await recorder.flush()
        assert read_track(tmp_path, SESSION, "caller") == noise(FRAME)
        await recorder.flush()  # nothing waits
        assert recorder.write("caller", FRAME, noise(FRAME, 2))
        assert segments == []
        await recorder.close()
        await recorder.flush()
        assert read_track(tmp_path, SESSION, "caller") == noise(FRAME) + noise(FRAME, 2)
        assert len(segments) == 1

    asyncio.run(story())


def test_a_flush_that_is_given_up_writes_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        recorder = FileRecorder(tmp_path, SESSION, lambda _segment: None, thread=QUICK, every_s=3600.0)
        recorder.write("caller", 0, noise(FRAME))
        task = asyncio.create_task(recorder.flush())
        await asyncio.sleep(0)
        task.cancel()
        while recorder.queued_bytes:
            await asyncio.sleep(0)
        assert read_track(tmp_path, SESSION, "caller") == noise(FRAME)
        await recorder.close()

    asyncio.run(story())


def test_frames_that_follow_each_other_are_joined_and_cut_where_a_segment_ends(tmp_path: Path) -> None:
    pcm = noise(FRAME * 120)

    def at_once(recorder: FileRecorder) -> None:
        for at in range(0, FRAME * 120, FRAME):
            recorder.write("caller", at, pcm[2 * at : 2 * (at + FRAME)])
        recorder.write("agent", 5, noise(10))
        recorder.write("agent", 8, noise(10, 2))  # goes back: the later one counts

    segments = record(tmp_path, at_once, segment_ms=1_000)
    caller = [segment for segment in segments if segment.track == "caller"]
    assert [(s.start, s.samples) for s in caller] == [(0, 24_000), (24_000, 24_000), (48_000, 9_600)]
    assert read_track(tmp_path, SESSION, "caller") == pcm
    assert read_track(tmp_path, SESSION, "agent", 5) == noise(10)[:6] + noise(10, 2)


def test_a_full_queue_drops_and_counts(tmp_path: Path) -> None:
    async def story() -> None:
        dropped: list[int] = []
        recorder = FileRecorder(
            tmp_path,
            SESSION,
            lambda _segment: None,
            thread=QUICK,
            every_s=0.0,
            queue_bytes_max=2000,
            on_dropped=dropped.append,
        )
        assert recorder.write("caller", 0, noise(900))
        assert not recorder.write("caller", 900, noise(900))
        await recorder.close()
        assert (dropped, recorder.dropped_bytes) == ([1800], 1800)

    asyncio.run(story())
    assert len(read_track(tmp_path, SESSION, "caller")) == 1800


def test_a_disk_that_fails_stops_the_recording_and_says_so(tmp_path: Path) -> None:
    """A file where the session's folder should be stands for any error of the disk."""
    (tmp_path / SESSION).write_text("in the way")

    async def story() -> None:
        dropped: list[int] = []
        recorder = FileRecorder(
            tmp_path, SESSION, lambda _segment: None, thread=QUICK, every_s=0.0, on_dropped=dropped.append
        )
        recorder.write("caller", 0, noise(10))
        await recorder.flush()
        assert dropped == [20]
        assert not recorder.write("caller", 10, noise(10))
        await recorder.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("track", "start", "pcm"), [("caller", 0, b"odd"), ("caller", -1, b"ab"), ("../x", 0, b"ab")]
)
def test_what_is_no_audio_is_our_own_bug(tmp_path: Path, track: str, start: int, pcm: bytes) -> None:
    async def story() -> None:
        recorder = FileRecorder(tmp_path, SESSION, lambda _segment: None, thread=QUICK, every_s=0.0)
        with pytest.raises(IllegalTransition):
            recorder.write(track, start, pcm)
        await recorder.close()
        assert not recorder.write("caller", 0, b"ab")
        assert recorder_files.tracks(tmp_path, SESSION) == []

    asyncio.run(story())


def test_export_has_the_caller_left_and_the_agent_right(tmp_path: Path) -> None:
    def talk(recorder: FileRecorder) -> None:
        recorder.write("caller", 0, noise(1000, 1))
        recorder.write("agent", 5000, noise(2000, 2))

    record(tmp_path, talk)
    path = tmp_path / "call.wav"
    assert recorder_files.export_wav(tmp_path, SESSION, path) == 7000
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth(), file.getnframes()) == (
            2,
            24_000,
            2,
            7000,
        )
        frames = file.readframes(7000)
    left = b"".join(frames[at : at + 2] for at in range(0, len(frames), 4))
    right = b"".join(frames[at + 2 : at + 4] for at in range(0, len(frames), 4))
    assert left == noise(1000, 1) + silence(6000)
    assert right == silence(5000) + noise(2000, 2)


def test_what_was_never_recorded_is_silent_or_not_found(tmp_path: Path) -> None:
    assert read_track(tmp_path, SESSION, "caller", 0, 3) == silence(3)
    with pytest.raises(SessionNotFound):
        recorder_files.export_wav(tmp_path, SESSION, tmp_path / "x.wav")
    with pytest.raises(SessionNotFound):
        read_track(tmp_path, SessionId("../../etc"), "caller")


def test_a_foreign_or_changed_file_is_corrupt(tmp_path: Path) -> None:
    record(tmp_path, lambda recorder: recorder.write("caller", 0, noise(FRAME)))
    path = tmp_path / SESSION / "caller.track"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(LogCorrupt):
        verify_track(tmp_path, SESSION, "caller")
    path.write_bytes(b"RIFF, or anything else but a track")
    with pytest.raises(LogCorrupt):
        read_track(tmp_path, SESSION, "caller")


def test_pruning_by_age_then_by_size_spares_the_living(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / f"sess_{number}"
        folder.mkdir()
        (folder / "caller.track").write_bytes(bytes(1000))
        os.utime(folder / "caller.track", (number * 10, number * 10))
    live = SessionId("sess_1")
    assert recorder_files.prune(tmp_path, older_than_ms=15_000, keep=[live]) == ["sess_0"]
    assert recorder_files.prune(tmp_path, max_bytes=2000, keep=[live]) == ["sess_2", "sess_3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sess_1", "sess_4"]
    assert recorder_files.prune(tmp_path / "nowhere", older_than_ms=10**15) == []
