"""How many times a test does what it does: few in `make test`, the full figure in `make prove`."""

from __future__ import annotations

import os


def figure(name: str, small: int) -> int:
    """``OPENLINE_FIGURE_<NAME>`` from the environment, else ``small``. Mark such a test ``figure_<name>``."""
    return int(os.environ.get(f"OPENLINE_FIGURE_{name.upper()}", small))
