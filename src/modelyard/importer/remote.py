"""Files of another machine: read in stretches, and taken up again at the last byte when the connection breaks.

Knows neither protocols nor addresses: a source says how a stretch is read, and which failures may pass.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from typing import TypeVar

from modelyard.errors import IntegrityError, Unavailable
from modelyard.store.files import Blocks

T = TypeVar("T")

# The bytes from a start to an end, as they come; may end early or raise Passing.
Read = Callable[[int, int], Iterator[bytes]]


class Passing(Exception):
    """A failure that may pass. `wait` is how many seconds the other side asks to be left alone."""

    def __init__(self, why: str, *, wait: float = 0) -> None:
        self.why = why
        self.wait = wait
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried again without getting any further, and how long to wait in between."""

    retries: int = 5
    first_s: float = 0.5
    longest_s: float = 120
    sleep: Callable[[float], None] = time.sleep

    def rest(self, what: str, failure: Passing, failures: int) -> None:
        """Wait before the next attempt. Raises Unavailable when there is to be none."""
        if failure.wait > self.longest_s:
            raise Unavailable(f"{what}: {failure.why}", remedy=f"try again in {failure.wait:.0f} s") from failure
        if failures > self.retries:
            raise Unavailable(f"{what}: {failure.why}", remedy="try again later") from failure
        self.sleep(max(failure.wait, self.first_s * 2 ** (failures - 1)))

    def insist(self, what: str, attempt: Callable[[], T]) -> T:
        """What an attempt gives once it succeeds."""
        failures = 0
        while True:
            try:
                return attempt()
            except Passing as failure:
                failures += 1
                self.rest(what, failure, failures)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that a source reads for us (see `store.files.File`). `git_sha1` is git's name of its content, if known.

    `what` names it in messages, with the place that it comes from.
    """

    path: str
    size: int
    read: Read
    what: str
    sha256: str | None = None
    git_sha1: str | None = None
    patience: Patience = field(default_factory=Patience)
    _blocks: list[Blocks] = field(default_factory=list, compare=False, repr=False)

    def open(self) -> BufferedReader:
        if not self._blocks:
            self._blocks.append(Blocks(lambda start, length: b"".join(self._stretch(start, start + length)), self.size))
        return self._blocks[0].open()

    def chunks(self) -> Iterator[bytes]:
        sha1 = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
        for chunk in self._stretch(0, self.size):
            if self.git_sha1:
                sha1.update(chunk)
            yield chunk
        if self.git_sha1 not in (None, sha1.hexdigest()):
            raise IntegrityError(f"{self.what} is not what its source says it is", remedy="get it again")

    def _stretch(self, start: int, end: int) -> Iterator[bytes]:
        failures = 0
        while start < end:
            try:
                for chunk in self.read(start, end):
                    start += len(chunk)
                    failures = 0
                    yield chunk
                if start < end:
                    raise Passing(f"the connection ended {end - start} bytes early")
            except Passing as failure:
                failures += 1
                self.patience.rest(self.what, failure, failures)
