"""A small kubelet: pods bound to its node run as processes of this machine, each at an address of its own.

It does what a rollout depends on: images that are there or not, init containers, environment, probes, restarts,
preStop, grace period, status, the node's sign of life. Volumes are folders; paths below a mount are rewritten, since
there are no namespaces.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from lightkube import ApiError, Client
from lightkube.config.kubeconfig import KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Node, Pod
from lightkube.types import PatchType

from .pod_runner import PodRunner, now

# Of several test processes each has addresses of its own.
_NETWORK = 77 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))

POLL_S = 0.05
_ALIVE_S = 1.0  # between two signs of life; 10 for a kubelet
_addresses = itertools.count(1)


class Kubelet:
    """One node. `images`: what can be pulled; `allocatable`: what it has."""

    def __init__(self, kubeconfig: Path, folder: Path, name: str = "node-1", **allocatable: str) -> None:
        self.name = name
        self.images: set[str] = set()
        self._allocatable = {"cpu": "64", "memory": "64Gi", "pods": "110"} | allocatable
        self._client = Client(KubeConfig.from_file(kubeconfig).get(), timeout=httpx2.Timeout(5))
        self._folder = folder
        self._runners: dict[str, PodRunner] = {}
        self._bin = _programs(folder / "bin")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._told = float("-inf")
        self._dead: list[socket.socket] = []

    @contextmanager
    def running(self) -> Iterator[Kubelet]:
        self._register()
        self._start()
        try:
            yield self
        finally:
            self._end()
            self._free_addresses()
            self._client.delete(Node, self.name)
            self._client.close()

    def die(self) -> None:
        """As a node that loses its power: its processes are gone, who connects to its addresses waits in vain, and
        nobody tells the API server. Connections there are, however, end at once."""
        addresses = [runner.address for runner in self._runners.values()]
        self._end()
        self._dead = [each for address in addresses for each in _silent(address)]

    def come_back(self) -> None:
        """With nothing of what ran on it."""
        self._free_addresses()
        self._start()

    def log(self) -> str:
        """What all containers have printed."""
        logs = sorted(self._folder.glob("pods/*/*.log"))
        return "\n".join(f"==> {path}\n{path.read_text(errors='replace')[-2000:]}" for path in logs)

    def _start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _end(self) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        for runner in self._runners.values():
            runner.kill()
        for runner in self._runners.values():
            runner.join()
        self._runners.clear()

    def _free_addresses(self) -> None:
        for each in self._dead:
            each.close()
        self._dead = []

    def _register(self) -> None:
        with_labels = ObjectMeta(name=self.name, labels={"kubernetes.io/hostname": self.name})
        self._client.create(Node(metadata=with_labels))
        self._tell()
        self._client.patch(Node, self.name, {"spec": {"taints": None}}, patch_type=PatchType.MERGE)

    def _tell(self) -> None:
        """That the node is well."""
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now()}
        status = {"capacity": self._allocatable, "allocatable": self._allocatable, "conditions": [ready]}
        self._client.patch(Node.Status, self.name, {"status": status}, patch_type=PatchType.STRATEGIC)
        self._told = time.monotonic()

    def _loop(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                if time.monotonic() - self._told > _ALIVE_S:
                    self._tell()
                self._look()
            except (httpx2.HTTPError, ApiError):
                continue  # the API server is away; pods go on

    def _look(self) -> None:
        there: set[str] = set()
        for pod in self._client.list(Pod, namespace="*", fields={"spec.nodeName": self.name}):
            assert pod.metadata is not None and pod.metadata.uid is not None
            uid = pod.metadata.uid
            there.add(uid)
            runner = self._runners.get(uid)
            if runner is None:
                number = next(_addresses)
                ip = f"127.{_NETWORK}.{number // 250}.{number % 250 + 1}"
                folder = self._folder / "pods" / f"{pod.metadata.name}"
                runner = PodRunner(self._client, pod, ip, folder, self._bin, self.images)
                self._runners[uid] = runner
                runner.start()
            runner.seen(pod)
            if pod.metadata.deletionTimestamp:
                runner.end(pod.metadata.deletionGracePeriodSeconds or 0)
        for uid in set(self._runners) - there:
            self._runners.pop(uid).kill()


def _silent(address: tuple[str, int]) -> list[socket.socket]:
    """Sockets that keep an address from answering: one listens, the other one fills its queue."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(0)
    return [listener, socket.create_connection(address)]


def _programs(folder: Path) -> Path:
    """What the image holds: `modelyard` and `sleep`."""
    folder.mkdir(parents=True)
    program = folder / "modelyard"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m modelyard "$@"\n')
    program.chmod(0o755)
    sleep = shutil.which("sleep")
    assert sleep
    (folder / "sleep").symlink_to(sleep)
    return folder


def wait_for(condition: Any, timeout_s: float = 60, what: Any = "the condition did not come true") -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what() if callable(what) else what
        time.sleep(0.05)
    return found
