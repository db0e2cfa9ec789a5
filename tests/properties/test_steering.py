"""Random lives of two conversations with a provider that steers, refuses, forgets, hangs up and is too late.

After every reply the provider must have had the whole conversation in its context, and each thing that was said in it
once. One seed again: OPENLINE_SEED=17 pytest tests/properties/test_steering.py
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from integration.steered_provider import Caller, Provider, texts, user
from openline.adapters.llm_openai import Endpoint
from openline.adapters.llm_openai_responses import ResponsesModel
from openline.adapters.llm_openai_responses_sockets import SocketPlan
from openline.core.model import Item
from openline.core.value import replace
from openline.errors import LinkError
from openline.testing.fake_responses_parts import Reply
from openline.testing.fake_responses_steer import STEERS, SteerPlan
from openline.types import ItemId
from openline.wire.responses_client import entries

SEEDS = [int(os.environ["OPENLINE_SEED"])] if "OPENLINE_SEED" in os.environ else range(12)
TURNS = 8
CODES = ("invalid_input", "too_many_pending_steers", "response_not_active", "a_new_one")
FOR_GOOD = ("unknown", "ignore")
"""After these the model is not steered again: seldom, or the rest of the life has nothing to show."""


@dataclass
class Restless(Provider):
    """Ends what it holds by itself, after a while that differs."""

    dice: random.Random = field(default_factory=random.Random)

    def reply(self, body: dict[str, Any]) -> Reply:
        reply = super().reply(body)
        if reply.hold is not None:
            hold = asyncio.Event()
            asyncio.get_running_loop().call_later(self.dice.uniform(0, 0.02), hold.set)
            reply = replace(reply, hold=hold)
        return reply

    def plan(self) -> SteerPlan:
        kind = self.dice.choice([kind for kind in STEERS if kind not in FOR_GOOD])
        if self.dice.random() < 0.02:
            kind = self.dice.choice(FOR_GOOD)
        code = "1006" if kind == "close" else self.dice.choice(CODES) if kind == "refuse" else ""
        return SteerPlan(kind, code, self.dice.choice((0, 0, 0.01)))  # type: ignore[arg-type]  # one of STEERS


@dataclass
class Life:
    """One conversation. ``counts``: what its inputs and replies came to."""

    provider: Restless
    caller: Caller
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)

    async def live(self) -> None:
        for number in range(TURNS):
            said = f"{self.dice.choice(('talk', 'call', 'say'))} {self.caller.name} {number}"
            self.caller.begin(user(said))
            waits = (asyncio.ensure_future(self.caller.spoke.wait()), self.caller.task)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            waits[0].cancel()
            steered = [f"more {said} {each}" for each in range(self.dice.randrange(3))]
            answers = [asyncio.ensure_future(self.steer(text)) for text in steered]
            if answers and self.dice.random() < 0.5:
                await asyncio.wait(answers)
            is_cancelled = self.dice.random() < 0.2
            if is_cancelled:
                self.caller.task.cancel()
                await asyncio.wait([self.caller.task])
            else:
                await self.end()
            if self.dice.random() < 0.2 and answers:
                await asyncio.wait(answers)
            if steered:
                self.caller.begin(*self.outputs(), *map(user, steered))
                await self.end()
            else:
                self.caller.items += self.outputs()
            await asyncio.gather(*answers)

    async def steer(self, text: str) -> None:
        self.provider.fake.steers.append(self.provider.plan())
        self.counts[(await self.caller.steer(text)).outcome] += 1

    async def end(self) -> None:
        """Asked again until it is whole; then the provider has heard all of it, once."""
        while True:
            try:
                reason = await self.caller.end()
                break
            except LinkError:
                self.counts["failed"] += 1
                self.caller.begin()
        self.counts[reason] += 1
        if reason != "steered":  # Of one that is lost while it is steered nobody knows whether it was heard.
            self.check()

    def check(self) -> None:
        told = texts(entries(self.caller.asked.items))  # type: ignore[arg-type]  # JSON objects
        has_calls = "check_stock" in told  # Input that waits for their outputs is put in front of those.
        assert any(
            Counter(heard) == Counter(told) and (has_calls or heard == told) for heard in self.provider.known
        ), told
        if self.caller.items[-1].text[:1].isdigit():
            assert self.caller.items[-1].text.startswith(f"{len(told)}: "), "this reply had just that"

    def outputs(self) -> list[Item]:
        items = self.caller.items
        answered = {item.call_id for item in items if item.type == "function_call_output"}
        calls = [item.call_id for item in items if item.type == "function_call"]
        return [
            Item(ItemId(""), "function_call_output", "tool", call_id=call_id, output=f"of {call_id}")
            for call_id in calls
            if call_id not in answered
        ]


async def lives(seed: int) -> Counter[str]:
    dice = random.Random(seed)
    provider = Restless(dice=dice)
    plan = SocketPlan(
        sockets_max=dice.choice((1, 3)),
        lanes_per_socket=dice.choice((1, 3)),
        store=dice.random() < 0.3,
        drain_s=0.2,
        answer_s=0.3,
        stall_s=5,
        wait_s=20,
    )
    async with provider.fake:
        provider.fake.honours_cancel = dice.random() < 0.7
        model = ResponsesModel(Endpoint(provider.fake.url, "fake-1"), plan)
        await model.start()
        both = [Life(provider, Caller(model, name), dice) for name in ("one", "two")]
        try:
            async with asyncio.timeout(60):
                await asyncio.gather(*(life.live() for life in both))
        finally:
            await model.close()
    return both[0].counts + both[1].counts


@pytest.mark.parametrize("seed", SEEDS)
def test_each_thing_that_was_said_is_heard_once(seed: int) -> None:
    counts = asyncio.run(lives(seed))
    assert counts["completed"], f"again: OPENLINE_SEED={seed} pytest tests/properties/test_steering.py"
