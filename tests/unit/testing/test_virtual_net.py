"""Sockets in virtual time: real streams, no waiting."""

from __future__ import annotations

import asyncio

import pytest
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from openline.testing.virtual_net import FIRST_PORT, run_virtual_net
from openline.testing.virtual_time import Quiescent


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        await asyncio.sleep(3_600)
        writer.write(line)
    writer.close()


def test_an_hour_of_sockets_takes_no_time_and_every_byte_arrives() -> None:
    async def main() -> tuple[list[bytes], float]:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        answers = []
        for number in range(3):
            writer.write(b"%d\n" % number)
            answers.append(await reader.readline())
        writer.close()
        assert await reader.read() == b""
        return answers, asyncio.get_running_loop().time()

    answers, seconds = run_virtual_net(main())
    assert answers == [b"0\n", b"1\n", b"2\n"]
    assert 10_800 <= seconds < 10_801


def test_ports_are_taken_freed_and_refused() -> None:
    async def main() -> None:
        first = await asyncio.start_server(echo, "127.0.0.1", 5_000)
        with pytest.raises(OSError, match="taken"):
            await asyncio.start_server(echo, "127.0.0.1", 5_000)
        first.close()
        assert not first.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", 5_000)

    run_virtual_net(main())


def test_waiting_for_what_nobody_will_do_is_said_at_once() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Quiescent):
        run_virtual_net(main())


class Late(WSListener):
    """Answers a frame with as many bytes as it says, an hour later."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            size = int(frame.get_payload_as_ascii_text())
            asyncio.get_running_loop().call_later(3_600, transport.send, WSMsgType.TEXT, b"x" * size)


class Asking(WSListener):
    def __init__(self) -> None:
        self.answered: asyncio.Future[tuple[int, float]] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"2000000")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        size = len(frame.get_payload_as_bytes())
        self.answered.set_result((size, asyncio.get_running_loop().time()))
        transport.disconnect()


def test_websockets_are_of_this_network_too_and_no_byte_is_under_way_while_the_clock_moves() -> None:
    """picows has its own way to sockets. With real ones two megabytes would take virtual time, each run another."""

    async def main() -> tuple[int, float]:
        server = await ws_create_server(lambda request: Late(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert port >= FIRST_PORT and port < FIRST_PORT + 10
        _, client = await ws_connect(Asking, f"ws://127.0.0.1:{port}/", max_frame_size=3_000_000)
        assert isinstance(client, Asking)
        answer = await client.answered
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await ws_connect(Asking, f"ws://127.0.0.1:{port}/")
        return answer

    assert run_virtual_net(main()) == (2_000_000, 3_600.0)
