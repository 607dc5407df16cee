"""Tokens of a journal in memory, for tests."""

from __future__ import annotations

import itertools
from pathlib import Path

from modelyard.access import AccessJournal, Rules
from modelyard.access.keys import KeySource
from modelyard.access.roles import EVERY_MODEL
from modelyard.settings import Role
from modelyard.store import Memory, Store

_names = itertools.count()


class Office:
    """Who makes tokens: a journal with access on. `now` in seconds since 1970; None: the real time."""

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self.now: float | None = None
        self.keys = KeySource(folder / f"signing-{next(_names)}.pem")
        self.store = store or Memory()
        self.journal = AccessJournal(self.store, self.keys, user="tester")
        self.journal.init()

    def token(self, role: Role = "caller", models: tuple[str, ...] = EVERY_MODEL, *, age_s: int = 0) -> str:
        """A token that was made `age_s` ago for an hour."""
        return self.made(role, models, age_s=age_s)[0]

    def made(self, role: Role = "caller", models: tuple[str, ...] = EVERY_MODEL, *, age_s: int = 0) -> tuple[str, str]:
        """A token and its id."""
        token, claims = self.journal.create("someone", role, models, 3600 - age_s)
        return token, claims.id

    @property
    def rules(self) -> Rules:
        return self.journal.rules()
