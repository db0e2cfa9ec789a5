"""An agent whose handler takes its time and writes down what it was given, for a gateway that is killed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from openline import Agent

agent = Agent()
NOTES = Path(os.environ.get("HANDLER_NOTES", os.devnull))


@agent.on("openline.turn.committed")
async def note(turn: object, session: object) -> None:
    """Begins and ends a line for each turn; a kill in between leaves it half written."""
    with NOTES.open("a") as notes:
        notes.write(f"begin {getattr(turn, 'id', '')}\n")
    await asyncio.sleep(0.5)
    with NOTES.open("a") as notes:
        notes.write(f"end {getattr(turn, 'id', '')}\n")
