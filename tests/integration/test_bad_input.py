"""Everything a client, a disk or a command line can get wrong: a typed error or a stated policy, and no more.

After each of it the session still answers and its log verifies.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from integration.gateway import GatewayProcess, running, stories
from integration.line import Frame, Line, dial, dial_unheard, line, silence
from openline.adapters.log_sqlite.database import DATABASE_NAME
from openline.bootstrap import Running
from openline.server import app, listener
from openline.server.heartbeat import Heartbeat
from openline.server.upgrade import SocketLimits
from openline.wire.client_events import MAX_EVENT


@contextlib.asynccontextmanager
async def unharmed(data: Path, **settings: Any) -> AsyncIterator[tuple[Running, Line]]:
    """A gateway with one call on it; whatever was done, the call answers, and all logs verify."""
    async with running(data, **settings) as gateway, line(gateway.url) as caller:
        await caller.send("session.update", session={"type": "realtime", "output_modalities": ["text"]})
        await caller.turn("before")
        yield gateway, caller
        assert (await caller.turn("after"))["response"]["status"] == "completed"
    assert caller.opening["session_id"] in stories(data)


def base64_of(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


GARBAGE = {
    "not JSON": ("{", "invalid_event", None),
    "not an object": ("[1]", "invalid_event", None),
    "nothing": ("", "invalid_event", None),
    "no type": ('{"event_id":"e1"}', "invalid_event", None),
    "a type of another kind": ('{"type":7}', "invalid_type", "type"),
    "an unknown type": ('{"type":"session.explode"}', "invalid_value", "type"),
    "a server's type": ('{"type":"response.done"}', "invalid_value", "type"),
    "the beta's type": ('{"type":"transcription_session.update"}', "invalid_value", "type"),
    "nested without end": ('{"type":"session.update","session":' + "[" * 5000 + "]" * 5000 + "}", "*", None),
    "odd PCM": (
        json.dumps({"type": "input_audio_buffer.append", "audio": base64_of(b"abc")}),
        "*",
        "audio",
    ),
    "no base64": ('{"type":"input_audio_buffer.append","audio":"!!!"}', "invalid_value", "audio"),
    "cut base64": ('{"type":"input_audio_buffer.append","audio":"AAA"}', "invalid_value", "audio"),
    "audio as numbers": ('{"type":"input_audio_buffer.append","audio":[0,0]}', "invalid_type", "audio"),
    "no audio": ('{"type":"input_audio_buffer.append"}', "missing_required_parameter", "audio"),
    "audio of another rate": (
        json.dumps(
            {
                "type": "session.update",
                "session": {
                    "type": "realtime",
                    "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}},
                },
            }
        ),
        "*",
        "session.audio.input.format.rate",
    ),
    "an empty commit": ('{"type":"input_audio_buffer.commit"}', "input_audio_buffer_commit_empty", None),
    "deleting nothing": ('{"type":"conversation.item.delete","item_id":"no"}', "*", "item_id"),
    "truncating nothing": (
        '{"type":"conversation.item.truncate","item_id":"no","content_index":0,"audio_end_ms":5}',
        "*",
        "item_id",
    ),
    "retrieving nothing": (
        '{"type":"conversation.item.retrieve","item_id":"no"}',
        "item_retrieve_invalid_item_id",
        "item_id",
    ),
    "a place after nothing": (
        json.dumps(
            {
                "type": "conversation.item.create",
                "previous_item_id": "no",
                "item": {
                    "type": "message",
                    "role": "user",
                    "content": [{"type": "input_text", "text": "x"}],
                },
            }
        ),
        "*",
        "previous_item_id",
    ),
    "cancelling nothing": ('{"type":"response.cancel"}', "response_cancel_not_active", None),
    "NaN": ('{"type":"response.create","response":{"max_output_tokens":NaN}}', "invalid_event", None),
    "a lone surrogate": ('{"type":"session.update","session":{"instructions":"\\ud800"}}', "*", None),
}


def test_garbage_gets_a_typed_error_and_does_no_harm(tmp_path: Path) -> None:
    """All of it on one line, so that what one leaves behind would show in the next; every miss is named."""

    async def story() -> None:
        async with unharmed(tmp_path / "data") as (_, caller):
            misses = []
            for name, (text, code, param) in GARBAGE.items():
                before = len(caller.frames)
                await caller.socket.send(text)
                error = (await caller.wait("error"))["error"]
                # What came of it has come when the answer to the next has.
                await caller.send("conversation.item.retrieve", item_id="no", event_id=name)
                next_ = (await caller.wait("error"))["error"]
                shown = {frame["type"] for frame in caller.frames[before:]}
                is_as_it_should = (
                    error["type"] == "invalid_request_error"
                    and next_.get("event_id") == name
                    and error["code"]
                    and code in ("*", error["code"])
                    and param in (None, error.get("param"))
                    and shown <= {"error", "openline.command.settled"}
                )
                if not is_as_it_should:
                    misses.append((name, error, shown))
            assert not misses, misses

    asyncio.run(story())


def test_a_binary_frame_is_refused_and_the_line_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with unharmed(tmp_path / "data") as (_, caller):
            await caller.socket.send(silence(20))
            assert (await caller.wait("error"))["error"]["code"] == "invalid_event"

    asyncio.run(story())


def test_a_frame_that_is_too_large_costs_its_line_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with unharmed(tmp_path / "data") as (gateway, _):
            flooder = await dial(gateway.url)
            with contextlib.suppress(websockets.ConnectionClosed):
                await flooder.socket.send("x" * (MAX_EVENT * 2))
            assert (await flooder.wait_closed())[0] in (1009, 1006)

    asyncio.run(story())


def test_the_largest_audio_is_taken_and_one_more_byte_is_not(tmp_path: Path) -> None:
    async def story() -> None:
        async with unharmed(tmp_path / "data") as (_, caller):
            await caller.append(bytes(15 * 1024 * 1024))
            await caller.append(bytes(15 * 1024 * 1024 + 2))
            assert (await caller.wait("error"))["error"]["param"] == "audio"
            assert len(caller.of("error")) == 1

    asyncio.run(story())


def test_a_second_response_create_is_the_protocols_own_error(tmp_path: Path) -> None:
    async def story() -> None:
        async with unharmed(tmp_path / "data") as (_, caller):
            await caller.ask("long", output_modalities=["audio"])
            await caller.wait("response.created")
            second = await caller.send("response.create")
            error = (await caller.wait("error"))["error"]
            assert error["code"] == "conversation_already_has_active_response"
            assert error["event_id"] == second
            await caller.send("response.cancel")
            assert (await caller.wait("response.done"))["response"]["status"] == "cancelled"

    asyncio.run(story())


def test_ten_thousand_events_in_a_burst_have_ten_thousand_outcomes(tmp_path: Path) -> None:
    """Half are wrong. Each has exactly one outcome, in order, and the log has what was accepted."""

    async def story() -> None:
        data = tmp_path / "data"
        async with unharmed(data) as (_, caller):
            sent: list[str] = []
            for number in range(5_000):
                content = [{"type": "input_text", "text": "x"}]
                item = {"id": f"i{number}", "type": "message", "role": "user", "content": content}
                good = {"type": "conversation.item.create", "event_id": f"g{number}", "item": item}
                bad = {"type": "conversation.item.delete", "event_id": f"b{number}", "item_id": "no"}
                sent += [json.dumps(good), json.dumps(bad)]
            await asyncio.gather(*(caller.socket.send(text) for text in sent))
            await caller.wait(
                "openline.command.settled", lambda frame: frame["command"] == "b4999", patience=40
            )
            settled = [
                (frame["command"], frame["outcome"])
                for frame in caller.of("openline.command.settled")
                if frame["command"][0] in "gb"
            ]
            expected = [
                outcome
                for number in range(5_000)
                for outcome in ((f"g{number}", "accepted"), (f"b{number}", "rejected"))
            ]
            assert settled == expected
        found = stories(data)[caller.opening["session_id"]]
        assert len(found.of("conversation.item.created")) == 5_000 + 2

    asyncio.run(story())


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that are given up sooner than in life."""
    limits = functools.partial(SocketLimits, max_backlog_bytes=1_000_000, close_deadline_s=0.3)
    monkeypatch.setattr(app, "SocketLimits", limits)


