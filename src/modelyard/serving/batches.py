"""Which waiting work is computed next, together, and whether to wait for more first. Pure: no queue, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import isinf
from typing import Any, TypeVar

Key = tuple[Any, ...]

# Looking at more of a long queue finds hardly better neighbours.
_LOOK_AHEAD = 512
# Less is not worth a thread of its own.
_SMALLEST_SHARE = 64
# So many usual gaps without an arrival, and nobody is expected any more.
_PATIENCE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of one request that are never separated.

    `size` is the length of the longest row in tokens (1 where the runtime knows of none); pieces with the same `key`
    can be joined, those with None with no other. `due` is when it should have begun, in seconds on the caller's clock.
    """

    key: Key | None
    rows: int
    size: int
    due: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What one batch may hold: rows, and rows times the size of its longest (that is, with padding)."""

    rows: int
    tokens: int

    def hold(self, rows: int, size: int) -> bool:
        # Where rows have no length in tokens, their number alone counts.
        return rows <= self.rows and (size == 1 or rows * size <= self.tokens)


P = TypeVar("P", bound=Piece)


def next_batch(waiting: Sequence[P], limits: Limits, workers: int = 1) -> list[P]:
    """The first of those waiting, and those most like it in size. `waiting` is in the order in which they are due.

    The first always goes, however large it is, so nothing waits for ever. What would keep only one of several idle
    workers busy is shared among them.
    """
    first = waiting[0]
    if first.key is None:
        return [first]
    alike = sorted((p for p in islice(waiting, _LOOK_AHEAD) if p.key == first.key), key=lambda p: p.size)
    limits = _shared(alike, limits, workers)
    low = high = next(n for n, piece in enumerate(alike) if piece is first)
    rows = first.rows
    while True:
        shorter = alike[low - 1] if low > 0 else None
        longer = alike[high + 1] if high + 1 < len(alike) else None
        if shorter is not None and not limits.hold(rows + shorter.rows, alike[high].size):
            shorter = None
        if longer is not None and not limits.hold(rows + longer.rows, longer.size):
            longer = None
        if longer is not None and (shorter is None or longer.size - first.size <= first.size - shorter.size):
            high, rows = high + 1, rows + longer.rows
        elif shorter is not None:
            low, rows = low - 1, rows + shorter.rows
        else:
            return sorted(alike[low : high + 1], key=lambda p: p.due)


def is_full(batch: Sequence[Piece], limits: Limits) -> bool:
    """Whether one more row would be too many."""
    size = max(piece.size for piece in batch)
    return batch[0].key is None or not limits.hold(sum(piece.rows for piece in batch) + 1, size)


@dataclass(slots=True)
class Arrivals:
    """How often requests come, learned from those that came: the usual gap between two, and the last one's time."""

    last: float = float("-inf")
    gap_s: float = float("inf")

    def note(self, now: float) -> None:
        gap = now - self.last
        self.gap_s = gap if isinf(self.gap_s) else 0.75 * self.gap_s + 0.25 * gap
        self.last = now

    def wait_s(self, oldest_due: float, delay_s: float, now: float) -> float:
        """How long a batch that is not full should wait for more: until its oldest is `delay_s` late at most, and
        not at all when nobody is expected by then, or when those expected have not come. 0 or less: not at all."""
        left, patience = oldest_due + delay_s - now, _PATIENCE * self.gap_s
        return min(left, self.last + patience - now) if patience < left else 0.0


def _shared(alike: Sequence[Piece], limits: Limits, workers: int) -> Limits:
    if workers <= 1:
        return limits
    tokens = sum(piece.rows * piece.size for piece in alike)
    return Limits(limits.rows, min(limits.tokens, max(_SMALLEST_SHARE, -(-tokens // workers))))
