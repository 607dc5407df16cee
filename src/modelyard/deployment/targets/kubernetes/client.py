"""`KubernetesClient`: one Deployment of a cluster led to another version, from a laptop or a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from lightkube.resources.apps_v1 import Deployment as ClusterDeployment

from modelyard import defaults
from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.objects import objects
from modelyard.deployment.targets.kubernetes.parts import Parts
from modelyard.deployment.targets.kubernetes.rollouts import Rollouts
from modelyard.deployment.targets.kubernetes.workload import Strategy
from modelyard.errors import InvalidInput, NotFound
from modelyard.refs import ModelRef
from modelyard.repository import DeploymentSpec, ModelVersion


class KubernetesClient:
    """The Kubernetes API, as far as models need it; the cluster is that of the settings or the kubeconfig.

    Raises MissingExtra without the extra `kubernetes`, InvalidInput when no cluster is configured.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        yard: Any = None if parts else defaults.yard()
        self._parts: Parts = parts or yard.cluster.parts
        self._rollouts = Rollouts(self._parts.cluster)

    @property
    def namespace(self) -> str:
        """The one whose Deployments this leads."""
        return self._parts.cluster.namespace

    def update_deployment(
        self,
        name: str,
        new_model_path: str | Path | None = None,
        new_model_version: str | None = None,
        strategy: str = "rolling_update",
        *,
        spec: DeploymentSpec | None = None,
        timeout_s: float | None = None,
        force: bool = False,
    ) -> ModelRef:
        """Roll the Deployment `name` over to another version, and return when it serves; it is made if it is not there.

        The version is `new_model_version` (`v1.2.0` of the model that the Deployment runs, or `digits:v1.2.0`), or the
        one whose files `get_model` gave as `new_model_path`. With the strategy `recreate` the old replicas end first.
        `spec` says how many replicas there are and what each may take; by default as many as before. `force` takes over
        fields that others have set. Raises RolloutFailed with the reason when the version does not come up within
        `timeout_s` (by default as in the settings); then the Deployment is as it was before.
        """
        if strategy not in get_args(Strategy):
            raise InvalidInput(f"{strategy!r} is no strategy", remedy=f"use one of {', '.join(get_args(Strategy))}")
        there = self._rollouts.find(_checked(name))
        version = self._version(name, there, new_model_path, new_model_version)
        environment = _environment(name, there)
        self._parts.signatures.require(version, environment)
        spec = spec or DeploymentSpec(_replicas(there) or self._parts.settings.deployment.replicas)
        kind: Strategy = "recreate" if strategy == "recreate" else "rolling_update"
        workload = self._parts.workloads.of(version, environment, spec, name=name, strategy=kind)
        documents = objects(workload, self._parts.settings.kubernetes)
        self._rollouts.run(documents, timeout_s=timeout_s or self._parts.settings.deployment.timeout_s, force=force)
        return version.ref

    def _version(
        self, name: str, there: ClusterDeployment | None, path: str | Path | None, version: str | None
    ) -> ModelVersion:
        if path is not None and version is None:
            return self._by_path(Path(path), _annotation(there, names.MODEL))
        if version is None or path is not None:
            raise InvalidInput(
                f"it is not clear what {name} is to run", remedy="give either new_model_version or new_model_path"
            )
        if ":" in version:
            return self._parts.repository.resolve(version)
        model = _annotation(there, names.MODEL)
        if not model:
            what = "runs no model of modelyard" if there else f"is not there, in the namespace {self.namespace}"
            raise NotFound(f"{name} {what}", remedy=f"say which model: new_model_version='NAME:{version}'")
        return self._parts.repository.resolve(f"{model}:{version}")

    def _by_path(self, path: Path, model: str) -> ModelVersion:
        """The version whose files these are: their folder is named by their digest. The own model comes first."""
        repository = self._parts.repository
        for name in sorted(repository.list_models(), key=lambda each: (each != model, each)):
            for version in reversed(repository.registered(name)):
                if version.digest.hex == path.name:
                    return version
        raise InvalidInput(
            f"{path} is not what `get_model` gave for a version here",
            remedy="register the files as a version, and give that as new_model_version",
        )


def _checked(name: str) -> str:
    if not names.is_name(name):
        raise InvalidInput(
            f"{name!r} can't be the name of a Deployment", remedy="use lower-case letters, digits and '-', 52 at most"
        )
    return name


def _environment(name: str, there: ClusterDeployment | None) -> str:
    """As it is marked; a new one is for production unless its name says otherwise: that asks for more."""
    labels = (there.metadata.labels if there and there.metadata else None) or {}
    return labels.get(names.ENVIRONMENT) or ("staging" if "staging" in name else "production")


def _replicas(there: ClusterDeployment | None) -> int | None:
    return there.spec.replicas if there and there.spec else None


def _annotation(there: ClusterDeployment | None, key: str) -> str:
    found = (there.metadata.annotations if there and there.metadata else None) or {}
    return str(found.get(key, ""))
