"""The conformance suite of the SessionLog port: what every store must do, as named checks.

A store's tests give a ``Shelf``: a place for one log, empty at first, that hands out unopened logs on it.

    @pytest.mark.parametrize("name", log_checks())
    def test_store(name, tmp_path):
        asyncio.run(check_log(name, Shelf(lambda **limits: SqliteLog(tmp_path, **limits))))

A check raises AssertionError, with the rule that was broken. What a store cannot do is switched off by its
capabilities, which are thereby also its documentation.
"""

from __future__ import annotations

import asyncio

from openline.testing import check_log_steps as _steps  # noqa: F401  adds its checks
from openline.testing import check_log_views as _views  # noqa: F401  adds its checks
from openline.testing.log_kit import CHECKS, Capabilities, MakeLog, Owner, Shelf, own

__all__ = ["Capabilities", "MakeLog", "Owner", "Shelf", "check_log", "log_checks", "own"]

DEADLINE_S = 20.0
"""A check that takes longer has hung."""


def log_checks() -> list[str]:
    """The names of all checks."""
    return list(CHECKS)


async def check_log(name: str, shelf: Shelf, *, deadline_s: float = DEADLINE_S) -> None:
    """Run one check on an empty shelf. Raises AssertionError, or TimeoutError after ``deadline_s`` seconds."""
    async with asyncio.timeout(deadline_s):
        await CHECKS[name](shelf)
