"""The API server: what is asked of it, again while it is away, and its refusals in words.

Knows kinds and fields, nothing of models. An API server that is gone for a while delays a change; it fails none.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from modelyard.deployment.targets.kubernetes.names import MANAGER
from modelyard.errors import Conflict, InvalidInput, MissingExtra, ModelyardError, NotFound, Refused, Unavailable
from modelyard.settings import KubernetesSettings

try:
    import httpx2
    from lightkube import ApiError, Client
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError
    from lightkube.core.resource import NamespacedResource
    from lightkube.core.resource_registry import resource_registry
    from lightkube.types import CascadeType, PatchType
except ImportError:
    raise MissingExtra("lightkube", "kubernetes") from None

log = logging.getLogger("modelyard.kubernetes")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
_SLACK_S = 5.0
_PASSING = (429, 500, 502, 503, 504)
_OPTIONAL = frozenset({"PodDisruptionBudget", "HorizontalPodAutoscaler"})

_REFUSALS: dict[int, tuple[type[ModelyardError], str]] = {
    400: (InvalidInput, "mend what is asked for"),
    401: (Refused, "log in to the cluster again"),
    403: (Refused, "have this permission granted"),
    404: (NotFound, ""),
    409: (Conflict, "try again"),
    422: (InvalidInput, "mend what is asked for"),
}

T = TypeVar("T")
R = TypeVar("R", bound=NamespacedResource)
Document = dict[str, Any]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Cluster:
    """One namespace of one cluster."""

    client: Client
    patience_s: float = 120
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _told: set[str] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        return str(self.client.namespace)

    def apply(self, document: Document, *, manager: str = MANAGER, force: bool = False) -> None:
        """Server-side apply. Raises Conflict when a field is somebody else's, Refused, InvalidInput, Unavailable."""
        kind, name = document["kind"], document["metadata"]["name"]
        resource = resource_registry.load(document["apiVersion"], kind)
        try:
            self._again(
                lambda: self.client.patch(
                    resource, name, document, patch_type=PatchType.APPLY, field_manager=manager, force=force
                ),
                f"apply {kind} {name}",
            )
        except NotFound:
            if kind not in _OPTIONAL:
                raise
            self._tell(f"the cluster has no {kind} of {document['apiVersion']}; {name} goes without it")

    def get(self, resource: type[R], name: str) -> R | None:
        """None if it is not there."""
        try:
            return self._again(lambda: self.client.get(resource, name), f"read {resource.__name__} {name}")
        except NotFound:
            return None

    def all(self, resource: type[R], labels: dict[str, str] | None = None) -> list[R]:
        return self._again(
            lambda: list(self.client.list(resource, labels=dict(labels or {}))), f"list {resource.__name__}"
        )

    def listed(self, resource: type[R], labels: dict[str, str]) -> tuple[str, list[R]]:
        """The objects, and the version since which changes are to be watched."""

        def ask() -> tuple[str, list[R]]:
            answer = self.client.list(resource, labels=dict(labels))
            found = list(answer)
            return answer.resourceVersion, found

        return self._again(ask, f"list {resource.__name__}")

    def create(self, found: NamespacedResource) -> None:
        """Raises Conflict when it is there."""
        self._again(lambda: self.client.create(found), f"create {type(found).__name__}")

    def replace(self, found: NamespacedResource) -> None:
        """Raises Conflict when it has changed since it was read."""
        self._again(lambda: self.client.replace(found), f"replace {type(found).__name__}")

    def delete(self, resource: type[R], name: str) -> None:
        """Gone already is as good."""
        with contextlib.suppress(NotFound):
            self._again(
                lambda: self.client.delete(resource, name, cascade=CascadeType.BACKGROUND),
                f"delete {resource.__name__} {name}",
            )

    def log_line(self, pod: str, container: str) -> str:
        """The last line that a container has printed; empty if nobody knows."""
        try:
            lines = [line.strip() for line in self.client.log(pod, container=container, tail_lines=20)]
        except httpx2.HTTPError:
            return ""
        return next((line[:300] for line in reversed(lines) if line), "")

    def watch(
        self, resource: type[R], labels: dict[str, str], resource_version: str, timeout_s: int
    ) -> Iterator[tuple[str, R]]:
        """Changes since then. Raises Unavailable when the watch ends, which it does soon after `timeout_s` when the
        server is gone without a word."""
        self.client._client._watch_timeout.read = timeout_s + _SLACK_S  # else it waits for ever
        try:
            yield from self.client.watch(
                resource, labels=dict(labels), resource_version=resource_version, server_timeout=timeout_s
            )
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Unavailable(f"the watch of {resource.__name__} ended: {error}") from error

    def _again(self, ask: Callable[[], T], what: str) -> T:
        """Until there is an answer, or patience is over."""
        deadline, wait_s = self.clock() + self.patience_s, _FIRST_WAIT_S
        while True:
            try:
                answer = ask()
            except ApiError as error:
                if error.status.code not in _PASSING or self.clock() > deadline:
                    raise refusal(error, what) from error
                reason = _one_line(error.status.message)
            except httpx2.HTTPError as error:
                if self.clock() > deadline:
                    raise Unavailable(
                        f"can't {what}: the API server does not answer: {_one_line(str(error))}",
                        remedy="look whether the cluster is up and KUBECONFIG is right",
                    ) from error
                reason = _one_line(str(error)) or type(error).__name__
            else:
                self._told.discard("away")
                return answer
            if "away" not in self._told:
                self._told.add("away")
                log.warning("the API server does not answer (%s); it is asked again", reason)
            self.sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 2)

    def _tell(self, text: str) -> None:
        """Once."""
        if text not in self._told:
            self._told.add(text)
            log.warning(text)


def connect(settings: KubernetesSettings, *, patience_s: float) -> Cluster:
    """The cluster of the kubeconfig, or the one this process runs in. Raises InvalidInput."""
    try:
        config = KubeConfig.from_env().get(settings.context)
        if config is None:
            raise ConfigError("it names no context")
        timeout = httpx2.Timeout(settings.request_timeout_s)
        client = Client(config, namespace=settings.namespace, timeout=timeout, field_manager=MANAGER)
    except (ConfigError, OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"there is no cluster to talk to: {_one_line(str(error))}", remedy="set KUBECONFIG, or kubernetes.context"
        ) from error
    cluster = Cluster(client, patience_s)
    weakref.finalize(cluster, client.close)
    return cluster


def to_dict(found: NamespacedResource) -> Document:
    """An object as the API has it."""
    return cast("Document", cast("Any", found).to_dict())


def refusal(error: ApiError, what: str) -> ModelyardError:
    """What the API server said, as an error of ours."""
    code, message = error.status.code, _one_line(error.status.message)
    if code == 409 and (owners := _owners(error)):
        return Conflict(
            f"can't {what}: {owners}", remedy="let only one of you set these fields, or take them over with force=True"
        )
    if code == 401:
        message = "the cluster does not know these credentials"
    kind, remedy = _REFUSALS.get(code or 0, (Unavailable, ""))
    return kind(f"can't {what}: {message or code}", remedy=remedy)


def _owners(error: ApiError) -> str:
    """Which field is whose."""
    causes = (error.status.details.causes if error.status.details else None) or []
    fields = [f"{cause.field} belongs to {_manager(cause.message or '')}" for cause in causes if cause.field]
    return "; ".join(field.removeprefix(".") for field in fields)


def _manager(message: str) -> str:
    """Out of `conflict with "kubectl-edit" using apps/v1`."""
    parts = message.split('"')
    return parts[1] if len(parts) > 2 else "somebody else"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())[:500]
