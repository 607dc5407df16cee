"""A cluster that serves `classifier`: what a person does there, and what can be seen."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from lightkube.resources.core_v1 import Pod

from modelyard import Yard
from modelyard.deployment.status import Status
from modelyard.deployment.targets.kubernetes.lease import lease_name
from modelyard.deployment.targets.kubernetes.notes import ClusterNotes
from modelyard.gateway import Gateway
from modelyard.gateway import process as envoy
from modelyard.repository import Deployment

from .kubelet import Kubelet, wait_for
from .running import Load, kill, process

MODEL, OLD, NEW = "classifier", "v1.1.0", "v1.2.0"


class Site:
    """`modelyard controller` and `modelyard gateway` run as processes that may be killed and started again."""

    def __init__(self, folder: Path, yard: Yard, kubelet: Kubelet) -> None:
        self.yard = yard
        self.gateway = yard.settings.gateway.url
        self._folder, self._kubelet = folder, kubelet
        self._envoy = yard.cluster.folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    @contextmanager
    def open(self) -> Iterator[None]:
        """What was started ends with the block, Envoy included."""
        with self._stack:
            yield
        Gateway(self._envoy, self.yard.settings.gateway).stop(drain_s=0)

    def start(self, command: str) -> None:
        ready = f"{self.gateway}/readyz" if command == "gateway" else ""
        self._running[command] = self._stack.enter_context(process(command, self._folder / f"{command}.log", ready))

    def kill(self, command: str) -> None:
        kill(self._running[command])

    def begin(self, replicas: int = 1) -> None:
        """Start everything, and have OLD served."""
        for command in ("controller", "gateway"):
            self.start(command)
        wait_for(self.yard.local_status(self.yard.store).running, what=self.log)
        self.promote(OLD, replicas=replicas)

    def promote(self, version: str, *, wait: bool = True, **wish: Any) -> None:
        """Without validation, which has tests of its own."""
        self.yard.deployments.promote_to_production(MODEL, version, **wish, force=True, reason="a test", wait=wait)

    def load(self) -> AbstractContextManager[Load]:
        """Clients that ask until the block ends."""
        return Load(self.gateway, MODEL).running()

    def now(self) -> Deployment:
        return self.yard.repository.environment("production").get(MODEL)

    def status(self) -> Status:
        """What `modelyard status` shows."""
        (row,) = self.yard.deployments.status()
        return row

    def pods(self, version: str) -> list[Pod]:
        """Those that are to end, too."""
        return self.yard.cluster.parts.cluster.all(Pod, {"app.kubernetes.io/version": version})

    def notes(self) -> dict[str, int]:
        """Which events have gone to the webhook."""
        name = f"{lease_name(self.yard.store.url)}-events"
        return ClusterNotes(self.yard.cluster.parts.cluster, name).read()

    def wait_until_done(self) -> None:
        wait_for(lambda: self.now().outcome == "done", 150, self.log)

    def envoy(self) -> psutil.Process | None:
        """The process that runs now."""
        run = envoy.recorded(self._envoy)
        return run.process() if run else None

    def endpoints(self) -> str:
        """Where Envoy leads requests, or has led them, as it was told."""
        return "".join(path.read_text() for path in (self._envoy / "eds").glob("*.json"))

    def log(self) -> str:
        own = (path.read_text() for path in self._folder.glob("*.log"))
        return "\n".join([*own, self._kubelet.log(), str(self.now())])
