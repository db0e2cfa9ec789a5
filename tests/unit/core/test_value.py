"""What every value promises: it holds still, is equal by its fields, and can be had with some of them changed."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest

from openline.core.facts import FACTS
from openline.core.inputs import INPUTS
from openline.core.model import Part, Usage
from openline.core.value import Value, replace


@dataclass(frozen=True)
class Plan:
    sockets: int
    seconds: float = 1.0


def test_a_value_never_changes() -> None:
    part = Part("input_text", "hello")
    with pytest.raises(AttributeError):
        part.text = "goodbye"  # type: ignore[misc]  # what is tried here
    with pytest.raises(AttributeError):
        part.more = 1  # type: ignore[attr-defined]  # the same


def test_values_are_equal_and_hashed_by_their_fields() -> None:
    assert Part("input_text", "hello") == Part("input_text", "hello") != Part("output_text", "hello")
    assert len({Usage(1, 2), Usage(1, 2), Usage(2, 2)}) == 2


def test_the_collector_has_nothing_to_do_with_values() -> None:
    assert not gc.is_tracked(Part("input_text", "hello"))


def test_a_copy_has_what_was_changed_and_the_rest() -> None:
    part = Part("input_text", "hello")
    assert replace(part, text="bye") == Part("input_text", "bye")
    assert part.text == "hello"
    assert replace(Plan(2, 3.0), sockets=4) == Plan(4, 3.0)
    with pytest.raises(TypeError):
        replace(part, colour="red")


@pytest.mark.parametrize("kind", [*FACTS.values(), *INPUTS.values()], ids=lambda kind: kind.__name__)
def test_whatever_the_log_holds_is_a_value(kind: type[object]) -> None:
    assert issubclass(kind, Value)
