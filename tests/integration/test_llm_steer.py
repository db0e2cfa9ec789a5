"""Steering a language model over the Responses socket: the provider has the input exactly once, whatever happens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from integration.steered_provider import ALSO, PLAN, TALK, Caller, calling, said, texts, user
from openline.adapters.llm_openai import Endpoint
from openline.adapters.llm_openai_http import HttpModel
from openline.adapters.llm_openai_responses_sockets import with_lanes
from openline.core.model import Item
from openline.errors import LinkUnavailable
from openline.ports import ModelDone, ModelRequest, SteerAnswer
from openline.runtime.model_choice import FirstOffered
from openline.testing.fake_responses_parts import Fault
from openline.testing.fake_responses_steer import SteerKind, SteerPlan
from openline.types import ItemId, ResponseId, SessionId


def test_what_the_provider_makes_of_the_input_is_taken_over_and_the_chain_goes_on() -> None:
    async def story() -> None:
        async with calling() as (provider, model, caller):
            await caller.talk()
            assert await caller.steer() == SteerAnswer("accepted")
            assert await caller.end() == "steered"
            assert await caller.ask(user(ALSO)) == "3: also B"
            assert len(provider.creates) == 1, "what follows was not asked for again"
            assert provider.fake.steered[0] == {
                "type": "response.steer",
                "previous_response_id": "resp_fake1",
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ALSO}]}
                ],
            }
            assert await caller.ask(user("on")) == "5: on"
            again = provider.creates[-1]
            assert texts(again["input"]) == ["on"], "only what is new"
            assert provider.known[-1] == [TALK, "begun", ALSO, "3: also B", "on"]
            assert (model.statistics.steered, model.statistics.followed) == (1, 1)

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["finish", "return"])
def test_a_reply_that_ends_as_it_would_have_is_followed_once(kind: SteerKind) -> None:
    """Whether the provider begins a successor itself or gives the input back then, nobody notices."""

    async def story() -> None:
        async with calling() as (provider, model, caller):
            provider.fake.steers.append(SteerPlan(kind))
            await caller.talk()
            assert await caller.steer() == SteerAnswer("accepted")
            provider.never.set()
            assert await caller.end() == "completed"
            assert await caller.ask(user(ALSO)) == "3: also B"
            assert provider.known == [[TALK], [TALK, "begun to talk", ALSO]]
            assert len(provider.creates) == (1 if kind == "finish" else 2)
            assert texts(provider.creates[-1]["input"]) == ([TALK] if kind == "finish" else [ALSO])
            assert model.statistics.followed == (kind == "finish")

    asyncio.run(story())


def test_several_inputs_are_one_successor() -> None:
    async def story() -> None:
        async with calling() as (provider, _, caller):
            provider.fake.steers += [SteerPlan("finish"), SteerPlan("finish")]
            await caller.talk()
            for text in ("B", "C"):
                assert (await caller.steer(text)).outcome == "accepted"
            provider.never.set()
            assert await caller.end() == "completed"
            assert await caller.ask(user("B"), user("C")) == "4: C"
            assert len(provider.creates) == 1

    asyncio.run(story())


def test_input_that_waits_for_the_outputs_of_calls_is_not_sent_with_them() -> None:
    async def story() -> None:
        async with calling() as (provider, _, caller):
            await caller.talk("call")
            assert await caller.steer() == SteerAnswer("accepted")
            provider.never.set()
            assert await caller.end() == "completed"
            output = Item(
                ItemId(""), "function_call_output", "tool", call_id=caller.items[-1].call_id, output="12"
            )
            assert await caller.ask(output, user(ALSO)) == "4: 12"
            assert texts(provider.creates[-1]["input"]) == ["12"]
            assert provider.known[-1] == ["call", "check_stock", ALSO, "12"], "the provider puts it in front"
            assert await caller.ask(user("on")) == "6: on"
            assert texts(provider.creates[-1]["input"]) == ["on"]

    asyncio.run(story())


@pytest.mark.parametrize("store", [False, True])
def test_input_that_waits_at_the_provider_is_not_doubled_when_its_lane_is_taken(store: bool) -> None:
    """Another session's response evicts the one that the input waits for, or is stored beside it: the whole is sent,
    as a new chain, and once."""

    async def story() -> None:
        plan = replace(PLAN, sockets_max=1, answer_s=30, store=store)
        async with calling(plan) as (provider, model, caller):
            await caller.talk("call")
            await caller.steer()
            provider.never.set()
            await caller.end()
            other = Caller(model, "sess_two")
            assert await other.ask(user("hello")) == "1: hello"
            output = Item(
                ItemId(""), "function_call_output", "tool", call_id=caller.items[-1].call_id, output="12"
            )
            assert await caller.ask(output, user(ALSO)) == "4: also B"
            assert provider.known[-1] == ["call", "check_stock", "12", ALSO]
            assert "previous_response_id" not in provider.creates[-1]

    asyncio.run(story())


@pytest.mark.parametrize(
    "code",
    [
        "response_not_found",
        "invalid_input",
        "too_many_pending_steers",
        "response_already_completed",
        "response_not_active",
        "successor_creation_failed",
        "a_new_one",
    ],
)
def test_what_the_provider_refuses_goes_on_as_it_was(code: str) -> None:
    async def story() -> None:
        async with calling() as (provider, model, caller):
            provider.fake.steers.append(SteerPlan("refuse", code))
            await caller.talk()
            assert await caller.steer() == SteerAnswer("refused", code)
            provider.never.set()
            assert await caller.end() == "completed"
            assert await caller.ask(user(ALSO)) == "3: also B"
            assert provider.known == [[TALK], [TALK, "begun to talk", ALSO]]
            assert texts(provider.creates[-1]["input"]) == [ALSO], "the chain is whole"
            assert model.statistics.steered == 0

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["refuse", "unknown"])
@pytest.mark.parametrize("lanes", [1, 4])
def test_a_server_without_it_is_asked_once(kind: SteerKind, lanes: int) -> None:
    """``steering_not_supported``, or an error of the connection about an event that it does not know."""

    async def story() -> None:
        async with calling(with_lanes(PLAN, lanes)) as (provider, model, caller):
            provider.fake.steers.append(SteerPlan(kind))
            await caller.talk()
            assert (await caller.steer()).outcome == "not_offered"
            assert (await caller.steer()).outcome == "not_offered"
            provider.never.set()
            assert await caller.end() == "completed", "the error was not the response's"
            other = Caller(model, "sess_two")
            provider.never.clear()
            await other.talk()
            assert (await other.steer()).outcome == "not_offered"
            provider.never.set()
            await other.end()
            assert len(provider.fake.steered) == 1

    asyncio.run(story())


def test_a_server_that_says_nothing_to_it_is_not_asked_again() -> None:
    async def story() -> None:
        async with calling(replace(PLAN, answer_s=0.1, drain_s=0.1)) as (provider, model, caller):
            provider.fake.steers.append(SteerPlan("ignore"))
            await caller.talk()
            assert await caller.steer() == SteerAnswer("unknown")
            assert (await caller.steer()).outcome == "not_offered"
            provider.never.set()
            assert await caller.end() == "completed"
            assert await caller.ask(user(ALSO)) == "3: also B"
            assert provider.known[-1] == [TALK, "begun to talk", ALSO]
            assert model.statistics.sockets_opened == 2, (
                "what it may still do happens on a socket that is gone"
            )

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["close", "close_before", "close_after"])
def test_a_socket_that_is_lost_in_the_middle_applies_the_input_once(kind: SteerKind) -> None:
    """Before its answer, before the successor, or in it: what was said stands, and the whole is sent once."""

    async def story() -> None:
        async with calling(replace(PLAN, answer_s=30)) as (provider, model, caller):
            provider.fake.steers.append(SteerPlan(kind))
            await caller.talk()
            async with asyncio.timeout(5):
                answer = await caller.steer()
            assert answer.outcome == ("unknown" if kind == "close" else "accepted")
            assert await caller.end() == "steered"
            if kind == "close_after":
                caller.begin(user(ALSO))
                with pytest.raises(LinkUnavailable):  # it had begun to speak: it is not begun again
                    await caller.end()
                caller.items.pop()
            assert await caller.ask(user(ALSO)) == "3: also B"
            assert provider.known[-1] == [TALK, "begun", ALSO]
            assert texts(provider.creates[-1]["input"]) == [TALK, "begun", ALSO], "on a new socket, whole"
            assert model.statistics.sockets_opened == 2
            await caller.talk()
            assert (await caller.steer()).outcome == "accepted", "a lost line is no refusal"

    asyncio.run(story())


def test_a_response_that_is_cancelled_while_it_is_steered_leaves_a_clean_lane() -> None:
    async def story() -> None:
        async with calling(replace(PLAN, sockets_max=1, drain_s=5)) as (provider, model, caller):
            await caller.talk()
            answer = asyncio.ensure_future(caller.steer())
            await asyncio.sleep(0)
            caller.task.cancel()
            await asyncio.wait([caller.task])
            assert (await answer).outcome in ("accepted", "refused")
            other = Caller(model, "sess_two")
            assert await other.ask(user("hello")) == "1: hello", "nothing of the successor reaches another"
            caller.items = [user(TALK), user("never mind")]
            assert await caller.ask() == "2: never mind"
            assert model.statistics.sockets_opened == 1 and model.statistics.dropped == 0
            assert provider.fake.cancelled

    asyncio.run(story())


def test_a_successor_that_begins_after_its_response_was_cancelled_is_stopped_too() -> None:
    """The cancel comes too late for the response: its lane is not free before the successor has ended."""

    async def story() -> None:
        async with calling(replace(PLAN, sockets_max=1, drain_s=5)) as (provider, model, caller):
            provider.fake.honours_cancel = False
            await caller.talk()
            answer = asyncio.ensure_future(caller.steer("1"))
            await asyncio.sleep(0)
            caller.task.cancel()
            assert await Caller(model, "sess_two").ask(user("hello")) == "1: hello"
            assert (await answer).outcome == "accepted"
            assert provider.known == [[TALK], [TALK, "begun", "1"], ["hello"]]
            assert provider.fake.cancelled == ["resp_fake1", "resp_fake4"]
            assert model.statistics.sockets_opened == 1 and model.statistics.dropped == 0

    asyncio.run(story())


def test_an_answer_that_comes_after_the_response_was_read_to_its_end_frees_the_lane() -> None:
    async def story() -> None:
        async with calling(replace(PLAN, sockets_max=1, answer_s=30)) as (provider, model, caller):
            caller.begin(user(TALK))
            caller.task.cancel()
            events = model.generate(caller.asked)
            await anext(events)
            provider.never.set()
            while not provider.fake.ended:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)  # The whole response is here, and read no further.
            answer = asyncio.ensure_future(caller.steer())
            await asyncio.sleep(0)
            assert isinstance([event async for event in events][-1], ModelDone)
            assert await answer == SteerAnswer("refused", "response_not_found")
            assert await Caller(model, "sess_two").ask(user("hello")) == "1: hello"

    asyncio.run(story())


def test_a_successor_that_is_cut_before_it_spoke_is_stopped() -> None:
    async def story() -> None:
        async with calling(replace(PLAN, sockets_max=1, drain_s=5)) as (provider, model, caller):
            provider.never.clear()
            await caller.talk()
            await caller.steer(TALK)  # the successor holds too
            assert await caller.end() == "steered"
            caller.begin(user(TALK))
            await asyncio.sleep(0)
            caller.task.cancel()
            await asyncio.wait([caller.task])
            assert await Caller(model, "sess_two").ask(user("hello")) == "1: hello"
            assert provider.fake.cancelled and model.statistics.sockets_opened == 1

    asyncio.run(story())


def test_a_request_that_is_another_one_stops_the_successor_and_sends_the_whole() -> None:
    async def story() -> None:
        async with calling() as (provider, model, caller):
            await caller.talk()
            await caller.steer(TALK)
            await caller.end()
            assert await caller.ask(user("something else")) == "3: something else"
            assert provider.known[-1] == [TALK, "begun", "something else"]
            assert provider.fake.cancelled, "at once"
            await caller.talk()
            await caller.steer()
            await caller.end()
            caller.begin(user(ALSO), instructions="Be brief.")
            await caller.end()
            assert model.statistics.followed == 0
            assert provider.creates[-1]["instructions"] == "Be brief."
            assert provider.known[-1].count(ALSO) == 1

    asyncio.run(story())


def test_a_successor_that_nobody_asks_for_is_stopped_in_time() -> None:
    async def story() -> None:
        plan = replace(PLAN, answer_s=0.3, sockets_max=1, drain_s=5)
        async with calling(plan) as (provider, model, caller):
            await caller.talk()
            await caller.steer(TALK)
            await caller.end()
            other = Caller(model, "sess_two")
            assert await other.ask(user("hello")) == "1: hello", "the only lane is free again"
            assert provider.fake.cancelled == ["resp_fake4"]
            assert await caller.ask(user(TALK), said("begun"), user("x")) == "5: x"
            assert (model.statistics.dropped, model.statistics.not_found) == (0, 0)

    asyncio.run(story())


def test_a_successor_that_ended_and_that_nobody_asks_for_costs_no_socket() -> None:
    async def story() -> None:
        plan = replace(PLAN, answer_s=0.3, drain_s=0.1, sockets_max=1)
        async with calling(plan) as (provider, model, caller):
            await caller.talk()
            await caller.steer()
            await caller.end()
            await asyncio.sleep(0.8)
            assert await caller.ask(user("x")) == "3: x"
            assert model.statistics.not_found == 0, "the lane no longer holds what was steered"
            assert await Caller(model, "sess_two").ask(user("hello")) == "1: hello"
            assert not provider.fake.cancelled and model.statistics.dropped == 0

    asyncio.run(story())


@pytest.mark.parametrize("kind", ["apply", "return"])
def test_what_follows_may_take_its_time(kind: SteerKind) -> None:
    """The next request waits for it to begin, and then for all of it."""

    async def story() -> None:
        async with calling(replace(PLAN, answer_s=30)) as (provider, model, caller):
            provider.fake.steers.append(SteerPlan(kind, rest_s=0.1))
            await caller.talk()
            await caller.steer()
            provider.never.set()
            await caller.end()
            async with asyncio.timeout(5):
                assert (await caller.ask(user(ALSO))).startswith("3: also B")
            assert provider.known[-1][-1] == ALSO and len(provider.known) == 2
        async with calling(replace(PLAN, answer_s=0.4)) as (provider, model, caller):
            await caller.talk()
            await caller.steer(TALK)
            await caller.end()
            caller.begin(user(TALK))
            await asyncio.sleep(0.8)
            provider.never.set()
            assert await caller.end() == "completed"
            assert model.statistics.followed == 1 and not provider.fake.cancelled

    asyncio.run(story())


def test_a_successor_that_is_complete_before_anybody_asks_is_taken_over_whole() -> None:
    async def story() -> None:
        async with calling(replace(PLAN, sockets_max=1, answer_s=30)) as (provider, model, caller):
            await caller.talk()
            await caller.steer()
            await caller.end()
            await asyncio.sleep(0.1)
            assert await caller.ask(user(ALSO)) == "3: also B"
            assert len(provider.creates) == 1
            assert await Caller(model, "sess_two").ask(user("hello")) == "1: hello", "the only lane is free"

    asyncio.run(story())


@pytest.mark.parametrize("lanes", [1, 4])
def test_two_at_once_do_not_mix(lanes: int) -> None:
    async def story() -> None:
        async with calling(with_lanes(PLAN, lanes)) as (provider, model, one):
            two = Caller(model, "sess_two")
            await one.talk()
            await two.talk()
            answers = await asyncio.gather(one.steer("for one"), two.steer("for two"))
            assert {answer.outcome for answer in answers} == {"accepted"}
            assert [await one.end(), await two.end()] == ["steered", "steered"]
            told = await asyncio.gather(one.ask(user("for one")), two.ask(user("for two")))
            assert list(told) == ["3: for one", "3: for two"]
            assert len(provider.creates) == 2
            assert model.statistics.sockets_opened == (2 if lanes == 1 else 1)

    asyncio.run(story())


def test_a_response_that_fails_while_it_is_steered_is_an_error_and_the_lane_is_free() -> None:
    async def story() -> None:
        async with calling(replace(PLAN, sockets_max=1)) as (provider, _, caller):
            provider.fake.faults.append(Fault("failed", after=4, code="server_error"))
            provider.fake.steers.append(SteerPlan("finish"))
            await caller.talk()
            assert (await caller.steer()).outcome == "accepted"
            provider.never.set()
            with pytest.raises(LinkUnavailable):
                await caller.end()
            assert await caller.ask(user(ALSO)) == "2: also B"

    asyncio.run(story())


def test_a_steer_waits_for_the_response_to_have_a_name_and_one_that_is_over_takes_none() -> None:
    async def story() -> None:
        async with calling() as (provider, _, caller):
            caller.begin(user(TALK))
            answer = asyncio.ensure_future(caller.steer())  # the socket is not even open
            assert (await answer).outcome == "accepted"
            assert await caller.end() == "steered"
            assert await caller.steer() == SteerAnswer("refused", "response_not_active")
            assert len(provider.fake.steered) == 1

    asyncio.run(story())


def test_models_without_it_say_so() -> None:
    async def story() -> None:
        async with calling() as (provider, model, _):
            plain = Caller(HttpModel(Endpoint(provider.fake.url), "responses"))
            plain.asked = ModelRequest(SessionId("s"), ResponseId("r"), "", (), (), '"auto"')
            assert (await plain.steer()).outcome == "not_offered"
            first = Caller(FirstOffered([model]))
            await first.talk()
            assert (await first.steer()).outcome == "accepted"
            assert await first.end() == "steered"

    asyncio.run(story())
