"""The upstream link against a provider that misbehaves on command: every fault has one stated outcome.

Covers A5, A10, B3, B6 to B9, B15, C3, C5, F6, F7, G1 and G11 of the failure catalogue, and the bad input
that a provider may be.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from integration.upstream import (
    FAST,
    MANUAL,
    QUIET,
    Caller,
    Scene,
    ask,
    play,
    speak,
    story,
    until,
)
from openline.adapters.link_openai_realtime import OpenAIRealtimeFactory
from openline.adapters.link_openai_realtime.socket import Address, credentials
from openline.core.model import SessionConfig
from openline.errors import ConfigError, LinkError, LinkRejected, LinkUnavailable
from openline.testing.fake_realtime import FakeRealtime, FakeReply
from openline.types import ResponseId, SessionId

# ----------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("close:1000", LinkUnavailable, "closed with 1000 before"),
        ("close:1001", LinkUnavailable, "1001"),
        ("close:1005", LinkUnavailable, "1005"),
        ("close:1006", LinkUnavailable, "1006"),
        ("close:1011", LinkUnavailable, "1011"),
        ("close:4503", LinkUnavailable, "4503"),
        ("close:1008", LinkRejected, "Check the API key"),
        ("http:401", LinkRejected, "Check the API key"),
        ("http:404", LinkRejected, "HTTP 404"),
        ("http:429", LinkUnavailable, "HTTP 429"),
        ("http:503", LinkUnavailable, "HTTP 503"),
        ("key", LinkRejected, "invalid_api_key"),
        ("model", LinkRejected, "Check the model's name"),
        ("garbage", LinkRejected, "no event"),
        ("silent", LinkUnavailable, "expected 'session.created' within 0.3 s"),
    ],
)
def test_a_link_that_does_not_open_says_whose_fault_it_is(how: str, kind: type[LinkError], says: str) -> None:
    async def do(scene: Scene) -> None:
        scene.fake.opens = [how]
        scene.key = "sk-very-secret"
        with pytest.raises(kind) as raised:
            await scene.open()
        assert type(raised.value) is kind and says in str(raised.value)
        assert raised.value.cause, "one word for the log and the clients"
        assert "openai/gpt-realtime" in str(raised.value) and "secret" not in str(raised.value)
        assert not scene.sink.events, "a link that did not open says nothing to its session"

    story(do, FAST)()


def test_the_key_is_asked_for_at_each_connect() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.keys = {"sk-new"}
        with pytest.raises(LinkRejected):
            await scene.open()
        scene.key = "sk-new"
        scene.link = scene.factory(SessionId("sess_1"), MANUAL)
        await scene.open()
        assert scene.fake.seen_keys == ["sk-test", "sk-new"]

    play(do)


async def _answering(reply: bytes) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", LinkRejected),
        (b"220 mail.example ESMTP\r\n", LinkUnavailable),
        (b"", LinkUnavailable),
    ],
)
def test_a_server_that_is_no_websocket_is_named_so(reply: bytes, kind: type[LinkError]) -> None:
    async def run() -> None:
        server = await _answering(reply)
        port = server.sockets[0].getsockname()[1]
        async with server:
            link = OpenAIRealtimeFactory(f"http://127.0.0.1:{port}/v1", "m", lambda: "k", settings=FAST)(
                SessionId("s"), MANUAL
            )
            with pytest.raises(LinkError) as raised:
                await link.open(Caller(), MANUAL, ())
            assert type(raised.value) is kind, raised.value

    asyncio.run(run())


def test_a_tls_failure_and_a_closed_port_are_typed() -> None:
    async def run() -> None:
        async with FakeRealtime() as fake:
            for url, kind in (
                (f"https://127.0.0.1:{fake.port}", LinkUnavailable),
                ("http://127.0.0.1:9", LinkUnavailable),
            ):
                factory = OpenAIRealtimeFactory(
                    url, "m", lambda: "k", settings=FAST, tls=ssl.create_default_context()
                )
                with pytest.raises(LinkError) as raised:
                    await factory(SessionId("s"), MANUAL).open(Caller(), MANUAL, ())
                assert type(raised.value) is kind, raised.value

    asyncio.run(run())


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1008, 1011, 1012])
def test_every_close_in_mid_reply_is_a_loss_that_is_told_once(code: int) -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.fake.plan(FakeReply("one two three four", fault=f"half_then_close:{code}"))
        scene.link.start_response(ask("resp_1"))
        error = await scene.lost()
        assert isinstance(error, LinkUnavailable) and str(code) in str(error)
        assert not scene.sink.has("response_finished"), "the session settles what was in flight, not the link"
        scene.link.append_audio(QUIET)
        scene.link.cancel_response(ResponseId("resp_1"))
        await asyncio.sleep(0.01)
        assert len(scene.sink.of("lost")) == 1

    play(do)


def test_a_provider_that_only_answers_pings_is_lost_by_what_it_does_not_say() -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.fake.plan(FakeReply("one two three four", fault="half_then_silence"))
        scene.link.start_response(ask("resp_1"))
        error = await scene.lost()
        assert "stalled" in str(error)

    story(do, FAST)()


def test_a_provider_that_streams_nothing_but_garbage_is_stalled_and_not_alive() -> None:
    """B15: its bytes come, and mean nothing; only a fresh connection helps."""

    async def do(scene: Scene) -> None:
        connection = await scene.open()
        scene.fake.plan(FakeReply("never", fault="never"))
        scene.link.start_response(ask("resp_1"))
        for _ in range(200):
            if scene.sink.error is not None:
                break
            connection.send("\u2603 this is no event")
            await asyncio.sleep(0.01)
        error = await scene.lost()
        assert error.cause == "stalled" and scene.link.counts["garbage"] > 5

    story(do, FAST)()


def test_a_caller_who_talks_to_a_deaf_server_is_not_left_alone() -> None:
    """B3: it answers pings, nobody asked it for anything, and it says nothing of what it should hear."""

    async def do(scene: Scene) -> None:
        connection = await scene.open(SessionConfig())
        await asyncio.sleep(0.3)
        assert not connection.of("session.update")[1:], "while nobody speaks there is nothing to answer"
        connection.freeze()
        speak(scene)
        error = await scene.lost()
        assert error.cause == "deaf" and scene.link.unconfirmed() == 40 * 480

    play(do, probe_s=0.1, ping_s=0.05)


def test_a_server_that_is_asked_and_answers_is_left_alone() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(SessionConfig())
        for _ in range(30):
            scene.link.append_audio(QUIET)
            await asyncio.sleep(0.02)
        assert len(connection.of("session.update")) > 2 and scene.sink.error is None
        assert scene.link.unconfirmed() < 30 * 480 and not connection.errors

    play(do, probe_s=0.1)


def test_binary_frames_are_no_events_and_do_no_harm() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        connection.send_binary(bytes(range(256)))
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        assert scene.link.counts["garbage"] == 1 and scene.sink.error is None

    play(do)


@pytest.mark.parametrize(
    ("url", "key", "header"),
    [
        ("wss://api.openai.com/v1/realtime", "sk-1", "Authorization"),
        ("wss://res.openai.azure.com/openai/v1/realtime", "0123abcd", "api-key"),
        ("wss://res.openai.azure.com/openai/v1/realtime", "eyJhbGciOi", "Authorization"),
        ("wss://azure.com.example/v1/realtime", "0123abcd", "Authorization"),
    ],
)
def test_a_key_goes_where_the_provider_looks_for_it(url: str, key: str, header: str) -> None:
    sent = credentials(Address(url, "x"), key)
    assert list(sent) == [header] and key in sent[header]


def test_a_server_that_says_more_than_the_protocol_is_understood() -> None:
    """xAI: conversation.created behind session.created, and every text delta under two names."""

    async def do(scene: Scene) -> None:
        scene.fake.dialect = "xai"
        await scene.open(SessionConfig(modality="text", turn_detection=None))
        scene.link.start_response(ask("resp_1", SessionConfig(modality="text")))
        await scene.done()
        assert scene.sink.text[ResponseId("resp_1")] == "echo "
        assert scene.sink.of("response_finished") == [("response_finished", "resp_1", "completed")]

    play(do)


def test_a_server_of_another_protocol_is_named_so_by_its_first_error() -> None:
    """vLLM's /v1/realtime: an error that is a text, and never a session."""

    async def do(scene: Scene) -> None:
        scene.fake.opens = ["vllm"]
        with pytest.raises(LinkError) as raised:
            await scene.open()
        assert "openai/gpt-realtime" in str(raised.value) and raised.value.cause

    story(do, FAST)()


