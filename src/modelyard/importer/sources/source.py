"""What the importer asks of a place that models come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from modelyard.store.files import File

MOST_FILES = 10_000  # of one model; a place that holds more is no model, or bears ill will


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model where it lies: its files, what it is called there, and where it came from.

    `version` is what the place calls it, if that can be read as a version; `lineage` goes into the manifest.
    """

    files: Sequence[File]
    name: str
    version: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listed:
    """One model version of a place: an address that `Source.open` takes, and its name and version there.

    `pin` tells whether it has been imported already, without a look at its files: what `open` gives as
    `lineage["source"]`. `tags` are those that it has there. `why` says, if so, why it should not come.
    """

    address: str
    name: str
    version: str
    pin: str = ""
    tags: tuple[str, ...] = ()
    why: str = ""


class Source(Protocol):
    """One place. `example` shows how to write an address there."""

    example: str

    def matches(self, source: str) -> bool:
        """Whether the address means this place; looks at the text alone."""
        ...

    def open(self, source: str) -> AbstractContextManager[Fetched]:
        """The model, for as long as the context lasts. Raises NotFound and InvalidInput."""
        ...


@runtime_checkable
class Estate(Source, Protocol):
    """A place that can name all the models it holds, for `import --all`."""

    def list(self, source: str) -> Iterator[Listed]:
        """Every model version below an address, one by one, in an order that is the same each time."""
        ...
