"""The yard: opens the settings and builds every part out of the others. The one place where parts meet."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard.configuration import ConfigurationManager
from modelyard.refs import ModelRef
from modelyard.repository import Inspection, ModelRepository, ModelVersion, Pin
from modelyard.repository.index import Index
from modelyard.settings import SECRET_VARIABLES, Settings, load_settings
from modelyard.store import Cache, Store, open_store
from modelyard.store.nearest import nearest_store

if TYPE_CHECKING:
    from modelyard.access.access import Access
    from modelyard.deployment import DeploymentManager, LocalStatus
    from modelyard.deployment.analyst import RolloutAnalyst
    from modelyard.deployment.client import ModelClient
    from modelyard.deployment.controller import Companion, Controller
    from modelyard.deployment.launching import Launching
    from modelyard.deployment.targets.kubernetes.assembly import Assembly
    from modelyard.deployment.targets.launch import Launch
    from modelyard.deployment.targets.local import LocalTarget
    from modelyard.embeddings import EmbeddingManager
    from modelyard.gateway import Gateway
    from modelyard.gateway.inference import Parts
    from modelyard.gateway.routes import RouteTable
    from modelyard.gateway.statistics import Statistics
    from modelyard.importer import ModelImporter
    from modelyard.repository.signatures import Signatures
    from modelyard.store.files import File

_GATEWAY, _CLUSTER_GATEWAY = "gateway", "cluster-gateway"  # folders


class Yard:
    """Everything one process works with. Parts are built when they are first asked for."""

    def __init__(self, settings: Settings, store: Store | None = None) -> None:
        self.settings = settings
        self._store = store

    @classmethod
    def default(cls) -> Yard:
        """The yard of the current folder's settings."""
        return cls(load_settings())

    @cached_property
    def store(self) -> Store:
        """The store of the settings, else the nearest `.modelyard` upward, else the one in the home folder.

        Raises NotFound when there is none.
        """
        return self._store or open_store(self.settings.store or str(nearest_store(Path.cwd())))

    def at(self, store: str) -> Yard:
        """The yard with the same settings and another store, given by its URL or folder. Raises NotFound."""
        return Yard(self.settings, open_store(store))

    @cached_property
    def cache(self) -> Cache:
        """Verified files on this machine."""
        return Cache(self.settings.cache, limit=self.settings.cache_limit)

    @cached_property
    def repository(self) -> ModelRepository:
        """The models and their versions in the store."""
        return ModelRepository(
            self.store, cache=self.cache, inspect=self.inspect, user=self.settings.user, index=self.index
        )

    @cached_property
    def index(self) -> Index:
        """What this machine knows of the catalog in the store."""
        return self.index_of(self.store)

    def index_of(self, store: Store) -> Index:
        """The index of any store; kept in the cache, for each store and machine."""
        address = f"{store.url} {self.settings.s3_endpoint_url} {platform.node()}"
        folder = self.settings.cache.expanduser() / "index" / hashlib.sha256(address.encode()).hexdigest()[:12]
        return Index(store, folder)

    @cached_property
    def configuration(self) -> ConfigurationManager:
        """The central configuration in the store."""
        return ConfigurationManager(self.store, user=self.settings.user)

    @cached_property
    def importer(self) -> ModelImporter:
        """Brings models into the repository."""
        from modelyard.importer import ModelImporter

        return ModelImporter(self.repository)

    @cached_property
    def deployments(self) -> DeploymentManager:
        """Moves versions through the environments."""
        from modelyard.deployment import DeploymentManager

        return DeploymentManager(
            self.repository,
            settings=self.settings,
            local=self.local_status(self.store),
            kubernetes=lambda: self.cluster.parts,
        )

    @cached_property
    def signatures(self) -> Signatures:
        """Who vouches for which version, and where somebody must."""
        from modelyard.repository.signatures import Signatures

        rules = self.settings.security
        return Signatures(
            self.store, trusted=rules.trusted_keys, required=rules.require_signature, user=self.settings.user
        )

    @cached_property
    def access(self) -> Access:
        """Who may ask for what."""
        from modelyard.access.access import Access

        return Access(self.store, self.settings)

    def inspect(self, files: Sequence[File]) -> Inspection:
        """What the importer's inspectors say about a model's files."""
        from modelyard.importer.inspect import inspect_files

        rules = self.settings.scan
        return inspect_files(files, policy=rules.pickles, modelscan_command=rules.modelscan)

    def inference_parts(self) -> Parts:
        """What an InferenceGateway needs."""
        from modelyard.engines import ENGINES
        from modelyard.gateway.inference import OwnGateway, Parts

        own, engines = self.settings.gateway.url, self.settings.engines
        timeout, token = engines.timeout_s, self.settings.token
        urls = {name: getattr(engines, f"{name}_url") or own for name in ENGINES}
        return Parts(
            {
                name: ENGINES[name](url, timeout_s=timeout, token=token if url == own else None)
                for name, url in urls.items()
            },
            self.settings.env,
            lambda name: self.repository.resolve(name).model,
            configured=self._configured_engine,
            external=lambda name: self.configuration.parsed("external").get(name),
            gateway=OwnGateway(own, timeout_s=timeout, token=token),
            addressed=frozenset(name for name in ENGINES if f"{name}_url" in engines.model_fields_set),
            timeout_s=timeout,
        )

    @cached_property
    def embeddings(self) -> EmbeddingManager:
        """The embedding models, chosen by the configuration and loaded in this process."""
        from modelyard.embeddings import EmbeddingManager

        return EmbeddingManager(self.configuration, repository=self.repository, check=self._signed)

    def embedding_parts(self, store: Store) -> tuple[ModelRepository, Callable[[ModelVersion], None]]:
        """What an EmbeddingManager on a store needs: the models, and what refuses those that lack a signature."""
        there = Yard(self.settings, store)
        return there.repository, there._signed

    def _signed(self, version: ModelVersion) -> None:
        self.signatures.require(version, None)

    def run_folder(self, store: Store) -> Path:
        """Where this machine keeps what runs for a store: records, logs, the gateway's files."""
        return self.settings.state.expanduser().resolve() / hashlib.sha256(store.url.encode()).hexdigest()[:12]

    def local_status(self, store: Store) -> LocalStatus:
        """What this machine can tell about the deployments of a store, or what the cluster can that it talks to."""
        from modelyard.deployment import LocalStatus
        from modelyard.deployment.controller import running, trusted
        from modelyard.deployment.targets.room import local_room

        if self._in_cluster:
            return Yard(self.settings, store).cluster.status()
        folder, facts = self.run_folder(store), self.launching.facts
        local = self._local_target(folder)
        room, trusts = partial(local_room, local, facts), partial(trusted, folder)
        return LocalStatus(partial(running, folder), local.peek, local.peek_loaded, facts, room, trusted=trusts)

    @cached_property
    def launching(self) -> Launching:
        """How a version becomes a process on this machine."""
        from modelyard.deployment.launching import Launching

        locks = self.settings.state.expanduser().resolve() / "ollama"
        return Launching(self.settings, self._configured_engine, locks)

    @property
    def local_target(self) -> LocalTarget:
        """The replicas of this machine."""
        return self._local_target(self.run_folder(self.store))

    def controller(self, companions: Sequence[Companion] = ()) -> Controller:
        """What `modelyard up` runs, with what runs beside it."""
        from modelyard.deployment.controller import Controller
        from modelyard.deployment.events import Events, FileNotes
        from modelyard.deployment.plan import Limits
        from modelyard.deployment.reconciler import Reconciler
        from modelyard.deployment.rules import LatestRules
        from modelyard.deployment.targets.on_demand import OnDemand
        from modelyard.gateway import Gateway

        folder, serving = self.run_folder(self.store), self.settings.serving
        target = self._local_target(folder)
        gateway = Gateway(folder / _GATEWAY, self.settings.gateway, issuer=self.access.issuer)
        limits = Limits(ready_s=serving.ready_timeout_s, drain_s=serving.drain_timeout_s)
        reconciler = Reconciler(
            environments=[self.repository.environment(name) for name in ("production", "staging")],
            target=OnDemand(target, limits),
            router=gateway,
            limits=limits,
            user=self.settings.user,
            tags=self.repository.version_tags,
            guard=self._guard(),
            rules=LatestRules(self.configuration.watch).read,
            analyst=self._analyst(gateway.statistics),
        )
        beside = [*companions, Events(reconciler.environments, self._webhook(), FileNotes(folder / "events.json"))]
        return Controller(folder, reconciler, target, gateway, trusts=serving.trust_code, companions=beside)

    def _analyst(self, statistics: Callable[[], Statistics]) -> RolloutAnalyst:
        """Judges by what a gateway has counted, and by what it asks of the versions there."""
        from modelyard.deployment.analyst import RolloutAnalyst, golden_requests
        from modelyard.deployment.measuring import Measuring

        measure = Measuring(self.settings, self.repository.resolve)
        return RolloutAnalyst(statistics, golden_requests(self._client), measure)

    @cached_property
    def cluster(self) -> Assembly:
        """What leads models in a Kubernetes cluster."""
        from modelyard.deployment.rules import LatestRules
        from modelyard.deployment.targets.kubernetes.assembly import Assembly

        return Assembly(
            self.settings,
            self.repository,
            self.signatures,
            self._configured_engine,
            self.launching.facts,
            guard=self._guard,
            rules=lambda: LatestRules(self.configuration.watch).read,
            issuer=lambda: self.access.issuer,
            analyst=self._analyst,
            webhook=self._webhook(),
            folder=self.run_folder(self.store) / _CLUSTER_GATEWAY,
        )

    def gateway_statistics(self) -> Statistics:
        """What the gateway has counted, in a cluster all of them. Raises Unavailable when it does not run."""
        return self.cluster.gateways.statistics() if self._in_cluster else self.gateway.statistics()

    @property
    def gateway(self) -> Gateway:
        """The one of this machine, or of this pod."""
        from modelyard.gateway import Gateway

        folder = _CLUSTER_GATEWAY if self._in_cluster else _GATEWAY
        return Gateway(self.run_folder(self.store) / folder, self.settings.gateway)

    @property
    def _in_cluster(self) -> bool:
        return self.settings.deployment.target == "kubernetes"

    def _webhook(self) -> Callable[[], str | None]:
        """Where events go, as the configuration says it now."""
        from modelyard.access import Fresh

        section = Fresh(lambda: self.configuration.parsed("events"))
        return lambda: section().get("webhook")

    def _client(self, name: str) -> ModelClient:
        from modelyard.deployment.client import ModelClient

        return ModelClient(self.settings.gateway.url, name, token=self.settings.token)

    def engine_of(self, ref: str) -> str:
        """The engine that runs a version, else the one that would. Raises NotFound, InvalidInput."""
        version = self.repository.resolve(ref)
        if self._in_cluster:
            return self.cluster.workloads.engine(version)
        pin = Pin(version.version, version.digest)
        there = (r.engine for r in self.local_target.peek() if (r.model, r.pin) == (version.name, pin))
        return next(filter(None, there), None) or self.launching.choose(version)

    def _guard(self) -> Callable[[RouteTable], RouteTable]:
        """Says of a route table who may use it, and how often."""
        from modelyard.access import Fresh

        rules = self.access.rules(self.settings.gateway.host)
        limits = Fresh(lambda: self.configuration.parsed("rate-limits"))
        return lambda table: replace(table, access=rules(), limits=limits())

    def _local_target(self, folder: Path) -> LocalTarget:
        from modelyard.deployment.targets.local import LocalOptions, LocalTarget
        from modelyard.deployment.variables import replica_variables

        keys = [str(path.expanduser().resolve()) for path in self.settings.security.trusted_keys]
        environ = {key: value for key, value in os.environ.items() if key not in SECRET_VARIABLES} | {
            **replica_variables(self.settings, self.store.url, keys),
            "MODELYARD_CACHE": str(self.settings.cache),
            "MODELYARD_STATE": str(self.settings.state.expanduser().resolve()),
        }
        drain_s, local = self.settings.serving.drain_timeout_s, self.settings.deployment
        how = LocalOptions(drain_s, local.port_range, local.log_size)
        return LocalTarget(folder, self._launch, self._launch_pool, how, environ=environ)

    @staticmethod
    def _launch_pool(environment: str, replica: str, port: int) -> Launch:
        from modelyard.deployment.targets.launch import Launch
        from modelyard.engines import PyTorchServer

        argv = [sys.executable, "-m", "modelyard", "serve", "--pool", environment]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--replica-id", replica]
        return Launch(argv, PyTorchServer.ready_path)

    def _launch(self, ref: ModelRef, replica: str, port: int) -> Launch:
        return self.launching.launch(self.repository.resolve(ref), replica, port)

    def _configured_engine(self, model: str) -> str | None:
        return self.configuration.parsed("engines").get(ModelRef.parse(model).name)
