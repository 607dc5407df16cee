"""A load generator: clients that keep their connections open and keep asking, and count every answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

Ask = Callable[[httpx.Client], str]  # returns the version that answered, raises when the answer is not whole


@dataclass(slots=True)
class Traffic:
    """What was asked so far: answers by the version that gave them, and every failure."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        return self.answers.total() + self.failures.total()

    def wait_for(self, version: str) -> None:
        """Until a version has answered. Raises TimeoutError when it does not."""
        deadline = time.monotonic() + 30
        while not self.answers[version]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{version} gave no answer")
            time.sleep(0.05)


@contextmanager
def traffic(ask: Ask, *, clients: int = 4) -> Iterator[Traffic]:
    """Ask again and again while the block runs; every request that was begun is waited for."""
    seen, lock, stop = Traffic(), threading.Lock(), threading.Event()

    def keep_asking() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                try:
                    counter, key = seen.answers, ask(client)
                except (httpx.HTTPError, ValueError) as error:
                    counter, key = seen.failures, repr(error)
                with lock:
                    counter[key] += 1

    threads = [threading.Thread(target=keep_asking) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def request(url: str, body: dict[str, Any]) -> Ask:
    """One request, one answer."""

    def ask(client: httpx.Client) -> str:
        return _version(client.post(url, json=body).raise_for_status())

    return ask


def stream(url: str, body: dict[str, Any]) -> Ask:
    """One answer as a stream of events, whole only with its last one."""

    def ask(client: httpx.Client) -> str:
        with client.stream("POST", url, json=body | {"stream": True}) as answer:
            *_, last = (line for line in answer.raise_for_status().iter_lines() if line)
        if last != "data: [DONE]":
            raise ValueError(f"a stream ended with {last!r}")
        return _version(answer)

    return ask


def _version(answer: httpx.Response) -> str:
    return answer.headers["x-modelyard-model"].partition("@")[0].rpartition(":")[2]
