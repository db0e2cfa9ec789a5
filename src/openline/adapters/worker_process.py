"""A child process that speaks length-prefixed frames over its standard input and output.

Shared by the adapters whose engine must not live in the gateway: PocketSphinx holds the GIL for up to
240 ms, eSpeak NG is under the GPL. ``WorkerProcess`` is the gateway's end, ``WorkerPort`` the child's.

A frame is a 9-byte header (little endian: uint32 payload length, uint8 kind, uint32 utterance) and the
payload. Kinds are the engine's own. The child never outlives the gateway: it ends when its input closes,
and where Linux offers it the kernel kills it with its parent (a gateway that dies by SIGKILL in the
middle of a decode leaves nothing behind).

Standard library only. Nothing here knows about speech.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from openline.errors import SpeechError

HEADER = struct.Struct("<IBI")
MAX_PAYLOAD_BYTES = 4 << 20
"""A longer frame means that the two ends have lost step. 60 s of 16 kHz PCM16 are 1.9 MB."""
READ_BYTES = 1 << 16
"""Linux gives a pipe 64 kB; a larger read never returns more."""
PR_SET_PDEATHSIG = 1

OnFrame = Callable[[int, int, bytes], None]
OnExit = Callable[[], None]


class Frames:
    """Cuts a byte stream into frames. ``feed`` raises ValueError when the stream cannot be ours."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """All frames that ``data`` completes, as (kind, utterance, payload)."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            length, kind, utterance = HEADER.unpack_from(self._buffer, start)
            if length > MAX_PAYLOAD_BYTES:
                raise ValueError(f"frame of {length} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append((kind, utterance, bytes(self._buffer[start + HEADER.size : end])))
            start = end
        del self._buffer[:start]
        return frames


def pack(kind: int, utterance: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, utterance) + payload


# ----------------------------------------------------------------------------------- the gateway's end


class WorkerProcess(asyncio.SubprocessProtocol):
    """One running child. Made by ``spawn``; ``on_exit`` is called once, on the loop, whatever ended it."""

    def __init__(self, on_frame: OnFrame, on_exit: OnExit) -> None:
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._frames = Frames()
        self._transport: asyncio.SubprocessTransport | None = None
        self._input: asyncio.WriteTransport | None = None
        self._gone = asyncio.Event()
        self.pid = 0
        """Process id of the child; 0 before it was started."""

    @classmethod
    async def spawn(
        cls, module: str, arguments: Sequence[str], on_frame: OnFrame, on_exit: OnExit
    ) -> WorkerProcess:
        """Start ``python -m module arguments…``. Raises SpeechError if the system refuses a process.

        If cancelled, a child that was already started is killed.
        """
        worker = cls(on_frame, on_exit)
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: worker,
                sys.executable,
                "-m",
                module,
                str(os.getpid()),
                *arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # An engine's own chatter must reach neither the terminal nor a log: it may hold transcripts.
                stderr=subprocess.DEVNULL,
                # The child must find the package however this process did (pytest's path, a zip, an editable
                # install), so it gets our search path and not only our environment.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                # Ctrl-C in the terminal is for the gateway, which then closes its children in order.
                start_new_session=True,
            )
        except asyncio.CancelledError:
            worker.kill()
            raise
        except OSError as error:
            raise SpeechError(
                f"expected to start '{module}', the system refused: {error.strerror}.",
                hint="Check the limits on processes and memory.",
            ) from error
        return worker

    def send(self, kind: int, utterance: int, payload: bytes = b"") -> None:
        """Queue one frame; never waits. To a child that is gone it is dropped: ``on_exit`` tells."""
        if self._input is not None and not self._input.is_closing():
            self._input.write(pack(kind, utterance, payload))

    def kill(self) -> None:
        """End the child at once, by its own pid. ``on_exit`` follows."""
        if self._transport is not None:
            with contextlib.suppress(ProcessLookupError):
                self._transport.kill()

    async def close(self, *, grace_s: float = 1.0) -> None:
        """Close the child's input and wait until it is gone; after ``grace_s`` seconds kill it. Idempotent."""
        if self._input is not None:
            self._input.close()
        try:
            await asyncio.wait_for(self._gone.wait(), grace_s)
        except TimeoutError:
            self.kill()
            await self._gone.wait()

    # -- asyncio.SubprocessProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._input = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        self.pid = self._transport.get_pid() or 0

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        try:
            frames = self._frames.feed(data)
        except ValueError:
            self.kill()
            return
        for kind, utterance, payload in frames:
            self._on_frame(kind, utterance, payload)

    def process_exited(self) -> None:
        # Not connection_lost: that waits for the pipes, which a grandchild could hold open.
        self._gone.set()
        if self._transport is not None:
            self._transport.close()
        self._on_exit()


# ------------------------------------------------------------------------------------- the child's end


class WorkerPort:
    """Blocking frames over this process's own standard input and output.

    Made first thing in a worker's ``main``, before an engine is loaded: whatever prints afterwards,
    native code included, prints into the void and not into the protocol.
    """

    def __init__(self, *, niceness: int = 0) -> None:
        self._input = os.dup(0)
        self._output = os.dup(1)
        void = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(void, fd)
        os.close(void)
        self._frames = Frames()
        self._ready: deque[tuple[int, int, bytes]] = deque()
        self._is_open = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if niceness and hasattr(os, "nice"):
            os.nice(niceness)
        _die_with_parent(int(sys.argv[1]))

    def send(self, kind: int, utterance: int, payload: bytes = b"") -> None:
        """Write one frame, waiting for room. Ends the process when the gateway is gone."""
        view = memoryview(pack(kind, utterance, payload))
        try:
            while view:
                view = view[os.write(self._output, view) :]
        except OSError:
            os._exit(0)

    def receive(self) -> tuple[int, int, bytes] | None:
        """The next frame, waiting for it. None: the gateway closed our input."""
        while not self._ready and self._is_open:
            self._read()
        return self._ready.popleft() if self._ready else None

    def is_cancelled(self, kind: int, utterance: int) -> bool:
        """True when a ``kind`` frame for ``utterance`` waits to be received, or the gateway is gone. Never waits."""
        while self._is_open and self._has_input():
            self._read()
        return not self._is_open or any(frame[:2] == (kind, utterance) for frame in self._ready)

    def _read(self) -> None:
        data = os.read(self._input, READ_BYTES)
        if not data:
            self._is_open = False
            return
        self._ready.extend(self._frames.feed(data))

    def _has_input(self) -> bool:
        if not hasattr(select, "poll"):
            # Windows cannot ask a pipe; there a cancel is seen once the current frame is done.
            return False
        poller = select.poll()
        poller.register(self._input, select.POLLIN | select.POLLHUP)
        return bool(poller.poll(0))


def _die_with_parent(parent: int) -> None:
    """Have the kernel kill us with the gateway (Linux). Elsewhere the closed pipe does, after the current work."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the line above took effect.
    if os.getppid() != parent:
        os._exit(0)
