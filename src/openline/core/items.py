"""Commands that edit the conversation: create, delete, truncate; and the session's configuration."""

from __future__ import annotations

from openline.core import effects as e
from openline.core import facts as f
from openline.core import inputs as i
from openline.core.draft import Draft
from openline.core.model import Cut
from openline.core.responses import hear, settle_tool
from openline.core.tables import is_legal
from openline.core.value import replace
from openline.types import CallId, ItemId


def create_item(draft: Draft, input_: i.CreateItem) -> None:
    state, item = draft.state, input_.item
    if state.is_taken(item.id):
        _create_again(draft, input_)
        return
    previous = state.last_item_id()
    if input_.previous == "root":
        previous = state.forked_after  # What is inherited stays in front.
    elif input_.previous is not None:
        if input_.previous not in state.entries:
            message = f"Error creating item: the previous item with id '{input_.previous}' does not exist."
            draft.reject(input_.conn, input_.command, "invalid_value", message, "previous_item_id")
            return
        previous = ItemId(input_.previous)
    if not item.id:
        item = replace(item, id=ItemId(draft.new_id("item")))
    draft.fact(f.ItemCreated(item, previous, input_.conn, input_.command))
    draft.effect(e.AddItem(item, previous))
    call = state.tools.get(CallId(item.call_id)) if item.type == "function_call_output" else None
    if call is not None and call.runner == "client" and is_legal("tool", call.phase, "settled"):
        settle_tool(draft, call.call_id, "succeeded")


def _create_again(draft: Draft, input_: i.CreateItem) -> None:
    """Stock clients create their history again when they reconnect: the same item is shown, not made."""
    known = draft.state.entries.get(input_.item.id)
    kind = (input_.item.type, input_.item.role)
    if known is not None and (known.item.type, known.item.role) == kind and input_.conn:
        previous = draft.state.previous_of(known.item.id)
        draft.effect(e.ResendItem(input_.conn, known.as_heard(), previous))
        return
    message = f"Error adding item: an item with id '{input_.item.id}' already exists in the conversation."
    draft.reject(input_.conn, input_.command, "item_create_duplicate_item_id", message, "item.id")


def delete_item(draft: Draft, input_: i.DeleteItem) -> None:
    entry = draft.state.entries.get(input_.item_id)
    if entry is None or entry.item.status == "in_progress":
        message = f"Error deleting item: the item with id '{input_.item_id}' does not exist."
        draft.reject(input_.conn, input_.command, "item_delete_invalid_item_id", message, "item_id")
        return
    draft.fact(f.ItemDeleted(input_.item_id, input_.conn, input_.command))
    draft.effect(e.RemoveItem(input_.item_id))


def truncate_item(draft: Draft, input_: i.TruncateItem) -> None:
    """The client says what was heard: it knows best. Longer than the audio is clamped unless it is strict."""
    state = draft.state
    entry = state.entries.get(input_.item_id)
    if entry is None or entry.item.role != "assistant":
        message = f"Error truncating item: the item with id '{input_.item_id}' does not exist."
        draft.reject(input_.conn, input_.command, "item_truncate_invalid_item_id", message, "item_id")
        return
    is_open = entry.item.status == "in_progress"
    connection = state.connections.get(input_.conn)
    asked = input_.audio_end_ms
    if connection is not None and connection.strict and not is_open and asked > entry.audio_ms:
        message = f"Audio content of {entry.audio_ms}ms is already shorter than {asked}ms"
        draft.reject(input_.conn, input_.command, "invalid_value", message, "audio_end_ms")
        return
    end_ms = asked if is_open else min(asked, entry.audio_ms)
    draft.fact(f.ItemTruncated(input_.item_id, input_.content_index, end_ms, input_.conn, input_.command))
    if not is_open:
        hear(draft, entry, Cut(input_.item_id, entry.item.text, entry.audio_ms, end_ms, "client"))


def update_config(draft: Draft, input_: i.UpdateConfig) -> None:
    state = draft.state
    connection = state.connections.get(input_.conn)
    if input_.config.voice != state.config.voice and state.has_spoken and connection and connection.strict:
        message = "Cannot update a conversation's voice if assistant audio is present"
        draft.reject(
            input_.conn, input_.command, "cannot_update_voice", message, "session.audio.output.voice"
        )
        return
    draft.fact(f.SessionUpdated(input_.config, input_.conn, input_.command))
    if state.link.phase == "open":
        draft.effect(e.ConfigureLink(input_.config))
