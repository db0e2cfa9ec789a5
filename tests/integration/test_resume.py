"""Coming back: after every single frame, in every role, after a park, a replacement, a drop in mid-reply."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from integration.gateway import running
from integration.line import (
    Frame,
    Line,
    Place,
    durable_frames,
    line,
    place_of,
)
from openline.wire.render import MAX_FRAMES

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]


async def conversation(caller: Line) -> None:
    """Facts of every shape: one frame, many frames, ours and the protocol's."""
    await caller.send(
        "session.update", session={"type": "realtime", "output_modalities": ["text"], "tools": TOOLS}
    )
    await caller.turn("hello there")
    done = await caller.turn("call look with {} and call look with {}")
    for call in done["response"]["output"]:
        await caller.send(
            "conversation.item.create",
            item={"type": "function_call_output", "call_id": call["call_id"], "output": "seen"},
        )
    await caller.send("response.create")
    await caller.wait("response.done")
    await caller.write("forget this")
    item = await caller.wait("conversation.item.done")
    await caller.send("conversation.item.delete", item_id=item["item"]["id"])
    await caller.wait("conversation.item.deleted")


def test_a_cut_after_every_single_frame_resumes_exactly(tmp_path: Path) -> None:
    """The whole stream is known from a client that was never cut; others take it up after each frame of it.

    And are cut again after each of their first frames, session.created among them.
    """

    async def story() -> None:
        async with running(tmp_path / "data") as gateway, line(gateway.url) as caller:
            await conversation(caller)
            whole = durable_frames(caller.frames)
            sizes = Counter(place[1] for place, _ in whole)
            assert sum(size > 1 for size in sizes.values()) >= 12, "facts of several frames"
            seen: list[Place] = []
            for frame in caller.frames[1:]:
                if place_of(frame)[2] < MAX_FRAMES:
                    seen.append(place_of(frame))
                rest = await observed(gateway.url, caller, frame, whole[-1][0])
                expected = whole[len(seen) :]
                assert durable_before(rest, whole[-1][0]) == expected, f"after {frame['event_id']}"
                for count in (1, 3):
                    again_ = await observed(gateway.url, caller, rest[count - 1], whole[-1][0])
                    both = durable_before(rest[:count] + again_, whole[-1][0])
                    assert both == expected, f"after {frame['event_id']}, then {rest[count - 1]['event_id']}"

    asyncio.run(story())


async def observed(url: str, caller: Line, cut: Frame, last: Place) -> list[Frame]:
    """All that an observer who saw everything up to ``cut`` is sent, until it has passed ``last``."""
    session = caller.opening["session_id"]
    async with line(url, session_id=session, role="observer", after=cut["event_id"]) as observer:
        await observer.wait_any(lambda frame: last < place_of(frame) and place_of(frame)[2] < MAX_FRAMES)
        return list(observer.frames)


def durable_before(frames: list[Frame], last: Place) -> list[tuple[Place, Frame]]:
    return [(place, frame) for place, frame in durable_frames(frames) if place <= last]
