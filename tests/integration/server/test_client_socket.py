"""ClientSocket on real connections: messages, closing, liveness, backpressure, and clients that break rules."""

from __future__ import annotations

import asyncio
import logging

import picows
import pytest
import websockets

from openline.errors import IllegalTransition
from openline.server.handover import PICOWS_RESERVE, WebSocketProtocol
from openline.server.heartbeat import Heartbeat
from openline.server.socket import ClientSocket
from openline.server.upgrade import Accept, SocketLimits
from server_fakes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    LOOPS,
    PING,
    PONG,
    TEXT,
    RawClient,
    Recorder,
    Sockets,
    frame,
    listening,
    run_on,
)

pytestmark = pytest.mark.parametrize("loop", LOOPS)
FAST_BEAT = {"ping_interval_s": 0.05, "dead_after_s": 0.15}


def test_picows_is_the_version_whose_inside_we_use(loop: str) -> None:
    """``WSProtocol`` is built by position: read picows' ws_create_server again before raising this."""
    assert picows.__version__.startswith("2.3."), picows.__version__


def test_ten_thousand_small_frames_in_a_burst(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            recorder.on_message = recorder.socket.send_text
            expected = [b'{"n":%d}' % n for n in range(10_000)]
            client.send(b"".join(frame(TEXT, payload) for payload in expected))
            echoed = [(await client.read_frame())[1] for _ in expected]
            assert echoed == recorder.texts == expected
            assert recorder.socket.received_bytes > sum(map(len, expected))

    run_on(loop, story())


def read_buffer(socket: ClientSocket) -> int:
    """Bytes of picows' read buffer, when nothing is in it."""
    assert socket._transport is not None
    protocol = socket._transport.underlying_transport.get_protocol()
    return len(super(WebSocketProtocol, protocol).get_buffer(-1))


def test_a_backlog_leaves_the_read_buffer_as_it_was_and_a_large_frame_takes_what_it_needs(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            recorder.on_message = recorder.socket.send_text
            small = read_buffer(recorder.socket)
            assert small == SocketLimits().read_buffer_bytes - PICOWS_RESERVE
            for size, expected in ((1_361, small), (3_000, small), (20_000, small * 8), (1_361, small * 8)):
                client.send(frame(TEXT, b"x" * size) * 300)
                for _ in range(300):
                    kind, payload = await client.read_frame()
                    assert (kind, len(payload)) == (TEXT, size)
                assert read_buffer(recorder.socket) == expected, f"after frames of {size} bytes"

    run_on(loop, story())


def test_frames_that_share_a_write_arrive_one_by_one_and_in_order(loop: str) -> None:
    """Sizes around the three forms of the length, alone and together, with one that waits for the next between."""

    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            socket = (await sockets.next()).socket
            payloads = [b"%07d" % size + b"x" * (size - 7) for size in (7, 125, 126, 65_535, 65_536)]
            socket.send_texts(payloads)
            socket.send_text_soon(b"soon")
            socket.send_text(b"behind it")
            for number in range(40):
                socket.send_text_soon(b"%d" % number)
            expected = [*payloads, b"soon", b"behind it", *(b"%d" % number for number in range(40))]
            assert [(await client.read_frame())[1] for _ in expected] == expected

    run_on(loop, story())


def test_what_is_to_be_sent_soon_leaves_when_the_turn_of_the_loop_ends(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            socket = (await sockets.next()).socket
            socket.send_text_soon(b"alone")
            assert await client.read_frame() == (TEXT, b"alone")
            socket.send_text_soon(b"last words")
            socket.close(4000, "bye")
            assert await client.read_frame() == (TEXT, b"last words")
            kind, payload = await client.read_frame()
            assert (kind, int.from_bytes(payload[:2], "big")) == (CLOSE, 4000)
            socket.send_text_soon(b"too late")

    run_on(loop, story())


def test_fragments_become_one_message_with_pings_in_between(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            half = "é".encode()
            client.send(frame(TEXT, b"a" + half[:1], fin=False))
            client.send(frame(PING, b"in between"))
            client.send(frame(CONTINUATION, half[1:], fin=False))
            client.send(frame(CONTINUATION))
            client.send(frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xfe"))
            client.send(frame(TEXT, b""))
            assert await recorder.next("text") == ("text", "aé".encode())
            assert await recorder.next("binary") == ("binary", b"\xff\xfe")
            assert await recorder.next("text") == ("text", b"")
            assert await client.read_frame() == (PONG, b"in between")

    run_on(loop, story())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
        (frame(TEXT, b"x" * 2001), 1009),
        (frame(TEXT, b"x" * 1500, fin=False) + frame(CONTINUATION, b"x" * 501), 1009),
        (frame(3, b"x"), 1002),
        (frame(TEXT, b"x", rsv=4), 1002),
        (frame(TEXT, b"x", masked=False), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CLOSE, b"\x00"), 1002),
        (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
    ],
    ids=(
        "utf8 utf8-fragments frame-size message-size opcode rsv unmasked continuation interleaved "
        "fragmented-ping long-ping close-size close-code close-utf8"
    ).split(),
)
def test_a_broken_rule_closes_with_its_code(loop: str, data: bytes, code: int) -> None:
    async def story() -> None:
        sockets = Sockets(max_frame_bytes=2000, close_deadline_s=0.5)
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            client.send(frame(TEXT, b"sound") + data)
            assert await client.read_close() == code
            client.send(frame(TEXT, b"after"))
            client.send(frame(CLOSE, code.to_bytes(2, "big")))
            assert await client.rest() == b""
            told = await recorder.next("close")
            assert told[1] == code
            assert recorder.texts == [b"sound"], "nothing is delivered after the fault"
            assert recorder.told.empty(), "on_close is the last thing told"

    run_on(loop, story())


def test_garbage_after_the_handshake_ends_only_this_socket(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets(close_deadline_s=0.2)
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as bystander:
            other = await sockets.next()
            for seed in range(20):
                async with await RawClient.connect(listener.port) as client:
                    recorder = await sockets.next()
                    client.send(bytes((seed * 31 + n * 97) % 256 for n in range(3000)))
                    client.writer.write_eof()
                    await recorder.next("close")
            bystander.send(frame(TEXT, b"fine"))
            assert await other.next("text") == ("text", b"fine")

    run_on(loop, story())


def test_the_peers_close_is_answered_and_reported(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener:
            for payload, told, answer in (
                ((4001).to_bytes(2, "big") + b"bye", ("close", 4001, "bye", True), 4001),
                (b"", ("close", 1005, "", True), 1000),
            ):
                async with await RawClient.connect(listener.port) as client:
                    recorder = await sockets.next()
                    client.send(frame(CLOSE, payload) + frame(TEXT, b"after"))
                    assert await client.read_close() == answer
                    assert await client.rest() == b""
                    assert await recorder.next("close") == told
                    assert recorder.texts == []
                    recorder.socket.send_text(b"dropped")
                    recorder.socket.close()
                    recorder.socket.abort()
                    assert recorder.socket.write_backlog == 0
                    assert not recorder.socket.is_open

    run_on(loop, story())


def test_our_close_waits_for_the_answer_and_delivers_nothing_more(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            recorder.socket.close(4409, "é" * 100)
            recorder.socket.close(4000, "the first one counts")
            recorder.socket.send_text(b"dropped")
            opcode, payload = await client.read_frame()
            assert (opcode, payload[:2]) == (CLOSE, (4409).to_bytes(2, "big"))
            assert payload[2:].decode() == "é" * 61, "cut to 123 bytes, between characters"
            client.send(frame(TEXT, b"too late") + frame(CLOSE, payload[:2]))
            assert await recorder.next("close") == ("close", 4409, "é" * 100, True)
            assert recorder.texts == []
            assert await client.rest() == b""

    run_on(loop, story())


def test_a_close_without_an_answer_is_aborted_at_the_deadline(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets(close_deadline_s=0.1)
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            recorder.socket.close(4000, "invalid_request_error.x")
            assert await client.read_close() == 4000
            assert await recorder.next("close") == ("close", 4000, "invalid_request_error.x", False)

    run_on(loop, story())


def test_a_cut_line_is_told_as_1006(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            client.send(frame(TEXT, b"half of a message", fin=False))
            client.writer.transport.abort()
            assert await recorder.next("close") == ("close", 1006, "", False)

    run_on(loop, story())


@pytest.mark.slow  # waits for real pings
def test_a_peer_that_answers_no_ping_is_closed_with_4408(loop: str) -> None:
    """Half-open: the connection stands, the peer is gone."""

    async def story() -> None:
        sockets = Sockets(close_deadline_s=0.1)
        async with (
            listening(sockets, **FAST_BEAT) as listener,
            await RawClient.connect(listener.port) as client,
        ):
            recorder = await sockets.next()
            assert await client.read_frame() == (PING, b"")
            assert await client.read_close() == 4408
            assert await recorder.next("close") == ("close", 4408, "heartbeat", False)

    run_on(loop, story())


@pytest.mark.slow  # waits for real pings
def test_any_byte_keeps_a_peer_alive_even_inside_a_frame(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with listening(sockets, **FAST_BEAT) as listener:
            async with await RawClient.connect(listener.port) as client:
                recorder = await sockets.next()
                slow = frame(TEXT, b"0123456789")
                for byte in slow:  # about four times the limit, and no whole frame before the end
                    client.send(bytes([byte]))
                    await asyncio.sleep(0.04)
                assert await recorder.next("text") == ("text", b"0123456789")
                assert recorder.socket.is_open
            async with websockets.connect(f"ws://127.0.0.1:{listener.port}/v1/realtime"):
                recorder = await sockets.next()
                await asyncio.sleep(0.4)  # the library answers pings by itself
                assert recorder.socket.is_open

    run_on(loop, story())


@pytest.mark.slow  # waits for real pings
def test_a_socket_that_we_do_not_read_is_not_judged(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets()
        async with (
            listening(sockets, **FAST_BEAT) as listener,
            await RawClient.connect(listener.port) as client,
        ):
            recorder = await sockets.next()
            recorder.socket.pause_reading()
            recorder.socket.pause_reading()
            client.send(frame(TEXT, b"waits"))
            await asyncio.sleep(0.4)
            assert recorder.socket.is_open
            assert recorder.texts == []
            recorder.socket.resume_reading()
            recorder.socket.resume_reading()
            assert await recorder.next("text") == ("text", b"waits")

    run_on(loop, story())


def test_backpressure_is_told_and_passes(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets(write_high_bytes=64 * 1024, write_low_bytes=16 * 1024)
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport
            sent = 0
            while recorder.socket.is_writable:
                recorder.socket.send_text(b"%08d" % sent + b"x" * 8000)
                sent += 1
            assert await recorder.next("writable") == ("writable", False)
            assert recorder.socket.write_backlog >= 64 * 1024
            client.send(frame(PING, b"one") + frame(PING, b"two"))  # owed until there is room: only the last
            client.send(frame(TEXT, b"and heard meanwhile"))
            await recorder.next("text")
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # it is a read transport
            for number in range(sent):
                assert (await client.read_frame())[1][:8] == b"%08d" % number
            assert await client.read_frame() == (PONG, b"two")
            assert await recorder.next("writable") == ("writable", True)
            assert recorder.socket.write_backlog == 0

    run_on(loop, story())


def test_a_client_that_never_reads_is_closed_with_4413(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets(max_backlog_bytes=512 * 1024, close_deadline_s=0.1)
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport
            for _ in range(10_000):
                recorder.socket.send_text(b"x" * 8000)
            assert recorder.socket.write_backlog < 1024 * 1024, (
                "memory is bounded although the sender goes on"
            )
            assert await recorder.next("close") == ("close", 4413, "slow consumer", False)

    run_on(loop, story())


def test_a_client_that_pings_and_never_reads_cannot_fill_our_memory(loop: str) -> None:
    async def story() -> None:
        sockets = Sockets(write_high_bytes=64 * 1024)
        async with listening(sockets) as listener, await RawClient.connect(listener.port) as client:
            recorder = await sockets.next()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport
            while recorder.socket.is_writable:
                recorder.socket.send_text(b"x" * 60_000)
            before = recorder.socket.write_backlog
            client.send(b"".join(frame(PING, b"p" * 100) for _ in range(5000)) + frame(TEXT, b"end"))
            await recorder.next("text")
            assert recorder.socket.write_backlog <= before

    run_on(loop, story())


def test_a_protocol_error_of_a_peer_that_never_reads_still_ends(loop: str) -> None:
    """picows closes such a socket by itself, and would wait for its buffer for ever."""

    async def story() -> None:
        sockets = Sockets(close_deadline_s=0.1)
        async with (
            listening(sockets) as listener,
            await RawClient.connect(listener.port) as client,
        ):
            recorder = await sockets.next()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a read transport
            while recorder.socket.is_writable:
                recorder.socket.send_text(b"x" * 60_000)
            client.send(frame(3, b"no such opcode"))
            told = await recorder.next("close")
            assert told[1] == 1002

    run_on(loop, story())


@pytest.mark.parametrize("where", ["on_open", "on_text", "on_binary", "on_writable", "on_close"])
def test_a_failing_handler_costs_its_own_socket_only(
    loop: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("boom")

    async def story() -> None:
        sockets = Sockets(write_high_bytes=1000, write_low_bytes=0, close_deadline_s=0.2)
        async with listening(sockets) as listener:
            sockets.prepare = lambda recorder: setattr(recorder, where, fail)
            async with await RawClient.connect(listener.port) as client:
                recorder = await sockets.next()
                if where == "on_writable":
                    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport
                    while recorder.socket.is_open:
                        recorder.socket.send_text(b"x" * 60_000)
                    client.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
                client.send(frame(TEXT, b"one") + frame(BINARY, b"two"))
                if where == "on_close":
                    client.send(frame(CLOSE, (1000).to_bytes(2, "big")))
                    assert await client.read_close() == 1000
                else:
                    assert await client.read_close() == 1011
                    assert (await recorder.next("close"))[1] == 1011
                await client.rest()
            sockets.prepare = lambda recorder: None
            async with await RawClient.connect(listener.port) as client:
                recorder = await sockets.next()
                client.send(frame(TEXT, b"fine"))
                await recorder.next("text")

    with caplog.at_level(logging.ERROR):
        run_on(loop, story())
    assert "RuntimeError" in caplog.text


def test_sending_before_the_socket_is_open_is_our_own_bug(loop: str) -> None:
    async def story() -> None:
        socket = ClientSocket(SocketLimits(), Heartbeat(schedule=False))
        with pytest.raises(IllegalTransition):
            socket.send_text(b"x")
        with pytest.raises(IllegalTransition):
            socket.close()
        assert socket.write_backlog == 0
        assert not socket.is_open

    run_on(loop, story())


def test_what_is_sent_in_on_open_comes_first(loop: str) -> None:
    class Greeter(Recorder):
        def on_open(self) -> None:
            self.socket.send_text(b"hello")

    async def story() -> None:
        async with listening(lambda request: Accept(Greeter)) as listener:
            async with await RawClient.connect(listener.port, behind=frame(PING, b"p")) as client:
                assert await client.read_frame() == (TEXT, b"hello")
                assert await client.read_frame() == (PONG, b"p")

    run_on(loop, story())
