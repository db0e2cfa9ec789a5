"""Where stored reasoning is found again."""

from __future__ import annotations

from openline.core.model import Item, Part
from openline.server.responses_items import SPACE, note_reasoning
from openline.testing.virtual_time import run_virtual
from openline.types import ItemId, SessionId
from runtime_gateway import TENANT, house


def said(*reasoning: str) -> Item:
    content = (Part("output_text", "Yes."), *(Part("reasoning", text) for text in reasoning))
    return Item(ItemId("item_1"), "message", "assistant", "assistant", content=content)


def test_reasoning_is_noted_under_its_id_and_without_one_not_at_all() -> None:
    async def story() -> None:
        async with house() as home:
            output = [said('{"type":"reasoning","summary":[]}', '{"id":"rs_1","summary":[]}', '{"id":null}')]
            await note_reasoning(home.gateway, TENANT, SessionId("sess_1"), output)
            store = home.gateway.store
            assert await store.get_value(SPACE, f"{TENANT}/rs_1") == b'{"session":"sess_1","item":"item_1"}'
            assert await store.get_value(SPACE, f"{TENANT}/None") is None

    run_virtual(story())
