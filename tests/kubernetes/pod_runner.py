"""One pod of the small kubelet, from its init containers to its end. Says in its status what it does."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from lightkube import ApiError, Client
from lightkube.core.resource import NamespacedResource
from lightkube.resources.core_v1 import ConfigMap, Pod, Secret
from lightkube.types import PatchType

Document = dict[str, Any]
R = TypeVar("R", bound=NamespacedResource)
_TICK_S = 0.02
_BACKOFF_S = 0.3  # for a kubelet's ten seconds


class PodRunner(threading.Thread):
    def __init__(self, client: Client, pod: Pod, ip: str, folder: Path, programs: Path, images: set[str]) -> None:
        super().__init__(daemon=True)
        self._client, self._ip, self._folder, self._programs, self._images = client, ip, folder, programs, images
        self._pod: Document = pod.to_dict()
        self._spec: Document = self._pod["spec"]
        self._name, self._namespace = self._pod["metadata"]["name"], self._pod["metadata"]["namespace"]
        self._ending = threading.Event()
        self._killed = threading.Event()
        self._grace_s = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._statuses: dict[str, list[Document]] = {
            "initContainerStatuses": [_waiting(c, "PodInitializing") for c in self._spec.get("initContainers", [])],
            "containerStatuses": [_waiting(c, "PodInitializing") for c in self._spec["containers"]],
        }
        self._environment: dict[str, str] = {}
        self._conditions: dict[str, Document] = {}
        self._phase, self._reported = "Pending", ""

    @property
    def address(self) -> tuple[str, int]:
        """Where its container is asked."""
        return self._ip, self._spec["containers"][0]["ports"][0]["containerPort"]

    def seen(self, pod: Pod) -> None:
        """As the API server has it. What somebody else has said about it is said anew."""
        conditions = (pod.status.conditions if pod.status else None) or []
        ready = next((each.status for each in conditions if each.type == "Ready"), None)
        if ready is not None and ready != self._ready():
            self._reported = ""

    def end(self, grace_s: float) -> None:
        """As the API server asks for it."""
        if not self._ending.is_set():
            self._grace_s = grace_s
            self._ending.set()

    def kill(self) -> None:
        self._killed.set()
        if self._process and self._process.poll() is None:
            self._process.kill()

    def run(self) -> None:
        try:
            self._run()
        except httpx2.HTTPError:  # its namespace is gone, or it was killed while the API server was away
            self.kill()

    def _run(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._report()
        inits = self._statuses["initContainerStatuses"]
        for container, status in zip(self._spec.get("initContainers", []), inits, strict=True):
            while not self._over() and not self._run_to_end(container, status):
                self._back_off(status)
        (container,), (status,) = self._spec["containers"], self._statuses["containerStatuses"]
        while not self._over():
            self._serve(container, status)
            if not self._over():
                self._back_off(status)
        self._vanish()

    def _over(self) -> bool:
        return self._ending.is_set() or self._killed.is_set()

    def _run_to_end(self, container: Document, status: Document) -> bool:
        if not self._pull(container, status):
            return False
        process = self._begin(container, status)
        while process.poll() is None and not self._over():
            time.sleep(_TICK_S)
        if self._over():
            process.kill()
        process.wait()
        self._ended(container, status, process.returncode)
        return process.returncode == 0

    def _serve(self, container: Document, status: Document) -> None:
        """Until it ends by itself or is to end."""
        if not self._pull(container, status):
            return
        process = self._begin(container, status)
        self._phase = "Running"
        started, failures, due = False, 0, 0.0
        while process.poll() is None and not self._over():
            now = time.monotonic()
            probe = container["readinessProbe" if started else "startupProbe"]
            if now >= due:
                well = self._answers(container, probe)
                due = now + (probe["periodSeconds"] if status["ready"] else 0.1)  # a test has no time for more
                failures = 0 if well else failures + 1
                if well:
                    started = status["started"] = status["ready"] = True
                elif not started and failures * 0.1 > probe["failureThreshold"] * probe["periodSeconds"]:
                    process.terminate()
                elif failures >= 3:
                    status["ready"] = False
                self._report()
            time.sleep(_TICK_S)
        if process.poll() is None:
            self._end_process(container, process)
        self._ended(container, status, process.wait())

    def _end_process(self, container: Document, process: subprocess.Popen[bytes]) -> None:
        """preStop first, then SIGTERM, then, when the grace period is over, SIGKILL."""
        deadline = time.monotonic() + self._grace_s
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook and not self._killed.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(hook, env=self._environment, timeout=self._grace_s, check=True)
        if self._killed.is_set():
            process.kill()
        process.terminate()
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()

    def _pull(self, container: Document, status: Document) -> bool:
        image = container["image"]
        if image in self._images:
            return True
        message = f'pull of "{image}" failed: not found'
        status["state"] = {"waiting": {"reason": "ErrImagePull", "message": message}}
        self._report()
        return False

    def _back_off(self, status: Document) -> None:
        if "waiting" in status["state"]:
            status["state"]["waiting"]["reason"] = "ImagePullBackOff"
        else:
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}
            status["lastState"], status["state"] = status["state"], {"waiting": waiting}
        self._report()
        self._ending.wait(_BACKOFF_S)

    def _begin(self, container: Document, status: Document) -> subprocess.Popen[bytes]:
        if status.get("lastState"):
            status["restartCount"] += 1
        environ = self._environment = self._environ(container)
        command = [self._local(_expand(part, environ), container) for part in container["command"]]
        with self._log(container).open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )
        status["state"] = {"running": {"startedAt": now()}}
        self._report()
        return self._process

    def _ended(self, container: Document, status: Document, code: int) -> None:
        said = self._log(container).read_text(errors="replace")[-2000:]
        code = code if code >= 0 else 128 - code
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": said if code else ""}
        status["state"] = {"terminated": ended | {"startedAt": now(), "finishedAt": now()}}
        status["ready"] = code == 0 and container in self._spec.get("initContainers", [])
        status["started"] = False
        if not self._killed.is_set():
            self._report()

    def _answers(self, container: Document, probe: Document) -> bool:
        host, port = self.address
        url = f"http://{host}:{port}{probe['httpGet']['path']}"
        try:
            return bool(httpx2.get(url, timeout=probe["timeoutSeconds"], trust_env=False).is_success)
        except httpx2.HTTPError:
            return False

    def _vanish(self) -> None:
        while not self._killed.is_set():
            try:
                self._client.delete(Pod, self._name, namespace=self._namespace, grace_period=0)
                return
            except httpx2.HTTPError as error:
                if _is_absent(error):
                    return
                time.sleep(0.2)  # the API server is away

    def _environ(self, container: Document) -> dict[str, str]:
        environ = {"PATH": f"{self._programs}:/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        for source in container.get("envFrom", []):
            secret = self._get(Secret, source["secretRef"]["name"])
            environ |= {key: base64.b64decode(value).decode() for key, value in (secret.data or {}).items()}
        fields = {"metadata.name": self._name, "status.podIP": self._ip}
        for entry in container.get("env", []):
            if "valueFrom" in entry:
                environ[entry["name"]] = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            else:
                environ[entry["name"]] = self._local(_expand(entry.get("value", ""), environ), container)
        return environ

    def _local(self, text: str, container: Document) -> str:
        for mount in container.get("volumeMounts", []):
            folder = self._volume(mount["name"])
            text = re.sub(rf'(?<![\w/.]){re.escape(mount["mountPath"])}(?=/|"|$)', str(folder), text)
        return text

    def _volume(self, name: str) -> Path:
        volume = next(each for each in self._spec["volumes"] if each["name"] == name)
        folder = self._folder / "volumes" / name
        if "hostPath" in volume:
            folder = self._folder.parent.parent / "host" / volume["hostPath"]["path"].lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            found = self._get(ConfigMap, volume["configMap"]["name"])
            for key, text in (found.data or {}).items():
                (folder / key).write_text(text)
        return folder

    def _get(self, kind: type[R], name: str) -> R:
        """Waits while the API server is away. Raises HTTPError when it is not there, or the pod is killed meanwhile."""
        while True:
            try:
                return self._client.get(kind, name, namespace=self._namespace)
            except httpx2.HTTPError as error:
                if self._killed.is_set() or _is_absent(error):
                    raise
                time.sleep(0.2)

    def _log(self, container: Document) -> Path:
        return self._folder / f"{container['name']}.log"

    def _report(self) -> None:
        """If there is anything new. What can't be said now is said the next time."""
        state = self._ready()
        kinds = {"Initialized": "True", "PodScheduled": "True", "Ready": state, "ContainersReady": state}
        for kind, value in kinds.items():
            if self._conditions.get(kind, {}).get("status") != value:
                self._conditions[kind] = {"type": kind, "status": value, "lastTransitionTime": now()}
        conditions = list(self._conditions.values())
        body: Document = {"phase": self._phase, "conditions": conditions, **self._statuses}
        body |= {"podIP": self._ip, "podIPs": [{"ip": self._ip}], "hostIP": "127.0.0.1"}
        if repr(body) == self._reported:
            return
        with contextlib.suppress(httpx2.HTTPError):
            self._client.patch(
                Pod.Status, self._name, {"status": body}, namespace=self._namespace, patch_type=PatchType.STRATEGIC
            )
            self._reported = repr(body)

    def _ready(self) -> str:
        return "True" if all(status["ready"] for status in self._statuses["containerStatuses"]) else "False"


def _waiting(container: Document, reason: str) -> Document:
    image = container["image"]
    status: Document = {"name": container["name"], "image": image, "imageID": image, "restartCount": 0}
    return status | {"ready": False, "started": False, "state": {"waiting": {"reason": reason}}}


def _is_absent(error: httpx2.HTTPError) -> bool:
    return isinstance(error, ApiError) and error.status.code == 404


def _expand(text: str, environ: dict[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda match: environ.get(match[1], match[0]), text)


def now() -> str:
    """As the API has times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
