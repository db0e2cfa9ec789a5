"""Conversations with the small model, told in text files: ``tests/scenarios/rules/*.txt``.

Input lines: ``instructions: …``, ``tool: NAME | description | JSON Schema properties (a trailing ! on a name
makes it required)``, ``choice: JSON``, ``parallel: false``, ``limit: N``; ``> words`` is the caller;
``result: TEXT`` is what the next open call returned; ``system: TEXT`` an item of the system; ``. `` asks for
a reply with no new turn. Expected lines, written anew with ``pytest --rewrite`` (look at the diff!):
``< words`` said, ``call NAME JSON`` called, ``done REASON`` when it is not "completed".
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from openline.adapters.llm_rules import RulesModel
from openline.core.model import Item, Part, ToolSpec
from openline.core.value import replace
from openline.ports import ModelDone, ModelRequest, TextDelta, ToolCallDone
from openline.types import ItemId, ResponseId, SessionId

STORIES = sorted(Path(__file__).with_name("rules").glob("*.txt"))
_EXPECTED = ("< ", "call ", "done ")
_MODEL = RulesModel()


class Story:
    """Plays the lines of one file and writes down what the model did."""

    def __init__(self) -> None:
        self.request = ModelRequest(
            session=SessionId("sess_story"), response_id=ResponseId("resp_0"), instructions="", items=(), tools=(),
            tool_choice='"auto"',
        )  # fmt: skip
        self.open_calls: list[str] = []
        self.count = 0

    def play(self, lines: list[str]) -> list[str]:
        told = [line for line in lines if not line.startswith(_EXPECTED)]
        written: list[str] = []
        for at, line in enumerate(told):
            written.append(line)
            is_turn = self.take(line)
            following = told[at + 1] if at + 1 < len(told) else ""
            if is_turn and not (line.startswith("result:") and following.startswith("result:")):
                written.extend(asyncio.run(self.reply()))
        return written

    def take(self, line: str) -> bool:
        """True if the model is to answer now."""
        key, _, value = line.partition(" ")
        match key:
            case "instructions:":
                self.request = replace(self.request, instructions=value)
            case "tool:":
                self.request = replace(self.request, tools=(*self.request.tools, _tool(value)))
            case "choice:":
                self.request = replace(self.request, tool_choice=value)
            case "parallel:":
                self.request = replace(self.request, parallel_tool_calls=json.loads(value))
            case "limit:":
                self.request = replace(self.request, max_output_tokens=json.loads(value))
            case ">":
                self.open_calls.clear()
                self.add(Item(self.id(), "message", "user", "user", content=(Part("input_audio", value),)))
                return True
            case "system:":
                self.add(Item(self.id(), "message", "system", "system", content=(Part("input_text", value),)))
            case "cut:":
                self.cut(value)
            case "result:":
                assert self.open_calls, f"no call is open for {line!r}; the story so far: {self.told()}"
                call_id = self.open_calls.pop(0)
                self.add(Item(self.id(), "function_call_output", "tool", call_id=call_id, output=value))
                return True
            case ".":
                return True
            case "#" | "":
                pass
            case _:
                raise AssertionError(f"a story line begins with {key!r}; see the top of this file")
        return False

    def told(self) -> str:
        return " / ".join(item.text or item.name for item in self.request.items[-6:])

    def cut(self, heard: str) -> None:
        """The caller heard only this much of the last reply."""
        last = self.request.items[-1]
        cut = replace(last, content=(Part("output_audio", heard),), heard_ms=1)
        self.request = replace(self.request, items=(*self.request.items[:-1], cut))

    async def reply(self) -> list[str]:
        self.count += 1
        request = replace(self.request, response_id=ResponseId(f"resp_{self.count}"))
        text, lines = "", []
        async for event in _MODEL.generate(request):
            match event:
                case TextDelta(piece):
                    text += piece
                case ToolCallDone(_, call_id, name, arguments):
                    lines.append(f"call {name} {arguments}")
                    self.open_calls.append(call_id)
                    self.add(Item(self.id(), "function_call", "assistant", call_id=call_id, name=name,
                                  arguments=arguments))  # fmt: skip
                case ModelDone(_, reason):
                    lines += [] if reason == "completed" else [f"done {reason}"]
        if text:
            lines.insert(0, f"< {text}")
            part = Part("output_audio", text)
            self.add(Item(self.id(), "message", "assistant", "assistant", content=(part,)))
        return lines

    def add(self, item: Item) -> None:
        self.request = replace(self.request, items=(*self.request.items, item))

    def id(self) -> ItemId:
        return ItemId(f"item_{len(self.request.items)}")


def _tool(line: str) -> ToolSpec:
    name, description, properties = (part.strip() for part in line.split("|", 2))
    rows = json.loads(properties)
    required = [key[:-1] for key in rows if key.endswith("!")]
    schema = {
        "type": "object",
        "properties": {k.rstrip("!"): v for k, v in rows.items()},
        "required": required,
    }
    return ToolSpec(name, description, json.dumps(schema))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_model_answers_as_told(path: Path, rewrite: bool) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    written = Story().play(lines)
    if rewrite:
        path.write_text("\n".join(written) + "\n", encoding="utf-8")
        return
    assert written == lines, f"{path.name} differs; if that is meant: pytest --rewrite {Path(__file__).name}"


def test_there_are_stories() -> None:
    assert len(STORIES) >= 5
