"""Every language model keeps the rules of its port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from openline.adapters.llm_rules import RulesModel
from openline.core.model import Item
from openline.ports import LanguageModel, ModelDone, ModelEvent, ModelRequest, SteerAnswer, TextDelta
from openline.testing.check_llm import PART_TOOL, check_language_model, check_steering, check_stream
from openline.testing.llm import Call, Script, ScriptedModel, SteeredModel, say


def obedient(request: ModelRequest) -> Script:
    """Calls when it is made to, speaks otherwise."""
    is_forced = request.tool_choice not in ('"auto"', '"none"')
    return [Call(PART_TOOL.name, '{"part": "hinge"}')] if is_forced else [say("one two three four")]


def test_the_rules_model_is_a_language_model() -> None:
    asyncio.run(check_language_model(RulesModel))


def test_the_scripted_model_is_a_language_model() -> None:
    asyncio.run(check_language_model(lambda: ScriptedModel(obedient)))


def test_the_scripted_model_that_can_be_steered_is_one() -> None:
    asyncio.run(check_language_model(lambda: SteeredModel(obedient)))
    asyncio.run(check_steering(lambda: SteeredModel(obedient)))


@pytest.mark.parametrize("make", [RulesModel, lambda: ScriptedModel(obedient)], ids=["rules", "scripted"])
def test_a_model_without_steering_says_so(make: Callable[[], LanguageModel]) -> None:
    asyncio.run(check_steering(make, is_offered=False))


class Deaf(SteeredModel):
    """Breaks a rule: takes input, and for a generation that is over too."""

    async def steer(self, request: ModelRequest, items: tuple[Item, ...]) -> SteerAnswer:
        return SteerAnswer("accepted")


class Clinging(SteeredModel):
    """Breaks another: input of one generation ends the next."""

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        async for event in super().generate(request):
            yield ModelDone(reason="steered") if isinstance(event, ModelDone) else event


def test_a_model_that_breaks_the_rules_of_steering_is_found() -> None:
    with pytest.raises(AssertionError, match="what does not run cannot be steered"):
        asyncio.run(check_steering(lambda: Deaf(obedient)))
    with pytest.raises(AssertionError, match="the next one is not steered"):
        asyncio.run(check_steering(lambda: Clinging(obedient)))
    with pytest.raises(AssertionError, match="expected not_offered, got accepted"):
        asyncio.run(check_steering(lambda: SteeredModel(obedient), is_offered=False))


class Endless(ScriptedModel):
    """Breaks one rule: its stream has no end mark."""

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        async for event in super().generate(request):
            if not isinstance(event, ModelDone):
                yield event


def test_a_model_that_does_not_end_is_found() -> None:
    with pytest.raises(AssertionError, match="exactly one ModelDone"):
        asyncio.run(check_language_model(lambda: Endless(obedient)))


def test_a_call_whose_pieces_do_not_make_the_whole_is_found() -> None:
    with pytest.raises(AssertionError, match="no calls"):
        asyncio.run(check_language_model(lambda: ScriptedModel(lambda request: [say("a b c"), Call("x")])))
    with pytest.raises(AssertionError, match="nothing comes after"):
        check_stream([ModelDone(), TextDelta("late")])
