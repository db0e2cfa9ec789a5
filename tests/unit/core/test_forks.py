"""Forks: a session whose conversation begins in another one's log. Nothing is copied, nothing else depends on it."""

from __future__ import annotations

from core_call import CONN, Call, begin_message, finish_reply, live_call
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.model import Cut, Item, Part, ResponseRequest, SessionConfig
from openline.core.session import Session, conversation_at, origin_of
from openline.core.state import State
from openline.types import ConnectionId, Epoch, ItemId, Seq, SessionId
from openline.wire.envelope import decode_step, effect_digest

TEXTER = ConnectionId("conn_text")


def typed(text: str, item_id: str = "") -> Item:
    return Item(ItemId(item_id), "message", "user", "user", content=(Part("input_text", text),))


def fork_of(
    parent: SessionId, seq: Seq, last: ItemId | None, inherited: tuple[Item, ...], name: str = "sess_fork"
) -> Call:
    call = Call()
    call.session.state.inherited = inherited
    opened = i.OpenSession(
        SessionId(name), "default", Epoch(1), "node", SessionConfig(),
        parent=parent, parent_seq=seq, parent_item=last,
    )  # fmt: skip
    call.give(opened)
    call.give(i.Attach(TEXTER, "texter"))
    return call


def grown_from(parent: Call, name: str = "sess_fork") -> Call:
    state = parent.session.state
    items = conversation_at([decode_step(body) for body in parent.log], state.seq, state.inherited)
    return fork_of(state.session, state.seq, items[-1].id, items, name)


def says(call: Call, *texts: str) -> Call:
    for text in texts:
        call.give(i.CreateItem(typed(text)))
    return call


def texts_of(state: State) -> list[str]:
    return [item.text for item in state.conversation()]


def test_a_fork_says_where_it_comes_from_before_it_is_owned() -> None:
    parent = says(live_call(), "one")
    state = parent.session.state
    fork = grown_from(parent)
    facts = decode_step(fork.log[0]).facts
    assert [fact.TYPE for fact in facts] == [
        "openline.session.started",
        "openline.session.forked",
        "openline.session.owned",
    ]
    assert facts[1] == f.SessionForked(state.session, state.seq, state.last_item_id())
    assert facts[1].CLASS == "note", "no client waits for it"
    assert fork.session.state.origin == (state.session, state.seq)


def test_a_session_that_is_no_fork_has_no_origin() -> None:
    call = live_call()
    steps = [decode_step(body) for body in call.log]
    assert all(fact.TYPE != "openline.session.forked" for step in steps for fact in step.facts)
    assert origin_of(steps) is None
    assert call.session.state.last_item_id() is None


def test_its_conversation_is_what_the_parents_was_and_then_its_own() -> None:
    parent = says(live_call(), "one", "two")
    fork = says(grown_from(parent), "three")
    says(parent, "never seen")
    assert texts_of(fork.session.state) == ["one", "two", "three"]
    again = says(grown_from(fork, "sess_again"), "four")
    assert texts_of(again.session.state) == ["one", "two", "three", "four"]


def test_only_the_facts_up_to_the_fork_count() -> None:
    parent = says(live_call(), "one")
    seq = parent.session.state.seq
    says(parent, "two")
    steps = [decode_step(body) for body in parent.log]
    assert [item.text for item in conversation_at(steps, seq)] == ["one"]
    assert [item.text for item in conversation_at(steps, Seq(seq + 1))] == ["one", "two"]
    assert conversation_at(steps, Seq(1)) == ()
    assert [item.text for item in conversation_at(steps, Seq(seq), (typed("zero"),))] == ["zero", "one"]


