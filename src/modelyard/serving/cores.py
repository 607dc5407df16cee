"""How many cores this process may use, and how a model's threads share them."""

from __future__ import annotations

import os

_MOST_WORKERS = 4


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_cores() -> tuple[int, int]:
    """(workers, threads of each) for a model whose batches can be computed side by side.

    A batch on each core needs no waiting of cores for each other within a batch, which is what costs most when other
    programs use them too. Python's own share of the work bounds how many batches are worth it.
    """
    workers = min(usable_cores(), _MOST_WORKERS)
    return workers, max(1, usable_cores() // workers)
