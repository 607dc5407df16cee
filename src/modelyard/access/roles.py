"""Roles, and the patterns that say for which models a token is good. Pure.

A pattern is a model's name, or its beginning and `*`. It is about the model as a whole: `digits` covers
`digits:production` and `digits:v1.0.0` too. So that Envoy can match what a token carries, a pattern has its only `*` at
its end: the patterns that cover one given name are then few, and one expression (`covering`) finds them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import get_args

from modelyard.errors import InvalidInput
from modelyard.settings import Role

ROLES: tuple[Role, ...] = get_args(Role)
EVERY_MODEL = ("*",)
_TASK = "task:"
_PATTERN = re.compile(r"(?:task:)?[A-Za-z0-9._/-]*\*?")


def at_least(role: Role) -> tuple[Role, ...]:
    """The roles that may do what `role` may; each includes those before it."""
    return ROLES[ROLES.index(role) :]


def model_of(asked: str) -> str:
    """What patterns are about: the model of a name at the gateway; `task:…` stands for itself."""
    return asked if asked.startswith(_TASK) else asked.partition(":")[0]


def parse_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    """Raises InvalidInput for what is no pattern, and for none at all."""
    patterns = tuple(dict.fromkeys(text.strip() for text in texts))
    for pattern in patterns:
        if not pattern or not _PATTERN.fullmatch(pattern):
            raise InvalidInput(
                f"{pattern!r} says no models", remedy="write a model's name, or its beginning and *, such as team/*"
            )
    if not patterns:
        raise InvalidInput("the token would be good for no model", remedy="name some with --models, or '*'")
    return patterns


def covers(patterns: Sequence[str], model: str) -> bool:
    return any(re.fullmatch(covering(model), pattern) for pattern in patterns)


def covering(model: str) -> str:
    """An RE2 expression for exactly the patterns that cover the model."""
    beginnings = ""
    for letter in reversed(model):
        beginnings = f"(?:{re.escape(letter)}{beginnings})?"
    return rf"{re.escape(model)}|{beginnings}\*"
