"""The session as a whole: what it refuses, receipts, replay and what it says of a difference."""

from __future__ import annotations

import pytest

from core_call import CONN, Call, begin_message, effects, finish_reply, live_call, speak
from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import AudioRange, Item, Part, ResponseRequest, SessionConfig
from openline.core.session import RecordedStep, Session
from openline.core.state import COMMANDS_MAX
from openline.core.value import replace
from openline.errors import ReplayMismatch
from openline.types import ConnectionId, ItemId
from openline.wire.envelope import StoredStep, UnknownFact, UnknownInput, effect_digest

TYPED = Item(ItemId("item_1"), "message", "user", "user", content=(Part("input_text", "hello"),))
COMMANDS: list[i.Input] = [
    i.UpdateConfig(SessionConfig(), CONN, "cmd_1"),
    i.CreateItem(TYPED, None, CONN, "cmd_1"),
    i.DeleteItem(TYPED.id, CONN, "cmd_1"),
    i.TruncateItem(TYPED.id, 0, 100, CONN, "cmd_1"),
    i.CommitAudio(AudioRange(0, 24_000), CONN, "cmd_1"),
    i.ClearAudio(CONN, "cmd_1"),
    i.CreateResponse(ResponseRequest(), CONN, "cmd_1"),
    i.CancelResponse(conn=CONN, command="cmd_1"),
    i.EndSession("client", CONN, "cmd_1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_an_ended_session_takes_no_commands(command: i.Input) -> None:
    call = live_call()
    call.give(i.EndSession("api"))
    step = call.give(command)
    assert (step.facts, step.is_rejected, effects(step)) == ((), True, ["SendError"])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_connection_that_is_gone_gives_no_commands(command: i.Input) -> None:
    call = live_call()
    call.give(i.Attach(ConnectionId("other"), "texter"))
    call.give(i.Detach(CONN))
    step = call.give(command)
    assert (step.facts, step.is_rejected, effects(step)) == ((), True, [])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_an_observer_gives_no_commands(command: i.Input) -> None:
    call = live_call()
    call.give(i.Detach(CONN, 1006))
    call.give(i.Attach(CONN, "observer"))
    step = call.give(command)
    assert (step.facts, step.is_rejected, effects(step)) == ((), True, [])


# -------------------------------------------------------------------------------------------------- commands


def test_an_opted_in_client_gets_one_receipt_for_a_command_and_others_get_none() -> None:
    call = live_call(opted_in=True)
    accepted = call.give(i.CreateItem(TYPED, None, CONN, "cmd_1"))
    assert accepted.effects[-1] == e.SendReceipt(CONN, "cmd_1", "accepted")
    rejected = call.give(i.DeleteItem(ItemId("item_9"), CONN, "cmd_2"))
    assert rejected.effects[-1] == e.SendReceipt(CONN, "cmd_2", "rejected")
    unnamed = call.give(i.ClearAudio(CONN))
    assert effects(unnamed) == ["DropAudio"]
    stock = ConnectionId("stock")
    call.give(i.Attach(stock, "texter"))
    assert effects(call.give(i.ClearAudio(stock, "cmd_3"))) == ["DropAudio"]


def test_commands_of_opted_in_clients_are_known_afterwards_also_after_a_crash() -> None:
    call = live_call(opted_in=True)
    commands: list[i.Input] = [
        i.CreateItem(TYPED, None, CONN, "cmd_0"),
        i.UpdateConfig(SessionConfig(), CONN, "cmd_1"),
        i.ClearAudio(CONN, "cmd_2"),
        i.CreateResponse(ResponseRequest(), CONN, "cmd_3"),
    ]
    for number, command in enumerate(commands):
        assert not call.session.knows_command(f"cmd_{number}")
        call.give(command)
        assert call.session.knows_command(f"cmd_{number}")
    begin_message(call)
    finish_reply(call)
    reply = call.session.state.last_item_id()
    call.give(i.TruncateItem(reply, 0, 100, CONN, "cmd_4"))
    call.give(i.DeleteItem(reply, CONN, "cmd_5"))
    call.crash()
    assert all(call.session.knows_command(f"cmd_{number}") for number in range(6))


def test_a_command_without_an_id_is_never_taken_for_one_that_was_given_before() -> None:
    call = live_call(opted_in=True)
    call.give(i.ClearAudio(CONN))
    assert not call.session.knows_command("")


def test_commands_of_stock_clients_are_not_remembered_and_of_others_only_so_many() -> None:
    """Stock clients start their counters again on each connection."""
    stock = live_call()
    stock.give(i.ClearAudio(CONN, "event_1"))
    assert not stock.session.knows_command("event_1")
    call = live_call(opted_in=True)
    for number in range(COMMANDS_MAX + 1):
        call.give(i.ClearAudio(CONN, f"cmd_{number}"))
    assert not call.session.knows_command("cmd_0")
    assert call.session.knows_command("cmd_1") and call.session.knows_command(f"cmd_{COMMANDS_MAX}")
    assert COMMANDS_MAX == 512


# ---------------------------------------------------------------------------------------------------- replay


def recorded() -> list[StoredStep]:
    call = live_call()
    speak(call, "what time is it")
    begin_message(call)
    finish_reply(call)
    return call.stored()


def test_a_log_replays_to_the_session_that_wrote_it() -> None:
    call = live_call()
    speak(call, "what time is it")
    session, count = Session.replay(call.stored(), effect_digest)
    assert session.state == call.session.state
    assert count == len(call.log)


def check_mismatch(steps: list[StoredStep], at: int, message: str, *, whole: bool = True) -> None:
    seq = 1 + sum(len(step.facts) for step in steps[:at])
    with pytest.raises(ReplayMismatch) as caught:
        Session.replay(steps, effect_digest if whole else None)
    assert caught.value.seq == seq
    assert str(caught.value) == f"step at seq {seq}{message}"


def test_a_fact_too_few_is_found() -> None:
    steps = recorded()
    steps[1] = steps[1]._replace(facts=steps[1].facts[:1])
    check_mismatch(
        steps, 1, " (Attach): expected facts ['openline.connection.attached'], got "
        "['openline.connection.attached', 'openline.link.requested']."
    )  # fmt: skip


def test_a_field_that_differs_is_named_and_its_value_is_not() -> None:
    steps = recorded()
    committed = steps[5].facts[0]
    assert isinstance(committed, f.TurnCommitted)
    steps[5] = steps[5]._replace(
        facts=(replace(committed, text="secret", confidence=0.1), *steps[5].facts[1:])
    )
    seq = 1 + sum(len(step.facts) for step in steps[:5])
    check_mismatch(
        steps, 5, f" (TurnFinal): fact {seq} (openline.turn.committed) differs in ['text', 'confidence']."
    )  # fmt: skip


def test_a_later_fact_of_a_step_is_counted() -> None:
    steps = recorded()
    created = steps[5].facts[1]
    assert isinstance(created, f.ResponseCreated)
    steps[5] = steps[5]._replace(facts=(steps[5].facts[0], replace(created, attempt=2)))
    seq = 2 + sum(len(step.facts) for step in steps[:5])
    check_mismatch(steps, 5, f" (TurnFinal): fact {seq} (response.created) differs in ['attempt'].")


def test_other_effects_are_found_by_name_and_by_value() -> None:
    steps = recorded()
    steps[1] = steps[1]._replace(effect_names=("CloseLink",))
    message = " (Attach): expected effects ['CloseLink'], got ['OpenLink']."
    check_mismatch(steps, 1, message, whole=False)
    steps = recorded()
    steps[1] = steps[1]._replace(effect_digest=1)
    check_mismatch(steps, 1, " (Attach): expected effects ['OpenLink'], got ['OpenLink'].")
    assert Session.replay(steps)[1] == len(steps), "without a digest their names are compared"


def test_a_step_that_ours_cannot_make_is_named() -> None:
    steps = recorded()
    again = [steps[0], steps[0]]
    check_mismatch(
        again, 1, " (OpenSession): expected facts ['openline.session.started', 'openline.session.owned'], got "
        "session: expected one of ['attached', 'ended', 'parked'] in state 'created', got 'started'."
    )  # fmt: skip
    twice = [*steps[:2], steps[1]]
    other = steps[1].input
    assert isinstance(other, i.Attach)
    twice[2] = steps[1]._replace(input=replace(other, role="observer"))
    check_mismatch(
        twice, 2, " (Attach): expected facts ['openline.connection.attached', 'openline.link.requested'], got "
        "AssertionError"
    )  # fmt: skip


def test_what_a_newer_version_wrote_folds_but_does_not_replay() -> None:
    steps = recorded()
    newer = StoredStep(
        UnknownInput("Whispered", b"\x80"), steps[0].now, (UnknownFact("whisper", b"\x80"),), (), 0
    )
    session = Session.rebuild([*steps, newer])
    assert session.state.seq == 1 + sum(len(step.facts) for step in steps)
    check_mismatch(
        [*steps, newer], len(steps), ": its input is of a newer version; replay it with that version."
    )


def test_a_step_tells_its_seqs_and_its_wake_up() -> None:
    call = Call()
    step = call.give(recorded()[0].input)  # type: ignore[arg-type]  # ours, not a newer version's
    assert (step.first_seq, step.last_seq) == (1, 2)
    assert step.wake_at == call.now.mono_ns + 30_000 * 1_000_000
    assert (step.durable_wake_ms, step.is_rejected) == (0, False)


def test_a_step_kept_in_memory_replays_too() -> None:
    steps = [RecordedStep(s.input, s.now, s.facts, s.effect_names) for s in recorded()]  # type: ignore[arg-type]  # what we recorded is an input of ours
    assert Session.replay(steps)[1] == len(steps)
    assert RecordedStep(steps[0].input, steps[0].now, ()) == RecordedStep(
        steps[0].input, steps[0].now, (), (), 0
    )
