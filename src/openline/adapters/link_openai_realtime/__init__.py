"""The upstream model link: OpenAI Realtime and every server that speaks it.

link.py       the port: one provider session at a time, watching it, renewing it
session.py    one socket with all that belongs to it: handshake, frames in and out, errors
socket.py     picows' client, and what its failures mean
caller.py     the caller's audio on its way up, and the formats that are asked for
turns.py      the user's side: speech, turns and their text
replies.py    the model's side: responses and their outputs
formats.py    G.711 as it is where the provider takes it, transcoded where not
items.py      the conversation: which of the provider's items are which of ours
"""

from __future__ import annotations

from openline.adapters.link_openai_realtime.link import (
    OPENAI_URL,
    OpenAIRealtimeFactory,
    OpenAIRealtimeLink,
    OpenAIRealtimeSettings,
)
from openline.adapters.link_openai_realtime.socket import SocketSettings

__all__ = [
    "OPENAI_URL",
    "OpenAIRealtimeFactory",
    "OpenAIRealtimeLink",
    "OpenAIRealtimeSettings",
    "SocketSettings",
]
