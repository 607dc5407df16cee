"""Many transfers at once: bounded memory, and the first failure ends the others. Knows nothing of stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from threading import Condition, Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):
    """Work that was given up because other work failed; never seen by callers of `run`."""


class Stop:
    """Asked between two chunks by everything that runs side by side."""

    def __init__(self) -> None:
        self._event = Event()

    def set(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises Stopped once somebody has failed."""
        if self._event.is_set():
            raise Stopped


class Budget:
    """Bytes of memory that are shared by what runs side by side."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free = size
        self._changed = Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Wait until so many bytes are free; what is larger than the whole budget gets all of it."""
        count = min(count, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        try:
            yield
        finally:
            with self._changed:
                self._free += count
                self._changed.notify_all()


def run(
    task: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    stop: Stop,
    done: Callable[[Result], object] = lambda _: None,
) -> list[Result]:
    """Results in the order of `items`; `done` gets each as it comes, in the caller's thread.

    The first failure (or an interrupt) sets `stop`, waits for what runs, and is raised.
    """
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(task, item) for item in items]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]
