"""Ids at eight bytes each: none that was added is forgotten."""

from __future__ import annotations

from openline.core.idset import IdSet, id_hash


def test_what_was_added_is_known_and_nothing_else() -> None:
    known = IdSet()
    assert "call_1" not in known
    names = [f"call_{number}" for number in range(500)]
    for name in names:
        known.add(name)
    assert all(name in known for name in names)
    assert not any(f"other_{number}" in known for number in range(500))
    assert len(known) == 500


def test_an_id_counts_once_and_the_order_does_not_matter() -> None:
    one, other = IdSet(), IdSet()
    for name in ("a", "b", "a"):
        one.add(name)
    for name in ("b", "a"):
        other.add(name)
    assert one == other
    assert len(one) == 2
    other.add("c")
    assert one != other
    assert one != {"a", "b"}


def test_the_last_of_the_hashes_has_its_end() -> None:
    """A name whose hash is beyond all others is not looked up behind the end."""
    names = sorted(("a", "b", "c", "d"), key=id_hash)
    known = IdSet()
    known.add(names[0])
    assert names[-1] not in known and names[0] in known


def test_the_hash_is_the_same_in_every_process_and_takes_any_text() -> None:
    assert id_hash("call_1") == 0x1549BBD5528DF7B7
    assert id_hash("call_\ud800") != id_hash("call_\ud801")
    assert all(id_hash(f"call_{number}") < 1 << 64 for number in range(100))
