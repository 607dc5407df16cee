"""A real control plane of Kubernetes on loopback: etcd, API server, controller manager and scheduler.

The programs lie in the folder that KUBEBUILDER_ASSETS names. There is no kubelet; kubelet.py plays one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from ports import free_port

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
VARIABLE = "KUBEBUILDER_ASSETS"
_TOKEN = "test-admin"
_PATIENCE_S = 60
_CONTROLLERS = "*,-cloud-node-lifecycle,-nodeipam,-route,-service"
NODE_GRACE_S = 10  # after which a node that says nothing counts as lost; by default 40
_EVICTION_S = 5  # after which the pods of a lost node are to end, so that others start elsewhere; by default 300


def missing() -> str:
    """What the control plane lacks on this machine; empty when it can run."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return f"{VARIABLE} is not set"
    absent = [name for name in PROGRAMS if not (Path(folder) / name).is_file()]
    absent += [] if _etcd() else ["etcd"]
    return f"{folder} lacks {', '.join(absent)}" if absent else ""


class ControlPlane:
    """`kubeconfig` leads to it, to `port`; the API server may be taken away for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self._bin = Path(os.environ[VARIABLE])
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.port, self._etcd, self._peer, self._manager, self._scheduler = (free_port() for _ in range(5))

    @contextlib.contextmanager
    def running(self) -> Iterator[ControlPlane]:
        self._write_files()
        try:
            self._start_etcd()
            self._start_api_server()
            self._start_controllers()
            yield self
        finally:
            for name in reversed(list(self._running)):
                self._stop(name)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """The API server is gone, at once, until the block ends."""
        self._stop("kube-apiserver", patience_s=0)
        try:
            yield
        finally:
            self._start_api_server()

    def _start_api_server(self) -> None:
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            *("--bind-address=127.0.0.1", f"--secure-port={self.port}", "--advertise-address=127.0.0.1"),
            *("--endpoint-reconciler-type=none", f"--cert-dir={self.folder / 'certs'}", "--authorization-mode=RBAC"),
            *("--anonymous-auth=false", f"--token-auth-file={self.folder / 'tokens.csv'}"),
            *("--service-cluster-ip-range=10.0.0.0/24", "--service-account-issuer=https://kubernetes.default.svc"),
            f"--service-account-key-file={self.folder / 'sa.pub'}",
            f"--service-account-signing-key-file={self.folder / 'sa.key'}",
            *(f"--default-{why}-toleration-seconds={_EVICTION_S}" for why in ("not-ready", "unreachable")),
        )
        self._await(f"https://127.0.0.1:{self.port}/readyz")

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._start(
            _etcd(),
            *("--data-dir", str(self.folder / "etcd"), "--listen-client-urls", client),
            *("--advertise-client-urls", client, "--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--unsafe-no-fsync"),
        )
        self._await(f"{client}/health")

    def _start_controllers(self) -> None:
        common = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"]
        common += [f"--cert-dir={self.folder / 'certs'}"]
        manager = [f"--service-account-private-key-file={self.folder / 'sa.key'}", f"--controllers={_CONTROLLERS}"]
        manager += [f"--node-monitor-grace-period={NODE_GRACE_S}s", "--node-monitor-period=1s"]
        for name, port, own in (
            ("kube-controller-manager", self._manager, manager),
            ("kube-scheduler", self._scheduler, []),
        ):
            insecure = ["--port=0"] if self._minor() < 24 else []
            self._start(name, *common, f"--secure-port={port}", *insecure, *own)
            self._await(f"https://127.0.0.1:{port}/healthz")
        self._await(f"https://127.0.0.1:{self.port}/api/v1/namespaces/default/serviceaccounts/default")

    def _minor(self) -> int:
        said = subprocess.run([self._bin / PROGRAMS[0], "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"v1\.(\d+)", said)
        return int(found[1]) if found else 0

    def _start(self, program: str, *options: str) -> None:
        path = program if "/" in program else str(self._bin / program)
        with (self.folder / f"{Path(path).name}.log").open("ab") as log:
            process = subprocess.Popen([path, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._running[Path(path).name] = process

    def _stop(self, name: str, *, patience_s: float = 10) -> None:
        process = self._running.pop(name)
        try:
            if patience_s:
                process.terminate()
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await(self, url: str) -> None:
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, headers=headers, timeout=5, verify=False, trust_env=False).is_success:
                    return
            assert time.monotonic() < deadline, f"{url} does not answer; see {self.folder}/*.log"
            time.sleep(0.05)

    def _write_files(self) -> None:
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-out", public], check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
        server = f"https://127.0.0.1:{self.port}"
        self.kubeconfig.write_text(
            "apiVersion: v1\nkind: Config\n"
            f'clusters: [{{name: c, cluster: {{server: "{server}", insecure-skip-tls-verify: true}}}}]\n'
            f"users: [{{name: u, user: {{token: {_TOKEN}}}}}]\n"
            "contexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n"
        )


def _etcd() -> str:
    own = Path(os.environ.get(VARIABLE, "")) / "etcd"
    return str(own) if own.is_file() else shutil.which("etcd") or ""
