"""Stored steps come back as they were, damaged ones are named, and newer ones are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.facts import FACTS, Fact
from openline.core.inputs import INPUTS
from openline.core.model import ResponseRequest
from openline.errors import LogCorrupt
from openline.types import Epoch, Now, Seq, SessionId
from openline.wire.envelope import (
    UnknownFact,
    UnknownInput,
    decode_facts,
    decode_step,
    effect_digest,
    encode_fact_json,
    encode_step,
    fact_data,
    rfc3339,
)
from wire_samples import RESP, SPOKEN, done, every_fact, item_done, values_of

NOW = Now(123_456_789, 1_790_000_000_123)
INPUT = i.MessageFinished(RESP, 0, "Good morning.", 900)
EFFECTS = (e.StartResponse(RESP, ResponseRequest()), e.DropAudio())
BODY = encode_step(INPUT, NOW, (item_done(SPOKEN), done()), EFFECTS)
FIELDS = Path(__file__).with_name("stored_fields.json")


def test_a_step_comes_back_as_it_was() -> None:
    step = decode_step(BODY)
    assert step.input == INPUT
    assert step.now == NOW and isinstance(step.now, Now)
    assert step.facts == (item_done(SPOKEN), done())
    assert step.effect_names == ("StartResponse", "DropAudio")
    assert step.effect_digest == effect_digest(EFFECTS) != 0
    assert decode_facts(BODY) == step.facts


@given(st.sampled_from(sorted(INPUTS)).flatmap(lambda name: values_of(INPUTS[name])))
def test_every_input_comes_back(given_: Any) -> None:
    assert decode_step(encode_step(given_, NOW, (), ())).input == given_


@given(st.sampled_from(sorted(FACTS)).flatmap(lambda name: values_of(FACTS[name])))
def test_every_fact_comes_back_and_is_json(fact: Fact) -> None:
    body = encode_step(INPUT, NOW, (fact,), ())
    assert decode_facts(body) == (fact,)
    assert type(decode_facts(body)[0]) is type(fact)
    sent = encode_fact_json(fact, seq=Seq(1), epoch=Epoch(1), session=SessionId("s"), at_ms=0)
    assert json.loads(sent)["type"] == fact.TYPE


def test_equal_steps_have_equal_bytes() -> None:
    assert encode_step(INPUT, NOW, (item_done(SPOKEN), done()), EFFECTS) == BODY


def test_the_digest_tells_effects_apart_by_kind_value_and_order() -> None:
    assert effect_digest(()) == 0
    assert effect_digest((e.CloseLink(1),)) != effect_digest((e.CloseLink(2),))
    assert effect_digest((e.StopResponse(RESP),)) != effect_digest((e.ClearPlayout(RESP),))
    assert effect_digest(EFFECTS) != effect_digest(EFFECTS[::-1])


# ------------------------------------------------------------------------------------- newer and damaged


def test_facts_and_inputs_of_a_newer_version_are_kept_byte_for_byte() -> None:
    newer = msgspec.msgpack.encode(
        [
            1,
            "Teleported",
            {"to": "moon"},
            1,
            2,
            [["openline.moon.reached", {"crew": [1, None, b"\x00"]}]],
            [],
            0,
        ]
    )
    step = decode_step(newer)
    assert step.input == UnknownInput("Teleported", msgspec.msgpack.encode({"to": "moon"}))
    (fact,) = step.facts
    assert isinstance(fact, UnknownFact)
    assert fact.type == "openline.moon.reached"
    assert isinstance(step.input, UnknownInput)
    assert encode_step(step.input, step.now, step.facts, ()) == newer


def test_a_field_added_by_a_newer_version_is_passed_over() -> None:
    body = msgspec.msgpack.encode(
        [
            1,
            "ClearAudio",
            {"conn": "c", "why": 7},
            1,
            2,
            [["openline.session.ended", {"reason": "x", "more": {}}]],
            [],
            0,
        ]
    )
    step = decode_step(body)
    assert step.input == i.ClearAudio(conn=step.input.conn)  # type: ignore[union-attr]  # its type is what is asserted
    assert step.facts == (f.SessionEnded("x"),)


def test_a_newer_format_says_who_can_read_it() -> None:
    with pytest.raises(LogCorrupt, match="newer Openline"):
        decode_step(msgspec.msgpack.encode([2, "ClearAudio", {}, 1, 2, [], [], 0]))


def test_every_cut_is_corrupt() -> None:
    for end in range(len(BODY)):
        with pytest.raises(LogCorrupt):
            decode_step(BODY[:end])
        with pytest.raises(LogCorrupt):
            decode_facts(BODY[:end])


@given(st.binary(max_size=300))
def test_only_log_corrupt_comes_out_of_any_bytes(body: bytes) -> None:
    with pytest.raises(LogCorrupt):
        decode_step(body)


@given(st.integers(0, len(BODY) - 1), st.integers(0, 255))
def test_only_log_corrupt_comes_out_of_a_damaged_step(place: int, value: int) -> None:
    damaged = BODY[:place] + bytes([value]) + BODY[place + 1 :]
    for decode in (decode_step, decode_facts):
        try:
            decode(damaged)
        except LogCorrupt as error:
            assert "morning" not in str(error)


def test_a_step_nested_without_end_is_corrupt() -> None:
    deep = b"\x91" * 100_000
    body = msgspec.msgpack.encode([1, "ClearAudio", {}, 1, 2, [], [], 0])
    with pytest.raises(LogCorrupt):
        decode_step(deep)
    with pytest.raises(LogCorrupt):
        decode_facts(body.replace(b"\x80", deep, 1))
    with pytest.raises(LogCorrupt):
        fact_data(UnknownFact("openline.moon.reached", deep))


# -------------------------------------------------------------------------------------------- CloudEvents


def test_a_fact_leaves_as_a_cloud_event() -> None:
    sent = encode_fact_json(
        f.ItemHeard(SPOKEN.id, 400, 4, "paced", True),
        seq=Seq(42),
        epoch=Epoch(3),
        session=SessionId("sess_1"),
        at_ms=1_790_000_000_007,
        node="node-a",
        causation="sess_1/41",
    )
    assert json.loads(sent) == {
        "specversion": "1.0",
        "id": "sess_1/42",
        "source": "/openline/node-a",
        "type": "openline.item.heard",
        "subject": "session/sess_1",
        "time": "2026-09-21T14:13:20.007Z",
        "datacontenttype": "application/json",
        "sequence": "00000000000000000042",
        "correlationid": "sess_1",
        "causationid": "sess_1/41",
        "epoch": 3,
        "data": {
            "item_id": "item_a",
            "audio_end_ms": 400,
            "text_end": 4,
            "source": "paced",
            "estimated": True,
        },
    }


def test_no_token_hash_leaves_with_a_fact() -> None:
    newer = UnknownFact(
        "openline.token.made", msgspec.msgpack.encode({"token_hash": "c0ffee", "role": "speaker"})
    )
    for fact in [*every_fact(), newer]:
        sent = encode_fact_json(fact, seq=Seq(1), epoch=Epoch(1), session=SessionId("s"), at_ms=0)
        assert b"c0ffee" not in sent and b"decaf" not in sent
        assert "causationid" not in json.loads(sent)
    assert fact_data(newer) == {"role": "speaker"}


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_790_000_000_120, "2026-09-21T14:13:20.120Z"),
    ],
)
def test_times_keep_their_milliseconds(at_ms: int, text: str) -> None:
    assert rfc3339(at_ms) == text


# ------------------------------------------------------------------------------------- what logs hold


def test_stored_fields_are_never_renamed_and_new_ones_have_defaults(rewrite: bool) -> None:
    """Logs of a release hold these names. Before the first release: --rewrite, and read the diff."""
    current = {
        name: {field.name: field.default is msgspec.NODEFAULT for field in msgspec.structs.fields(kind)}
        for name, kind in sorted({**FACTS, **INPUTS}.items())
    }
    if rewrite:
        FIELDS.write_text(json.dumps({name: list(of) for name, of in current.items()}, indent=1) + "\n")
    recorded: dict[str, list[str]] = json.loads(FIELDS.read_text())
    for name, of in recorded.items():
        assert name in current, f"{name} is gone, and old logs hold it"
        gone = set(of) - set(current[name])
        assert not gone, f"{name}: fields {sorted(gone)} are gone, and old logs hold them"
        bare = {new for new in set(current[name]) - set(of) if current[name][new]}
        assert not bare, f"{name}: new fields {sorted(bare)} need a default, or old logs do not decode"
