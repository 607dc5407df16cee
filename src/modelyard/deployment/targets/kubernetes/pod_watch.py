"""The pods of a yard as the API server tells of them: listed once, then watched, listed anew after every break.

While the API server is away the last pods stand: a gateway goes on with those it knows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from threading import Event, Lock, Thread

from lightkube.resources.core_v1 import Pod

from modelyard.deployment.targets.kubernetes.cluster import Cluster
from modelyard.errors import ModelyardError, Unavailable

log = logging.getLogger("modelyard.kubernetes")

WATCH_S = 30  # in which changes may be missed, when a connection is lost and nobody says so
_REST_S = 0.5


class PodWatch:
    """Follows the pods with these labels in a thread of its own; `changed` is set whenever there is something new."""

    def __init__(self, cluster: Cluster, labels: Mapping[str, str]) -> None:
        self._cluster, self._labels = cluster, dict(labels)
        self.changed = Event()
        self._known: dict[str, Pod] | None = None
        self._lock = Lock()
        self._told = ""

    def start(self) -> None:
        Thread(target=self._follow, daemon=True, name="pods").start()

    def pods(self) -> list[Pod] | None:
        """None until they were listed for the first time."""
        with self._lock:
            return None if self._known is None else list(self._known.values())

    def _follow(self) -> None:
        while True:
            try:
                self._watch(self._list())
            except ModelyardError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.warning("pods are not told of now: %s", error)
            time.sleep(_REST_S)

    def _list(self) -> str:
        version, found = self._cluster.listed(Pod, self._labels)
        with self._lock:
            self._known = {_uid(pod): pod for pod in found}
        self.changed.set()
        self._told = ""
        return version

    def _watch(self, version: str) -> None:
        for kind, pod in self._cluster.watch(Pod, self._labels, version, WATCH_S):
            with self._lock:
                if self._known is None:
                    raise Unavailable("pods were never listed")
                if kind == "DELETED":
                    self._known.pop(_uid(pod), None)
                else:
                    self._known[_uid(pod)] = pod
            self.changed.set()


def _uid(pod: Pod) -> str:
    return str(pod.metadata.uid if pod.metadata else "")
