"""How a session's end reaches the client that asked for it, and those who only watched."""

from __future__ import annotations

import asyncio
from pathlib import Path

from integration.gateway import running
from integration.line import again, dial, line


def test_the_one_who_ends_a_session_is_told_so_and_closed_with_1000(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data") as gateway, line(gateway.url) as caller:
            async with line(gateway.url, session_id=caller.opening["session_id"], role="observer") as watcher:
                await caller.send("openline.session.end", reason="goodbye")
                ended = await caller.wait("openline.session.ended")
                assert ended["reason"] == "goodbye"
                assert (await caller.wait_closed())[0] == 1000
                await watcher.wait("openline.session.ended")
                assert (await watcher.wait_closed())[0] == 4410

    asyncio.run(story())


def test_a_replaced_speaker_is_told_and_closed_with_4409(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "data") as gateway, line(gateway.url) as first:
            second = await dial(gateway.url, **again(first))
            gone = await first.wait("openline.connection.detached")
            assert gone["reason"] == "replaced"
            assert (await first.wait_closed())[0] == 4409
            await second.close()

    asyncio.run(story())
