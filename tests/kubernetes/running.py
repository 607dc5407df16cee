"""`modelyard controller` and `modelyard gateway` as processes, and clients that ask all the time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from times import ONE

from .kubelet import wait_for


@contextmanager
def process(command: str, log: Path, ready: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """`modelyard COMMAND` until the block ends; ready once the URL answers."""
    with log.open("ab") as out:
        running = subprocess.Popen([sys.executable, "-m", "modelyard", command], stdout=out, stderr=out)
    try:
        if ready:
            wait_for(lambda: running.poll() is not None or answers(ready), what=log.read_text)
            assert running.poll() is None, log.read_text()
        yield running
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0, log.read_text()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1, trust_env=False).is_success
    except httpx.TransportError:
        return False


@dataclass
class Load:
    """Asks `model` at the gateway from several threads until the block ends."""

    gateway: str
    model: str
    threads: int = 2
    pause_s: float = 0.04
    answered: Counter[str] = field(default_factory=Counter)  # by version
    failed: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Begins once somebody answers: of a first replica the gateway may hear a moment later than the journal."""
        wait_for(lambda: httpx.post(self._url, json=ONE, timeout=30, trust_env=False).is_success)
        threads = [threading.Thread(target=self._ask) for _ in range(self.threads)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            print(f"answered {dict(self.answered)}, failed {self.failed}")

    @property
    def _url(self) -> str:
        return f"{self.gateway}/v2/models/{self.model}/infer"

    @property
    def count(self) -> int:
        return sum(self.answered.values()) + len(self.failed)

    def goes_on(self, count: int = 50, timeout_s: float = 60) -> None:
        """Until so many more requests were answered well: at most 25 a second by each thread."""
        enough = self.answered.total() + count
        wait_for(lambda: self.answered.total() >= enough, timeout_s, what=lambda: f"{self.answered} {self.failed[:3]}")

    def _ask(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url, json=ONE)
                    if answer.is_success:
                        self.answered[answer.headers["x-modelyard-model"].partition("@")[0]] += 1
                    else:
                        self.failed.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    self.failed.append(f"{type(error).__name__} {error}")
                time.sleep(self.pause_s)


def kill(running: subprocess.Popen[bytes]) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
