"""Where a pool's models come from: an environment's deployments on demand, or a fixed list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modelyard.refs import ModelRef
from modelyard.repository import Environment, ModelRepository, ModelVersion
from modelyard.repository.signatures import Signatures

if TYPE_CHECKING:
    from modelyard.serving.models import Served


@dataclass(frozen=True, slots=True)
class EnvironmentShelf:
    """What an environment's journal says runs on demand. A version that is known needs the store no more when its files
    are in the cache."""

    environment: Environment
    repository: ModelRepository
    signatures: Signatures
    _known: dict[str, ModelVersion] = field(default_factory=dict)

    def labels(self) -> Iterable[str]:
        return [str(ref) for model, d in self.environment.read().items() for ref in d.on_demand(model)]

    def take(self, label: str) -> Served:
        """Raises Refused for a version without the signature that the environment requires."""
        version = self._known.get(label) or self.repository.resolve(ModelRef.parse(label))
        self.signatures.require(version, self.environment.name)
        self._known[label] = version
        return _served(self.repository, version)


@dataclass(frozen=True, slots=True)
class FixedShelf:
    """Versions by their labels; whether they may be served was decided before."""

    versions: Mapping[str, ModelVersion]
    repository: ModelRepository

    def labels(self) -> Iterable[str]:
        return self.versions

    def take(self, label: str) -> Served:
        return _served(self.repository, self.versions[label])


def _served(repository: ModelRepository, version: ModelVersion) -> Served:
    from modelyard.serving.models import Served

    return Served(version, repository.fetch(version, recheck=True))
