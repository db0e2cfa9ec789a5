"""Sockets in virtual time: real streams, no waiting."""

from __future__ import annotations

import asyncio

import pytest

from openline.testing.virtual_net import run_virtual_net
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
