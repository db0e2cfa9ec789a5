"""Appends without end to the log in argv[1]; prints each durable mark as ``session seq``. Killed by its parent."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from openline.adapters.log_sqlite import SqliteLog
from openline.testing.check_log import Owner, own
from openline.types import Seq


class Printing(Owner):
    def appended(self, last_seq: Seq) -> None:
        # One write call a line: what the parent reads was acknowledged before the kill.
        os.write(1, f"{self.session} {last_seq}\n".encode())


async def main() -> None:
    dice = random.Random(int(sys.argv[2]))
    log = SqliteLog(Path(sys.argv[1]))
    await log.open()
    owners = []
    for number in range(20):
        owner = await own(log, f"sess_kill{number:02d}")
        owner = Printing(log, owner.session, owner.epoch, owner.next_seq)
        log.subscribe(owner.session, owner)
        owners.append(owner)
    os.write(1, b"ready 0\n")
    while True:
        for _ in range(dice.randrange(40)):
            if not log.is_saturated:
                dice.choice(owners).append(*["t"] * dice.randrange(1, 4), body=dice.randbytes(300))
        await asyncio.sleep(0.0005)


asyncio.run(main())
