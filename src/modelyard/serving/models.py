"""The models of one server process: loaded, warm, and found by the names they answer to."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from modelyard.engines.samples import is_guess, sample
from modelyard.errors import InvalidInput, ModelyardError, NotFound, Unavailable
from modelyard.refs import ModelRef
from modelyard.repository.manifest import ModelVersion, Signature
from modelyard.serving import runtimes
from modelyard.serving.batcher import Batcher
from modelyard.serving.datatypes import DATATYPES
from modelyard.serving.protocol import Arrays
from modelyard.serving.runtimes import Runtime
from modelyard.serving.trust import require_trust
from modelyard.settings import ServingSettings

NAME_SHOWN = 120  # letters of a name that is not there


@dataclass(frozen=True, slots=True)
class Served:
    """What to serve: a version and the folder that holds its verified files."""

    version: ModelVersion
    folder: Path


@dataclass(frozen=True, slots=True)
class LoadedModel:
    version: ModelVersion
    runtime: Runtime
    batcher: Batcher


class Source(Protocol):
    """What a server's requests find their models in."""

    stopping: bool

    @property
    def ready(self) -> bool: ...
    def use(
        self, text: str, label: str | None = None, *, patience_s: float | None = None
    ) -> AbstractAsyncContextManager[LoadedModel]: ...
    def all(self) -> Iterable[LoadedModel]: ...
    def versions(self, name: str) -> list[str]: ...


class Models:
    """Which models there are and whether they may be asked: from `loaded` on, also for a moment after `stopping`."""

    def __init__(self) -> None:
        self.loaded = False
        self.stopping = False
        self._by_name: dict[str, list[LoadedModel]] = {}

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.loaded and not self.stopping

    def add(self, model: LoadedModel) -> None:
        versions = self._by_name.setdefault(model.version.name, [])
        versions.append(model)
        versions.sort(key=lambda m: m.version.version, reverse=True)

    def all(self) -> Iterable[LoadedModel]:
        return (model for versions in self._by_name.values() for model in versions)

    def versions(self, name: str) -> list[str]:
        return [str(model.version.version) for model in reversed(self._by_name.get(name, []))]

    @contextlib.asynccontextmanager
    async def use(
        self,
        text: str,
        label: str | None = None,
        *,
        patience_s: float | None = None,  # noqa: ARG002 - all are there
    ) -> AsyncIterator[LoadedModel]:
        yield self.find(label or text)

    def find(self, text: str) -> LoadedModel:
        """The model for `name` (its highest version here) or `name:version`. Raises NotFound, Unavailable.

        `name:tag` finds the model too where only one of its versions is here: what a tag means was decided by whoever
        sent the request to this process, and the answer's header tells which version it was.
        """
        if not self.loaded:
            raise Unavailable("the server is still loading", remedy="try again in a second")
        try:
            ref = ModelRef.parse(text)
        except InvalidInput:
            raise self._unknown(text) from None
        found = self._by_name.get(ref.name, [])
        if ref.version is not None:
            found = [model for model in found if model.version.version == ref.version]
        if ref.digest is not None:
            found = [model for model in found if model.version.digest == ref.digest]
        if not found or (ref.tag is not None and len(found) > 1):
            raise self._unknown(text)
        return found[0]

    def _unknown(self, text: str) -> NotFound:
        served = ", ".join(f"{model.version.name}:{model.version.version}" for model in self.all())
        return NotFound(f"no model {text[:NAME_SHOWN]!r} is served here", remedy=f"ask for {served}")


def load(served: Served, *, trust_code: Sequence[str] = ()) -> Runtime:
    """Loads a version's files. Raises a ModelyardError whose one line says what is wrong with which model.

    A model that is code is refused unless `trust_code` holds its name or its digest.
    """
    version = served.version
    require_trust(version, trust_code)
    try:
        return runtimes.load(version, served.folder)
    except ModelyardError:
        raise
    # Loaders of many libraries raise many things; a person needs to know the model and the reason.
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InvalidInput(f"{version.name}:{version.version} can't be loaded: {reason[0]}") from error


async def warm_up(version: ModelVersion, runtime: Runtime, settings: ServingSettings) -> LoadedModel:
    """One request through the model's own worker, so that the first real one finds everything in place."""
    batcher = Batcher(
        runtime,
        max_batch=settings.max_batch,
        max_tokens=settings.max_batch_tokens,
        delay_s=settings.batch_delay_ms / 1000,
        queue_limit=settings.queue_limit,
    )
    if runtime.signature.inputs:
        try:
            await batcher.infer(example(runtime.signature))
        except ModelyardError as error:
            message = f"{version.name}:{version.version} does not answer a sample request: {error}"
            if any(-1 in t.shape[1:] or is_guess(t.name, t.datatype) for t in runtime.signature.inputs):
                # Lengths of 1 and texts are a guess here; the model may have good reasons to refuse them.
                print(f"{message}; it is served without warm-up", file=sys.stderr)
            else:
                await batcher.close()
                raise InvalidInput(message, remedy="check that the signature fits the model") from error
    return LoadedModel(version, runtime, batcher)


def example(signature: Signature) -> Arrays:
    """One row of zeros, or of a short sentence or a small picture, in the signature's shapes; a length of -1 is 1."""
    return {
        tensor.name: np.full(
            tuple(1 if length == -1 else length for length in tensor.shape),
            sample(tensor.name, tensor.datatype),
            dtype=DATATYPES[tensor.datatype],
        )
        for tensor in signature.inputs
    }