def test_a_fork_may_begin_in_the_middle_of_a_step() -> None:
    """A reply that was cut: the item is finished by one fact, what was heard of it is said by a later one."""
    parent = live_call()
    parent.give(i.CreateResponse(ResponseRequest(), CONN))
    item = begin_message(parent)
    finish_reply(parent, "a longer answer", 1000)
    heard = parent.give(i.Heard(Cut(item, "a longer answer", 1000, 100, "client", 8)))
    steps = [decode_step(body) for body in parent.log]
    assert heard.facts
    before = conversation_at(steps, Seq(heard.first_seq - 1))
    assert [entry.text for entry in before] == ["a longer answer"]
    after = conversation_at(steps, heard.last_seq)
    assert [entry.text for entry in after] == ["a longer"]


def test_its_first_item_comes_after_the_last_inherited_one() -> None:
    parent = says(live_call(), "one")
    last = parent.session.state.last_item_id()
    fork = grown_from(parent)
    state = fork.session.state
    assert state.last_item_id() == last
    step = fork.give(i.CreateItem(typed("two", "item_two"), conn=TEXTER))
    (created,) = step.facts
    assert isinstance(created, f.ItemCreated) and created.previous_item_id == last
    assert state.previous_of(ItemId("item_two")) == last
    fork.give(i.CreateItem(typed("three", "item_three"), conn=TEXTER))
    assert list(state.entries) == ["item_two", "item_three"]
    assert state.previous_of(ItemId("item_three")) == "item_two"


def test_what_is_put_first_comes_after_what_is_inherited() -> None:
    parent = says(live_call(), "one")
    last = parent.session.state.last_item_id()
    fork = says(grown_from(parent), "three")
    (created,) = fork.give(i.CreateItem(typed("two"), "root", TEXTER)).facts
    assert isinstance(created, f.ItemCreated) and created.previous_item_id == last
    assert texts_of(fork.session.state) == ["one", "two", "three"]


def test_the_last_inherited_id_is_taken() -> None:
    fork = grown_from(says(live_call(), "one"))
    last = fork.session.state.last_item_id()
    assert last is not None
    step = fork.give(i.CreateItem(typed("again", last), conn=TEXTER))
    assert step.is_rejected and not step.facts


def test_an_item_is_found_by_its_id_wherever_it_is() -> None:
    parent = live_call()
    parent.give(i.CreateItem(typed("zero", "item_zero")))
    parent.give(i.CreateItem(typed("one", "item_one")))
    fork = grown_from(parent)
    fork.give(i.CreateItem(typed("two", "item_two"), conn=TEXTER))
    state = fork.session.state
    found = [state.item(ItemId(f"item_{name}")) for name in ("one", "two", "none")]
    assert [item and item.text for item in found] == ["one", "two", None]


def test_a_fork_replays_without_its_parent() -> None:
    fork = says(grown_from(says(live_call(), "one")), "two")
    fork.give(i.CreateResponse(ResponseRequest(), TEXTER))
    steps = [decode_step(body) for body in fork.log]
    replayed, count = Session.replay(steps, effect_digest)
    assert count == len(steps)
    assert texts_of(replayed.state) == ["two"], "what is inherited is not in this log"
    inherited = fork.session.state.inherited
    assert texts_of(Session.rebuild(steps, inherited).state) == ["one", "two"]
    assert origin_of(steps) == fork.session.state.origin


def test_a_fork_of_an_empty_conversation_begins_at_the_root() -> None:
    fork = fork_of(SessionId("sess_empty"), Seq(2), None, ())
    (created,) = fork.give(i.CreateItem(typed("one"), conn=TEXTER)).facts
    assert isinstance(created, f.ItemCreated) and created.previous_item_id is None


def test_a_steered_reply_is_cut_and_says_so() -> None:
    """The reason is a fact: what is read back later is what the client was told."""
    call = says(live_call())
    call.give(i.CreateResponse(ResponseRequest(modality="text")))
    active = call.session.state.active
    assert active is not None
    step = call.give(i.CancelResponse(active.response_id, (), "steered"))
    done = step.facts[-1]
    assert isinstance(done, f.ResponseDone) and (done.status, done.reason) == ("cancelled", "steered")
