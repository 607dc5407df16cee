"""Serving models in this process, as a replica, a pool or for oneself: what `modelyard serve` does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from modelyard.errors import InvalidInput
from modelyard.repository import ModelVersion
from modelyard.settings import ServingSettings
from modelyard.yard import Yard


def serve(
    yard: Yard,
    refs: Sequence[str],
    *,
    host: str,
    port: int,
    environment: str | None = None,
    engine: str | None = None,
    replica: str = "",
    trust_code: bool = False,
) -> int:
    """Serve models in this process, with the engine chosen for them, until SIGTERM. Returns the exit code.

    Raises Refused for a version without the signature that its environment requires, before anything is loaded;
    one that was started by hand, for no environment, needs it wherever any environment does. Also for one that
    brings its own code, unless `trust_code` or the settings let it run.
    """
    from modelyard.engines import llamacpp
    from modelyard.engines.listening import bind
    from modelyard.engines.startup import beside, without_collection
    from modelyard.serving.trust import require_trust

    bind(host, port).close()  # before gigabytes come for nothing
    versions = [yard.repository.resolve(ref) for ref in refs]
    settings = _serving(yard, versions, trust_code)
    for version in versions:
        yard.signatures.require(version, environment)
        require_trust(version, settings.trust_code)
    engines = {yard.launching.choose(version, engine) for version in versions}
    if len(engines) > 1 or (engines != {"pytorch"} and len(versions) > 1):
        raise InvalidInput(
            "these models need processes of their own", remedy="serve language models one by one, apart from others"
        )
    if engines != {"pytorch"}:
        with beside(*([llamacpp.library] if engines == {"llamacpp"} else [])):
            folder = yard.repository.fetch(versions[0], recheck=True)
        return yard.launching.run(engines.pop(), versions[0], folder, host=host, port=port, replica=replica)
    with without_collection(), beside(partial(_import_runtimes, versions)):
        folders = [yard.repository.fetch(version, recheck=True) for version in versions]
    from modelyard.serving.models import Served
    from modelyard.serving.server import run

    served = [Served(version, folder) for version, folder in zip(versions, folders, strict=True)]
    return run(served, host=host, port=port, settings=settings)


def serve_on_demand(yard: Yard, refs: Sequence[str], *, host: str, port: int, trust_code: bool = False) -> int:
    """The same for models that are loaded at their first request and unloaded when they are idle."""
    from modelyard.deployment.shelves import FixedShelf
    from modelyard.serving.server import run_pool
    from modelyard.serving.trust import require_trust

    versions = [yard.repository.resolve(ref) for ref in refs]
    settings = _serving(yard, versions, trust_code)
    for version in versions:
        yard.signatures.require(version, None)
        require_trust(version, settings.trust_code)
        if yard.launching.choose(version) != "pytorch":
            raise InvalidInput(f"{version.name}:{version.version} needs a process of its own", remedy="serve it alone")
    shelf = FixedShelf({str(version.ref): version for version in versions}, yard.repository)
    return run_pool(shelf, host=host, port=port, settings=settings)


def serve_pool(yard: Yard, environment: str, *, host: str, port: int) -> int:
    """Serve what an environment has on demand, in this process, until SIGTERM. Returns the exit code."""
    from modelyard.deployment.shelves import EnvironmentShelf
    from modelyard.serving.server import run_pool

    shelf = EnvironmentShelf(yard.repository.environment(environment), yard.repository, yard.signatures)
    return run_pool(shelf, host=host, port=port, settings=yard.settings.serving)


def _serving(yard: Yard, versions: Sequence[ModelVersion], trust_code: bool) -> ServingSettings:
    """The settings, in which these versions' own code is trusted if somebody says so."""
    serving = yard.settings.serving
    if not trust_code:
        return serving
    return serving.model_copy(update={"trust_code": tuple(str(version.digest) for version in versions)})


def _import_runtimes(versions: Sequence[ModelVersion]) -> None:
    from modelyard.serving.runtimes import prepare
    from modelyard.serving.server import settle

    settle()
    for version in versions:
        prepare(version)
