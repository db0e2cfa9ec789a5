"""What the caller of ``openline demo`` says is understood, as written and as a recognizer hands it over."""

from __future__ import annotations

import asyncio
import re

import pytest

from openline.adapters.llm_rules import RulesModel
from openline.agent.builtin import BUILTIN_TOOLS, ToolContext
from openline.agent.schema import function_spec
from openline.core.model import Item, Part, ToolSpec
from openline.core.value import replace
from openline.demo.phrases import Fact, load
from openline.ports import ModelRequest, TextDelta, ToolCallDone
from openline.testing.check_llm import ask, collect
from openline.types import ItemId

PHRASES = load()
SPECS = [function_spec(function, injected={ToolContext}) for function in BUILTIN_TOOLS]
TOOLS = tuple(ToolSpec(spec.name, spec.description, spec.parameters) for spec in SPECS)


def heard(text: str) -> str:
    """As a recognizer writes it."""
    return re.sub(r"[^a-z' ]", "", text.lower())


def answers(request: ModelRequest) -> tuple[str, list[str]]:
    events = asyncio.run(collect(RulesModel(), request))
    calls = [f"{event.name} {event.arguments}" for event in events if isinstance(event, ToolCallDone)]
    return "".join(event.text for event in events if isinstance(event, TextDelta)), calls


def turn(at: int, text: str) -> Item:
    who = "assistant" if at % 2 else "user"
    return Item(ItemId(f"item_{at}"), "message", who, who, content=(Part("input_audio", text),))


@pytest.mark.parametrize("fact", PHRASES.facts, ids=lambda fact: fact.value.replace(" ", "_"))
@pytest.mark.parametrize("is_heard", [True, False], ids=["heard", "written"])
def test_each_fact_is_remembered(fact: Fact, is_heard: bool) -> None:
    told, asked = fact.statement.text, PHRASES.by_name("ask").text
    texts = [heard(told), "Okay.", heard(asked)] if is_heard else [told, "Okay.", asked]
    request = replace(ask("", tools=TOOLS), items=tuple(turn(at, text) for at, text in enumerate(texts)))
    assert answers(request) == (fact.answer, [])


@pytest.mark.parametrize(
    ("name", "answer", "calls"),
    [
        ("about", "Openline keeps one line open", []),
        ("stop", "Okay.", []),
        ("time", "", ["get_time {}"]),
        ("timer", "", ['set_timer {"seconds": 300}']),
        ("times", "", ['calculate {"expression": "twelve times seven"}']),
        ("hello", "Hello, this is Openline.", []),
        ("ask", "You have not told me your code word.", []),
        ("bye", "Goodbye.", []),
    ],
)
def test_each_phrase_is_understood(name: str, answer: str, calls: list[str]) -> None:
    said, called = answers(ask(heard(PHRASES.by_name(name).text), tools=TOOLS))
    assert said.startswith(answer) and bool(said) == bool(answer)
    assert called == calls


def test_go_on_takes_up_the_sentence_that_was_cut() -> None:
    about = heard(PHRASES.by_name("about").text)
    whole, _ = answers(ask(about))
    sentences = whole.split(". ")
    cut = replace(turn(1, ". ".join(sentences[:2]) + ". When you"), heard_ms=4_000)
    items = (turn(0, about), cut, turn(2, "okay please hold on"), turn(3, "Okay."), turn(4, "go on"))
    said, _ = answers(replace(ask(""), items=items))
    assert said == ". ".join(sentences[2:])
    uncut = replace(cut, heard_ms=None)
    said, _ = answers(replace(ask(""), items=(items[0], uncut, *items[2:])))
    assert said == "I had said all I know about it."
