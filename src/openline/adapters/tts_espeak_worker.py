"""eSpeak NG in a process of its own: ``python -m openline.adapters.tts_espeak_worker PARENT_PID``.

Started and fed by ``tts_espeak``. The library is under the GPL and keeps global state: the process border
serves both. SPEAK is answered by AUDIO…, then DONE (cancelled or not), or FAILED. CANCEL stops the engine at
its next 60 ms callback, which comes within 0.2 ms: a sentence is synthesized a thousand times faster
than it is spoken.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from typing import NamedTuple

from openline.adapters.resample import Resampler
from openline.adapters.worker_process import WorkerPort

# Gateway to worker.
SPEAK, CANCEL = 1, 2
# Worker to gateway.
READY, CHUNK, DONE, FAILED, UNUSABLE = 11, 12, 13, 14, 15

OUTPUT_HZ = 24_000
CHUNK_MS = 60
CHUNK_BYTES = OUTPUT_HZ * CHUNK_MS // 1000 * 2
FRAME_BYTES = 960
"""The last chunk is filled with silence up to whole 20 ms frames."""

# speak_lib.h of eSpeak NG 1.52.
AUDIO_OUTPUT_SYNCHRONOUS = 2
INITIALIZE_DONT_EXIT = 0x8000
CHARS_UTF8 = 1
END_PAUSE = 0x1000
POS_CHARACTER = 1
EVENT_LIST_TERMINATED, EVENT_WORD, EVENT_END = 0, 1, 5
RATE, PITCH, RANGE = 1, 3, 4
EE_OK = 0

REQUEST = struct.Struct("<HHH")
"""Speaking rate (words a minute), pitch and pitch range (0..100); voice name, a NUL and the text follow."""
MARK = struct.Struct("<I")
"""In front of the PCM of a CHUNK: characters spoken at its end."""


class Event(ctypes.Structure):
    """``espeak_EVENT``. ``position`` is a character of the text from 1, ``sample`` where it is heard."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


class Request(NamedTuple):
    """One sentence. ``rate`` words a minute (80–450), ``pitch`` and ``range`` 0–100."""

    rate: int
    pitch: int
    range: int
    voice: str
    text: str

    def pack(self) -> bytes:
        return REQUEST.pack(self.rate, self.pitch, self.range) + f"{self.voice}\0{self.text}".encode()

    @classmethod
    def unpack(cls, payload: bytes) -> Request:
        voice, _, text = payload[REQUEST.size :].decode().partition("\0")
        rate, pitch, pitch_range = REQUEST.unpack_from(payload)
        return cls(rate, pitch, pitch_range, voice, text)


