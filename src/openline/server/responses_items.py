"""Stored items by the ids that clients of ``/v1/responses`` know them under, and the way back (``item_reference``).

A session's own item ids are unique only within it, so an item is shown with its session in its id. A reasoning item
keeps its provider's id, which its encrypted content is bound to; where it is stands in the store.
What is found belongs to a stored response of the tenant that asks: what was forgotten with its response, or said by
voice in a session of no response, is found by nobody here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import msgspec

from openline.core import facts as f
from openline.core.facts import Fact
from openline.core.model import Item, Part
from openline.core.session import StoredStep, conversation_at
from openline.core.value import replace
from openline.errors import ClientProtocolError, SessionNotFound
from openline.runtime.gateway import Gateway
from openline.types import ItemId, ResponseId, Seq, SessionId
from openline.wire.reasoning import object_of, part_of
from openline.wire.responses_input import Reference, item_not_found
from openline.wire.responses_server import Create

SPACE = "responses_reasoning"
"""Where the store keeps which item a reasoning item led to: ids only, no content."""
CHAINS_MAX = 64
"""Sessions that the references of one request may be to: each of them is a log to read."""
_PREFIXES = {"message": "msg", "function_call": "fc", "mcp_call": "fc", "function_call_output": "fco"}
_ID = re.compile(r"(?:msg|fc|fco)_([A-Za-z0-9]+)_(.+)", re.ASCII | re.DOTALL)


class _Place(msgspec.Struct):
    """Under a reasoning item's id in ``SPACE``."""

    session: SessionId
    item: ItemId


def public_item(session: SessionId, item: Item) -> Item:
    """A session's item under its id on this API."""
    tail = f"{session.removeprefix('sess_')}_{item.id.removeprefix('item_')}"
    return replace(item, id=ItemId(f"{_PREFIXES[item.type]}_{tail}"))


async def note_reasoning(gateway: Gateway, tenant: str, session: SessionId, output: Sequence[Item]) -> None:
    """Write down where the reasoning of a stored response is."""
    for item in output:
        for text in item.reasoning:
            name = object_of(text).get("id")
            if name:  # A server that gives its reasoning none cannot be asked for it by one.
                place = msgspec.json.encode(_Place(session, item.id))
                await gateway.store.put_value(SPACE, f"{tenant}/{name}", place)


IsKept = Callable[[SessionId, ResponseId], Awaitable[bool]]
"""Whether a session's response is one that this tenant can still read."""


@dataclass(slots=True)
class _Chain:
    """A session as it is now: its items as heard, and the response that each was made by or given to."""

    items: dict[ItemId, Item]
    owners: dict[ItemId, ResponseId]


class References:
    """Answers the references of one request."""

    def __init__(self, gateway: Gateway, tenant: str, is_kept: IsKept) -> None:
        self._gateway = gateway
        self._tenant = tenant
        self._is_kept = is_kept
        self._chains: dict[SessionId, _Chain] = {}

    async def resolve(self, asked: Create, known: frozenset[ItemId]) -> Create:
        """With every item that it refers to, but for those that the conversation it goes on has already (``known``).
        Raises ClientProtocolError for what is not there."""
        found: dict[str, Item | Part | None] = {}
        for each in asked.given:
            if isinstance(each, Reference) and each.id not in found:
                found[each.id] = await self._answer(each.id, known)
        return asked.resolved(found)

    async def _answer(self, name: str, known: frozenset[ItemId]) -> Item | Part | None:
        place = await self._place(name)
        chain = await self._chain(place.session) if place is not None else None
        if place is None or chain is None:
            raise item_not_found(name)
        item = next(
            (chain.items[each] for each in (place.item, ItemId(f"item_{place.item}")) if each in chain.items),
            None,
        )
        owner = chain.owners.get(item.id) if item is not None else None
        if item is None or owner is None or not await self._is_kept(place.session, owner):
            raise item_not_found(name)
        if item.id in known:
            return None
        thought = next((text for text in item.reasoning if object_of(text).get("id") == name), None)
        return part_of(thought) if thought is not None else _copied(item)

    async def _place(self, name: str) -> _Place | None:
        own = _ID.fullmatch(name)
        if own is not None:
            return _Place(SessionId(f"sess_{own[1]}"), ItemId(own[2]))
        value = await self._gateway.store.get_value(SPACE, f"{self._tenant}/{name}")
        return msgspec.json.decode(value, type=_Place) if value else None

    async def _chain(self, session: SessionId) -> _Chain | None:
        if session in self._chains:
            return self._chains[session]
        if len(self._chains) >= CHAINS_MAX:
            message = f"Expected references to items of at most {CHAINS_MAX} chains in one request."
            raise ClientProtocolError(message, code="invalid_value", param="input")
        store = self._gateway.store
        await store.flush()
        try:
            if (await store.session(session)).tenant != self._tenant:
                return None
            steps = await self._gateway.read_steps(session)
        except SessionNotFound:
            return None
        self._chains[session] = chain = _chain_of(steps)
        return chain


def _chain_of(steps: Sequence[StoredStep]) -> _Chain:
    facts = [fact for step in steps for fact in step.facts]
    items = {item.id: item for item in conversation_at(steps, Seq(len(facts)))}
    return _Chain(items, _owners(facts))


def _owners(facts: Sequence[Fact]) -> dict[ItemId, ResponseId]:
    """What was put in belongs to the response that was asked for next."""
    owners: dict[ItemId, ResponseId] = {}
    waiting: list[ItemId] = []
    for fact in facts:
        if isinstance(fact, f.ItemCreated):
            waiting.append(fact.item.id)
        elif isinstance(fact, f.ResponseCreated):
            owners |= dict.fromkeys(waiting, fact.response_id)
            waiting.clear()
        elif isinstance(fact, f.OutputItemDone):
            owners[fact.item.id] = fact.response_id
    return owners


def _copied(item: Item) -> Item:
    """As an item of another conversation: what was spoken is text there."""
    kind = "input_text" if item.role == "user" else "output_text"
    content = tuple(
        Part(kind, part.text) if part.type in ("input_audio", "output_audio") else part  # type: ignore[arg-type]  # one of two names
        for part in item.content
    )
    return replace(item, id=ItemId(""), content=content, turn_id=None)