def test_a_client_that_never_reads_is_dropped_and_its_session_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)

    async def story() -> None:
        async with unharmed(tmp_path / "data") as (gateway, _):
            deaf = await dial(gateway.url)
            deaf.freeze()
            with pytest.raises(websockets.ConnectionClosed):
                async with asyncio.timeout(20):
                    while True:
                        await deaf.write("y" * 100_000)
            session = deaf.opening["session_id"]
            driver = gateway.gateway.drivers[session]
            async with asyncio.timeout(10):
                while driver.clients:
                    await asyncio.sleep(0.02)
            await deaf.bury()
            async with line(gateway.url, session_id=session) as back:
                # Out of band: a turn would say all those texts again in one frame, past this test's narrow limit.
                await back.send("response.create", response={"conversation": "none", "input": []})
                assert (await back.wait("response.done"))["response"]["status"] == "completed"
            await gateway.store.flush()
            closed = stories(tmp_path / "data")[session].of("openline.connection.detached")[0]
            assert closed.code == 4413  # type: ignore[attr-defined]  # of the fact

    asyncio.run(story())


def test_a_client_that_never_answers_pings_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow(monkeypatch)
    monkeypatch.setattr(listener, "Heartbeat", lambda *_: Heartbeat(0.1, 0.4))

    async def story() -> None:
        async with unharmed(tmp_path / "data") as (gateway, _):
            dead = await dial(gateway.url)
            session = dead.opening["session_id"]
            dead.freeze()
            async with asyncio.timeout(10):
                while gateway.gateway.drivers[session].clients:
                    await asyncio.sleep(0.02)
            await dead.bury()
            assert gateway.gateway.drivers[session].session.state.status == "detached"
            await gateway.store.flush()
            (left,) = stories(tmp_path / "data")[session].of("openline.connection.detached")
            assert left.code == 4408  # type: ignore[attr-defined]  # of the fact

    asyncio.run(story())


