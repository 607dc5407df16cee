"""One machine that runs `modelyard up` on a store of its own, all below one temporary folder."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from modelyard.deployment import Suite
from modelyard.deployment.plan import Replica
from modelyard.deployment.promotion import AS_CONFIGURED, RolloutOptions
from modelyard.repository import Deployment
from modelyard.settings import GatewaySettings, load_settings
from modelyard.store import LocalDisk
from modelyard.yard import Yard
from ports import free_port

WIDTH = 2
_TENSOR = {"datatype": "FP32", "shape": [-1, WIDTH]}
SIGNATURE = {"signature": {"inputs": [_TENSOR | {"name": "x"}], "outputs": [_TENSOR | {"name": "y"}]}}


class Machine:
    """Its folders, its gateway's port, its supervisor, and a name for the model that no other process here has."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}  # of the supervisor, beside those that every machine has
        self.port, self.api_port = free_port(), free_port()
        self.model = f"m{uuid.uuid4().hex[:10]}"
        self.up: subprocess.Popen[bytes] | None = None
        self.values = {
            "store": store or LocalDisk(folder / "store").url,
            "cache": str(folder / "cache"),
            "state": str(folder / "state"),
        }
        self.values["user"] = "tester"
        self.yard = Yard(load_settings(folder, gateway=GatewaySettings(port=self.port), **self.values))
        self.run_folder = self.yard.run_folder(self.yard.store)

    def register(self, version: str, artifact: Path, metadata: dict[str, Any] | None = None) -> None:
        self.yard.repository.register_model(self.model, version, artifact, metadata)

    def start(self) -> None:
        """Start the supervisor; afterwards it has its lock, and a gateway listens: its own, or the one it adopts."""
        with (self.folder / "up.log").open("ab") as log:
            self.up = subprocess.Popen(self._command("up"), stdout=log, stderr=log, env=self._environ, cwd=self.folder)
        local = self.yard.local_status(self.yard.store)
        wait_for(lambda: (local.running() and self._accepts()) or self._ended(), what=self.log)
        assert not self._ended(), self.log()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command line of modelyard."""
        return subprocess.run(
            self._command(*arguments),
            env=self._environ,
            cwd=self.folder,
            timeout=60,
            capture_output=True,
            text=True,
            check=False,
        )

    def run_on_terminal(self, *arguments: str) -> str:
        """The same on a terminal, wide enough for every line; what it was sent, output and errors together."""
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 200))
        with (
            subprocess.Popen(
                self._command(*arguments),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=self._environ | {"TERM": "xterm"},
                cwd=self.folder,
            ) as process,
            os.fdopen(master, "rb", buffering=0) as terminal,
        ):
            os.close(slave)
            written, deadline = b"", time.monotonic() + 60
            while chunk := _read(terminal, deadline):
                written += chunk
        assert process.returncode == 0, written
        return written.decode()

    def kill(self) -> None:
        """`kill -9` of the supervisor alone."""
        assert self.up
        self.up.kill()
        self.up.wait()

    def pause(self) -> None:
        assert self.up
        self.up.send_signal(signal.SIGSTOP)

    def promote(
        self,
        version: str,
        *,
        replicas: int | None = None,
        min_replicas: int | None = None,
        rollout: RolloutOptions = AS_CONFIGURED,
        suite: Suite | None = None,
        wait: bool = True,
    ) -> Deployment:
        """Without validation, which has tests of its own."""
        return self.yard.deployments.promote_to_production(
            self.model,
            version,
            replicas=replicas,
            min_replicas=min_replicas,
            rollout=rollout,
            suite=suite,
            wait=wait,
            force=True,
            reason="a test",
        )

    def deployment(self) -> Deployment:
        return self.yard.repository.environment("production").get(self.model)

    def replicas(self, version: str | None = None) -> list[Replica]:
        """As the supervisor saw them last."""
        found = self.yard.local_target.peek()
        return [r for r in found if version is None or str(r.pin) == version]

    def wait_for_replicas(self, version: str, count: int) -> None:
        """Until so many of the version are ready, and nothing else is left."""
        wanted = [(version, "ready")] * count
        wait_for(lambda: [(str(r.pin), r.state) for r in self.replicas()] == wanted, what=self.log)

    def processes(self) -> list[psutil.Process]:
        """What runs for this machine: replicas, pools, and the gateway."""
        found = []
        pools = {pool.id for pool in self.yard.local_target.peek_pools()}
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or ()
            line = " ".join(words)
            replica = "--replica-id" in line and (f"-{self.model}-" in line or not pools.isdisjoint(words))
            if replica or str(self.run_folder / "gateway" / "bootstrap.json") in line:
                found.append(process)
        return found

    def pid(self, replica: Replica) -> int:
        record = json.loads((self.run_folder / "replicas" / f"{replica.id}.json").read_text())
        return int(record["pid"])

    def log(self) -> str:
        path = self.folder / "up.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        """End everything that this machine started, by its own process ids."""
        started = self.processes()
        if self.up:
            self.up.kill()
            self.up.wait()
        for process in [*started, *self.processes()]:
            if process.is_running():
                process.kill()
        psutil.wait_procs(started, timeout=10)

    @property
    def _environ(self) -> dict[str, str]:
        own = {f"MODELYARD_{key.upper()}": value for key, value in self.values.items()}
        own |= {"MODELYARD_GATEWAY__PORT": str(self.port), "MODELYARD_API__PORT": str(self.api_port)}
        return os.environ | own | {"MODELYARD_SERVING__TRUST_CODE": json.dumps([self.model])} | self.variables

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "modelyard", *arguments]

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _ended(self) -> bool:
        return self.up is not None and self.up.poll() is not None


def _read(terminal: io.FileIO, deadline: float) -> bytes:
    """What comes next; nothing when the last program has left the terminal."""
    ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
    assert ready, "the command did not end"
    try:
        return terminal.read(65536)
    except OSError as error:
        assert error.errno == errno.EIO, error
        return b""


def wait_for(condition: Callable[[], Any], *, what: Callable[[], str] = lambda: "", timeout_s: float = 60) -> None:
    """Poll; after the deadline the test fails, with what `what` says then."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true: {what()}"
        time.sleep(0.005)


