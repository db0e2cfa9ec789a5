"""The framing between gateway and engine processes: however the bytes are cut, the frames are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.adapters.worker_process import HEADER, MAX_PAYLOAD_BYTES, Frames, pack

FRAME = st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=40))


@given(frames=st.lists(FRAME, max_size=8), cuts=st.lists(st.integers(0, 60), max_size=20))
def test_frames_survive_any_cutting(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(pack(*frame) for frame in frames)
    reader = Frames()
    got = []
    for cut in cuts:
        got += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert got + reader.feed(stream) == frames


def test_a_length_that_cannot_be_ours_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="at most 4194304 are allowed"):
        Frames().feed(HEADER.pack(MAX_PAYLOAD_BYTES + 1, 1, 1))
    assert Frames().feed(HEADER.pack(MAX_PAYLOAD_BYTES, 1, 1)) == []
