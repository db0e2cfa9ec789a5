"""Ids that were used once and must not be used again, at eight bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from hashlib import blake2b


class IdSet:
    """A set of ids that keeps their hashes only. It knows every id that was added, and takes a strange one for
    known once in 2⁶⁴ times the number of its ids: for questions where a wrong yes does no harm.

    The hash is the same in every process, so that a replay gives the same answers.
    """

    __slots__ = ("_hashes",)

    def __init__(self) -> None:
        self._hashes = array("Q")
        """Sorted."""

    def add(self, name: str) -> None:
        if name not in self:
            insort(self._hashes, id_hash(name))

    def __contains__(self, name: str) -> bool:
        wanted = id_hash(name)
        at = bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted

    def __len__(self) -> int:
        return len(self._hashes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and self._hashes == other._hashes


def id_hash(name: str) -> int:
    """64 bits of which a client that chooses its ids cannot make many equal ones: equal ones cost time."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
