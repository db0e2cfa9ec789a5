"""Stored steps: one input with its facts, as compact bytes and back; and facts as CloudEvents.

A step is one msgpack array, in this order and only ever extended at its end:
``[format, input name, input, mono_ns, wall_ms, [[fact type, fact], …], [effect name, …], effect digest]``.
Values are maps by field name. Maps cost twice the bytes of arrays, but decode 1.6 times as fast (replay
is bound by it), survive a reordered dataclass, and let a field be added later if it has a default.
What a newer version has added is kept: a fact or input of an unknown name stays as its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from openline.core.effects import Effect
from openline.core.facts import FACTS, Fact
from openline.core.inputs import INPUTS, Input
from openline.core.value import Value
from openline.errors import LogCorrupt
from openline.types import Epoch, Now, Seq, SessionId

FORMAT: Final = 1
"""Version of the array above. A reader refuses a higher one: its meaning cannot be guessed."""
SECRET_FIELDS: Final = frozenset({"token_hash", "replaces"})
"""Left out wherever a fact leaves the log. A hash of a token is no token, but nobody outside needs it."""


class UnknownFact(Fact, frozen=True):
    """A fact of a newer version; ``body`` is its msgpack, which ``encode_step`` writes back unchanged."""

    type: str
    body: bytes


class UnknownInput(Value, frozen=True):
    """An input of a newer version: its step can be read and passed on, but not replayed."""

    name: str
    body: bytes


class StoredStep(NamedTuple):
    """A step as it came from disk. ``effect_digest`` is ``effect_digest(effects)`` of the recorded run."""

    input: Input | UnknownInput
    now: Now
    facts: tuple[Fact, ...]
    effect_names: tuple[str, ...]
    effect_digest: int


_Outer = tuple[int, str, msgspec.Raw, int, int, list[tuple[str, msgspec.Raw]], tuple[str, ...], int]

_ENCODER: Final = msgspec.msgpack.Encoder()
_OUTER: Final[msgspec.msgpack.Decoder[_Outer]] = msgspec.msgpack.Decoder(_Outer)


# Bound methods in a dict: replay looks one up for every fact, and this is the cheapest way to do it.
_FACT_DECODERS: Final[dict[str, Callable[[msgspec.Raw], Fact]]] = {
    name: msgspec.msgpack.Decoder(kind).decode for name, kind in FACTS.items()
}
_INPUT_DECODERS: Final[dict[str, Callable[[msgspec.Raw], Input]]] = {
    name: msgspec.msgpack.Decoder(kind).decode for name, kind in INPUTS.items()
}


def fact_type(fact: Fact) -> str:
    """The name under which a fact is stored and shown, also for one of a newer version."""
    return fact.type if isinstance(fact, UnknownFact) else fact.TYPE


def encode_step(
    given: Input | UnknownInput, now: Now, facts: Sequence[Fact], effects: Sequence[Effect]
) -> bytes:
    """The stored form of one step; about 3 µs for two facts. Deterministic: equal values, equal bytes."""
    name, body = (
        (given.name, msgspec.Raw(given.body))
        if isinstance(given, UnknownInput)
        else (type(given).__name__, given)
    )
    return _ENCODER.encode(
        (
            FORMAT,
            name,
            body,
            now.mono_ns,
            now.wall_ms,
            [
                (fact.type, msgspec.Raw(fact.body)) if isinstance(fact, UnknownFact) else (fact.TYPE, fact)
                for fact in facts
            ],
            [type(effect).__name__ for effect in effects],
            effect_digest(effects),
        )
    )


def effect_digest(effects: Sequence[Effect]) -> int:
    """CRC-32 of the effects with their values: what replay compares, since effects are not stored.

    0 for no effects. Names are part of it, so two effects with equal fields differ.
    """
    if not effects:
        return 0
    return crc32(_ENCODER.encode([(type(effect).__name__, effect) for effect in effects]))


def decode_step(body: bytes) -> StoredStep:
    """The step that ``encode_step`` wrote; about 4 µs for two facts.

    Raises LogCorrupt when the bytes are not a step: cut off, damaged, or of a newer format.
    """
    try:
        _, name, given, mono_ns, wall_ms, facts, names, digest = _outer(body)
        known = _INPUT_DECODERS.get(name)
        return StoredStep(
            known(given) if known is not None else UnknownInput(name, bytes(given)),
            Now(mono_ns, wall_ms),
            tuple([_fact(stored) for stored in facts]),
            names,
            digest,
        )
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _corrupt(body, error) from error


def decode_facts(body: bytes) -> tuple[Fact, ...]:
    """Only the facts of a step: what a fold, the feed and the API need. Raises LogCorrupt as ``decode_step``."""
    try:
        return tuple([_fact(stored) for stored in _outer(body)[5]])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _corrupt(body, error) from error


def _outer(body: bytes) -> _Outer:
    outer = _OUTER.decode(body)
    if outer[0] != FORMAT:
        raise LogCorrupt(
            f"expected a step of format {FORMAT}, got format {outer[0]}.",
            hint="It was written by a newer Openline: open the data with that version.",
        )
    return outer


def _fact(stored: tuple[str, msgspec.Raw]) -> Fact:
    name, body = stored
    known = _FACT_DECODERS.get(name)
    return known(body) if known is not None else UnknownFact(name, bytes(body))


def _corrupt(body: bytes, error: Exception) -> LogCorrupt:
    # msgspec's message names types and paths, never values, so no transcript can get into it.
    return LogCorrupt(
        f"expected a stored step, got {len(body)} bytes that do not decode ({type(error).__name__}: {error}).",
        hint="Run 'openline doctor'; restore the data directory from a backup if it finds damage.",
    )


# -------------------------------------------------------------------------------------------- CloudEvents

_JSON: Final = msgspec.json.Encoder()


def encode_fact_json(
    fact: Fact,
    *,
    seq: Seq,
    epoch: Epoch,
    session: SessionId,
    at_ms: int,
    node: str = "",
    causation: str = "",
) -> bytes:
    """One fact as a CloudEvents 1.0 JSON event (structured mode), UTF-8, without a newline.

    ``source`` + ``id`` is unique and the key to deduplicate by; ``sequence`` sorts as text. ``at_ms`` is
    Unix ms; ``causation`` is the id of what led to it, when known. Token hashes are left out of ``data``.
    """
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": f"{session}/{seq}",
        "source": f"/openline/{node}",
        "type": fact_type(fact),
        "subject": f"session/{session}",
        "time": rfc3339(at_ms),
        "datacontenttype": "application/json",
        "sequence": f"{seq:020d}",
        "correlationid": session,
    }
    if causation:
        event["causationid"] = causation
    event["epoch"] = epoch
    event["data"] = fact_data(fact)
    return _JSON.encode(event)


def fact_data(fact: Fact) -> Mapping[str, object]:
    """The fields of a fact by name, ready for JSON, without its secrets. A newer fact has what can be read."""
    if not isinstance(fact, UnknownFact):
        return {name: getattr(fact, name) for name in fact.__struct_fields__ if name not in SECRET_FIELDS}
    try:
        stored = msgspec.msgpack.decode(fact.body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _corrupt(fact.body, error) from error
    return {name: value for name, value in stored.items() if name not in SECRET_FIELDS}


def rfc3339(at_ms: int) -> str:
    """Unix milliseconds as UTC text with millisecond precision, for example ``2026-11-23T15:20:00.000Z``."""
    # Whole seconds and the rest apart: a float of seconds would round the milliseconds.
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment.isoformat()[:19]}.{at_ms % 1000:03d}Z"
