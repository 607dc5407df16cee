"""Getting ready sooner: what the start of a process that loads models once need not wait for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def beside(*imports: Callable[[], object]) -> Iterator[None]:
    """Import what an engine needs while the block fetches and hashes files. A failure is told by whoever imports it
    again."""
    with ThreadPoolExecutor(1) as ahead:
        for each in imports:
            ahead.submit(each)
        yield


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection in the block, and none of what it leaves afterwards.

    Importing makes a million objects, and hardly one is garbage: looking through them takes a tenth of the start,
    and again at every full collection while requests wait.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
