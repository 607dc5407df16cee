"""MLflow to compare with: its server with SQLite and proxied artifacts, its default; its own client; a large registry.

Other benchmarks use `mlflow_server`; run alone it prints MLflow's own numbers. `make engines` installs it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from measure import free_port, options, print_table, wait_for

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-mlflow" / "bin" / "python"
MIB = 1024 * 1024
_START_TIMEOUT_S = 240  # its first start reads a thousand modules
TASKS = ("text-generation", "text-classification", "feature-extraction", "image-classification")

# (model, version), both from 0 on → the tags of that version; MLflow's registry has no metrics to search by.
Tags = Callable[[int, int], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Found:
    """How long each search took, in seconds, all pages included, and how much it found."""

    seconds: list[float]
    found: int


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server."""

    url: str
    folder: Path
    python: Path

    def push(self, model: Path) -> tuple[float, str]:
        """Log a folder as a run's artifacts; (seconds, run)."""
        done = self._call("push", folder=str(model))
        return done["seconds"], done["run"]

    def pull(self, run: str, destination: Path) -> float:
        """Download them into a folder that exists; seconds."""
        return float(self._call("pull", run=run, destination=str(destination))["seconds"])

    def fill(self, models: int, versions: int, tags: Tags) -> None:
        """Register `model-00000` and so on, the newest version with the alias `champion`.

        Written straight into the tables that the server made: through its API 100,000 versions take hours. Then the
        server itself is asked whether all models are there, and all versions of some; to page through 100,000
        versions takes it many minutes.
        """
        with closing(sqlite3.connect(self.folder / "mlflow.db")) as database, database:
            _insert(database, models, versions, tags)
        self._expect("registered_models", "", models)
        for model in {0, models // 2, models - 1}:
            self._expect("model_versions", f"name = '{_name(model)}'", versions)

    def _expect(self, kind: str, query: str, count: int) -> None:
        found = self.search(kind, query, rounds=0).found
        if found != count:
            raise RuntimeError(f"MLflow finds {found} {kind} by {query!r}, not {count}")

    def search(self, kind: str, query: str, *, rounds: int = 5) -> Found:
        """`registered_models` or `model_versions` that a filter finds."""
        return Found(**self._call("search", kind=kind, query=query, rounds=rounds))

    def by_alias(self, name: str, alias: str = "champion", *, rounds: int = 50) -> list[float]:
        """Seconds that each look-up of a version by its alias took."""
        seconds: list[float] = self._call("by_alias", name=name, alias=alias, rounds=rounds)["seconds"]
        return seconds

    def _call(self, call: str, **asked: Any) -> dict[str, Any]:
        command = [
            str(self.python),
            str(Path(__file__).with_name("mlflow_client.py")),
            json.dumps({"call": call} | asked),
        ]
        environ = quiet_environment() | {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"MLflow's client failed: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


@contextmanager
def mlflow_server(
    folder: Path,
    *,
    python: Path = PYTHON,
    workers: int = 4,
    artifacts: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Peer]:
    """A server with as many workers as MLflow starts by default; artifacts lie in the folder, or where it is said."""
    if not python.exists():
        raise FileNotFoundError(f"{python} is not there: run `make engines`")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(python.absolute()), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", artifacts or str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        given = quiet_environment() | dict(environment or {})
        server = subprocess.Popen(command, stdout=log, stderr=log, env=given, cwd=folder, start_new_session=True)
    try:
        wait_for(lambda: _answers(url), "MLflow", timeout_s=_START_TIMEOUT_S)
        yield Peer(url, folder, python)
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # with its workers
        server.wait()


def quiet_environment() -> dict[str, str]:
    """Without what has no part in what is measured: telemetry, and processes for scheduled jobs."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return os.environ | quiet | {"GIT_PYTHON_REFRESH": "quiet"}


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def _insert(database: sqlite3.Connection, models: int, versions: int, tags: Tags) -> None:
    database.executemany(
        "INSERT INTO registered_models (name, creation_time, last_updated_time, description) VALUES (?, ?, ?, '')",
        ((_name(model), model, model) for model in range(models)),
    )
    database.executemany(
        "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source, status)"
        " VALUES (?, ?, ?, ?, 'None', ?, 'READY')",
        (
            (_name(model), version + 1, model, model, f"mlflow-artifacts:/0/{model}/{version}")
            for model in range(models)
            for version in range(versions)
        ),
    )
    database.executemany(
        "INSERT INTO model_version_tags (key, value, name, version) VALUES (?, ?, ?, ?)",
        (
            (key, value, _name(model), version + 1)
            for model in range(models)
            for version in range(versions)
            for key, value in tags(model, version).items()
        ),
    )
    database.executemany(
        "INSERT INTO registered_model_aliases (alias, version, name) VALUES ('champion', ?, ?)",
        ((versions, _name(model)) for model in range(models)),
    )


def _name(model: int) -> str:
    return f"model-{model:05}"


def usual_tags(model: int, version: int) -> dict[str, str]:
    """A task and a score, as teams keep them."""
    return {"task": TASKS[model % len(TASKS)], "f1": f"{(model * 7 + version) % 100 / 100:.2f}"}


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--mebibytes", type=int, default=64, help="the size of the file that is pushed and pulled")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--versions", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as name:
        folder = Path(name)
        model, back = folder / "model", folder / "back"
        for each in (model, back):
            each.mkdir()
        (model / "weights.bin").write_bytes(os.urandom(given.mebibytes * MIB))
        with mlflow_server(folder / "mlflow") as peer:
            push, run = peer.push(model)
            pull = peer.pull(run, back)
            peer.fill(given.models, given.versions, usual_tags)
            query = "tag.task = 'text-classification'"
            search = peer.search("model_versions", query, rounds=given.rounds)
            alias = statistics.median(peer.by_alias("model-00000"))
        rows = [
            (f"push {given.mebibytes} MiB", f"{given.mebibytes / push:.0f} MiB/s"),
            (f"pull {given.mebibytes} MiB", f"{given.mebibytes / pull:.0f} MiB/s"),
            (f"search, {search.found} found", f"{statistics.median(search.seconds) * 1000:.0f} ms"),
            ("a version by its alias", f"{alias * 1000:.1f} ms"),
        ]
        print_table(f"MLflow with {given.models} models of {given.versions} versions", ("", "MLflow"), rows)


if __name__ == "__main__":
    main()
