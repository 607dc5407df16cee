"""Which variant of a task a request gets, and how often each was given. Knows names and weights, not models."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate


def pick(variants: Mapping[str, int], position: float) -> str:
    """The variant at a position in [0, 1): each takes a stretch as long as its weight, in the order they are written.

    So when weights shift a little, only positions near the borders change hands: the second variant keeps all it has
    when its weight grows.
    """
    weighted = [(name, weight) for name, weight in variants.items() if weight]
    point = position * sum(weight for _, weight in weighted)
    borders = accumulate(weight for _, weight in weighted)
    found = (name for (name, _), border in zip(weighted, borders, strict=True) if point < border)
    return next(found, weighted[-1][0])  # a point may be rounded up to the very end


def position(task: str, key: str | None) -> float:
    """A number in [0, 1): for a key always the same, in every process; another for another task. No key: at random."""
    if key is None:
        return random.random()  # noqa: S311 - no secret
    digest = hashlib.sha256(f"{task}\0{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # as many bits as a float holds


class Exposures:
    """How often each variant of each task was given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, task: str, variant: str) -> None:
        with self._lock:
            self._counts[task, variant] += 1

    def as_dict(self) -> dict[str, dict[str, int]]:
        """task → variant → how often."""
        found: dict[str, dict[str, int]] = {}
        with self._lock:
            for (task, variant), count in self._counts.items():
                found.setdefault(task, {})[variant] = count
        return found
