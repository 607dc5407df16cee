"""Plain YAML for those whose own tools apply it: the same text for the same wish, without times or other chance."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import yaml

from modelyard.access.access import is_loopback
from modelyard.deployment.targets.kubernetes.objects import objects
from modelyard.deployment.targets.kubernetes.workload import Workload
from modelyard.errors import InvalidInput, NotFound
from modelyard.refs import ModelRef
from modelyard.repository import DeploymentSpec, ModelRepository, ModelVersion
from modelyard.settings import KubernetesSettings, Settings


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice out twice: anchors would be one more thing to understand in a diff."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def as_yaml(workload: Workload, settings: KubernetesSettings) -> str:
    """The objects of a workload, in the order in which they are to be applied."""
    found = objects(workload, settings, settings.namespace)
    text: str = yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, width=4096)
    return text


def out_of_reach(settings: Settings) -> str:
    """What the objects name that pods can't reach, and what to do about it; empty if there is nothing."""
    address = settings.s3_endpoint_url
    if not address or not is_loopback(urlsplit(address).hostname or ""):
        return ""
    return f"pods can't reach {address}, which is this machine; set s3_endpoint_url to an address that they can reach"


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
