"""The command line as such: help for every command, and what exit codes mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from openline.cli.main import COMMANDS, main, parser


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_all_but_serve_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: openline {command}" in text
    assert command == "serve" or "example: openline" in text


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_overview_says_of_a_command_what_the_command_says_of_itself(name: str) -> None:
    (row,) = [line for line in parser(name).format_help().splitlines() if line.strip().startswith(f"{name} ")]
    assert " ".join(row.split()) == f"{name} {COMMANDS[name]}"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["talk", "--text", "a", "--wav", "b"],
        ["sessions", "--status", "asleep"],
        ["demo", "--port", "many"],
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["talk", "--no-such-flag"],
            "'openline talk' does not know '--no-such-flag'. See 'openline talk --help'.",
        ),
        (["serve", "--prot=1"], "'openline serve' does not know '--prot=1'. Did you mean '--port'?"),
        (["serve", "--llm-ur", "x"], "'openline serve' does not know '--llm-ur'. Did you mean '--llm-url'?"),
        (["tail", "one", "more"], "'openline tail' does not know 'more'. See 'openline tail --help'."),
        (["replay"], "expected one session's id, or --all"),
        (["replay", "sess_x", "--all"], "expected one session's id, or --all"),
        (["replay", "sess_x", "--jobs", "2"], "--jobs: expected a number from 1, together with --all"),
        (["replay", "--all", "--jobs", "0"], "--jobs: expected a number from 1, together with --all"),
        (["replay", "sess_x", "--at", "0"], "--at: expected a seq from 1"),
        (["sessions", "--url", "ftp://x"], "expected http(s)://host:port; got 'ftp://x'"),
        (["sessions", "--url", "http://127.0.0.1:1"], "no gateway answers at http://127.0.0.1:1"),
        (["tail", "--url", "http://127.0.0.1:1"], "'openline serve'"),
        (["talk", "--text", "hello", "--url", "http://127.0.0.1:1"], "no gateway answers"),
        (["talk", "--wav", "absent.wav"], "cannot be read as WAV"),
        (["serve", "--port", "70000"], "--port: expected a whole number from 0 to 65535; got '70000'"),
    ],
)
def test_values_that_cannot_be_end_with_2_and_say_what_to_do(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_directory_without_a_log_is_an_error_with_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sessions", "--data", str(tmp_path)]) == 3
    assert "Pass the --data that the gateway runs with." in capsys.readouterr().err


def test_doctor_judges_the_settings_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data", str(tmp_path / "d"), "--port", "0"]) == 0
    shown = capsys.readouterr().out
    assert "settings" in shown and "sqlite" in shown and "BAD" not in shown
    assert main(["doctor", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "d")]) == 1
    assert "BAD" in capsys.readouterr().out
    assert main(["doctor", "--port", "many", "--json"]) == 1
    assert '"level": "bad"' in capsys.readouterr().out
