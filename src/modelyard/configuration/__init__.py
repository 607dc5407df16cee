"""Central configuration: one journal for each section, so every change has an author, a time and a way back."""

from __future__ import annotations

import re
from typing import Any

from modelyard import defaults
from modelyard.configuration import sections
from modelyard.errors import InvalidInput, NotFound
from modelyard.store import Entry, Journal, Store
from modelyard.store.documents import to_json

_SECTION = re.compile(r"[a-z][a-z0-9-]{0,62}")


class ConfigurationManager:
    """Sections of keys and JSON values in the store."""

    def __init__(self, storage_backend: Store, *, user: str | None = None) -> None:
        self._store = storage_backend
        self._user = user or defaults.yard().settings.user

    def get_config(self, section: str, key: str) -> Any:
        """Raises NotFound for a key that was never set."""
        entry = self._journal(section).read()
        if entry is None or key not in entry.state:
            raise NotFound(
                f"there is no {key!r} in the configuration section {section!r}",
                remedy=f"set it with `modelyard config set {section} {key} VALUE`",
            )
        return entry.state[key]

    def get_section(self, section: str) -> dict[str, Any]:
        """Every key of a section; empty if nothing was ever set."""
        entry = self._journal(section).read()
        return dict(entry.state) if entry else {}

    def parsed(self, section: str) -> dict[str, Any]:
        """Every key of a section of `sections.SECTIONS` with its value as that section's type."""
        return {key: sections.parse(section, key, value) for key, value in self.get_section(section).items()}

    def set_config(self, section: str, key: str, value: Any, *, reason: str = "") -> None:
        """Set one key to a JSON value. Raises InvalidInput for what JSON or the section's type can't hold."""
        if not key:
            raise InvalidInput("a configuration key can't be empty", remedy="name the key")
        sections.parse(section, key, value)
        to_json(value, what=f"{section}.{key}")
        why = f"set {key}" + (f": {reason}" if reason else "")
        self._journal(section).update(lambda state: state | {key: value}, by=self._user, why=why)

    def history(self, section: str) -> list[Entry]:
        """Every change of a section, oldest first."""
        return self._journal(section).history()

    def _journal(self, section: str) -> Journal:
        if not _SECTION.fullmatch(section):
            raise InvalidInput(
                f"{section!r} is not a configuration section", remedy="use lower-case letters, digits and '-'"
            )
        return Journal(self._store, f"config/{section}")
