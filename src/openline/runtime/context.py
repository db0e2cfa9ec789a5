"""How much of a conversation a language model is given: ``truncation`` of the Realtime session, done honestly.

Pure. Only where the client gave a limit of its own (``token_limits.post_instructions``): what a model takes is
not known here, and a provider says so itself. Tokens are estimated, because every model counts its own way.
"""

from __future__ import annotations

from collections.abc import Sequence

from openline.core.model import Item

CHARACTERS_A_TOKEN = 4
"""OpenAI's own rule of thumb for English; other languages take more tokens, so their limit comes a little late."""
TOKENS_AN_ITEM = 4
"""Role and separators of one item, by the counting guides of the chat models."""
TOKENS_AN_IMAGE = 800
"""A picture of middling size; providers count tiles of it."""


def tokens_of(item: Item) -> int:
    """About how many tokens an item costs."""
    # Thoughts are not counted: their JSON says nothing of what a provider makes of them.
    texts = [part.text or "" for part in item.content if part.type != "reasoning"]
    texts += [item.name, item.arguments, item.output or item.error]
    images = sum(part.type == "input_image" for part in item.content)
    characters = sum(map(len, texts))
    return TOKENS_AN_ITEM + -(-characters // CHARACTERS_A_TOKEN) + images * TOKENS_AN_IMAGE


def within(items: Sequence[Item], limit: int | None, retained: float) -> tuple[Item, ...]:
    """The newest of ``items`` that count as within ``limit`` tokens; all of them for None.

    Each time that the conversation grows past the limit its oldest items go until at most ``retained`` of the
    limit is left. So it is cut seldom, and in between a provider's prompt cache stays warm: where it is cut
    follows from the items alone. Outputs without their calls go with them. The last item always stays.
    """
    items = tuple(items)  # once: a long conversation is unpacked as it is walked
    if limit is None:
        return items
    costs = [tokens_of(item) for item in items]
    begin = total = 0
    for at, cost in enumerate(costs):
        total += cost
        if total > limit:
            while begin < at and total > limit * retained:
                total -= costs[begin]
                begin += 1
    called = {item.call_id for item in items[begin:] if item.type != "function_call_output"}
    return tuple(
        item for item in items[begin:] if item.type != "function_call_output" or item.call_id in called
    )
