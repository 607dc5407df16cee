"""From a version and a wish to a workload: the engine, its command line in a pod, and what it must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.deployment.targets.kubernetes import names
from modelyard.deployment.targets.kubernetes.pods import KEYS
from modelyard.deployment.targets.kubernetes.workload import Strategy, Workload
from modelyard.deployment.variables import replica_variables
from modelyard.engines import ENGINES, OllamaServer, VLLMServer, choose
from modelyard.errors import Refused, SettingsError
from modelyard.repository import DeploymentSpec, ModelVersion
from modelyard.settings import Settings

_REACHABLE = ("s3://", "gs://", "az://")


@dataclass(frozen=True, slots=True)
class Workloads:
    """`configured` gives the engine that the configuration names for a model, if it does."""

    settings: Settings
    store: str
    configured: Callable[[str], str | None]

    def of(
        self,
        version: ModelVersion,
        environment: str,
        spec: DeploymentSpec,
        *,
        name: str | None = None,
        rollout: str = "",
        strategy: Strategy = "rolling_update",
    ) -> Workload:
        """Raises InvalidInput when no engine can serve the version, Refused for a store that pods can't reach."""
        self._require_reachable()
        engine, keys, serving = self.engine(version), self._keys(), self.settings.serving
        ref = str(version.ref)
        files = [f"{KEYS}/{file}" for file in keys]
        return Workload(
            name=name or names.object_name(version.name, environment),
            environment=environment,
            yard=names.yard_label(self.store),
            ref=version.ref,
            engine=engine,
            owner=version.created_by,
            spec=spec,
            command=self._command(ref, engine, environment),
            pull=("modelyard", "pull", ref),
            ready_path=ENGINES[engine].ready_path,
            variables=replica_variables(self.settings, self.store, files) | self._reaching(),
            ready_s=serving.ready_timeout_s,
            drain_s=serving.drain_timeout_s,
            keys=keys,
            rollout=rollout,
            strategy=strategy,
        )

    def engine(self, version: ModelVersion) -> str:
        """The engine that a version gets in a pod. Raises InvalidInput."""
        configured = self.configured(version.name)
        return choose(version.model, ENGINES, env=self.settings.env, configured=configured, absent=self._absent).engine

    def _command(self, ref: str, engine: str, environment: str) -> tuple[str, ...]:
        address = ("--host", "$(POD_IP)", "--port", str(self.settings.kubernetes.port))
        known = ("--replica-id", "$(POD_NAME)", "--environment", environment)
        return ("modelyard", "serve", ref, "--engine", engine, *address, *known)

    def _absent(self, engine: str) -> str | None:
        if engine == VLLMServer.name and self.settings.engines.vllm_command is None:
            return "engines.vllm_command is not set"
        return "a pod brings its engine with it" if engine == OllamaServer.name else None

    def _reaching(self) -> dict[str, str]:
        """Where the store is, and how patient requests to it are."""
        storage = self.settings.storage.model_dump(exclude_unset=True)
        found = {f"MODELYARD_STORAGE__{key.upper()}": str(value) for key, value in storage.items()}
        if self.settings.s3_endpoint_url:
            found["MODELYARD_S3_ENDPOINT_URL"] = self.settings.s3_endpoint_url
        return found

    def _require_reachable(self) -> None:
        if not self.store.startswith(_REACHABLE):
            raise Refused(
                f"pods can't reach the store {self.store}",
                remedy="use a bucket; `modelyard copy` brings versions there",
            )

    def _keys(self) -> dict[str, str]:
        """The public keys, by names that none shares with another."""
        found = {}
        for number, path in enumerate(self.settings.security.trusted_keys):
            try:
                found[f"{number}-{names.label_value(path.name)}"] = path.expanduser().read_text()
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(
                    f"the key {path} can't be read: {error}", remedy="mend security.trusted_keys"
                ) from error
        return found
