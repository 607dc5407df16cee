"""A real MLflow for the tests marked `side_environment`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-mlflow" / "bin" / "python"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True, slots=True)
class MLflow:
    """A running server, and the interpreter that has its client."""

    url: str
    folder: Path

    @property
    def address(self) -> str:
        """How modelyard writes it."""
        return self.url.replace("http://", "mlflow://")

    def run(self, script: Path, *arguments: str) -> dict[str, str]:
        """Run a script with MLflow's own client; it prints a JSON object last."""
        environ = os.environ | QUIET | {"MLFLOW_TRACKING_URI": self.url, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
        command = [str(PYTHON), str(script), *arguments]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return found


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflow]:
    """MLflow with SQLite and proxied artifacts, empty."""
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON.parent.parent} is not there: run `make engines`", pytrace=False)
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [str(PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | QUIET, cwd=folder, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield MLflow(f"http://127.0.0.1:{port}", folder)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"MLflow did not start: {log.read_text()[-2000:]}")
        time.sleep(0.1)
