"""Plain YAML for those whose own tools apply it: the same text for the same wish, without times or other chance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from modelyard.deployment.targets.kubernetes.objects import objects
from modelyard.deployment.targets.kubernetes.workload import Workload
from modelyard.errors import InvalidInput, NotFound
from modelyard.refs import ModelRef
from modelyard.repository import DeploymentSpec, ModelRepository, ModelVersion
from modelyard.settings import KubernetesSettings
from modelyard.store.documents import problem

_adapter = TypeAdapter(DeploymentSpec)


def as_yaml(workload: Workload, settings: KubernetesSettings) -> str:
    """The objects of a workload, in the order in which they are to be applied."""
    return yaml.safe_dump_all(objects(workload, settings, settings.namespace), sort_keys=False, width=4096)


def wanted(
    repository: ModelRepository, ref: str, environment: str | None, replicas: int
) -> tuple[ModelVersion, DeploymentSpec, str]:
    """The version that is meant, its spec, and the environment; with one given, a bare name means what is wanted there.

    Raises NotFound for a model that is not deployed there, InvalidInput for a name alone.
    """
    parsed = ModelRef.parse(ref)
    if parsed.selector:
        return repository.resolve(parsed), DeploymentSpec(replicas), environment or "production"
    if environment is None:
        raise InvalidInput(f"{ref!r} names no version", remedy=f"write {ref}:v1.0.0, or give --environment")
    deployment = repository.environment(environment).get(parsed.name)
    if deployment.target is None:
        raise NotFound(f"{ref} is not deployed in {environment}", remedy="see `modelyard status`")
    exact = ModelRef(parsed.name, deployment.target.version, digest=deployment.target.digest)
    return repository.resolve(exact), deployment.spec, environment


def changed(spec: DeploymentSpec, changes: Iterable[str]) -> DeploymentSpec:
    """The spec with `key=value` changes, such as `resources.gpus=1`. Raises InvalidInput."""
    document: dict[str, Any] = _adapter.dump_python(spec, mode="json")
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InvalidInput(f"{change!r} sets nothing", remedy="write it as replicas=2 or resources.memory=2Gi")
        first, _, second = key.partition(".")
        inner = isinstance(document.get(first), dict)
        known = (
            first in document and inner == bool(second) and (first == "env" or not inner or second in document[first])
        )
        if not known:
            raise InvalidInput(f"a deployment has no {key!r}", remedy=f"use one of {', '.join(_keys(document))}")
        if inner:
            document[first][second] = value
        else:
            document[first] = value or None
    try:
        return _adapter.validate_python(document)
    except ValidationError as error:
        raise InvalidInput(f"this can't be set: {problem(error)}", remedy="mend the value") from error


def _keys(document: dict[str, Any]) -> list[str]:
    plain = [key for key, value in document.items() if not isinstance(value, dict)]
    return [*plain, *(f"resources.{key}" for key in document["resources"]), "env.NAME"]