def test_of_two_microphones_the_newest_wins(tmp_path: Path) -> None:
    async def story() -> None:
        async with unharmed(tmp_path / "data") as (gateway, _):
            first = await dial(gateway.url)
            async with line(gateway.url, session_id=first.opening["session_id"]) as second:
                assert await first.wait_closed() == (4409, "replaced by a newer speaker")
                assert (await second.turn("mine now"))["response"]["status"] == "completed"
            await gateway.store.flush()
            found = stories(tmp_path / "data")[first.opening["session_id"]]
            reasons = [fact.reason for fact in found.of("openline.connection.detached")]  # type: ignore[attr-defined]  # of the fact
            assert reasons[0] == "replaced"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"role": "king"}, "role"),
        ({"after": "yesterday"}, "after"),
        ({"pacing": "fast"}, "pacing"),
        ({"session_id": "no spaces!"}, "session_id"),
    ],
)
def test_wrong_words_in_the_url_are_named(tmp_path: Path, query: dict[str, str], param: str) -> None:
    async def story() -> None:
        async with unharmed(tmp_path / "data") as (gateway, _):
            caller = await dial_unheard(gateway.url, **query)
            error: Frame = (await caller.wait("error"))["error"]
            assert (error["code"], error["param"]) == ("invalid_value", param)
            assert (await caller.wait_closed())[0] == 4000

    asyncio.run(story())


# --------------------------------------------------------------------------------- the disk, the command


def refused(*arguments: str, data: Path) -> str:
    """What ``openline serve`` says when it does not start; its exit code is not 0, and there is no traceback."""
    gateway = GatewayProcess(data, arguments)
    done = subprocess.run(
        gateway.command, capture_output=True, text=True, timeout=30, env=gateway.whole_environment
    )
    assert done.returncode not in (0, 70), done
    assert "Traceback" not in done.stderr and not done.stdout, done
    return done.stderr


def test_a_second_gateway_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data") as first:
        said = refused("--model", "scripted", data=tmp_path / "data")
        assert first.process is not None and str(first.process.pid) in said, said
        assert first.stop() == 0


def test_an_unwritable_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert str(tmp_path / "file") in refused("--model", "scripted", data=tmp_path / "file" / "data")
    if os.geteuid() != 0:  # nothing is unwritable for root
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "locked" in refused("--model", "scripted", data=tmp_path / "locked" / "data")


def test_data_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with GatewayProcess(data) as gateway:
        assert gateway.stop() == 0
    name = data / DATABASE_NAME
    with sqlite3.connect(name) as base:
        base.execute("PRAGMA user_version = 99")
    base.close()
    before = name.read_bytes()
    said = refused("--model", "scripted", data=data)
    assert "newer" in said and "99" in said and "Upgrade" in said
    assert name.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "many"), "--port: expected a whole number from 0 to 65535; got 'many'"),
        (("--model", "oracle"), "expected 'embedded', "),
        (("--host", "0.0.0.0"), "API key"),
        (("--api-keys", "short"), "8 to 512"),
        (("--tls-cert", "nowhere.pem"), "both or neither"),
        (("--recognizer-grammar", "nowhere.txt"), "nowhere.txt"),
        (("--resume-window-ms", "-1"), "--resume-window-ms"),
        (("nowhere:agent",), "nowhere"),
        (("--what",), "--what"),
    ],
)
def test_a_wrong_command_line_is_named(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(*arguments, data=tmp_path / "data")
