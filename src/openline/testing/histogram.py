"""A latency histogram with fixed buckets: cheap to add to, exact to add up and to subtract.

32 buckets an octave of microseconds: a percentile is at most 3 % too high, never too low. The same buckets
as in ``bench/load/histogram.h``, so that what the generator and the gateway counted can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable

SUB_BITS = 5
BUCKETS = 900
"""Up to 2^31 µs (35 minutes); what is longer counts into the last bucket."""


def bucket(us: int) -> int:
    """The bucket of ``us`` microseconds (>= 0)."""
    if us < 1 << SUB_BITS:
        return us
    shift = us.bit_length() - 1 - SUB_BITS
    return min((shift << SUB_BITS) + (us >> shift), BUCKETS - 1)


def bucket_top_us(index: int) -> int:
    """The largest number of microseconds that falls into the bucket."""
    if index < 2 << SUB_BITS:
        return index
    shift = (index >> SUB_BITS) - 1
    return (((index & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS) + 1) << shift) - 1


class Histogram:
    def __init__(self, counts: Iterable[int] = ()) -> None:
        self.counts = list(counts) or [0] * BUCKETS
        if len(self.counts) != BUCKETS:
            raise ValueError(f"histogram: expected {BUCKETS} buckets; got {len(self.counts)}")

    def add_ns(self, ns: int, weight: int = 1) -> None:
        """Count one duration, for ``weight`` of its like; a negative one (clocks of two machines) counts as 0."""
        self.counts[bucket(max(0, ns) // 1000)] += weight

    @property
    def total(self) -> int:
        return sum(self.counts)

    def percentile_ms(self, percent: float) -> float | None:
        """The duration that ``percent`` (0–100] of all do not exceed, in ms; None when empty."""
        total = self.total
        if total == 0:
            return None
        needed = max(1, -(-total * percent // 100))
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= needed:
                return bucket_top_us(index) / 1000
        raise AssertionError("the counts add up to their total")

    def since(self, earlier: Histogram) -> Histogram:
        """What was counted after ``earlier`` was copied from this same histogram."""
        return Histogram(now - then for now, then in zip(self.counts, earlier.counts, strict=True))

    def sparse(self) -> dict[str, int]:
        return {str(index): count for index, count in enumerate(self.counts) if count}

    @classmethod
    def of_sparse(cls, counts: dict[str, int]) -> Histogram:
        made = cls()
        for index, count in counts.items():
            made.counts[int(index)] = count
        return made