def test_a_quiet_line_with_late_pongs_lives_and_one_without_dies() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        connection.pong_delay_s = 0.1
        await asyncio.sleep(0.6)
        assert scene.sink.error is None, "idle is not dead, a late pong is a pong (C5)"
        connection.pong_delay_s = 60
        assert "nothing received" in str(await scene.lost())

    story(do, FAST)()


def test_the_cap_of_the_provider_is_a_loss_and_no_refusal() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        connection.expire()
        error = await scene.lost()
        assert isinstance(error, LinkUnavailable) and "session_expired" in str(error)

    play(do)


def test_an_empty_account_is_a_refusal_also_in_mid_session() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open()
        connection.error("insufficient_quota")
        error = await scene.lost()
        assert isinstance(error, LinkRejected) and "balance" in str(error)

    play(do)


@pytest.mark.parametrize(
    ("fault", "reason", "text", "audio_ms"),
    [
        ("", "completed", "one two three four", 400),
        ("duplicate_done", "completed", "one two three four", 400),
        ("late_created", "completed", "one two three four", 400),
        ("late_transcript", "completed", "one two three four", 400),
        ("done_only_transcript", "completed", "one two three four", 400),
        ("odd_chunks", "completed", "one two three four", 400),
        ("unknown_item", "completed", "one two three four", 400),
        ("garbage", "completed", "one two three four", 400),
        ("no_audio", "failed:no_audio", "one two three four", 0),
        ("empty", "failed:empty_response", "", 0),
        ("failed:rate_limit_exceeded", "failed:rate_limit_exceeded", "", 0),
        ("failed", "failed:server_error", "", 0),
        ("error_without_ids", "failed:invalid_request_error", "", 0),
        ("cancelled", "failed:response_cancelled", "one two three four", 400),
    ],
)
def test_a_reply_that_goes_wrong_ends_once_and_the_next_is_right(
    fault: str, reason: str, text: str, audio_ms: int
) -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.fake.plan(FakeReply("one two three four", fault=fault), FakeReply("fine"))
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        assert scene.sink.text.get(ResponseId("resp_1"), "") == text
        assert len(scene.sink.audio.get(ResponseId("resp_1"), b"")) == audio_ms * 48
        scene.link.start_response(ask("resp_2"))
        await scene.done(2)
        await asyncio.sleep(0.01)
        assert scene.sink.of("response_finished") == [
            ("response_finished", "resp_1", reason),
            ("response_finished", "resp_2", "completed"),
        ]
        started = len(scene.sink.of("message_started"))
        assert len(scene.sink.of("message_finished")) == started, "what began has ended"

    play(do)


