"""The command line as people use it: real processes against a real gateway, and against its directory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import pytest

from integration.gateway import PACKAGE, GatewayProcess
from openline.cli.main import main

Json = dict[str, Any]
TWINS = ("--recognizer", "scripted", "--synthesizer", "tone")
"""The embedded model with ears and voice that need no wheels: it hears "hello"."""
RECORDING = Path(PACKAGE) / "openline" / "demo" / "audio" / "hello.wav"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One gateway with one typed session in it, for all tests of this file that only look."""
    with GatewayProcess(tmp_path_factory.mktemp("cli") / "data", TWINS) as running:
        talk(running, "--text", "What is twelve times seven?", "--session", "sess_typed_0001")
        yield running


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str, stdin: str = "") -> Done:
    """Run in this process: what it starts would take ten times as long as what it does."""
    out, err, given = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
    finally:
        sys.stdin = given
    return Done(code, out.getvalue(), err.getvalue())


def process(*arguments: str) -> Done:
    """As a person runs it."""
    ran = subprocess.run(
        [sys.executable, "-m", "openline", *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        env={**os.environ, "PYTHONPATH": PACKAGE},
    )
    return Done(ran.returncode, ran.stdout, ran.stderr)


def talk(gateway: GatewayProcess, *arguments: str, stdin: str = "") -> Done:
    return command("talk", "--url", gateway.url, *arguments, stdin=stdin)


def rows(done: Done) -> list[Json]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def from_both(gateway: GatewayProcess, *arguments: str) -> Iterator[list[Json]]:
    """The same command over HTTP and from the directory, beside the running gateway."""
    yield rows(command(*arguments, "--json", "--url", gateway.url))
    yield rows(command(*arguments, "--json", "--data", str(gateway.data)))


# ------------------------------------------------------------------------------------------------- talk


def test_one_typed_question_gets_its_answer_and_shows_the_tool(gateway: GatewayProcess) -> None:
    done = process("talk", "--url", gateway.url, "--text", "What is twelve times seven?")
    assert done.returncode == 0, done.stderr
    assert "calculate(" in done.stdout and "eighty four" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_typed_conversation_is_read_from_a_pipe(gateway: GatewayProcess) -> None:
    done = talk(gateway, stdin="My code word is tiger seven.\n\nWhat is my code word?\n")
    assert done.returncode == 0, done.stderr
    assert "Your code word is tiger seven." in done.stdout


def test_a_session_is_come_back_to_by_its_id(gateway: GatewayProcess) -> None:
    talk(gateway, "--session", "sess_back_00001", "--text", "My code word is lemon three.")
    done = talk(gateway, "--session", "sess_back_00001", "--text", "What is my code word?")
    assert "lemon three" in done.stdout, done.stdout


def test_a_recording_is_spoken_and_the_reply_is_kept(gateway: GatewayProcess, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    started = time.monotonic()
    done = talk(gateway, "--wav", str(RECORDING), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("you    hello\n") and "agent  " in done.stdout
    with wave.open(str(RECORDING)) as said, wave.open(str(out)) as reply:
        assert time.monotonic() - started >= said.getnframes() / said.getframerate(), "not at real-time pace"
        assert reply.getframerate() == 24_000 and reply.getnframes() > 2_400


def test_events_for_programs_hold_no_audio_and_no_token(gateway: GatewayProcess) -> None:
    events = rows(talk(gateway, "--json", "--text", "Hello"))
    kinds = [event["type"] for event in events]
    assert kinds[0] == "session.created" and "response.done" in kinds
    assert "token" not in events[0]["openline"]
    assert not any("delta" in event for event in events if "audio.delta" in event["type"])


def test_a_wrong_key_is_said_in_the_gateways_words(tmp_path: Path) -> None:
    keys = {"OPENLINE_API_KEYS": "desk=sk-0123456789abcdef"}
    with GatewayProcess(tmp_path / "data", environment=keys) as running:
        for arguments in (["talk", "--text", "hello"], ["sessions"]):
            done = command(*arguments, "--url", running.url, "--key", "sk-not-this-one")
            assert done.returncode == 2 and "--key" in done.stderr, done
            assert "sk-not-this-one" not in done.stderr
            assert command(*arguments, "--url", running.url, "--key", "sk-0123456789abcdef").returncode == 0


# ------------------------------------------------------------------------------- sessions, tail, trace


def test_a_model_and_a_recognizer_that_are_not_there_are_no_silence(tmp_path: Path) -> None:
    """Nobody listens on port 1: the terminal says that it failed, and the gateway's log says where and why."""
    urls = ("--llm-url", "http://127.0.0.1:1/v1", "--llm-model", "m", "--stt-url", "http://127.0.0.1:1/v1")
    with GatewayProcess(tmp_path / "data", (*urls, "--stt-model", "w", "--synthesizer", "tone")) as gateway:
        typed = talk(gateway, "--text", "hello")
        spoken = talk(gateway, "--wav", str(RECORDING))
        as_rows = talk(gateway, "--text", "hello", "--json")
    assert typed.returncode == 1
    assert "The reply failed (link_unavailable)" in typed.stdout
    assert spoken.returncode != 0
    assert "was not recognised (error)" in spoken.stderr
    assert as_rows.returncode == 1
    said = gateway.errors.read_text()
    assert "language model at 127.0.0.1:1 cannot be reached" in said
    assert "recognizer at 127.0.0.1:1: failed" in said


def test_sessions_are_the_same_over_http_and_from_the_directory(gateway: GatewayProcess) -> None:
    over_http, from_disk = from_both(gateway, "sessions")
    assert over_http == from_disk
    assert "sess_typed_0001" in [row["id"] for row in over_http]


def test_one_session_is_shown_with_what_was_said(gateway: GatewayProcess) -> None:
    for (shown,) in from_both(gateway, "sessions", "sess_typed_0001"):
        assert shown["id"] == "sess_typed_0001"
        assert [line["author"] for line in shown["transcript"]] == ["user", "assistant", "assistant"]
    text = command("sessions", "sess_typed_0001", "--url", gateway.url).stdout
    assert "What is twelve times seven?" in text and "That is eighty four." in text


def test_a_session_is_forgotten(gateway: GatewayProcess) -> None:
    talk(gateway, "--text", "What is twelve times seven?", "--session", "sess_to_forget_1")
    refused = command("sessions", "sess_to_forget_1", "--delete", "--data", str(gateway.data))
    assert refused.returncode == 2 and "a data directory is only read" in refused.stderr
    assert command("sessions", "--delete", "--url", gateway.url).returncode == 2
    done = command("sessions", "sess_to_forget_1", "--delete", "--url", gateway.url)
    assert done.stdout == "deleted  sess_to_forget_1\n", done.stderr
    again = command("sessions", "sess_to_forget_1", "--delete", "--url", gateway.url)
    assert again.returncode == 3 and "sess_to_forget_1" in again.stderr


def test_tail_shows_the_newest_facts_and_filters_by_type(gateway: GatewayProcess) -> None:
    over_http, from_disk = from_both(gateway, "tail", "sess_typed_0001", "-n", "1000")
    assert [(e["id"], e["type"], e["data"]) for e in over_http] == [
        (e["id"], e["type"], e["data"]) for e in from_disk
    ]
    assert [int(e["sequence"]) for e in over_http] == list(range(1, len(over_http) + 1))
    for tools in from_both(gateway, "tail", "sess_typed_0001", "--type", "openline.tool.*"):
        assert [e["type"].rpartition(".")[2] for e in tools] == ["requested", "started", "settled"]
    for newest in from_both(gateway, "tail", "-n", "3"):
        assert len(newest) == 3


@pytest.mark.parametrize("place", ["--url", "--data"])
def test_tail_follows_what_happens(gateway: GatewayProcess, place: str) -> None:
    where = gateway.url if place == "--url" else str(gateway.data)
    follower = subprocess.Popen(
        [sys.executable, "-m", "openline", "tail", "-f", "-n", "0", "--json", place, where,
         "--type", "openline.session.started"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PACKAGE},
    )  # fmt: skip
    try:
        assert follower.stdout is not None
        # Two sessions, because the first may come before the follower has found the end of the feed.
        seen: list[str] = []
        while not seen:
            talk(gateway, "--text", "Hello")
            os.set_blocking(follower.stdout.fileno(), False)
            seen = [line for line in follower.stdout if line]
        assert json.loads(seen[0])["type"] == "openline.session.started"
    finally:
        follower.terminate()
        follower.wait()
        if follower.stdout is not None:
            follower.stdout.close()


def test_a_trace_is_the_whole_chain_of_a_tool_call(gateway: GatewayProcess) -> None:
    facts = rows(command("tail", "sess_typed_0001", "-n", "1000", "--json", "--url", gateway.url))
    call = next(e["data"]["call_id"] for e in facts if e["type"] == "openline.tool.started")
    for found in from_both(gateway, "trace", call):
        kinds = [row["type"] for row in found if "type" in row]
        assert kinds.count("response.created") == kinds.count("response.done") == 2
        assert {"openline.tool.requested", "openline.tool.started", "openline.tool.settled"} <= set(kinds)
        offsets = [row["offset_ms"] for row in found if "offset_ms" in row]
        assert offsets[0] == 0 and offsets == sorted(offsets)
        assert any(row.get("span") == "tool calculate" for row in found)
    text = command("trace", "sess_typed_0001", "--data", str(gateway.data)).stdout
    assert "tool settled" in text and "ms  " in text


def test_what_is_not_there_is_said(gateway: GatewayProcess) -> None:
    for place in (("--url", gateway.url), ("--data", str(gateway.data))):
        assert command("sessions", "sess_unknown_1", *place).returncode == 3
        done = command("trace", "turn_unknown", *place)
        assert done.returncode == 2 and "nothing at" in done.stderr


# --------------------------------------------------------------------------------------- replay, doctor


def test_replay_verifies_beside_the_running_gateway(gateway: GatewayProcess) -> None:
    results = rows(command("replay", "--all", "--verify", "--json", "--data", str(gateway.data)))
    assert results and all(row["ok"] and row["verified"] and row["steps"] > 0 for row in results)
    many = rows(command("replay", "--all", "--verify", "--json", "--jobs", "2", "--data", str(gateway.data)))
    told = [(row["session"], row["ok"], row["steps"]) for row in many]
    assert told == [(row["session"], row["ok"], row["steps"]) for row in results], "processes change nothing"
    text = command("replay", "sess_typed_0001", "--verify", "--data", str(gateway.data)).stdout
    assert text.startswith("same  sess_typed_0001") and "steps/s" in text


def test_the_state_at_a_fact_is_that_of_the_past(gateway: GatewayProcess) -> None:
    place = ("--data", str(gateway.data), "--json")
    (early,) = rows(command("replay", "sess_typed_0001", "--at", "3", *place))
    assert early["conversation"] == [] and early["status"] == "live"
    assert command("replay", "sess_typed_0001", "--at", "9999", *place).returncode == 2


def test_a_tampered_log_fails_the_verification_and_names_the_step(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "data", TWINS) as running:
        talk(running, "--text", "What is twelve times seven?", "--session", "sess_tamper_01")
        assert running.stop() == 0
    db = apsw.Connection(str(tmp_path / "data" / "log.sqlite"))
    ((pos, body, first_seq),) = db.execute(
        "SELECT pos, body, first_seq FROM steps WHERE types LIKE '% openline.tool.settled %'"
    )
    assert isinstance(body, bytes) and b"eighty four" not in body.replace(b"84", b"")
    db.execute("UPDATE steps SET body = ? WHERE pos = ?", (body.replace(b"succeeded", b"cancelled", 1), pos))
    db.close()
    done = command("replay", "--all", "--verify", "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "DIFFERS  sess_tamper_01" in done.stdout and f"seq {first_seq}" in done.stdout
    assert (
        command("replay", "--all", "--verify", "--jobs", "2", "--data", str(tmp_path / "data")).returncode
        == 1
    )
    assert command("replay", "--all", "--data", str(tmp_path / "data")).returncode == 0, (
        "a fold compares nothing"
    )


def test_doctor_knows_of_the_running_gateway(gateway: GatewayProcess) -> None:
    found = rows(command("doctor", "--json", "--data", str(gateway.data), "--port", str(gateway.port)))
    by_name = {row["name"]: row for row in found}
    assert gateway.process is not None
    assert str(gateway.process.pid) in by_name["lock"]["says"]
    assert by_name["port"]["level"] == "note" and by_name["data"]["level"] == "ok"
