"""The data file and what is read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from openline.core.model import ToolSpec
from openline.errors import ConfigError
from openline.rules.match import RULES_FILE, load_rules
from openline.rules.words import is_near, name_words, stem

BOOK = load_rules()
SLOTS = {
    "persona": "x", "introduction": "x", "last": "x", "tools_sentence": "x", "text": "x", "n": "x", "m": "x",
}  # fmt: skip


def test_every_reply_can_be_filled_in() -> None:
    for rule in BOOK.rules:
        for line in rule.row.say:
            assert line.format(**SLOTS)


def test_every_rule_can_be_reached() -> None:
    """A rule all of whose phrases an earlier one takes would never speak."""
    for rule in BOOK.rules:
        plain = [
            phrase.replace("{text}", "tiger").replace("{n:number}", "ten").replace("{m:number}", "two")
            for pattern in rule.row.when
            for phrase in [pattern.split("|")[0].replace("(", " ").replace(")", " ").replace("*", " ")]
        ]
        plain = [
            " ".join(part for part in phrase.split() if "[" not in part and "]" not in part)
            for phrase in plain
        ]
        found = [match.rule.name for phrase in plain if (match := BOOK.find_rule(phrase.split()))]
        assert rule.row.name in found or any("(" in when for when in rule.row.when), rule.row.name


def test_a_long_turn_matches_nothing_quickly() -> None:
    assert BOOK.find_rule(["about"] * 500) is None


@pytest.mark.parametrize(
    ("text", "tool"),
    [
        ("is it going to rain in rome", "get_weather"),
        ("whether in paris", "get_weather"),
        ("send bob an email", "sendEmailMessage"),
        ("get me something", None),
        ("how are you", None),
        ("what time is it", None),
        ("please schedul a meetings", "meeting_scheduler"),
    ],
)
def test_the_tool_that_a_sentence_is_about(text: str, tool: str | None) -> None:
    tools = [
        ToolSpec("get_weather", "Current weather in a city."),
        ToolSpec("sendEmailMessage", "Send an email to a person."),
        ToolSpec("meeting_scheduler", "Schedules a meeting with somebody."),
    ]
    found = BOOK.best_tool(BOOK.topic(text), tools)
    assert (found.name if found else None) == tool


def test_names_are_split_in_words() -> None:
    assert name_words("getStockLevel") == ["get", "stock", "level"]
    assert name_words("HTTPServer-name_2") == ["http", "server", "name", "2"]


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [("orders", "order"), ("ordered", "order"), ("ordering", "order"), ("boxes", "box"), ("stopping", "stop"),
     ("cities", "city"), ("glass", "glass"), ("note", "note"), ("calling", "call"), ("schedule", "schedul")],
)  # fmt: skip
def test_stems(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_one_letter_off_is_near_in_long_words() -> None:
    assert is_near("hinges", "hinge") and is_near("stock", "stoch")
    assert not is_near("note", "not") and not is_near("stock", "shack")


def test_a_bad_rules_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "my_rules.toml"
    for text in ("[words", RULES_FILE.read_text().replace("[speech]", "[speech]\nshout = 'x'"), "x = 1"):
        broken.write_text(text)
        with pytest.raises(ConfigError, match="my_rules.toml: expected the layout"):
            load_rules(broken)
    with pytest.raises(ConfigError, match="expected a readable file"):
        load_rules(tmp_path / "none.toml")
