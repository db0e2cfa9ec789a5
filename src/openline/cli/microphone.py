"""Microphone and loudspeaker of this machine (extra ``mic``). Raw: no echo cancellation, so use headphones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from openline.cli.audio import FRAME_BYTES
from openline.errors import ConfigError
from openline.ports import WIRE_RATE

HEADPHONES = "The microphone hears the loudspeaker: use headphones, or the console, which cancels echo."


class Devices:
    """``on_frame`` is called on the loop with 20 ms of PCM16 mono 24 kHz. Raises ConfigError without a device."""

    def __init__(self, on_frame: Callable[[bytes], None]) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:
            raise ConfigError(
                f"--mic: the sound library cannot be used ({error}).",
                hint="pip install 'openline[mic]'; on Linux it needs the system's libportaudio2.",
            ) from error
        loop = asyncio.get_running_loop()

        def heard(data: object, frames: int, times: object, status: object) -> None:
            loop.call_soon_threadsafe(on_frame, bytes(data))  # type: ignore[call-overload]  # a cffi buffer

        block = FRAME_BYTES // 2
        shape = {"samplerate": WIRE_RATE, "channels": 1, "dtype": "int16"}
        try:
            self._out = sounddevice.RawOutputStream(**shape)
            self._in = sounddevice.RawInputStream(**shape, blocksize=block, callback=heard)
            self._out.start()
            self._in.start()
        except sounddevice.PortAudioError as error:
            raise ConfigError(f"--mic: no sound device can be opened ({error}).") from error

    def play(self, pcm: bytes) -> None:
        """At most what is due now, so this does not block for longer than a frame."""
        if pcm:
            self._out.write(pcm)

    def close(self) -> None:
        for stream in (self._in, self._out):
            stream.stop()
            stream.close()
