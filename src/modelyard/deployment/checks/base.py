"""What a check is: a name, what it looks at, and a function that looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `detail` is a line for people, `seconds` what looking took."""

    name: str
    passed: bool
    detail: str
    seconds: float = field(default=0.0, compare=False)


class Failed(AssertionError):
    """A check that the version did not pass, in a line; other errors mean that it could not be looked at."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A check to come. `what` says what is asked with which data; `run` returns a detail, or raises Failed with it."""

    name: str
    what: str
    run: Callable[[], str]
