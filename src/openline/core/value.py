"""Values: what inputs, facts, effects, items and settings are. They never change, and are compared by their fields.

msgspec's structs and not data classes (docs/decisions/0012): a frozen data class sets each field by
``object.__setattr__``; that was a quarter of the time of replay.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")


class Value(msgspec.Struct, frozen=True, gc=False):
    """Base of all values. A value holds values, tuples, texts and numbers: nothing that could lead back to it, so the
    collector need not look at it."""


def replace(value: T, /, **changes: Any) -> T:
    """A copy with some fields changed, of a value or a data class: ``copy.replace``, which comes with Python 3.13."""
    if isinstance(value, msgspec.Struct):
        return cast(T, msgspec.structs.replace(value, **changes))
    return cast(T, dataclasses.replace(cast(Any, value), **changes))