def save_onnx(path: Path, factor: float) -> Path:
    """y = factor · x"""
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y"))
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "multiply", [x], [y], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), str(path))
    return path


def save_torchscript(path: Path, factor: float, *, broken: bool = False) -> Path:
    """y = factor · x, or an error for every request."""
    import torch

    class Model(torch.nn.Module):
        def __init__(self, factor: float, broken: bool) -> None:
            super().__init__()
            self.factor = factor
            self.broken = broken

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.broken:
                raise ValueError("no weights for this shape")
            return x * self.factor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Model(factor, broken)).save(str(path))
    return path


def save_slow(folder: Path, factor: float) -> Path:
    """y = factor · x, after a second."""
    return _save_handler(folder, factor, "pass", "time.sleep(1)")


def save_never_ready(folder: Path, factor: float) -> Path:
    """One that loads for ever."""
    return _save_handler(folder, factor, "time.sleep(600)", "pass")


def save_crashing(folder: Path, factor: float, requests: int) -> Path:
    """y = factor · x, so many times. Then its process ends, which is some other thread's doing."""
    crash = "os.write(2, b'out of luck\\n'), os._exit(3)"
    predict = f"self.left -= 1; self.left or threading.Timer(0.1, lambda: ({crash})).start()"
    return _save_handler(folder, factor, f"self.left = {requests}", predict)


def _save_handler(folder: Path, factor: float, setup: str, predict: str) -> Path:
    folder.mkdir()
    (folder / "handler.py").write_text(
        "import os\nimport threading\nimport time\n\n\n"
        "class Handler:\n"
        f"    def setup(self, folder):\n        {setup}\n\n"
        f"    def predict(self, inputs):\n        {predict}\n"
        f"        return {{'y': inputs['x'] * {factor}}}\n"
    )
    return folder