class Marks:
    """Which part of a text has been spoken at a sample, from the engine's word events."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._marks: list[tuple[int, int]] = []

    def add(self, kind: int, position: int, sample: int) -> None:
        """A WORD event ends what stands before it, an END event (clause) what stands before and at it."""
        if kind == EVENT_WORD:
            self._marks.append((sample, self._whole_words(position - 1)))
        elif kind == EVENT_END:
            self._marks.append((sample, self._whole_words(position)))

    def spoken_at(self, sample: int) -> int:
        """Characters of whole words heard before ``sample``; never falls."""
        return max((end for at, end in self._marks if at <= sample), default=0)

    def _whole_words(self, end: int) -> int:
        """``end`` back to the last border of words: the engine marks the parts of "27" or "isn't" too."""
        text = self._text
        end = max(0, min(end, len(text)))
        while 0 < end < len(text) and not (text[end - 1].isspace() or text[end].isspace()):
            end -= 1
        return len(text[:end].rstrip())


class Cutter:
    """Engine audio at its own rate to CHUNK frames at 24,000 Hz with their marks."""

    def __init__(self, port: WorkerPort, utterance: int, text: str, engine_hz: int) -> None:
        self._port = port
        self._utterance = utterance
        self._text = text
        self._hz = engine_hz
        self._marks = Marks(text)
        self._resampler = Resampler(engine_hz, OUTPUT_HZ)
        self._waiting = bytearray()
        self._sent_samples = 0

    def add(self, pcm: bytes, events: list[tuple[int, int, int]]) -> None:
        for kind, position, sample in events:
            self._marks.add(kind, position, sample)
        self._waiting += self._resampler.convert(pcm)
        # One chunk stays back until there is more: the last one must carry the end of the text.
        while len(self._waiting) > CHUNK_BYTES:
            self._send(bytes(self._waiting[:CHUNK_BYTES]), is_last=False)
            del self._waiting[:CHUNK_BYTES]

    def finish(self) -> None:
        self._waiting += self._resampler.flush()
        while len(self._waiting) > CHUNK_BYTES:
            self._send(bytes(self._waiting[:CHUNK_BYTES]), is_last=False)
            del self._waiting[:CHUNK_BYTES]
        if self._waiting:
            fill = -len(self._waiting) % FRAME_BYTES
            self._send(bytes(self._waiting) + bytes(fill), is_last=True)

    def _send(self, pcm: bytes, *, is_last: bool) -> None:
        self._sent_samples += len(pcm) // 2
        heard = self._sent_samples * self._hz // OUTPUT_HZ
        end = len(self._text) if is_last else self._marks.spoken_at(heard)
        self._port.send(CHUNK, self._utterance, MARK.pack(end) + pcm)


class Engine:
    """The library. Raises ImportError (no wheel) or RuntimeError (it does not start)."""

    def __init__(self, port: WorkerPort) -> None:
        import espeakng_loader

        self._port = port
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = (
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        )  # fmt: skip
        data = str(espeakng_loader.get_data_path()).encode()
        self.hz = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, CHUNK_MS, data, INITIALIZE_DONT_EXIT
        )
        if self.hz <= 0:
            raise RuntimeError(f"espeak_Initialize returned {self.hz}")
        # ctypes keeps no reference to a callback that C holds: without ours it is freed and C calls into nothing.
        self._callback = Callback(self._on_audio)
        self._library.espeak_SetSynthCallback(self._callback)
        self._cutter: Cutter | None = None
        self._utterance = 0

    def speak(self, utterance: int, request: Request) -> None:
        """Synthesize one sentence into CHUNK frames; returns early when it is cancelled."""
        if self._library.espeak_SetVoiceByName(request.voice.encode()) != EE_OK:
            raise RuntimeError(f"the engine has no voice {request.voice!r}")
        for parameter, value in ((RATE, request.rate), (PITCH, request.pitch), (RANGE, request.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._utterance = utterance
        self._cutter = Cutter(self._port, utterance, request.text, self.hz)
        text = request.text.encode() + b"\0"
        status = self._library.espeak_Synth(
            text, len(text), 0, POS_CHARACTER, 0, CHARS_UTF8 | END_PAUSE, None, None
        )
        if status != EE_OK:
            raise RuntimeError(f"espeak_Synth returned {status}")
        if not self._port.is_cancelled(CANCEL, utterance):
            self._cutter.finish()

    def _on_audio(
        self, wave: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[Event]
    ) -> int:
        """C calls this for every 60 ms; 1 makes it stop."""
        if self._cutter is None or self._port.is_cancelled(CANCEL, self._utterance):
            return 1
        if count > 0:
            self._cutter.add(ctypes.string_at(wave, count * 2), _events(events))
        return 0


def _events(events: ctypes._Pointer[Event]) -> list[tuple[int, int, int]]:
    found = []
    at = 0
    while (event := events[at]).type != EVENT_LIST_TERMINATED:
        found.append((event.type, event.position, event.sample))
        at += 1
    return found


def main() -> None:
    port = WorkerPort()
    try:
        engine = Engine(port)
    except (ImportError, RuntimeError, OSError) as error:
        port.send(UNUSABLE, 0, str(error).encode())
        return
    port.send(READY, 0)
    # Loads numpy and computes the filter (0.15 s) before the first sentence comes, but after READY.
    Resampler(engine.hz, OUTPUT_HZ)
    while frame := port.receive():
        kind, utterance, payload = frame
        if kind != SPEAK:
            continue
        try:
            engine.speak(utterance, Request.unpack(payload))
        except RuntimeError as error:
            port.send(FAILED, utterance, str(error).encode())
        else:
            port.send(DONE, utterance)


if __name__ == "__main__":
    assert sys.argv[1:], "started by tts_espeak with the parent's process id"
    main()
