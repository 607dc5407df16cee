"""What the importer asks of a place that models come from."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model on this machine: its folder (or one file), what it is called there, and where it came from."""

    folder: Path
    name: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """One place. `example` shows how to write an address there."""

    example: str

    def matches(self, source: str) -> bool:
        """Whether the address means this place; looks at the text alone."""
        ...

    def open(self, source: str) -> AbstractContextManager[Fetched]:
        """The model, for as long as the context lasts. Raises NotFound and InvalidInput."""
        ...
