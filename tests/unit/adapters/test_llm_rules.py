"""The embedded model's stream, memory over a restart, and its cost."""

from __future__ import annotations

import asyncio
import time

from openline.adapters.llm_rules import RulesModel, estimate_tokens
from openline.core.model import Item, Part, ToolSpec
from openline.core.value import replace
from openline.ports import ModelDone, ModelRequest, TextDelta, ToolCallDelta, ToolCallDone
from openline.testing.check_llm import ask, collect
from openline.types import ItemId


def text_of(model: RulesModel, request: ModelRequest) -> str:
    events = asyncio.run(collect(model, request))
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def turns(*texts: str) -> ModelRequest:
    """Caller and agent in turn; the last is the caller."""
    items = tuple(
        Item(ItemId(f"item_{at}"), "message", "user" if at % 2 == 0 else "assistant", "user" if at % 2 == 0 else "assistant",
             content=(Part("input_audio", text),))
        for at, text in enumerate(texts)
    )  # fmt: skip
    return replace(ask(""), items=items)


def test_a_fact_is_known_by_a_model_that_never_heard_it() -> None:
    told = turns("my code word is tiger seven", "Okay.", "what is my code word")
    assert text_of(RulesModel(), told) == "Your code word is tiger seven."


def test_a_fact_is_found_far_back() -> None:
    talk = ["my code word is maple two"] + ["Okay.", "tell me a joke"] * 200 + ["Ha.", "what is my code word"]
    assert text_of(RulesModel(), turns(*talk)) == "Your code word is maple two."


def test_words_come_in_pieces_and_are_whole_together() -> None:
    events = asyncio.run(collect(RulesModel(), ask("tell me about openline")))
    pieces = [event.text for event in events if isinstance(event, TextDelta)]
    assert len(pieces) > 100 and max(len(piece.strip()) for piece in pieces) <= 8
    assert "".join(pieces).count(".") >= 8, "a long answer, to be interrupted"


def test_usage_is_an_estimate_of_four_tokens_for_three_words() -> None:
    assert [estimate_tokens(text) for text in ("", "one", "one two three", "a b c d")] == [0, 2, 4, 6]
    end = asyncio.run(collect(RulesModel(), ask("thanks")))[-1]
    assert isinstance(end, ModelDone) and end.usage.output_tokens == estimate_tokens("You are welcome.")
    assert end.usage.input_tokens == estimate_tokens("thanks") + estimate_tokens("Answer briefly.")


def test_calls_come_in_pieces_with_an_id_of_their_response() -> None:
    tool = ToolSpec(
        "take_note",
        "Writes a note.",
        '{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}',
    )
    events = asyncio.run(
        collect(RulesModel(), ask("take a note the door at the far end is open", tools=(tool,)))
    )
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert len(deltas) > 1
    assert [event for event in events if isinstance(event, ToolCallDone)] == [
        ToolCallDone(0, "call_check1_0", "take_note", '{"text": "the door at the far end is open"}')
    ]


def test_a_delay_between_tokens_can_be_set() -> None:
    async def first_two() -> float:
        begun = asyncio.get_running_loop().time()
        stream = RulesModel(token_delay_s=0.02).generate(ask("hello"))
        await anext(stream)
        await anext(stream)
        await stream.aclose()
        return asyncio.get_running_loop().time() - begun

    assert asyncio.run(first_two()) >= 0.015


def test_a_long_call_with_many_tools_is_decided_quickly() -> None:
    """The loop is blocked while the model thinks: 20 tools and 400 items must stay far below 50 ms."""
    schema = '{"type":"object","properties":{"part":{"type":"string"},"count":{"type":"integer"}},"required":["part","count"]}'
    tools = tuple(
        ToolSpec(f"order_part_{n}", f"Orders part number {n} from the supplier.", schema) for n in range(20)
    )
    talk = ["order", "For which part?"] * 200 + ["my code word is maple two and then order five hinges"]
    request = replace(turns(*talk), tools=tools)
    model = RulesModel()
    asyncio.run(collect(model, request))
    begun = time.process_time()
    asyncio.run(collect(model, request))
    assert time.process_time() - begun < 0.1, "some times what it takes on a slow machine"
