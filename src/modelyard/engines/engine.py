"""What an engine is: what it can serve, how a running one is known to be ready, and how its client asks it.

Knows nothing of particular engines, nor of which one is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import SecretStr

from modelyard.refs import ModelRef
from modelyard.repository.manifest import ModelInfo

TEXT_GENERATION = "text-generation"


@dataclass(frozen=True, slots=True)
class Serves:
    """Models of one of these formats that do one of these tasks; no tasks: whatever they do."""

    formats: frozenset[str]
    tasks: frozenset[str] = frozenset()

    def takes(self, model: ModelInfo) -> bool:
        return model.format in self.formats and (not self.tasks or model.task in self.tasks)

    def __str__(self) -> str:
        formats = ", ".join(sorted(self.formats))
        return f"{formats} ({', '.join(sorted(self.tasks))})" if self.tasks else formats


class Engine(Protocol):
    """The client of one running engine; what all engines of this kind have in common stands in the class.

    `ready_path` answers 200 to GET when the engine can answer requests. An engine that does not keep a connection
    open for the next request may close it just when that arrives, so it gets one connection for each.
    `refuses_with_500`: how the messages begin with which it takes a client's mistake for its own failure; none: it does
    not do so.
    """

    name: ClassVar[str]
    serves: ClassVar[tuple[Serves, ...]]  # what modelyard can have it serve; nothing: it is only asked
    devices: ClassVar[tuple[str, ...]]  # what it computes on
    ready_path: ClassVar[str]
    keeps_connections: ClassVar[bool]
    refuses_with_500: ClassVar[tuple[str, ...]]

    def __init__(self, url: str, *, timeout_s: float = ..., token: SecretStr | None = ...) -> None: ...

    def predict(self, model_name: str, request: dict[str, Any]) -> dict[str, Any]: ...

    @staticmethod
    def internal_name(ref: ModelRef) -> str | None:
        """What the engine insists on as a request's `model` when it serves this version; None: it takes any."""


class Streaming(Protocol):
    """A client that gives an answer piece by piece."""

    def stream(self, model_name: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The pieces as they come. Raises StreamBroken when they end too early; stopping ends the engine's work."""
