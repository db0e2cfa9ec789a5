"""A relay that only passes frames on: picows and uvloop, a socket each way, no JSON, no log, no state.

What of a gateway's time is the two sockets and what is the gateway; and, as it knows no moods of ours, how fast the
machine is just now. ``python -m bench.bare_relay --port 8000 --upstream ws://127.0.0.1:9000/v1``
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress

import uvloop
from picows import (
    WSError,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_connect,
    ws_create_server,
)

WRITE_HIGH_BYTES = 1 << 20


class Leg(WSListener):
    """One socket of a pair. What comes before the other is there waits for it."""

    def __init__(self, other: Leg | None = None) -> None:
        self.transport: WSTransport | None = None
        self.other = other
        self._waiting: list[bytes] = []

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        if self.other is not None:
            self.other.join(self)

    def join(self, other: Leg) -> None:
        self.other = other
        for payload in self._waiting:
            self._pass_on(payload)
        self._waiting.clear()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            if self.other is None:
                self._waiting.append(frame.get_payload_as_bytes())
            else:
                self._pass_on(frame.get_payload_as_bytes())

    def _pass_on(self, payload: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.send(WSMsgType.TEXT, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.disconnect()


class CallerLeg(Leg):
    """Connects upstream once the caller is there."""

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = upstream
        self._task: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        self._task = asyncio.get_running_loop().create_task(self._connect(transport))

    async def _connect(self, transport: WSTransport) -> None:
        try:
            await ws_connect(lambda: Leg(self), self._upstream)
        except (WSError, OSError):
            transport.disconnect()


async def serve(port: int, upstream: str) -> None:
    def listener(_request: WSUpgradeRequest) -> WSListener:
        return CallerLeg(upstream)

    server = await ws_create_server(listener, "127.0.0.1", port)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bare_relay", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--upstream", required=True, help="ws://host:port/v1")
    chosen = parser.parse_args()
    with suppress(KeyboardInterrupt):
        uvloop.run(serve(chosen.port, f"{chosen.upstream}/realtime?model=load"))


if __name__ == "__main__":
    main()