def test_a_frame_of_40_mb_costs_the_link_and_not_the_gateway() -> None:
    async def do(scene: Scene) -> None:
        await scene.open()
        scene.fake.plan(FakeReply("one two three four", fault="huge_frame"))
        scene.link.start_response(ask("resp_1"))
        assert "closed with 1009" in str(await scene.lost())

    play(do)


def test_a_reply_that_nobody_asked_for_is_stopped() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.obeys = False
        connection = await scene.open(SessionConfig())
        scene.fake.plan(FakeReply("uninvited", audio_ms=4_000, pace_s=0.02), FakeReply("asked for"))
        speak(scene)
        await until(lambda: connection.of("response.cancel"))
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        assert scene.sink.text == {ResponseId("resp_1"): "asked for"}

    play(do)


def test_a_conversation_that_is_busy_with_a_strangers_reply_is_asked_again() -> None:
    async def do(scene: Scene) -> None:
        connection = await scene.open(SessionConfig())
        scene.link.start_response(ask("resp_1"))
        await scene.done()
        scene.fake.obeys = False
        scene.fake.plan(FakeReply("uninvited", audio_ms=4_000, pace_s=0.02), FakeReply("asked for"))
        speak(scene)
        scene.link.start_response(ask("resp_2"))
        await scene.done(2)
        assert connection.errors == ["conversation_already_has_active_response"]
        assert scene.sink.text[ResponseId("resp_2")] == "asked for", "and not as the stranger's (F1, F6)"

    play(do)


@pytest.mark.parametrize(
    ("base", "socket"),
    [
        ("https://api.openai.com/v1", "wss://api.openai.com/v1/realtime?model=m%2F1"),
        ("http://127.0.0.1:8765/v1/", "ws://127.0.0.1:8765/v1/realtime?model=m%2F1"),
        ("wss://host/openai/v1/realtime?zone=eu", "wss://host/openai/v1/realtime?zone=eu&model=m%2F1"),
    ],
)
def test_a_base_url_is_where_the_socket_goes(base: str, socket: str) -> None:
    assert Address.of(base, "m/1").url == socket


@pytest.mark.parametrize(
    "base", ["api.openai.com/v1", "ftp://host/v1", "https:///v1", "https://u:secret@host/v1"]
)
def test_a_url_that_cannot_be_one_is_refused_at_the_start(base: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OpenAIRealtimeFactory(base, "m", lambda: "k")
    assert "upstream_url" in str(raised.value) and "secret" not in str(raised.value)


def test_a_server_that_forgets_metadata_is_understood_by_order() -> None:
    async def do(scene: Scene) -> None:
        scene.fake.echoes_metadata = False
        await scene.open()
        for number in (1, 2):
            scene.link.start_response(ask(f"resp_{number}"))
            await scene.done(number)
        assert [event[1] for event in scene.sink.of("response_finished")] == ["resp_1", "resp_2"]

    play(do)
