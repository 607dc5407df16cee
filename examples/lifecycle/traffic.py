"""A load generator: clients that keep their connections open and keep asking, and count every answer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(slots=True)
class Traffic:
    """What was asked so far: answers by the version that gave them, and every failure."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        return self.answers.total() + self.failures.total()


@contextmanager
def traffic(url: str, body: dict[str, Any], *, clients: int = 4) -> Iterator[Traffic]:
    """Ask again and again while the block runs; every request that was begun is waited for."""
    seen, lock, stop = Traffic(), threading.Lock(), threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                try:
                    answer = client.post(url, json=body)
                    model = answer.headers.get("x-modelyard-model", "").partition("@")[0]
                    counter, key = (seen.answers, model) if answer.status_code == 200 else (seen.failures, answer.text)
                except httpx.HTTPError as error:
                    counter, key = seen.failures, repr(error)
                with lock:
                    counter[key] += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
